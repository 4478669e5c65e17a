//! A module that decides, counts and sends nothing.

use std::{fs, time::Duration};

use fpush_testkit::Moves;
use serde_json::{Value, json};

use super::rig::{Change, DAY, Device, End, HOUR, MINUTE, Provider, RESULT, World, assert_all_kept};

fn set_shadow(settings: &mut Value, shadow: bool) {
    for (_, module) in settings["pushModules"].as_object_mut().unwrap() {
        module["shadow"] = json!(shadow);
    }
}

/// A world with a rate limit, in which all modules are shadows or none is.
fn world(shadow: bool) -> World {
    World::with(
        |settings| {
            for (_, module) in settings["pushModules"].as_object_mut().unwrap() {
                module["ratelimit"] = json!({ "ratelimitTime": "20s" });
            }
            set_shadow(settings, shadow);
        },
        Moves::Time,
    )
}

/// A device with another node, which no publish of its own made known.
fn like(device: &Device, node: &str, module: Option<&'static str>) -> Device {
    Device {
        provider: device.provider,
        node: node.to_owned(),
        token: node.to_owned(),
        module,
        secret: None,
        domain: device.domain.clone(),
        registration: Default::default(),
        last: String::new(),
    }
}

#[test]
fn whatever_a_shadow_decides_every_reply_is_a_result_and_nothing_is_sent() {
    let mut world = world(true);
    let mut devices = world.devices(Provider::Apple, 10);
    devices.extend(world.devices(Provider::Google, 10));
    // No token of Apple's.
    devices.push(like(&devices[0], "not a token", Some("ios")));
    for pause in [Duration::ZERO, Duration::ZERO, MINUTE, HOUR, DAY] {
        // The first goes out at once, the second is queued, the third refused.
        for _ in 0..3 {
            world.expect_all_arrive(&mut devices);
        }
        world.pass(pause);
    }
    world.stop();
    assert_all_kept(&devices, "a shadow");
    assert_eq!(
        (world.apns.count(), world.fcm.count()),
        (0, 0),
        "{}",
        world.daemon.log()
    );
    assert!(
        !world.daemon.log().contains("could not be delivered"),
        "{}",
        world.daemon.log()
    );
    world.go_on();
    let exported = String::from_utf8(world.operate(&["export"])).unwrap();
    assert_eq!(exported.matches("\"node\"").count(), 10, "{exported}");
    // Nobody was pushed to, and nobody failed.
    for line in exported.lines().filter(|line| line.contains("\"node\"")) {
        let device: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&device["last_successful_push"], &device["last_push_error"]),
            (&Value::Null, &Value::Null),
            "{line}"
        );
    }
}

#[test]
fn a_reload_sends_what_was_acknowledged_before_and_never_what_a_shadow_held() {
    let mut world = world(false);
    let mut devices = world.stateless(Provider::Google, 3);
    let count = |world: &World| world.fcm.count();
    world.expect_all_arrive(&mut devices);
    // Queued.
    world.expect_all_arrive(&mut devices);
    assert_eq!(count(&world), 3);
    world.change_settings(Change::Reload, |settings| set_shadow(settings, true));
    // Both of the shadow's: one would go out, one is queued.
    world.expect_all_arrive(&mut devices);
    world.expect_all_arrive(&mut devices);
    world.pass(21 * MINUTE);
    world.fcm.wait_for(6, super::rig::LONG);
    world.expect_all_arrive(&mut devices);
    world.expect_all_arrive(&mut devices);
    world.change_settings(Change::Reload, |settings| set_shadow(settings, false));
    world.pass(21 * MINUTE);
    assert_eq!(count(&world), 6);
    world.expect_all_arrive(&mut devices);
    assert_eq!(count(&world), 9);
}

#[test]
fn what_was_held_before_a_restart_waits_for_a_module_that_sends() {
    let mut world = world(false);
    let mut devices = world.stateless(Provider::Google, 3);
    world.expect_all_arrive(&mut devices);
    world.expect_all_arrive(&mut devices);
    assert_eq!(world.fcm.count(), 3);
    let restart = |world: &mut World, shadow: bool| {
        let file = world.file("settings.json");
        let mut settings = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        set_shadow(&mut settings, shadow);
        fs::write(&file, settings.to_string()).unwrap();
        world.restart(End::Kill);
    };
    restart(&mut world, true);
    let mut others = world.stateless(Provider::Google, 3);
    for _ in 0..2 {
        world.expect_all_arrive(&mut others);
    }
    // Its time comes.
    world.pass(MINUTE);
    assert_eq!(world.fcm.count(), 3);
    restart(&mut world, false);
    world.pass(MINUTE);
    let sent = world.fcm.wait_for(6, super::rig::LONG);
    assert_eq!(world.fcm.count(), 6, "{sent:?}");
    assert_eq!(devices[0].last, RESULT);
}
