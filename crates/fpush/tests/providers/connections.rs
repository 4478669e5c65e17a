//! What becomes of a push when the connection to the provider, or the provider itself, fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{Answer, FakeApns, Gate, NewConnections, Reason, TestCa};
use serde_json::json;

use crate::{
    apns::{apple, token, tokens},
    rig::{LONG, RESULT, Rig, SECOND, Scripts, UNAVAILABLE, is_quick, merged, modules, unlimited},
};

#[test]
fn what_breaks_is_sent_again_at_once_under_the_same_id() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let faults = [
        Answer::CloseConnection,
        Answer::go_away(Reason::NO_ERROR, true),
        Answer::go_away(Reason::NO_ERROR, false),
        Answer::go_away(Reason::ENHANCE_YOUR_CALM, true),
        Answer::go_away(Reason::ENHANCE_YOUR_CALM, false),
        Answer::ResetStream(Reason::REFUSED_STREAM),
        Answer::ResetStream(Reason::INTERNAL_ERROR),
        Answer::ResetStream(Reason::CANCEL),
        Answer::reason(400, "IdleTimeout"),
    ];
    let scripts = Scripts::default();
    apns.answer_with({
        let scripts = scripts.clone();
        move |request| scripts.next(&request.token)
    });
    let all = modules((0..faults.len()).map(|number| (format!("m{number}"), apple(&apns, json!({})))));
    let mut rig = Rig::start(&ca, all, &[]);
    for (number, fault) in faults.iter().enumerate() {
        let is_at_once = is_quick(2 * SECOND, |again| {
            let (module, token) = (format!("m{number}"), token(100 * again + number));
            // Also when the new connection fails in the same way.
            scripts.set(&token, [fault.clone(), fault.clone()]);
            let (verdict, took) = rig.timed(&module, &token);
            assert_eq!(verdict, RESULT, "{fault:?}");
            let requests: Vec<_> = apns.requests().into_iter().filter(|r| r.token == token).collect();
            assert_eq!(requests.len(), 3, "{fault:?}");
            assert!(
                requests
                    .iter()
                    .all(|r| r.header("apns-id") == requests[0].header("apns-id"))
            );
            // A stream that was refused says nothing against its connection.
            let refused = matches!(fault, Answer::ResetStream(Reason::REFUSED_STREAM));
            assert!(
                requests
                    .windows(2)
                    .all(|pair| (pair[0].connection == pair[1].connection) == refused),
                "{fault:?}: on a new connection, unless it was only refused"
            );
            took
        });
        assert!(is_at_once, "{fault:?}");
    }
}

/// What was under way on a connection that ends is sent again, whether it is this push's fault or not.
#[test]
fn a_connection_that_ends_under_hundreds_of_pushes_costs_none() {
    for fault in [
        Answer::CloseConnection,
        Answer::go_away(Reason::NO_ERROR, false),
        Answer::Drain(Box::new(Answer::Normal)),
    ] {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
        assert_eq!(rig.push("m", &token(0)), RESULT);
        let last = token(200);
        apns.answer_with({
            let (fault, last) = (fault.clone(), last.clone());
            move |request| match request.connection {
                1 if request.token == last => fault.clone(),
                1 => Answer::Normal.after(SECOND / 5),
                _ => Answer::Normal,
            }
        });
        let verdicts = rig.push_all("m", &tokens(1..201));
        assert!(
            verdicts.iter().all(|verdict| verdict == RESULT),
            "{fault:?}: {verdicts:?}"
        );
        assert_eq!(rig.push("m", &token(201)), RESULT);
        assert_eq!(apns.connections(), 2, "{fault:?}: one new connection for all");
    }
}

/// Fifty answers of one connection say the same thing of it, and nothing of the one that came after it.
#[test]
fn a_connection_that_says_it_is_over_in_fifty_answers_is_replaced_once() {
    for over in [
        Answer::reason(400, "IdleTimeout"),
        Answer::reason(503, "Shutdown"),
    ] {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
        assert_eq!(rig.push("m", &token(0)), RESULT);
        let gate = Gate::new();
        apns.answer_with({
            let (over, gate) = (over.clone(), gate.clone());
            move |request| match request.connection {
                1 => over.clone().behind(&gate),
                _ => Answer::Normal,
            }
        });
        let ids: Vec<_> = (1..51).map(|number| rig.publish("m", &token(number))).collect();
        apns.wait_for(51, LONG);
        gate.open();
        assert!(ids.iter().all(|id| rig.verdict(id) == RESULT), "{over:?}");
        assert_eq!((apns.count(), apns.connections()), (101, 2), "{over:?}");
    }
}

