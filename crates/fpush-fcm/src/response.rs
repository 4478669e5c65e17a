//! What Google answers, and what must be done about it: the one table.

mod names;

use std::time::Duration;

use fpush_push::PushError;
use http::StatusCode;
use serde_json::Value;

use self::names::LONGEST_NAME;
pub(crate) use self::names::{FcmCode, Status};

/// Google's reasons: the code of the answer's `FcmError` where it has one, otherwise its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The `errorCode` of an `FcmError`.
    Fcm(FcmCode),
    /// There is no `FcmError`, as in the answers of Google's front: the `status` of the error.
    Status(Status),
    /// No error of Google's: HTML, nothing, or JSON of somebody else.
    Unreadable,
}

/// Which part of the request an answer blames (`google.rpc.BadRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// No part.
    Nothing,
    /// The device's token or installation ID, and nothing else. This is what Google said of a malformed token for years; today it
    /// mostly leaves the detail out.
    Token,
    /// Something that comes from the settings or from us: the first such field.
    Field(String),
}

/// Whose quota is used up (`google.rpc.QuotaFailure`, and what the error says in words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// That of this device.
    Device,
    /// The project's.
    Project,
    /// Nobody says whose, or there is nothing about quotas.
    Unsaid,
}

/// An answer other than 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    pub(crate) blame: Blame,
    pub(crate) quota: Quota,
    /// Google says that the message is too big: a special case of `INVALID_ARGUMENT` without a code of its own.
    pub(crate) too_big: bool,
    /// It was Apple's push service behind Google that refused (`ApnsError`).
    pub(crate) from_apple: bool,
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
    /// The access token is not good any more: renew it, then try again at once.
    RenewToken,
    /// The access token's owner may not do this: perhaps the token is older than the permission. Renew it,
    /// then try again at once; if it is quite new, only the operator can help.
    RenewTokenOnce,
}

