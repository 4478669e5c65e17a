//! What a push carries, made once when the daemon starts: it is the same for every device.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use fpush_push::{Class, Extra, Form};
use http::HeaderValue;
use serde_json::{Map, Value};

use crate::content::Content;

/// What the settings say about all payloads of a module.
#[derive(Clone, Debug)]
pub(crate) struct PayloadSettings {
    pub(crate) topic: String,
    pub(crate) collapse: bool,
}

/// A payload and the headers that belong to it, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) push_type: HeaderValue,
    pub(crate) priority: HeaderValue,
    pub(crate) topic: HeaderValue,
    pub(crate) collapse_id: Option<HeaderValue>,
    full: Bytes,
    minimal: Bytes,
    /// Where in both the badge goes: behind the last key of `aps`, if it tells how many messages there are.
    badge: Option<usize>,
    /// The largest body that Apple takes.
    limit: usize,
    /// The keys of `additionalData`, which no other value may use.
    taken: Vec<String>,
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error(
        "the payload of a {kind} push has {size} bytes; Apple takes {limit} at most: shorten the texts, aps or additionalData"
    )]
    TooLarge {
        kind: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("the topic holds characters that no bundle ID has")]
    Topic,
}

impl Ready {
    pub(crate) fn new(
        class: Class,
        settings: &PayloadSettings,
        content: &Content,
    ) -> Result<Self, PayloadError> {
        let PayloadSettings { topic, collapse } = settings;
        let text = |value: &str| HeaderValue::try_from(value).map_err(|_| PayloadError::Topic);
        let (push_type, priority, topic, collapse_id, limit, kind) = match class {
            Class::High => ("alert", "10", text(topic)?, "xmpp-body-push", 4_096, "visible"),
            Class::Low => (
                "background",
                "5",
                text(topic)?,
                "xmpp-nobody-push",
                4_096,
                "silent",
            ),
            Class::Voip => {
                let topic = text(&format!("{topic}.voip"))?;
                ("voip", "10", topic, "xmpp-voip-push", 5_120, "voip")
            }
        };
        let Content { aps, counts, data } = content;
        let aps = json(aps);
        let badge = counts.then(|| START.len() + aps.len() - 1);
        let minimal = format!("{START}{aps}}}");
        let full = match &json(data)[1..] {
            "}" => minimal.clone(),
            pairs => format!("{START}{aps},{pairs}"),
        };
        let size = full.len() + badge.map_or(0, |_| badge_pair(true, u32::MAX).len());
        if size > limit {
            return Err(PayloadError::TooLarge { kind, size, limit });
        }
        Ok(Self {
            push_type: HeaderValue::from_static(push_type),
            priority: HeaderValue::from_static(priority),
            topic,
            collapse_id: collapse.then(|| HeaderValue::from_static(collapse_id)),
            full: full.into(),
            minimal: minimal.into(),
            badge,
            limit,
            taken: data.keys().cloned().collect(),
        })
    }

    /// The body for a device with this in addition, of whose user so many messages wait: as much of it as Apple takes,
    /// because a ciphertext that is cut cannot be read.
    pub(crate) fn body(&self, form: Form, extra: Option<&Extra>, count: Option<u32>) -> Bytes {
        let base = match form {
            Form::Full => &self.full,
            Form::Minimal => &self.minimal,
        };
        let base = match (self.badge, count) {
            (Some(place), Some(count)) => with_badge(base, place, count),
            (Some(_), None) | (None, _) => base.clone(),
        };
        let Some(extra) = extra else {
            return base;
        };
        let plain = extra.without_encrypted();
        let candidates = match form {
            Form::Full => [Some(extra), Some(&plain)],
            Form::Minimal => [None, Some(&plain)],
        };
        candidates
            .into_iter()
            .flatten()
            .map(|extra| self.extended(&base, extra.data()))
            .find(|body| body.len() <= self.limit)
            .unwrap_or(base)
    }

    /// The body with what a notification of Push 2.0 carries, under the key that the draft's apps look for: what is too large
    /// is left out, because a ciphertext that is cut cannot be read.
    pub(crate) fn relayed(&self, form: Form, payload: Option<&[u8]>) -> Bytes {
        let (base, payload) = match form {
            Form::Full => (&self.full, payload),
            Form::Minimal => (&self.minimal, None),
        };
        let encoded = payload.map(|payload| BASE64_STANDARD.encode(payload));
        let extended = encoded.map(|encoded| self.extended(base, [(RELAYED, &*encoded)]));
        extended
            .filter(|body| body.len() <= self.limit)
            .unwrap_or_else(|| base.clone())
    }

