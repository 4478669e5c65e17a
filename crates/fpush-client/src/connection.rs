//! One connection to a provider, from dialing to its end.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection as Http2, SendRequest},
};
use http::Uri;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    activity::{Activity, Watched},
    answer::SendError,
    dial::{Connector, Protocol, Stream, connect},
    obstacle::{Obstacle, root_cause},
    tally::Tally,
};

/// A connection as those see it who send over it. Where none of them is left its task finishes what is under way
/// and closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    state: watch::Receiver<State>,
    activity: Activity,
    /// Requests in a row that timed out while nothing at all was read.
    silent: AtomicU32,
    /// The most requests at a time that the provider was seen to let through since it took the first one; 0 before.
    most_streams: AtomicUsize,
}

#[derive(Debug)]
enum State {
    Dialing,
    Up(SendRequest<Bytes>),
    /// It never came to be.
    Unreachable(Obstacle),
    /// It has ended, or takes nothing new; and the reason, if it broke.
    Over(Option<String>),
}

/// Why nothing can be sent.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// No connection came to be, for this reason.
    Unreachable(Obstacle),
    /// It was there, and is over.
    Over,
}

impl From<Unusable> for SendError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Unreachable(reason) => Self::Unreachable(reason),
            Unusable::Over => Self::Broken("it was closed at once".to_owned()),
        }
    }
}

impl Connection {
    /// Begins to dial. `uri` is the provider's, of which only the authority matters.
    pub(crate) fn open(
        connector: Connector,
        uri: Uri,
        idle_timeout: Duration,
        tally: Arc<Tally>,
    ) -> Arc<Self> {
        let (sender, state) = watch::channel(State::Dialing);
        let activity = Activity::default();
        tokio::spawn(live(
            connector,
            uri,
            activity.clone(),
            idle_timeout,
            tally,
            sender,
        ));
        Arc::new(Self {
            state,
            activity,
            silent: AtomicU32::new(0),
            most_streams: AtomicUsize::new(0),
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
            State::Dialing | State::Unreachable(_) | State::Over(_) => None,
        };
        let sender = match up {
            Some(sender) => sender,
            // Boxed, because few wait: the future of every other push stays small.
            None => Box::pin(self.until_up()).await?,
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
            State::Dialing | State::Over(_) => Err(Unusable::Over),
        }
    }

    /// Why it broke, if that is known: its requests only hear that they have none any more.
    pub(crate) fn cause_of_end(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Over(cause) => cause.clone(),
            State::Dialing | State::Up(_) | State::Unreachable(_) => None,
        }
    }

    /// An answer came, to a request that the provider took or did not take.
    pub(crate) fn note_answer(&self, is_taken: bool) {
        self.silent.store(0, Ordering::Relaxed);
        // Before the first one Apple allows one at a time.
        if is_taken && self.most_streams.load(Ordering::Relaxed) == 0 {
            self.most_streams.store(self.streams(), Ordering::Relaxed);
        }
    }

    /// Whether the provider lets fewer requests through at a time than before, so that many of these must wait. It asks h2
    /// under its lock, so it is nothing for every push.
    pub(crate) fn is_cut(&self, requests: usize) -> bool {
        let streams = self.streams();
        let before = match self.most_streams.load(Ordering::Relaxed) {
            0 => return false,
            _ => self.most_streams.fetch_max(streams, Ordering::Relaxed),
        };
        streams < before && requests.saturating_sub(streams) >= streams.max(MANY_WAIT)
    }

