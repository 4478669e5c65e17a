//! What there is to say about a module and its tokens, as values: the words are made where they are shown.

use std::time::{Duration, Instant};

use fpush_push::{Class, Fingerprint, LaneId, TroubleKind};

use crate::{
    block::BlockReason,
    health::{Complaint, worse},
    hold::HeldPush,
    limiter::Target,
    outage::LaneState,
    policy::Policy,
    recent::Last,
    records::{BlockRecord, Clocks},
    shared::Change,
    verdict::{Condition, VerdictRecord},
};

/// A module at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Pushes at the provider, those included that wait for their next attempt.
    pub in_flight: usize,
    /// Publishes that wait for a permit.
    pub waiting: usize,
    /// Acknowledged pushes that are held.
    pub held: usize,
    /// Those of them that wait until the provider is back.
    pub spooled: usize,
    /// How long ago the oldest of those was published.
    pub spooled_since: Option<Duration>,
    /// In how long those are out, if the provider takes them; unknown while it is down.
    pub spooled_out_in: Option<Duration>,
    /// What the lane does.
    pub lane: LaneState,
    /// Keys that the rate limit remembers.
    pub limited_tokens: usize,
    /// Tokens that the block list remembers.
    pub blocked_tokens: usize,
    /// Tokens that the provider called dead or wrong, and that are not believed dead.
    pub doubted_tokens: usize,
    /// How long ago the provider last accepted a push.
    pub last_accepted: Option<Duration>,
    /// Whether the provider has shown that it accepts the credentials.
    pub proven: bool,
    /// How the provider treats tokens.
    pub condition: Condition,
    /// What keeps the module from working as it should.
    pub trouble: Option<(TroubleKind, Complaint)>,
    /// The second lane alone, if anything was ever sent there. All of the above is of all lanes, but what they do and hold in an
    /// outage: only the main one has a spool.
    pub second: Option<SecondView>,
    /// The lanes of vendors, each alone, likewise.
    pub vendors: Vec<VendorView>,
}

/// The second lane of a module at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondView {
    /// How long ago the provider last accepted a push there.
    pub last_accepted: Option<Duration>,
    /// What keeps it from working as it should.
    pub trouble: Option<(TroubleKind, Complaint)>,
}

/// The lane of a vendor at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorView {
    /// As in [`LaneId::Vendor`].
    pub vendor: u8,
    /// How it treats tokens.
    pub condition: Condition,
    /// What keeps it from working as it should.
    pub trouble: Option<(TroubleKind, Complaint)>,
}

/// What a module knows of a token, and what keeps pushes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// The rate limit and the queue, for each class of pushes of which something is remembered.
    pub limits: Vec<Limit>,
    /// How much longer the provider wants silence for it, because it got too many pushes.
    pub silenced: Option<Duration>,
    /// Why nothing is sent to it, and how much longer.
    pub block: Option<(BlockReason, Duration)>,
    /// Until when its lane sends nothing: the whole module, where that is one.
    pub paused: Option<Duration>,
    /// The last push to it.
    pub last: Option<Last>,
}

/// What the rate limit and the queue say of one class of a token's pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The class.
    pub class: Class,
    /// What they wait for.
    pub waits: Waits,
}

/// What pushes of one class wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The next one may go out in so long.
    Limited(Duration),
    /// One is queued, and goes out in so long; zero if it is its turn.
    Queued(Duration),
    /// One is held until the provider is back, and given up in so long.
    Held(Duration),
}

impl<W> Policy<W> {
    /// The module now.
    pub fn view(&mut self, now: Instant) -> View {
        let (in_flight, waiting) = self.lengths();
        let at = self.clock.seconds(now);
        let (beside, last_beside) = (self.lanes_beside(at, now), self.accepted_beside());
        let spooled = self.spool.len() + self.held.spooled();
        View {
            in_flight,
            waiting,
            held: self.held(),
            spooled,
            spooled_since: self
                .spool
                .oldest()
                .map(|oldest| now.saturating_duration_since(oldest)),
            spooled_out_in: self.outage.out_in(spooled, now),
            lane: self.outage.state(now),
            limited_tokens: self.limiter.len(),
            blocked_tokens: self.blocklist.len(),
            doubted_tokens: self.guard.doubted() + beside.doubted,
            last_accepted: self
                .health
                .last_accepted()
                .max(last_beside)
                .map(|accepted| now.saturating_duration_since(accepted)),
            proven: self.health.is_proven() || beside.proven,
            condition: self.guard.condition(at).max(beside.condition),
            trouble: worse(self.health.trouble(now), beside.trouble),
            second: self.second(now),
            vendors: beside.vendors,
        }
    }

