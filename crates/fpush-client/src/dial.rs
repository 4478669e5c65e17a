//! From a URL to a TLS connection, through the operator's proxy where the environment names one.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

/// The proxy of the environment cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the proxy in HTTPS_PROXY must begin with http://, not {scheme}://")]
pub struct ProxyError {
    scheme: String,
}

type BoxError = Box<dyn StdError + Send + Sync>;
type Dialing<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Opens TCP connections, directly or by CONNECT through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and
/// `NO_PROXY` name.
#[derive(Clone)]
pub struct Dialer {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Dialer {
    /// A dialer for one endpoint, whose proxy it checks.
    ///
    /// # Errors
    ///
    /// The endpoint is reached through a proxy that does not speak plain HTTP.
    pub fn new(endpoint: &Uri) -> Result<Self, ProxyError> {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_keepalive(Some(KEEPALIVE));
        direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let proxies = Matcher::from_env();
        if let Some(proxy) = proxies.intercept(endpoint)
            && proxy.uri().scheme_str() != Some("http")
        {
            return Err(ProxyError {
                scheme: proxy.uri().scheme_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(Self {
            direct,
            proxies: Arc::new(proxies),
        })
    }

    /// The proxy's host for an endpoint, if there is one.
    #[must_use]
    pub fn proxy_host(&self, endpoint: &Uri) -> Option<String> {
        self.proxies
            .intercept(endpoint)
            .and_then(|proxy| proxy.uri().host().map(str::to_owned))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The proxy's URL may hold a password.
        f.write_str("Dialer")
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Dialing<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&destination) else {
            let dialing = self.direct.call(destination);
            return Box::pin(async { Ok(dialing.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let dialing = tunnel.call(destination);
        Box::pin(async { Ok(dialing.await?) })
    }
}

/// Opens TLS connections.
pub type Connector = HttpsConnector<Dialer>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(60);
