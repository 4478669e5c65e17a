//! An operator slips, in the settings. Whatever is published meanwhile, no server may forget a device, and when the slip
//! is mended every push arrives.

use std::{fs, time::Duration};

use fpush_testkit::{Answer, Moves, fcm_error};
use serde_json::{Value, json};

use super::rig::{
    Change, DAY, HOUR, MINUTE, Provider, RESULT, World, assert_all_kept, lost, publish_for_days,
};

/// A slip, as a change of good settings.
type Slip = fn(&mut Value);

/// Lets the operator slip and mend it, both with a restart and with a reload, and publishes more often than any server
/// has patience for.
#[track_caller]
fn costs_nobody(what: &str, slip: Slip, prepare: fn(&World)) {
    for how in [Change::Restart, Change::Reload] {
        let mut world = World::start();
        let mut devices = world.devices(Provider::Apple, 20);
        devices.extend(world.devices(Provider::Google, 20));
        world.expect_all_arrive(&mut devices);

        let mut good = Value::Null;
        prepare(&world);
        world.change_settings(how, |settings| {
            good = settings.clone();
            slip(settings);
        });
        publish_for_days(&mut world, &mut devices);
        assert_all_kept(&devices, &format!("{what}, by {how:?}"));

        world.everybody_gets(None);
        world.change_settings(how, |settings| *settings = good);
        // What was blocked while it was doubted is free again.
        world.pass(21 * MINUTE);
        world.expect_all_arrive(&mut devices);
    }
}

fn nothing(_: &World) {}

/// The same with pushes that the provider refuses as another app's, and a slip that may be in another file.
#[track_caller]
fn another_app_costs_nobody(
    what: &str,
    word: &Answer,
    slip: impl Fn(&mut World, Change),
    mend: impl Fn(&mut World, Change),
) {
    for how in [Change::Restart, Change::Reload] {
        let mut world = World::start();
        let mut devices = world.devices(Provider::Apple, 20);
        world.devices_are_of(&devices, "org.example.app", word);
        let mut beta = world.stateless(Provider::Apple, 20);
        for device in &mut beta {
            device.module = Some("beta");
        }
        world.devices_are_of(&beta, "org.example.beta", word);
        let android = world.devices(Provider::Google, 20);
        world.devices_are_of(&android, "project-1", word);
        devices.extend(beta.into_iter().chain(android));
        world.expect_all_arrive(&mut devices);

        slip(&mut world, how);
        world.publish(&mut devices);
        let refused = devices.iter().filter(|device| device.last != RESULT).count();
        assert!(
            refused >= 20,
            "{refused} pushes came as another app's: {what}, by {how:?}"
        );
        publish_for_days(&mut world, &mut devices);
        assert_all_kept(&devices, &format!("{what}, by {how:?}"));

        mend(&mut world, how);
        world.pass(21 * MINUTE);
        world.expect_all_arrive(&mut devices);
    }
}

#[test]
fn a_module_has_the_wrong_type() {
    costs_nobody(
        "ios is a module of Google's",
        |settings| settings["pushModules"]["ios"] = settings["pushModules"]["android"].take_module(),
        nothing,
    );
}

#[test]
fn two_names_are_exchanged() {
    costs_nobody(
        "ios and android are exchanged",
        |settings| {
            let modules = &mut settings["pushModules"];
            let (ios, android) = (modules["ios"].clone(), modules["android"].clone());
            modules["ios"] = android;
            modules["android"] = ios;
        },
        nothing,
    );
}

#[test]
fn a_module_is_renamed() {
    costs_nobody(
        "ios is called iOS",
        |settings| {
            let modules = settings["pushModules"].as_object_mut().unwrap();
            let ios = modules.remove("ios").unwrap();
            modules.insert("iOS".to_owned(), ios);
            settings["registration"]["types"]["apns"] = json!("iOS");
        },
        nothing,
    );
}

#[test]
fn a_topic_is_wrong() {
    costs_nobody(
        "another app's topic",
        |settings| settings["pushModules"]["ios"]["apns"]["topic"] = json!("org.example.wrong"),
        |world| world.everybody_gets(Some(Answer::reason(400, "DeviceTokenNotForTopic"))),
    );
}

#[test]
fn an_environment_is_wrong() {
    costs_nobody(
        "tokens of the other environment",
        |settings| settings["pushModules"]["ios"]["apns"]["environment"] = json!("sandbox"),
        |world| world.everybody_gets(Some(Answer::reason(400, "BadDeviceToken"))),
    );
}

#[test]
fn a_project_is_wrong() {
    costs_nobody(
        "another project's service account",
        |settings| settings["pushModules"]["android"]["fcm"]["target"] = json!("token"),
        |world| {
            let mismatch = fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]);
            world.everybody_gets(Some(mismatch));
        },
    );
}

#[test]
fn two_modules_of_apple_are_exchanged() {
    let exchange = |world: &mut World, how| {
        world.change_settings(how, |settings| {
            let modules = &mut settings["pushModules"];
            let (ios, beta) = (modules["ios"].clone(), modules["beta"].clone());
            modules["ios"] = beta;
            modules["beta"] = ios;
        });
    };
    // Two apps, or the two environments of one.
    for reason in ["DeviceTokenNotForTopic", "BadDeviceToken"] {
        let word = Answer::reason(400, reason);
        another_app_costs_nobody("ios and beta are exchanged", &word, exchange, exchange);
    }
}

