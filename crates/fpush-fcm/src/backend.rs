//! One request to Google for one push.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fpush_client::{CLOCK_WRONG, ProviderClient, SendError, example, retry_after};
use fpush_push::{
    BackendStatus, Class, Example, Failure, Form, Push, PushError, PushTrait, Sending, Urgency, Verifying,
};
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio::time::Instant;

use crate::{
    access_token::{AccessToken, Issued, NotRenewed},
    message::{Message, is_token},
    response::{Entry, Refusal, Remedy},
    token_endpoint::TokenError,
};

/// What messages of a module look like (`fcm.priority`).
#[derive(Debug)]
pub(crate) enum Mode {
    /// All alike.
    One(Class, Box<Message>),
    /// By the urgency of the publish.
    Auto {
        high: Box<Message>,
        low: Box<Message>,
        voip: Box<Message>,
    },
}

#[derive(Debug)]
pub(crate) struct Fcm {
    pub(crate) client: ProviderClient,
    /// Where messages of the project go.
    pub(crate) uri: Uri,
    pub(crate) access_token: AccessToken,
    pub(crate) mode: Mode,
    pub(crate) request_timeout: Duration,
    /// Of endpoint, project and credential.
    pub(crate) digest: u128,
}

impl PushTrait for Fcm {
    /// Google's tokens have one spelling.
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        is_token(token).then_some(Cow::Borrowed(token))
    }

    fn time_to_live(&self, class: Class) -> Duration {
        self.message(class).ttl()
    }

    /// Google asks for a ramp of a minute: at a thousand a second after that.
    fn ramp(&self) -> Duration {
        RAMP
    }

    fn class(&self, urgency: Urgency) -> Class {
        match &self.mode {
            Mode::One(class, _) => *class,
            Mode::Auto { .. } => Class::of(urgency),
        }
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async move {
            let deadline = Instant::from_std(push.deadline);
            let issued = self.access_token.current(deadline).await;
            let issued = issued.map_err(|why| no_access_token(why, deadline))?;
            match self.attempt(self.request(push, &issued), deadline).await? {
                None => {
                    self.access_token.note_taken(issued.generation);
                    Ok(())
                }
                Some(refusal) => {
                    let refusal = self
                        .refusal_of_the_device(refusal, push, &issued, deadline)
                        .await?;
                    Err(self.failure(&refusal, &issued, deadline).await)
                }
            }
        })
    }

    fn verify(&self, deadline: std::time::Instant) -> Verifying<'_> {
        let deadline = Instant::from_std(deadline);
        Box::pin(async move {
            let mut again = true;
            loop {
                let issued = match self.access_token.current_or_why(deadline).await {
                    Ok(issued) => issued,
                    Err(why) => return Err(self.unauthenticated(why, deadline).await),
                };
                let request = self.dry_request(Some(&issued));
                let failure = match self.attempt(request, deadline).await {
                    Ok(None) => return Ok(self.accepted("it accepted the message").into()),
                    Ok(Some(refusal)) if refusal.blames_only_the_token() => {
                        let why = format!(
                            "it refused only the invented device token, as it should ({})",
                            refusal.describe()
                        );
                        return Ok(self.accepted(&why).into());
                    }
                    Ok(Some(refusal)) => self.failure(&refusal, &issued, deadline).await,
                    Err(error) => error.into(),
                };
                // A connection may end and an access token be revoked at any time, and pushes go on after it too.
                let passing = matches!(failure.error, PushError::Reconnected | PushError::Renewed);
                if !(passing && std::mem::take(&mut again)) {
                    return Err(failure);
                }
            }
        })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus {
            connection: Some(self.client.status()),
            second: None,
            credentials: vec![self.access_token.credential()],
            clock_offset: self.client.clock_offset(),
        }
    }

    fn examples(&self) -> Vec<Example> {
        let example_of = |class: Class, message: &Message| {
            let pushes = match class {
                Class::High => "a visible push",
                Class::Low => "a silent push",
                Class::Voip => "a call",
            };
            let body = message.body("TOKEN", Form::Full, None);
            example(pushes, &self.request_with(body, None), &[])
        };
        match &self.mode {
            Mode::One(class, message) => vec![example_of(*class, message)],
            Mode::Auto { high, low, voip } => vec![
                example_of(Class::High, high),
                example_of(Class::Low, low),
                example_of(Class::Voip, voip),
            ],
        }
    }

    fn digest(&self) -> u128 {
        self.digest
    }
}

