//! Push 2.0 (`urn:xmpp:push2:0`): a message for one device, which its account's server has encrypted and signed.
//!
//! There is no XEP yet; this is the draft beside Prosody's `mod_push2`. A message that is no such notification, or that cannot be
//! read, is none of our business; one that is one, and that cannot be passed on, is answered with an error.

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use fpush_push::{Notification, Priority, Signature};

use crate::xml::{Cursor, Malformed, Open};

/// A notification as it was sent. It has no `Debug` in the program: nothing of it may get into the log.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Sent<'a> {
    client: Option<Cow<'a, str>>,
    priority: Option<Cow<'a, str>>,
    voip: bool,
    payload: Option<Cow<'a, str>>,
    jwt: Option<Jwt<'a>>,
}

#[cfg_attr(test, derive(Debug, PartialEq))]
struct Jwt<'a> {
    text: Cow<'a, str>,
    key: Option<Cow<'a, str>>,
}

/// Why a notification cannot be passed on to any receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not say for whom it is.
    NoClient,
    /// It says so in more bytes than any push service has in its endpoints.
    LongClient,
    /// What it carries is not base64.
    Payload,
    /// What it carries is larger than any push service takes.
    LargePayload,
    /// Its claims are none, or more than make sense.
    Jwt,
    /// The key of its claims is none.
    Key,
}

impl<'a> Sent<'a> {
    /// Reads what is in a message; `None` if there is no notification in it.
    pub(crate) fn read(cursor: &mut Cursor<'a>, message: &Open<'a>) -> Result<Option<Self>, Malformed> {
        while let Some(child) = cursor.child(message)? {
            if child.is(PUSH2, "notification") {
                return Self::of(cursor, &child).map(Some);
            }
        }
        Ok(None)
    }

