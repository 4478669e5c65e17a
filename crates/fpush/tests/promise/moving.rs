//! An operator slips on the way in or back: with an import, with one module for both of Apple's environments, or with a shadow.
//! Whatever is published meanwhile, no server may forget a device, and when the slip is mended every push arrives.

use std::fs;

use fpush_testkit::{Answer, Moves, fcm_error};
use serde_json::{Value, json};

use super::rig::{Change, DAY, Device, End, MINUTE, Provider, World, assert_all_kept, publish_for_days};

/// Publishes for days, and says which devices must not be lost for what.
#[track_caller]
fn all_are_kept(world: &mut World, devices: &mut [Device], what: &str) {
    publish_for_days(world, devices);
    assert_all_kept(devices, what);
}

/// What `fpush export` writes, each device changed.
fn exported(world: &World, change: impl Fn(&mut Value)) -> String {
    let lines = String::from_utf8(world.operate(&["export"])).unwrap();
    let devices = lines.lines().map(|line| {
        let mut device = serde_json::from_str(line).unwrap();
        change(&mut device);
        format!("{device}\n")
    });
    devices.collect()
}

/// Imports devices from such lines.
#[track_caller]
fn import(world: &World, lines: &str) {
    fs::write(world.file("in.jsonl"), lines).unwrap();
    world.operate(&["import", "json", "in.jsonl"]);
}

/// The registry begins again, as on another machine.
fn forget_everything(world: &mut World) {
    world.stop();
    for file in super::rig::DATABASE {
        let _ = fs::remove_file(world.file(file));
    }
    fs::remove_dir_all(world.file("state")).unwrap();
    world.go_on();
}

#[test]
fn an_import_has_the_types_exchanged() {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 15);
    devices.extend(world.registered(Provider::Google, 15));
    world.expect_all_arrive(&mut devices);
    let right = exported(&world, |_| {});
    let wrong = exported(&world, |device| {
        device["type"] = json!(if device["type"] == "apns" { "fcm" } else { "apns" });
    });
    forget_everything(&mut world);
    import(&world, &wrong);
    all_are_kept(&mut world, &mut devices, "types are exchanged");
    // The right ones come to those that nobody has imported before.
    forget_everything(&mut world);
    import(&world, &right);
    world.pass(MINUTE);
    world.expect_all_arrive(&mut devices);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn an_import_is_of_another_service() {
    for (provider, app, word) in [
        (
            Provider::Apple,
            "org.example.other",
            Answer::reason(400, "DeviceTokenNotForTopic"),
        ),
        (
            Provider::Apple,
            "org.example.other",
            Answer::reason(400, "BadDeviceToken"),
        ),
        (
            Provider::Google,
            "project-2",
            fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
        ),
    ] {
        let mut world = World::start();
        // The other service's, of whose app none of our modules is.
        let mut others = world.registered(provider, 30);
        let lines = exported(&world, |_| {});
        forget_everything(&mut world);
        let mut devices = world.registered(provider, 60);
        world.devices_are_of(&others, app, &word);
        world.expect_all_arrive(&mut devices);
        import(&world, &lines);
        world.pass(MINUTE);
        for _ in 0..5 {
            world.expect_all_arrive(&mut devices);
            all_are_kept(&mut world, &mut others, &format!("{word:?} of {app}"));
        }
        assert_all_kept(&devices, "our own");
    }
}

#[test]
fn an_import_is_from_an_old_backup() {
    let dead = || Provider::Apple.words_beyond_doubt()[0].clone();
    for is_empty in [false, true] {
        let mut world = World::start();
        let old: Vec<_> = (0..20)
            .map(|n| world.register(Provider::Apple, &format!("node-{n}"), n))
            .collect();
        let backup = exported(&world, |_| {});
        world.pass(DAY);
        // Each has another token since, and its old one is dead.
        let mut devices: Vec<_> = (0..20)
            .map(|n| world.register(Provider::Apple, &format!("node-{n}"), n))
            .collect();
        for device in &old {
            world.token_gets(&device.token, dead());
        }
        let mut others = world.stateless(Provider::Apple, 60);
        world.expect_all_arrive(&mut others);
        world.expect_all_arrive(&mut devices);
        if is_empty {
            // The database is lost, and what its backup knows is not true any more.
            world.stop();
            for file in super::rig::DATABASE {
                let _ = fs::remove_file(world.file(file));
            }
            world.go_on();
        }
        import(&world, &backup);
        world.pass(MINUTE);
        world.expect_all_arrive(&mut others);
        all_are_kept(&mut world, &mut devices, "an old backup");
        if !is_empty {
            // What is there is later than what came.
            world.expect_all_arrive(&mut devices);
        }
    }
}

