//! What a push carries. Everything but the device's token is the same for every push, so it is made once when
//! the daemon starts.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fpush_push::{Class, Extra, Form};
use serde_json::{Map, Value};

use crate::content::Content;

/// Which field of the message names the device (`fcm.target`). A device has either a registration token or a Firebase
/// installation ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `fid` for what has the form of an installation ID, `token` for all else.
    Auto,
    /// Always `token`. Google takes installation IDs there too.
    Token,
    /// Always `fid`.
    Fid,
}

/// A message that lacks only the token.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    target: Target,
    full: Box<str>,
    minimal: Box<str>,
    /// The minimal one without the parts in Google's own words, if there are any.
    plain: Option<Box<str>>,
    /// The keys of `additionalData`, which nothing else may be under.
    taken: Vec<String>,
    /// How many bytes Google takes beside them.
    room: usize,
    /// How long Google keeps it for a device that is off.
    ttl: Duration,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the keys and values have {0} bytes together; Google takes {LARGEST} at most")]
    Data(usize),
    #[error(
        "the keys and values of a message's notification, android.notification and additionalData have {0} bytes together; \
         Google takes {LARGEST} at most"
    )]
    Notification(usize),
    #[error("the payload has {0} bytes with additionalData; Apple takes {LARGEST} at most")]
    Apns(usize),
    #[error("the notification has {0} bytes with additionalData; browsers take {LARGEST} at most")]
    Webpush(usize),
}

impl MessageError {
    /// The key of the settings that is to be changed.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Data(_) => "additionalData",
            Self::Notification(_) => "",
            Self::Apns(_) => "apns.payload",
            Self::Webpush(_) => "webpush.notification",
        }
    }
}

impl Message {
    pub(crate) fn new(class: Class, target: Target, content: &Content) -> Result<Self, MessageError> {
        let data = &content.additional_data;
        let data_size = data.iter().map(|(key, value)| key.len() + value.len()).sum();
        if data_size > LARGEST {
            return Err(MessageError::Data(data_size));
        }
        let shown = content.android.get("notification").map_or(0, size);
        let all = data_size + size_of_pairs(&content.notification) + shown;
        if all > LARGEST {
            return Err(MessageError::Notification(all));
        }
        let with_data = |value: Option<&Value>| value.map_or(0, |value| value.to_string().len() + data_size);
        let apns = with_data(content.apns.get("payload"));
        if apns > LARGEST {
            return Err(MessageError::Apns(apns));
        }
        let webpush = with_data(content.webpush.get("notification"));
        if webpush > LARGEST {
            return Err(MessageError::Webpush(webpush));
        }
        Ok(Self {
            target,
            ttl: content.ttl,
            full: rest(class, content, data),
            minimal: rest(class, content, &BTreeMap::new()),
            plain: content
                .without_open_parts()
                .map(|plain| rest(class, &plain, &BTreeMap::new())),
            taken: data.keys().cloned().collect(),
            room: LARGEST - all.max(apns).max(webpush),
        })
    }

    /// How long Google keeps it for a device that is off.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The request's body. The token needs no escaping: [`is_token`] lets nothing through that would.
    pub(crate) fn body(&self, token: &str, form: Form, extra: Option<&Extra>) -> Bytes {
        let rest = match form {
            Form::Full => &self.full,
            Form::Minimal => &self.minimal,
        };
        let data = extra.map(|extra| self.data(form, extra)).unwrap_or_default();
        let start = self.target.start(token);
        let mut body = Vec::with_capacity(start.len() + token.len() + rest.len() + data.len());
        body.extend_from_slice(start.as_bytes());
        body.extend_from_slice(token.as_bytes());
        let (before, braces) = rest.split_at(rest.len() - END.len());
        body.extend_from_slice(before.as_bytes());
        let first = before.ends_with('{');
        body.extend_from_slice(
            data.get(usize::from(first && !data.is_empty())..)
                .unwrap_or_default()
                .as_bytes(),
        );
        body.extend_from_slice(braces.as_bytes());
        Bytes::from(body)
    }

    /// The body of a request that Google only checks (`validate_only` of projects.messages.send).
    pub(crate) fn dry_body(&self, token: &str) -> Bytes {
        dry(&self.body(token, Form::Full, None))
    }

    /// The same for a message that names the device and has no part in Google's own words; `None` if no message has any.
    pub(crate) fn plain_dry_body(&self, token: &str) -> Option<Bytes> {
        let rest = self.plain.as_deref()?;
        Some(dry(&[self.target.start(token), token, rest].concat().into()))
    }

