//! One port: connections, TLS, and the bounds that hold for any router behind it.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, middleware::from_fn};
use fpush_driver::Drain;
use fpush_push::Network;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_service::Service as _;
use tracing::warn;

use crate::{
    answers::finish,
    connections::{Activity, Busy, Connections},
    limits::Limits,
    origin::Client,
    own_thread::OwnThread,
    settings::Security,
    shares::Shares,
    tls::{ServerCertificate, Tls},
};

/// A port that was opened.
pub struct Listener {
    /// The address that was asked for; the port may be 0.
    asked: SocketAddr,
    address: SocketAddr,
    /// What the next listener of this port takes over.
    socket: Arc<StdListener>,
    /// The same socket, as the listener's own thread hears of it.
    accepting: TcpListener,
    tls: Option<Arc<Tls>>,
    thread: OwnThread,
    trusted_proxies: Arc<[Network]>,
    limits: Limits,
}

/// A listener as others see it. It does not keep the port open.
#[derive(Clone)]
pub struct Handle {
    asked: SocketAddr,
    address: SocketAddr,
    socket: Weak<StdListener>,
    tls: Option<Arc<Tls>>,
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
    /// The port is our own: that of a running listener with another address.
    #[error(
        "cannot listen on {address} while this fpush listens on {running}; restart it, or choose another port for listen"
    )]
    Overlap {
        /// The address and port of the settings.
        address: SocketAddr,
        /// Those of the listener that runs.
        running: SocketAddr,
    },
    /// There is no thread for it.
    #[error(
        "cannot start a thread for a listener: {0}; is a limit for the processes or files of this user reached?"
    )]
    Thread(io::Error),
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
    /// Opens the port. Connections wait until [`serve`](Self::serve) takes them.
    ///
    /// Of the listeners that run, one with the same address shares its port with the new one, so that nobody is refused
    /// when the one ends after the other was served.
    ///
    /// # Errors
    ///
    /// The port cannot be had, or there is no thread for it. The text says what to do.
    pub async fn bind(
        address: SocketAddr,
        security: Security,
        limits: Limits,
        running: &[Handle],
    ) -> Result<Self, StartError> {
        let Security {
            tls,
            trusted_proxies,
            host_names: _,
        } = security;
        let bind_error = |problem| StartError::Bind { address, problem };
        let socket = match running.iter().find_map(|handle| handle.shared(address)) {
            Some(socket) => socket,
            None => TcpListener::bind(address)
                .await
                .and_then(TcpListener::into_std)
                .map(Arc::new)
                .map_err(|problem| {
                    let ours = running.iter().find(|handle| handle.overlaps(address));
                    match ours {
                        Some(handle) if problem.kind() == io::ErrorKind::AddrInUse => StartError::Overlap {
                            address,
                            running: handle.address,
                        },
                        _ => bind_error(problem),
                    }
                })?,
        };
        let bound = socket.local_addr().map_err(bind_error)?;
        let thread = OwnThread::start(&format!("http-{}", bound.port())).map_err(StartError::Thread)?;
        let accepting = {
            let _own = thread.enter();
            socket.try_clone().and_then(TcpListener::from_std)
        };
        Ok(Self {
            asked: address,
            address: bound,
            accepting: accepting.map_err(bind_error)?,
            socket,
            tls: tls.map(Tls::new).map(Arc::new),
            thread,
            trusted_proxies: trusted_proxies.into(),
            limits,
        })
    }

    /// Where it listens: the port that was given where the settings ask for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For those who want to know of the listener while it is served.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            asked: self.asked,
            address: self.address,
            socket: Arc::downgrade(&self.socket),
            tls: self.tls.clone(),
        }
    }

    /// Serves the router until the drain begins, on a thread of its own. Ends when what was under way then has its answer,
    /// or when all patience has ended.
    ///
    /// Every request carries a [`Client`]. Every answer gets headers that keep browsers from doing more than showing
    /// it, unless the router has set them itself.
    pub async fn serve(self, router: Router, drain: Drain) {
        let Self {
            asked: _,
            address: _,
            socket,
            accepting,
            tls,
            thread,
            trusted_proxies,
            limits,
        } = self;
        let host = Host {
            router: router.layer(from_fn(finish)),
            builder: builder(),
            tls,
            trusted_proxies,
            shares: Shares::new(usize::MAX, limits.connections_per_address),
            limits,
            drain,
        };
        thread.run(host.serve(socket, accepting)).await;
    }
}

impl Handle {
    /// Where the listener listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When the certificate that the listener uses now expires; `None` without TLS, and if the certificate does not say
    /// it in a way that can be read.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.expires()
    }

    /// From now on the listener has this certificate; it must have one already.
    pub fn renew(&self, certificate: ServerCertificate) {
        if let Some(tls) = &self.tls {
            tls.renew(certificate);
        }
    }

    /// The socket, if it is the one for this address and still open.
    fn shared(&self, address: SocketAddr) -> Option<Arc<StdListener>> {
        [self.asked, self.address]
            .contains(&address)
            .then(|| self.socket.upgrade())?
    }

    /// Whether the listener may be in the way of one with this address.
    fn overlaps(&self, address: SocketAddr) -> bool {
        self.address.port() == address.port() && self.socket.strong_count() > 0
    }
}

