//! The database of registered devices is not the one that it was. No device may be forgotten for that.

use std::fs;

use serde_json::json;

use super::rig::{Change, DAY, End, HOUR, LONG, Provider, World, assert_all_kept};

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