impl Fcm {
    pub(crate) fn request(&self, push: &Push, issued: &Issued) -> Request<Bytes> {
        let extra = push.extra.as_deref();
        let body = self
            .message(push.class)
            .body(push.token.as_str(), push.form, extra);
        self.request_with(body, Some(issued))
    }

    /// What a push of this class carries.
    fn message(&self, class: Class) -> &Message {
        match (&self.mode, class) {
            (Mode::One(_, message), _) | (Mode::Auto { high: message, .. }, Class::High) => message,
            (Mode::Auto { low, .. }, Class::Low) => low,
            (Mode::Auto { voip, .. }, Class::Voip) => voip,
        }
    }

    /// One that reaches nobody.
    fn dry_request(&self, issued: Option<&Issued>) -> Request<Bytes> {
        self.request_with(self.message(Class::High).dry_body(NO_DEVICE), issued)
    }

    fn request_with(&self, body: Bytes, issued: Option<&Issued>) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        if let Some(issued) = issued {
            headers.insert(AUTHORIZATION, issued.authorization.clone());
        }
        headers.insert(CONTENT_TYPE, JSON);
        request
    }

    /// Sends a request: what Google said if it did not take it.
    async fn attempt(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> Result<Option<Refusal>, SendError> {
        let (answer, _) = self.client.send(request, deadline).await?;
        if answer.status == StatusCode::OK {
            return Ok(None);
        }
        let wait = retry_after(&answer.headers, SystemTime::now());
        Ok(Some(Refusal::read(answer.status, &answer.body, wait)))
    }

    /// Where Google refuses a message and blames nothing in it, it is asked for a plain one for the same device, too. If it
    /// would take that, the refusal is not the device's; if not, what it says then is.
    async fn refusal_of_the_device(
        &self,
        refusal: Refusal,
        push: &Push,
        issued: &Issued,
        deadline: Instant,
    ) -> Result<Refusal, Failure> {
        let plain = self.message(push.class).plain_dry_body(push.token.as_str());
        let Some(plain) = plain.filter(|_| refusal.may_be_about_the_message()) else {
            return Ok(refusal);
        };
        let plain = self.request_with(plain, Some(issued));
        self.attempt(plain, deadline).await?.ok_or_else(|| {
            Failure::new(
                PushError::Misconfigured,
                "invalid_message",
                "Google refuses what the settings put into the message, and not the device",
                OPEN_PARTS,
            )
        })
    }

    /// What a refusal means, after what the backend itself can do about it.
    async fn failure(&self, refusal: &Refusal, issued: &Issued, deadline: Instant) -> Failure {
        let Entry {
            name,
            remedy,
            meaning,
        } = refusal.entry();
        if remedy == Remedy::RenewToken && self.access_token.is_good(issued, Instant::now()) {
            return Failure::new(PushError::TokenUnserved, name, refusal.describe(), ONLY_THIS_ONE);
        }
        let meaning = match remedy {
            Remedy::RenewToken if self.client.clock_offset().is_some() => CLOCK_WRONG,
            Remedy::RenewToken | Remedy::RenewTokenOnce | Remedy::Module(_) => meaning,
        };
        let error = match remedy {
            Remedy::Module(error) => error,
            Remedy::RenewToken => self.renew(issued, deadline).await,
            Remedy::RenewTokenOnce => self.renew_once(issued, deadline).await,
        };
        Failure::new(error, name, refusal.describe(), meaning)
    }

    /// Why there is no access token. Where the clock may be the reason, a request that Google must refuse tells what
    /// time it is there.
    async fn unauthenticated(&self, why: Option<TokenError>, deadline: Instant) -> Failure {
        let perhaps_the_clock = why == Some(TokenError::Grant);
        let mut failure = no_access_token(why, deadline);
        if perhaps_the_clock {
            let _ = self.attempt(self.dry_request(None), deadline).await;
            if self.client.clock_offset().is_some() {
                failure.meaning = CLOCK_WRONG;
            }
        }
        failure
    }

    /// For a person: which project, and how we know.
    fn accepted(&self, why: &str) -> String {
        let project = self.uri.path().split('/').nth(3).unwrap_or_default();
        format!("Google accepts the credentials for project {project}: {why}")
    }

    /// Replaces a token that is no longer good. If the new one is refused as well, only time can help.
    async fn renew(&self, issued: &Issued, deadline: Instant) -> PushError {
        let deadline = deadline.min(Instant::now() + self.request_timeout);
        match self.access_token.renew(issued.generation, deadline).await {
            Ok(()) => PushError::Renewed,
            Err(NotRenewed::TooSoon { wait }) => PushError::Later { after: Some(wait) },
            Err(NotRenewed::Failed) => PushError::Later { after: None },
        }
    }

    /// Replaces a token that lacks a permission which its account may have got meanwhile. It has not if the
    /// token is not a minute old: then, as when no new one comes, the module pauses until the operator has done
    /// something.
    async fn renew_once(&self, issued: &Issued, deadline: Instant) -> PushError {
        let paused = PushError::Pause {
            length: PERMISSION_PAUSE,
            alarm: true,
        };
        if issued.since.elapsed() < PERMISSION_PAUSE {
            return paused;
        }
        let deadline = deadline.min(Instant::now() + self.request_timeout);
        match self.access_token.renew(issued.generation, deadline).await {
            Ok(()) => PushError::Renewed,
            Err(NotRenewed::TooSoon { .. } | NotRenewed::Failed) => paused,
        }
    }
}