#[test]
fn the_account_file_is_another_projects() {
    let of_project = |project: &'static str| {
        move |world: &mut World, how| {
            fs::write(world.file("fcm.json"), world.fcm.service_account(project)).unwrap();
            world.change_settings(how, |_| {});
        }
    };
    let word = fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]);
    another_app_costs_nobody(
        "another project's service account",
        &word,
        of_project("project-2"),
        of_project("project-1"),
    );
}

#[test]
fn the_default_module_is_another_one() {
    costs_nobody(
        "the default is ios",
        |settings| {
            let modules = &mut settings["pushModules"];
            modules["android"]["is_default_module"] = json!(false);
            modules["ios"]["is_default_module"] = json!(true);
        },
        nothing,
    );
}

#[test]
fn a_push_type_leads_to_another_module() {
    costs_nobody(
        "the types of registered devices are exchanged",
        |settings| settings["registration"]["types"] = json!({ "apns": "android", "fcm": "ios" }),
        nothing,
    );
}

#[test]
fn a_module_is_missing() {
    costs_nobody(
        "ios is missing, also among the types",
        |settings| {
            settings["pushModules"].as_object_mut().unwrap().remove("ios");
            settings["registration"]["types"]
                .as_object_mut()
                .unwrap()
                .remove("apns");
        },
        nothing,
    );
}

#[test]
fn registration_is_switched_off() {
    costs_nobody(
        "the block registration is missing",
        |settings| {
            settings.as_object_mut().unwrap().remove("registration");
        },
        nothing,
    );
}

/// Their nodes go to the default module, which takes them for tokens that its provider does not know.
#[test]
fn registration_is_switched_off_and_nodes_look_like_tokens() {
    let mut world = World::start();
    let mut devices: Vec<_> = (0..20)
        .map(|n| world.register(Provider::Google, &format!("5f0c9d1e-7b3a-4c2e-9d11-{n:012}"), n))
        .collect();
    let mut others = world.stateless(Provider::Google, 100);
    world.change_settings(Change::Restart, |settings| {
        settings.as_object_mut().unwrap().remove("registration");
    });
    for device in &devices {
        let unknown = &Provider::Google.words_beyond_doubt()[0];
        world.token_gets(&device.node, unknown.clone());
    }
    for _ in 0..4 {
        world.expect_all_arrive(&mut others);
        publish_for_days(&mut world, &mut devices);
    }
    assert_all_kept(&devices, "registration is missing");
}

#[test]
fn one_app_of_three_names_the_wrong_module() {
    // A third of all, and fewer than one in ten.
    for (calm, of_module, of_other) in [(Duration::ZERO, 40, 20), (7 * DAY, 40, 20), (DAY, 95, 5)] {
        let mut world = World::start();
        let mut right = world.devices(Provider::Apple, of_module);
        let mut wrong = world.stateless(Provider::Apple, of_other);
        for device in &wrong {
            world.token_gets(&device.token, Answer::reason(400, "DeviceTokenNotForTopic"));
        }
        let mut passed = Duration::ZERO;
        while passed < calm {
            world.expect_all_arrive(&mut right);
            world.pass(6 * HOUR);
            passed += 6 * HOUR;
        }
        while passed < calm + 5 * DAY {
            world.publish(&mut right);
            world.publish(&mut wrong);
            world.pass(3 * HOUR);
            passed += 3 * HOUR;
        }
        assert_all_kept(&right, "the module's own devices");
        assert_all_kept(&wrong, "the other app's devices");
    }
}

#[test]
fn a_token_has_a_form_that_nobody_knows() {
    let mut world = World::start();
    let forms = [
        String::new(),
        " ".to_owned(),
        "x".to_owned(),
        "f".to_owned(),
        "zz".repeat(32),
        "ab".repeat(101),
        "a".repeat(63),
        "<&'\">".to_owned(),
        "../../3/device".to_owned(),
        "tok?x=1#y".to_owned(),
        "tök€n".to_owned(),
        "cAbCdEfGhIjKlMnOpQrStU".to_owned(),
        "x".repeat(4_096),
        "x".repeat(4_097),
        "A".repeat(8_000),
        "00000000-0000-4000-8000-000000000000".to_owned(),
    ];
    for module in [None, Some("ios"), Some("android"), Some("nobody"), Some("")] {
        for form in &forms {
            let mut devices = world.stateless(Provider::Apple, 1);
            form.clone_into(&mut devices[0].node);
            devices[0].module = module;
            for _ in 0..17 {
                world.publish(&mut devices);
            }
            assert_all_kept(&devices, &format!("{} bytes, module {module:?}", form.len()));
        }
    }
}

#[test]
fn the_time_of_day_is_wrong() {
    // Ahead by ten days, and then set right: neither ages a word of a provider's.
    let mut world = World::with(|_| {}, Moves::TimeOfDay);
    let mut devices = world.devices(Provider::Apple, 20);
    world.expect_all_arrive(&mut devices);
    let mut doubted = world.stateless(Provider::Apple, 20);
    for device in &doubted {
        world.token_gets(&device.token, Answer::reason(400, "BadDeviceToken"));
    }
    for _ in 0..10 {
        world.publish(&mut devices);
        world.publish(&mut doubted);
        world.pass(DAY);
    }
    assert_all_kept(&doubted, "with a clock that jumps");
    assert_eq!(lost(&devices).len(), 0);
}

/// Takes a copy of a module, which is not the default one.
trait TakeModule {
    fn take_module(&self) -> Value;
}

impl TakeModule for Value {
    fn take_module(&self) -> Value {
        let mut module = self.clone();
        module["is_default_module"] = json!(false);
        module
    }
}
