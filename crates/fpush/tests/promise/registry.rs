//! The database of registered devices is not the one that it was. No device may be forgotten for that.

use std::fs;

use fpush_testkit::Moves;
use serde_json::json;

use super::rig::{Change, DAY, DEAD, End, HOUR, LONG, MINUTE, Provider, RESULT, World, assert_all_kept};

/// The files of the database.
const FILES: [&str; 3] = ["devices.db", "devices.db-wal", "devices.db-shm"];

/// Puts the database away under another name, or back.
fn rename(world: &World, from: &str, to: &str) {
    for file in FILES {
        let (from, to) = (file.replace("devices", from), file.replace("devices", to));
        let _ = fs::remove_file(world.file(&to));
        let _ = fs::rename(world.file(&from), world.file(&to));
    }
}

fn copy(world: &World, from: &str, to: &str) {
    for file in FILES {
        let (from, to) = (file.replace("devices", from), file.replace("devices", to));
        let _ = fs::remove_file(world.file(&to));
        let _ = fs::copy(world.file(&from), world.file(&to));
    }
}

#[test]
fn it_is_empty() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 30);
    world.expect_all_arrive(&mut devices);
    rename(&world, "devices", "away");
    world.restart(End::Kill);
    for _ in 0..20 {
        world.publish(&mut devices);
        world.pass(HOUR);
    }
    assert_all_kept(&devices, "an empty database");
    world.stop();
    rename(&world, "away", "devices");
    world.go_on();
    world.expect_all_arrive(&mut devices);
}

#[test]
fn its_path_is_misspelt() {
    for how in [Change::Restart, Change::Reload] {
        let mut world = World::start();
        let mut devices = world.registered(Provider::Apple, 30);
        world.expect_all_arrive(&mut devices);
        if how == Change::Restart {
            world.change_settings(how, |settings| {
                settings["registration"]["store"]["path"] = json!("devcies.db");
            });
        } else {
            // It is refused.
            let file = world.file("settings.json");
            let settings = fs::read_to_string(&file).unwrap();
            fs::write(&file, settings.replace("devices.db", "devcies.db")).unwrap();
            world.daemon.signal("HUP");
            world.daemon.wait_for_log("ERROR", LONG);
        }
        for _ in 0..20 {
            world.publish(&mut devices);
        }
        assert_all_kept(&devices, "a misspelt path");
    }
}

#[test]
fn it_is_a_backup() {
    let mut world = World::start();
    let mut old = world.registered(Provider::Apple, 10);
    world.stop();
    copy(&world, "devices", "backup");
    world.go_on();
    let mut new = world.registered(Provider::Apple, 10);
    world.expect_all_arrive(&mut new);
    world.expect_all_arrive(&mut old);
    world.stop();
    copy(&world, "backup", "devices");
    world.go_on();
    for _ in 0..20 {
        world.publish(&mut old);
        world.publish(&mut new);
        world.pass(DAY / 4);
    }
    assert_all_kept(&old, "devices of the backup");
    assert_all_kept(&new, "devices that the backup does not have");
}

#[test]
fn it_is_another_service() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 10);
    world.expect_all_arrive(&mut devices);
    rename(&world, "devices", "away");
    world.restart(End::Kill);
    let mut others = world.registered(Provider::Apple, 10);
    world.restart(End::Stop);
    world.expect_all_arrive(&mut others);
    for _ in 0..20 {
        world.publish(&mut devices);
        world.pass(HOUR);
    }
    assert_all_kept(&devices, "another database");
}

/// Two years: if the clock were right, nobody would have used a device for longer than `expireAfter`.
#[test]
fn the_clock_is_far_ahead() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 10);
    world.expect_all_arrive(&mut devices);
    world.stop();
    world.set_clock_ahead(700 * DAY);
    world.go_on();
    // One is used before the first cleaning, and its times are of the wrong clock.
    world.expect_all_arrive(&mut devices[..1]);
    world.pass(2 * MINUTE);
    // What cleans also writes these, one after the other.
    world.registered(Provider::Apple, 20);
    world.expect_all_arrive(&mut devices);
    assert_all_kept(&devices, "a clock that is two years ahead");
}

/// What nobody uses goes, while the clock is right.
#[test]
fn what_nobody_uses_expires() {
    let mut world = World::start();
    let mut unused = world.registered(Provider::Apple, 5);
    let mut used = world.registered(Provider::Apple, 5);
    for _ in 0..14 {
        world.pass(30 * DAY);
        world.expect_all_arrive(&mut used);
    }
    world.pass(DAY);
    world
        .daemon
        .wait_for_log("registrations that nobody used were removed", LONG);
    world.publish(&mut unused);
    assert!(
        unused.iter().all(|device| device.last == DEAD),
        "{}",
        world.daemon.log()
    );
    world.expect_all_arrive(&mut used);
}

#[test]
fn a_secret_is_wrong_or_missing() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 10);
    let secrets: Vec<_> = devices.iter().map(|device| device.secret.clone()).collect();
    for wrong in [
        None,
        Some(String::new()),
        Some("0".repeat(64)),
        Some("x".repeat(3_000)),
    ] {
        for device in &mut devices {
            device.secret.clone_from(&wrong);
        }
        for _ in 0..20 {
            world.publish(&mut devices);
        }
        assert_all_kept(&devices, "a wrong secret");
    }
    for (device, secret) in devices.iter_mut().zip(secrets) {
        device.secret = secret;
    }
    world.expect_all_arrive(&mut devices);
}

/// A device that becomes one of another type gets another secret, and so does one that registers over HTTP again and does not
/// say its secret; its server knows the old one until the app has told it.
#[test]
fn a_secret_that_was_replaced_is_good_for_a_week() {
    for cache in [true, false] {
        let store = |settings: &mut serde_json::Value| {
            settings["registration"]["store"]["cache"] = json!(cache);
            settings["registration"]["http"] = json!({ "listen": "127.0.0.1:0" });
        };
        let mut world = World::with(store, Moves::Time);
        let mut before = vec![
            world.register(Provider::Apple, "n", 0),
            world.register_over_http(Provider::Apple, "h"),
            world.register_over_http(Provider::Google, "g"),
        ];
        let mut after = vec![
            world.register(Provider::Google, "n", 0),
            world.register_over_http(Provider::Apple, "h"),
            world.register_over_http(Provider::Google, "g"),
        ];
        for (before, after) in before.iter().zip(&after) {
            assert_ne!(before.secret, after.secret);
        }
        for day in 0..7 {
            world.expect_all_arrive(&mut before);
            world.expect_all_arrive(&mut after);
            if day == 3 {
                world.restart(End::Kill);
            }
            world.pass(if day < 6 { DAY } else { DAY - HOUR });
        }
        world.expect_all_arrive(&mut before);
        world.pass(DAY);
        for end in [None, Some(End::Stop)] {
            end.into_iter().for_each(|end| world.restart(end));
            world.publish(&mut before);
            for device in &before {
                assert_ne!(device.last, RESULT, "cache: {cache}, {}", device.node);
            }
            assert_all_kept(&before, "a secret of the past");
            world.expect_all_arrive(&mut after);
        }
    }
}