/// There is no token to send with, for the reason why the last attempt to get one failed if it did. While Google refuses to
/// give one, another attempt before the deadline is of no use.
fn no_access_token(why: Option<TokenError>, deadline: Instant) -> Failure {
    let refused = why.as_ref().is_some_and(TokenError::is_refusal);
    let later = PushError::Later {
        after: refused.then(|| deadline.saturating_duration_since(Instant::now())),
    };
    match why {
        Some(error) => {
            let answer = format!("no access token from Google: {error}");
            Failure::new(later, "no_access_token", answer, error.meaning())
        }
        None => Failure::new(
            later,
            "no_access_token",
            "no access token from Google in time",
            NO_ACCESS_TOKEN,
        ),
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// After a permission was refused: long enough to avoid useless requests, short enough to notice the operator's
/// correction at Google's side.
const PERMISSION_PAUSE: Duration = Duration::from_secs(60);
/// No device has this token, which is not in the form of one either.
const NO_DEVICE: &str = "fpush-asks-whether-its-credentials-are-good";
const OPEN_PARTS: &str = "Google would take a message for this device without notification, android, apns, webpush and fcmOptions, \
     and refuses the one with them. Take out one after the other, and compare with Google's reference of \
     projects.messages.";
const ONLY_THIS_ONE: &str = "Google takes the same access token for other devices, so it is about this one, which is left alone for a while. If \
     it goes on, look in the Firebase console, under Project settings, Cloud Messaging, whether the APNs key and the \
     web push certificate of the project are there.";
const NO_ACCESS_TOKEN: &str = "Google's token endpoint has not answered yet. If this goes on, check the network, the firewall and \
     HTTPS_PROXY.";

/// In which the rate of held pushes doubles.
const RAMP: Duration = Duration::from_secs(6);
