//! Two daemons on one database, of which one hears from it late, or not at all. Whatever that one answers, it never says
//! that a device is gone that lives.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{Answer, Command, Flow, Form, Gate, Postgres, Relay};
use serde_json::json;

use crate::rig::{LONG, MISSING, RESULT, Rig, TROUBLE, apple, important, until};

/// Both daemons; between the far one and the database is the relay.
struct Pair {
    near: Rig,
    far: Rig,
    relay: Relay,
    _server: Arc<Postgres>,
}

impl Pair {
    /// The far one holds all devices in memory, or asks for each.
    fn start(cache: bool) -> Self {
        let server = Postgres::shared();
        let (url, relay) = (server.database(), server.relay());
        let on = |url: &str, cache: bool| {
            let store = json!({ "type": "postgres", "url": url, "path": null, "cache": cache });
            Rig::with(json!({ "store": store }))
        };
        Self {
            near: on(&url, false),
            far: on(&server.through(&relay, &url), cache),
            relay,
            _server: server,
        }
    }
}

/// The account of a device of its own, so that none has too many.
fn owner(node: &str) -> String {
    format!("{node}@a.example/phone")
}

/// Ends a registration in the first dialect.
#[track_caller]
fn unregister(rig: &mut Rig, node: &str) {
    rig.form(
        &owner(node),
        "v1-unregister-push",
        &[("type", "apns"), ("node", node)],
    );
}

fn registration(id: &str, node: &str, token: &str) -> Command {
    let fields = [("type", "apns"), ("node", node), ("token", token)];
    Command::new(id, "v1-register-push", &fields).from(&owner(node))
}

/// What the provider says of a token that is dead.
fn dead(token: String, gate: Option<&Gate>) -> impl Fn(&str) -> Answer + Send + 'static {
    let gate = gate.cloned();
    move |asked| match &gate {
        _ if asked != token => Answer::Normal,
        Some(gate) => Answer::reason(410, "Unregistered").behind(gate),
        None => Answer::reason(410, "Unregistered"),
    }
}

#[test]
fn who_registers_at_one_is_known_to_the_other_at_once() {
    for cache in [true, false] {
        let mut pair = Pair::start(cache);
        let Pair { near, far, relay, .. } = &mut pair;
        for delay in [0, 20, 200] {
            relay.delay(Duration::from_millis(delay));
            for number in 0..6 {
                let (node, token) = (format!("n-{delay}-{number}"), apple(number));
                let what = format!("{node}, cache: {cache}");
                let secret = near.register(&owner(&node), &node, &token);
                let verdict = far.push(&node, &secret);
                assert!(
                    verdict == RESULT || delay > 0 && verdict != MISSING,
                    "{what}: {verdict}"
                );
                unregister(near, &node);
                let verdict = far.push(&node, &secret);
                // What is in memory for some seconds more is pushed to, which does no harm.
                let may_be_late = delay > 0 || cache && verdict == RESULT;
                assert!(verdict == MISSING || may_be_late, "{what}: {verdict}");

                let secret = near.register(&owner(&node), &node, &token);
                let verdict = far.push(&node, &secret);
                assert!(
                    verdict == RESULT || delay > 0 && verdict != MISSING,
                    "{what}: {verdict}"
                );
            }
        }
        relay.delay(Duration::ZERO);
        for (delay, number) in [(0, 1), (20, 2), (200, 3)] {
            let node = format!("n-{delay}-{number}");
            let secret = near.register(&owner(&node), &node, &apple(number));
            assert_eq!(far.push(&node, &secret), RESULT);
        }
    }
}

/// Without being told, memory would know each of them some seconds later.
#[test]
fn a_new_token_and_an_end_are_in_the_memory_of_the_other_at_once() {
    let mut pair = Pair::start(true);
    let Pair { near, far, .. } = &mut pair;
    let mut took = Duration::ZERO;
    for number in 0..10 {
        let node = format!("n-{number}");
        let secret = near.register(&owner(&node), &node, &apple(number));
        assert_eq!(far.push(&node, &secret), RESULT);
        let renewed = apple(1_000 + number);
        assert_eq!(near.register(&owner(&node), &node, &renewed), secret);
        let began = Instant::now();
        until(LONG, "pushes go to the new token", || {
            assert_eq!(far.push(&node, &secret), RESULT);
            far.apns.requests().iter().any(|request| request.token == renewed)
        });
        took += began.elapsed();
        unregister(near, &node);
        let began = Instant::now();
        until(LONG, "the end is known", || far.push(&node, &secret) == MISSING);
        took += began.elapsed();
    }
    // A look every five seconds.
    assert!(took < Duration::from_secs(100) / 3, "{took:?}");
}