    /// Of what is there twice the first one counts.
    fn of(cursor: &mut Cursor<'a>, notification: &Open<'a>) -> Result<Self, Malformed> {
        let mut sent = Self::default();
        while let Some(child) = cursor.child(notification)? {
            match (child.namespace.as_ref(), child.local) {
                (PUSH2, "client") if sent.client.is_none() => sent.client = Some(cursor.text(&child)?),
                (PUSH2, "priority") if sent.priority.is_none() => {
                    sent.priority = Some(cursor.text(&child)?);
                }
                (PUSH2, "voip") => sent.voip = true,
                (PUSH2, "jwt") if sent.jwt.is_none() => {
                    let key = child.attribute("key")?;
                    let text = cursor.text(&child)?;
                    sent.jwt = Some(Jwt { text, key });
                }
                (ENCRYPTED, "encrypted") => {
                    while let Some(part) = cursor.child(&child)? {
                        if part.is(ENCRYPTED, "payload") && sent.payload.is_none() {
                            sent.payload = Some(cursor.text(&part)?);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(sent)
    }

    /// Whom it is for, and what is to be passed on.
    ///
    /// # Errors
    ///
    /// It is none that anybody could pass on.
    pub(crate) fn check(&self) -> Result<(&str, Notification), Fault> {
        let client = self.client.as_deref().map_or("", str::trim);
        if client.is_empty() {
            return Err(Fault::NoClient);
        }
        if client.len() > LONGEST_CLIENT {
            return Err(Fault::LongClient);
        }
        let notification = Notification {
            payload: self.payload.as_deref().map(read_payload).transpose()?,
            signature: self.jwt.as_ref().map(Jwt::check).transpose()?,
            priority: match self.priority.as_deref().map(str::trim) {
                Some("high") => Priority::High,
                Some("low") => Priority::Low,
                // What is not known is not left out.
                Some(_) | None => Priority::Normal,
            },
            call: self.voip,
        };
        Ok((client, notification))
    }
}

impl Jwt<'_> {
    /// Whether the signature is good, the push service sees.
    fn check(&self) -> Result<Signature, Fault> {
        let jwt = self.text.trim();
        let is_base64url = |part: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !part.is_empty() && part.bytes().all(fits)
        };
        if jwt.len() > LONGEST_JWT || jwt.split('.').count() != 3 || !jwt.split('.').all(is_base64url) {
            return Err(Fault::Jwt);
        }
        let key = self.key.as_deref().filter(|key| key.len() <= 2 * KEY);
        let key = key.and_then(decode).and_then(|key| key.try_into().ok());
        let key: [u8; KEY] = key.ok_or(Fault::Key)?;
        if key.first() != Some(&UNCOMPRESSED) {
            return Err(Fault::Key);
        }
        Ok(Signature { jwt: jwt.into(), key })
    }
}

fn read_payload(text: &str) -> Result<Box<[u8]>, Fault> {
    // As many characters have as many bytes, with padding and in lines of whatever length.
    if text.len() > 2 * LARGEST_PAYLOAD {
        return Err(Fault::LargePayload);
    }
    let payload = decode(text).ok_or(Fault::Payload)?;
    if payload.len() > LARGEST_PAYLOAD {
        return Err(Fault::LargePayload);
    }
    if payload.is_empty() {
        return Err(Fault::Payload);
    }
    Ok(payload.into())
}

/// Decodes base64 in either alphabet, with padding or without, with blanks and line ends or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    let bare: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let is_url_safe = bare.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url_safe { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, LENIENT).decode(bare).ok()
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const PUSH2: &str = "urn:xmpp:push2:0";
const ENCRYPTED: &str = "urn:xmpp:sce:rfc8291:0";
/// Bytes (`UnifiedPush` AND 3.0.0).
const LONGEST_CLIENT: usize = 1_000;
/// Bytes that a push service has to take (RFC 8291 section 4), and that none takes more of.
const LARGEST_PAYLOAD: usize = 4_096;
/// Bytes.
const LONGEST_JWT: usize = 2_048;
/// Bytes of an uncompressed point of P-256, and the first of them.
const KEY: usize = 65;
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stanza;

    /// What becomes of a notification with these children.
    fn check(children: &str) -> Result<(String, Notification), Fault> {
        read(&format!(
            "<notification xmlns='urn:xmpp:push2:0'>{children}</notification>"
        ))
        .expect("there is one")
    }

    fn read(content: &str) -> Option<Result<(String, Notification), Fault>> {
        let message = format!("<message>{content}</message>");
        let mut cursor = Cursor::new(Stanza::cut(message.as_bytes())?).ok()?;
        let root = cursor.root().ok()?;
        let sent = Sent::read(&mut cursor, &root).ok()??;
        Some(
            sent.check()
                .map(|(client, notification)| (client.to_owned(), notification)),
        )
    }

    fn encrypted(payload: &str) -> String {
        format!(
            "<client>c</client><encrypted xmlns='urn:xmpp:sce:rfc8291:0'><payload>{payload}</payload></encrypted>"
        )
    }

    fn jwt(key: &str, text: &str) -> String {
        format!("<client>c</client><jwt key='{key}'>{text}</jwt>")
    }

    fn key() -> String {
        let mut key = [0xfb; 65];
        key[0] = 4;
        base64::prelude::BASE64_STANDARD.encode(key)
    }

    #[test]
    fn a_notification_is_read_as_servers_write_it() {
        let children = format!(
            "<client>https://up.example/x?a&amp;b</client><priority>high</priority><voip/>\
             <encrypted xmlns='urn:xmpp:sce:rfc8291:0'><payload>+/v7</payload></encrypted><jwt key='{}'>eyJ0.eyJh.c2ln</jwt>",
            key()
        );
        let (client, notification) = check(&children).unwrap();
        assert_eq!(client, "https://up.example/x?a&b");
        assert_eq!(notification.payload.as_deref(), Some(&[0xfb, 0xfb, 0xfb][..]));
        assert_eq!((notification.priority, notification.call), (Priority::High, true));
        let signature = notification.signature.unwrap();
        assert_eq!(
            (&*signature.jwt, signature.key[0], signature.key[64]),
            ("eyJ0.eyJh.c2ln", 4, 0xfb)
        );
    }

    #[test]
    fn all_but_the_client_may_be_missing() {
        let (client, notification) = check("<client> c </client>").unwrap();
        assert_eq!(client, "c");
        let nothing = Notification {
            payload: None,
            signature: None,
            priority: Priority::Normal,
            call: false,
        };
        assert_eq!(notification, nothing);
        for children in [
            "",
            "<client/>",
            "<client> </client>",
            "<client xmlns='x'>c</client>",
        ] {
            assert_eq!(check(children).unwrap_err(), Fault::NoClient, "{children}");
        }
    }

    #[test]
    fn every_priority_is_one() {
        for (text, priority) in [
            ("high", Priority::High),
            (" low\n", Priority::Low),
            ("normal", Priority::Normal),
            ("", Priority::Normal),
            ("HIGH", Priority::Normal),
            ("urgent", Priority::Normal),
        ] {
            let (_, notification) = check(&format!("<client>c</client><priority>{text}</priority>")).unwrap();
            assert_eq!(notification.priority, priority, "{text:?}");
        }
    }

    #[test]
    fn other_messages_are_not_notifications() {
        for content in [
            "",
            "<body>hello</body>",
            "<notification/>",
            "<notification xmlns='urn:xmpp:push:0'><client>c</client></notification>",
            "<notification xmlns='urn:xmpp:push2:1'><client>c</client></notification>",
            "<n:notification xmlns:n='x'/>",
            "<forwarded xmlns='urn:xmpp:forward:0'><notification xmlns='urn:xmpp:push2:0'/></forwarded>",
        ] {
            assert!(read(content).is_none(), "{content}");
        }
        let prefixed =
            "<body/><n:notification xmlns:n='urn:xmpp:push2:0'><n:client>c</n:client></n:notification>";
        assert!(read(prefixed).unwrap().is_ok());
    }

    #[test]
    fn a_payload_is_base64_of_what_push_services_take() {
        for text in ["+/v7", "-_v7", " +/\nv7 ", "<![CDATA[+/v7]]>"] {
            let (_, notification) = check(&encrypted(text)).unwrap();
            assert_eq!(
                notification.payload.as_deref(),
                Some(&[0xfb, 0xfb, 0xfb][..]),
                "{text:?}"
            );
        }
        for text in ["", " ", "=", "+", "+-__", "{}", "\u{e4}\u{e4}", "AA=A"] {
            assert_eq!(check(&encrypted(text)).unwrap_err(), Fault::Payload, "{text:?}");
        }
        let of = |bytes: usize| {
            check(&encrypted(
                &base64::prelude::BASE64_STANDARD.encode(vec![1; bytes]),
            ))
        };
        assert!(of(LARGEST_PAYLOAD).is_ok());
        assert_eq!(of(LARGEST_PAYLOAD + 1).unwrap_err(), Fault::LargePayload);
        assert_eq!(of(1_000_000).unwrap_err(), Fault::LargePayload);
        // Without its namespace it is another element.
        let (_, notification) =
            check("<client>c</client><encrypted><payload>{}</payload></encrypted>").unwrap();
        assert_eq!(notification.payload, None);
    }

    #[test]
    fn claims_are_three_parts_and_a_key() {
        let good = jwt(&key(), " a.b_-9.c ");
        assert_eq!(&*check(&good).unwrap().1.signature.unwrap().jwt, "a.b_-9.c");
        let long = format!("a.b.{}", "c".repeat(LONGEST_JWT));
        for text in [
            "",
            "a",
            "a.b",
            "a.b.",
            "a.b.c.d",
            "a b.c.d",
            "a.b.c,k=x",
            "a.b.c\u{e4}",
            &long,
        ] {
            assert_eq!(check(&jwt(&key(), text)).unwrap_err(), Fault::Jwt, "{text:.20}");
        }
        let bare = key().trim_end_matches('=').replace('+', "-").replace('/', "_");
        assert!(check(&jwt(&bare, "a.b.c")).is_ok());
        let compressed = base64::prelude::BASE64_STANDARD.encode([2; 65]);
        let short = base64::prelude::BASE64_STANDARD.encode([4; 64]);
        for key in ["", "AAAA", "{}", &compressed, &short, &"A".repeat(10_000)] {
            assert_eq!(check(&jwt(key, "a.b.c")).unwrap_err(), Fault::Key, "{key:.20}");
        }
        assert_eq!(
            check("<client>c</client><jwt>a.b.c</jwt>").unwrap_err(),
            Fault::Key
        );
    }

    #[test]
    fn no_endpoint_is_as_long_as_a_client_must_not_be() {
        let of = |bytes: usize| check(&format!("<client>{}</client>", "x".repeat(bytes)));
        assert!(of(LONGEST_CLIENT).is_ok());
        assert_eq!(of(LONGEST_CLIENT + 1).unwrap_err(), Fault::LongClient);
        assert_eq!(of(500_000).unwrap_err(), Fault::LongClient);
    }
}
