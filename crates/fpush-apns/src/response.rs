//! What Apple answers, and what must be done about it: the one table.

use std::{borrow::Cow, time::Duration};

use fpush_push::PushError;
use http::StatusCode;
use serde::Deserialize;

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
    /// One that is not in this list, cut and freed of what is no letter.
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
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    timestamp: Option<u64>,
}

impl Refusal {
    pub(crate) fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let (reason, timestamp) = match serde_json::from_slice::<Body<'_>>(body) {
            Ok(body) => (Reason::from_name(&body.reason), body.timestamp),
            Err(_) => (Reason::Unreadable, None),
        };
        Self {
            status,
            reason,
            timestamp,
            retry_after,
        }
    }

    /// The table.
    pub(crate) fn remedy(&self) -> Remedy {
        let credentials_refused = Remedy::Module(PushError::Pause {
            length: CREDENTIALS_PAUSE,
            alarm: true,
        });
        let later = Remedy::Module(PushError::Later {
            after: self.retry_after,
        });
        match self.reason {
            Reason::Unregistered | Reason::ExpiredToken => Remedy::Module(PushError::TokenGone {
                since: self.timestamp,
            }),
            Reason::BadDeviceToken | Reason::DeviceTokenNotForTopic => {
                Remedy::Module(PushError::TokenDoubted)
            }
            Reason::TooManyRequests => Remedy::Module(PushError::TokenBusy),
            Reason::IdleTimeout => Remedy::Reconnect,
            Reason::ExpiredProviderToken => Remedy::RenewToken,
            Reason::BadCertificate
            | Reason::BadCertificateEnvironment
            | Reason::BadEnvironmentKey
            | Reason::InvalidProviderToken
            | Reason::MissingProviderToken
            | Reason::UnrelatedKeyId
            | Reason::TooManyProviderTokenUpdates => credentials_refused,
            Reason::PayloadTooLarge => Remedy::Module(PushError::TooLarge),
            Reason::BadCollapseId
            | Reason::BadExpirationDate
            | Reason::BadMessageId
            | Reason::BadPath
            | Reason::BadPriority
            | Reason::BadTopic
            | Reason::DuplicateHeaders
            | Reason::Forbidden
            | Reason::InvalidPushType
            | Reason::MethodNotAllowed
            | Reason::MissingDeviceToken
            | Reason::MissingTopic
            | Reason::PayloadEmpty
            | Reason::TopicDisallowed => Remedy::Module(PushError::Misconfigured),
            Reason::InternalServerError | Reason::ServiceUnavailable => later,
            Reason::Shutdown => Remedy::ReconnectLater,
            Reason::Unknown(_) => match self.status.as_u16() {
                // What the status alone promises, with the doubt that an unknown reason deserves.
                410 => Remedy::Module(PushError::TokenDoubted),
                413 => Remedy::Module(PushError::TooLarge),
                429 => Remedy::Module(PushError::TokenBusy),
                401 | 403 | 407 => credentials_refused,
                400 => Remedy::Module(PushError::Unexplained),
                404 | 405 => Remedy::Module(PushError::Misconfigured),
                _ => later,
            },
            // Not Apple's words, but those of something in between, which knows nothing of the token.
            Reason::Unreadable => match self.status.as_u16() {
                401 | 403 | 407 => credentials_refused,
                404 | 405 => Remedy::Module(PushError::Misconfigured),
                413 => Remedy::Module(PushError::TooLarge),
                _ => later,
            },
        }
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        let status = self.status.as_u16();
        match &self.reason {
            Reason::Unknown(name) => format!("{status} with the unknown reason {name}"),
            Reason::Unreadable => format!("{status} without a readable reason"),
            known => format!("{status} {known:?}"),
        }
    }
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

/// After our credentials were refused: long enough not to knock in vain, short enough to notice the
/// operator's correction at Apple's side.
const CREDENTIALS_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(status: u16, reason: &str) -> Remedy {
        let body = format!(r#"{{"reason":"{reason}"}}"#);
        Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None).remedy()
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
        device_token_not_for_topic: 400 "DeviceTokenNotForTopic" => PushError::TokenDoubted,
        duplicate_headers: 400 "DuplicateHeaders" => PushError::Misconfigured,
        expired_token: 410 "ExpiredToken" => PushError::TokenGone { since: None },
        forbidden: 403 "Forbidden" => PushError::Misconfigured,
        internal_server_error: 500 "InternalServerError" => PushError::Later { after: None },
        invalid_provider_token: 403 "InvalidProviderToken" => PushError::Pause { alarm: true, .. },
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
    fn expired_provider_token() {
        assert_eq!(remedy(403, "ExpiredProviderToken"), Remedy::RenewToken);
    }

    #[test]
    fn every_name_in_the_list_is_known() {
        for (name, reason) in NAMES {
            assert_eq!(Reason::from_name(name), *reason);
        }
    }

    #[test]
    fn the_time_of_death_is_kept() {
        let body = br#"{"reason":"Unregistered","timestamp":1454948015990}"#;
        let refusal = Refusal::read(StatusCode::GONE, body, None);
        assert_eq!(
            refusal.remedy(),
            Remedy::Module(PushError::TokenGone {
                since: Some(1_454_948_015_990)
            })
        );
        assert_eq!(refusal.describe(), "410 Unregistered");
    }

    #[test]
    fn what_is_no_json_is_judged_by_its_status() {
        let wait = Some(Duration::from_secs(7));
        let refusal = Refusal::read(StatusCode::BAD_GATEWAY, b"<html>", wait);
        assert_eq!(refusal.remedy(), Remedy::Module(PushError::Later { after: wait }));
        assert_eq!(refusal.describe(), "502 without a readable reason");
    }

    #[test]
    fn what_is_no_json_never_blames_the_token() {
        for status in [400, 410, 429] {
            let refusal = Refusal::read(StatusCode::from_u16(status).unwrap(), b"<html>", None);
            assert_eq!(
                refusal.remedy(),
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
