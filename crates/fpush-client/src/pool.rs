//! The connections to one origin. HTTP/1.1 has a connection for each request under way, up to a bound; HTTP/2 has one for all.

use std::{
    error::Error as _,
    mem,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::Bytes;
use fpush_push::sync::lock;
use h2::Reason;
use http::{Request, Response, Uri, header::HOST};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::debug;

use crate::{
    activity::{Activity, Watched},
    answer::SendError,
    dial::{Connector, Protocol, connect},
    obstacle::{Obstacle, root_cause},
    origin::Origin,
    tally::Tally,
};

/// How all origins are reached.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) connector: Connector,
    /// Connections to one origin of HTTP/1.1.
    pub(crate) max_connections: NonZeroUsize,
    pub(crate) tally: Arc<Tally>,
}

/// The connections to one origin.
#[derive(Debug)]
pub(crate) struct Pool {
    /// A request holds a place while it opens a connection or uses one of HTTP/1.1. There is one place until the origin has
    /// spoken HTTP/1.1.
    places: Arc<Semaphore>,
    connections: Mutex<Connections>,
    keeping: Keeping,
}

/// Which connections that are not in use are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// For this long; zero: none is.
    pub(crate) idle_timeout: Duration,
    /// Of HTTP/1.1, so many.
    pub(crate) max_idle: NonZeroUsize,
}

#[derive(Debug, Default)]
struct Connections {
    /// Whether it has spoken HTTP/1.1.
    http1: bool,
    /// Those of HTTP/1.1 that are not in use, the most recently used one last.
    idle: Vec<Idle<Http1>>,
    /// The one of HTTP/2 that takes requests.
    shared: Option<Idle<Http2>>,
    opened: u64,
}

#[derive(Debug)]
struct Idle<T> {
    connection: T,
    since: Instant,
}

#[derive(Debug)]
struct Http1 {
    number: u64,
    sender: http1::SendRequest<Full<Bytes>>,
    activity: Activity,
}

#[derive(Clone, Debug)]
struct Http2 {
    number: u64,
    sender: http2::SendRequest<Full<Bytes>>,
    activity: Activity,
}

/// A connection in use.
#[derive(Debug)]
enum Lease {
    /// One of HTTP/1.1, for this request alone.
    Own(Http1, OwnedSemaphorePermit),
    /// One of HTTP/2, for all requests.
    Shared(Http2),
}

/// Why there is no answer; and the request, if not a byte of it was sent.
type NoAnswer = TrySendError<Request<Full<Bytes>>>;

/// How the wait for an answer ended that did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InVain {
    /// For [`SILENCE`] nothing at all came over the connection.
    Silent,
    /// Something came, or the wait was too short to tell.
    Slow,
}

/// An answer whose head is there.
#[derive(Debug)]
pub(crate) struct Responding<'a> {
    pub(crate) response: Response<Incoming>,
    pub(crate) busy: Busy<'a>,
}

/// The connection that an answer comes over. Dropped before the body has come to its end, it is not used again.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    lease: Lease,
    pool: &'a Pool,
}

impl Pool {
    pub(crate) fn new(keeping: Keeping) -> Self {
        Self {
            places: Arc::new(Semaphore::new(1)),
            connections: Mutex::default(),
            keeping,
        }
    }

