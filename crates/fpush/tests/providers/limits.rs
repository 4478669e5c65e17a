//! Rate limit, line and end, over the wire.

use std::{collections::HashSet, time::Instant};

use fpush_testkit::{Answer, FakeApns, Gate, Reply, TestCa, publish::ejabberd_publish};
use serde_json::json;

use crate::{
    apns::{apple, token, tokens},
    rig::{LONG, OVERLOAD, REFUSED, RESULT, Rig, SECOND, UNAVAILABLE, modules},
};

#[test]
fn first_at_once_second_later_third_refused() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let window = 8 * SECOND;
    let limit = |reply: &str| json!({ "ratelimit": { "ratelimitTime": "8s", "refusedReply": reply } });
    let all = modules([
        ("wait", apple(&apns, limit("wait"))),
        ("ack", apple(&apns, limit("result"))),
    ]);
    let mut rig = Rig::start(&ca, all, &[]);
    for (number, (module, refused)) in [("wait", REFUSED), ("ack", RESULT)].into_iter().enumerate() {
        // So that the connection is there.
        assert_eq!(rig.push(module, &token(99)), RESULT);
        let (token, seen) = (token(number), apns.count());
        // The window begins later than this: what is measured at the fake alone may have come late to it.
        let began = Instant::now();
        assert_eq!(rig.push(module, &token), RESULT);
        assert_eq!(rig.push(module, &token), RESULT, "the second is acknowledged");
        assert_eq!(apns.count(), seen + 1, "at once, not when it is sent");
        for _ in 0..3 {
            assert_eq!(rig.push(module, &token), refused);
        }
        let second = apns.wait_for(seen + 2, LONG)[seen + 1].at - began;
        assert!(second >= window, "{second:?}");
        // The queued one restarted the window.
        assert_eq!(rig.push(module, &token), RESULT);
        assert_eq!(apns.count(), seen + 2);
        let third = apns.wait_for(seen + 3, LONG)[seen + 2].at - began;
        assert!(third >= 2 * window, "{third:?}");
    }
    rig.link.expect_silence(SECOND / 5);
    assert_eq!(
        apns.count(),
        2 + 6,
        "one push per publish that was acknowledged for itself"
    );
}

#[test]
fn the_default_module_is_the_same_module_under_two_names() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = apple(&apns, json!({ "is_default_module": true }));
    let mut rig = Rig::start(&ca, modules([("m", module)]), &[]);
    let mut verdict = |module| {
        let id = format!("{module:?}");
        rig.link.send(ejabberd_publish(&id, &token(1), module, true));
        rig.verdict(&id)
    };
    assert_eq!(verdict(Some("m")), RESULT);
    assert_eq!(verdict(None), RESULT, "it is queued");
    assert_eq!(verdict(Some("default")), REFUSED, "one rate limit");
    assert_eq!(verdict(Some("")), REFUSED);
    assert_eq!(verdict(Some("nobody")), OVERLOAD);
    assert_eq!((apns.count(), apns.connections()), (1, 1));
    rig.daemon.terminate();
    apns.wait_for(2, LONG);
    assert!(rig.daemon.wait(LONG).success());
    assert_eq!((apns.count(), apns.connections()), (2, 1), "one connection");
}

#[test]
fn a_thousand_publishes_are_a_thousand_pushes() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    // Each waits for those before.
    let patient = json!({ "apns": { "requestTimeout": "24s" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, patient))]), &[]);
    let all = tokens(0..1_000);
    let verdicts = rig.push_all("m", &all);
    assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
    let requests = apns.requests();
    assert_eq!(requests.len(), 1_000);
    let seen: HashSet<_> = requests.iter().map(|request| &request.token).collect();
    assert_eq!(seen, all.iter().collect());
    let ids: HashSet<_> = requests.iter().map(|request| request.header("apns-id")).collect();
    assert_eq!(ids.len(), 1_000);
}

#[test]
fn a_flood_delays_only_itself() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let gate = Gate::new();
    apns.answer_with({
        let gate = gate.clone();
        move |_| Answer::Normal.behind(&gate)
    });
    let mut rig = Rig::start(
        &ca,
        modules([("m", apple(&apns, json!({ "maxInFlight": 1 })))]),
        &[],
    );
    let mut flood: Vec<_> = (0..60)
        .map(|number| rig.publish_from("flood.example", "m", &token(number)))
        .collect();
    // One is at the provider, ten are in the line, and the others are refused.
    let refused: HashSet<_> = (0..49)
        .map(|_| Reply::parse(&rig.link.next_stanza(LONG)))
        .map(|reply| {
            assert_eq!(reply.verdict(), OVERLOAD);
            reply.id
        })
        .collect();
    flood.retain(|id| !refused.contains(id));
    let small: Vec<_> = (100..103)
        .map(|number| rig.publish_from("small.example", "m", &token(number)))
        .collect();
    // When this is refused, all have come.
    let last = rig.publish_from("flood.example", "m", &token(60));
    assert_eq!(rig.verdict(&last), OVERLOAD);
    gate.open();
    for id in small {
        assert_eq!(rig.verdict(&id), RESULT);
    }
    let requests = apns.requests().into_iter().enumerate();
    let turns = requests.filter(|(_, request)| tokens(100..103).contains(&request.token));
    let turns: Vec<_> = turns.map(|(turn, _)| turn).collect();
    assert!(
        turns[0] <= 2,
        "behind the one at the provider and one in the line: {turns:?}"
    );
    assert_eq!(turns[2] - turns[0], 4, "one of the flood, one of ours: {turns:?}");
    let verdicts: Vec<_> = flood.iter().map(|id| rig.verdict(id)).collect();
    let sent = verdicts.iter().filter(|verdict| *verdict == RESULT).count();
    let refused = verdicts.iter().filter(|verdict| *verdict == OVERLOAD).count();
    assert_eq!(sent + refused, 11, "{verdicts:?}");
    assert!((8..=11).contains(&sent), "those of others took places: {sent}");
    assert_eq!(apns.count(), sent + 3, "what was refused is not sent");
    assert_eq!(rig.push("m", &token(59)), RESULT, "and took no slot");
}