    /// How many requests at a time the provider lets through now.
    fn streams(&self) -> usize {
        match &*self.state.borrow() {
            State::Up(sender) => sender.current_max_send_streams(),
            State::Dialing | State::Unreachable(_) | State::Over(_) => 0,
        }
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
    tally: Arc<Tally>,
    state: watch::Sender<State>,
) {
    let dialing = dial(connector, uri, activity.clone());
    let dialed = timeout(DIALING, dialing).await;
    let (sender, mut http2) = match dialed.unwrap_or(Err(Obstacle::TimedOut)) {
        Ok(up) => up,
        Err(reason) => {
            tally.count_failed_connect();
            state.send_replace(State::Unreachable(reason));
            return;
        }
    };
    let _open = tally.connected();
    let pings = http2.ping_pong();
    state.send_replace(State::Up(sender));
    let mut http2 = pin!(http2);
    let leaving = tokio::select! {
        ended = &mut http2 => {
            let cause = ended.err().map(|e| root_cause(&e));
            if let Some(cause) = &cause {
                debug!("the provider's connection ended: {cause}");
            }
            state.send_replace(State::Over(cause));
            return;
        }
        leaving = upkeep(pings, &activity, idle_timeout, &tally) => leaving,
        () = state.closed() => Leaving::Unwanted,
    };
    debug!(?leaving, "leaving the provider's connection");
    // With the last sender gone, it ends as soon as the last answer has come.
    state.send_replace(State::Over(None));
    match leaving {
        // Its requests break, and are sent over the next one.
        Leaving::Silent => {}
        Leaving::Idle | Leaving::Unwanted => drop(timeout(FAREWELL, http2).await),
    }
}

/// Opens a connection and exchanges the first frames.
async fn dial(
    connector: Connector,
    uri: Uri,
    activity: Activity,
) -> Result<(SendRequest<Bytes>, Http2<Watched<Stream>, Bytes>), Obstacle> {
    let (stream, protocol) = connect(connector, uri).await?;
    if protocol != Protocol::Http2 {
        return Err(Obstacle::NotHttp2);
    }
    Builder::new()
        .enable_push(false)
        // Until the provider says how many it takes. What it refuses until then is sent again.
        .initial_max_send_streams(100)
        // A thousand answers with a body each must not wait for one another.
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .handshake(Watched::new(stream, activity, None))
        .await
        .map_err(|e| Obstacle::of(&e))
}

/// Pings a connection (RFC 9113 section 6.7), soon after it is up and then every half a minute: so that one that is
/// dead is noticed before a push is, and somebody who looks sees how far away the provider is. Resolves when the
/// connection is to be left.
async fn upkeep(
    pings: Option<PingPong>,
    activity: &Activity,
    idle_timeout: Duration,
    tally: &Tally,
) -> Leaving {
    let mut pings = pings.expect("nobody else has taken it");
    let mut requests = activity.requests();
    let mut idle_since = Instant::now();
    let mut interval = FIRST_PING;
    // When the PING went out that is not answered yet.
    let mut unanswered = None;
    loop {
        sleep(interval.min(idle_timeout)).await;
        interval = PING_INTERVAL;
        if activity.requests() != requests {
            requests = activity.requests();
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= idle_timeout {
            return Leaving::Idle;
        }
        let reads = activity.reads();
        let sent = match unanswered {
            Some(sent) => sent,
            None if pings.send_ping(Ping::opaque()).is_ok() => Instant::now(),
            None => return Leaving::Silent,
        };
        match timeout(PING_TIMEOUT, poll_fn(|cx| pings.poll_pong(cx))).await {
            Ok(Ok(_)) => {
                tally.note_ping(sent.elapsed());
                unanswered = None;
            }
            // Busy, but not dead.
            Err(_) if activity.reads() != reads => unanswered = Some(sent),
            Ok(Err(_)) | Err(_) => return Leaving::Silent,
        }
    }
}

/// How long it may take to connect, TLS and HTTP/2 included.
const DIALING: Duration = Duration::from_secs(10);
/// How long requests may go on that were sent before a connection was left.
const FAREWELL: Duration = Duration::from_secs(60);
/// When the first pushes that a new connection was opened for are through.
const FIRST_PING: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_SILENT: u32 = 3;
const MANY_WAIT: usize = 8;
const WINDOW: u32 = 1 << 20;
const MAX_HEADERS: u32 = 16 * 1_024;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, DuplexStream, duplex, empty},
        task::JoinHandle,
    };

    use super::*;

    /// Both ends of a connection, as tasks: what it is pinged with, and the task of the provider's end.
    async fn connected() -> (Option<PingPong>, JoinHandle<()>) {
        let (ours, theirs) = duplex(65_536);
        let provider = tokio::spawn(serve(theirs));
        let (sender, mut http2) = Builder::new().handshake::<_, Bytes>(ours).await.unwrap();
        let pings = http2.ping_pong();
        tokio::spawn(async move {
            let _sender = sender;
            drop(http2.await);
        });
        (pings, provider)
    }

    async fn serve(stream: DuplexStream) {
        let mut http2 = h2::server::handshake(stream).await.unwrap();
        while http2.accept().await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_ping_comes_soon_and_a_dead_connection_is_left() {
        let (pings, provider) = connected().await;
        let (activity, tally) = (Activity::default(), Tally::default());
        let start = Instant::now();
        let mut life = pin!(upkeep(pings, &activity, 100 * PING_INTERVAL, &tally));
        assert!(timeout(2 * FIRST_PING, &mut life).await.is_err());
        assert!(tally.status().ping < Some(PING_TIMEOUT));
        assert!(tally.status().ping.is_some());
        assert!(timeout(5 * PING_INTERVAL, &mut life).await.is_err());
        provider.abort();
        assert!(matches!(life.await, Leaving::Silent));
        assert!(start.elapsed() < 2 * FIRST_PING + 6 * PING_INTERVAL + PING_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_may_be_slow_to_answer() {
        let (ours, silent) = duplex(65_536);
        let (_sender, mut http2) = Builder::new().handshake::<_, Bytes>(ours).await.unwrap();
        let pings = http2.ping_pong();
        tokio::spawn(async move { drop(http2.await) });
        let (activity, tally) = (Activity::default(), Tally::default());
        let mut life = pin!(upkeep(pings, &activity, 100 * PING_INTERVAL, &tally));
        let mut busy = Watched::new(empty(), activity.clone(), None);
        for _ in 0..100 {
            assert!(timeout(PING_TIMEOUT / 2, &mut life).await.is_err());
            busy.read_u8().await.unwrap_err();
        }
        assert_eq!(tally.status().ping, None);
        assert!(matches!(life.await, Leaving::Silent), "nothing comes any more");
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_do_not_keep_an_idle_connection() {
        let (pings, _provider) = connected().await;
        let (activity, tally) = (Activity::default(), Tally::default());
        let start = Instant::now();
        let leaving = upkeep(pings, &activity, 3 * PING_INTERVAL, &tally).await;
        assert!(matches!(leaving, Leaving::Idle));
        assert!(start.elapsed() <= 4 * PING_INTERVAL);
    }
}