    /// The body with more keys behind its own. There always are some of its own: `aps`.
    fn extended<'a>(&self, base: &Bytes, more: impl IntoIterator<Item = (&'static str, &'a str)>) -> Bytes {
        let mut body = base[..base.len() - 1].to_vec();
        for (name, value) in more
            .into_iter()
            .filter(|(name, _)| !self.taken.iter().any(|taken| taken == name))
        {
            body.extend_from_slice(format!(",\"{name}\":{}", Value::from(value)).as_bytes());
        }
        body.push(b'}');
        body.into()
    }
}

/// The key of what a notification of Push 2.0 carries.
const RELAYED: &str = "rfc8291";

/// The body with a badge at its place.
fn with_badge(base: &Bytes, place: usize, count: u32) -> Bytes {
    let (before, behind) = base.split_at(place);
    let pair = badge_pair(!before.ends_with(b"{"), count);
    [before, pair.as_bytes(), behind].concat().into()
}

fn badge_pair(has_others: bool, count: u32) -> String {
    let comma = if has_others { "," } else { "" };
    format!("{comma}\"badge\":{count}")
}

/// A value of JSON always has a text.
fn json(object: &Map<String, Value>) -> String {
    Value::from(object.clone()).to_string()
}

const START: &str = r#"{"aps":"#;

#[cfg(test)]
mod tests {
    use fpush_push::settings::{Report, Section};
    use serde_json::json;

    use super::*;
    use crate::content::Contents;

    fn ready(class: Class, keys: Value) -> Result<Ready, PayloadError> {
        let report = Report::default();
        let mut section = Section::root(keys.as_object().unwrap(), &report);
        let settings = PayloadSettings {
            topic: "org.example.app".into(),
            collapse: section.boolean("collapsePushes", false),
        };
        let contents = Contents::read(&mut section, &[class]);
        section.finish();
        assert!(report.into_problems().is_empty(), "{keys}");
        Ready::new(class, &settings, contents.of(class))
    }

    fn usual() -> Value {
        json!({ "additionalData": { "extra": { "a": [1, 2] } } })
    }

    fn body(ready: &Ready, form: Form) -> Value {
        serde_json::from_slice(&ready.body(form, None, None)).unwrap()
    }

    fn extra(ciphertext: &str) -> Extra {
        Extra {
            account: Some("a\"@b.example".into()),
            channel: None,
            encrypted: Some(fpush_push::Encrypted {
                iv: "AAAA".into(),
                ciphertext: ciphertext.into(),
            }),
            call: false,
        }
    }

    #[test]
    fn what_is_encrypted_goes_to_the_app_beside_its_account() {
        let ready = ready(Class::High, usual()).unwrap();
        let body: Value =
            serde_json::from_slice(&ready.body(Form::Full, Some(&extra("c2VjcmV0")), None)).unwrap();
        assert_eq!(body["account"], "a\"@b.example");
        assert_eq!(body["encrypted"], "c2VjcmV0");
        assert_eq!(body["iv"], "AAAA");
        assert_eq!(body["aps"]["mutable-content"], 1);
        assert_eq!(body["extra"], json!({ "a": [1, 2] }));
        let minimal: Value =
            serde_json::from_slice(&ready.body(Form::Minimal, Some(&extra("c2VjcmV0")), None)).unwrap();
        assert_eq!(
            (&minimal["account"], &minimal["encrypted"]),
            (&body["account"], &Value::Null)
        );
    }

    #[test]
    fn what_is_too_large_becomes_the_plain_push() {
        let ready = ready(Class::High, usual()).unwrap();
        let with = |ciphertext: &str| ready.body(Form::Full, Some(&extra(ciphertext)), None);
        let room = 4_096 - with("").len();
        assert_eq!(with(&"x".repeat(room)).len(), 4_096);
        let body: Value = serde_json::from_slice(&with(&"x".repeat(room + 1))).unwrap();
        assert_eq!(
            (&body["account"], &body["encrypted"]),
            (&json!("a\"@b.example"), &Value::Null)
        );
    }

    #[test]
    fn a_notification_carries_what_its_sender_encrypted_as_far_as_apple_takes_it() {
        let ready = ready(Class::High, usual()).unwrap();
        let relayed = |form, length: usize| {
            let body: Value =
                serde_json::from_slice(&ready.relayed(form, Some(&vec![0xfb; length]))).unwrap();
            (body["rfc8291"].clone(), body["extra"].clone())
        };
        let extra = json!({ "a": [1, 2] });
        assert_eq!(relayed(Form::Full, 3), (json!("+/v7"), extra.clone()));
        // As large as servers make it.
        assert!(relayed(Form::Full, 2_950).0.is_string());
        assert_eq!(relayed(Form::Full, 3_100), (Value::Null, extra.clone()));
        assert_eq!(relayed(Form::Minimal, 3), (Value::Null, Value::Null));
        let none: Value = serde_json::from_slice(&ready.relayed(Form::Full, None)).unwrap();
        assert_eq!((&none["rfc8291"], &none["extra"]), (&Value::Null, &extra));
    }