impl Refusal {
    pub(crate) fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        // Google's front sometimes wraps the answer into a list.
        let error = &body.get(0).unwrap_or(&body)["error"];
        let details = || all(&error["details"]);
        let detail = |name: &'static str| {
            details().filter(move |detail| detail["@type"].as_str().is_some_and(|kind| kind.ends_with(name)))
        };
        let fcm_code = detail("google.firebase.fcm.v1.FcmError").find_map(|fcm| fcm["errorCode"].as_str());
        let reason = match (fcm_code, error["status"].as_str()) {
            (Some(code), _) => Reason::Fcm(FcmCode::from_name(code)),
            (None, Some(name)) => Reason::Status(Status::from_name(name)),
            // An error of Google's whose name is missing, or no text.
            (None, None) if is_code(&error["code"], status) => Reason::Status(Status::of_http(status)),
            (None, None) => Reason::Unreadable,
        };
        let message = error["message"].as_str().unwrap_or_default();
        Self {
            status,
            reason,
            blame: Blame::find(detail("google.rpc.BadRequest")),
            quota: Quota::find(detail("google.rpc.QuotaFailure"), message),
            too_big: message.contains("too big"),
            from_apple: detail("google.firebase.fcm.v1.ApnsError").next().is_some(),
            retry_after,
        }
    }

    /// The table.
    pub(crate) fn entry(&self) -> Entry {
        let misconfigured = Remedy::Module(PushError::Misconfigured);
        let (name, (remedy, meaning)) = match &self.reason {
            Reason::Fcm(code) => {
                let row = match code {
                    FcmCode::Unregistered => (
                        Remedy::Module(PushError::TokenGone { since: None }),
                        "The app was removed from the device, or got a new token. The server of a publish is told so, \
                         and forgets the device.",
                    ),
                    FcmCode::SenderIdMismatch => (
                        Remedy::Module(PushError::TokenOfAnotherApp),
                        "The file of fcmSecretPath belongs to another Firebase project than the app. Get it in the \
                         Firebase console of the project whose google-services.json the app was built with, under \
                         Project settings, Service accounts; if only some devices meet this, their apps name the wrong \
                         pushModule.",
                    ),
                    FcmCode::InvalidArgument => self.invalid_argument(PushError::TokenDoubted, MALFORMED),
                    FcmCode::QuotaExceeded => self.quota_exceeded(),
                    FcmCode::Unavailable | FcmCode::Internal => (self.later(), UNWELL),
                    // About this device's platform (Apple's or the browser's push service behind Google): the owner
                    // of such a token must neither stop all others nor raise an alarm by publishing to it.
                    FcmCode::ThirdPartyAuthError => (
                        Remedy::Module(PushError::TokenUnserved),
                        "The token is one of an iOS or a web app, and Google may not send to that platform for this \
                         project. If the app means to get such pushes through Google, set its APNs key or web push \
                         certificate in the Firebase console, under Project settings, Cloud Messaging.",
                    ),
                    FcmCode::Unspecified => (
                        Remedy::Module(PushError::Unexplained),
                        "Google refuses the push and says itself that it does not know why. If many devices meet this, \
                         look at status.firebase.google.com.",
                    ),
                    FcmCode::Unknown(_) => (self.by_status(PushError::Unexplained), UNKNOWN),
                };
                (code.name(), row)
            }
            Reason::Status(status) => {
                let row = match status {
                    Status::InvalidArgument => self.invalid_argument(PushError::Misconfigured, OUR_FAULT),
                    Status::Unauthenticated => (
                        Remedy::RenewToken,
                        "Google does not take the access token, and another one is asked for. If this goes on, check the \
                         clock of this machine and, in the Google Cloud console under IAM & Admin, Service Accounts, \
                         that the account and its key are enabled.",
                    ),
                    Status::PermissionDenied => (Remedy::RenewTokenOnce, FORBIDDEN),
                    Status::ResourceExhausted => self.quota_exceeded(),
                    Status::NotFound => (misconfigured, NO_PROJECT),
                    Status::AlreadyExists
                    | Status::FailedPrecondition
                    | Status::OutOfRange
                    | Status::Unimplemented => (misconfigured, OUR_FAULT),
                    Status::Aborted
                    | Status::Cancelled
                    | Status::DataLoss
                    | Status::DeadlineExceeded
                    | Status::Internal
                    | Status::Unavailable => (self.later(), UNWELL),
                    Status::Unknown(_) => (self.by_status(PushError::Misconfigured), UNKNOWN),
                };
                (status.name(), row)
            }
            Reason::Unreadable => (
                "unreadable",
                (
                    self.by_status(PushError::Misconfigured),
                    "The answer is not in Google's form. With 404 the project_id in the file of fcmSecretPath is none \
                     that Google knows; otherwise check endpoint, HTTPS_PROXY and every other host between this \
                     machine and Google.",
                ),
            ),
        };
        Entry {
            name,
            remedy,
            meaning,
        }
    }

    /// Whether Google blames nothing but the token: for one that cannot exist, that means that all the rest is
    /// right.
    pub(crate) fn blames_only_the_token(&self) -> bool {
        match self.entry().remedy {
            Remedy::Module(PushError::TokenGone { .. }) => true,
            // Others may be about the project.
            Remedy::Module(PushError::TokenDoubted) => {
                self.blame == Blame::Token || self.reason == Reason::Fcm(FcmCode::InvalidArgument)
            }
            Remedy::Module(_) | Remedy::RenewToken | Remedy::RenewTokenOnce => false,
        }
    }

    /// Whether it may be the token or something that the settings have put into the message.
    pub(crate) fn may_be_about_the_message(&self) -> bool {
        let blames_nothing = self.blame == Blame::Nothing && !self.too_big && !self.from_apple;
        self.reason == Reason::Fcm(FcmCode::InvalidArgument) && blames_nothing
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        let status = self.status.as_u16();
        let reason = match &self.reason {
            Reason::Fcm(FcmCode::Unknown(name)) => format!("with the unknown code {name}"),
            Reason::Status(Status::Unknown(name)) => format!("with the unknown status {name}"),
            Reason::Unreadable => "without a readable error".to_owned(),
            Reason::Fcm(_) | Reason::Status(_) => self.entry().name.to_owned(),
        };
        match (&self.blame, self.quota) {
            (Blame::Field(field), _) => format!("{status} {reason} at {field}"),
            (Blame::Token, _) => format!("{status} {reason} at the token"),
            (Blame::Nothing, Quota::Device) => format!("{status} {reason} for this device"),
            (Blame::Nothing, Quota::Project | Quota::Unsaid) => format!("{status} {reason}"),
        }
    }

    /// The token's fault, our fault, or, if Google blames nothing in particular, `unblamed`: FCM itself means
    /// the token, its front means the request.
    fn invalid_argument(&self, unblamed: PushError, meaning: &'static str) -> (Remedy, &'static str) {
        let (error, meaning) = match self.blame {
            _ if self.too_big => (PushError::TooLarge, TOO_LARGE),
            // Its reasons are about this project's APNs key, the app's bundle ID or the message: none is the device's end.
            _ if self.from_apple => (PushError::TokenUnserved, APPLES),
            Blame::Nothing => (unblamed, meaning),
            Blame::Token => (PushError::TokenDoubted, MALFORMED),
            Blame::Field(_) => (PushError::Misconfigured, OUR_FAULT),
        };
        (Remedy::Module(error), meaning)
    }

    fn quota_exceeded(&self) -> (Remedy, &'static str) {
        let length = self.retry_after.unwrap_or(QUOTA_PAUSE).max(SHORTEST_PAUSE);
        let (error, meaning) = match self.quota {
            Quota::Device => (
                PushError::TokenBusy,
                "This device gets more pushes than Google lets through, and is left alone for a while. If many devices \
                 meet this, make ratelimit stricter.",
            ),
            Quota::Project => (
                PushError::Pause { length, alarm: false },
                "The project has used up its quota of messages a minute, and nothing is sent for as long as Google \
                 asks. If it happens often, ask for more in the Google Cloud console, under Firebase Cloud Messaging \
                 API, Quotas.",
            ),
            Quota::Unsaid => (
                PushError::TooMany { pause: length },
                "Google wants fewer pushes and does not say whether for this device or for the project. The device is \
                 left alone for a while; if several devices of several domains meet this, nothing is sent for as long \
                 as Google asks. If that happens often, ask for more in the Google Cloud console, under Firebase \
                 Cloud Messaging API, Quotas.",
            ),
        };
        (Remedy::Module(error), meaning)
    }

    fn later(&self) -> Remedy {
        Remedy::Module(PushError::Later {
            after: Some(self.retry_after.unwrap_or(OUTAGE_PAUSE).max(SHORTEST_PAUSE)),
        })
    }

    /// What the HTTP status alone says; `bad_request` is what a 400 then means.
    fn by_status(&self, bad_request: PushError) -> Remedy {
        match self.status.as_u16() {
            400 => Remedy::Module(bad_request),
            401 => Remedy::RenewToken,
            403 => Remedy::RenewTokenOnce,
            // A wrong project or a wrong endpoint: a dead token has a code of its own.
            404 | 405 | 410 => Remedy::Module(PushError::Misconfigured),
            413 => Remedy::Module(PushError::TooLarge),
            429 => self.quota_exceeded().0,
            _ => self.later(),
        }
    }
}

