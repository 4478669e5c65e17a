//! What a certificate of Apple's is for, and whether it can send a module's pushes.
//!
//! Apple says it twice: in the subject, whose UID is the topic and whose common name begins with the kind, and in extensions.
//! Not every certificate has both.

use x509_parser::{
    der_parser::{Oid, oid},
    prelude::X509Certificate,
};

use crate::topic;

/// The setting `environment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    Production,
    Sandbox,
    /// Each device's own.
    Both,
}

/// What the module needs of its certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The bundle ID of the app.
    pub(crate) topic: &'a str,
    /// Whether all pushes are calls, whose topic ends in `.voip`.
    pub(crate) calls: bool,
    /// Where they go at Apple's; `None` if they go to a relay.
    pub(crate) environment: Option<Environment>,
}

/// Why a certificate cannot send the pushes that are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    /// Whether Apple will refuse them; otherwise that is only likely.
    pub(crate) is_certain: bool,
    /// The setting that is wrong.
    pub(crate) key: &'static str,
    pub(crate) what: String,
}

/// What a certificate says.
#[derive(Debug, Default)]
struct Purpose {
    /// The bundle ID of its app, from the subject or, without one there, from the extension.
    uid: Option<String>,
    /// What the common name begins with.
    kind: Option<String>,
    /// What follows that in the common name: the bundle ID.
    name: Option<String>,
    /// From the extensions that list them; empty if there are none.
    topics: Vec<String>,
    sandbox: bool,
    production: bool,
}

/// What speaks against a certificate; `None` if nothing is known to.
pub(crate) fn objection(certificate: &X509Certificate<'_>, wanted: Wanted<'_>) -> Option<Objection> {
    Purpose::of(certificate).objection(wanted)
}

impl Purpose {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut purpose = Self::default();
        for attribute in certificate.subject().iter_attributes() {
            let text = attribute.as_str().ok().map(str::to_owned);
            if *attribute.attr_type() == USER_ID {
                purpose.uid = text;
            } else if *attribute.attr_type() == COMMON_NAME {
                let parts = text.as_deref().and_then(|text| text.split_once(':'));
                purpose.kind = parts.map(|(kind, _)| kind.trim().to_owned());
                purpose.name = parts.map(|(_, name)| name.trim().to_owned());
            }
        }
        for extension in certificate.extensions() {
            let id = &extension.oid;
            purpose.sandbox |= *id == SANDBOX;
            purpose.production |= *id == PRODUCTION;
            if *id == TOPICS || *id == VOIP_TOPICS {
                purpose.topics.extend(texts(extension.value));
            } else if *id == BUNDLE && purpose.uid.is_none() {
                purpose.uid = texts(extension.value).into_iter().next();
            }
        }
        match purpose.kind.as_deref() {
            Some("Apple Development IOS Push Services" | "Apple Development Mac Push Services") => {
                purpose.sandbox = true;
            }
            Some("Apple Production IOS Push Services" | "Apple Production Mac Push Services") => {
                purpose.production = true;
            }
            _ => {}
        }
        purpose
    }

    fn objection(&self, wanted: Wanted<'_>) -> Option<Objection> {
        let topic = wanted.topic;
        let kind = self.kind.as_deref().unwrap_or_default();
        let objection = |is_certain, key, what| {
            Some(Objection {
                // A relay may have rules of its own.
                is_certain: is_certain && wanted.environment.is_some(),
                key,
                what,
            })
        };
        let certain = |what| objection(true, CERTIFICATE, what);
        if self.topics.is_empty() && SIGNING.contains(&kind) {
            return certain(format!(
                "this is a certificate that signs apps (\"{kind}\"), and no push certificate; get one at \
                 developer.apple.com, under Certificates, Apple Push Notification service SSL"
            ));
        }
        // What is certain is said before what is likely.
        let mut likely = None;
        if let Some(bundle) = topic
            .strip_suffix(VOIP)
            .filter(|bundle| self.is_for(bundle, topic))
        {
            likely = objection(wanted.calls, "topic", topic::with_voip(bundle));
        } else if !self.topics.is_empty() {
            let needed = if wanted.calls {
                &format!("{topic}{VOIP}")
            } else {
                topic
            };
            if !self.topics.iter().any(|topic| topic == needed) {
                let topics = self.topics.join(", ");
                return certain(format!(
                    "the certificate is for the topics {topics}, and cannot send pushes to {needed}"
                ));
            }
        } else if let Some(uid) = self.uid.as_deref() {
            let base = uid.strip_suffix(VOIP).unwrap_or(uid);
            if base != topic && uid != topic {
                let called = if kind.is_empty() {
                    String::new()
                } else {
                    format!(" (\"{kind}\")")
                };
                let what = format!("the certificate{called} is for {uid}, and cannot send pushes to {topic}");
                // An extension of the app has a topic below the app's.
                if !topic.strip_prefix(base).is_some_and(|rest| rest.starts_with('.')) {
                    return certain(what);
                }
                likely = objection(false, CERTIFICATE, what);
            }
        }
        if kind == CALLS && !wanted.calls {
            return certain(
                "this is a certificate for calls alone (\"VoIP Services\"), and cannot send messages; set pushPriority to \
                 \"voip\", or get a certificate for the Apple Push Notification service"
                    .to_owned(),
            );
        }
        match (wanted.environment, self.sandbox, self.production) {
            (Some(Environment::Production), true, false) => certain(
                "the certificate is for Apple's sandbox alone; set environment to \"sandbox\", or get one for production"
                    .to_owned(),
            ),
            (Some(Environment::Sandbox), false, true) => certain(
                "the certificate is for production alone; set environment to \"production\", or get one for the sandbox"
                    .to_owned(),
            ),
            (Some(Environment::Both), true, false) => certain(
                "the certificate is for Apple's sandbox alone, and environment \"both\" needs one for both: get an \
                 \"Apple Push Notification service SSL\" certificate, or use a provider token (tokenKeyFilePath)"
                    .to_owned(),
            ),
            (Some(Environment::Both), false, true) => certain(
                "the certificate is for production alone, and environment \"both\" needs one for both: get an \
                 \"Apple Push Notification service SSL\" certificate, or use a provider token (tokenKeyFilePath)"
                    .to_owned(),
            ),
            _ => likely,
        }
    }

    /// Whether the app is this one, so that a topic which is its bundle ID with `.voip` behind it is not: there are bundle
    /// IDs that end so. A certificate that says nothing of its app does not speak for that.
    fn is_for(&self, bundle: &str, topic: &str) -> bool {
        if !self.topics.is_empty() {
            let has = |wanted: &str| self.topics.iter().any(|topic| topic == wanted);
            return !has(&format!("{topic}{VOIP}")) && (has(bundle) || has(topic));
        }
        match self.uid.as_deref() {
            // A certificate for calls may have the topic of calls there.
            Some(uid) if uid == topic && self.kind.as_deref() == Some(CALLS) => {
                self.name.as_deref() == Some(bundle)
            }
            Some(uid) => uid == bundle,
            None => true,
        }
    }
}

