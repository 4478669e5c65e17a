//! One request to a push service for one push.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fpush_client::{PooledClient, Wanted, example, retry_after};
use fpush_push::{
    BackendStatus, Class, Example, Failure, Form, LaneId, Push, PushError, PushTrait, Receiver, Sending,
    Subscription as Texts, TokenFlaw, TokenHasher, Urgency, Verifying,
};
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use tokio::time::Instant;

use crate::{
    encryption::{OVERHEAD, encrypt},
    endpoint::{Allowed, Endpoint},
    hosts::Hosts,
    payload::Payload,
    response::Refusal,
    service::{Standing, Vendor},
    subscription::Subscription,
    vapid::{Claims, Vapid},
};

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) client: PooledClient,
    pub(crate) hosts: Hosts,
    pub(crate) allowed: Allowed,
    pub(crate) vapid: Vapid,
    pub(crate) payload: Payload,
    pub(crate) ttl: HeaderValue,
    pub(crate) topic: Option<HeaderValue>,
    pub(crate) urgency: UrgencySetting,
    pub(crate) sends_low: bool,
    pub(crate) request_timeout: Duration,
    /// Of the key.
    pub(crate) digest: u128,
}

/// `urgency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrgencySetting {
    /// High for what a person should notice, low for the rest.
    Auto,
    /// The same for all, by its name in RFC 8030 section 5.3.
    Fixed(&'static str),
}

impl UrgencySetting {
    fn class(self, urgency: Urgency) -> Class {
        match (self, urgency) {
            // A browser shows a call as it shows everything else.
            (Self::Auto, Urgency::High | Urgency::Voip) | (Self::Fixed("high"), _) => Class::High,
            (Self::Auto, Urgency::Low) | (Self::Fixed(_), _) => Class::Low,
        }
    }

    fn header(self, class: Class) -> HeaderValue {
        HeaderValue::from_static(match (self, class) {
            (Self::Fixed(name), _) => name,
            (Self::Auto, Class::High | Class::Voip) => "high",
            (Self::Auto, Class::Low) => "low",
        })
    }
}

