//! One request to Apple for one push.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fpush_client::{CLOCK_WRONG, ProviderClient, Via, example, retry_after};
use fpush_push::{
    BackendStatus, Class, Credential, CredentialKind, Example, Extra, Failure, Form, Priority, Push,
    PushError, PushTrait, Receiver, Sending, Token, Urgency, Verifying,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::AUTHORIZATION,
    uri::{Authority, PathAndQuery, Scheme},
};
use tokio::time::Instant;

use crate::{
    credentials::Validity,
    payload::Ready,
    provider_token::{Clocks, ProviderToken},
    push2::App,
    response::{CREDENTIALS_PAUSE, Entry, Refusal, Remedy},
};

/// How we prove to Apple who we are.
#[derive(Clone, Debug)]
pub(crate) enum Authentication {
    /// By the client certificate of the connection.
    Certificate(Box<Validity>),
    /// By a provider token in each request.
    Token(Arc<ProviderToken>),
}

/// What pushes of a module look like (`apns.pushPriority`).
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// All alike.
    One(Class, Box<Ready>),
    /// By the urgency of the publish.
    Auto { high: Box<Ready>, low: Box<Ready> },
}

#[derive(Debug)]
pub(crate) struct Apns {
    pub(crate) client: ProviderClient,
    pub(crate) authority: Authority,
    pub(crate) authentication: Authentication,
    pub(crate) mode: Mode,
    /// What goes to a device's second token.
    pub(crate) call: Box<Ready>,
    pub(crate) app: App,
    pub(crate) ttl: Duration,
    /// Of endpoint, topic and credential.
    pub(crate) digest: u128,
}

impl PushTrait for Apns {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        canonical(token)
    }

    fn receiver(&self, client: &str, call: bool) -> Option<Receiver> {
        self.app.receiver(client, call)
    }

    fn time_to_live(&self, _class: Class) -> Duration {
        self.ttl
    }

    fn class(&self, urgency: Urgency) -> Class {
        match &self.mode {
            Mode::One(class, _) => *class,
            // A call goes out as a visible push, because it needs another kind of token for more; but as none that is queued.
            Mode::Auto { .. } => Class::of(urgency),
        }
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async move {
            match self.attempt(push).await? {
                None => Ok(()),
                Some(refused) => {
                    self.renew_for_all(&refused).await;
                    Err(self.failure(&refused))
                }
            }
        })
    }

    fn verify(&self, deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async move {
            let push = Push {
                token: Token::new(NO_DEVICE),
                class: self.class(Urgency::High),
                form: Form::Full,
                extra: None,
                notification: None,
                count: None,
                id: uuid::Uuid::new_v4(),
                deadline,
            };
            let mut again = true;
            loop {
                let failure = match self.attempt(&push).await {
                    Ok(None) => return Ok(self.accepted(&push, "it accepted the push").into()),
                    Ok(Some(Refused { refusal, .. })) if refusal.blames_only_the_token() => {
                        let why = format!(
                            "it refused only the invented device token, as it should ({})",
                            refusal.describe()
                        );
                        return Ok(self.accepted(&push, &why).into());
                    }
                    Ok(Some(refused)) => {
                        self.renew_for_all(&refused).await;
                        self.failure(&refused)
                    }
                    Err(failure) => failure,
                };
                // A connection may end and a provider token run out at any time, and pushes go on after it too.
                let passing = matches!(failure.error, PushError::Reconnected | PushError::Renewed);
                if !(passing && std::mem::take(&mut again)) {
                    return Err(failure);
                }
            }
        })
    }

    fn status(&self) -> BackendStatus {
        let credential = match &self.authentication {
            Authentication::Certificate(validity) => Credential {
                kind: CredentialKind::Certificate,
                age: None,
                expires: Some(validity.not_after),
                trouble: validity.trouble(SystemTime::now()),
            },
            Authentication::Token(token) => Credential {
                kind: CredentialKind::ProviderToken,
                age: Some(token.age(Instant::now())),
                expires: None,
                trouble: None,
            },
        };
        BackendStatus {
            connection: Some(self.client.status()),
            second: None,
            credentials: vec![credential],
            clock_offset: self.client.clock_offset(),
        }
    }

    fn examples(&self) -> Vec<Example> {
        let of_mode: &[_] = match self.mode {
            Mode::One(class, _) => &[class],
            Mode::Auto { .. } => &[Class::High, Class::Low],
        };
        let first = of_mode.iter().map(|class| (*class, false));
        let all = first.chain([(Class::Voip, true)]);
        all.filter_map(|(class, call)| self.example(class, call))
            .collect()
    }

    fn digest(&self) -> u128 {
        self.digest
    }
}

