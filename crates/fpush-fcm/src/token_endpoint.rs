//! Google's token endpoint: one request for one access token (RFC 6749 section 5, RFC 7523).
//!
//! No answer of the endpoint, of any form, gets further than here: the body has a bound, numbers are checked, the HTTP status
//! counts, and what is said about it are our own words, because an answer may hold what the log must not.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fpush_client::{Obstacle, PooledClient, SendError, Wanted};
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::assertion::Signer;

/// Where access tokens come from.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    pub(crate) client: PooledClient,
    pub(crate) uri: Uri,
    pub(crate) signer: Signer,
    pub(crate) request_timeout: Duration,
}

/// A token that was granted.
pub(crate) struct Granted {
    /// The value of the `authorization` header.
    pub(crate) authorization: HeaderValue,
    pub(crate) life: Duration,
}

/// Why the token endpoint gave no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the service account is refused (invalid_grant)")]
    Grant,
    #[error("the request is refused ({0})")]
    Refused(String),
    #[error("the request cannot be signed with the key of the service account")]
    Unsigned,
    #[error("the token endpoint has an outage ({0})")]
    Unwell(String),
    #[error("the token endpoint cannot be reached ({0})")]
    Unreachable(Obstacle),
    #[error("the token endpoint cannot be reached (the connection broke: {0})")]
    Broken(String),
    #[error("the token endpoint does not answer in time")]
    TimedOut,
    #[error("the token endpoint's answer holds no access token (status {0})")]
    Unreadable(u16),
    #[error("the token endpoint's answer cannot be read ({0})")]
    Malformed(String),
}

impl TokenEndpoint {
    /// Asks for a token.
    pub(crate) async fn ask(&self) -> Result<Granted, TokenError> {
        let assertion = self.signer.assertion(SystemTime::now());
        let assertion = assertion.map_err(|_| TokenError::Unsigned)?;
        let deadline = Instant::now() + self.request_timeout;
        let asking = self.client.send(self.request(&assertion), Wanted::Body, deadline);
        let answer = asking.await?;
        read(answer.status, &answer.body)
    }

    fn request(&self, assertion: &str) -> Request<Bytes> {
        // A JWT needs no escaping in a form.
        let mut request = Request::new(Bytes::from(format!("{GRANT_TYPE}&assertion={assertion}")));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        request.headers_mut().insert(ACCEPT, JSON);
        request
    }
}

/// What an answer grants, or why it grants nothing.
pub(crate) fn read(status: StatusCode, body: &[u8]) -> Result<Granted, TokenError> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(token) = body["access_token"].as_str()
        && status.is_success()
    {
        return Granted::new(token, life(&body["expires_in"])).ok_or(TokenError::Unreadable(status.as_u16()));
    }
    // The form of OAuth 2.0, or that of Google's other interfaces.
    let name = body["error"]
        .as_str()
        .or_else(|| body["error"]["status"].as_str());
    Err(match (status.as_u16(), name) {
        (_, Some("server_error" | "temporarily_unavailable" | "internal_failure"))
        | (408 | 429 | 500.., _) => {
            TokenError::Unwell(name.map_or_else(|| status.as_u16().to_string(), letters))
        }
        (200..=299 | 400..=499, Some("invalid_grant")) => TokenError::Grant,
        (200..=299 | 400..=499, Some(name)) => TokenError::Refused(letters(name)),
        (status, Some(_) | None) => TokenError::Unreadable(status),
    })
}

/// The seconds that a token lives, whatever their type. A value that is missing, over already or not a time counts as the
/// usual life: Google refuses a token that has run out, and then another one is asked for.
fn life(expires_in: &Value) -> Duration {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match seconds {
        Some(seconds) if seconds >= 1.0 => Duration::from_secs_f64(seconds.min(LONGEST_LIFE.as_secs_f64())),
        Some(_) | None => USUAL_LIFE,
    }
}

