//! From a URL to a TLS connection, through the operator's proxy where the environment names one.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
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
            dns::{GaiResolver, Name},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use crate::{
    guard::Guard,
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
    /// The way to a proxy, which is the operator's choice and no stranger's.
    to_proxy: HttpConnector<Resolver>,
    guard: Option<Arc<Guard>>,
    proxies: Arc<Matcher>,
}

impl Dialer {
    /// A dialer for one endpoint, whose proxy it checks.
    ///
    /// # Errors
    ///
    /// The endpoint is reached through a proxy that does not speak plain HTTP.
    pub fn new(endpoint: &Uri) -> Result<Self, ProxyError> {
        Self::with(LookUp::System(GaiResolver::new()), None, endpoint)
    }

    /// A dialer for endpoints that strangers may have chosen: it connects to no address that the guard does not admit.
    /// Behind a proxy it is the proxy that resolves names, so there the guard sees no address.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), of one of the endpoints.
    pub fn guarded(guard: Guard, endpoint: &Uri) -> Result<Self, ProxyError> {
        Self::with(
            LookUp::System(GaiResolver::new()),
            Some(Arc::new(guard)),
            endpoint,
        )
    }

    fn with(look_up: LookUp, guard: Option<Arc<Guard>>, endpoint: &Uri) -> Result<Self, ProxyError> {
        let connector = |guard| {
            let resolver = Resolver {
                look_up: look_up.clone(),
                guard,
            };
            let mut connector = HttpConnector::new_with_resolver(resolver);
            connector.enforce_http(false);
            connector.set_nodelay(true);
            connector.set_keepalive(Some(KEEPALIVE));
            connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
            connector
        };
        let proxies = Matcher::from_env();
        if let Some(proxy) = proxies.intercept(endpoint)
            && proxy.uri().scheme_str() != Some("http")
        {
            return Err(ProxyError {
                scheme: proxy.uri().scheme_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(Self {
            direct: connector(guard.clone()),
            to_proxy: connector(None),
            guard,
            proxies: Arc::new(proxies),
        })
    }

    /// Whether the guard admits a host that is an address itself, which no resolver sees.
    fn admits(&self, destination: &Uri) -> bool {
        let Some(guard) = &self.guard else { return true };
        let host = destination.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address: Option<IpAddr> = bare.unwrap_or(host).parse().ok();
        address.is_none_or(|address| guard.admits(address))
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
        if !self.admits(&destination) {
            return Box::pin(async { Err(Obstacle::Address.into()) });
        }
        let Some(proxy) = self.proxies.intercept(&destination) else {
            let dialing = self.direct.call(destination);
            return Box::pin(async { Ok(dialing.await?) });
        };
        let dialing = self.to_proxy.call(proxy.uri().clone());
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

/// Finds addresses, and passes those on that its guard admits. What it returns is what is dialled, with no second look-up. A
/// host that is an address itself is not resolved.
#[derive(Clone)]
struct Resolver {
    look_up: LookUp,
    guard: Option<Arc<Guard>>,
}

/// Who finds addresses.
#[derive(Clone)]
enum LookUp {
    /// The operating system, whose errors can be told from others.
    System(GaiResolver),
    /// A test: what it says is found by one look-up after the other.
    #[cfg(test)]
    Test(Arc<std::sync::Mutex<Vec<Vec<IpAddr>>>>),
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Obstacle;
    type Future = Dialing<Self::Response, Obstacle>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Obstacle>> {
        match &mut self.look_up {
            LookUp::System(system) => system.poll_ready(cx).map_err(|e| Obstacle::Name(root_cause(&e))),
            #[cfg(test)]
            LookUp::Test(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.guard.clone();
        let resolving = self.look_up.call(name);
        Box::pin(async move {
            let mut found = resolving.await?;
            if let Some(guard) = guard {
                found.retain(|address| guard.admits(address.ip()));
                if found.is_empty() {
                    return Err(Obstacle::Address);
                }
            }
            Ok(found.into_iter())
        })
    }
}

impl LookUp {
    fn call(&mut self, name: Name) -> Dialing<Vec<SocketAddr>, Obstacle> {
        match self {
            Self::System(system) => {
                let resolving = system.call(name);
                Box::pin(async {
                    let found = resolving.await.map_err(|e| Obstacle::Name(root_cause(&e)))?;
                    Ok(found.collect())
                })
            }
            #[cfg(test)]
            Self::Test(answers) => {
                let answer = fpush_push::sync::lock(answers).remove(0);
                let addresses = answer.into_iter().map(|address| (address, 0).into()).collect();
                Box::pin(async { Ok(addresses) })
            }
        }
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

    /// A guarded dialer for which a name has one set of addresses after the other.
    fn guarded(answers: &[&[&str]], allowed: &[&str]) -> Dialer {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        let guard = Guard {
            allowed: allowed
                .iter()
                .map(|network| fpush_push::Network::parse(network).unwrap())
                .collect(),
        };
        let look_up = LookUp::Test(Arc::new(std::sync::Mutex::new(answers)));
        Dialer::with(
            look_up,
            Some(Arc::new(guard)),
            &Uri::from_static("https://a.example"),
        )
        .unwrap()
    }

    async fn dial(dialer: &mut Dialer, uri: &str) -> Result<SocketAddr, Obstacle> {
        let stream = dialer.call(uri.parse().unwrap()).await;
        let stream = stream.map_err(|e| Obstacle::of(&*e))?;
        Ok(stream.into_inner().peer_addr().unwrap())
    }

    #[tokio::test]
    async fn only_addresses_that_the_guard_admits_are_dialled() {
        let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let uri = format!("https://a.example:{port}/");
        let answers: &[&[&str]] = &[
            &["127.0.0.1"],
            &["10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00::1"],
            &[],
            &["127.0.0.1", "127.0.0.2", "10.0.0.1"],
        ];
        let mut dialer = guarded(answers, &["127.0.0.2"]);
        for _ in 0..3 {
            assert_eq!(dial(&mut dialer, &uri).await, Err(Obstacle::Address));
        }
        let dialled = dial(&mut dialer, &uri).await.unwrap();
        assert_eq!(dialled, listener.local_addr().unwrap());
    }

    /// DNS that says something else at the second question is not asked a second question.
    #[tokio::test]
    async fn what_was_resolved_is_what_is_dialled() {
        // What is free at one address may be taken at the other.
        let (good, bad, port) = loop {
            let good = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
            let port = good.local_addr().unwrap().port();
            if let Ok(bad) = std::net::TcpListener::bind(("127.0.0.1", port)) {
                break (good, bad, port);
            }
        };
        bad.set_nonblocking(true).unwrap();
        let mut dialer = guarded(&[&["127.0.0.2"], &["127.0.0.1"]], &["127.0.0.2"]);
        let uri = format!("https://a.example:{port}/");
        assert_eq!(dial(&mut dialer, &uri).await, Ok(good.local_addr().unwrap()));
        assert_eq!(dial(&mut dialer, &uri).await, Err(Obstacle::Address));
        assert_eq!(bad.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    /// A public address that is this machine's is reached by nobody whom the operator has not named: what listens there may trust
    /// us more than it trusts the internet. The test runs itself again in a network that has such an address.
    #[test]
    fn no_stranger_sends_us_to_our_own_public_address() {
        let script = format!("ip link set lo up && ip addr add {OWN}/32 dev lo && exec \"$0\" \"$@\"");
        let ran = std::process::Command::new("unshare")
            .args(["--map-root-user", "--net", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args(["dial::tests::with_a_public_address", "--exact", "--ignored"])
            .output();
        let ran = ran.expect("this test needs unshare (util-linux) and ip (iproute2)");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(
            said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    #[tokio::test]
    #[ignore = "another test runs it, in a network of its own"]
    async fn with_a_public_address() {
        let listener = std::net::TcpListener::bind((OWN, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["a.example", OWN] {
            let uri = format!("https://{host}:{port}/");
            let mut dialer = guarded(&[&[OWN]], &[]);
            assert_eq!(dial(&mut dialer, &uri).await, Err(Obstacle::Address), "{host}");
            assert_eq!(
                listener.accept().unwrap_err().kind(),
                std::io::ErrorKind::WouldBlock
            );
            let mut named = guarded(&[&[OWN]], &[OWN]);
            assert_eq!(dial(&mut named, &uri).await, Ok(listener.local_addr().unwrap()));
            listener.accept().unwrap();
        }
    }

    const OWN: &str = "8.8.8.8";

    #[tokio::test]
    async fn a_host_that_is_an_address_is_judged_as_well() {
        let mut dialer = guarded(&[], &["127.0.0.2"]);
        for host in [
            "127.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "10.1.2.3",
        ] {
            let uri = format!("https://{host}:1/");
            assert_eq!(dial(&mut dialer, &uri).await, Err(Obstacle::Address), "{host}");
        }
        let refused = dial(&mut dialer, "https://127.0.0.2:1/").await;
        assert!(matches!(refused, Err(Obstacle::Tcp(_))), "{refused:?}");
    }
}