    #[test]
    fn the_settings_own_keys_win() {
        let ready = ready(Class::High, json!({ "additionalData": { "account": 1 } })).unwrap();
        let text = ready.body(Form::Full, Some(&extra("x")), None);
        let body: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&body["account"], &body["encrypted"]), (&json!(1), &json!("x")));
    }

    #[test]
    fn a_visible_push_is_the_one_that_the_original_sent() {
        let ready = ready(Class::High, usual()).unwrap();
        let alert = json!({ "title": "New Message", "body": "New Message?" });
        let aps = json!({ "alert": alert, "sound": "default", "mutable-content": 1 });
        assert_eq!(
            body(&ready, Form::Full),
            json!({ "aps": aps, "extra": { "a": [1, 2] } })
        );
        assert_eq!(body(&ready, Form::Minimal), json!({ "aps": aps }));
        let headers = [&ready.push_type, &ready.priority, &ready.topic];
        assert_eq!(
            headers.map(|value| value.to_str().unwrap()),
            ["alert", "10", "org.example.app"]
        );
        assert_eq!(ready.collapse_id, None);
    }

    #[test]
    fn a_silent_push_shows_and_sounds_nothing() {
        let ready = ready(Class::Low, json!({ "collapsePushes": true })).unwrap();
        assert_eq!(
            body(&ready, Form::Minimal),
            json!({ "aps": { "content-available": 1 } })
        );
        let headers = [&ready.push_type, &ready.priority, &ready.topic];
        assert_eq!(
            headers.map(|value| value.to_str().unwrap()),
            ["background", "5", "org.example.app"]
        );
        assert_eq!(ready.collapse_id.unwrap(), "xmpp-nobody-push");
    }

    #[test]
    fn a_call_goes_to_the_voip_topic() {
        let ready = ready(Class::Voip, usual()).unwrap();
        let headers = [&ready.push_type, &ready.priority, &ready.topic];
        assert_eq!(
            headers.map(|value| value.to_str().unwrap()),
            ["voip", "10", "org.example.app.voip"]
        );
    }

    #[test]
    fn empty_texts_are_left_out() {
        let bare = json!({ "sound": "", "mutableContent": false, "alertTitle": "" });
        let ready = ready(Class::High, bare).unwrap();
        assert_eq!(
            body(&ready, Form::Minimal),
            json!({ "aps": { "alert": { "body": "New Message?" } } })
        );
    }

    #[test]
    fn what_apple_would_not_take_is_refused_at_the_start() {
        let large = json!({ "additionalData": { "x": "x".repeat(4_096) } });
        assert!(matches!(
            ready(Class::High, large.clone()),
            Err(PayloadError::TooLarge { limit: 4_096, .. })
        ));
        assert!(ready(Class::Voip, large).is_ok());
    }

    #[test]
    fn a_badge_has_room_for_any_number() {
        let data = |length: usize| json!({ "badge": "count", "additionalData": { "x": "x".repeat(length) } });
        let most = (0..4_096)
            .rev()
            .find(|length| ready(Class::High, data(*length)).is_ok())
            .unwrap();
        let body = ready(Class::High, data(most))
            .unwrap()
            .body(Form::Full, None, Some(u32::MAX));
        assert_eq!(body.len(), 4_096);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["aps"]["badge"], u32::MAX);
    }

    #[test]
    fn a_badge_is_the_number_of_messages_that_the_publish_tells() {
        let bare = json!({ "alertTitle": "", "alertBody": "", "sound": "", "mutableContent": false, "badge": "count" });
        for (keys, others) in [(json!({ "badge": "count" }), 3), (bare, 0)] {
            let ready = ready(Class::High, keys).unwrap();
            let badge = |form, extra: Option<Extra>, count| {
                let body = ready.body(form, extra.as_ref(), count);
                let body: Value = serde_json::from_slice(&body).unwrap();
                let aps = body["aps"].as_object().unwrap();
                (aps.get("badge").cloned(), aps.len(), body["encrypted"].clone())
            };
            let with = |number: u32, encrypted: Value| (Some(number.into()), others + 1, encrypted);
            assert_eq!(badge(Form::Full, None, None), (None, others, Value::Null));
            assert_eq!(badge(Form::Full, None, Some(7)), with(7, Value::Null));
            assert_eq!(
                badge(Form::Minimal, Some(extra("x")), Some(0)),
                with(0, Value::Null)
            );
            assert_eq!(
                badge(Form::Full, Some(extra("x")), Some(12)),
                with(12, "x".into())
            );
        }
    }
}
