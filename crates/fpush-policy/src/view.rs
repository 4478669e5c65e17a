//! What there is to say about a module and its tokens, as values: the words are made where they are shown.

use std::time::{Duration, Instant};

use fpush_push::{Class, Fingerprint, TroubleKind};

use crate::{
    blocklist::BlockReason,
    health::Complaint,
    limiter::Target,
    outage::LaneState,
    policy::Policy,
    recent::Last,
    records::{BlockRecord, Clocks},
    shared::Change,
    verdict::{Condition, VerdictPlace, VerdictRecord},
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
    /// Until when the whole module sends nothing.
    pub paused: Option<Duration>,
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

impl<W> Policy<W> {
    /// The module now.
    pub fn view(&mut self, now: Instant) -> View {
        let (in_flight, waiting) = self.lengths();
        let at = self.clock.seconds(now);
        View {
            in_flight,
            waiting,
            held: self.held(),
            spooled: self.spool.len(),
            spooled_since: self
                .spool
                .oldest()
                .map(|oldest| now.saturating_duration_since(oldest)),
            spooled_out_in: self.outage.out_in(self.spool.len(), now),
            lane: self.outage.state(now),
            limited_tokens: self.limiter.len(),
            blocked_tokens: self.blocklist.len(),
            doubted_tokens: self.guard.doubted(),
            last_accepted: self
                .health
                .last_accepted()
                .map(|accepted| now.saturating_duration_since(accepted)),
            proven: self.health.is_proven(),
            condition: self.guard.condition(at),
            trouble: self.health.trouble(now),
        }
    }

    /// What is known of a token, at the limits of this key. Changes nothing.
    #[must_use]
    pub fn token(&self, key: Fingerprint, token: Fingerprint, now: Instant) -> TokenState {
        let left = |until: Instant| until.saturating_duration_since(now);
        let limit = |class| {
            let target = Target { key, token, class };
            let spooled = self.spool.find(target).map(|_| now);
            let queued = self.held.queued(target).or(spooled);
            let until = queued.or_else(|| self.limiter.not_before(target, now))?;
            Some(Limit {
                class,
                queued: queued.is_some(),
                free_in: left(until),
            })
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
            paused: self.health.paused_until(now).map(left),
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

    /// Whether the provider has shown that it accepts the credentials.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.health.is_proven()
    }

    /// How many acknowledged pushes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len() + self.spool.len()
    }

    /// How often the block list, and what is known of the provider's words, have changed so far.
    #[must_use]
    pub fn changes(&self) -> [u64; 2] {
        [self.blocklist.changes(), self.guard.changes()]
    }

    /// A part of what is known of the provider's words about tokens, to be written down, from a place on, and the place of
    /// the next part; none after the last one.
    #[must_use]
    pub fn verdicts(&self, from: VerdictPlace, now: Instant) -> (Vec<VerdictRecord>, Option<VerdictPlace>) {
        self.guard.part(from, PART, self.clock.seconds(now))
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
        let now = self.clock.seconds(clocks.now);
        // What a provider said to other settings, or to nobody knows which, blocks nothing.
        if !self.guard.remember(verdicts, now) {
            self.blocklist.unblock_all();
        }
    }
}

/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;