/// The question whether a device has ended is asked before, and its answer comes after the device has registered again.
#[test]
fn an_answer_that_was_overtaken_ends_nobody() {
    for cache in [true, false] {
        let mut pair = Pair::start(cache);
        let Pair { near, far, relay, .. } = &mut pair;
        let old = near.register(&owner("n"), "n", &apple(1));
        // The first question is for the device, the second one for its end.
        for (flow, passing) in [(Flow::Questions, 0), (Flow::Answers, 0), (Flow::Questions, 1)].repeat(3) {
            unregister(near, "n");
            until(LONG, "memory hears of the end", || far.push("n", &old) == MISSING);
            relay.hold_after(flow, passing);
            let id = far.id();
            far.link.send(important(&id, "n", Some(&old), None));
            // What is held may be of the daemon's own business, too; then it asks later.
            relay.wait_for_held(flow, LONG);
            let new = near.register(&owner("n"), "n", &apple(1));
            relay.release();
            let what = format!("{flow:?} {passing}, cache: {cache}");
            assert_eq!(far.link.reply_to(&id, LONG).verdict(), TROUBLE, "{what}");
            assert_eq!(far.push("n", &new), RESULT, "{what}");
        }
    }
}

/// What a provider says is about the registration that the push was for, and that may have been renewed elsewhere.
#[test]
fn a_word_against_a_token_is_weighed_by_the_database() {
    for cache in [true, false] {
        let mut pair = Pair::start(cache);
        let Pair { near, far, relay, .. } = &mut pair;
        far.earn_trust("ios", apple);
        // The daemon leaves a token alone for a while after a word against it: a device for each.
        for (number, delay, is_heard) in [(1, 0, true), (2, 50, true), (3, 0, false)] {
            let (node, token) = (format!("n-{number}"), apple(number));
            let what = format!("{node}, cache: {cache}");
            let secret = near.register(&owner(&node), &node, &token);
            relay.delay(Duration::from_millis(delay));
            let gate = Gate::new();
            let says = dead(token.clone(), Some(&gate));
            far.apns.answer_with(move |request| says(&request.token));
            let (seen, id) = (far.apns.count(), far.id());
            far.link.send(important(&id, &node, Some(&secret), None));
            far.apns.wait_for(seen + 1, LONG);
            assert_eq!(near.register(&owner(&node), &node, &token), secret);
            if !is_heard {
                relay.hold(Flow::Answers);
            }
            gate.open();
            let verdict = far.link.reply_to(&id, LONG).verdict();
            assert!(verdict.starts_with("wait/"), "{what}: {verdict}");
            relay.release();
            relay.delay(Duration::ZERO);
            far.apns.answer_normally();
            near.expect_apple(&node, Some(&secret), "org.example.ios", &token);
            assert_ne!(far.push(&node, &secret), MISSING, "{what}");
        }

        // Where nobody has renewed it, it is gone, for both; but not as long as it cannot be heard that the database has
        // ended it.
        for (number, is_heard) in [(4, true), (5, false)] {
            let (node, token) = (format!("n-{number}"), apple(number));
            let what = format!("{node}, cache: {cache}");
            let secret = near.register(&owner(&node), &node, &token);
            assert_eq!(far.push(&node, &secret), RESULT, "{what}");
            let says = dead(token, None);
            far.apns.answer_with(move |request| says(&request.token));
            if !is_heard {
                relay.hold_after(Flow::Answers, 1);
            }
            let verdict = far.push(&node, &secret);
            relay.release();
            if is_heard {
                assert_eq!(verdict, MISSING, "{what}");
                assert_eq!(near.push(&node, &secret), MISSING, "{what}");
            } else {
                assert!(verdict.starts_with("wait/"), "{what}: {verdict}");
            }
        }
    }
}