/// Whether this is the HTTP status, as a number or as text.
fn is_code(code: &Value, status: StatusCode) -> bool {
    *code == status.as_u16() || *code == *status.as_str()
}

/// The elements of a list; a value that is not a list is its own only element.
fn all(list: &Value) -> impl Iterator<Item = &Value> {
    let (many, one) = match list {
        Value::Array(many) => (many.as_slice(), None),
        Value::Object(_) => (Default::default(), Some(list)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (Default::default(), None),
    };
    many.iter().chain(one)
}

impl Blame {
    fn find<'a>(bad_requests: impl Iterator<Item = &'a Value>) -> Self {
        let mut blame = Self::Nothing;
        for bad_request in bad_requests {
            let mut fields = all(&bad_request["fieldViolations"])
                .map(|violation| violation["field"].as_str().unwrap_or_default())
                .peekable();
            if fields.peek().is_none() {
                return Self::Field("an unnamed field".to_owned());
            }
            if let Some(other) = fields.find(|field| !DEVICE_FIELDS.contains(field)) {
                let named = other
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
                return Self::Field(named.take(LONGEST_NAME).collect());
            }
            blame = Self::Token;
        }
        blame
    }
}

impl Quota {
    /// Google names the limits "device message rate", "topic message rate" and "message rate" (of the project), and its
    /// front those of projects, with the project's number.
    fn find<'a>(quota_failures: impl Iterator<Item = &'a Value>, message: &str) -> Self {
        let mut quota = Self::named(message);
        for violation in quota_failures.flat_map(|failure| all(&failure["violations"])) {
            let texts = QUOTA_FIELDS.iter().filter_map(|field| violation[field].as_str());
            for named in texts.map(Self::named) {
                quota = match (quota, named) {
                    // A device's quota is one of its project, which may be named beside it.
                    (Self::Device, _) | (_, Self::Device) => Self::Device,
                    (Self::Project, _) | (_, Self::Project) => Self::Project,
                    (Self::Unsaid, Self::Unsaid) => Self::Unsaid,
                };
            }
        }
        quota
    }

    fn named(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        if text.contains("device") {
            Self::Device
        } else if text.contains("project") {
            Self::Project
        } else {
            Self::Unsaid
        }
    }
}