impl Granted {
    /// A token, unless it is none: empty, or with characters that no header may hold.
    pub(crate) fn new(token: &str, life: Duration) -> Option<Self> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        authorization.set_sensitive(true);
        Some(Self { authorization, life })
    }
}

impl TokenError {
    /// Whether Google has looked at what we sign with, and does not take it: it will not until somebody does something.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Grant | Self::Refused(_) | Self::Unsigned => true,
            Self::Unwell(_)
            | Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::Unreadable(_)
            | Self::Malformed(_) => false,
        }
    }

    /// What it means, and what the operator can do.
    pub(crate) fn meaning(&self) -> &'static str {
        match self {
            Self::Grant => {
                "Either the service account's key was deleted or disabled, or the clock of this machine is wrong: set \
                 the clock, or get a new file for fcmSecretPath in the Firebase console, under Project settings, Service \
                 accounts."
            }
            Self::Refused(_) => {
                "Google does not let this service account ask for access tokens. Check it in the Google Cloud console, \
                 under IAM & Admin, Service Accounts, and get a new file for fcmSecretPath."
            }
            Self::Unsigned => {
                "The private_key in the file of fcmSecretPath is not an RSA key that can be used. Get a new file in the \
                 Firebase console, under Project settings, Service accounts."
            }
            Self::Unwell(_) => {
                "Google's token endpoint has a problem of its own. It is asked again and again; if it goes on, look at \
                 status.cloud.google.com."
            }
            Self::Unreachable(obstacle) => obstacle.meaning(),
            Self::Broken(_) => {
                "The connection ended under the request, as connections do now and then. If it goes on, look at the \
                 firewall and the proxy on the way to the token endpoint."
            }
            Self::TimedOut => "Check the network, the firewall and HTTPS_PROXY, or raise requestTimeout.",
            Self::Unreadable(_) | Self::Malformed(_) => {
                "token_uri in the file of fcmSecretPath is not a token endpoint of Google's, or a proxy \
                 answers in its place: look at HTTPS_PROXY. Otherwise get a new file in the Firebase console, under Project \
                 settings, Service accounts."
            }
        }
    }

    /// What happened and what to do.
    pub(crate) fn in_words(&self) -> String {
        format!("{self}. {}", self.meaning())
    }
}

impl From<SendError> for TokenError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Broken(cause) => Self::Broken(cause),
            SendError::Unreachable(obstacle) => Self::Unreachable(obstacle),
            SendError::Malformed(cause) => Self::Malformed(cause),
            SendError::TimedOut => Self::TimedOut,
        }
    }
}

/// A name as the log may have it.
fn letters(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphabetic() || *c == '_')
        .take(LONGEST_NAME)
        .collect()
}