/// One module for both environments, each of which knows its own tokens.
fn for_both(settings: &mut Value) {
    let apns = &mut settings["pushModules"]["ios"]["apns"];
    apns["environment"] = json!("both");
    // One stand-in is both.
    apns["sandboxEndpoint"] = apns["endpoint"].clone();
}

/// A slip in the settings of a module for both, by both ways.
#[track_caller]
fn costs_nobody(what: &str, slip: fn(&mut Value), word: &Answer) {
    for how in [Change::Restart, Change::Reload] {
        let mut world = World::with(for_both, Moves::Time);
        let mut devices = world.devices(Provider::Apple, 20);
        world.expect_all_arrive(&mut devices);
        let mut good = Value::Null;
        world.everybody_gets(Some(word.clone()));
        world.change_settings(how, |settings| {
            good = settings.clone();
            slip(settings);
        });
        all_are_kept(&mut world, &mut devices, &format!("{what}, by {how:?}"));
        world.everybody_gets(None);
        world.change_settings(how, |settings| *settings = good);
        world.pass(21 * MINUTE);
        world.expect_all_arrive(&mut devices);
    }
}

#[test]
fn a_topic_is_wrong_in_both_environments() {
    costs_nobody(
        "another app's topic",
        |settings| settings["pushModules"]["ios"]["apns"]["topic"] = json!("org.example.wrong"),
        &Answer::reason(400, "DeviceTokenNotForTopic"),
    );
}

#[test]
fn one_environment_is_taken_away() {
    for environment in ["production", "sandbox"] {
        let slip: fn(&mut Value) = match environment {
            "production" => |settings| {
                let apns = &mut settings["pushModules"]["ios"]["apns"];
                apns["environment"] = json!("production");
                apns.as_object_mut().unwrap().remove("sandboxEndpoint");
            },
            _ => |settings| {
                let apns = &mut settings["pushModules"]["ios"]["apns"];
                apns["environment"] = json!("sandbox");
                apns.as_object_mut().unwrap().remove("sandboxEndpoint");
            },
        };
        let word = Answer::reason(400, "BadDeviceToken");
        costs_nobody(&format!("{environment} alone"), slip, &word);
    }
}

/// The sandbox is out of reach because its endpoint is mistyped, while production calls everybody wrong or dead.
#[test]
fn the_endpoint_of_the_sandbox_is_wrong() {
    for word in [
        Answer::reason(400, "BadDeviceToken"),
        Answer::reason(410, "Unregistered"),
    ] {
        costs_nobody(
            "a mistyped endpoint",
            |settings| {
                settings["pushModules"]["ios"]["apns"]["sandboxEndpoint"] = json!("https://127.0.0.1:1");
            },
            &word,
        );
    }
}

#[test]
fn a_shadow_is_switched_off_with_wrong_settings() {
    let exchange = |settings: &mut Value| {
        let modules = &mut settings["pushModules"];
        let (ios, beta) = (modules["ios"].clone(), modules["beta"].clone());
        (modules["ios"], modules["beta"]) = (beta, ios);
    };
    for how in [Change::Restart, Change::Reload] {
        let mut world = World::with(
            |settings| {
                exchange(settings);
                for name in ["ios", "beta", "android"] {
                    settings["pushModules"][name]["shadow"] = json!(true);
                }
            },
            Moves::Time,
        );
        let mut devices = world.devices(Provider::Apple, 20);
        let word = Answer::reason(400, "DeviceTokenNotForTopic");
        world.devices_are_of(&devices, "org.example.app", &word);
        let mut android = world.devices(Provider::Google, 20);
        world.devices_are_of(
            &android,
            "project-2",
            &fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
        );
        world.expect_all_arrive(&mut devices);
        world.change_settings(how, |settings| {
            for name in ["ios", "beta", "android"] {
                settings["pushModules"][name]["shadow"] = json!(false);
            }
        });
        all_are_kept(&mut world, &mut devices, &format!("exchanged, by {how:?}"));
        all_are_kept(&mut world, &mut android, &format!("another project, by {how:?}"));
        world.change_settings(how, exchange);
        world.pass(21 * MINUTE);
        world.expect_all_arrive(&mut devices);
        world.restart(End::Kill);
        world.expect_all_arrive(&mut devices);
    }
}

