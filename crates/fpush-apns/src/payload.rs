//! What a push carries, made once when the daemon starts: it is the same for every device.

use std::{borrow::Cow, collections::BTreeMap};

use a2::request::{
    notification::{
        CollapseId, DefaultNotificationBuilder, NotificationBuilder as _, NotificationOptions, Priority,
        PushType,
    },
    payload::{APS, APSAlert, APSSound, Payload, PayloadLike as _},
};
use bytes::Bytes;
use fpush_push::{Class, Extra, Form};
use http::HeaderValue;
use serde_json::{Map, Value};

/// What the settings say about the payload.
#[derive(Clone, Debug)]
pub(crate) struct PayloadSettings {
    pub(crate) topic: String,
    pub(crate) alert_title: String,
    pub(crate) alert_body: String,
    pub(crate) sound: String,
    pub(crate) mutable_content: bool,
    pub(crate) collapse: bool,
    pub(crate) additional_data: Map<String, Value>,
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
    /// The largest body that Apple takes.
    limit: usize,
    /// The keys of `additionalData`, which no other value may use.
    taken: Vec<String>,
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("the payload has {size} bytes; Apple takes {limit} at most: shorten the texts or additionalData")]
    TooLarge { size: usize, limit: usize },
    #[error("the topic holds characters that no bundle ID has")]
    Topic,
    #[error("the payload cannot be made: {0}")]
    Json(#[from] a2::Error),
}

impl Ready {
    pub(crate) fn new(class: Class, settings: &PayloadSettings) -> Result<Self, PayloadError> {
        let (push_type, priority, topic, collapse_id) = match class {
            Class::High => (
                PushType::Alert,
                Priority::High,
                settings.topic.clone(),
                "xmpp-body-push",
            ),
            Class::Low => (
                PushType::Background,
                Priority::Normal,
                settings.topic.clone(),
                "xmpp-nobody-push",
            ),
            Class::Voip => (
                PushType::Voip,
                Priority::High,
                format!("{}.voip", settings.topic),
                "xmpp-voip-push",
            ),
        };
        let limit = match class {
            Class::High | Class::Low => 4_096,
            Class::Voip => 5_120,
        };
        let options = NotificationOptions {
            apns_push_type: Some(push_type),
            apns_priority: Some(priority.clone()),
            apns_topic: Some(&topic),
            apns_collapse_id: settings
                .collapse
                .then(|| CollapseId::new(collapse_id))
                .transpose()?,
            ..NotificationOptions::default()
        };
        let text = |value: &str| HeaderValue::try_from(value).map_err(|_| PayloadError::Topic);
        let full = json(class, settings, &settings.additional_data, options.clone())?;
        if full.len() > limit {
            return Err(PayloadError::TooLarge {
                size: full.len(),
                limit,
            });
        }
        Ok(Self {
            push_type: text(&push_type.to_string())?,
            priority: text(&priority.to_string())?,
            collapse_id: options
                .apns_collapse_id
                .as_ref()
                .map(|id| text(id.value))
                .transpose()?,
            full,
            minimal: json(class, settings, &Map::new(), options)?,
            topic: text(&topic)?,
            limit,
            taken: settings.additional_data.keys().cloned().collect(),
        })
    }

    /// The body for a device with this in addition: as much of it as Apple takes, because a ciphertext that is cut
    /// cannot be read.
    pub(crate) fn body(&self, form: Form, extra: Option<&Extra>) -> Bytes {
        let base = match form {
            Form::Full => &self.full,
            Form::Minimal => &self.minimal,
        };
        let Some(extra) = extra else {
            return base.clone();
        };
        let plain = extra.without_encrypted();
        let candidates = match form {
            Form::Full => [Some(extra), Some(&plain)],
            Form::Minimal => [None, Some(&plain)],
        };
        candidates
            .into_iter()
            .flatten()
            .map(|extra| self.extended(base, extra))
            .find(|body| body.len() <= self.limit)
            .unwrap_or_else(|| base.clone())
    }

    /// The body with more keys behind its own. There always are some of its own: `aps`.
    fn extended(&self, base: &Bytes, extra: &Extra) -> Bytes {
        let mut body = base[..base.len() - 1].to_vec();
        for (name, value) in extra
            .data()
            .filter(|(name, _)| !self.taken.iter().any(|taken| taken == name))
        {
            body.extend_from_slice(format!(",\"{name}\":{}", Value::from(value)).as_bytes());
        }
        body.push(b'}');
        body.into()
    }
}