/// The fields of a violated quota that may say whose it is.
const QUOTA_FIELDS: [&str; 4] = ["subject", "description", "quotaMetric", "quotaId"];

/// The fields of a message that name the device.
const DEVICE_FIELDS: [&str; 2] = ["message.token", "message.fid"];

const MALFORMED: &str = "Google cannot read the token: the app registered something that is neither an FCM token nor a Firebase \
     installation ID. If many devices meet this, look at what the app sends as its node, and at target.";
const APPLES: &str = "The token is one of an iOS app, and Apple refused what Google passed on. Check what fcm.apns says, and in the Firebase \
     console, under Project settings, Cloud Messaging, the APNs key and the app's bundle ID. The device is left alone for \
     a while.";
const OUR_FAULT: &str = "Google does not take the message; the token is not the cause. The answer names the field if there is one: \
     check ttl, collapseKey and additionalData, for an installation ID target, and otherwise report it as a mistake \
     of fpush.";
const TOO_LARGE: &str =
    "The push is larger than Google takes, and goes out again with less. Shorten additionalData.";
const NO_PROJECT: &str = "Google does not know the project of the file in fcmSecretPath: it was deleted, or the file is of another \
     Google than the one at endpoint. Get a new file in the Firebase console, under Project settings, Service \
     accounts.";
const FORBIDDEN: &str = "The service account may not send. Either \"Firebase Cloud Messaging API (V1)\" is off (switch it on in \
     the Firebase console, under Project settings, Cloud Messaging), or the account lacks the role \"Firebase \
     Cloud Messaging API Admin\" (give it one in the Google Cloud console, under IAM).";
const UNWELL: &str = "Google has a problem of its own. The push is repeated; if it goes on, look at status.firebase.google.com.";
const UNKNOWN: &str = "Google gave a reason that this version of fpush does not know. Look for it on Google's page \"ErrorCode\" \
     of the FCM reference, and for a newer version of fpush.";