impl PushTrait for Backend {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        let canonical = Subscription::read(token, &self.allowed).ok()?.token();
        Some(if canonical == token {
            Cow::Borrowed(token)
        } else {
            Cow::Owned(canonical)
        })
    }

    fn flaw(&self, token: &str) -> TokenFlaw {
        let read = Subscription::read(token, &self.allowed);
        read.err().unwrap_or(TokenFlaw::Form)
    }

    fn time_to_live(&self, _class: Class) -> Duration {
        let seconds = self.ttl.to_str().ok().and_then(|ttl| ttl.parse().ok());
        seconds.map_or(Duration::MAX, Duration::from_secs)
    }

    /// All hosts that a vendor has named are one lane; any other origin is its own.
    fn lane(&self, token: &str, hasher: &TokenHasher) -> LaneId {
        // That of a notification is nothing but the endpoint.
        let text = Texts::of_token(token).map_or(token, |texts| texts.endpoint);
        match self.allowed.endpoint(text) {
            Some(endpoint) => match endpoint.standing {
                Standing::Vendors(vendor) | Standing::Below(vendor) => LaneId::Vendor(vendor.lane()),
                Standing::Strangers => LaneId::Origin(hasher.fingerprint(&endpoint.origin)),
            },
            // Nothing is sent to it.
            None => LaneId::Origin(hasher.fingerprint("")),
        }
    }

    fn vendor(&self, lane: LaneId) -> Option<&'static str> {
        match lane {
            LaneId::Main | LaneId::Second => None,
            LaneId::Vendor(number) => Vendor::of_lane(number).map(Vendor::name),
            LaneId::Origin(_) => Some("other"),
        }
    }

    fn class(&self, urgency: Urgency) -> Class {
        self.urgency.class(urgency)
    }

    /// A page that gets a push has to show something: browsers do it themselves otherwise, or withdraw the permission.
    fn wants(&self, urgency: Urgency) -> bool {
        match urgency {
            Urgency::High | Urgency::Voip => true,
            Urgency::Low => self.sends_low,
        }
    }

    /// Any endpoint that the settings allow: there is nothing else to be known of it, because the sender encrypts and signs.
    fn receiver(&self, client: &str, _call: bool) -> Option<Receiver> {
        let endpoint = self.allowed.endpoint(client)?;
        Some(Receiver {
            token: endpoint.text(),
            call: false,
        })
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        if let Some(notification) = &push.notification {
            return Box::pin(self.relay(push, notification));
        }
        Box::pin(async move {
            let Ok(subscription) = Subscription::read(push.token.as_str(), &self.allowed) else {
                return Err(unusable("the settings do not allow this endpoint any more"));
            };
            let now = SystemTime::now();
            let endpoint = &subscription.endpoint;
            // Until there is an answer.
            let _place = self.hosts.place(endpoint)?;
            let claims = self.vapid.claims(endpoint, now);
            let claims = claims.map_err(|_| unusable("the claims cannot be signed"))?;
            let request = self.request(push, &subscription, &claims)?;
            let longest = Instant::now() + self.request_timeout;
            let deadline = Instant::from_std(push.deadline).min(longest);
            let sent = self.client.send(request, Wanted::Status, deadline).await;
            let answer = sent.map_err(|error| self.hosts.weigh(endpoint, error.into()))?;
            if answer.status.is_success() {
                self.hosts.accepted(endpoint);
                return Ok(());
            }
            let wait = retry_after(&answer.headers, now);
            let refusal = Refusal::read(endpoint.service, answer.status, &answer.body, wait);
            let failure = self.failure(&refusal, endpoint, &claims, now);
            Err(self.hosts.weigh(endpoint, failure))
        })
    }

    /// A push service learns the key from the subscriptions that are made with it: there is nobody to ask before.
    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("push services know this key from the apps that subscribe with it".into()) })
    }

    fn can_verify(&self) -> bool {
        false
    }

    fn status(&self) -> BackendStatus {
        BackendStatus {
            connection: Some(self.client.status()),
            second: None,
            ..BackendStatus::default()
        }
    }

    fn vapid_key(&self) -> Option<&str> {
        Some(self.vapid.public_key())
    }

    /// What they carry is shown as the app reads it: it is encrypted for each receiver.
    fn examples(&self) -> Vec<Example> {
        let example_of = |pushes, urgency| {
            let text = Bytes::from(self.payload.text(Form::Full, None));
            let uri = Uri::from_static("https://push.example/ENDPOINT");
            let request =
                self.request_with(text, uri, self.class(urgency), HeaderValue::from_static("vapid"));
            let mut example = example(pushes, &request, &[("authorization", "vapid t=…, k=…")]);
            example.size += OVERHEAD;
            example
        };
        let all = [("a visible push", Urgency::High), ("a silent push", Urgency::Low)];
        let wanted = all.into_iter().filter(|(_, urgency)| self.wants(*urgency));
        wanted
            .map(|(pushes, urgency)| example_of(pushes, urgency))
            .collect()
    }

    fn digest(&self) -> u128 {
        self.digest
    }
}

impl Backend {
    fn request(
        &self,
        push: &Push,
        subscription: &Subscription,
        claims: &Claims,
    ) -> Result<Request<Bytes>, Failure> {
        let text = self.payload.text(push.form, push.extra.as_deref());
        let body = encrypt(text.as_bytes(), &subscription.keys);
        let body = body.map_err(|_| unusable("the push cannot be encrypted for this receiver"))?;
        let uri = subscription.endpoint.uri.clone();
        Ok(self.request_with(body.into(), uri, push.class, claims.authorization.clone()))
    }

    fn request_with(
        &self,
        body: Bytes,
        uri: Uri,
        class: Class,
        authorization: HeaderValue,
    ) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(TTL, self.ttl.clone());
        headers.insert(URGENCY, self.urgency.header(class));
        if let Some(topic) = &self.topic {
            headers.insert(TOPIC, topic.clone());
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(AUTHORIZATION, authorization);
        request
    }

    fn failure(&self, refusal: &Refusal, endpoint: &Endpoint, claims: &Claims, now: SystemTime) -> Failure {
        let entry = refusal.entry();
        let error = if refusal.is_about_claims() && self.vapid.replace(endpoint, claims, now) {
            PushError::Renewed
        } else {
            refusal.error(endpoint.standing)
        };
        Failure::new(error, entry.name, refusal.describe(), entry.meaning)
    }
}

/// This subscription cannot be sent to.
pub(crate) fn unusable(why: &'static str) -> Failure {
    Failure::new(PushError::TokenUnserved, "unusable", why, UNUSABLE)
}

pub(crate) const TTL: HeaderName = HeaderName::from_static("ttl");
pub(crate) const URGENCY: HeaderName = HeaderName::from_static("urgency");
const TOPIC: HeaderName = HeaderName::from_static("topic");
const UNUSABLE: &str = "Nothing can be sent for this subscription. Check allowedEndpoints and allowedPorts, if this module had \
     others before; the app registers again when it is opened.";
