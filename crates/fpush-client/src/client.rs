//! Requests with deadlines over one connection that is replaced when it fails.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use fpush_push::{Failure, PushError};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, Error as ClientError},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::{Connector, Dialer, Identity, Trust, TrustError, activity::Activity};

/// How a client reaches its provider.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whom to trust.
    pub trust: Trust,
    /// The client certificate, if any.
    pub identity: Option<Identity>,
    /// How to connect.
    pub dialer: Dialer,
    /// A request takes this long at most.
    pub request_timeout: Duration,
    /// A connection that carried nothing for this long is closed.
    pub idle_timeout: Duration,
}

/// The client that yup-oauth2 asks for tokens with.
pub type OauthClient = Client<Connector, String>;

/// A provider's answer. The body is cut at 16 KiB.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer, sorted by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection broke under the request. The next request finds a new one.
    #[error("the connection to the provider broke: {0}")]
    Broken(String),
    /// No connection can be made.
    #[error("no connection to the provider: {0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("no answer from the provider in time")]
    TimedOut,
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let todo = match error {
            SendError::Broken(_) => PushError::Reconnected,
            SendError::Unreachable(_) | SendError::TimedOut => PushError::Later { after: None },
        };
        Self::new(todo, error.to_string())
    }
}

/// One provider's client.
#[derive(Debug)]
pub struct ProviderClient {
    settings: ClientSettings,
    current: Mutex<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    client: Client<Connector, Full<Bytes>>,
    activity: Activity,
    /// Tells whether somebody has replaced the connection already.
    generation: u64,
    /// Requests in a row that timed out while nothing at all was read.
    silent: u32,
}

impl ProviderClient {
    /// A client that connects with its first request.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(settings: ClientSettings) -> Result<Self, TrustError> {
        let current = Current::new(&settings, 0)?;
        Ok(Self {
            settings,
            current: Mutex::new(current),
        })
    }

    /// Sends a request and waits for the whole answer: for the request timeout, and not beyond the deadline.
    ///
    /// # Errors
    ///
    /// There is no answer; see [`SendError`].
    pub async fn send(&self, request: Request<Full<Bytes>>, deadline: Instant) -> Result<Answer, SendError> {
        let (sending, activity, generation) = {
            let current = self.current.lock().expect("nobody panics with this lock");
            (
                current.client.request(request),
                current.activity.clone(),
                current.generation,
            )
        };
        let reads = activity.reads();
        let longest = Instant::now() + self.settings.request_timeout;
        let cut_short = deadline < longest;
        let deadline = deadline.min(longest);
        let exchange = async {
            let response = sending.await.map_err(|e| self.classify(&e, generation))?;
            let (head, body) = response.into_parts();
            let body = match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => body.to_bytes(),
                // The status alone says enough; and what was accepted must not be sent again.
                Err(e) if head.status.is_success() || e.is::<LengthLimitError>() => Bytes::new(),
                Err(e) => {
                    self.replace(generation);
                    return Err(SendError::Broken(e.to_string()));
                }
            };
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => {
                self.with_current(generation, |current| current.silent = 0);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // A request that was given less time than it may take says nothing about the connection.
                if !cut_short {
                    self.note_timeout(generation, activity.reads() == reads);
                }
                Err(SendError::TimedOut)
            }
        }
    }

    /// Leaves the current connection: requests under way may finish on it, the next one opens a new one.
    pub fn reconnect(&self) {
        let generation = self
            .current
            .lock()
            .expect("nobody panics with this lock")
            .generation;
        self.replace(generation);
    }

    fn classify(&self, error: &ClientError, generation: u64) -> SendError {
        let reason = root_cause(error);
        if error.is_connect() {
            return SendError::Unreachable(reason);
        }
        self.replace(generation);
        SendError::Broken(reason)
    }

    fn note_timeout(&self, generation: u64, silent: bool) {
        let mut strikes = 0;
        self.with_current(generation, |current| {
            current.silent = if silent { current.silent + 1 } else { 0 };
            strikes = current.silent;
        });
        if strikes >= MAX_SILENT {
            info!("the provider's connection has gone silent; opening a new one");
            self.replace(generation);
        }
    }

    fn replace(&self, generation: u64) {
        self.with_current(generation, |current| {
            // It succeeded with the same settings when the client was made.
            if let Ok(next) = Current::new(&self.settings, generation + 1) {
                *current = next;
            }
        });
    }

    /// Does something to the current connection, unless it is a later one than the caller knows.
    fn with_current(&self, generation: u64, act: impl FnOnce(&mut Current)) {
        let mut current = self.current.lock().expect("nobody panics with this lock");
        if current.generation == generation {
            act(&mut current);
        }
    }
}

impl ClientSettings {
    /// A client of its own for yup-oauth2: token endpoints need not speak HTTP/2.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn oauth_client(&self) -> Result<OauthClient, TrustError> {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.trust.client_config(None)?)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(self.dialer.clone());
        Ok(Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(Connector::new(https, Activity::default())))
    }
}

impl Current {
    fn new(settings: &ClientSettings, generation: u64) -> Result<Self, TrustError> {
        let activity = Activity::default();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(settings.trust.client_config(settings.identity.as_ref())?)
            .https_only()
            .enable_http2()
            .wrap_connector(settings.dialer.clone());
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .build(Connector::new(https, activity.clone()));
        Ok(Self {
            client,
            activity,
            generation,
            silent: 0,
        })
    }
}

/// The first cause of an error: the outer ones only say that something failed.
#[must_use]
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_SILENT: u32 = 3;
const MAX_BODY: usize = 16 * 1_024;
