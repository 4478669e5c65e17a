//! What a module knows of one token, for an operator who asks why a phone gets no push.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fpush_policy::{BlockReason, Last, Limit, TokenState};
use fpush_push::{LaneId, OutageStatus, Trouble};
use tokio::time::Instant;

use super::{Module, status};

/// What a token is to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// The one that it is registered with, or that a publish carries.
    First,
    /// The one for calls beside it, if there is one.
    Second,
}

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
    /// Until when its lane sends nothing: the whole module, where that is one.
    pub paused: Option<Duration>,
    /// Whether the module's provider takes pushes.
    pub outage: OutageStatus,
    /// What keeps the whole module from working as it should.
    pub trouble: Option<Trouble>,
    /// In which of the provider's environments it is tried first.
    pub home: Home,
    /// The last push to it.
    pub last: Option<Last>,
}

/// In which of the provider's environments a token is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// There is one only.
    Only,
    /// In the main one: the token was never accepted in the other, or later here.
    Main {
        /// The name of the other one.
        other: &'static str,
    },
    /// In the second one, where it was last accepted.
    Second {
        /// Its name.
        name: &'static str,
    },
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
        role: TokenRole,
        node: Option<&str>,
        now: Instant,
        wall: SystemTime,
    ) -> Option<TokenView> {
        let canonical = self.canonical(token)?;
        let fingerprint = self.fingerprint_as(role, &canonical);
        let key = node.map_or(fingerprint, |node| self.senders.hasher().device(node));
        let (token, view, provider, lane) = {
            let mut state = self.lock();
            let now = now.into_std();
            let (lane, _) = state.lanes_of(&canonical, fingerprint, self.senders.hasher());
            (
                state.policy.token(key, fingerprint, lane, now),
                state.policy.view(now),
                Arc::clone(&state.backend),
                lane,
            )
        };
        let backend = provider.status();
        let TokenState {
            limits,
            silenced,
            block,
            paused,
            last,
        } = token;
        Some(TokenView {
            hash: fingerprint.to_string(),
            limits,
            silenced,
            block: block.map(|(reason, left)| Block {
                dead: reason == BlockReason::Dead,
                left,
            }),
            paused,
            outage: status::outage(&view),
            trouble: self.trouble(&view, &*provider, &backend, wall),
            home: match (&backend.second, lane) {
                (None, _) => Home::Only,
                (Some((name, _)), LaneId::Second) => Home::Second { name },
                (Some((other, _)), _) => Home::Main { other },
            },
            last,
        })
    }
}