    /// Sends a request: the head of the answer. It is repeated only if the origin cannot have acted on it.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        reach: &Reach,
        origin: &Origin,
        request: &Request<Bytes>,
        deadline: Instant,
    ) -> Result<Responding<'_>, SendError> {
        let mut was_refused = false;
        loop {
            let leasing = timeout_at(deadline, self.lease(reach, request.uri()));
            let (mut lease, is_new) = leasing.await.map_err(|_| SendError::TimedOut)??;
            let error = match lease.answer_to(origin, request, deadline).await {
                Ok(Ok(response)) => {
                    let busy = Busy { lease, pool: self };
                    return Ok(Responding { response, busy });
                }
                Ok(Err(error)) => error,
                Err(waited) => {
                    if waited == InVain::Silent {
                        self.lock().forget(lease.number());
                    }
                    return Err(SendError::TimedOut);
                }
            };
            // A stream that was refused was not looked at (RFC 9113 section 8.7), and the others go on.
            if is_refused_stream(error.error()) {
                if !was_refused {
                    was_refused = true;
                    continue;
                }
            } else {
                self.lock().forget(lease.number());
                // An idle connection was closed before a byte of the request went out.
                if error.message().is_some() && !is_new {
                    continue;
                }
            }
            return Err(failure(error.error(), lease.activity()));
        }
    }

    /// A connection to send over, and whether it is new.
    async fn lease(self: &Arc<Self>, reach: &Reach, uri: &Uri) -> Result<(Lease, bool), SendError> {
        if let Some(shared) = self.lock().share(Instant::now()) {
            return Ok((Lease::Shared(shared), false));
        }
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.expect("nobody closes it");
        {
            let mut connections = self.lock();
            if let Some(shared) = connections.share(Instant::now()) {
                return Ok((Lease::Shared(shared), false));
            }
            if let Some(own) = connections.take() {
                return Ok((Lease::Own(own, place), false));
            }
        }
        Ok((self.open(reach, uri, place).await?, true))
    }

    /// A new connection. It is the pool's: who gives up waiting for it leaves it to those who come next, because they would
    /// otherwise begin again and again, each with the time that the one before has left.
    async fn open(
        self: &Arc<Self>,
        reach: &Reach,
        uri: &Uri,
        place: OwnedSemaphorePermit,
    ) -> Result<Lease, SendError> {
        let (pool, reach, uri) = (Arc::clone(self), reach.clone(), uri.clone());
        let (opened, opening) = oneshot::channel();
        tokio::spawn(async move {
            let lease = timeout(LONGEST_DIAL, pool.dial(&reach, &uri, place)).await;
            let unwanted = opened.send(lease.unwrap_or(Err(SendError::TimedOut)));
            if let Err(Ok(lease)) = unwanted {
                Busy { lease, pool: &pool }.finish();
            }
        });
        opening.await.unwrap_or(Err(SendError::TimedOut))
    }

    async fn dial(
        self: &Arc<Self>,
        reach: &Reach,
        uri: &Uri,
        place: OwnedSemaphorePermit,
    ) -> Result<Lease, SendError> {
        let dialing = connect(reach.connector.clone(), uri.clone());
        let (stream, protocol) = dialing.await.map_err(|obstacle| {
            reach.tally.count_failed_connect();
            SendError::Unreachable(match obstacle {
                Obstacle::NotHttp2 => Obstacle::NotHttp,
                other => other,
            })
        })?;
        let activity = Activity::default();
        let stream = TokioIo::new(Watched::new(stream, activity.clone(), Some(MAX_READ)));
        let number = {
            let mut connections = self.lock();
            if protocol == Protocol::Http1 && !mem::replace(&mut connections.http1, true) {
                self.places.add_permits(reach.max_connections.get() - 1);
            }
            connections.opened += 1;
            connections.opened
        };
        let life = Life {
            pool: Arc::downgrade(self),
            number,
            idle_timeout: self.keeping.idle_timeout,
            tally: Arc::clone(&reach.tally),
        };
        match protocol {
            Protocol::Http1 => {
                let handshake = http1::Builder::new()
                    .max_header_size(MAX_HEADERS as usize)
                    .max_buf_size(2 * MAX_HEADERS as usize)
                    .handshake(stream);
                let (sender, connection) = handshake.await.map_err(|e| failure(&e, &activity))?;
                tokio::spawn(life.live(connection));
                let http1 = Http1 {
                    number,
                    sender,
                    activity,
                };
                Ok(Lease::Own(http1, place))
            }
            Protocol::Http2 => {
                let handshake = http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(MAX_HEADERS)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .handshake(stream);
                let (sender, connection) = handshake.await.map_err(|e| failure(&e, &activity))?;
                let http2 = Http2 {
                    number,
                    sender,
                    activity,
                };
                self.lock().shared = Some(Idle {
                    connection: http2.clone(),
                    since: Instant::now(),
                });
                tokio::spawn(life.live(connection));
                Ok(Lease::Shared(http2))
            }
        }
    }

    /// Whether it has a connection that is not in use, or one for all.
    pub(crate) fn is_open(&self) -> bool {
        let connections = self.lock();
        connections.shared.is_some() || !connections.idle.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        lock(&self.connections)
    }
}

impl Connections {
    /// The connection that all share, if there is one that takes requests.
    fn share(&mut self, now: Instant) -> Option<Http2> {
        self.shared.take_if(|shared| shared.connection.sender.is_closed());
        let shared = self.shared.as_mut()?;
        shared.since = now;
        Some(shared.connection.clone())
    }

    /// The connection of HTTP/1.1 that was used last. It may have been closed meanwhile.
    fn take(&mut self) -> Option<Http1> {
        self.idle.pop().map(|idle| idle.connection)
    }

    /// Sends no further request over a connection.
    fn forget(&mut self, number: u64) {
        self.shared.take_if(|shared| shared.connection.number == number);
        self.idle.retain(|idle| idle.connection.number != number);
    }

    /// Forgets a connection that nobody has used for this long. If it was used meanwhile, it says when to look again.
    fn expire(&mut self, number: u64, idle_timeout: Duration, now: Instant) -> Option<Instant> {
        let shared = self.shared.iter();
        let shared = shared.map(|shared| (shared.connection.number, shared.since));
        let idle = self.idle.iter();
        let idle = idle.map(|idle| (idle.connection.number, idle.since));
        let since = shared.chain(idle).find(|(other, _)| *other == number);
        // One that is not there has a request under way.
        let end = since.map_or(now + LOOK_AGAIN, |(_, since)| since + idle_timeout);
        if end <= now {
            self.forget(number);
            return None;
        }
        Some(end)
    }
}

