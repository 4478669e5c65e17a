//! Whether the engine can be asked, and over what.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fpush_push::{metrics::WordCounters, sync::lock};
use redis::RedisError;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{connection::Connection, trouble::Trouble};

/// What all that asks the engine shares. Whoever finds that it cannot be asked says so, and nobody asks until it can be asked
/// again.
pub(crate) struct Link {
    state: Mutex<State>,
    /// The same as in `state`, without the lock.
    up: AtomicBool,
    /// Wakes who opens connections.
    pub(crate) broken: Notify,
    timeout: Duration,
    /// Requests by what became of them.
    pub(crate) requests: WordCounters,
}

struct State {
    connection: Option<Connection>,
    /// Time-outs since the last answer.
    timeouts: u32,
    since: Instant,
    trouble: Option<Trouble>,
    /// How often it has come up.
    session: u64,
}

impl Link {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                connection: None,
                timeouts: 0,
                since: Instant::now(),
                trouble: None,
                session: 0,
            }),
            up: AtomicBool::new(false),
            broken: Notify::new(),
            timeout,
            requests: WordCounters::default(),
        }
    }

    /// Whether it can be asked now.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// How often it has come up: what was told before may be lost.
    pub(crate) fn session(&self) -> u64 {
        self.lock().session
    }

    /// Since when it is as it is, and why it is down, as far as that is known.
    pub(crate) fn condition(&self) -> (Instant, Option<Trouble>) {
        let state = self.lock();
        (state.since, state.trouble.clone())
    }

    /// It can be asked over this from now on. Returns why it could not be, if that was said.
    pub(crate) fn come_up(&self, connection: Connection) -> Option<Trouble> {
        let mut state = self.lock();
        state.connection = Some(connection);
        state.timeouts = 0;
        state.since = Instant::now();
        state.session += 1;
        self.up.store(true, Ordering::Relaxed);
        state.trouble.take()
    }

    /// It has forgotten what it was told.
    pub(crate) fn begin_session(&self) {
        self.lock().session += 1;
    }

    /// It cannot be asked. Returns whether that is news.
    pub(crate) fn go_down(&self, trouble: Trouble) -> bool {
        let mut state = self.lock();
        state.connection = None;
        if self.up.swap(false, Ordering::Relaxed) {
            state.since = Instant::now();
        }
        let is_news = state.trouble.is_none();
        state.trouble = Some(trouble);
        is_news
    }

    /// Asks on behalf of a push, which waits for a moment at most. `None` if there is no answer; then this has been dealt with.
    pub(crate) async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&mut Connection) -> redis::RedisResult<T>,
    ) -> Option<T> {
        let mut connection = self.lock().connection.clone()?;
        match timeout(self.timeout, ask(&mut connection)).await {
            Ok(Ok(answer)) => {
                self.lock().timeouts = 0;
                self.requests.increment("ok");
                Some(answer)
            }
            Ok(Err(e)) => {
                self.requests.increment("failed");
                self.fail(&e);
                None
            }
            Err(_) => {
                self.requests.increment("timeout");
                let is_enough = {
                    let mut state = self.lock();
                    state.timeouts += 1;
                    state.timeouts >= MOST_TIMEOUTS
                };
                if is_enough {
                    self.fail_as(Trouble::Slow);
                }
                None
            }
        }
    }

    /// Takes note of an error, after which nobody shall ask.
    pub(crate) fn fail(&self, error: &RedisError) {
        self.fail_as(Trouble::of(error));
    }

    pub(crate) fn fail_as(&self, trouble: Trouble) {
        // Many may find out at the same time.
        if self.is_up() {
            self.go_down(trouble);
            self.broken.notify_one();
        }
    }

    /// What is asked besides, when no push waits.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.lock().connection.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// In a row.
const MOST_TIMEOUTS: u32 = 3;
