//! From a URL to a TLS connection, through the operator's proxy where the environment names one.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            HttpConnector,
            dns::{GaiAddrs, GaiResolver, Name},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use crate::{
    obstacle::{Obstacle, root_cause},
    tunnel::tunnel,
};

/// The proxy of the environment cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the proxy in HTTPS_PROXY must begin with http://, not {scheme}://")]
pub struct ProxyError {
    scheme: String,
}

type BoxError = Box<dyn StdError + Send + Sync>;
type Dialing<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Opens TCP connections, directly or by CONNECT through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and
/// `NO_PROXY` name.
#[derive(Clone)]
pub struct Dialer {
    direct: HttpConnector<Resolver>,
    proxies: Arc<Matcher>,
}

impl Dialer {
    /// A dialer for one endpoint, whose proxy it checks.
    ///
    /// # Errors
    ///
    /// The endpoint is reached through a proxy that does not speak plain HTTP.
    pub fn new(endpoint: &Uri) -> Result<Self, ProxyError> {
        let mut direct = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
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
    type Future = Dialing<Self::Response, BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&destination) else {
            let dialing = self.direct.call(destination);
            return Box::pin(async { Ok(dialing.await?) });
        };
        let dialing = self.direct.call(proxy.uri().clone());
        Box::pin(async move {
            let stream = dialing
                .await
                .map_err(|e| Obstacle::Proxy(Box::new(Obstacle::of(&e))))?;
            Ok(TokioIo::new(
                through(&proxy, stream.into_inner(), &destination).await?,
            ))
        })
    }
}

/// Has the proxy connect to the destination.
async fn through(proxy: &Intercept, stream: TcpStream, destination: &Uri) -> Result<TcpStream, Obstacle> {
    let tunneling = tunnel(stream, destination, proxy.basic_auth());
    match timeout(CONNECT_TIMEOUT, tunneling).await {
        Ok(tunneled) => tunneled,
        Err(_) => Err(Obstacle::Proxy(Box::new(Obstacle::TimedOut))),
    }
}

/// The resolver of the operating system, whose errors can be told from others. What it returns is what is dialled, with no
/// second look-up: a guard against addresses belongs here. A host that is an address itself is not resolved.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = Obstacle;
    type Future = Dialing<GaiAddrs, Obstacle>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Obstacle>> {
        self.0.poll_ready(cx).map_err(|e| Obstacle::Name(root_cause(&e)))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async { resolving.await.map_err(|e| Obstacle::Name(root_cause(&e))) })
    }
}

/// Opens TLS connections.
pub(crate) type Connector = HttpsConnector<Dialer>;

/// What is spoken over a connection: TLS has agreed on it (ALPN, RFC 9113 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Connects to the authority of this URL. What has not agreed on anything speaks HTTP/1.1.
pub(crate) async fn connect(mut connector: Connector, uri: Uri) -> Result<(Stream, Protocol), Obstacle> {
    let obstacle = |e: BoxError| Obstacle::of(&*e);
    poll_fn(|cx| connector.poll_ready(cx)).await.map_err(obstacle)?;
    let stream = connector.call(uri).await.map_err(obstacle)?;
    let agreed = match &stream {
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().1.alpn_protocol(),
        MaybeHttpsStream::Http(_) => None,
    };
    let protocol = if agreed == Some(b"h2") {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    Ok((TokioIo::new(stream), protocol))
}

/// A connection as tokio reads and writes it.
pub(crate) type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// A label has 63 characters at most, so the resolver asks nobody.
    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_told_from_other_failures() {
        let uri: Uri = format!("https://{}.example", "x".repeat(64)).parse().unwrap();
        let mut dialer = Dialer::new(&uri).unwrap();
        let error = dialer.call(uri).await.unwrap_err();
        let obstacle = Obstacle::of(&*error);
        assert!(matches!(obstacle, Obstacle::Name(_)), "{obstacle:?}");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_none_of_the_names() {
        let closed = Uri::from_static("https://127.0.0.1:1");
        let mut dialer = Dialer::new(&closed).unwrap();
        let error = dialer.call(closed).await.unwrap_err();
        assert!(matches!(Obstacle::of(&*error), Obstacle::Tcp(_)), "{error:?}");
    }
}
