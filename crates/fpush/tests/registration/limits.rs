//! The rate limit of registered devices: the module's rules, with a time of their own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{ALICE, LONG, REFUSED, RESULT, Rig, apple, important, notification};

#[test]
fn first_at_once_second_later_third_refused() {
    let mut rig = Rig::with(json!({ "rateLimit": null }));
    let secret = rig.register(ALICE, "n", &apple(1));
    let began = Instant::now();
    let ids: Vec<_> = (0..4).map(|_| rig.id()).collect();
    let burst: String = ids
        .iter()
        .map(|id| important(id, "n", Some(&secret), None).to_string())
        .collect();
    rig.link.send(burst);
    let verdicts: Vec<_> = ids
        .iter()
        .map(|id| rig.link.reply_to(id, LONG).verdict())
        .collect();
    assert_eq!(verdicts, [RESULT, RESULT, REFUSED, REFUSED]);
    assert_eq!(
        rig.apns.count(),
        1,
        "the second is acknowledged before it is sent"
    );
    let second = rig.apns.wait_for(2, LONG)[1].at - began;
    assert!(second >= Duration::from_secs(5), "{second:?}");
    rig.link.send(important("last", "n", Some(&secret), None));
    assert_eq!(
        rig.link.reply_to("last", LONG).verdict(),
        RESULT,
        "the next window, in which it waits"
    );
    rig.stop();
    let requests = rig.apns.requests();
    assert_eq!(requests.len(), 3, "what was acknowledged is sent before the end");
    assert!(requests.iter().all(|request| request.token == apple(1)));
}

#[test]
fn important_and_other_pushes_have_windows_of_their_own() {
    let auto = json!({ "ios": { "apns": { "pushPriority": "auto" } } });
    let mut rig = Rig::of(json!({ "rateLimit": "1h" }), auto);
    let secrets =
        [("n", apple(1)), ("m", apple(2))].map(|(node, token)| (node, rig.register(ALICE, node, &token)));
    for (node, secret) in &secrets {
        for (urgent, expected) in [
            (true, RESULT),
            (false, RESULT),
            (true, RESULT),
            (false, RESULT),
            (true, REFUSED),
            (false, REFUSED),
        ] {
            let id = rig.id();
            if urgent {
                rig.link.send(important(&id, node, Some(secret), None));
            } else {
                rig.link.send(notification(&id, node, Some(secret), None, ""));
            }
            assert_eq!(
                rig.link.reply_to(&id, LONG).verdict(),
                expected,
                "{node} {urgent}"
            );
        }
    }
    let seen: Vec<_> = rig
        .apns
        .wait_for(4, LONG)
        .iter()
        .map(|request| {
            (
                request.token.clone(),
                request.header("apns-push-type").unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [(1, "alert"), (1, "background"), (2, "alert"), (2, "background")]
        .map(|(token, kind)| (apple(token), kind.to_owned()));
    assert_eq!(seen, expected, "a device does not wait for another one's window");
}

#[test]
fn the_modules_own_time_is_for_those_that_did_not_register() {
    let hour = json!({ "ios": { "ratelimit": { "ratelimitTime": "1h" } } });
    let mut rig = Rig::of(json!({ "rateLimit": "1ms" }), hour);
    let secret = rig.register(ALICE, "n", &apple(1));
    for _ in 0..5 {
        rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    }
    let verdicts = [0; 3].map(|_| rig.publish(&apple(2), None, Some("ios")).verdict());
    assert_eq!(verdicts, [RESULT, RESULT, REFUSED]);
}
