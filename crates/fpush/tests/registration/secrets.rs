//! Wrong secrets: how many one registrable domain, or one address, may try in a minute, and that the right one always passes.

use std::time::Instant;

use serde_json::json;

use crate::rig::{LONG, RESULT, Rig, TOO_MANY, TROUBLE, apple, important};

const FORBIDDEN: &str = "auth/forbidden";
/// What the HTTP API says.
const NOT_FOUND: &str = "Node or secret not found!";
const RATELIMIT: &str = "Ratelimit reached!";
const UNKNOWN: &str = "Internal server error, try again later!";
/// Of one registrable domain, or of one address, for one node, in a minute.
const ALLOWED: usize = 12;

#[test]
fn wrong_ones_are_throttled_and_the_right_one_passes() {
    for cache in [true, false] {
        let mut rig = Rig::with(json!({ "store": { "cache": cache } }));
        let form = format!("type=apns&node=h&token={}", apple(1));
        let right = rig.post("register", &form).remove(2);
        let token = apple(666);
        // Each from an account and a host of its own, which all are one registrable domain's.
        let attempt = |rig: &mut Rig, number: usize, domain: &str, secret: &str| {
            let from = format!("user{number}@host{number}.{domain}/x");
            let fields = [
                ("type", "apns"),
                ("node", "h"),
                ("token", &token),
                ("secret", secret),
            ];
            rig.execute(&from, "v1-register-push", &fields).verdict()
        };
        let began = Instant::now();
        let verdicts: Vec<_> = (0..60)
            .map(|number| attempt(&mut rig, number, "evil.org", &format!("wrong-{number}")))
            .collect();
        // The daemon counts anew every minute, and some may end meanwhile.
        let minutes = 2 + began.elapsed().as_secs() as usize / 60;
        let tried = verdicts.iter().filter(|verdict| *verdict == FORBIDDEN).count();
        assert!(
            (ALLOWED..=minutes * ALLOWED).contains(&tried),
            "{tried} in {minutes} min"
        );
        assert!(
            verdicts[..ALLOWED].iter().all(|verdict| verdict == FORBIDDEN),
            "{verdicts:?}"
        );
        assert!(
            verdicts
                .iter()
                .all(|verdict| verdict == FORBIDDEN || verdict == TOO_MANY),
            "{verdicts:?}"
        );
        assert_eq!(
            attempt(&mut rig, 0, "good.org", "wrong"),
            FORBIDDEN,
            "others are not concerned"
        );

        // Publishes of the same domain, with wrong ones and with the right one.
        for number in 0..30 {
            for (secret, verdict) in [("wrong", TROUBLE), (&*right, RESULT)] {
                let id = format!("{number}-{secret}");
                rig.link
                    .send(important(&id, "h", Some(secret), None).from("evil.org"));
                assert_eq!(rig.link.reply_to(&id, LONG).verdict(), verdict);
            }
        }
        assert_eq!(attempt(&mut rig, 1_000, "evil.org", &right), RESULT);
    }
}

#[test]
fn over_http_too_wrong_ones_are_throttled_and_the_right_one_passes() {
    for cache in [true, false] {
        let mut rig = Rig::with(json!({ "store": { "cache": cache }, "http": { "requireSecret": true } }));
        let register = |token: usize, proof: &str| {
            let form = format!("type=apns&node=h&token={}{proof}", apple(token));
            rig.post("register", &form)
        };
        let right = register(1, "").remove(2);
        let began = Instant::now();
        // The registration itself was the first question about this node.
        let mut verdicts = vec![vec!["ERROR".to_owned(), NOT_FOUND.to_owned()]];
        verdicts.extend((0..40).map(|number| register(666, &format!("&secret=wrong-{number}"))));
        let minutes = 2 + began.elapsed().as_secs() as usize / 60;
        let tried = verdicts.iter().filter(|verdict| verdict[1] == NOT_FOUND).count();
        assert!(
            (ALLOWED..=minutes * ALLOWED).contains(&tried),
            "{tried} in {minutes} min: {verdicts:?}"
        );
        assert!(
            verdicts[..ALLOWED].iter().all(|verdict| verdict[1] == NOT_FOUND),
            "{verdicts:?}"
        );
        assert!(
            verdicts
                .iter()
                .all(|verdict| verdict[0] == "ERROR" && [NOT_FOUND, RATELIMIT].contains(&verdict[1].as_str())),
            "{verdicts:?}"
        );
        // Another device of the same address is not concerned.
        let other = format!("type=apns&node=other&token={}", apple(3));
        assert_eq!(rig.post("register", &other)[..2], ["OK", "other"]);

        for (secret, answer) in [("wrong", ["ERROR", UNKNOWN]), (&*right, ["OK", "h"])] {
            let push = rig.post("push", &format!("node=h&secret={secret}"));
            assert_eq!(push, answer, "cache: {cache}");
        }
        assert_eq!(
            rig.apns.wait_for(1, LONG)[0].token,
            apple(1),
            "nobody has changed it"
        );
        assert_eq!(register(2, &format!("&secret={right}")), ["OK", "h", &right]);
        rig.expect_apple("h", Some(&right), "org.example.ios", &apple(2));
        let gone = rig.post("unregister", &format!("type=apns&node=h&secret={right}"));
        assert_eq!(gone, ["OK", "h", &right]);
    }
}
