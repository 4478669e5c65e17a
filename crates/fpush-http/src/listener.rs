//! One port: connections, TLS, and the bounds that hold for any router behind it.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    middleware::{Next, from_fn},
    response::Response,
};
use fpush_push::{Drain, LogGate};
use fpush_registry::{Network, TlsFiles};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::{
    origin::Client,
    pages::POLICY,
    shares::Shares,
    tls::{Tls, TlsError},
};

/// A port that was opened.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    trusted_proxies: Arc<[Network]>,
    limits: Limits,
}

/// Who is believed, and with what we are.
pub(crate) struct Security {
    /// Certificate and key.
    pub(crate) tls: Option<TlsFiles>,
    /// Who may say which address a client has.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// The bounds of a listener and of what is behind it. The defaults fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; further ones wait until one has ended.
    pub connections: usize,
    /// Connections of one address at a time; further ones are closed. Trusted proxies have as many as there are.
    pub connections_per_address: usize,
    /// From the beginning of a connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the end of the first request's head.
    pub first_request: Duration,
    /// How long a connection stays without a request.
    pub idle: Duration,
    /// From the end of a request's head to the end of its body.
    pub body: Duration,
    /// Pushes under way at a time.
    pub pushes: usize,
    /// Pushes of one address under way at a time.
    pub pushes_per_address: usize,
    /// Other requests that ask the registry, at a time.
    pub lookups: usize,
    /// Other requests of one address that ask the registry, at a time.
    pub lookups_per_address: usize,
}

/// Why the listener cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {problem}; {}", advice(problem))]
    Bind {
        /// The address and port of the settings.
        address: SocketAddr,
        /// What the operating system says.
        problem: io::Error,
    },
    /// The certificate cannot be used.
    #[error("cannot speak TLS: {0}; correct certFilePath and keyFilePath")]
    Tls(#[source] TlsError),
}

fn advice(problem: &io::Error) -> &'static str {
    match problem.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port (ss -ltnp shows which): stop it, or choose another port for listen"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one for listen, or put a proxy in front"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address: choose another for listen, such as 127.0.0.1"
        }
        _ => "choose another address and port for listen",
    }
}