/// At each point of a transaction, and after its end was ordered: then nobody knows what became of it.
#[test]
fn wherever_the_connection_breaks_no_device_is_lost() {
    let mut pair = Pair::start(true);
    let Pair { near, far, relay, .. } = &mut pair;
    // Whose change was being written when the connection broke is told so, or it is written after all.
    for pieces in 0..14 {
        let (node, token) = (format!("n-{pieces}"), apple(pieces));
        let what = format!("after {pieces} pieces");
        // A registration.
        relay.cut_after(Flow::Answers, pieces);
        let reply = far.send(|id| registration(id, &node, &token));
        relay.release();
        let secret = if reply.is_result() {
            Form::of(&reply).value("secret").to_owned()
        } else {
            assert_eq!(reply.verdict(), TROUBLE, "{what}");
            let mut last = None;
            until(LONG, "it registers again", || {
                let reply = far.send(|id| registration(id, &node, &token));
                last = reply.is_result().then(|| Form::of(&reply));
                last.is_some()
            });
            last.unwrap().value("secret").to_owned()
        };
        for rig in [&mut *near, &mut *far] {
            assert_eq!(rig.push(&node, &secret), RESULT, "{what}");
        }

        // The end of one that is dead, and the provider has been right about others.
        for number in 0..20 {
            let other = apple(1_000 + 20 * pieces + number);
            assert_eq!(far.publish(&other, None, Some("ios")).verdict(), RESULT);
        }
        let says = dead(token.clone(), None);
        far.apns.answer_with(move |request| says(&request.token));
        relay.cut_after(Flow::Answers, pieces);
        let verdict = far.push(&node, &secret);
        relay.release();
        far.apns.answer_normally();
        assert!(
            verdict == MISSING || verdict.starts_with("wait/"),
            "{what}: {verdict}"
        );
        let ended = near.push(&node, &secret) == MISSING;
        assert!(
            ended || verdict != MISSING,
            "{what}: it is said to be gone, and is not"
        );
        // Memory follows what was committed.
        let expected = if ended { MISSING } else { RESULT };
        until(LONG, "both say the same", || far.push(&node, &secret) == expected);
        let secret = near.register(&owner(&node), &node, &token);
        assert_eq!(far.push(&node, &secret), RESULT, "{what}");
    }
    let broken = far
        .daemon
        .log()
        .matches("the database of registered devices cannot be used")
        .count();
    assert!(broken > 0, "nothing of the daemon's writing was disturbed");
}

/// What stands in a way is the database's to end: a writer that hangs keeps the others waiting for 10 s at most.
#[test]
fn one_that_hangs_costs_the_other_some_seconds() {
    thread::scope(|scope| {
        for pieces in [0, 1, 2, 4] {
            scope.spawn(move || {
                let mut pair = Pair::start(true);
                let Pair { near, far, relay, .. } = &mut pair;
                let known = far.register(&owner("known"), "known", &apple(1));
                relay.hold_after(Flow::Answers, pieces);
                far.link.send(registration("hanging", "m", &apple(2)));
                relay.wait_for_held(Flow::Answers, LONG);
                let (mut secret, begin) = (None, Instant::now());
                until(LONG, "devices register at the other one", || {
                    let reply = near.send(|id| registration(id, "n", &apple(3)));
                    secret = reply
                        .is_result()
                        .then(|| Form::of(&reply).value("secret").to_owned());
                    secret.is_some()
                });
                let (secret, waited) = (secret.unwrap(), begin.elapsed());
                assert!(waited < Duration::from_secs(40), "{waited:?}");
                assert_eq!(near.push("n", &secret), RESULT);
                // Meanwhile it is of use to those that it knows, and forgets nobody.
                assert_eq!(far.push("known", &known), RESULT);
                assert_eq!(far.push("n", &secret), TROUBLE);
                assert_eq!(far.push("known", "another"), TROUBLE);
                assert_eq!(far.link.reply_to("hanging", LONG).verdict(), TROUBLE);
                relay.release();
                until(LONG, "it goes on", || far.push("n", &secret) == RESULT);
                let m = far.register(&owner("m"), "m", &apple(2));
                assert_eq!(near.push("m", &m), RESULT);
            });
        }
    });
}