/// However many pushes Apple answers so, and however often.
#[test]
fn where_every_connection_says_it_is_over_there_is_one_a_second() {
    for over in [
        Answer::reason(400, "IdleTimeout"),
        Answer::reason(503, "Shutdown"),
    ] {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
        let refused = Arc::new(AtomicUsize::new(0));
        apns.answer_with({
            let over = over.clone();
            move |_| match refused.fetch_add(1, Ordering::Relaxed) {
                ..400 => over.clone(),
                _ => Answer::Normal,
            }
        });
        let start = Instant::now();
        let verdicts = rig.push_all("m", &tokens(0..100));
        assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
        assert!(
            apns.connections() <= 1 + 3 + seconds + 1,
            "{over:?}: {}",
            apns.connections()
        );
    }
}

#[test]
fn a_connection_that_was_reset_while_idle_is_not_noticed() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
    for number in 0..3 {
        assert!(is_quick(SECOND, |again| {
            let (verdict, took) = rig.timed("m", &token(3 * number + again));
            assert_eq!(verdict, RESULT);
            apns.reset_existing_connections();
            took
        }));
    }
}

#[test]
fn silence_ends_with_the_request_timeout_and_the_push_is_sent_again() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let keys = json!({ "apns": { "requestTimeout": 1 } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, keys))]), &[]);
    apns.queue([Answer::Silence]);
    let (verdict, took) = rig.timed("m", &token(1));
    assert_eq!(verdict, RESULT);
    assert!(
        (SECOND..5 * SECOND).contains(&took),
        "not the usual timeout: {took:?}"
    );
    let requests = apns.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("apns-id"), requests[1].header("apns-id"));
    assert_eq!(
        requests[0].connection, requests[1].connection,
        "one timeout is not a reason to leave"
    );
}

#[test]
fn a_slow_answer_is_waited_for() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
    // Requests that wait for the same connection go out in any order.
    assert_eq!(rig.push("m", &token(0)), RESULT);
    let gate = Gate::new();
    apns.queue([Answer::Normal.behind(&gate)]);
    let slow = rig.publish("m", &token(1));
    assert_eq!(rig.push("m", &token(2)), RESULT, "the others do not wait");
    gate.open();
    assert_eq!(rig.verdict(&slow), RESULT);
    assert_eq!(apns.count(), 3);
}

#[test]
fn a_connection_that_nobody_uses_is_closed_and_another_opened() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let keys = json!({ "apns": { "poolIdleTimeout": 1 } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, keys))]), &[]);
    assert_eq!(rig.push("m", &token(0)), RESULT);
    assert_eq!(rig.push("m", &token(1)), RESULT);
    assert_eq!(apns.connections(), 1);
    rig.daemon.wait_for_log("leaving=Idle", LONG);
    assert_eq!(rig.push("m", &token(2)), RESULT);
    assert_eq!(apns.connections(), 2);
}

#[test]
fn a_connection_that_has_gone_silent_is_left_after_three_timeouts() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let keys = json!({ "apns": { "requestTimeout": "2s" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, keys))]), &[]);
    assert_eq!(rig.push("m", &token(0)), RESULT);
    apns.stall_existing_connections();
    // Three timeouts at a time.
    let verdicts = rig.push_all("m", &tokens(1..4));
    assert_eq!(verdicts, [RESULT; 3]);
    assert_eq!(apns.connections(), 2);
    rig.daemon.wait_for_log("gone silent", LONG);
    assert!(is_quick(SECOND, |again| {
        let (verdict, took) = rig.timed("m", &token(40 + again));
        assert_eq!(verdict, RESULT);
        took
    }));
    assert_eq!(apns.connections(), 2);

    // And three in a row, of one push.
    apns.stall_existing_connections();
    assert_eq!(rig.push("m", &token(5)), RESULT);
    assert_eq!(apns.connections(), 3);
}

/// As Apple was seen to do after rejections.
#[test]
fn a_connection_that_may_carry_one_request_at_a_time_is_left() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let keys = json!({ "apns": { "requestTimeout": 1 } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, keys))]), &[]);
    assert_eq!(rig.push("m", &token(0)), RESULT);
    let last = token(20);
    apns.answer_with(move |request| {
        let refused = Answer::reason(400, "BadDeviceToken");
        match request.connection {
            _ if request.token == last => Answer::OneStream(Box::new(refused)),
            _ if request.token < last => refused,
            1 => Answer::Normal.after(SECOND / 3),
            _ => Answer::Normal,
        }
    });
    for number in 1..21 {
        assert_eq!(rig.push("m", &token(number)), UNAVAILABLE);
    }
    let verdicts = rig.push_all("m", &tokens(100..200));
    assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
    assert_eq!(apns.connections(), 2);
    rig.daemon.wait_for_log("fewer requests at a time", LONG);
}