/// The texts in an extension: topics in a sequence, each with the kinds of pushes in a sequence of its own behind it. In the
/// extensions for calls and for the bundle ID there is one text, in which commas separate topics.
fn texts(value: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = match element(value) {
        Some((SEQUENCE, content, _)) => content,
        Some(_) | None => value,
    };
    while let Some((tag, content, after)) = element(rest) {
        if matches!(tag, UTF8 | PRINTABLE | IA5)
            && let Ok(text) = str::from_utf8(content)
        {
            let parts = text.split(',').map(str::trim);
            texts.extend(parts.filter(|part| !part.is_empty()).map(str::to_owned));
        }
        rest = after;
    }
    texts
}

/// The first element of some DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const CERTIFICATE: &str = "certFilePath";
/// The kind of certificates for calls alone.
const CALLS: &str = "VoIP Services";
/// What the topic of calls has behind the bundle ID.
const VOIP: &str = ".voip";
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const USER_ID: Oid<'static> = oid!(0.9.2342.19200300.100.1.1);
const COMMON_NAME: Oid<'static> = oid!(2.5.4.3);
const SANDBOX: Oid<'static> = oid!(1.2.840.113635.100.6.3.1);
const PRODUCTION: Oid<'static> = oid!(1.2.840.113635.100.6.3.2);
// What .5 says is not known, so that it says nothing here.
const BUNDLE: Oid<'static> = oid!(1.2.840.113635.100.6.3.3);
const VOIP_TOPICS: Oid<'static> = oid!(1.2.840.113635.100.6.3.4);
const TOPICS: Oid<'static> = oid!(1.2.840.113635.100.6.3.6);
/// How the common names of certificates begin that sign apps.
const SIGNING: [&str; 9] = [
    "Apple Development",
    "Apple Distribution",
    "iPhone Developer",
    "iPhone Distribution",
    "Mac Developer",
    "3rd Party Mac Developer Application",
    "3rd Party Mac Developer Installer",
    "Developer ID Application",
    "Developer ID Installer",
];
