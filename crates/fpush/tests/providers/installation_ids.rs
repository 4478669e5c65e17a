//! Firebase installation IDs: what apps get from Google in the place of registration tokens.

use fpush_testkit::{Answer, FakeFcm, TestCa, fcm_error};
use serde_json::json;

use crate::{
    fcm::{google, start, token, tokens},
    rig::{LONG, RESULT, UNAVAILABLE, modules, unlimited},
};

const FID: &str = "dCXr7fTpTm2yXGVYTXJb6r";
/// A publish that an app's server sent; its id is `q1`.
const PUBLISH: &str = include_str!("../fixtures/installation-id-publish.xml");
/// Google's answer to one that no device has.
const INVALID: &str = include_str!("../fixtures/fcm-invalid-installation-id.json");

fn fid(number: usize) -> String {
    format!("eAZaz-_{number:015}")
}

#[test]
fn an_installation_id_is_sent_as_one() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("android", google(&fcm, unlimited()))]));
    rig.link.send(PUBLISH.trim_end());
    assert_eq!(rig.verdict("q1"), RESULT);
    let message = fcm.wait_for(1, LONG)[0].message.clone();
    assert_eq!((&message["fid"], &message["token"]), (&json!(FID), &json!(null)));
    assert_eq!(rig.push("android", &token(1)[1..]), RESULT);
    let message = fcm.wait_for(2, LONG)[1].message.clone();
    assert_eq!(
        (&message["fid"], &message["token"]),
        (&json!(null), &json!(token(1)[1..]))
    );
    rig.assert_discreet(&[FID.to_owned()]);
}

#[test]
fn the_settings_may_say_which_field_is_used() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    fcm.answer_with(|_| Answer::json(200, &json!({})));
    let module = |target: &str| google(&fcm, json!({ "fcm": { "target": target } }));
    let names = ["auto", "token", "fid"];
    let mut rig = start(&ca, &fcm, modules(names.map(|name| (name, module(name)))));
    for (name, fields) in [
        ("auto", ["fid", "token"]),
        ("token", ["token"; 2]),
        ("fid", ["fid"; 2]),
    ] {
        for (device, field) in [FID, &token(1)].into_iter().zip(fields) {
            let seen = fcm.count();
            assert_eq!(rig.push(name, device), RESULT);
            let send = &fcm.wait_for(seen + 1, LONG)[seen];
            assert_eq!(send.message[field], *device, "{name}: {send:?}");
            assert_eq!(send.message.as_object().unwrap().len(), 3, "{name}: {send:?}");
        }
    }
}

/// It is the device's fault and not that of the settings; and one such word unregisters nobody.
#[test]
fn one_that_google_does_not_know_is_left_alone_for_a_while() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("android", google(&fcm, unlimited()))]));
    let good: Vec<_> = (0..12).map(fid).collect();
    assert_eq!(rig.push_all("android", &good), [RESULT; 12]);
    fcm.queue([Answer::raw(400, INVALID)]);
    for _ in 0..3 {
        assert_eq!(rig.push("android", FID), UNAVAILABLE);
    }
    assert_eq!(fcm.count(), 13, "it is not asked for again and again");
    let log = rig.daemon.log();
    assert!(!log.contains("check the settings"), "{log}");
    assert_eq!(rig.push("android", &fid(0)), RESULT);
}

/// Google calls a device's old token unregistered as soon as its installation ID is in use. That word is about the
/// token: the installation ID goes on being pushed to.
#[test]
fn the_end_of_the_old_token_says_nothing_of_the_installation_id() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("android", google(&fcm, unlimited()))]));
    let old: Vec<_> = tokens(0..3);
    assert_eq!(rig.push_all("android", &old), [RESULT; 3]);
    for token in &old {
        assert_eq!(rig.push("android", FID), RESULT);
        assert_ne!(rig.push("android", token), RESULT);
        assert_eq!(fcm.sends().last().unwrap().token(), token);
    }
    assert_eq!(rig.push("android", FID), RESULT);
    assert_eq!(fcm.sends().last().unwrap().fid(), FID);
}

#[test]
fn one_that_is_gone_is_as_dead_as_a_token() {
    let ca = TestCa::new();
    let fcm = FakeFcm::start(&ca);
    let mut rig = start(&ca, &fcm, modules([("android", google(&fcm, unlimited()))]));
    let good: Vec<_> = (0..30).map(fid).collect();
    assert_eq!(rig.push_all("android", &good), [RESULT; 30]);
    fcm.queue([fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[])]);
    assert_eq!(rig.push("android", FID), crate::rig::DEAD);
}