    /// What is known of a token, at the limits of this key, and of its lane. Changes nothing.
    #[must_use]
    pub fn token(&self, key: Fingerprint, token: Fingerprint, lane: LaneId, now: Instant) -> TokenState {
        let left = |until: Instant| until.saturating_duration_since(now);
        let is_down = matches!(self.outage.state(now), LaneState::Down { .. });
        let limit = |class| {
            let target = Target { key, token, class };
            let held = |expires| Waits::Held(left(expires));
            let queued = |push: &HeldPush| match push.expires {
                // It is the next one that finds out whether the provider is back.
                Some(expires) if push.is_spooled && is_down => held(expires),
                _ => Waits::Queued(left(push.due)),
            };
            let limited = |until| Waits::Limited(left(until));
            let waits = self.spool.expires(target).map(held);
            let waits = waits.or_else(|| self.held.queued_push(target).map(queued));
            let waits = waits.or_else(|| self.limiter.not_before(target, now).map(limited))?;
            Some(Limit { class, waits })
        };
        TokenState {
            limits: [Class::High, Class::Low, Class::Voip]
                .into_iter()
                .filter_map(limit)
                .collect(),
            silenced: self.limiter.silence(token, now).map(left),
            block: self
                .blocklist
                .look(token, now)
                .map(|(reason, end)| (reason, left(end))),
            paused: self.paused_until(lane, now).map(left),
            last: self.recent.last(token),
        }
    }

    /// The provider was asked whether it accepts the credentials of these settings.
    pub fn verified(&mut self, answer: Result<(), &fpush_push::Failure>, generation: u64, now: Instant) {
        if generation != self.generation() {
            return;
        }
        match answer {
            Ok(()) => {
                let had_paused = self.health.has_paused();
                self.health.verified();
                if had_paused && !self.health.has_paused() {
                    self.outbox.tell(|| Change::Resume);
                }
                if self.health.paused_until(now).is_none() {
                    self.outage.probe_soon(now);
                }
            }
            Err(failure) => self.health.not_verified(failure),
        }
    }

    /// The provider accepted a push with the credentials of these settings that the operator tried: a proof for its lane, and
    /// nothing for the token.
    pub fn tried(&mut self, lane: LaneId, generation: u64, now: Instant) {
        match lane {
            LaneId::Main => self.verified(Ok(()), generation, now),
            LaneId::Second | LaneId::Vendor(_) => {}
            // Nobody asks how strangers' servers are.
            LaneId::Origin(_) => return,
        }
        if generation == self.generation() {
            self.health_of(lane).tried();
        }
    }

    /// Whether the provider has shown that it accepts the credentials.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.health.is_proven()
    }

    /// Whether it is to be asked for that, or for whether it still refuses the settings.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        self.health.needs_proof()
    }

    /// How many acknowledged pushes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len() + self.spool.len()
    }

    /// How often the block list, what is known of the provider's words, and where tokens are at home, have changed so far.
    #[must_use]
    pub fn changes(&self) -> [u64; 3] {
        [
            self.blocklist.changes(),
            self.guard_changes(),
            self.home_changes(),
        ]
    }

    /// A part of the block list, to be written down, from a place on, and the place of the next part; none after the last
    /// one. In parts, because pushes wait for as long as this takes. A block that moves meanwhile may be in none of them.
    #[must_use]
    pub fn blocks(&self, from: usize, clocks: Clocks) -> (Vec<BlockRecord>, Option<usize>) {
        self.blocklist.part(from, PART, clocks)
    }

    /// Takes what was written down of the block list and of the provider's words before the daemon started.
    pub fn remember(
        &mut self,
        blocks: impl IntoIterator<Item = BlockRecord>,
        verdicts: impl IntoIterator<Item = VerdictRecord>,
        clocks: Clocks,
    ) {
        self.blocklist.remember(blocks, clocks);
        // What a provider said to other settings, or to nobody knows which, blocks nothing.
        if !self.remember_words(verdicts, clocks) {
            self.blocklist.unblock_all();
        }
    }
}

/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;
