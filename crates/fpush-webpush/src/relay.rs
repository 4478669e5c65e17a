//! Notifications of Push 2.0: what the account's server has encrypted and signed goes to the push service as it is.
//!
//! Neither the keys nor the claims are ours, so what the push service says of them is nothing that speaks against a
//! subscription, and nothing that the operator could change.

use std::time::SystemTime;

use bytes::Bytes;
use fpush_client::{Wanted, retry_after};
use fpush_push::{Failure, Form, Notification, Priority, Push, PushError, Signature};
use http::{
    HeaderValue, Method, Request,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use tokio::time::Instant;

use crate::{
    backend::{Backend, TTL, URGENCY, unusable},
    encoding::encode,
    endpoint::Endpoint,
    response::Refusal,
    service::Standing,
    vapid::Claims,
};

/// Who answers for it towards the push service.
enum Signed<'a> {
    /// The account's server.
    ByServer(&'a Signature),
    /// We, because nobody else did.
    ByUs(Claims),
}

impl Backend {
    /// Makes one attempt to pass a notification on.
    pub(crate) async fn relay(&self, push: &Push, notification: &Notification) -> Result<(), Failure> {
        let endpoint = self.allowed.endpoint(push.token.as_str());
        let endpoint =
            endpoint.ok_or_else(|| unusable("the settings do not allow this endpoint any more"))?;
        let now = SystemTime::now();
        let signed = match &notification.signature {
            Some(signature) => Signed::ByServer(signature),
            None => {
                let claims = self.vapid.claims(&endpoint, now);
                Signed::ByUs(claims.map_err(|_| unusable("the claims cannot be signed"))?)
            }
        };
        let request = self
            .request_to_relay(&endpoint, push.form, notification, &signed)
            .ok_or_else(|| unusable("the claims cannot be part of a request"))?;
        let longest = Instant::now() + self.request_timeout;
        let deadline = Instant::from_std(push.deadline).min(longest);
        let answer = self.client.send(request, Wanted::Status, deadline).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let wait = retry_after(&answer.headers, now);
        let refusal = Refusal::read(endpoint.service, answer.status, &answer.body, wait);
        let is_renewed = match &signed {
            Signed::ByServer(_) => false,
            Signed::ByUs(claims) => refusal.is_about_claims() && self.vapid.replace(&endpoint, claims, now),
        };
        let error = if is_renewed {
            PushError::Renewed
        } else {
            refusal.error(Standing::Strangers)
        };
        let entry = refusal.entry();
        Err(Failure::new(error, entry.name, refusal.describe(), entry.meaning))
    }

    /// `None` if the claims hold what no header holds. In its minimal form a notification says nothing but that
    /// something has come.
    fn request_to_relay(
        &self,
        endpoint: &Endpoint,
        form: Form,
        notification: &Notification,
        signed: &Signed<'_>,
    ) -> Option<Request<Bytes>> {
        let payload = match form {
            Form::Full => notification.payload.as_deref(),
            Form::Minimal => None,
        };
        let mut request = Request::new(payload.map(Bytes::copy_from_slice).unwrap_or_default());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.uri.clone();
        let headers = request.headers_mut();
        let ttl = if notification.call {
            CALL_TTL
        } else {
            self.ttl.clone()
        };
        headers.insert(TTL, ttl);
        headers.insert(URGENCY, urgency(notification));
        if payload.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let authorization = match signed {
            Signed::ByServer(Signature { jwt, key }) => {
                let mut value = HeaderValue::try_from(format!("vapid t={jwt}, k={}", encode(key))).ok()?;
                value.set_sensitive(true);
                value
            }
            Signed::ByUs(claims) => claims.authorization.clone(),
        };
        headers.insert(AUTHORIZATION, authorization);
        Some(request)
    }
}

/// By its name in RFC 8030 section 5.3.
fn urgency(notification: &Notification) -> HeaderValue {
    HeaderValue::from_static(match notification.priority {
        _ if notification.call => "high",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    })
}

/// Seconds. Who did not answer a call by then is told by the next message.
const CALL_TTL: HeaderValue = HeaderValue::from_static("60");