    /// More pairs for `data`, each behind a comma: as many as Google takes.
    fn data(&self, form: Form, extra: &Extra) -> String {
        let pairs = |extra: &Extra| {
            let free = |(name, _): &(&str, &str)| !self.taken.iter().any(|taken| taken == name);
            let pairs: Vec<_> = extra
                .data()
                .filter(free)
                .map(|(name, value)| (name, value.to_owned()))
                .collect();
            let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
            (size <= self.room).then_some(pairs)
        };
        let plain = || pairs(&extra.without_encrypted());
        let pairs = match form {
            Form::Full => pairs(extra).or_else(plain),
            Form::Minimal => plain(),
        };
        pairs
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| format!(",\"{name}\":{}", Value::from(value)))
            .collect()
    }
}

impl Target {
    /// What comes before the device's token in the body.
    fn start(self, token: &str) -> &'static str {
        match self {
            Self::Auto if is_installation_id(token) => START_FID,
            Self::Auto | Self::Token => START_TOKEN,
            Self::Fid => START_FID,
        }
    }
}

/// Whether this can be a registration token or an installation ID. Google promises no form and changes it, so the rule
/// is lenient: tokens have 140 to 200 characters today, an installation ID of 22 before a colon and base64url with dots
/// behind it; the oldest had 119 and no colon; and apps may have the installation ID alone. Only a text that is a token
/// of Apple's, whose module was lost or exchanged on the way, is none of Google's.
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'.');
    (SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(allowed) && !is_apples(text)
}