const GRANT_TYPE: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What Google's tokens live, for an answer that does not say it.
const USUAL_LIFE: Duration = Duration::from_secs(3_600);
/// A token that lives longer is renewed all the same.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
const LONGEST_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(status: u16, body: &str) -> TokenError {
        match read(StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
            Ok(_) => panic!("{status} {body}: granted"),
            Err(error) => error,
        }
    }

    fn granted(body: &Value) -> Granted {
        read(StatusCode::OK, body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_life_is_bounded_whatever_is_said_of_it() {
        let life = |expires_in: Value| {
            let granted = granted(&json!({ "access_token": "t", "expires_in": expires_in }));
            assert_eq!(granted.authorization, "Bearer t");
            assert!(granted.authorization.is_sensitive());
            granted.life.as_secs()
        };
        for (expires_in, seconds) in [
            (json!(3_599), 3_599),
            (json!(3_599.5), 3_599),
            (json!("3599"), 3_599),
            (json!(" 60.0 "), 60),
            (json!(1), 1),
            (json!(260_000_000_000_u64), 86_400),
            (json!(i64::MAX), 86_400),
            (json!(u64::MAX), 86_400),
            (json!(1e300), 86_400),
            (json!("1e999"), 86_400),
            (json!("inf"), 86_400),
            (json!(0), 3_600),
            (json!(0.5), 3_600),
            (json!(-1), 3_600),
            (json!(i64::MIN), 3_600),
            (json!(-1e300), 3_600),
            (json!("NaN"), 3_600),
            (json!("soon"), 3_600),
            (json!(null), 3_600),
            (json!(true), 3_600),
            (json!([3_599]), 3_600),
            (json!({ "seconds": 3_599 }), 3_600),
        ] {
            assert_eq!(life(expires_in.clone()), seconds, "{expires_in}");
        }
        assert_eq!(granted(&json!({ "access_token": "t" })).life, USUAL_LIFE);
    }

    #[test]
    fn the_status_counts() {
        const HTML: &str = "<html>s3cret</html>";
        for (status, body, expected) in [
            (
                400,
                r#"{"error":"invalid_grant","error_description":"s3cret"}"#,
                TokenError::Grant,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":7}"#,
                TokenError::Grant,
            ),
            (
                401,
                r#"{"error":"invalid_client"}"#,
                TokenError::Refused("invalid_client".into()),
            ),
            (
                400,
                r#"{"error":"org/internal 1"}"#,
                TokenError::Refused("orginternal".into()),
            ),
            (
                403,
                r#"{"error":{"code":"403","status":"PERMISSION_DENIED"}}"#,
                TokenError::Refused("PERMISSION_DENIED".into()),
            ),
            (
                400,
                r#"{"error":"server_error"}"#,
                TokenError::Unwell("server_error".into()),
            ),
            (
                500,
                r#"{"error":"internal_failure"}"#,
                TokenError::Unwell("internal_failure".into()),
            ),
            (
                503,
                r#"{"error":"invalid_grant"}"#,
                TokenError::Unwell("invalid_grant".into()),
            ),
            (
                429,
                r#"{"error":"rate_limit_exceeded"}"#,
                TokenError::Unwell("rate_limit_exceeded".into()),
            ),
            (502, HTML, TokenError::Unwell("502".into())),
            (503, "", TokenError::Unwell("503".into())),
            (429, HTML, TokenError::Unwell("429".into())),
            (
                502,
                r#"{"access_token":"s3cret","expires_in":3600}"#,
                TokenError::Unwell("502".into()),
            ),
            (200, HTML, TokenError::Unreadable(200)),
            (200, "", TokenError::Unreadable(200)),
            (200, "[]", TokenError::Unreadable(200)),
            (200, "{\"access_token\":\"s3cret", TokenError::Unreadable(200)),
            (200, r#"{"access_token":""}"#, TokenError::Unreadable(200)),
            (200, r#"{"access_token":"s3c\nret"}"#, TokenError::Unreadable(200)),
            (200, r#"{"access_token":["s3cret"]}"#, TokenError::Unreadable(200)),
            (200, r#"{"error":"invalid_grant"}"#, TokenError::Grant),
            (302, HTML, TokenError::Unreadable(302)),
            (302, r#"{"error":"invalid_grant"}"#, TokenError::Unreadable(302)),
            (403, HTML, TokenError::Unreadable(403)),
            (404, "", TokenError::Unreadable(404)),
            (400, r#"{"error":7}"#, TokenError::Unreadable(400)),
        ] {
            let error = error(status, body);
            assert_eq!(error, expected, "{status} {body}");
            assert!(!error.in_words().contains("s3c"), "{error}");
        }
    }

    #[test]
    fn every_error_is_explained() {
        let name = || "x".to_owned();
        for error in [
            TokenError::Grant,
            TokenError::Refused(name()),
            TokenError::Unsigned,
            TokenError::Unwell(name()),
            TokenError::Unreachable(Obstacle::ProxyRefuses(403)),
            TokenError::Broken(name()),
            TokenError::TimedOut,
            TokenError::Unreadable(302),
            TokenError::Malformed(name()),
        ] {
            let meaning = error.meaning();
            assert!(meaning.len() > 50 && meaning.ends_with('.'), "{meaning}");
            assert!(!error.in_words().contains("  "), "{error}");
        }
    }
}