impl Listener {
    /// Opens the port and reads the certificate.
    pub(crate) async fn bind(
        address: SocketAddr,
        security: Security,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let Security { tls, trusted_proxies } = security;
        let tls = tls.map(Tls::load).transpose().map_err(StartError::Tls)?;
        let bind_error = |problem| StartError::Bind { address, problem };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        Ok(Self {
            address: listener.local_addr().map_err(bind_error)?,
            listener,
            tls,
            trusted_proxies: trusted_proxies.into(),
            limits,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Serves the router until the daemon is about to stop, and then until what is under way has its answer.
    pub(crate) async fn serve(self, router: Router, drain: Drain) {
        let Self {
            listener,
            address: _,
            tls,
            trusted_proxies,
            limits,
        } = self;
        let host = Host {
            router: router.layer(from_fn(finish)),
            builder: builder(),
            trusted_proxies,
            limits,
            drain,
        };
        let mut connections = JoinSet::new();
        tokio::select! {
            () = host.accept(&listener, tls.as_ref(), &mut connections) => {}
            () = keep_fresh(tls.as_ref()) => {}
        }
        // Who comes now is refused by the operating system, and knows that at once.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What all connections share.
#[derive(Clone)]
struct Host {
    router: Router,
    builder: Builder<TokioExecutor>,
    trusted_proxies: Arc<[Network]>,
    limits: Limits,
    drain: Drain,
}

impl Host {
    /// Accepts connections until the daemon is about to stop.
    async fn accept(&self, listener: &TcpListener, tls: Option<&Tls>, connections: &mut JoinSet<()>) {
        let shares = Shares::new(usize::MAX, self.limits.connections_per_address);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.until_begun() => return,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < self.limits.connections => accepted,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(problem) => {
                    if let Some(withheld) = ACCEPT_PROBLEMS.pass(Instant::now()) {
                        warn!(%problem, withheld, "a connection could not be accepted");
                    }
                    // Usually there are no file descriptors left, until a connection has ended.
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let is_proxy = self.trusted_proxies.iter().any(|network| network.contains(peer));
            let share = shares.take(peer);
            if share.is_none() && !is_proxy {
                continue;
            }
            let (host, acceptor) = (self.clone(), tls.map(Tls::acceptor));
            connections.spawn(async move {
                // Small answers must not wait for the acknowledgement of others; if it cannot be set, they do.
                drop(stream.set_nodelay(true));
                match acceptor {
                    Some(acceptor) => {
                        let handshake = timeout(host.limits.handshake, acceptor.accept(stream));
                        if let Some(Ok(Ok(stream))) = host.until_begun(handshake).await {
                            host.connection(stream, peer).await;
                        }
                    }
                    None => host.connection::<TcpStream>(stream, peer).await,
                }
                drop(share);
            });
        }
    }

    async fn until_begun<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            done = work => Some(done),
            () = self.drain.until_begun() => None,
        }
    }

    /// One connection. It ends when the other side ends it, when it has no request for too long, and when the daemon
    /// is about to stop; not before requests under way have their answers.
    async fn connection<S>(&self, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let busy = Busy::new(&activity);
            let mut request = request.map(Body::new);
            let client = Client::of(peer, request.headers(), &self.trusted_proxies);
            request.extensions_mut().insert(client);
            let mut router = self.router.clone();
            async move {
                let response = router.call(request).await;
                drop(busy);
                response
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut ending = false;
        let mut check = Instant::now() + self.limits.first_request.min(self.limits.idle);
        loop {
            tokio::select! {
                biased;
                // Errors are the other side's: it has gone, or does not speak HTTP.
                _ = connection.as_mut() => return,
                () = self.drain.until_begun(), if !ending => {}
                () = sleep_until(check) => {
                    let now = Instant::now();
                    match activity.idle_until(self.limits) {
                        Some(_) if ending => return,
                        Some(until) if until <= now => {}
                        Some(until) => {
                            check = until;
                            continue;
                        }
                        None => {
                            check = now + if ending { GOODBYE } else { self.limits.idle };
                            continue;
                        }
                    }
                }
            }
            ending = true;
            connection.as_mut().graceful_shutdown();
            check = Instant::now() + GOODBYE;
        }
    }
}

/// Whether a connection has requests under way, and since when it has none.
#[derive(Clone)]
struct Activity(Arc<Mutex<State>>);

struct State {
    under_way: usize,
    any_yet: bool,
    since: Instant,
}

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            under_way: 0,
            any_yet: false,
            since: Instant::now(),
        })))
    }

    /// Until when the connection may stay without a request; `None` if there is one.
    fn idle_until(&self, limits: Limits) -> Option<Instant> {
        let state = self.lock();
        let patience = if state.any_yet {
            limits.idle
        } else {
            limits.first_request
        };
        (state.under_way == 0).then(|| state.since + patience)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with this lock")
    }
}

/// A request under way.
struct Busy(Activity);

impl Busy {
    fn new(activity: &Activity) -> Self {
        let mut state = activity.lock();
        state.under_way += 1;
        state.any_yet = true;
        drop(state);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.since = Instant::now();
    }
}

/// What every request gets: a line in the log that says nothing of anybody, and headers that keep browsers from doing
/// more than showing the answer.
async fn finish(request: Request, next: Next) -> Response {
    let method = name(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let path = path.as_ref().map_or("none of ours", MatchedPath::as_str);
    debug!(method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Not `no-referrer`: browsers would hide from us, too, that a form came from our own page.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The method, as long as it is not one that a stranger made up.
fn name(method: &Method) -> &'static str {
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|name| method == name)
        .unwrap_or("another")
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_HEAD).header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize);
    builder
}

async fn keep_fresh(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.keep_fresh(REREAD).await,
        None => pending().await,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 128,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            // Longer than proxies keep an unused connection (nginx: 60 s), so that they are the ones to end it.
            idle: Duration::from_secs(75),
            body: Duration::from_secs(10),
            pushes: 512,
            pushes_per_address: 128,
            lookups: 512,
            lookups_per_address: 128,
        }
    }
}

static ACCEPT_PROBLEMS: LogGate = LogGate::new();

/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For the last words on a connection that is to end.
const GOODBYE: Duration = Duration::from_secs(1);
/// Between two looks at the files of the certificate.
const REREAD: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1_024;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Bytes that one HTTP/2 connection may have on the way to us; the least that the protocol has.
const WINDOW: u32 = 65_535;
