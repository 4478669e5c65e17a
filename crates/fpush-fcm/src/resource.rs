//! Google's words: the fields of a message that settings may pass through, as its reference of the resource
//! `projects.messages` has them. Both of its spellings are taken: `click_action` and `clickAction`.

use fpush_push::settings::{Section, nearest};
use serde_json::{Map, Value};

/// What a field holds.
pub(crate) enum Kind {
    Text,
    Flag,
    Whole,
    Number,
    /// Seconds, such as `"3.5s"`.
    Span,
    /// Some of them.
    Spans,
    Texts,
    /// An object with texts.
    Pairs,
    /// An object with anything.
    Anything,
    Word(&'static [&'static str]),
    Object(&'static [Field]),
    /// A key of fpush's own says it.
    Ours(&'static str),
}

/// A field: its name, and what it holds.
pub(crate) struct Field(&'static str, Kind);

/// Checks an object of the settings against these fields. `path` is its place in the section.
pub(crate) fn check(
    section: &Section<'_>,
    path: &str,
    object: &Map<String, Value>,
    fields: &'static [Field],
) {
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in object {
        let path = format!("{path}.{name}");
        let Some(Field(known, kind)) = fields
            .iter()
            .find(|Field(known, _)| name == known || *name == camel_case(known))
        else {
            let near = nearest(name, fields.iter().map(|Field(known, _)| *known));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            section.error(&path, format_args!("Google knows no such field{hint}"));
            continue;
        };
        if seen.contains(known) {
            section.error(
                &path,
                format_args!("{known} is there twice, in both of Google's spellings"),
            );
        }
        seen.push(known);
        check_value(section, &path, value, kind);
    }
}

fn check_value(section: &Section<'_>, path: &str, value: &Value, kind: &Kind) {
    let is_all = |is: fn(&Value) -> bool| value.as_array().is_some_and(|all| all.iter().all(is));
    let (fits, expected) = match kind {
        Kind::Text => (value.is_string(), "a string".into()),
        Kind::Flag => (value.is_boolean(), "true or false".into()),
        Kind::Whole => (
            value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            "a whole number".into(),
        ),
        Kind::Number => (value.is_number(), "a number".into()),
        Kind::Span => (is_span(value), "seconds such as \"3.5s\"".into()),
        Kind::Spans => (is_all(is_span), "a list of seconds such as \"3.5s\"".into()),
        Kind::Texts => (is_all(Value::is_string), "a list of strings".into()),
        Kind::Pairs => (
            value
                .as_object()
                .is_some_and(|pairs| pairs.values().all(Value::is_string)),
            "an object with strings".into(),
        ),
        Kind::Anything => (value.is_object(), "an object".into()),
        Kind::Word(words) => (
            value.as_str().is_some_and(|word| words.contains(&word)),
            format!("one of {}", words.join(", ")),
        ),
        Kind::Object(fields) => {
            if let Value::Object(object) = value {
                check(section, path, object, fields);
            }
            (value.is_object(), "an object".into())
        }
        Kind::Ours(key) => {
            section.error(path, format_args!("fpush sets this; say it with the key {key}"));
            (true, String::new())
        }
    };
    if !fits {
        section.error(path, format_args!("expected {expected}, as Google does"));
    }
}

/// A duration as JSON has it in Google's interfaces.
fn is_span(value: &Value) -> bool {
    let number = value.as_str().and_then(|span| span.strip_suffix('s'));
    number.is_some_and(|number| {
        number.parse::<f64>().is_ok() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// `click_action` is `clickAction`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1);
        name + &initial.to_ascii_uppercase() + rest
    })
}

/// `notification`.
pub(crate) static NOTIFICATION: [Field; 3] = [
    Field("title", Kind::Text),
    Field("body", Kind::Text),
    Field("image", Kind::Text),
];

/// `android`.
pub(crate) static ANDROID: [Field; 10] = [
    Field("collapse_key", Kind::Ours("collapseKey")),
    Field("priority", Kind::Ours("priority")),
    Field("ttl", Kind::Ours("ttl")),
    Field("restricted_package_name", Kind::Ours("restrictedPackageName")),
    Field("data", Kind::Ours("additionalData")),
    Field("direct_boot_ok", Kind::Ours("directBootOk")),
    Field("notification", Kind::Object(&ANDROID_NOTIFICATION)),
    Field("fcm_options", Kind::Object(&FCM_OPTIONS)),
    Field("bandwidth_constrained_ok", Kind::Flag),
    Field("restricted_satellite_ok", Kind::Flag),
];

static ANDROID_NOTIFICATION: [Field; 27] = [
    Field("title", Kind::Text),
    Field("body", Kind::Text),
    Field("icon", Kind::Text),
    Field("color", Kind::Text),
    Field("sound", Kind::Text),
    Field("tag", Kind::Text),
    Field("click_action", Kind::Text),
    Field("body_loc_key", Kind::Text),
    Field("body_loc_args", Kind::Texts),
    Field("title_loc_key", Kind::Text),
    Field("title_loc_args", Kind::Texts),
    Field("channel_id", Kind::Text),
    Field("ticker", Kind::Text),
    Field("sticky", Kind::Flag),
    Field("event_time", Kind::Text),
    Field("local_only", Kind::Flag),
    Field("notification_priority", Kind::Word(&PRIORITIES)),
    Field("default_sound", Kind::Flag),
    Field("default_vibrate_timings", Kind::Flag),
    Field("default_light_settings", Kind::Flag),
    Field("vibrate_timings", Kind::Spans),
    Field("visibility", Kind::Word(&VISIBILITIES)),
    Field("notification_count", Kind::Whole),
    Field("light_settings", Kind::Object(&LIGHT_SETTINGS)),
    Field("image", Kind::Text),
    Field("bypass_proxy_notification", Kind::Flag),
    Field("proxy", Kind::Word(&PROXIES)),
];

static LIGHT_SETTINGS: [Field; 3] = [
    Field("color", Kind::Object(&COLOR)),
    Field("light_on_duration", Kind::Span),
    Field("light_off_duration", Kind::Span),
];

static COLOR: [Field; 4] = [
    Field("red", Kind::Number),
    Field("green", Kind::Number),
    Field("blue", Kind::Number),
    Field("alpha", Kind::Number),
];

/// `apns`.
pub(crate) static APNS: [Field; 4] = [
    Field("headers", Kind::Pairs),
    Field("payload", Kind::Anything),
    Field("fcm_options", Kind::Object(&APNS_OPTIONS)),
    Field("live_activity_token", Kind::Text),
];

static APNS_OPTIONS: [Field; 2] = [Field("analytics_label", Kind::Text), Field("image", Kind::Text)];

/// `webpush`.
pub(crate) static WEBPUSH: [Field; 4] = [
    Field("headers", Kind::Pairs),
    Field("data", Kind::Ours("additionalData")),
    Field("notification", Kind::Anything),
    Field("fcm_options", Kind::Object(&WEBPUSH_OPTIONS)),
];

static WEBPUSH_OPTIONS: [Field; 2] = [Field("link", Kind::Text), Field("analytics_label", Kind::Text)];

/// `fcm_options`.
pub(crate) static FCM_OPTIONS: [Field; 1] = [Field("analytics_label", Kind::Text)];

static PRIORITIES: [&str; 6] = [
    "PRIORITY_UNSPECIFIED",
    "PRIORITY_MIN",
    "PRIORITY_LOW",
    "PRIORITY_DEFAULT",
    "PRIORITY_HIGH",
    "PRIORITY_MAX",
];

static VISIBILITIES: [&str; 4] = ["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"];

static PROXIES: [&str; 4] = ["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"];

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use serde_json::json;

    use super::*;

    fn problems(object: &Value, fields: &'static [Field]) -> Vec<String> {
        let (nothing, report) = (Map::new(), Report::default());
        let section = Section::root(&nothing, &report);
        check(&section, "x", object.as_object().unwrap(), fields);
        report.into_problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_spellings_of_google_are_taken() {
        let camel = json!({ "notification": { "clickAction": "x", "bodyLocArgs": ["y"],
            "lightSettings": { "color": { "red": 0.5 }, "lightOnDuration": "3.5s" } }, "bandwidthConstrainedOk": true });
        let snake = json!({ "notification": { "click_action": "x", "body_loc_args": ["y"], "sticky": false,
            "notification_count": 3, "visibility": "PRIVATE", "vibrate_timings": ["1s", "0.5s"],
            "proxy": "DENY", "notification_priority": "PRIORITY_MAX" } });
        for object in [camel, snake] {
            assert_eq!(problems(&object, &ANDROID), [""; 0]);
        }
    }

    #[test]
    fn what_google_would_refuse_is_an_error() {
        let ours = "fpush sets this; say it with the key";
        for (object, fields, expected) in [
            (
                json!({ "titel": "x" }),
                &NOTIFICATION[..],
                "x.titel: Google knows no such field; did you mean \"title\"?".to_owned(),
            ),
            (
                json!({ "notification": { "sticky": "yes" } }),
                &ANDROID,
                "x.notification.sticky: expected true or false, as Google does".into(),
            ),
            (
                json!({ "notification": { "visibility": "private" } }),
                &ANDROID,
                "x.notification.visibility: expected one of VISIBILITY_UNSPECIFIED, PRIVATE, PUBLIC, SECRET, as Google does"
                    .into(),
            ),
            (
                json!({ "notification": { "vibrate_timings": ["1"] } }),
                &ANDROID,
                "x.notification.vibrate_timings: expected a list of seconds such as \"3.5s\", as Google does".into(),
            ),
            (
                json!({ "notification": { "notification_count": 0.5 } }),
                &ANDROID,
                "x.notification.notification_count: expected a whole number, as Google does".into(),
            ),
            (
                json!({ "headers": { "apns-priority": 5 } }),
                &APNS,
                "x.headers: expected an object with strings, as Google does".into(),
            ),
            (json!({ "collapseKey": "x" }), &ANDROID, format!("x.collapseKey: {ours} collapseKey")),
            (json!({ "data": {} }), &WEBPUSH, format!("x.data: {ours} additionalData")),
        ] {
            assert_eq!(problems(&object, fields), [expected], "{object}");
        }
        let twice = problems(&json!({ "fcm_options": {}, "fcmOptions": {} }), &APNS);
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert!(
            twice[0].ends_with(": fcm_options is there twice, in both of Google's spellings"),
            "{twice:?}"
        );
    }
}
