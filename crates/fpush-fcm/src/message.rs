//! What a push carries. Everything but the device's token is the same for every push, so it is made once when
//! the daemon starts.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fpush_push::{Class, Extra, Form};
use serde::Serialize;

/// What the settings say about the message.
#[derive(Clone, Debug)]
pub(crate) struct MessageSettings {
    /// `priority`: [`Class::High`] for high, anything else for normal.
    pub(crate) class: Class,
    pub(crate) ttl: Duration,
    pub(crate) collapse_key: Option<String>,
    pub(crate) additional_data: BTreeMap<String, String>,
    pub(crate) target: Target,
}

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
    /// The keys of `additionalData`, which nothing else may stand under.
    taken: Vec<String>,
    /// How many bytes Google takes beside them.
    room: usize,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the keys and values have {size} bytes together; Google takes {LARGEST_DATA} at most")]
    TooLarge { size: usize },
    #[error("the message cannot be made: {0}")]
    Json(#[from] serde_json::Error),
}

/// What stands behind the token in `message`. There is no `notification`: the app decides what to show.
#[derive(Serialize)]
struct Rest<'a> {
    android: Android<'a>,
    data: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Android<'a> {
    priority: &'static str,
    ttl: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
}

impl Message {
    /// Which field names the device.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    pub(crate) fn new(settings: &MessageSettings) -> Result<Self, MessageError> {
        let data = &settings.additional_data;
        let size = data.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > LARGEST_DATA {
            return Err(MessageError::TooLarge { size });
        }
        Ok(Self {
            target: settings.target,
            full: rest(settings, data)?,
            minimal: rest(settings, &BTreeMap::new())?,
            taken: data.keys().cloned().collect(),
            room: LARGEST_DATA - size,
        })
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
        let body = self.body(token, Form::Full, None);
        let mut dry = Vec::with_capacity(DRY.len() + body.len());
        dry.extend_from_slice(DRY.as_bytes());
        // What is inside the object.
        dry.extend_from_slice(body.get(1..).unwrap_or_default());
        Bytes::from(dry)
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
            .map(|(name, value)| format!(",\"{name}\":{}", serde_json::Value::from(value)))
            .collect()
    }
}