#[test]
fn who_asks_for_more_time_than_there_is_is_answered_for_at_once() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, unlimited()))]), &[]);
    let unwell = || Answer::reason(503, "ServiceUnavailable");
    let date = "Fri, 01 Jan 2100 00:00:00 GMT";
    apns.queue([
        unwell().header("retry-after", "3600"),
        unwell().header("retry-after", date),
    ]);
    for _ in 0..2 {
        let (verdict, took) = rig.timed("m", &token(1));
        assert_eq!(verdict, UNAVAILABLE);
        assert!(took < 2 * SECOND, "{took:?}");
    }
    apns.queue([unwell().header("retry-after", "1")]);
    let (verdict, took) = rig.timed("m", &token(1));
    assert_eq!(verdict, RESULT);
    assert!((SECOND..4 * SECOND).contains(&took), "{took:?}");
}

/// All faults at once, each answered early; the log at trace tells no token.
#[test]
fn no_outage_is_answered_with_anything_but_wait() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
    apns.answer_with(|request| {
        let number = usize::from_str_radix(&request.token[..8], 16).unwrap();
        let later = |answer: Answer| answer.header("retry-after", "86400");
        match number % 6 {
            0 => later(Answer::reason(500, "InternalServerError")),
            1 => later(Answer::reason(503, "ServiceUnavailable")),
            2 => later(Answer::raw(502, "<html>no</html>")),
            3 => later(Answer::raw(504, "")),
            4 => later(Answer::json(500, &json!([1, 2, 3]))),
            _ => later(Answer::reason(599, "What Is This")).after(SECOND / 10),
        }
    });
    let all = tokens(0..300);
    let verdicts = rig.push_all("m", &all);
    assert!(
        verdicts.iter().all(|verdict| verdict == UNAVAILABLE),
        "{verdicts:?}"
    );
    apns.answer_normally();
    let verdicts = rig.push_all("m", &all);
    assert!(
        verdicts.iter().all(|verdict| verdict == RESULT),
        "no slot is used up: {verdicts:?}"
    );
    rig.assert_discreet(&all);
}

/// Nothing listens, nothing answers to TLS, nothing answers to requests, connections break for ever, and the answer
/// is always 500: for each the reply comes within 25 seconds, and one that comes back in time is not an outage.
#[test]
fn who_does_not_answer_at_all_is_answered_for_in_25_seconds() {
    let ca = TestCa::new();
    let fakes: Vec<_> = (0..6).map(|_| FakeApns::start(&ca)).collect();
    fakes[0].new_connections(NewConnections::Reset);
    fakes[1].new_connections(NewConnections::Ignore);
    fakes[2].answer_with(|_| Answer::Silence);
    fakes[3].answer_with(|_| Answer::CloseConnection);
    fakes[4].answer_with(|_| Answer::reason(500, "InternalServerError"));
    fakes[5].new_connections(NewConnections::Reset);
    let patient = json!({ "apns": { "requestTimeout": 600 } });
    let module = |(number, apns): (usize, &FakeApns)| {
        let keys = if number == 2 { patient.clone() } else { json!({}) };
        (format!("m{number}"), apple(apns, keys))
    };
    let mut rig = Rig::start(&ca, modules(fakes.iter().enumerate().map(module)), &[]);
    let start = Instant::now();
    let ids: Vec<_> = (0..6)
        .map(|number| rig.publish(&format!("m{number}"), &token(number)))
        .collect();
    thread::sleep(SECOND);
    fakes[5].new_connections(NewConnections::Serve);
    assert_eq!(rig.verdict(&ids[5]), RESULT);
    assert!(start.elapsed() < 10 * SECOND);
    for id in &ids[..5] {
        assert_eq!(rig.verdict(id), UNAVAILABLE, "{id}");
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(15)..Duration::from_secs(28)).contains(&took),
        "{took:?}"
    );
    for fake in &fakes {
        assert!(fake.count() < 30, "no hammering: {}", fake.count());
        fake.answer_normally();
        fake.new_connections(NewConnections::Serve);
    }
    for number in [0, 1, 3, 4] {
        assert_eq!(rig.push(&format!("m{number}"), &token(number)), RESULT);
    }
}

#[test]
fn hundreds_of_pushes_share_one_connection() {
    let ca = TestCa::new();
    // All of them wait for those before.
    let patient = json!({ "apns": { "requestTimeout": "24s" } });
    for streams in [1_000, 100] {
        let apns = FakeApns::builder(&ca)
            .delay(SECOND / 5)
            .max_concurrent_streams(streams)
            .start();
        let mut rig = Rig::start(
            &ca,
            modules([("m", apple(&apns, merged(unlimited(), patient.clone())))]),
            &[],
        );
        let verdicts = rig.push_all("m", &tokens(0..512));
        assert!(verdicts.iter().all(|verdict| verdict == RESULT), "{verdicts:?}");
        assert_eq!((apns.count(), apns.connections()), (512, 1));
    }
}
