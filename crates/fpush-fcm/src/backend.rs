//! One request to Google for one push.

use std::time::{Duration, SystemTime};

use fpush_client::{ProviderClient, retry_after};
use fpush_push::{BackendStatus, Class, Failure, Push, PushError, PushTrait, Sending, Urgency, Verifying};
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio::time::Instant;

use crate::{
    access_token::{AccessToken, Issued, NotRenewed},
    message::{Message, is_token},
    response::{Refusal, Remedy},
};

#[derive(Debug)]
pub(crate) struct Fcm {
    pub(crate) client: ProviderClient,
    /// Where messages of the project go.
    pub(crate) uri: Uri,
    pub(crate) access_token: AccessToken,
    pub(crate) message: Message,
    pub(crate) class: Class,
    pub(crate) request_timeout: Duration,
}

impl PushTrait for Fcm {
    fn accepts(&self, token: &str) -> bool {
        is_token(token)
    }

    /// One class per module: the priority is the settings', not the publish's.
    fn class(&self, _urgency: Urgency) -> Class {
        self.class
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async move {
            let Some(issued) = self.access_token.current(push.deadline).await else {
                return Err(Failure::new(
                    PushError::Later { after: None },
                    "no_access_token",
                    "no access token from Google in time",
                    "",
                ));
            };
            let request = self.request(push, &issued);
            let answer = match self.client.send(request, push.deadline).await {
                Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
                Ok(answer) => answer,
                Err(error) => return Err(error.into()),
            };
            let wait = retry_after(&answer.headers, SystemTime::now());
            let refusal = Refusal::read(answer.status, &answer.body, wait);
            let todo = match refusal.remedy() {
                Remedy::Module(error) => error,
                Remedy::RenewToken => self.renew(&issued, push.deadline).await,
                Remedy::RenewTokenOnce => self.renew_once(&issued, push.deadline).await,
            };
            Err(Failure::new(todo, "unknown", refusal.describe(), ""))
        })
    }

    fn verify(&self, _deadline: Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

impl Fcm {
    pub(crate) fn request(&self, push: &Push, issued: &Issued) -> Request<bytes::Bytes> {
        let mut request = Request::new(self.message.body(
            push.token.as_str(),
            push.form,
            push.extra.as_deref(),
        ));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, issued.authorization.clone());
        headers.insert(CONTENT_TYPE, JSON);
        request
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

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// After a permission was refused: long enough not to knock in vain, short enough to notice the operator's
/// correction at Google's side.
const PERMISSION_PAUSE: Duration = Duration::from_secs(60);