impl Apns {
    /// Sends a push: what Apple said if it did not take it.
    async fn attempt(&self, push: &Push) -> Result<Option<Refused>, Failure> {
        if let Authentication::Certificate(validity) = &self.authentication
            && validity.has_expired(SystemTime::now())
        {
            // No further request is made with it meanwhile.
            let pause = PushError::Pause {
                length: EXPIRED_PAUSE,
                alarm: true,
            };
            let answer = format!("the client certificate expired on {}", validity.until);
            return Err(Failure::new(pause, "certificate_expired", answer, EXPIRED));
        }
        if let Authentication::Token(token) = &self.authentication {
            token.ready().await;
        }
        let (request, generation) = self.request(push).ok_or_else(|| {
            Failure::new(
                PushError::Misconfigured,
                "unbuildable",
                "the request cannot be built",
                UNBUILDABLE,
            )
        })?;
        let (answer, via) = self.client.send(request, push.deadline.into()).await?;
        if answer.status != StatusCode::FORBIDDEN
            && let Authentication::Token(token) = &self.authentication
        {
            token.note_taken(generation);
        }
        if answer.status == StatusCode::OK {
            return Ok(None);
        }
        let wait = retry_after(&answer.headers, SystemTime::now());
        Ok(Some(Refused {
            refusal: Refusal::read(answer.status, &answer.body, wait),
            generation,
            via,
        }))
    }

    /// What a refusal means, after what the backend itself can do about it.
    fn failure(&self, refused: &Refused) -> Failure {
        let refusal = &refused.refusal;
        let Entry {
            name,
            remedy,
            meaning,
        } = refusal.entry();
        let signed = matches!(self.authentication, Authentication::Token(_));
        let meaning =
            if signed && refusal.status == StatusCode::FORBIDDEN && self.client.clock_offset().is_some() {
                CLOCK_WRONG
            } else {
                meaning
            };
        let error = self.remedy(remedy, refused);
        Failure::new(error, name, refusal.describe(), meaning)
    }

    /// A request for a push of this class, or to the second token of a device.
    fn example(&self, class: Class, call: bool) -> Option<Example> {
        let extra = Extra {
            account: None,
            channel: None,
            encrypted: None,
            call,
        };
        let push = Push {
            token: Token::new("TOKEN"),
            class,
            form: Form::Full,
            extra: Some(Arc::new(extra)),
            notification: None,
            count: Some(1),
            id: uuid::Uuid::nil(),
            deadline: std::time::Instant::now(),
        };
        let pushes = match (class, call) {
            (_, true) => "a call, to the second token of a registered device",
            (Class::High, false) => "a visible push",
            (Class::Low, false) => "a silent push",
            (Class::Voip, false) => "a push for calls",
        };
        let (request, _) = self.request(&push)?;
        let hidden = [("apns-id", "a new UUID for each push")];
        Some(example(pushes, &request, &hidden))
    }

    /// For a person: which topic where, and how we know.
    fn accepted(&self, push: &Push, why: &str) -> String {
        let topic = self.ready(push).topic.to_str().unwrap_or_default();
        let host = self.authority.host();
        format!("Apple accepts the credentials for topic {topic} at {host}: {why}")
    }

    /// What a push of this kind carries.
    fn ready(&self, push: &Push) -> &Ready {
        match (&self.mode, push.class) {
            _ if push.extra.as_deref().is_some_and(|extra| extra.call) => &self.call,
            // The app's extension reads what a visible push carries, and no other.
            (Mode::Auto { high: ready, .. }, _) if push.notification.is_some() => ready,
            (Mode::One(_, ready), _) | (Mode::Auto { high: ready, .. }, Class::High | Class::Voip) => ready,
            (Mode::Auto { low, .. }, Class::Low) => low,
        }
    }