impl Target {
    /// What stands before the device's token in the body.
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
/// character is one of c, d, e and f today, which is no rule to rely on.
fn is_installation_id(text: &str) -> bool {
    text.len() == INSTALLATION_ID
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn rest(settings: &MessageSettings, data: &BTreeMap<String, String>) -> Result<Box<str>, MessageError> {
    let rest = Rest {
        android: Android {
            priority: match settings.class {
                Class::High => "HIGH",
                Class::Low | Class::Voip => "NORMAL",
            },
            // Google rounds down to seconds.
            ttl: format!("{}s", settings.ttl.as_secs()),
            collapse_key: settings.collapse_key.as_deref(),
        },
        data,
    };
    let json = serde_json::to_string(&rest)?;
    // What is inside the object goes on where the token ends, and one more brace closes the whole.
    Ok(format!("\",{}}}", &json[1..]).into())
}

const START_TOKEN: &str = r#"{"message":{"token":""#;
const START_FID: &str = r#"{"message":{"fid":""#;
const DRY: &str = r#"{"validate_only":true,"#;
/// What closes `data`, `message` and the whole.
const END: &str = "}}}";
const LARGEST_DATA: usize = 4_096;
const INSTALLATION_ID: usize = 22;
const SHORTEST_TOKEN: usize = 20;
const LONGEST_TOKEN: usize = 4_096;
/// Apple's tokens have 64 digits, and may grow.
const APPLES_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FID: &str = "dCXr7fTpTm2yXGVYTXJb6r";

    fn settings() -> MessageSettings {
        MessageSettings {
            class: Class::High,
            ttl: Duration::from_secs(2_419_200),
            collapse_key: None,
            additional_data: BTreeMap::new(),
            target: Target::Auto,
        }
    }

    fn body(settings: &MessageSettings, form: Form) -> Value {
        serde_json::from_slice(&Message::new(settings).unwrap().body("to:ken", form, None)).unwrap()
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
        let data = |settings: &MessageSettings, form, extra| {
            let body = Message::new(settings).unwrap().body("to:ken", form, Some(&extra));
            serde_json::from_slice::<Value>(&body).unwrap()["message"]["data"].clone()
        };
        let all = json!({ "account": "0a1b", "channel": "2c\"", "encrypted": "x", "iv": "AAAA" });
        let plain = json!({ "account": "0a1b", "channel": "2c\"" });
        assert_eq!(data(&settings(), Form::Full, extra("x")), all);
        assert_eq!(data(&settings(), Form::Minimal, extra("x")), plain);
        assert_eq!(data(&settings(), Form::Full, extra(&"x".repeat(4_096))), plain);
        let own = MessageSettings {
            additional_data: BTreeMap::from([("account".to_owned(), "mine".to_owned())]),
            ..settings()
        };
        let expected = json!({ "account": "mine", "channel": "2c\"", "encrypted": "x", "iv": "AAAA" });
        assert_eq!(data(&own, Form::Full, extra("x")), expected);
    }

    #[test]
    fn a_message_has_data_only_even_if_there_is_none() {
        let android = json!({ "priority": "HIGH", "ttl": "2419200s" });
        assert_eq!(
            body(&settings(), Form::Full),
            json!({ "message": { "token": "to:ken", "android": android, "data": {} } })
        );
    }

    #[test]
    fn a_message_that_is_only_checked_says_so() {
        let message = Message::new(&settings()).unwrap();
        let dry: Value = serde_json::from_slice(&message.dry_body("to:ken")).unwrap();
        let mut expected = body(&settings(), Form::Full);
        expected["validate_only"] = true.into();
        assert_eq!(dry, expected);
    }

    #[test]
    fn an_installation_id_has_a_field_of_its_own_unless_the_settings_say_otherwise() {
        let named_by = |target, token: &str| {
            let settings = MessageSettings { target, ..settings() };
            let body = Message::new(&settings).unwrap().body(token, Form::Full, None);
            let body: Value = serde_json::from_slice(&body).unwrap();
            let message = body["message"].as_object().unwrap();
            let fields = ["token", "fid"].map(|field| message.get(field).is_some_and(|value| value == token));
            assert_eq!(message.len(), 3, "{body}");
            fields
        };
        let (token, fid) = ([true, false], [false, true]);
        for id in [FID, "-_AZaz09AZaz09AZaz09az"] {
            assert_eq!(named_by(Target::Auto, id), fid, "{id}");
            assert_eq!(named_by(Target::Token, id), token, "{id}");
        }
        for other in [
            &format!("{FID}:APA91b"),
            &FID[1..],
            "dCXr7fTpTm2yXGVYTXJb6.",
            &format!("{FID}r"),
        ] {
            assert_eq!(named_by(Target::Auto, other), token, "{other}");
            assert_eq!(named_by(Target::Fid, other), fid, "{other}");
        }
    }

    #[test]
    fn everything_that_can_be_set_is_there_and_escaped() {
        let settings = MessageSettings {
            class: Class::Low,
            ttl: Duration::from_millis(90_900),
            collapse_key: Some("a \"key\"".into()),
            additional_data: BTreeMap::from_iter([("k\\".to_owned(), "v\"\n".to_owned())]),
            ..settings()
        };
        let android = json!({ "priority": "NORMAL", "ttl": "90s", "collapse_key": "a \"key\"" });
        assert_eq!(
            body(&settings, Form::Full),
            json!({ "message": { "token": "to:ken", "android": android, "data": { "k\\": "v\"\n" } } })
        );
        assert_eq!(
            body(&settings, Form::Minimal),
            json!({ "message": { "token": "to:ken", "android": android, "data": {} } })
        );
    }

    #[test]
    fn data_has_4096_bytes_at_most() {
        let with = |length: usize| MessageSettings {
            additional_data: BTreeMap::from_iter([("key".to_owned(), "v".repeat(length))]),
            ..settings()
        };
        assert!(Message::new(&with(4_093)).is_ok());
        assert!(matches!(
            Message::new(&with(4_094)),
            Err(MessageError::TooLarge { size: 4_097 })
        ));
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
