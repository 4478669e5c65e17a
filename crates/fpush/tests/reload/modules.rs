//! What a module knows and holds when its settings change, and the log.

use std::{collections::HashSet, time::Instant};

use fpush_testkit::{Answer, ApnsKey};
use serde_json::{Value, json};

use crate::rig::{DEAD, LONG, OVERLOAD, REFUSED, RESULT, SECOND, World, apple, google, title, until};

#[test]
fn blocks_and_windows_outlive_a_change_of_their_module() {
    let world = World::new();
    let hour = json!({ "ratelimit": { "enabled": true, "ratelimitTime": "1h" } });
    let settings = world.settings(json!({
        "same": world.apple(hour.clone()), "ios": world.apple(hour.clone()), "android": world.google(hour),
    }));
    let mut rig = world.start(settings, &[]);
    for module in ["same", "ios"] {
        // Apple is believed when it has accepted pushes for others.
        for other in 100..110 {
            assert_eq!(rig.push(module, &apple(other)), RESULT);
        }
        rig.world.apns.queue([Answer::reason(410, "Unregistered")]);
        assert_eq!(rig.push(module, &apple(1)), DEAD);
        assert_eq!(rig.push(module, &apple(2)), RESULT);
        assert_eq!(rig.push(module, &apple(3)), RESULT);
        assert_eq!(rig.push(module, &apple(3)), RESULT, "it is held");
    }
    assert_eq!(rig.push("android", &google(2)), RESULT);
    let (asked, held) = (rig.world.apns.count(), rig.world.fcm.count());
    for title in ["One", "Two"] {
        rig.reload(json!({ "pushModules": {
            "ios": { "maxInFlight": title.len(), "apns": { "alertTitle": title } },
            "android": { "fcm": { "ttl": format!("{}h", title.len()) } },
        } }));
        for module in ["same", "ios"] {
            assert_eq!(rig.push(module, &apple(1)), DEAD, "{module}");
            assert_eq!(
                rig.push(module, &apple(3)),
                REFUSED,
                "{module}: one is held already"
            );
        }
    }
    for (module, token) in [("same", apple(2)), ("ios", apple(2)), ("android", google(2))] {
        assert_eq!(rig.push(module, &token), RESULT, "{module}: it is held");
        assert_eq!(rig.push(module, &token), REFUSED, "{module}");
    }
    rig.conductor.monitoring().wait_for_news();
    for (module, held, blocked) in [("same", 2.0, 1.0), ("ios", 2.0, 1.0), ("android", 1.0, 0.0)] {
        let labels = [("module", module)];
        assert_eq!(rig.conductor.metric("fpush_pushes_queued", &labels), Some(held));
        assert_eq!(
            rig.conductor.metric("fpush_blocklist_tokens", &labels),
            Some(blocked)
        );
    }
    assert_eq!(
        (rig.world.apns.count(), rig.world.fcm.count()),
        (asked, held),
        "no provider was asked"
    );
    // The new settings are in force all the same, and govern what is held.
    assert_eq!(rig.title("ios", &apple(4)), "Two");
    rig.conductor.daemon.terminate();
    assert!(rig.conductor.daemon.wait(LONG).success());
    let requests = rig.world.apns.requests();
    let mut late: Vec<_> = requests[asked + 1..]
        .iter()
        .map(|request| (request.token.clone(), title(&request.body)))
        .collect();
    late.sort_unstable();
    let usual = title(&requests[1].body);
    let expected = [(2, usual), (2, "Two"), (3, usual), (3, "Two")];
    assert_eq!(late, expected.map(|(number, title)| (apple(number), title)));
}

#[test]
fn what_a_removed_module_holds_goes_out_on_its_old_backend() {
    let world = World::new();
    let limit =
        json!({ "ratelimit": { "enabled": true, "ratelimitTime": "5s" }, "apns": { "alertTitle": "Old" } });
    let settings = world.settings(json!({ "old": world.apple(limit), "other": world.google(json!({})) }));
    let mut rig = world.start(settings, &[]);
    let began = Instant::now();
    assert_eq!(rig.push("old", &apple(1)), RESULT);
    assert_eq!(rig.push("old", &apple(1)), RESULT, "it is held");
    rig.reload(json!({ "pushModules": { "old": null } }));
    let line = rig
        .conductor
        .daemon
        .wait_for_log("this module is not in the settings any more", LONG);
    assert!(line.contains("held=1"), "{line}");
    assert_eq!(rig.push("old", &apple(2)), OVERLOAD);
    let requests = rig.world.apns.wait_for(2, LONG);
    assert_eq!(
        (requests[1].token.clone(), title(&requests[1].body)),
        (apple(1), "Old")
    );
    let later = requests[1].at - began;
    assert!(later >= 5 * SECOND, "its time has come: {later:?}");
    rig.conductor.daemon.terminate();
    assert!(rig.conductor.daemon.wait(LONG).success());
    assert_eq!(rig.world.apns.count(), 2);
}

