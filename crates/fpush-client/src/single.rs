//! Single requests to endpoints that need not speak HTTP/2, such as those that give access tokens.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::{Answer, MAX_BODY, SendError},
    client::ClientSettings,
    dial::Connector,
    obstacle::{Obstacle, root_cause},
    trust::TrustError,
};

/// A client that opens a connection for each request, and follows no redirection.
#[derive(Debug)]
pub struct SingleClient {
    client: Client<Connector, Full<Bytes>>,
    request_timeout: Duration,
}

impl SingleClient {
    /// A client with the roots, the proxies and the timeout of the settings, without their client certificate.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(settings: &ClientSettings) -> Result<Self, TrustError> {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(settings.trust.client_config(None)?)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(settings.dialer.clone());
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(https),
            request_timeout: settings.request_timeout,
        })
    }

    /// Sends a request and waits for the whole answer, for the request timeout at most. A body that is too long or breaks
    /// off counts as none; one that does not come to its end in time as well, if the status is a refusal.
    ///
    /// # Errors
    ///
    /// There is no answer; see [`SendError`].
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, SendError> {
        let limit = Instant::now() + self.request_timeout;
        let asking = self.client.request(request.map(Full::new));
        let (head, body) = match timeout_at(limit, asking).await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(e)) if e.is_connect() => return Err(SendError::Unreachable(Obstacle::of(&e))),
            Ok(Err(e)) => return Err(SendError::Broken(root_cause(&e))),
            Err(_) => return Err(SendError::TimedOut),
        };
        let body = match timeout_at(limit, collect(body)).await {
            Ok(body) => body,
            Err(_) if head.status.is_success() => return Err(SendError::TimedOut),
            Err(_) => Bytes::new(),
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

/// The whole body, or none if it breaks off or is longer than any that says something.
async fn collect(body: hyper::body::Incoming) -> Bytes {
    let mut body = pin!(body);
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Bytes::new() };
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > MAX_BODY {
            return Bytes::new();
        }
        collected.extend_from_slice(&data);
    }
    collected.into()
}
