//! What Apple answers, and what must be done about it: the one table.

use std::time::Duration;

use fpush_push::PushError;
use http::StatusCode;
use serde_json::Value;

/// Apple's reasons ("Handling notification responses from APNs"), and those that projects have seen on the
/// wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    BadCertificate,
    BadCertificateEnvironment,
    BadCollapseId,
    BadDeviceToken,
    BadEnvironmentKey,
    BadExpirationDate,
    BadMessageId,
    BadPath,
    BadPriority,
    BadTopic,
    DeviceTokenNotForTopic,
    DuplicateHeaders,
    ExpiredProviderToken,
    ExpiredToken,
    Forbidden,
    IdleTimeout,
    InternalServerError,
    InvalidProviderToken,
    InvalidPushType,
    MethodNotAllowed,
    MissingDeviceToken,
    MissingProviderToken,
    MissingTopic,
    PayloadEmpty,
    PayloadTooLarge,
    ServiceUnavailable,
    Shutdown,
    TooManyProviderTokenUpdates,
    TooManyRequests,
    TopicDisallowed,
    Unregistered,
    UnrelatedKeyId,
    /// One that is not in this list: shortened, letters only.
    Unknown(String),
    /// No JSON, as from a proxy in between.
    Unreadable,
}

/// An answer other than 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    /// When the token died (with 410), in milliseconds since 1970.
    pub(crate) timestamp: Option<u64>,
    pub(crate) retry_after: Option<Duration>,
}

/// What there is to say about a refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The reason by its own name: one of few, for metrics.
    pub(crate) name: &'static str,
    /// What to do.
    pub(crate) remedy: Remedy,
    /// What it means, and what the operator can do.
    pub(crate) meaning: &'static str,
}

/// What to do; where only the backend itself can do it, what that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The module does it.
    Module(PushError),
    /// Leave this connection, then try again at once.
    Reconnect,
    /// Leave this connection, then try again later.
    ReconnectLater,
    /// Renew the provider token, then try again at once.
    RenewToken,
    /// The same if our clock has jumped since the token was signed; otherwise only the operator can help.
    RenewTokenIfClockJumped,
}