#[test]
fn a_removed_module_that_comes_back_goes_on_with_what_it_knew_and_held() {
    let world = World::new();
    let limit = |title: &str| json!({ "ratelimit": { "enabled": true, "ratelimitTime": "1h" }, "apns": { "alertTitle": title } });
    let (old, new) = (world.apple(limit("Old")), world.apple(limit("New")));
    let settings = world.settings(json!({ "back": old, "other": world.google(json!({})) }));
    let mut rig = world.start(settings, &[]);
    assert_eq!(rig.push("back", &apple(1)), RESULT);
    assert_eq!(rig.push("back", &apple(1)), RESULT, "it is held");
    rig.reload(json!({ "pushModules": { "back": null } }));
    rig.reload(json!({ "pushModules": { "back": new } }));
    assert_eq!(rig.push("back", &apple(1)), REFUSED, "one is held already");
    assert_eq!(rig.title("back", &apple(2)), "New");
    rig.conductor.daemon.terminate();
    assert!(rig.conductor.daemon.wait(LONG).success());
    let requests = rig.world.apns.requests();
    let last = requests
        .last()
        .map(|request| (request.token.clone(), title(&request.body)));
    assert_eq!((requests.len(), last), (3, Some((apple(1), "New"))));
}

#[test]
fn the_metrics_of_a_removed_module_go_with_it() {
    let world = World::new();
    let hour = json!({ "ratelimit": { "enabled": true, "ratelimitTime": "1h" } });
    let (idle, holding) = (world.apple(hour.clone()), world.apple(hour));
    let settings = world.settings(json!({
        "idle": idle, "holding": holding, "other": world.google(json!({})),
    }));
    let mut rig = world.start(settings, &[]);
    for (module, token) in [("idle", 1), ("holding", 2), ("holding", 2)] {
        assert_eq!(rig.push(module, &apple(token)), RESULT);
    }
    rig.conductor.monitoring().wait_for_news();
    rig.reload(json!({ "pushModules": { "idle": null, "holding": null } }));
    let monitoring = rig.conductor.monitoring();
    until(LONG, "the one that holds nothing ends", || {
        !monitoring.scrape().text.contains("module=\"idle\"")
    });
    let queued = [("module", "holding"), ("outcome", "queued")];
    let scrape = monitoring.scrape();
    assert_eq!(scrape.value("fpush_pushes_total", &queued), Some(1.0));
    assert_eq!(scrape.value("fpush_pushes_queued", &queued[..1]), None);
    rig.reload(json!({ "pushModules": { "idle": idle, "holding": holding } }));
    monitoring.wait_for_news();
    let scrape = monitoring.scrape();
    assert_eq!(
        scrape.value("fpush_pushes_total", &[("module", "idle")]),
        Some(0.0)
    );
    assert_eq!(
        scrape.value("fpush_pushes_total", &queued[..1]),
        Some(2.0),
        "it goes on"
    );
}

/// Apple refuses a team whose provider tokens change more often than every 20 minutes.
#[test]
fn a_key_has_one_provider_token_whatever_is_reloaded() {
    let world = World::new();
    let key = ApnsKey::generate();
    let module = world.by_token("key.p8", json!({}));
    let settings = world.settings(json!({ "ios": module, "android": world.google(json!({})) }));
    let mut rig = world.start(settings, &[("key.p8", &key.p8()), ("copy.p8", &key.p8())]);
    let ios = |more: Value| json!({ "pushModules": { "ios": more } });
    assert_eq!(rig.push("ios", &apple(0)), RESULT);
    let changes = [
        ios(json!({ "apns": { "alertTitle": "1" } })),
        ios(json!({ "apns": { "topic": "org.example.other", "pushPriority": "silent" } })),
        ios(json!({ "apns": { "tokenKeyFilePath": "copy.p8" } })),
        ios(Value::Null),
        json!({ "pushModules": { "again": module } }),
        ios(module.clone()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        if number == 3 {
            // What is refused has read the key, too.
            let wrong = json!({ "pushModules": { "wrong": { "type": "?" } } });
            let wrong = rig.conductor.changed(wrong);
            rig.conductor.refuse(&wrong.to_string());
        }
        rig.reload(change);
        for module in ["ios", "again"] {
            if rig.conductor.settings["pushModules"].get(module).is_some() {
                assert_eq!(rig.push(module, &apple(1 + number)), RESULT);
            }
        }
    }
    let requests = rig.world.apns.requests();
    assert_eq!(requests.len(), 7, "{requests:#?}");
    let tokens: HashSet<_> = requests
        .iter()
        .map(|request| request.header("authorization").unwrap())
        .collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens.iter().all(|token| key.verify(token).is_ok()));
    let connections: HashSet<_> = requests.iter().map(|request| request.connection).collect();
    assert!(connections.len() > 4, "these were new backends: {connections:?}");
}

#[test]
fn the_format_of_the_log_changes() {
    let world = World::new();
    let settings = world.settings(json!({ "ios": world.apple(json!({})) }));
    let mut rig = world.start(settings, &[]);
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object());
    for (format, json) in [("json", true), ("human", false), ("json", true)] {
        rig.reload(json!({ "logging": { "format": format } }));
        let log = rig.conductor.daemon.log();
        let last = log.lines().next_back().unwrap_or_default();
        assert_eq!(is_json(last), json, "{last}");
    }
}