impl Lease {
    fn number(&self) -> u64 {
        match self {
            Self::Own(Http1 { number, .. }, _) | Self::Shared(Http2 { number, .. }) => *number,
        }
    }

    fn activity(&self) -> &Activity {
        match self {
            Self::Own(Http1 { activity, .. }, _) | Self::Shared(Http2 { activity, .. }) => activity,
        }
    }

    /// Sends a request: the head of the answer, or why there is none, if that is known by the deadline.
    async fn answer_to(
        &mut self,
        origin: &Origin,
        request: &Request<Bytes>,
        deadline: Instant,
    ) -> Result<Result<Response<Incoming>, NoAnswer>, InVain> {
        let activity = self.activity().clone();
        let mut sending = pin!(self.send(origin, request));
        let mut reads = None;
        if let Some(listening) = deadline.checked_sub(SILENCE)
            && Instant::now() < listening
        {
            match timeout_at(listening, &mut sending).await {
                Ok(answer) => return Ok(answer),
                Err(_) => reads = Some(activity.reads()),
            }
        }
        match timeout_at(deadline, sending).await {
            Ok(answer) => Ok(answer),
            Err(_) if reads == Some(activity.reads()) => Err(InVain::Silent),
            Err(_) => Err(InVain::Slow),
        }
    }

    async fn send(
        &mut self,
        origin: &Origin,
        request: &Request<Bytes>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        self.activity().count_request();
        let mut request = request.clone().map(Full::new);
        match self {
            Self::Own(http1, _) => {
                if let Some(host) = origin.host_header() {
                    request.headers_mut().insert(HOST, host);
                }
                if let Some(path) = request.uri().path_and_query() {
                    *request.uri_mut() = Uri::from(path.clone());
                }
                http1.sender.try_send_request(request).await
            }
            Self::Shared(http2) => http2.sender.try_send_request(request).await,
        }
    }
}

impl Busy<'_> {
    /// The body has come to its end: the connection may take the next request.
    pub(crate) fn finish(self) {
        if let Lease::Own(connection, place) = self.lease
            && !self.pool.keeping.idle_timeout.is_zero()
        {
            let mut connections = self.pool.lock();
            if connections.idle.len() < self.pool.keeping.max_idle.get() {
                connections.idle.push(Idle {
                    connection,
                    since: Instant::now(),
                });
            }
            drop(place);
        }
    }

    /// The body broke off: the connection is not used again.
    pub(crate) fn leave(self) {
        self.pool.lock().forget(self.lease.number());
    }
}

/// What the task of a connection knows.
struct Life {
    pool: Weak<Pool>,
    number: u64,
    idle_timeout: Duration,
    tally: Arc<Tally>,
}

impl Life {
    /// The life of a connection.
    async fn live(self, connection: impl Future<Output = hyper::Result<()>>) {
        let _open = self.tally.connected();
        let mut connection = pin!(connection);
        let mut look = Instant::now() + self.idle_timeout;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(e) = ended {
                        debug!("a connection ended: {}", root_cause(&e));
                    }
                    if let Some(pool) = self.pool.upgrade() {
                        pool.lock().forget(self.number);
                    }
                    return;
                }
                () = sleep_until(look) => {}
            }
            let pool = self.pool.upgrade();
            match pool.and_then(|pool| pool.lock().expire(self.number, self.idle_timeout, Instant::now())) {
                Some(next) => look = next,
                None => break,
            }
        }
        // Nobody can send over it any more: it ends when the last answer has come.
        drop(timeout(FAREWELL, connection).await);
    }
}

/// Why a request has no answer.
fn failure(error: &hyper::Error, activity: &Activity) -> SendError {
    // What h2 itself objects to is not HTTP/2.
    let is_objected_to = http2_error(error).is_some_and(h2::Error::is_library);
    if error.is_parse() || is_objected_to || activity.is_overdrawn() {
        SendError::Malformed(root_cause(error))
    } else {
        SendError::Broken(root_cause(error))
    }
}

fn is_refused_stream(error: &hyper::Error) -> bool {
    http2_error(error)
        .is_some_and(|http2| http2.is_remote() && http2.reason() == Some(Reason::REFUSED_STREAM))
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}

/// A connection that is not there by then comes to nothing.
const LONGEST_DIAL: Duration = Duration::from_secs(10);
/// A connection of HTTP/2 that brought nothing for this long, while a request waited in vain, takes no other.
const SILENCE: Duration = Duration::from_secs(2);
/// When to look again whether a connection is idle that has a request under way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long answers may still come over a connection that is left.
const FAREWELL: Duration = Duration::from_secs(60);
const MAX_HEADERS: u32 = 16 * 1_024;
/// All that may come for one request: interim answers, frames that say nothing, bodies that are too long.
const MAX_READ: usize = 1 << 20;
const STREAM_WINDOW: u32 = 64 * 1_024;
const CONNECTION_WINDOW: u32 = 1 << 20;