fn json(
    class: Class,
    settings: &PayloadSettings,
    data: &Map<String, Value>,
    options: NotificationOptions<'_>,
) -> Result<Bytes, PayloadError> {
    let aps = match class {
        Class::High => APS {
            alert: alert(settings),
            sound: not_empty(&settings.sound).map(|name| APSSound::Sound(name.into())),
            mutable_content: settings.mutable_content.then_some(1),
            ..APS::default()
        },
        Class::Low | Class::Voip => APS {
            content_available: Some(1),
            ..APS::default()
        },
    };
    let data: BTreeMap<_, _> = data
        .iter()
        .map(|(key, value)| (Cow::from(key.as_str()), value.clone()))
        .collect();
    let payload = Payload {
        options,
        device_token: Cow::from(""),
        aps,
        data,
    };
    Ok(Bytes::from(payload.to_json_string()?))
}

/// The alert comes from a builder, because its fields are private; the rest of that builder's work is not
/// wanted.
fn alert(settings: &PayloadSettings) -> Option<APSAlert<'_>> {
    let mut builder = DefaultNotificationBuilder::new();
    if let Some(title) = not_empty(&settings.alert_title) {
        builder = builder.title(title);
    }
    if let Some(body) = not_empty(&settings.alert_body) {
        builder = builder.body(body);
    }
    builder.build("", NotificationOptions::default()).aps.alert
}

fn not_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> PayloadSettings {
        PayloadSettings {
            topic: "org.example.app".into(),
            alert_title: "New Message".into(),
            alert_body: "New Message?".into(),
            sound: "default".into(),
            mutable_content: true,
            collapse: false,
            additional_data: Map::from_iter([("extra".to_owned(), json!({ "a": [1, 2] }))]),
        }
    }

    fn body(ready: &Ready, form: Form) -> Value {
        serde_json::from_slice(&ready.body(form, None)).unwrap()
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
        let ready = Ready::new(Class::High, &settings()).unwrap();
        let body: Value = serde_json::from_slice(&ready.body(Form::Full, Some(&extra("c2VjcmV0")))).unwrap();
        assert_eq!(body["account"], "a\"@b.example");
        assert_eq!(body["encrypted"], "c2VjcmV0");
        assert_eq!(body["iv"], "AAAA");
        assert_eq!(body["aps"]["mutable-content"], 1);
        assert_eq!(body["extra"], json!({ "a": [1, 2] }));
        let minimal: Value =
            serde_json::from_slice(&ready.body(Form::Minimal, Some(&extra("c2VjcmV0")))).unwrap();
        assert_eq!(
            (&minimal["account"], &minimal["encrypted"]),
            (&body["account"], &Value::Null)
        );
    }

    #[test]
    fn what_is_too_large_becomes_the_plain_push() {
        let ready = Ready::new(Class::High, &settings()).unwrap();
        let with = |ciphertext: &str| ready.body(Form::Full, Some(&extra(ciphertext)));
        let room = 4_096 - with("").len();
        assert_eq!(with(&"x".repeat(room)).len(), 4_096);
        let body: Value = serde_json::from_slice(&with(&"x".repeat(room + 1))).unwrap();
        assert_eq!(
            (&body["account"], &body["encrypted"]),
            (&json!("a\"@b.example"), &Value::Null)
        );
    }

    #[test]
    fn the_settings_own_keys_win() {
        let settings = PayloadSettings {
            additional_data: Map::from_iter([("account".to_owned(), json!(1))]),
            ..settings()
        };
        let ready = Ready::new(Class::High, &settings).unwrap();
        let text = ready.body(Form::Full, Some(&extra("x")));
        let body: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&body["account"], &body["encrypted"]), (&json!(1), &json!("x")));
    }

    #[test]
    fn a_visible_push_is_the_one_that_the_original_sent() {
        let ready = Ready::new(Class::High, &settings()).unwrap();
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
        let ready = Ready::new(
            Class::Low,
            &PayloadSettings {
                collapse: true,
                ..settings()
            },
        )
        .unwrap();
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
        let ready = Ready::new(Class::Voip, &settings()).unwrap();
        let headers = [&ready.push_type, &ready.priority, &ready.topic];
        assert_eq!(
            headers.map(|value| value.to_str().unwrap()),
            ["voip", "10", "org.example.app.voip"]
        );
    }

    #[test]
    fn empty_texts_are_left_out() {
        let bare = PayloadSettings {
            sound: String::new(),
            mutable_content: false,
            ..settings()
        };
        let ready = Ready::new(
            Class::High,
            &PayloadSettings {
                alert_title: String::new(),
                ..bare
            },
        )
        .unwrap();
        assert_eq!(
            body(&ready, Form::Minimal),
            json!({ "aps": { "alert": { "body": "New Message?" } } })
        );
    }

    #[test]
    fn what_apple_would_not_take_is_refused_at_the_start() {
        let large = Map::from_iter([("x".to_owned(), json!("x".repeat(4_096)))]);
        let settings = PayloadSettings {
            additional_data: large,
            ..settings()
        };
        assert!(matches!(
            Ready::new(Class::High, &settings),
            Err(PayloadError::TooLarge { limit: 4_096, .. })
        ));
        assert!(Ready::new(Class::Voip, &settings).is_ok());
    }
}
