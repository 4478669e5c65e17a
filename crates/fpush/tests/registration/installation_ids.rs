//! Devices that register a Firebase installation ID instead of a token.

use fpush_testkit::{Gate, fcm_error};
use serde_json::json;

use crate::rig::{ALICE, LONG, RESULT, Rig, google};

const FID: &str = "dCXr7fTpTm2yXGVYTXJb6r";

/// Publishes, and expects that this installation ID gets one more push.
#[track_caller]
fn expect_fid(rig: &mut Rig, node: &str, secret: Option<&str>, fid: &str) {
    let seen = rig.fcm.count();
    assert_eq!(rig.publish(node, secret, None).verdict(), RESULT);
    let send = &rig.fcm.wait_for(seen + 1, LONG)[seen];
    assert_eq!((send.fid(), send.token()), (fid, ""));
}

fn fid(number: usize) -> String {
    format!("f{number:021}")
}

#[test]
fn one_can_be_registered_wherever_a_token_can() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "seed", FID);
    expect_fid(&mut rig, "seed", Some(&secret), FID);

    let fields = [("token", fid(1)), ("device-id", "d".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let form = rig.form(ALICE, "register-push-fcm", &fields);
    let (node, secret) = (form.value("node"), form.value("secret"));
    expect_fid(&mut rig, node, Some(secret), &fid(1));

    let fields = [("provider", "fcm-xmpp-api"), ("device-token", &fid(2))];
    let form = rig.form(ALICE, "register-device", &fields);
    expect_fid(&mut rig, form.value("node"), None, &fid(2));

    let answer = rig.post("register", &format!("type=fcm&node=http&token={}", fid(3)));
    expect_fid(&mut rig, "http", Some(&answer[2]), &fid(3));
    assert_eq!(
        rig.post("push", &format!("node=http&secret={}", answer[2])),
        ["OK", "http"]
    );
    rig.assert_discreet(&[FID, &fid(1), &fid(2), &fid(3)]);
}

#[test]
fn they_are_exported_and_imported() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", FID);
    rig.stop();
    let exported = rig.operate(&["export", "settings.json"]).stdout;
    let mut other = Rig::start();
    std::fs::write(other.path("devices.jsonl"), &exported).unwrap();
    let imported = other.operate(&["import", "json", "devices.jsonl", "settings.json"]);
    assert!(imported.status.success(), "{imported:?}");
    other.stop();
    other.start_again();
    expect_fid(&mut other, "n", Some(&secret), FID);
}

/// The app has registered its installation ID under its node, while a push to the old token is under way. Google says of
/// the old token, rightly, that it is dead: the device lives, and its registration is that of the installation ID now.
#[test]
fn the_end_of_the_old_token_does_not_end_the_registration() {
    for cache in [true, false] {
        let mut rig = Rig::with(json!({ "store": { "cache": cache } }));
        // A lane that is calm, and therefore believed.
        for number in 0..30 {
            let node = format!("other-{number}");
            let secret = rig.register(ALICE, &node, &google(100 + number));
            assert_eq!(rig.push(&node, &secret), RESULT);
        }
        let secret = rig.register(ALICE, "n", &google(1));
        let gate = Gate::new();
        rig.fcm
            .queue([fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]).behind(&gate)]);
        let seen = rig.fcm.count();
        let id = rig.id();
        rig.link
            .send(crate::rig::important(&id, "n", Some(&secret), None));
        rig.fcm.wait_for(seen + 1, LONG);
        assert_eq!(rig.register(ALICE, "n", FID), secret);
        gate.open();
        let verdict = rig.link.reply_to(&id, LONG).verdict();
        assert!(verdict.starts_with("wait/"), "cache: {cache}: {verdict}");
        for _ in 0..2 {
            expect_fid(&mut rig, "n", Some(&secret), FID);
        }
        // The other registrations of the device are its own.
        let devices = rig.export();
        let n = devices.iter().find(|device| device["node"] == "n").unwrap();
        assert_eq!(n["token"], FID);
    }
}