/// The owner of a domain has any number of names below it: together they have one share of the line.
#[test]
fn a_flood_of_many_names_of_one_domain_delays_only_itself() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).delay(SECOND / 20).start();
    let module = json!({ "maxInFlight": 2 });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, module))]), &[]);
    let mut flood = Vec::new();
    for number in 0..40 {
        for name in 40 * number..40 * (number + 1) {
            flood.push(rig.publish_from(&format!("d{name}.evil.org"), "m", &token(name)));
        }
        assert_eq!(rig.push("m", &token(5_000 + number)), RESULT, "{number}");
    }
    let verdicts: Vec<_> = flood.iter().map(|id| rig.verdict(id)).collect();
    let refused = verdicts.iter().filter(|verdict| *verdict == OVERLOAD).count();
    assert!(refused > 800, "the line was not full: {refused}");
}

/// What was acknowledged and waits for its time has turns by registrable domain as well.
#[test]
fn a_flood_of_queued_pushes_delays_only_itself() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = json!({ "maxInFlight": 1, "ratelimit": { "ratelimitTime": "3s" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, module))]), &[]);
    const FLOOD: usize = 100;
    for _ in 0..2 {
        for number in 0..FLOOD {
            let id = rig.publish_from(&format!("d{number}.evil.org"), "m", &token(number));
            assert_eq!(rig.verdict(&id), RESULT);
        }
    }
    let ours = token(5_000);
    assert_eq!(rig.push("m", &ours), RESULT);
    let due = Instant::now() + 3 * SECOND;
    assert_eq!(rig.push("m", &ours), RESULT);
    // From here on the flood alone has work for five seconds.
    apns.answer_with(|_| Answer::Normal.after(SECOND / 20));
    let requests = apns.wait_for(2 * (FLOOD + 1), LONG);
    let second = requests.iter().rposition(|request| request.token == ours);
    let before = &requests[..second.unwrap()];
    let meanwhile = before.iter().filter(|request| request.at > due).count();
    assert!(meanwhile <= 5, "{meanwhile} of the flood came first");
}

#[test]
fn a_queued_push_outlives_an_outage() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(
        &ca,
        modules([(
            "m",
            apple(&apns, json!({ "ratelimit": { "ratelimitTime": "1s" } })),
        )]),
        &[],
    );
    assert_eq!(rig.push("m", &token(1)), RESULT);
    assert_eq!(rig.push("m", &token(1)), RESULT);
    apns.queue([
        Answer::reason(500, "InternalServerError"),
        Answer::raw(502, ""),
        Answer::CloseConnection,
    ]);
    let requests = apns.wait_for(5, LONG);
    assert!(
        requests[1..]
            .iter()
            .all(|r| r.header("apns-id") == requests[1].header("apns-id"))
    );
    rig.daemon.terminate();
    rig.daemon.wait_for_log("stopped undelivered=0", LONG);
}

#[test]
fn sigterm_answers_and_delivers_everything() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
    let queued = tokens(0..100);
    assert_eq!(rig.push_all("m", &queued), vec![RESULT; 100]);
    assert_eq!(rig.push_all("m", &queued), vec![RESULT; 100]);
    apns.answer_with(|_| Answer::Normal.after(SECOND));
    let in_flight: Vec<_> = (100..200)
        .map(|number| rig.publish("m", &token(number)))
        .collect();
    apns.wait_for(200, LONG);
    rig.daemon.terminate();
    rig.daemon.wait_for_log("SIGTERM", LONG);
    assert_eq!(rig.push("m", &token(300)), OVERLOAD, "nothing new");
    for id in in_flight {
        assert_eq!(rig.verdict(&id), RESULT);
    }
    let end = rig.link.expect_end(LONG);
    assert!(end.stream_closed);
    assert!(rig.daemon.wait(LONG).success());
    let mut seen: Vec<_> = apns.requests().into_iter().map(|request| request.token).collect();
    seen.sort_unstable();
    let mut expected = [tokens(0..100), tokens(0..200)].concat();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    rig.daemon.wait_for_log("stopped undelivered=0", LONG);
}

/// What cannot be delivered before the end is counted, and what is in flight is answered.
#[test]
fn sigterm_counts_what_a_silent_provider_does_not_take() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let patient = json!({ "maxInFlight": 2, "apns": { "requestTimeout": 60 } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, patient))]), &[]);
    let queued = tokens(0..5);
    assert_eq!(rig.push_all("m", &queued), vec![RESULT; 5]);
    assert_eq!(rig.push_all("m", &queued), vec![RESULT; 5]);
    apns.answer_with(|_| Answer::Silence);
    let id = rig.publish("m", &token(9));
    apns.wait_for(6, LONG);
    let start = Instant::now();
    rig.daemon.terminate();
    assert_eq!(rig.verdict(&id), UNAVAILABLE);
    assert!(rig.daemon.wait(LONG).success());
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
    rig.daemon.wait_for_log("stopped undelivered=5", LONG);
}