/// Whether these are the digits of 32 bytes or more.
fn is_apples(text: &str) -> bool {
    text.len() >= APPLES_DIGITS
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this has the form of a Firebase installation ID: base64url of 17 bytes without the last character. The first
/// character is one of c, d, e and f today, which is not a rule to rely on.
fn is_installation_id(text: &str) -> bool {
    text.len() == INSTALLATION_ID
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A body whose request Google only checks.
fn dry(body: &Bytes) -> Bytes {
    // What is inside the object.
    [DRY.as_bytes(), body.get(1..).unwrap_or_default()]
        .concat()
        .into()
}

/// What comes behind the token in `message`. There is a `notification` only if the settings have one: else the app decides
/// what to show.
fn rest(class: Class, content: &Content, data: &BTreeMap<String, String>) -> Box<str> {
    let Content {
        ttl,
        collapse_key,
        direct_boot_ok,
        restricted_package_name,
        additional_data: _,
        notification,
        android,
        apns,
        webpush,
        fcm_options,
    } = content;
    let mut android = android.clone();
    let priority = match class {
        Class::High | Class::Voip => "HIGH",
        Class::Low => "NORMAL",
    };
    // Google rounds down to seconds.
    let ttl = format!("{}s", ttl.as_secs());
    android.insert("priority".to_owned(), priority.into());
    android.insert("ttl".to_owned(), ttl.into());
    for (name, value) in [
        ("collapse_key", collapse_key.clone().map(Value::from)),
        ("direct_boot_ok", direct_boot_ok.map(Value::from)),
        (
            "restricted_package_name",
            restricted_package_name.clone().map(Value::from),
        ),
    ] {
        android.extend(value.map(|value| (name.to_owned(), value)));
    }
    let parts = [
        ("notification", notification),
        ("android", &android),
        ("apns", apns),
        ("webpush", webpush),
        ("fcm_options", fcm_options),
    ];
    let parts: String = parts
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(name, part)| format!("\"{name}\":{},", Value::from(part.clone())))
        .collect();
    let data: Map<String, Value> = data
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    // It goes on where the token ends, and closes message and the whole.
    format!("\",{parts}\"data\":{}}}}}", Value::from(data)).into()
}

/// The bytes of keys and values, as Google counts them.
fn size(value: &Value) -> usize {
    match value {
        Value::Object(pairs) => size_of_pairs(pairs),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::String(text) => text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string().len(),
    }
}

fn size_of_pairs(pairs: &Map<String, Value>) -> usize {
    pairs.iter().map(|(key, value)| key.len() + size(value)).sum()
}

const START_TOKEN: &str = r#"{"message":{"token":""#;
const START_FID: &str = r#"{"message":{"fid":""#;
const DRY: &str = r#"{"validate_only":true,"#;
/// What closes `data`, `message` and the whole.
const END: &str = "}}}";
const LARGEST: usize = 4_096;
const INSTALLATION_ID: usize = 22;
const SHORTEST_TOKEN: usize = 20;
const LONGEST_TOKEN: usize = 4_096;
/// Apple's tokens have 64 digits, and may grow.
const APPLES_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use fpush_push::settings::{Report, Section};
    use serde_json::json;

    use super::*;
    use crate::content::Contents;

    const FID: &str = "dCXr7fTpTm2yXGVYTXJb6r";

    /// What reading says of these keys.
    fn new(keys: &Value) -> Result<Message, MessageError> {
        let report = Report::default();
        let mut section = Section::root(keys.as_object().unwrap(), &report);
        let (class, target) = (
            section.choice("class", &CLASSES, Class::High),
            section.choice("target", &TARGETS, Target::Auto),
        );
        let contents = Contents::read(&mut section, &[class]);
        section.finish();
        let problems = report.into_problems();
        assert!(problems.is_empty(), "{problems:?}");
        Message::new(class, target, contents.of(class))
    }

    const CLASSES: [(&str, Class); 2] = [("normal", Class::Low), ("call", Class::Voip)];
    const TARGETS: [(&str, Target); 2] = [("token", Target::Token), ("fid", Target::Fid)];

    fn message(keys: &Value) -> Message {
        new(keys).unwrap()
    }

    fn usual() -> Message {
        message(&json!({}))
    }

    fn body(message: &Message, form: Form) -> Value {
        serde_json::from_slice(&message.body("to:ken", form, None)).unwrap()
    }

    #[test]
    fn what_a_registration_adds_is_in_the_data() {
        let extra = |ciphertext: &str| Extra {
            account: Some("0a1b".into()),
            channel: Some("2c\"".into()),
            encrypted: Some(fpush_push::Encrypted {
                iv: "AAAA".into(),
                ciphertext: ciphertext.into(),
            }),
            call: false,
        };
        let data = |message: &Message, form, extra| {
            let body = message.body("to:ken", form, Some(&extra));
            serde_json::from_slice::<Value>(&body).unwrap()["message"]["data"].clone()
        };
        let all = json!({ "account": "0a1b", "channel": "2c\"", "encrypted": "x", "iv": "AAAA" });
        let plain = json!({ "account": "0a1b", "channel": "2c\"" });
        assert_eq!(data(&usual(), Form::Full, extra("x")), all);
        assert_eq!(data(&usual(), Form::Minimal, extra("x")), plain);
        assert_eq!(data(&usual(), Form::Full, extra(&"x".repeat(4_096))), plain);
        let own = message(&json!({ "additionalData": { "account": "mine" } }));
        let expected = json!({ "account": "mine", "channel": "2c\"", "encrypted": "x", "iv": "AAAA" });
        assert_eq!(data(&own, Form::Full, extra("x")), expected);
    }

    #[test]
    fn a_message_has_data_only_even_if_there_is_none() {
        let android = json!({ "priority": "HIGH", "ttl": "2419200s" });
        assert_eq!(
            body(&usual(), Form::Full),
            json!({ "message": { "token": "to:ken", "android": android, "data": {} } })
        );
    }

    #[test]
    fn a_message_that_is_only_checked_says_so() {
        let message = usual();
        let dry: Value = serde_json::from_slice(&message.dry_body("to:ken")).unwrap();
        let mut expected = body(&usual(), Form::Full);
        expected["validate_only"] = true.into();
        assert_eq!(dry, expected);
    }

    #[test]
    fn an_installation_id_has_a_field_of_its_own_unless_the_settings_say_otherwise() {
        let named_by = |target: &Value, token: &str| {
            let body = message(target).body(token, Form::Full, None);
            let body: Value = serde_json::from_slice(&body).unwrap();
            let named = body["message"].as_object().unwrap();
            let fields = ["token", "fid"].map(|field| named.get(field).is_some_and(|value| value == token));
            assert_eq!(named.len(), 3, "{body}");
            fields
        };
        let (token, fid) = ([true, false], [false, true]);
        let (auto, to_token, to_fid) = (
            json!({}),
            json!({ "target": "token" }),
            json!({ "target": "fid" }),
        );
        for id in [FID, "-_AZaz09AZaz09AZaz09az"] {
            assert_eq!(named_by(&auto, id), fid, "{id}");
            assert_eq!(named_by(&to_token, id), token, "{id}");
        }
        for other in [
            &format!("{FID}:APA91b"),
            &FID[1..],
            "dCXr7fTpTm2yXGVYTXJb6.",
            &format!("{FID}r"),
        ] {
            assert_eq!(named_by(&auto, other), token, "{other}");
            assert_eq!(named_by(&to_fid, other), fid, "{other}");
        }
    }

    #[test]
    fn everything_that_can_be_set_is_there_and_escaped() {
        let message = message(&json!({
            "class": "normal", "ttl": "90s 900ms", "collapseKey": "a \"key\"", "additionalData": { "k\\": "v\"\n" },
        }));
        let android = json!({ "priority": "NORMAL", "ttl": "90s", "collapse_key": "a \"key\"" });
        assert_eq!(
            body(&message, Form::Full),
            json!({ "message": { "token": "to:ken", "android": android, "data": { "k\\": "v\"\n" } } })
        );
        assert_eq!(
            body(&message, Form::Minimal),
            json!({ "message": { "token": "to:ken", "android": android, "data": {} } })
        );
    }

    #[test]
    fn data_has_4096_bytes_at_most() {
        let with = |length: usize| new(&json!({ "additionalData": { "key": "v".repeat(length) } }));
        assert!(with(4_093).is_ok());
        assert!(matches!(with(4_094), Err(MessageError::Data(4_097))));
    }

    #[test]
    fn what_is_passed_through_is_in_the_message() {
        let keys = json!({
            "notification": { "title": "T" }, "android": { "notification": { "channelId": "c" } },
            "apns": { "headers": { "apns-priority": "5" }, "payload": { "aps": { "badge": 1 } } },
            "webpush": { "notification": { "icon": "i" } }, "fcmOptions": { "analyticsLabel": "l" },
            "directBootOk": true, "restrictedPackageName": "org.example.app", "additionalData": { "a": "b" },
        });
        let android = json!({ "priority": "HIGH", "ttl": "2419200s", "direct_boot_ok": true,
            "restricted_package_name": "org.example.app", "notification": { "channelId": "c" } });
        let expected = json!({ "message": {
            "token": "to:ken", "android": android, "notification": keys["notification"], "apns": keys["apns"],
            "webpush": keys["webpush"], "fcm_options": keys["fcmOptions"], "data": { "a": "b" },
        } });
        assert_eq!(body(&message(&keys), Form::Full), expected);
    }

    #[test]
    fn what_a_provider_would_not_take_is_refused_at_the_start() {
        let long = "x".repeat(4_096);
        let data = json!({ "a": "x".repeat(96) });
        for (keys, key) in [
            (json!({ "notification": { "title": long } }), ""),
            (json!({ "android": { "notification": { "title": long } } }), ""),
            (
                json!({ "apns": { "payload": { "x": "x".repeat(4_000) } }, "additionalData": data }),
                "apns.payload",
            ),
            (
                json!({ "webpush": { "notification": { "x": "x".repeat(4_000) } }, "additionalData": data }),
                "webpush.notification",
            ),
        ] {
            assert_eq!(new(&keys).unwrap_err().key(), key);
        }
        // What a registration adds finds no more room than is left.
        let keys = json!({ "apns": { "payload": { "x": "x".repeat(4_000) } } });
        let extra = Extra {
            account: Some("a".repeat(100).into()),
            channel: None,
            encrypted: None,
            call: false,
        };
        let body = message(&keys).body("to:ken", Form::Full, Some(&extra));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["message"]["data"], json!({}));
    }

    #[test]
    fn tokens_of_google_are_accepted() {
        let tail = "A_-z.".repeat(28);
        assert!(is_token(&format!("dCXr7fTpTm2yXGVYTXJb6r:APA91b{tail}")));
        assert!(is_token(&format!("APA91b{}", "xY-_9".repeat(23))), "an old one");
        assert!(is_token(FID));
        assert!(is_token("c0ffeec0ffeec0ffeec0ff"), "an installation ID by chance");
        assert!(is_token(&"z".repeat(20)));
        assert!(is_token(&"z".repeat(4_096)));
    }

    #[test]
    fn what_cannot_be_a_token_of_google_is_not() {
        let long = "z".repeat(4_097);
        let quoted = format!("{}\"", "z".repeat(100));
        let foreign = format!("{}ä", "z".repeat(100));
        let apple = "0aF9".repeat(16);
        for text in ["", &"z".repeat(19), &long, &quoted, &foreign, &apple, "a/../b"] {
            assert!(!is_token(text), "{text}");
        }
    }
}
