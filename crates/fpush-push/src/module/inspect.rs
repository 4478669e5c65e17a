//! What a module knows of one token, for whoever asks why a phone gets no push.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Module;
use crate::{
    Class, Last, Trouble,
    blocklist::BlockReason,
    limiter::{State as Window, Target, Waiting},
};

/// What a module knows of a token, and what keeps pushes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// The name that the token has in the log.
    pub hash: String,
    /// The rate limit and the queue, for each class of pushes of which something is remembered.
    pub limits: Vec<Limit>,
    /// How much longer the provider wants silence for it, because it got too many pushes.
    pub silenced: Option<Duration>,
    /// That nothing is sent to it, if that is so.
    pub block: Option<Block>,
    /// Until when the whole module sends nothing.
    pub paused: Option<Duration>,
    /// What keeps the whole module from working as it should.
    pub trouble: Option<Trouble>,
    /// The last push to it.
    pub last: Option<Last>,
}

/// What the rate limit says of one class of a token's pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The class.
    pub class: Class,
    /// Whether a push waits in the queue.
    pub queued: bool,
    /// When the next push, or the queued one, may go out; zero if it may now.
    pub free_in: Duration,
}

/// That nothing is sent to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whether it is taken for dead; otherwise it is only left alone for a while.
    pub dead: bool,
    /// How much longer.
    pub left: Duration,
}

impl Module {
    /// Looks at a token, and changes nothing; at the limits of the registered device with this node if one is named.
    /// `None` if it cannot be a token of the module's provider.
    #[must_use]
    pub fn inspect(
        &self,
        token: &str,
        node: Option<&str>,
        now: Instant,
        wall: SystemTime,
    ) -> Option<TokenView> {
        let fingerprint = self.hasher.fingerprint(&self.canonical(token)?);
        let key = node.map_or(fingerprint, |node| self.hasher.device(node));
        let mut state = self.lock();
        let backend = state.backend.status();
        let limit = |class| {
            let target = Target {
                key,
                token: fingerprint,
                class,
            };
            let Waiting { window, until } = state.limiter.look(target)?;
            let free_in = until.saturating_duration_since(now);
            let queued = window == Window::Queued;
            (queued || !free_in.is_zero()).then_some(Limit {
                class,
                queued,
                free_in,
            })
        };
        let limits = [Class::High, Class::Low, Class::Voip]
            .into_iter()
            .filter_map(limit);
        let silence = state.limiter.silence(fingerprint);
        Some(TokenView {
            hash: fingerprint.to_string(),
            limits: limits.collect(),
            silenced: silence
                .map(|until| until.saturating_duration_since(now))
                .filter(|left| !left.is_zero()),
            block: state.blocklist.look(fingerprint, now).map(|(reason, end)| Block {
                dead: reason == BlockReason::Dead,
                left: end.saturating_duration_since(now),
            }),
            paused: state
                .fitness
                .paused_until(now)
                .map(|until| until.saturating_duration_since(now)),
            trouble: state.trouble(&backend, now, wall),
            last: self.recent.lock().expect("mutex poisoned").last(fingerprint),
        })
    }
}
