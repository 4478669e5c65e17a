//! What publishers of apps say that pushes carry: each word of it reaches the provider.

use fpush_testkit::{
    FakeApns, TestCa,
    publish::{prosody_publish, tigase_call_publish, tigase_publish},
};
use serde_json::{Value, json};

use crate::rig::{LONG, RESULT, Rig, merged, modules, unlimited};

/// What Apple gets for three publishes: one with seven messages, one without any, and a call.
fn at_apple(module: Value) -> Vec<(String, Value)> {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = crate::apns::apple(&apns, merged(module, unlimited()));
    let mut rig = Rig::start(&ca, modules([("m", module)]), &[]);
    let token = crate::apns::token(1);
    let mut all = Vec::new();
    for (number, publish) in [
        tigase_publish("7", &token, Some("m"), 7, true),
        tigase_publish("0", &token, Some("m"), 0, false),
        tigase_call_publish("call", &token, Some("m")),
        prosody_publish("1", &token, Some("m"), true),
    ]
    .into_iter()
    .enumerate()
    {
        let id = ["7", "0", "call", "1"][number];
        rig.link.send(publish.from("a.example"));
        assert_eq!(rig.verdict(id), RESULT);
        let request = apns.wait_for(number + 1, LONG).pop().unwrap();
        all.push((request.header("apns-push-type").unwrap().to_owned(), request.body));
    }
    all
}

#[test]
fn each_word_for_apple_is_in_the_push() {
    let keys = json!({ "apns": {
        "alertTitleLocKey": "NEW", "alertTitleLocArgs": ["fpush"], "alertBodyLocKey": "MANY", "alertBodyLocArgs": ["a", "b"],
        "sound": "ping.caf", "category": "MESSAGE", "threadId": "chats", "interruptionLevel": "time-sensitive",
        "relevanceScore": 0.25, "badge": "count", "additionalData": { "origin": "fpush" },
        "aps": { "filter-criteria": "focus", "alert": { "subtitle": "S" } },
    } });
    let alert = json!({
        "title-loc-key": "NEW", "title-loc-args": ["fpush"], "loc-key": "MANY", "loc-args": ["a", "b"], "subtitle": "S",
    });
    let body = |badge: u32| {
        json!({ "aps": {
            "alert": alert, "sound": "ping.caf", "mutable-content": 1, "category": "MESSAGE", "thread-id": "chats",
            "interruption-level": "time-sensitive", "relevance-score": 0.25, "badge": badge, "filter-criteria": "focus",
        }, "origin": "fpush" })
    };
    let badges = [7, 0, 1, 1];
    let expected: Vec<_> = badges
        .iter()
        .map(|badge| ("alert".to_owned(), body(*badge)))
        .collect();
    assert_eq!(at_apple(keys), expected);
}

#[test]
fn each_class_at_apple_carries_its_own() {
    let keys = json!({ "apns": {
        "pushPriority": "auto", "sound": "", "mutableContent": false, "alertBody": "", "additionalData": { "for": "all" },
        "aps": { "target-content-id": "t" },
        "visible": { "alertTitle": "Look", "badge": 3, "additionalData": { "for": "visible" } },
        "silent": { "aps": { "x": 1 } },
    } });
    let visible = json!({ "aps": { "alert": { "title": "Look" }, "badge": 3, "target-content-id": "t" }, "for": "visible" });
    let silent = json!({ "aps": { "content-available": 1, "x": 1 }, "for": "all" });
    let kinds: Vec<_> = at_apple(keys);
    let expected = [
        ("alert", &visible),
        ("background", &silent),
        ("alert", &visible),
        ("alert", &visible),
    ];
    let found: Vec<_> = kinds.iter().map(|(kind, body)| (kind.as_str(), body)).collect();
    assert_eq!(found, expected);
}

#[cfg(feature = "enable_fcm_support")]
mod google {
    use fpush_testkit::FakeFcm;

    use super::*;
    use crate::fcm;

    #[test]
    fn each_word_for_google_is_in_the_message() {
        let ca = TestCa::new();
        let fcm = FakeFcm::builder(&ca).start();
        let keys = json!({
            "priority": "auto", "ttl": "1h", "directBootOk": true, "restrictedPackageName": "org.example.app",
            "notification": { "title": "T", "body": "B", "image": "https://example.org/i.png" },
            "android": { "notification": { "channel_id": "chats", "title_loc_key": "NEW", "title_loc_args": ["x"],
                "notification_count": 1 }, "fcm_options": { "analytics_label": "android" } },
            "apns": { "headers": { "apns-collapse-id": "c" }, "payload": { "aps": { "badge": 1 } } },
            "webpush": { "headers": { "Urgency": "high" }, "notification": { "icon": "i" },
                "fcm_options": { "link": "https://example.org/" } },
            "fcmOptions": { "analytics_label": "all" }, "additionalData": { "origin": "fpush" },
            "silent": { "notification": {}, "android": {}, "apns": {}, "webpush": {}, "fcmOptions": {}, "collapseKey": "quiet" },
            "voip": { "ttl": "30s", "additionalData": { "call": "1" } },
        });
        let mut rig = fcm::start(
            &ca,
            &fcm,
            modules([(
                "m",
                fcm::google(&fcm, merged(json!({ "fcm": keys }), unlimited())),
            )]),
        );
        let token = fcm::token(1);
        for publish in [
            tigase_publish("7", &token, Some("m"), 7, true),
            tigase_publish("0", &token, Some("m"), 0, false),
            tigase_call_publish("call", &token, Some("m")),
        ] {
            rig.link.send(publish.from("a.example"));
        }
        for id in ["7", "0", "call"] {
            assert_eq!(rig.verdict(id), RESULT);
        }
        let mut sends: Vec<_> = fcm
            .wait_for(3, LONG)
            .into_iter()
            .map(|send| send.message)
            .collect();
        sends.sort_by_key(|message| message["android"]["ttl"] == "30s");
        sends.sort_by_key(|message| message["android"]["priority"] == "NORMAL");
        let android = |priority: &str, ttl: &str, more: Value| {
            let base = json!({ "priority": priority, "ttl": ttl, "direct_boot_ok": true,
                "restricted_package_name": "org.example.app" });
            merged(base, more)
        };
        let message = |android: Value, data: Value| {
            json!({ "token": token, "android": android, "data": data, "notification": keys["notification"],
                "apns": keys["apns"], "webpush": keys["webpush"], "fcm_options": keys["fcmOptions"] })
        };
        let more = keys["android"].clone();
        let expected = [
            message(
                android("HIGH", "3600s", more.clone()),
                json!({ "origin": "fpush" }),
            ),
            message(android("HIGH", "30s", more), json!({ "call": "1" })),
            json!({ "token": token, "android": android("NORMAL", "3600s", json!({ "collapse_key": "quiet" })),
                "data": { "origin": "fpush" } }),
        ];
        assert_eq!(sends, expected);
    }
}