impl Refusal {
    pub(crate) fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        Self {
            status,
            reason: body["reason"]
                .as_str()
                .map_or(Reason::Unreadable, Reason::from_name),
            timestamp: milliseconds(&body["timestamp"]),
            retry_after,
        }
    }

    /// The table.
    pub(crate) fn entry(&self) -> Entry {
        let refused = Remedy::Module(PushError::Pause {
            length: CREDENTIALS_PAUSE,
            alarm: true,
        });
        let later = Remedy::Module(PushError::Later {
            after: self.retry_after,
        });
        let gone = Remedy::Module(PushError::TokenGone {
            since: self.timestamp,
        });
        let doubted = Remedy::Module(PushError::TokenDoubted);
        let misconfigured = Remedy::Module(PushError::Misconfigured);
        let (name, remedy, meaning) = match self.reason {
            Reason::BadCertificate => (
                "BadCertificate",
                refused,
                "Apple does not take the client certificate: it was revoked, or it is not one for pushes. Make a new \
                 \"Apple Push Notification service SSL\" certificate for the app at developer.apple.com, under \
                 Certificates, and put it into certFilePath.",
            ),
            Reason::BadCertificateEnvironment => (
                "BadCertificateEnvironment",
                refused,
                "The client certificate is one of the other environment. A certificate named \"Apple Development IOS \
                 Push Services\" works only with environment \"sandbox\"; one named \"Apple Push Services\" works with \
                 both.",
            ),
            Reason::BadCollapseId => (
                "BadCollapseId",
                misconfigured,
                "Apple does not take the apns-collapse-id, which should never happen: set collapsePushes to false, and \
                 report it as a mistake of fpush.",
            ),
            Reason::BadDeviceToken => (
                "BadDeviceToken",
                doubted,
                "The token is not one of this environment: builds from Xcode get tokens for environment \"sandbox\", \
                 those from TestFlight and the App Store for \"production\". If only some devices meet this, their apps \
                 registered something that is not a token.",
            ),
            Reason::BadEnvironmentKey => (
                "BadEnvironmentKeyIdInToken",
                refused,
                "The key of tokenKeyFilePath is bound to the other environment. Look at the key at \
                 developer.apple.com, under Keys, and set environment to match, or make a key for both.",
            ),
            Reason::BadExpirationDate => (
                "BadExpirationDate",
                misconfigured,
                "Apple does not take the time until which the push is good. Check the clock of this machine and \
                 pushTtl.",
            ),
            Reason::BadMessageId => (
                "BadMessageId",
                misconfigured,
                "Apple does not take the apns-id, which should never happen: report it as a mistake of fpush.",
            ),
            Reason::BadPath => (
                "BadPath",
                misconfigured,
                "Apple does not know the path of the request, which should never happen: check that the relay at \
                 endpoint, if there is one, leaves the path as it is.",
            ),
            Reason::BadPriority => (
                "BadPriority",
                misconfigured,
                "Apple does not take the priority of the push, which should never happen: report it as a mistake of \
                 fpush.",
            ),
            Reason::BadTopic => (
                "BadTopic",
                misconfigured,
                "Apple does not take the topic. It must be the bundle ID of the app, without a suffix such as .voip, as \
                 developer.apple.com shows it under Identifiers.",
            ),
            Reason::DeviceTokenNotForTopic => (
                "DeviceTokenNotForTopic",
                Remedy::Module(PushError::TokenOfAnotherApp),
                "The token belongs to another app than the one whose bundle ID is the topic. Compare topic with the \
                 bundle ID of the app; if only some devices meet this, their apps name the wrong pushModule.",
            ),
            Reason::DuplicateHeaders => (
                "DuplicateHeaders",
                misconfigured,
                "A header of the request is there twice, which should never happen: check the relay at endpoint if there \
                 is one.",
            ),
            Reason::ExpiredProviderToken => (
                "ExpiredProviderToken",
                Remedy::RenewToken,
                "Apple calls the provider token older than an hour, although it is renewed long before: check the clock \
                 of this machine, and let NTP keep it right.",
            ),
            Reason::ExpiredToken => (
                "ExpiredToken",
                gone,
                "The device's token has run out, as after the app was removed. The server of a publish is told so, \
                 and forgets the device.",
            ),
            Reason::Forbidden => (
                "Forbidden",
                misconfigured,
                "Apple does not allow this push. Check that the key or certificate may send to topic: at \
                 developer.apple.com, under Keys, a key may be limited to some topics.",
            ),
            Reason::IdleTimeout => (
                "IdleTimeout",
                Remedy::Reconnect,
                "Apple closes a connection that was idle. There is nothing to do: the push goes out over a new one.",
            ),
            Reason::InternalServerError => (
                "InternalServerError",
                later,
                "Apple has an internal error. The push is repeated; if it goes on, look at \
                 developer.apple.com/system-status.",
            ),
            Reason::InvalidProviderToken => (
                "InvalidProviderToken",
                Remedy::RenewTokenIfClockJumped,
                "Apple does not take the provider token. Compare keyId and teamId with developer.apple.com (Keys, and \
                 Membership), check that tokenKeyFilePath is the file of that key and that the key was not revoked, and \
                 check the clock of this machine.",
            ),
            Reason::InvalidPushType => (
                "InvalidPushType",
                misconfigured,
                "Apple does not take this kind of push for the topic. Check pushPriority: \"voip\" needs an app with the \
                 capability for VoIP.",
            ),
            Reason::MethodNotAllowed => (
                "MethodNotAllowed",
                misconfigured,
                "Apple takes no POST there, which should never happen: check that endpoint is a server of Apple's or a \
                 relay to one.",
            ),
            Reason::MissingDeviceToken => (
                "MissingDeviceToken",
                misconfigured,
                "The request names no device, which should never happen: check that the relay at endpoint, if there is \
                 one, leaves the path as it is.",
            ),
            Reason::MissingProviderToken => (
                "MissingProviderToken",
                refused,
                "Apple saw neither a client certificate nor a provider token. If there is a relay or a proxy in between, it \
                 must pass the connection through unopened; otherwise the certificate in certFilePath is not one for \
                 pushes.",
            ),
            Reason::MissingTopic => (
                "MissingTopic",
                misconfigured,
                "Apple saw no topic. Set topic to the bundle ID of the app, and check that the relay at endpoint, if \
                 there is one, passes headers on.",
            ),
            Reason::PayloadEmpty => (
                "PayloadEmpty",
                misconfigured,
                "Apple saw no payload, which should never happen: check that the relay at endpoint, if there is one, \
                 passes bodies on.",
            ),
            Reason::PayloadTooLarge => (
                "PayloadTooLarge",
                Remedy::Module(PushError::TooLarge),
                "The push is larger than Apple takes, and goes out again with less. Shorten alertTitle, alertBody or \
                 additionalData.",
            ),
            Reason::ServiceUnavailable => (
                "ServiceUnavailable",
                later,
                "Apple's service is not available. The push is repeated; if it goes on, look at \
                 developer.apple.com/system-status.",
            ),
            Reason::Shutdown => (
                "Shutdown",
                Remedy::ReconnectLater,
                "Apple's server is being shut down. There is nothing to do: the push goes out over a new connection.",
            ),
            Reason::TooManyProviderTokenUpdates => (
                "TooManyProviderTokenUpdates",
                refused,
                "Apple sees provider tokens change more than once in 20 minutes. Another program signs with the same \
                 key, or fpush was started again and again: make a key for fpush alone at developer.apple.com, under \
                 Keys.",
            ),
            Reason::TooManyRequests => (
                "TooManyRequests",
                Remedy::Module(PushError::TokenBusy),
                "This device gets too many pushes one after the other, and is left alone for a while. If many devices \
                 meet this, make ratelimit stricter.",
            ),
            Reason::TopicDisallowed => (
                "TopicDisallowed",
                misconfigured,
                "The key or certificate may not send to topic. Check that topic is the bundle ID of an app of this team \
                 (teamId), and that the key, at developer.apple.com under Keys, is not limited to other topics.",
            ),
            Reason::Unregistered => (
                "Unregistered",
                gone,
                "The app was removed from the device, or got a new token. The server of a publish is told so, \
                 and forgets the device.",
            ),
            Reason::UnrelatedKeyId => (
                "UnrelatedKeyIdInToken",
                refused,
                "Apple saw provider tokens of two keys on one connection. fpush keeps them apart; a relay at endpoint \
                 must do so too.",
            ),
            Reason::Unknown(_) => (
                "unknown",
                match self.status.as_u16() {
                    // What the status alone promises, with the doubt that an unknown reason deserves.
                    410 => doubted,
                    413 => Remedy::Module(PushError::TooLarge),
                    429 => Remedy::Module(PushError::TokenBusy),
                    401 | 403 | 407 => refused,
                    400 => Remedy::Module(PushError::Unexplained),
                    404 | 405 => misconfigured,
                    _ => later,
                },
                "Apple gave a reason that this version of fpush does not know. Look for it on Apple's page \"Handling \
                 notification responses from APNs\", and for a newer version of fpush.",
            ),
            // Not Apple's words, but those of something in between, which knows nothing of the token.
            Reason::Unreadable => (
                "unreadable",
                match self.status.as_u16() {
                    401 | 403 | 407 => refused,
                    404 | 405 => misconfigured,
                    413 => Remedy::Module(PushError::TooLarge),
                    _ => later,
                },
                "The answer is not in Apple's form, so it is probably not Apple's. Check endpoint, HTTPS_PROXY and \
                 every other host between this machine and Apple.",
            ),
        };
        Entry {
            name,
            remedy,
            meaning,
        }
    }

    /// Whether Apple blames nothing but the token: for one that cannot exist, that means that all the rest is
    /// right. A topic that is not the credentials' gets `DeviceTokenNotForTopic`, which is
    /// therefore not one of these.
    pub(crate) fn blames_only_the_token(&self) -> bool {
        match self.entry().remedy {
            Remedy::Module(PushError::TokenGone { .. } | PushError::TokenDoubted) => true,
            Remedy::Module(_)
            | Remedy::Reconnect
            | Remedy::ReconnectLater
            | Remedy::RenewToken
            | Remedy::RenewTokenIfClockJumped => false,
        }
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        let status = self.status.as_u16();
        match &self.reason {
            Reason::Unknown(name) => format!("{status} with the unknown reason {name}"),
            Reason::Unreadable => format!("{status} without a readable reason"),
            _ => format!("{status} {}", self.entry().name),
        }
    }
}