/// What Google asks for where a 429 does not say how long to wait ("Scale FCM").
const QUOTA_PAUSE: Duration = Duration::from_secs(60);
/// What Google asks for after a 5xx that does not say how long to wait.
const OUTAGE_PAUSE: Duration = Duration::from_secs(10);
/// A `Retry-After` of zero, or of a date that is over, must not become a storm.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fcm_error(code: &str) -> Value {
        json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code })
    }

    fn bad_request(fields: &[&str]) -> Value {
        let violations: Vec<_> = fields
            .iter()
            .map(|field| json!({ "field": field, "description": "Invalid value" }))
            .collect();
        json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations })
    }

    fn quota_failure(subject: &str, description: &str) -> Value {
        quota_failures(&json!({ "subject": subject, "description": description }))
    }

    fn quota_violation(field: &str, value: &str) -> Value {
        quota_failures(&json!({ field: value }))
    }

    fn quota_failures(violation: &Value) -> Value {
        json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation] })
    }

    fn help() -> Value {
        json!({ "@type": "type.googleapis.com/google.rpc.Help", "links": [{ "url": "https://example.org" }] })
    }

    fn body(status: &str, details: &[Value]) -> String {
        let error = json!({ "code": 0, "message": "Request contains an invalid argument.", "status": status,
            "details": details });
        json!({ "error": error }).to_string()
    }

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None)
    }

    macro_rules! answers {
        ($($name:ident: $status:literal $reason:literal $details:expr => $remedy:pat,)*) => {
            $(#[test]
            fn $name() {
                let details: &[Value] = &$details;
                let remedy = read($status, &body($reason, details)).entry().remedy;
                assert!(matches!(remedy, $remedy), "{remedy:?}");
            })*
        };
    }

    macro_rules! bodies {
        ($($name:ident: $status:literal $body:expr => $remedy:pat,)*) => {
            $(#[test]
            fn $name() {
                let remedy = read($status, $body).entry().remedy;
                assert!(matches!(remedy, $remedy), "{remedy:?}");
            })*
        };
    }

    const TEN_SECONDS: Duration = Duration::from_secs(10);
    const A_MINUTE: Duration = Duration::from_secs(60);
    const HTML: &str = "<html><title>Error 502 (Server Error)!!1</title></html>";

    fn apns_error(reason: &str) -> Value {
        json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.ApnsError", "statusCode": 400, "reason": reason })
    }

    answers! {
        invalid_argument_of_apples_push_service:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), apns_error("DeviceTokenNotForTopic")]
            => Remedy::Module(PushError::TokenUnserved),
        unregistered_at_apples_push_service:
            404 "NOT_FOUND" [fcm_error("UNREGISTERED"), apns_error("Unregistered")]
            => Remedy::Module(PushError::TokenGone { since: None }),
        unregistered: 404 "NOT_FOUND" [fcm_error("UNREGISTERED")]
            => Remedy::Module(PushError::TokenGone { since: None }),
        not_found_is_a_wrong_project: 404 "NOT_FOUND" [] => Remedy::Module(PushError::Misconfigured),
        invalid_argument_is_the_token: 400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT")]
            => Remedy::Module(PushError::TokenDoubted),
        invalid_argument_at_the_token:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), bad_request(&["message.token"])]
            => Remedy::Module(PushError::TokenDoubted),
        invalid_argument_at_the_token_without_a_code: 400 "INVALID_ARGUMENT" [bad_request(&["message.token"])]
            => Remedy::Module(PushError::TokenDoubted),
        invalid_argument_at_the_installation_id:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), bad_request(&["message.fid"])]
            => Remedy::Module(PushError::TokenDoubted),
        invalid_argument_at_the_installation_id_without_a_code:
            400 "INVALID_ARGUMENT" [bad_request(&["message.fid", "message.token"])]
            => Remedy::Module(PushError::TokenDoubted),
        invalid_argument_at_more_than_the_installation_id:
            400 "INVALID_ARGUMENT" [bad_request(&["message.fid", "message"])]
            => Remedy::Module(PushError::Misconfigured),
        invalid_argument_with_bad_request:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), bad_request(&["message.android.ttl"])]
            => Remedy::Module(PushError::Misconfigured),
        invalid_argument_at_more_than_the_token:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), bad_request(&["message.token", "message.data"])]
            => Remedy::Module(PushError::Misconfigured),
        invalid_argument_with_an_empty_bad_request:
            400 "INVALID_ARGUMENT" [fcm_error("INVALID_ARGUMENT"), bad_request(&[])]
            => Remedy::Module(PushError::Misconfigured),
        invalid_argument_without_a_code: 400 "INVALID_ARGUMENT" [] => Remedy::Module(PushError::Misconfigured),
        sender_id_mismatch: 403 "PERMISSION_DENIED" [fcm_error("SENDER_ID_MISMATCH")]
            => Remedy::Module(PushError::TokenOfAnotherApp),
        permission_denied: 403 "PERMISSION_DENIED" [help()] => Remedy::RenewTokenOnce,
        unauthenticated: 401 "UNAUTHENTICATED" [] => Remedy::RenewToken,
        third_party_auth_error: 401 "UNAUTHENTICATED" [fcm_error("THIRD_PARTY_AUTH_ERROR")]
            => Remedy::Module(PushError::TokenUnserved),
        quota_exceeded_of_the_device:
            429 "RESOURCE_EXHAUSTED"
            [quota_failure("token", "Device message rate exceeded"), fcm_error("QUOTA_EXCEEDED")]
            => Remedy::Module(PushError::TokenBusy),
        quota_exceeded_of_the_device_by_subject:
            429 "RESOURCE_EXHAUSTED" [fcm_error("QUOTA_EXCEEDED"), quota_failure("device:1", "")]
            => Remedy::Module(PushError::TokenBusy),
        quota_exceeded_of_the_project:
            429 "RESOURCE_EXHAUSTED"
            [fcm_error("QUOTA_EXCEEDED"), quota_failure("project:1", "Message rate exceeded")]
            => Remedy::Module(PushError::Pause { length: A_MINUTE, alarm: false }),
        quota_exceeded_of_nobody_in_particular: 429 "RESOURCE_EXHAUSTED" [fcm_error("QUOTA_EXCEEDED")]
            => Remedy::Module(PushError::TooMany { pause: A_MINUTE }),
        quota_exceeded_of_a_message_rate: 429 "RESOURCE_EXHAUSTED"
            [fcm_error("QUOTA_EXCEEDED"), quota_failure("", "Message rate exceeded")]
            => Remedy::Module(PushError::TooMany { pause: A_MINUTE }),
        quota_exceeded_of_the_device_by_metric: 429 "RESOURCE_EXHAUSTED"
            [quota_violation("quotaMetric", "fcm.googleapis.com/device_messages"), quota_failure("projects/1", "")]
            => Remedy::Module(PushError::TokenBusy),
        quota_exceeded_of_the_device_by_id: 429 "RESOURCE_EXHAUSTED"
            [quota_violation("quotaId", "MessagesPerMinutePerDevicePerProject"), fcm_error("QUOTA_EXCEEDED")]
            => Remedy::Module(PushError::TokenBusy),
        quota_exceeded_of_the_project_by_id: 429 "RESOURCE_EXHAUSTED"
            [quota_violation("quotaId", "MessagesPerMinutePerProject")]
            => Remedy::Module(PushError::Pause { length: A_MINUTE, alarm: false }),
        resource_exhausted: 429 "RESOURCE_EXHAUSTED" []
            => Remedy::Module(PushError::TooMany { pause: A_MINUTE }),
        unavailable: 503 "UNAVAILABLE" [fcm_error("UNAVAILABLE")]
            => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        internal: 500 "INTERNAL" [fcm_error("INTERNAL")]
            => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        unspecified_error: 400 "INVALID_ARGUMENT" [fcm_error("UNSPECIFIED_ERROR")]
            => Remedy::Module(PushError::Unexplained),
        aborted: 409 "ABORTED" [] => Remedy::Module(PushError::Later { .. }),
        already_exists: 409 "ALREADY_EXISTS" [] => Remedy::Module(PushError::Misconfigured),
        cancelled: 499 "CANCELLED" [] => Remedy::Module(PushError::Later { .. }),
        data_loss: 500 "DATA_LOSS" [] => Remedy::Module(PushError::Later { .. }),
        deadline_exceeded: 504 "DEADLINE_EXCEEDED" [] => Remedy::Module(PushError::Later { .. }),
        failed_precondition: 400 "FAILED_PRECONDITION" [] => Remedy::Module(PushError::Misconfigured),
        internal_without_a_code: 500 "INTERNAL" [] => Remedy::Module(PushError::Later { .. }),
        out_of_range: 400 "OUT_OF_RANGE" [] => Remedy::Module(PushError::Misconfigured),
        unavailable_without_a_code: 503 "UNAVAILABLE" [] => Remedy::Module(PushError::Later { .. }),
        unimplemented: 501 "UNIMPLEMENTED" [] => Remedy::Module(PushError::Misconfigured),
        unknown_status_400: 400 "UNKNOWN" [] => Remedy::Module(PushError::Misconfigured),
        unknown_status_500: 500 "UNKNOWN" [] => Remedy::Module(PushError::Later { .. }),
        unknown_code_400: 400 "INVALID_ARGUMENT" [fcm_error("NEW_FANGLED")]
            => Remedy::Module(PushError::Unexplained),
        unknown_code_401: 401 "UNAUTHENTICATED" [fcm_error("NEW_FANGLED")] => Remedy::RenewToken,
        unknown_code_403: 403 "PERMISSION_DENIED" [fcm_error("NEW_FANGLED")] => Remedy::RenewTokenOnce,
        unknown_code_404: 404 "NOT_FOUND" [fcm_error("NEW_FANGLED")] => Remedy::Module(PushError::Misconfigured),
        unknown_code_429: 429 "RESOURCE_EXHAUSTED" [fcm_error("NEW_FANGLED")]
            => Remedy::Module(PushError::TooMany { .. }),
        unknown_code_503: 503 "UNAVAILABLE" [fcm_error("NEW_FANGLED")] => Remedy::Module(PushError::Later { .. }),
        the_code_is_found_behind_other_details: 404 "NOT_FOUND" [help(), json!(7), fcm_error("UNREGISTERED")]
            => Remedy::Module(PushError::TokenGone { .. }),
    }

    bodies! {
        bad_gateway_in_html: 502 HTML => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        service_unavailable_in_html: 503 HTML => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        gateway_timeout_without_a_body: 504 "" => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        internal_error_in_html: 500 HTML => Remedy::Module(PushError::Later { after: Some(TEN_SECONDS) }),
        redirection: 302 "" => Remedy::Module(PushError::Later { .. }),
        bad_request_in_html: 400 HTML => Remedy::Module(PushError::Misconfigured),
        unauthorized_in_html: 401 HTML => Remedy::RenewToken,
        forbidden_in_html: 403 HTML => Remedy::RenewTokenOnce,
        not_found_in_html: 404 HTML => Remedy::Module(PushError::Misconfigured),
        method_not_allowed: 405 "" => Remedy::Module(PushError::Misconfigured),
        gone: 410 "" => Remedy::Module(PushError::Misconfigured),
        payload_too_large: 413 "" => Remedy::Module(PushError::TooLarge),
        too_many_requests_in_html: 429 HTML => Remedy::Module(PushError::TooMany { pause: A_MINUTE }),
        quota_of_the_project_in_words: 429 r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
            "message":"Quota exceeded for quota metric 'Messages' and limit 'Messages per minute' for 'project_number:1'."}}"#
            => Remedy::Module(PushError::Pause { length: A_MINUTE, alarm: false }),
        quota_of_the_device_in_words: 429 r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
            "message":"Device message rate exceeded in project 1."}}"# => Remedy::Module(PushError::TokenBusy),
        json_of_somebody_else: 404 r#"{"error":"no such project"}"# => Remedy::Module(PushError::Misconfigured),
        json_of_wrong_types: 503 r#"{"error":{"status":7,"details":{"@type":[]}}}"#
            => Remedy::Module(PushError::Later { .. }),
        an_answer_in_a_list: 404 &format!("[{}]", body("NOT_FOUND", &[fcm_error("UNREGISTERED")]))
            => Remedy::Module(PushError::TokenGone { .. }),
        details_that_are_one: 404 r#"{"error":{"code":404,"status":"NOT_FOUND","details":
            {"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}}}"#
            => Remedy::Module(PushError::TokenGone { .. }),
        details_of_odd_types: 404 r#"{"error":{"code":"404","message":7,"status":["NOT_FOUND"],"details":[null,true,7,"x",[],
            {"@type":7,"errorCode":"x"},{"@type":"google.firebase.fcm.v1.FcmError","errorCode":7},
            {"@type":"google.rpc.BadRequest","fieldViolations":{"field":7}},
            {"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED","more":{}}]}}"#
            => Remedy::Module(PushError::TokenGone { .. }),
        a_field_violation_that_is_one: 400 r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":{"field":"message.fid"}}]}}"#
            => Remedy::Module(PushError::TokenDoubted),
        a_field_violation_without_a_status: 400 r#"{"error":{"code":"400","details":[
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.fid"}]}]}}"#
            => Remedy::Module(PushError::TokenDoubted),
        an_error_without_a_status: 429 r#"{"error":{"code":429,"status":7}}"#
            => Remedy::Module(PushError::TooMany { pause: A_MINUTE }),
        an_error_without_a_status_is_not_a_dead_token: 404 r#"{"error":{"code":404,"message":"Not found."}}"#
            => Remedy::Module(PushError::Misconfigured),
        an_error_about_another_status: 404 r#"{"error":{"code":403}}"# => Remedy::Module(PushError::Misconfigured),
        message_too_big: 400 r#"{"error":{"code":400,"message":"Android message is too big","status":"INVALID_ARGUMENT",
            "details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#
            => Remedy::Module(PushError::TooLarge),
        malformed_token_as_of_today: 400 r#"{"error":{"code":400,
            "message":"The registration token is not a valid FCM registration token","status":"INVALID_ARGUMENT",
            "details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#
            => Remedy::Module(PushError::TokenDoubted),
    }

    #[test]
    fn every_name_in_the_lists_is_known() {
        for (name, code) in FcmCode::NAMES {
            assert_eq!(FcmCode::from_name(name), code);
            assert_eq!(code.name(), name);
            let refusal = read(400, &body("INVALID_ARGUMENT", &[fcm_error(name)]));
            assert_eq!(refusal.entry().name, name);
        }
        for (name, status) in Status::NAMES {
            assert_eq!(Status::from_name(name), status);
            assert_eq!(status.name(), name);
            assert_eq!(read(400, &body(name, &[])).entry().name, name);
        }
        for unknown in [body("NEW", &[]), body("INTERNAL", &[fcm_error("NEW")])] {
            assert_eq!(read(500, &unknown).entry().name, "unknown");
        }
        assert_eq!(read(502, HTML).entry().name, "unreadable");
    }

    #[test]
    fn every_reason_is_explained_in_whole_sentences() {
        let codes = FcmCode::NAMES.map(|(name, _)| name).into_iter().chain(["NEW"]);
        let codes = codes.map(|name| body("INVALID_ARGUMENT", &[fcm_error(name)]));
        let statuses = Status::NAMES.map(|(name, _)| name).into_iter().chain(["NEW"]);
        let statuses = statuses.map(|name| body(name, &[]));
        let others = [
            HTML.to_owned(),
            body(
                "INVALID_ARGUMENT",
                &[fcm_error("INVALID_ARGUMENT"), bad_request(&["message.data"])],
            ),
            body("RESOURCE_EXHAUSTED", &[quota_failure("", "device message rate")]),
            r#"{"error":{"message":"Android message is too big","status":"INVALID_ARGUMENT"}}"#.to_owned(),
        ];
        for body in codes.chain(statuses).chain(others) {
            let meaning = read(400, &body).entry().meaning;
            assert!((60..400).contains(&meaning.len()), "{meaning}");
            assert!(meaning.ends_with('.') && !meaning.contains("  "), "{meaning}");
        }
    }

    #[test]
    fn credentials_are_good_if_the_token_alone_is_blamed() {
        let good = |status, reason: &str, details: &[Value]| {
            read(status, &body(reason, details)).blames_only_the_token()
        };
        let invalid = || fcm_error("INVALID_ARGUMENT");
        assert!(good(400, "INVALID_ARGUMENT", &[invalid()]));
        assert!(good(400, "INVALID_ARGUMENT", &[bad_request(&["message.token"])]));
        assert!(good(404, "NOT_FOUND", &[fcm_error("UNREGISTERED")]));
        assert!(!good(
            400,
            "INVALID_ARGUMENT",
            &[invalid(), bad_request(&["message.android.ttl"])]
        ));
        assert!(!good(400, "INVALID_ARGUMENT", &[]));
        assert!(!good(
            403,
            "PERMISSION_DENIED",
            &[fcm_error("SENDER_ID_MISMATCH")]
        ));
        for (status, reason) in [
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
        ] {
            assert!(!good(status, reason, &[]), "{reason}");
        }
        assert!(!read(410, HTML).blames_only_the_token());
    }

    #[test]
    fn retry_after_is_honoured_but_never_zero() {
        let after = |status: u16, seconds: u64| {
            let status = StatusCode::from_u16(status).unwrap();
            match Refusal::read(status, b"", Some(Duration::from_secs(seconds)))
                .entry()
                .remedy
            {
                Remedy::Module(
                    PushError::Later { after: Some(length) } | PushError::TooMany { pause: length },
                ) => length.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([after(503, 3), after(503, 120), after(503, 0)], [3, 120, 1]);
        assert_eq!([after(429, 3), after(429, 120), after(429, 0)], [3, 120, 1]);
    }

    #[test]
    fn the_log_names_what_google_said_but_nothing_that_could_be_a_token() {
        let describe =
            |status, reason: &str, details: &[Value]| read(status, &body(reason, details)).describe();
        assert_eq!(
            describe(404, "NOT_FOUND", &[fcm_error("UNREGISTERED")]),
            "404 UNREGISTERED"
        );
        assert_eq!(describe(403, "PERMISSION_DENIED", &[]), "403 PERMISSION_DENIED");
        assert_eq!(
            describe(400, "INVALID_ARGUMENT", &[bad_request(&["message.android.ttl"])]),
            "400 INVALID_ARGUMENT at message.android.ttl"
        );
        assert_eq!(
            describe(400, "INVALID_ARGUMENT", &[bad_request(&["message.token"])]),
            "400 INVALID_ARGUMENT at the token"
        );
        assert_eq!(
            describe(
                429,
                "RESOURCE_EXHAUSTED",
                &[quota_failure("", "device message rate")]
            ),
            "429 RESOURCE_EXHAUSTED for this device"
        );
        assert_eq!(read(502, HTML).describe(), "502 without a readable error");
        let long = format!("NEW FANGLED_{}", "0123456789:".repeat(7));
        assert_eq!(
            describe(400, "INVALID_ARGUMENT", &[fcm_error(&long)]),
            "400 with the unknown code NEWFANGLED_"
        );
        assert_eq!(
            describe(400, &long, &[]),
            "400 with the unknown status NEWFANGLED_"
        );
    }
}