    /// The request, and the generation of the provider token in it.
    pub(crate) fn request(&self, push: &Push) -> Option<(Request<Bytes>, u64)> {
        let extra = push.extra.as_deref();
        let ready = self.ready(push);
        let mut path = String::with_capacity(PATH.len() + push.token.as_str().len());
        path.push_str(PATH);
        path.push_str(push.token.as_str());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(path)).ok()?);

        let mut headers = HeaderMap::with_capacity(8);
        let mut id = uuid::Uuid::encode_buffer();
        let id = push.id.hyphenated().encode_lower(&mut id);
        let mut id = HeaderValue::from_str(id).ok()?;
        // Each has its own: in HPACK's table it would only take the place of what comes again (RFC 7541 section 6.2.3).
        id.set_sensitive(true);
        headers.insert(APNS_ID, id);
        headers.insert(APNS_PUSH_TYPE, ready.push_type.clone());
        let notification = push.notification.as_deref();
        let priority = match notification.map(|notification| notification.priority) {
            Some(Priority::Low) => HeaderValue::from_static("5"),
            Some(Priority::High | Priority::Normal) | None => ready.priority.clone(),
        };
        headers.insert(APNS_PRIORITY, priority);
        headers.insert(APNS_TOPIC, ready.topic.clone());
        headers.insert(
            APNS_EXPIRATION,
            HeaderValue::from(self.expiration(SystemTime::now())),
        );
        // No notification takes another one's place: each says something else.
        if let Some(collapse_id) = ready.collapse_id.as_ref().filter(|_| notification.is_none()) {
            headers.insert(APNS_COLLAPSE_ID, collapse_id.clone());
        }
        let generation = match &self.authentication {
            Authentication::Certificate(_) => 0,
            Authentication::Token(token) => {
                let signed = token.current(Clocks::now());
                headers.insert(AUTHORIZATION, signed.authorization);
                signed.generation
            }
        };
        let body = match notification {
            Some(notification) => ready.relayed(push.form, notification.payload.as_deref()),
            None => ready.body(push.form, extra, push.count),
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = headers;
        Some((request, generation))
    }

    /// `apns-expiration`: seconds since 1970; 0 means now or never.
    fn expiration(&self, now: SystemTime) -> u64 {
        if self.ttl.is_zero() {
            return 0;
        }
        now.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| (since + self.ttl).as_secs())
    }

    /// Replaces the provider token for all instances, where there are others and the refusal asks for that.
    async fn renew_for_all(&self, refused: &Refused) {
        let after_jump = match refused.refusal.entry().remedy {
            Remedy::RenewToken => false,
            Remedy::RenewTokenIfClockJumped => true,
            Remedy::Module(_) | Remedy::Reconnect | Remedy::ReconnectLater => return,
        };
        if let Authentication::Token(token) = &self.authentication {
            let renewing = token.renew_for_all(refused.generation, Clocks::now(), after_jump);
            // Boxed, because few are: the future of every other push stays small.
            Box::pin(renewing).await;
        }
    }

    /// Replaces the provider token, or pauses where that cannot be done.
    fn renew(&self, renewed: impl FnOnce(&ProviderToken) -> bool) -> PushError {
        match &self.authentication {
            Authentication::Token(token) if renewed(token) => PushError::Renewed,
            Authentication::Token(_) | Authentication::Certificate(_) => PushError::Pause {
                length: CREDENTIALS_PAUSE,
                alarm: true,
            },
        }
    }

    fn remedy(&self, remedy: Remedy, refused: &Refused) -> PushError {
        let Refused {
            refusal,
            generation,
            via,
        } = refused;
        let later = PushError::Later {
            after: refusal.retry_after,
        };
        match remedy {
            Remedy::Module(error) => error,
            Remedy::Reconnect if self.client.leave_as_told(via) => PushError::Reconnected,
            Remedy::Reconnect => later,
            Remedy::ReconnectLater => {
                self.client.leave_as_told(via);
                later
            }
            Remedy::RenewToken => self.renew(|token| token.renew(*generation, Clocks::now()).is_ok()),
            Remedy::RenewTokenIfClockJumped => {
                self.renew(|token| token.renew_after_jump(*generation, Clocks::now()).is_ok())
            }
        }
    }
}

/// The digits of a number of bytes, in lower case: 32 bytes today, and Apple says "do not hard-code it". To Apple both cases of
/// a digit are one.
pub(crate) fn canonical(token: &str) -> Option<Cow<'_, str>> {
    let bytes = token.len() / 2;
    let known = token.len().is_multiple_of(2)
        && (1..=MOST_BYTES).contains(&bytes)
        && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    known.then(|| {
        if token.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(token.to_ascii_lowercase())
        } else {
            Cow::Borrowed(token)
        }
    })
}

/// A push that Apple did not take.
struct Refused {
    refusal: Refusal,
    /// Of the provider token in the request.
    generation: u64,
    /// The connection of the answer.
    via: Via,
}

const PATH: &str = "/3/device/";
const APNS_ID: HeaderName = HeaderName::from_static("apns-id");
const APNS_PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const APNS_PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const APNS_TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const APNS_EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const APNS_COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");

/// Of a token.
const MOST_BYTES: usize = 100;
/// Until it is looked again whether the certificate is good, after somebody has set the clock.
const EXPIRED_PAUSE: Duration = Duration::from_secs(60);
const EXPIRED: &str = "Get a new one at developer.apple.com, under Certificates, and put it in the old one's place; or set the clock \
     of this machine, if it is wrong.";
/// No device has this token; Apple answers `BadDeviceToken`, after it has looked at all the rest.
const NO_DEVICE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const UNBUILDABLE: &str = "Something in the request cannot be part of an HTTP request, which should never happen: check topic and \
     endpoint, and report it as a mistake of fpush.";
