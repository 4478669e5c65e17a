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

/// What all that asks the engine shares. The first that finds that it cannot be asked says so, and nobody asks until it can be asked
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
    timeouts: Timeouts,
    since: Instant,
    trouble: Option<Trouble>,
    /// How often it has come up after others may have forgotten us.
    session: u64,
}

/// Time-outs since the last answer. Those that wait at the same time are one: a moment in which nothing comes harms nothing.
#[derive(Debug, Default)]
struct Timeouts {
    count: u32,
    /// When the last one was counted.
    last: Option<Instant>,
}

impl Timeouts {
    /// What was asked then was not answered in time. Returns whether that is enough.
    fn add(&mut self, asked: Instant, now: Instant) -> bool {
        if self.last.is_none_or(|last| asked >= last) {
            self.count += 1;
            self.last = Some(now);
        }
        self.count >= MOST_TIMEOUTS
    }
}

impl Link {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                connection: None,
                timeouts: Timeouts::default(),
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

    /// How often it has come up after a while: what was heard before is not all that there is.
    pub(crate) fn session(&self) -> u64 {
        self.lock().session
    }

    /// Since when it is as it is, and why it is down, as far as that is known.
    pub(crate) fn condition(&self) -> (Instant, Option<Trouble>) {
        let state = self.lock();
        (state.since, state.trouble.clone())
    }

    /// Whether it has been down for so long, or was never up, that all has to be told and heard again.
    pub(crate) fn was_away(&self) -> bool {
        let state = self.lock();
        state.session == 0 || state.since.elapsed() >= LONG_AWAY
    }

    /// It can be asked over this from now on, in the same session or a new one. Returns why it could not be, if that was said.
    pub(crate) fn come_up(&self, connection: Connection, is_new: bool) -> Option<Trouble> {
        let mut state = self.lock();
        state.connection = Some(connection);
        state.timeouts = Timeouts::default();
        state.since = Instant::now();
        state.session += u64::from(is_new);
        self.up.store(true, Ordering::Relaxed);
        state.trouble.take()
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
        let asked = Instant::now();
        match timeout(self.timeout, ask(&mut connection)).await {
            Ok(Ok(answer)) => {
                self.lock().timeouts = Timeouts::default();
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
                if self.lock().timeouts.add(asked, Instant::now()) {
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

/// One after the other.
const MOST_TIMEOUTS: u32 = 3;
/// Milliseconds after which an instance that says nothing is gone.
pub(crate) const GONE: u64 = 10_000;
/// Others take us for gone then.
const LONG_AWAY: Duration = Duration::from_millis(GONE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_count_one_after_the_other() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut timeouts = Timeouts::default();
        // Many were under way when nothing came for 20 ms.
        for asked in 0..20 {
            assert!(!timeouts.add(at(asked), at(asked + 20)));
        }
        assert_eq!(timeouts.count, 1);
        assert!(!timeouts.add(at(45), at(65)));
        assert!(
            !timeouts.add(at(64), at(84)),
            "it was asked before the second one was over"
        );
        assert!(timeouts.add(at(65), at(85)));
    }
}