/// What all connections share.
#[derive(Clone)]
struct Host {
    router: Router,
    builder: Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    trusted_proxies: Arc<[Network]>,
    /// Connections by address.
    shares: Arc<Shares>,
    limits: Limits,
    drain: Drain,
}

impl Host {
    /// Serves who comes until the drain has begun and the last one has gone.
    async fn serve(self, socket: Arc<StdListener>, accepting: TcpListener) {
        let mut connections = Connections::default();
        tokio::select! {
            () = self.accept(&accepting, &mut connections) => {}
            () = remind(self.tls.as_deref()) => {}
        }
        drop(accepting);
        // The socket goes on with the next listener of this port, and with it the clients that wait to be accepted. If there is
        // none, the clients that wait now are still served: closing the socket would reset their connections. Later ones are refused.
        if let Some(socket) = Arc::into_inner(socket) {
            self.accept_rest(&socket, &mut connections);
        }
        while connections.join_next().await {}
    }

    /// Accepts connections until the daemon is about to stop.
    async fn accept(&self, listener: &TcpListener, connections: &mut Connections) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.until_begun() => return,
                true = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.wait_for_room(connections).await;
                    self.receive(stream, peer.ip(), connections);
                }
                Err(problem) => {
                    warn!(%problem, "a connection could not be accepted");
                    // Usually there are no file descriptors left.
                    connections.make_room();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Where there is no room for another connection, one ends that has no request under way; if there is none, waits for
    /// one, and not beyond the beginning of the end.
    async fn wait_for_room(&self, connections: &mut Connections) {
        while connections.len() >= self.limits.connections && !connections.make_room() {
            tokio::select! {
                biased;
                () = self.drain.until_begun() => return,
                true = connections.join_next() => {}
                () = sleep(ACCEPT_PAUSE) => {}
            }
        }
    }

    /// Accepts the clients that have connected already.
    fn accept_rest(&self, listener: &StdListener, connections: &mut Connections) {
        // Nobody is to come between the last of them and the end of the socket; if it cannot be set, few do.
        drop(SockRef::from(listener).listen(0));
        while connections.len() < self.limits.connections {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let nonblocking = stream.set_nonblocking(true);
                    if let Ok(stream) = nonblocking.and_then(|()| TcpStream::from_std(stream)) {
                        self.receive(stream, peer.ip(), connections);
                    }
                }
                // That one has gone again.
                Err(problem) if problem.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    /// Serves a new connection, unless its address has too many.
    fn receive(&self, stream: TcpStream, peer: IpAddr, connections: &mut Connections) {
        let is_proxy = self.trusted_proxies.iter().any(|network| network.contains(peer));
        let share = self.shares.take(peer);
        if share.is_none() && !is_proxy {
            return;
        }
        let (host, activity) = (self.clone(), Activity::new());
        connections.spawn(peer, activity.clone(), async move {
            // Small answers must not wait for the acknowledgement of others; if it cannot be set, they do.
            drop(stream.set_nodelay(true));
            match &host.tls {
                Some(tls) => {
                    let accepting = tls.acceptor().accept(stream);
                    let handshake = timeout(host.limits.handshake, accepting);
                    if let Some(Ok(Ok(stream))) = host.before_the_end(handshake).await {
                        host.connection(stream, peer, &activity).await;
                    }
                }
                None => host.connection::<TcpStream>(stream, peer, &activity).await,
            }
            drop(share);
        });
    }

    /// Works until shortly after the drain has begun: clients that connected before may have a request on the way.
    async fn before_the_end<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            done = work => Some(done),
            () = self.end() => None,
        }
    }

    async fn end(&self) {
        self.drain.until_begun().await;
        sleep(WELCOME).await;
    }

    /// One connection. It ends when the other side ends it, when it has no request for too long, and when the drain
    /// begins; not before requests under way have their answers, and the first one has had its time to come.
    async fn connection<S>(&self, stream: S, peer: IpAddr, activity: &Activity)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        activity.begin();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let busy = Busy::new(activity);
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
        let mut end = pin!(async {
            self.drain.until_begun().await;
            if activity.is_new() {
                sleep(WELCOME).await;
            }
        });
        let mut ending = false;
        let mut check = Instant::now() + self.limits.first_request.min(self.limits.idle);
        loop {
            tokio::select! {
                biased;
                // Errors are the other side's: it has gone, or does not speak HTTP.
                _ = connection.as_mut() => return,
                () = end.as_mut(), if !ending => {}
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

async fn remind(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.remind().await,
        None => pending().await,
    }
}

/// After a connection that could not be accepted, and where each has a request under way.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For the last words on a connection that is to end.
const GOODBYE: Duration = Duration::from_secs(1);
/// For the first request of a client that was accepted just before the end: it must not be lost when another listener takes the
/// port over.
const WELCOME: Duration = Duration::from_secs(1);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1_024;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Bytes that one HTTP/2 connection may have on the way to us; the least that the protocol has.
const WINDOW: u32 = 65_535;
