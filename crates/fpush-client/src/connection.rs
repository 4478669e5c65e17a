//! One connection to a provider, from dialing to its end.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection as Http2, SendRequest},
};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tower_service::Service as _;
use tracing::{debug, info};

use crate::{
    activity::{Activity, Watched},
    client::root_cause,
    dial::Connector,
};

/// A connection as those see it who send over it. Where none of them is left its task finishes what is under way
/// and closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    state: watch::Receiver<State>,
    activity: Activity,
    /// Requests in a row that timed out while nothing at all was read.
    silent: AtomicU32,
}

#[derive(Debug)]
enum State {
    Dialing,
    Up(SendRequest<Bytes>),
    /// It never came to be.
    Unreachable(String),
    /// It has ended, or takes nothing new.
    Over,
}

/// Why nothing can be sent.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// No connection came to be, for this reason.
    Unreachable(String),
    /// It was there, and is over.
    Over,
}

impl Connection {
    /// Begins to dial. `uri` is the provider's, of which only the authority matters.
    pub(crate) fn open(connector: Connector, uri: Uri, idle_timeout: Duration) -> Arc<Self> {
        let (sender, state) = watch::channel(State::Dialing);
        let activity = Activity::default();
        tokio::spawn(live(connector, uri, activity.clone(), idle_timeout, sender));
        Arc::new(Self {
            state,
            activity,
            silent: AtomicU32::new(0),
        })
    }

    /// Whether a request may be sent over it, or will be as soon as it is up.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(*self.state.borrow(), State::Dialing | State::Up(_))
    }

    /// How often anything was read so far.
    pub(crate) fn reads(&self) -> u64 {
        self.activity.reads()
    }

    /// Waits until a request can be sent.
    pub(crate) async fn ready(&self) -> Result<SendRequest<Bytes>, Unusable> {
        let up = match &*self.state.borrow() {
            State::Up(sender) => Some(sender.clone()),
            State::Dialing | State::Unreachable(_) | State::Over => None,
        };
        let sender = match up {
            Some(sender) => sender,
            None => self.until_up().await?,
        };
        // It fails when the provider has announced the end of the connection.
        let sender = sender.ready().await.map_err(|_| Unusable::Over)?;
        self.activity.count_request();
        Ok(sender)
    }

    async fn until_up(&self) -> Result<SendRequest<Bytes>, Unusable> {
        let mut state = self.state.clone();
        let state = state
            .wait_for(|state| !matches!(state, State::Dialing))
            .await
            .map_err(|_| Unusable::Over)?;
        match &*state {
            State::Up(sender) => Ok(sender.clone()),
            State::Unreachable(reason) => Err(Unusable::Unreachable(reason.clone())),
            State::Dialing | State::Over => Err(Unusable::Over),
        }
    }

    /// An answer came.
    pub(crate) fn note_answer(&self) {
        self.silent.store(0, Ordering::Relaxed);
    }

    /// A request was waited for in vain since this many reads. Returns whether the connection is to be given up.
    pub(crate) fn note_timeout(&self, reads: u64) -> bool {
        if self.reads() != reads {
            self.silent.store(0, Ordering::Relaxed);
            return false;
        }
        let silent = self.silent.fetch_add(1, Ordering::Relaxed) + 1;
        if silent == MAX_SILENT {
            info!("the provider's connection has gone silent; opening a new one");
        }
        silent >= MAX_SILENT
    }
}

/// Why a connection that works takes no new requests.
#[derive(Debug)]
enum Leaving {
    /// Nobody has used it for long.
    Idle,
    /// Nobody has it any more.
    Unwanted,
    /// A PING was not answered.
    Silent,
}

/// The life of a connection.
async fn live(
    connector: Connector,
    uri: Uri,
    activity: Activity,
    idle_timeout: Duration,
    state: watch::Sender<State>,
) {
    let dialing = dial(connector, uri, activity.clone());
    let (sender, mut http2) = match timeout(DIALING, dialing).await {
        Ok(Ok(up)) => up,
        Ok(Err(reason)) => {
            state.send_replace(State::Unreachable(reason));
            return;
        }
        Err(_) => {
            state.send_replace(State::Unreachable("no answer in time".to_owned()));
            return;
        }
    };
    let pings = http2.ping_pong();
    state.send_replace(State::Up(sender));
    let mut http2 = pin!(http2);
    let leaving = tokio::select! {
        ended = &mut http2 => {
            if let Err(e) = ended {
                debug!("the provider's connection ended: {e}");
            }
            state.send_replace(State::Over);
            return;
        }
        leaving = upkeep(pings, &activity, idle_timeout) => leaving,
        () = state.closed() => Leaving::Unwanted,
    };
    debug!(?leaving, "leaving the provider's connection");
    // With the last sender gone, it ends as soon as the last answer has come.
    state.send_replace(State::Over);
    match leaving {
        // Its requests break, and are sent over the next one.
        Leaving::Silent => {}
        Leaving::Idle | Leaving::Unwanted => drop(timeout(FAREWELL, http2).await),
    }
}

/// Opens a connection and exchanges the first frames.
async fn dial(
    mut connector: Connector,
    uri: Uri,
    activity: Activity,
) -> Result<
    (
        SendRequest<Bytes>,
        Http2<impl AsyncRead + AsyncWrite + Unpin, Bytes>,
    ),
    String,
> {
    poll_fn(|cx| connector.poll_ready(cx))
        .await
        .map_err(|e| root_cause(&*e))?;
    let stream = connector.call(uri).await.map_err(|e| root_cause(&*e))?;
    Builder::new()
        .enable_push(false)
        // Until the provider says how many it takes. What it refuses until then is sent again.
        .initial_max_send_streams(100)
        // A thousand answers with a body each must not wait for one another.
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .handshake(Watched::new(TokioIo::new(stream), activity))
        .await
        .map_err(|e| root_cause(&e))
}

/// Sends a PING (RFC 9113 section 6.7) when nothing was read for a while, so that a connection that is dead is
/// noticed before a push is. Resolves when the connection is to be left.
async fn upkeep(pings: Option<PingPong>, activity: &Activity, idle_timeout: Duration) -> Leaving {
    let mut pings = pings.expect("nobody else has taken it");
    let (mut reads, mut requests) = (activity.reads(), activity.requests());
    let mut idle_since = Instant::now();
    loop {
        sleep(PING_INTERVAL.min(idle_timeout)).await;
        if activity.requests() != requests {
            requests = activity.requests();
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= idle_timeout {
            return Leaving::Idle;
        }
        if activity.reads() == reads
            && !matches!(timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await, Ok(Ok(_)))
        {
            return Leaving::Silent;
        }
        reads = activity.reads();
    }
}

/// How long it may take to connect, TLS and HTTP/2 included.
const DIALING: Duration = Duration::from_secs(10);
/// How long requests may go on that were sent before a connection was left.
const FAREWELL: Duration = Duration::from_secs(60);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_SILENT: u32 = 3;
const WINDOW: u32 = 1 << 20;
const MAX_HEADERS: u32 = 16 * 1_024;
