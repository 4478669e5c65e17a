//! The database of registered devices is not the one that it was. No device may be forgotten for that.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use fpush_testkit::{Answer, Moves, Postgres, until};
use serde_json::json;

use super::rig::{
    Change, DATABASE, DAY, DEAD, End, HOUR, LONG, MINUTE, Provider, RESULT, World, assert_all_kept,
    copy_database,
};

/// Puts the database away under another name, or back.
fn rename(world: &World, from: &str, to: &str) {
    for file in DATABASE {
        let (from, to) = (file.replace("devices", from), file.replace("devices", to));
        let _ = fs::remove_file(world.file(&to));
        let _ = fs::rename(world.file(&from), world.file(&to));
    }
}

/// Does this past fpush.
#[track_caller]
fn sql(world: &World, sql: &str) {
    let file = world.file("devices.db");
    let done = Command::new("sqlite3").arg(file).arg(sql).status();
    assert!(done.unwrap().success(), "{sql}");
}

/// Another program writes to the database, and does not end.
struct Lock(std::process::Child);

impl Lock {
    fn new(world: &World, mode: &str) -> Self {
        let mut child = Command::new("sqlite3")
            .arg(world.file("devices.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.as_mut().unwrap();
        writeln!(
            input,
            ".timeout 10000\n{mode}\nBEGIN IMMEDIATE;\nSELECT 'locked';"
        )
        .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.as_mut().unwrap());
        // The mode is said first.
        while line != "locked\n" {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it cannot be locked");
        }
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
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
    copy_database(&world, "devices", "backup");
    world.go_on();
    let mut new = world.registered(Provider::Apple, 10);
    world.expect_all_arrive(&mut new);
    world.expect_all_arrive(&mut old);
    world.stop();
    copy_database(&world, "backup", "devices");
    world.go_on();
    for _ in 0..20 {
        world.publish(&mut old);
        world.publish(&mut new);
        world.pass(DAY / 4);
    }
    assert_all_kept(&old, "devices of the backup");
    assert_all_kept(&new, "devices that the backup does not have");
}

/// Who remembers nothing of it does not know who has registered again since.
#[test]
fn it_is_a_backup_and_nothing_is_remembered() {
    for how in ["lost", "accepted"] {
        let mut world = World::start();
        let mut stay = world.registered(Provider::Apple, 10);
        let leave: Vec<_> = (0..10)
            .map(|n| world.register(Provider::Apple, &format!("leaves-{n}"), n))
            .collect();
        for (n, device) in leave.iter().enumerate() {
            world.unregister(device, n);
        }
        world.stop();
        copy_database(&world, "devices", "backup");
        world.go_on();
        let mut come_back: Vec<_> = (0..10)
            .map(|n| world.register(Provider::Apple, &format!("leaves-{n}"), n))
            .collect();
        world.expect_all_arrive(&mut come_back);
        world.stop();
        copy_database(&world, "backup", "devices");
        if how == "lost" {
            fs::remove_dir_all(world.file("state")).unwrap();
        } else {
            world.operate(&["devices", "accept"]);
        }
        world.go_on();
        for start in 0..3 {
            for _ in 0..7 {
                world.publish(&mut stay);
                world.publish(&mut come_back);
                world.pass(DAY / 4);
            }
            if start < 2 {
                world.restart(End::Stop);
            }
        }
        assert_all_kept(&stay, "devices of the backup");
        assert_all_kept(
            &come_back,
            &format!("devices that came back after it; what was known is {how}"),
        );
        world.expect_all_arrive(&mut stay);
        // What goes from then on goes.
        let mut gone = [world.register(Provider::Apple, "goes", 1)];
        world.unregister(&gone[0], 1);
        world.publish(&mut gone);
        assert_eq!(gone[0].last, DEAD);
    }
}

#[test]
fn it_has_shrunk() {
    for how in [End::Stop, End::Kill] {
        let mut world = World::start();
        let mut devices = world.registered(Provider::Apple, 30);
        world.expect_all_arrive(&mut devices);
        world.stop();
        copy_database(&world, "devices", "backup");
        sql(&world, "DELETE FROM devices WHERE rowid % 3 > 0");
        world.go_on();
        for start in 0..2 {
            for _ in 0..10 {
                world.publish(&mut devices);
                world.pass(DAY / 4);
            }
            if start == 0 {
                world.restart(how);
            }
        }
        assert_all_kept(&devices, "devices that somebody has deleted");
        assert!(
            devices.iter().any(|device| device.last != RESULT),
            "some are missing"
        );
        world.stop();
        copy_database(&world, "backup", "devices");
        world.go_on();
        world.expect_all_arrive(&mut devices);
    }
}

/// What a provider says meanwhile cannot be written, and a registry that cannot be asked knows nothing.
#[test]
fn it_is_locked_for_a_while() {
    for cache in [true, false] {
        let store = |settings: &mut serde_json::Value| {
            settings["registration"]["store"]["cache"] = json!(cache);
        };
        let mut world = World::with(store, Moves::Time);
        let mut devices = world.registered(Provider::Apple, 30);
        world.expect_all_arrive(&mut devices);
        let mut dead = world.registered(Provider::Apple, 1);
        world.token_gets(&dead[0].token, Answer::reason(410, "Unregistered"));
        let lock = Lock::new(&world, "");
        for _ in 0..17 {
            world.publish(&mut devices);
        }
        assert_all_kept(&devices, &format!("a database that is locked, cache: {cache}"));
        drop(lock);
        world.stop();
        // Nobody can read it either.
        let lock = Lock::new(&world, "PRAGMA locking_mode=EXCLUSIVE;");
        world.go_on();
        // Each takes as long as a question to the database may.
        for _ in 0..2 {
            world.publish(&mut devices);
        }
        assert_all_kept(&devices, &format!("locked at the start, cache: {cache}"));
        assert!(devices.iter().all(|device| device.last != RESULT), "it is locked");
        drop(lock);
        until(LONG, "what is dead can be ended again", || {
            world.pass(Duration::from_secs(5));
            world.publish(&mut devices);
            world.publish(&mut dead);
            dead[0].last == DEAD
        });
        world.expect_all_arrive(&mut devices);
    }
}

#[test]
fn it_is_out_of_reach_for_a_while() {
    for cache in [true, false] {
        let server = Postgres::start_new();
        let url = server.database();
        let store = |settings: &mut serde_json::Value| {
            settings["registration"]["store"] = json!({ "type": "postgres", "url": url, "cache": cache });
        };
        let mut world = World::with(store, Moves::Time);
        let mut devices = world.registered(Provider::Apple, 20);
        let mut gone = [world.register(Provider::Apple, "gone", 1)];
        world.unregister(&gone[0], 1);
        world.expect_all_arrive(&mut devices);
        world.publish(&mut gone);
        assert_eq!(gone[0].last, DEAD);
        gone[0].registration = fpush_testkit::Registration::default();
        for end in [None, Some(End::Kill)] {
            server.stop();
            for _ in 0..17 {
                world.publish(&mut devices);
                world.publish(&mut gone);
            }
            assert_all_kept(&devices, &format!("a database that is away, cache: {cache}"));
            assert_all_kept(&gone, "nobody can know that it has ended");
            end.into_iter().for_each(|end| world.restart(end));
            world.publish(&mut devices);
            assert_all_kept(&devices, &format!("away at the start, cache: {cache}"));
            server.start();
            until(LONG, "the database is back", || {
                world.pass(Duration::from_secs(5));
                world.publish(&mut devices);
                devices.iter().all(|device| device.last == RESULT)
            });
        }
        assert_all_kept(&devices, "a database that was away");
    }
}

/// Another instance writes to it: memory hears of that some seconds later.
#[test]
fn memory_is_behind() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 10);
    world.expect_all_arrive(&mut devices);
    for round in 0..3 {
        let exported = world.operate(&["export"]);
        fs::write(world.file("devices.jsonl"), &exported).unwrap();
        for device in &devices {
            world.operate(&["devices", "remove", &device.node]);
        }
        world.pass(MINUTE);
        world.operate(&["import", "json", "devices.jsonl"]);
        for _ in 0..17 {
            world.publish(&mut devices);
        }
        assert_all_kept(&devices, "devices that another instance has registered");
        for device in &devices {
            assert_eq!(device.last, RESULT, "round {round}");
        }
    }
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
    // After another start the last use is one by the wrong clock.
    world.restart(End::Stop);
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
        world.pass(28 * DAY);
        world.expect_all_arrive(&mut used);
    }
    world.pass(7 * DAY + 12 * HOUR);
    // What was removed while nobody looked for more than an hour is not believed to be gone.
    for _ in 0..60 {
        if world.daemon.log().contains("unused registrations were removed") {
            break;
        }
        world.pass(50 * MINUTE);
    }
    world
        .daemon
        .wait_for_log("unused registrations were removed", LONG);
    world.publish(&mut unused);
    for device in &unused {
        assert_eq!(device.last, DEAD, "{}", world.daemon.log());
    }
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
