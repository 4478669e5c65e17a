//! What a push says: JSON with the same names that apps know from other providers' pushes.

use fpush_push::{Extra, Form};
use serde_json::{Map, Value, json};

use crate::encryption::OVERHEAD;

/// A text that lacks only what is the device's.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    full: Box<str>,
    minimal: Box<str>,
    /// The names that nothing else may be under.
    taken: Vec<String>,
}

/// What is wrong with `additionalData`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadData {
    /// It makes a text that is too long.
    #[error("it makes pushes of {size} bytes; push services take {LONGEST} at most")]
    TooLong { size: usize },
    /// It says what `declarative` says.
    #[error("\"{key}\" is what declarative makes; Safari would show nothing with another one")]
    Taken { key: String },
}

impl Payload {
    /// `additionalData`, and the notification that Safari shows by itself (Declarative Web Push), if any.
    pub(crate) fn new(
        data: &Map<String, Value>,
        declarative: Option<&Map<String, Value>>,
    ) -> Result<Self, BadData> {
        let mut minimal = Map::new();
        if let Some(notification) = declarative {
            minimal.insert("web_push".to_owned(), json!(DECLARATIVE));
            minimal.insert("notification".to_owned(), Value::Object(notification.clone()));
        }
        let mut full = minimal.clone();
        if let Some(key) = data.keys().find(|key| full.contains_key(*key)) {
            return Err(BadData::Taken { key: key.clone() });
        }
        full.extend(data.clone());
        let taken = full.keys().cloned().collect();
        let [full, minimal] = [full, minimal].map(|text| Value::Object(text).to_string());
        if full.len() > LONGEST {
            return Err(BadData::TooLong { size: full.len() });
        }
        Ok(Self {
            full: full.into(),
            minimal: minimal.into(),
            taken,
        })
    }

    /// The text of a push: never empty, and never longer than push services take. What is encrypted for the app is left out
    /// first.
    pub(crate) fn text(&self, form: Form, extra: Option<&Extra>) -> String {
        let fixed = match form {
            Form::Full => &self.full,
            Form::Minimal => &self.minimal,
        };
        let Some(extra) = extra else {
            return fixed.to_string();
        };
        let with = |extra: &Extra| Some(self.with(fixed, extra)).filter(|text| text.len() <= LONGEST);
        let plain = || with(&extra.without_encrypted());
        let text = match form {
            Form::Full => with(extra).or_else(plain),
            Form::Minimal => plain(),
        };
        text.unwrap_or_else(|| fixed.to_string())
    }

    fn with(&self, fixed: &str, extra: &Extra) -> String {
        let mut text = fixed.strip_suffix('}').unwrap_or(fixed).to_owned();
        let free = extra
            .data()
            .filter(|(name, _)| !self.taken.iter().any(|taken| taken == name));
        for (name, value) in free {
            if !text.ends_with('{') {
                text.push(',');
            }
            text.push_str(&format!("\"{name}\":{}", Value::from(value)));
        }
        text.push('}');
        text
    }
}

/// The number of RFC 8030, by which a browser knows the declarative form.
const DECLARATIVE: u16 = 8_030;
/// Bytes of a text: what every push service takes, phones behind Mozilla's bridge included.
const LONGEST: usize = 3_000 - OVERHEAD;

#[cfg(test)]
mod tests {
    use fpush_push::Encrypted;

    use super::*;

    fn payload(data: Value, declarative: Option<Value>) -> Result<Payload, BadData> {
        let declarative = declarative.as_ref().and_then(Value::as_object);
        Payload::new(data.as_object().unwrap(), declarative)
    }

    fn extra(ciphertext: usize) -> Extra {
        Extra {
            account: Some("juliet@a.example".into()),
            channel: None,
            encrypted: Some(Encrypted {
                iv: "aXY=".into(),
                ciphertext: "c".repeat(ciphertext).into(),
            }),
            call: false,
        }
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_names_are_those_of_other_providers() {
        let none = payload(json!({}), None).unwrap();
        assert_eq!(none.text(Form::Full, None), "{}");
        assert_eq!(
            read(&none.text(Form::Full, Some(&extra(3)))),
            json!({ "account": "juliet@a.example", "encrypted": "ccc", "iv": "aXY=" })
        );
        let some = payload(json!({ "account": "mine", "n": [1] }), None).unwrap();
        assert_eq!(
            read(&some.text(Form::Full, Some(&extra(3)))),
            json!({ "account": "mine", "n": [1], "encrypted": "ccc", "iv": "aXY=" })
        );
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let payload = payload(json!({ "n": 1 }), None).unwrap();
        let text = payload.text(Form::Full, Some(&extra(3_000)));
        assert_eq!(read(&text), json!({ "n": 1, "account": "juliet@a.example" }));
        assert_eq!(
            read(&payload.text(Form::Minimal, Some(&extra(3)))),
            json!({ "account": "juliet@a.example" })
        );
        let long = Extra {
            account: Some("\u{1}".repeat(2_000).into()),
            ..extra(1)
        };
        assert_eq!(read(&payload.text(Form::Full, Some(&long))), json!({ "n": 1 }));
        for length in 0..3_000 {
            assert!(payload.text(Form::Full, Some(&extra(length))).len() + OVERHEAD <= 3_000);
        }
    }

    #[test]
    fn safaris_form_is_in_the_minimal_form_as_well() {
        let notification = json!({ "title": "News", "navigate": "https://a.example/" });
        let payload = payload(json!({ "n": 1 }), Some(notification.clone())).unwrap();
        assert_eq!(
            read(&payload.text(Form::Full, None)),
            json!({ "web_push": 8030, "notification": notification, "n": 1 })
        );
        assert_eq!(
            read(&payload.text(Form::Minimal, None)),
            json!({ "web_push": 8030, "notification": notification })
        );
    }

    #[test]
    fn what_safari_shows_is_not_said_twice() {
        let notification = json!({ "title": "News", "navigate": "https://a.example/" });
        for key in ["web_push", "notification"] {
            let data = json!({ key: 1 });
            let error = payload(data.clone(), Some(notification.clone())).unwrap_err();
            assert_eq!(error, BadData::Taken { key: key.to_owned() });
            assert!(payload(data, None).is_ok());
        }
    }

    #[test]
    fn settings_that_leave_no_room_are_an_error() {
        assert!(payload(json!({ "n": "x".repeat(2_880) }), None).is_ok());
        assert_eq!(
            payload(json!({ "n": "x".repeat(3_000) }), None).unwrap_err(),
            BadData::TooLong { size: 3_008 }
        );
    }
}