/// Apps of Tigase's dialect are known by a node alone. Those that their former push service made are known to nobody here, and the
/// default module takes them for tokens.
#[test]
fn nodes_of_a_former_push_service_need_no_secret() {
    for has_providers in [true, false] {
        let mut world = World::with(
            |settings| {
                settings["pushModules"]
                    .as_object_mut()
                    .unwrap()
                    .retain(|name, _| name == "android");
                let registration = &mut settings["registration"];
                registration["types"].as_object_mut().unwrap().remove("apns");
                if has_providers {
                    registration["providers"] = json!({ "fcm-xmpp-api": "android" });
                }
            },
            Moves::Time,
        );
        let mut others = world.stateless(Provider::Google, 60);
        let mut devices = world.stateless(Provider::Google, 5);
        for (n, device) in devices.iter_mut().enumerate() {
            (device.node, device.module) = (format!("{n:02x}{}", "5eedf00d".repeat(5)), None);
            world.token_gets(&device.node, Provider::Google.words_beyond_doubt()[0].clone());
        }
        world.expect_all_arrive(&mut others);
        publish_for_days(&mut world, &mut devices);
        if has_providers {
            assert_all_kept(&devices, "nodes of a former push service");
        } else {
            let kept = devices.iter().filter(|device| device.registration.is_kept());
            assert_eq!(
                kept.count(),
                0,
                "without Tigase's commands they are tokens, which are dead"
            );
        }
        world.expect_all_arrive(&mut others);
    }
}

/// A registry that devices were imported into from another push service, and that does not know all of its nodes: they lack a
/// secret, and the default module could take them for tokens. No server forgets them, and no provider hears of them.
#[test]
fn nodes_of_a_push_service_that_was_imported_are_not_tokens() {
    for (provider, dialect, form) in [
        (Provider::Google, "tigase", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
        (Provider::Apple, "p2", "0123456789ab"),
    ] {
        let mut world = World::with(
            |settings| {
                let modules = settings["pushModules"].as_object_mut().unwrap();
                modules.retain(|name, _| name == provider.module());
                modules[provider.module()]["is_default_module"] = json!(true);
                settings["registration"]["types"] = json!({ "old": provider.module() });
            },
            Moves::Time,
        );
        let imported = json!({
            "dialect": dialect, "type": "old", "node": form, "secret": "s", "token": "t", "owner": "a@a.example",
            "registered": "2026-01-01T00:00:00Z",
        });
        let mut others = world.stateless(provider, 60);
        let mut devices = world.stateless(provider, 5);
        for (n, device) in devices.iter_mut().enumerate() {
            (device.node, device.module) = (format!("{n:08x}{}", &form[8..]), None);
            for word in provider.words_beyond_doubt() {
                world.token_gets(&device.node, word);
            }
        }
        import(&world, &format!("{imported}\n"));
        world.restart(End::Kill);
        world.expect_all_arrive(&mut others);
        let before = world.apns.count() + world.fcm.count();
        publish_for_days(&mut world, &mut devices);
        assert_all_kept(&devices, "nodes of an imported push service");
        assert_eq!(world.apns.count() + world.fcm.count(), before, "{provider:?}");
        assert!(
            devices.iter().all(|device| device.last == UNKNOWN),
            "{provider:?}"
        );
        // Who names the module means a token.
        for device in &mut devices {
            device.module = Some(provider.module());
            world.token_is_well(&device.node);
        }
        world.expect_all_arrive(&mut devices);
        world.expect_all_arrive(&mut others);
    }
}

/// What is answered for a node that the registry does not know.
const UNKNOWN: &str = "wait/internal-server-error";