/// A time in milliseconds, whatever its type. What is none says nothing, and takes nothing away from the reason.
fn milliseconds(timestamp: &Value) -> Option<u64> {
    let float = match timestamp {
        Value::Number(number) => match number.as_u64() {
            Some(whole) => return Some(whole),
            None => number.as_f64()?,
        },
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let whole = Duration::try_from_secs_f64(float / 1_000.0).ok()?;
    u64::try_from(whole.as_millis()).ok()
}

impl Reason {
    fn from_name(name: &str) -> Self {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map_or_else(
            || Self::Unknown(name.chars().filter(char::is_ascii_alphabetic).take(40).collect()),
            |(_, reason)| reason.clone(),
        )
    }
}

/// Every name that a reason has on the wire.
const NAMES: &[(&str, Reason)] = &[
    ("BadCertificate", Reason::BadCertificate),
    ("BadCertificateEnvironment", Reason::BadCertificateEnvironment),
    ("BadCollapseId", Reason::BadCollapseId),
    ("BadDeviceToken", Reason::BadDeviceToken),
    // The first is documented, the second is what has been seen.
    ("BadEnvironmentKeyIdInToken", Reason::BadEnvironmentKey),
    ("BadEnvironmentKeyInToken", Reason::BadEnvironmentKey),
    ("BadExpirationDate", Reason::BadExpirationDate),
    ("BadMessageId", Reason::BadMessageId),
    ("BadPath", Reason::BadPath),
    ("BadPriority", Reason::BadPriority),
    ("BadTopic", Reason::BadTopic),
    ("DeviceTokenNotForTopic", Reason::DeviceTokenNotForTopic),
    ("DuplicateHeaders", Reason::DuplicateHeaders),
    ("ExpiredProviderToken", Reason::ExpiredProviderToken),
    ("ExpiredToken", Reason::ExpiredToken),
    ("Forbidden", Reason::Forbidden),
    ("IdleTimeout", Reason::IdleTimeout),
    ("InternalServerError", Reason::InternalServerError),
    ("InvalidProviderToken", Reason::InvalidProviderToken),
    ("InvalidPushType", Reason::InvalidPushType),
    ("MethodNotAllowed", Reason::MethodNotAllowed),
    ("MissingDeviceToken", Reason::MissingDeviceToken),
    ("MissingProviderToken", Reason::MissingProviderToken),
    ("MissingTopic", Reason::MissingTopic),
    ("PayloadEmpty", Reason::PayloadEmpty),
    ("PayloadTooLarge", Reason::PayloadTooLarge),
    ("ServiceUnavailable", Reason::ServiceUnavailable),
    ("Shutdown", Reason::Shutdown),
    ("TooManyProviderTokenUpdates", Reason::TooManyProviderTokenUpdates),
    ("TooManyRequests", Reason::TooManyRequests),
    ("TopicDisallowed", Reason::TopicDisallowed),
    ("Unregistered", Reason::Unregistered),
    ("UnrelatedKeyIdInToken", Reason::UnrelatedKeyId),
];

/// After our credentials were refused: long enough to avoid useless requests, short enough to notice the
/// operator's correction at Apple's side.
pub(crate) const CREDENTIALS_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, reason: &str) -> Refusal {
        let body = format!(r#"{{"reason":"{reason}"}}"#);
        Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None)
    }

    fn remedy(status: u16, reason: &str) -> Remedy {
        refused(status, reason).entry().remedy
    }

    fn module(status: u16, reason: &str) -> PushError {
        match remedy(status, reason) {
            Remedy::Module(error) => error,
            other => panic!("{other:?}"),
        }
    }

    macro_rules! answers {
        ($($name:ident: $status:literal $reason:literal => $error:pat,)*) => {
            $(#[test]
            fn $name() {
                let error = module($status, $reason);
                assert!(matches!(error, $error), "{error:?}");
            })*
        };
    }

    answers! {
        bad_certificate: 403 "BadCertificate" => PushError::Pause { alarm: true, .. },
        bad_certificate_environment: 403 "BadCertificateEnvironment" => PushError::Pause { alarm: true, .. },
        bad_collapse_id: 400 "BadCollapseId" => PushError::Misconfigured,
        bad_device_token: 400 "BadDeviceToken" => PushError::TokenDoubted,
        bad_environment_key_documented: 403 "BadEnvironmentKeyIdInToken" => PushError::Pause { alarm: true, .. },
        bad_environment_key_seen: 403 "BadEnvironmentKeyInToken" => PushError::Pause { alarm: true, .. },
        bad_expiration_date: 400 "BadExpirationDate" => PushError::Misconfigured,
        bad_message_id: 400 "BadMessageId" => PushError::Misconfigured,
        bad_path: 404 "BadPath" => PushError::Misconfigured,
        bad_priority: 400 "BadPriority" => PushError::Misconfigured,
        bad_topic: 400 "BadTopic" => PushError::Misconfigured,
        device_token_not_for_topic: 400 "DeviceTokenNotForTopic" => PushError::TokenOfAnotherApp,
        duplicate_headers: 400 "DuplicateHeaders" => PushError::Misconfigured,
        expired_token: 410 "ExpiredToken" => PushError::TokenGone { since: None },
        forbidden: 403 "Forbidden" => PushError::Misconfigured,
        internal_server_error: 500 "InternalServerError" => PushError::Later { after: None },
        invalid_push_type: 400 "InvalidPushType" => PushError::Misconfigured,
        method_not_allowed: 405 "MethodNotAllowed" => PushError::Misconfigured,
        missing_device_token: 400 "MissingDeviceToken" => PushError::Misconfigured,
        missing_provider_token: 403 "MissingProviderToken" => PushError::Pause { alarm: true, .. },
        missing_topic: 400 "MissingTopic" => PushError::Misconfigured,
        payload_empty: 400 "PayloadEmpty" => PushError::Misconfigured,
        payload_too_large: 413 "PayloadTooLarge" => PushError::TooLarge,
        service_unavailable: 503 "ServiceUnavailable" => PushError::Later { after: None },
        too_many_provider_token_updates: 429 "TooManyProviderTokenUpdates" => PushError::Pause { alarm: true, .. },
        too_many_requests: 429 "TooManyRequests" => PushError::TokenBusy,
        topic_disallowed: 400 "TopicDisallowed" => PushError::Misconfigured,
        unregistered: 410 "Unregistered" => PushError::TokenGone { since: None },
        unrelated_key_id: 403 "UnrelatedKeyIdInToken" => PushError::Pause { alarm: true, .. },
        unknown_400: 400 "NewFangled" => PushError::Unexplained,
        unknown_403: 403 "NewFangled" => PushError::Pause { alarm: true, .. },
        unknown_404: 404 "NewFangled" => PushError::Misconfigured,
        unknown_410: 410 "NewFangled" => PushError::TokenDoubted,
        unknown_413: 413 "NewFangled" => PushError::TooLarge,
        unknown_429: 429 "NewFangled" => PushError::TokenBusy,
        unknown_500: 500 "NewFangled" => PushError::Later { after: None },
        unknown_302: 302 "NewFangled" => PushError::Later { after: None },
    }

    #[test]
    fn idle_timeout() {
        assert_eq!(remedy(400, "IdleTimeout"), Remedy::Reconnect);
    }

    #[test]
    fn shutdown() {
        assert_eq!(remedy(503, "Shutdown"), Remedy::ReconnectLater);
    }

    #[test]
    fn invalid_provider_token() {
        assert_eq!(
            remedy(403, "InvalidProviderToken"),
            Remedy::RenewTokenIfClockJumped
        );
    }

    #[test]
    fn expired_provider_token() {
        assert_eq!(remedy(403, "ExpiredProviderToken"), Remedy::RenewToken);
    }

    #[test]
    fn every_name_in_the_list_is_known_and_goes_into_metrics() {
        for (name, reason) in NAMES {
            assert_eq!(Reason::from_name(name), *reason);
            let shown = match *name {
                "BadEnvironmentKeyInToken" => "BadEnvironmentKeyIdInToken",
                name => name,
            };
            assert_eq!(refused(400, name).entry().name, shown);
            assert_eq!(refused(400, name).describe(), format!("400 {shown}"));
        }
        assert_eq!(refused(400, "NewFangled").entry().name, "unknown");
        let unreadable = Refusal::read(StatusCode::BAD_GATEWAY, b"<html>", None);
        assert_eq!(unreadable.entry().name, "unreadable");
    }

    #[test]
    fn every_reason_is_explained_in_whole_sentences() {
        let names = NAMES.iter().map(|(name, _)| *name).chain(["NewFangled"]);
        let unreadable = Refusal::read(StatusCode::BAD_GATEWAY, b"<html>", None);
        let refusals = names.map(|name| refused(400, name)).chain([unreadable]);
        let mut meanings: Vec<_> = refusals.map(|refusal| refusal.entry().meaning).collect();
        for meaning in &meanings {
            assert!((60..400).contains(&meaning.len()), "{meaning}");
            assert!(meaning.ends_with('.') && !meaning.contains("  "), "{meaning}");
        }
        meanings.sort_unstable();
        let all = meanings.len();
        meanings.dedup();
        assert_eq!(meanings.len(), all - 1, "one reason has two names");
    }

    #[test]
    fn credentials_are_good_if_the_token_alone_is_blamed() {
        let good = [
            (400, "BadDeviceToken"),
            (410, "Unregistered"),
            (410, "ExpiredToken"),
            (410, "NewFangled"),
        ];
        for (status, reason) in good {
            assert!(refused(status, reason).blames_only_the_token(), "{reason}");
        }
        let bad = [
            (400, "DeviceTokenNotForTopic"),
            (400, "TopicDisallowed"),
            (400, "NewFangled"),
            (403, "InvalidProviderToken"),
            (429, "TooManyRequests"),
        ];
        for (status, reason) in bad {
            assert!(!refused(status, reason).blames_only_the_token(), "{reason}");
        }
        assert!(!Refusal::read(StatusCode::GONE, b"<html>", None).blames_only_the_token());
    }

    #[test]
    fn the_time_of_death_is_kept() {
        let body = br#"{"reason":"Unregistered","timestamp":1454948015990}"#;
        let refusal = Refusal::read(StatusCode::GONE, body, None);
        assert_eq!(
            refusal.entry().remedy,
            Remedy::Module(PushError::TokenGone {
                since: Some(1_454_948_015_990)
            })
        );
        assert_eq!(refusal.describe(), "410 Unregistered");
    }

    #[test]
    fn a_timestamp_of_an_odd_type_takes_nothing_away_from_the_reason() {
        for (timestamp, since) in [
            ("1454948015990", Some(1_454_948_015_990)),
            ("1454948015990.0", Some(1_454_948_015_990)),
            ("1.45494801599e12", Some(1_454_948_015_990)),
            (r#""1454948015990""#, Some(1_454_948_015_990)),
            ("18446744073709551615", Some(u64::MAX)),
            ("0", Some(0)),
            ("1e300", None),
            ("-1", None),
            ("-9223372036854775808", None),
            (r#""NaN""#, None),
            (r#""inf""#, None),
            (r#""2016-02-08T16:13:35Z""#, None),
            (r#""""#, None),
            ("null", None),
            ("true", None),
            ("[1454948015990]", None),
            ("{}", None),
        ] {
            for body in [
                format!(r#"{{"reason":"Unregistered","timestamp":{timestamp}}}"#),
                format!(r#"{{"timestamp":{timestamp},"more":[{{}}],"reason":"Unregistered"}}"#),
            ] {
                let refusal = Refusal::read(StatusCode::GONE, body.as_bytes(), None);
                assert_eq!(
                    (refusal.reason, refusal.timestamp),
                    (Reason::Unregistered, since),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn a_reason_of_an_odd_type_is_none() {
        let deep = "[".repeat(100_000);
        for body in [
            r#"{"reason":7}"#,
            r#"{"reason":null}"#,
            r#"["Unregistered"]"#,
            r#""Unregistered""#,
            &deep,
        ] {
            let refusal = Refusal::read(StatusCode::GONE, body.as_bytes(), None);
            assert_eq!(refusal.reason, Reason::Unreadable);
        }
    }

    #[test]
    fn what_is_not_json_is_judged_by_its_status() {
        let wait = Some(Duration::from_secs(7));
        let refusal = Refusal::read(StatusCode::BAD_GATEWAY, b"<html>", wait);
        assert_eq!(
            refusal.entry().remedy,
            Remedy::Module(PushError::Later { after: wait })
        );
        assert_eq!(refusal.describe(), "502 without a readable reason");
    }

    #[test]
    fn what_is_not_json_never_blames_the_token() {
        for status in [400, 410, 429] {
            let refusal = Refusal::read(StatusCode::from_u16(status).unwrap(), b"<html>", None);
            assert_eq!(
                refusal.entry().remedy,
                Remedy::Module(PushError::Later { after: None }),
                "{status}"
            );
        }
    }

    #[test]
    fn an_unknown_reason_is_named_but_carries_no_token_into_the_log() {
        let body = format!(r#"{{"reason":"New Fangled {}"}}"#, "0123456789".repeat(7));
        let refusal = Refusal::read(StatusCode::BAD_REQUEST, body.as_bytes(), None);
        assert_eq!(refusal.describe(), "400 with the unknown reason NewFangled");
    }
}
