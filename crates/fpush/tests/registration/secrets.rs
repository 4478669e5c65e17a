//! Wrong secrets: how many one registrable domain may try in a minute, and that the right one always passes.

use std::time::Instant;

use serde_json::json;

use crate::rig::{RESULT, Rig, TOO_MANY, TROUBLE, apple, important};

const FORBIDDEN: &str = "auth/forbidden";
/// Of one registrable domain, for one node, in a minute.
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
                assert_eq!(rig.link.reply_to(&id, crate::rig::LONG).verdict(), verdict);
            }
        }
        assert_eq!(attempt(&mut rig, 1_000, "evil.org", &right), RESULT);
    }
}
