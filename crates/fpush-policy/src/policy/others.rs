//! The lanes of a module beside its main one: whose turn it is there, and what strangers' servers are believed.

use std::time::{Duration, Instant};

use fpush_push::{Choice, Failure, Fingerprint, LaneId, Outcome, PushError, TroubleKind};

use super::{Grant, Policy, lanes::SECOND, turns::Wanting};
use crate::{
    attempts::{Answered, Ended, Next},
    block::BlockReason,
    health::{Complaint, ModuleHealth, worse},
    job::PushJob,
    verdict::{Belief, Condition, Publisher, Seconds, VerdictGuard, Word},
    view::{SecondView, VendorView},
};

/// How the lanes beside the main one are.
pub(crate) struct Beside {
    /// Tokens that were called dead or wrong, and that are not believed dead.
    pub(crate) doubted: usize,
    /// The worst.
    pub(crate) condition: Condition,
    /// The worst.
    pub(crate) trouble: Option<(TroubleKind, Complaint)>,
    /// Whether one of them has shown that it accepts the credentials.
    pub(crate) proven: bool,
    /// Those of vendors.
    pub(crate) vendors: Vec<VendorView>,
}

impl<W> Policy<W> {
    /// What a lane's answers say of how it is. Nobody asks that of strangers' servers.
    pub(crate) fn health_of(&mut self, lane: LaneId) -> &mut ModuleHealth {
        match lane {
            LaneId::Second => &mut self.lanes.vendor(SECOND).health,
            LaneId::Vendor(vendor) => &mut self.lanes.vendor(vendor).health,
            LaneId::Main | LaneId::Origin(_) => &mut self.health,
        }
    }

    /// What is known of a lane's words against tokens.
    pub(super) fn guard_of(&mut self, lane: LaneId) -> &mut VerdictGuard {
        match lane {
            LaneId::Main => &mut self.guard,
            LaneId::Second => &mut self.lanes.vendor(SECOND).guard,
            LaneId::Vendor(vendor) => &mut self.lanes.vendor(vendor).guard,
            LaneId::Origin(_) => &mut self.lanes.origins.words,
        }
    }

    /// Whether a push for a token was accepted in the last 30 days in any lane, as far as that is known.
    pub(super) fn was_alive(&self, token: Fingerprint, at: Seconds) -> bool {
        let beside = |guard: &VerdictGuard| guard.is_alive(token, at);
        self.guard.is_alive(token, at) || self.lanes.guards().any(beside)
    }

    /// Takes note that a lane has an outage, as far as one push tells that.
    pub(super) fn note_unwell(&mut self, job: &PushJob, failure: &Failure) {
        let (token, domain) = (job.token, job.sender.share);
        let health = self.health_of(job.lane);
        match job.lane {
            LaneId::Main | LaneId::Second => health.unwell(failure),
            LaneId::Vendor(_) | LaneId::Origin(_) => health.unwell_for(token, domain, failure),
        }
    }

    /// Takes note that a vendor calls a token another key's. Returns whether it begins to look as if it said so of all.
    pub(super) fn note_other_key(&mut self, job: &PushJob, failure: &Failure) -> bool {
        let (token, domain) = (job.token, job.sender.share);
        match job.lane {
            LaneId::Vendor(vendor) => {
                let health = &mut self.lanes.vendor(vendor).health;
                health.key_refused_for(token, domain, failure)
            }
            LaneId::Main | LaneId::Second | LaneId::Origin(_) => false,
        }
    }

    /// How the lanes beside the main one are, as far as that is the operator's business: what strangers' servers do is not.
    pub(crate) fn lanes_beside(&mut self, at: Seconds, now: Instant) -> Beside {
        let doubted = self.lanes.guards().map(VerdictGuard::doubted).sum();
        let mut beside = Beside {
            doubted,
            condition: Condition::Well,
            trouble: None,
            proven: false,
            vendors: Vec::new(),
        };
        for (&number, vendor) in &mut self.lanes.vendors {
            let (condition, trouble) = (vendor.guard.condition(at), vendor.health.trouble(now));
            beside.condition = beside.condition.max(condition);
            beside.trouble = worse(beside.trouble, trouble.clone());
            beside.proven |= vendor.health.is_proven();
            if number != SECOND {
                beside.vendors.push(VendorView {
                    vendor: number,
                    condition,
                    trouble,
                });
            }
        }
        beside
    }

    /// The second lane, if anything was ever sent there.
    pub(crate) fn second(&self, now: Instant) -> Option<SecondView> {
        let health = &self.lanes.vendors.get(&SECOND)?.health;
        Some(SecondView {
            last_accepted: health
                .last_accepted()
                .map(|accepted| now.saturating_duration_since(accepted)),
            trouble: health.trouble(now),
        })
    }

    /// When a push was last accepted in one of them.
    pub(crate) fn accepted_beside(&self) -> Option<Instant> {
        let vendors = self.lanes.vendors.values();
        let vendors = vendors.map(|vendor| vendor.health.last_accepted()).max();
        vendors.flatten().max(self.lanes.origins.accepted)
    }

    /// How often what is known of words has changed so far, in all lanes.
    pub(crate) fn guard_changes(&self) -> u64 {
        let beside: u64 = self.lanes.guards().map(VerdictGuard::changes).sum();
        self.guard.changes() + beside
    }

    /// Until when nothing is to be sent to a lane.
    pub(crate) fn paused_until(&self, lane: LaneId, now: Instant) -> Option<Instant> {
        match lane {
            LaneId::Main => self.health.paused_until(now),
            LaneId::Second => self.lanes.vendors.get(&SECOND)?.health.paused_until(now),
            LaneId::Vendor(vendor) => self.lanes.vendors.get(&vendor)?.health.paused_until(now),
            LaneId::Origin(origin) => self.lanes.origins.holds_back(origin, now),
        }
    }

    /// Lets a held push that is due wait for a permit of its lane.
    pub(super) fn let_wait(&mut self, number: u64) {
        let Some(job) = self.held.due(number).map(|held| &held.job) else {
            return;
        };
        match job.lane {
            LaneId::Main => {
                self.turns.due.join(job.sender.sender(), number);
            }
            LaneId::Second => {
                let turns = &mut self.lanes.vendor(SECOND).turns;
                turns.due.join(job.sender.sender(), number);
            }
            LaneId::Vendor(vendor) => {
                let turns = &mut self.lanes.vendor(vendor).turns;
                turns.due.join(job.sender.sender(), number);
            }
            LaneId::Origin(origin) => self.lanes.origins.become_due(origin, &job.sender, number),
        }
    }

    /// When [`grant`](Self::grant) is to be called because a vendor's pause ends.
    pub(super) fn next_beside(&self, now: Instant) -> Option<Instant> {
        let vendors = self.lanes.vendors.iter();
        let waiting = vendors.filter(|(_, vendor)| !vendor.turns.due.is_empty());
        waiting
            .filter_map(|(vendor, _)| self.holds_back(LaneId::Vendor(*vendor), now))
            .min()
    }

    /// Whether held pushes are due beside the main lane, and wait for nothing but a permit.
    pub(super) fn has_due_beside(&self, now: Instant) -> bool {
        let mut vendors = self.lanes.vendors.iter();
        let is_due = vendors.any(|(vendor, lane)| {
            !lane.turns.due.is_empty() && self.holds_back(LaneId::Vendor(*vendor), now).is_none()
        });
        is_due || self.lanes.origins.has_due()
    }

    /// Takes a permit of a lane for a push.
    pub(super) fn take_permit(&mut self, job: &PushJob) {
        match job.lane {
            LaneId::Main => self.turns.out += 1,
            LaneId::Second => self.lanes.vendor(SECOND).turns.out += 1,
            LaneId::Vendor(vendor) => self.lanes.vendor(vendor).turns.out += 1,
            LaneId::Origin(origin) => self.lanes.origins.take_for(origin, &job.sender),
        }
    }

    /// Says who has a free permit of a lane beside the main one; `None` if there is no permit, or nobody who wants one.
    pub(super) fn grant_beside(&mut self, now: Instant) -> Option<Grant<W>> {
        let mut from = 0;
        while let Some((&vendor, _)) = self.lanes.vendors.range(from..).next() {
            let grant = self.grant_vendor(vendor, now);
            if grant.is_some() {
                return grant;
            }
            match vendor.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        self.grant_strangers(now)
    }

    fn grant_vendor(&mut self, vendor: u8, now: Instant) -> Option<Grant<W>> {
        let lane = match vendor {
            SECOND => LaneId::Second,
            vendor => LaneId::Vendor(vendor),
        };
        let is_paused = self.holds_back(lane, now).is_some();
        loop {
            let turns = &mut self.lanes.vendors.get_mut(&vendor)?.turns;
            if turns.out >= turns.permits {
                return None;
            }
            match turns.next(is_paused)? {
                Wanting::Waiter(waiter) => {
                    turns.out += 1;
                    return Some(Grant::Waiter(waiter));
                }
                Wanting::Held(number) => {
                    let grant = self.let_out(number, lane, now);
                    if grant.is_some() {
                        return grant;
                    }
                }
            }
        }
    }

    fn grant_strangers(&mut self, now: Instant) -> Option<Grant<W>> {
        while let Some((origin, wanting)) = self.lanes.origins.next() {
            match wanting {
                Wanting::Waiter(waiter) => {
                    self.lanes.origins.take(origin);
                    return Some(Grant::Waiter(waiter));
                }
                Wanting::Held(number) => {
                    let grant = self.let_out_to_stranger(origin, number, now);
                    if grant.is_some() {
                        return grant;
                    }
                }
            }
        }
        None
    }

    fn let_out_to_stranger(&mut self, origin: Fingerprint, number: u64, now: Instant) -> Option<Grant<W>> {
        let sender = &self.held.due(number)?.job.sender;
        let until = self.holds_back(LaneId::Origin(origin), now);
        let has_room = self.lanes.origins.has_room(origin, sender);
        let until = until.or_else(|| (!has_room).then_some(now + CROWDED));
        if let Some(until) = until.filter(|_| !self.is_last_chance()) {
            self.held.postpone(number, until);
            return None;
        }
        self.let_out(number, LaneId::Origin(origin), now)
    }

    /// What an answer of a server means that a stranger has chosen: for this token, and for nobody else. Nothing of it is the
    /// module's trouble, and what cannot be sent now is not held for it.
    pub(super) fn strangers_answer(
        &mut self,
        origin: Fingerprint,
        job: &PushJob,
        failure: &Failure,
        now: Instant,
        jitter: f64,
    ) -> Answered {
        let asked = match failure.error {
            PushError::Later { after } | PushError::HostAway { after } => after,
            PushError::Pause { length, alarm: _ } => Some(length),
            PushError::Reconnected | PushError::Renewed => None,
            PushError::Crowded => return Answered::next(Next::Ended(Ended::Busy)),
            PushError::TokenBusy | PushError::TooMany { pause: _ } => {
                self.lanes.origins.answered(origin);
                return Answered::next(Next::Ended(Ended::Busy));
            }
            PushError::TokenGone { since: _ } => {
                return self.weigh_alone(origin, job, Word::BeyondDoubt, now);
            }
            PushError::TokenDoubted | PushError::TokenOfAnotherApp => {
                return self.weigh_alone(origin, job, Word::AboutUs, now);
            }
            PushError::Unexplained | PushError::TokenUnserved => {
                self.lanes.origins.answered(origin);
                self.blocklist.block(job.token, BlockReason::Doubted, now);
                return Answered::ended(Outcome::TokenBlocked, None);
            }
            PushError::Misconfigured | PushError::TooLarge => {
                self.lanes.origins.answered(origin);
                return Answered::ended(Outcome::ProviderUnavailable, None);
            }
        };
        let resume = self.lanes.origins.failed(origin, asked, now, jitter);
        Answered::next(Next::Ended(Ended::Failed { resume }))
    }

    /// Weighs what a server that a stranger has chosen says against one of its own receivers. A vendor's words about receivers
    /// for which senders sign themselves are weighed by what it says of all of those: its incident would end them all.
    fn weigh_alone(&mut self, origin: Fingerprint, job: &PushJob, word: Word, now: Instant) -> Answered {
        self.lanes.origins.answered(origin);
        if let Some(answered) = self.stays_dead(job, now) {
            return answered;
        }
        let (token, at) = (job.token, self.clock.seconds(now));
        let is_second = job.push.extra.as_ref().is_some_and(|extra| extra.call);
        let is_astray = word == Word::AboutUs && job.choice == Choice::Default;
        let belief = match job.vendor {
            _ if is_second || is_astray => Belief::Doubted,
            None => self.lanes.origins.words.weigh_alone(token, word, at),
            Some(vendor) => {
                let was_alive = self.was_alive(token, at);
                let guard = self.lanes.relayed(vendor);
                guard
                    .weigh(token, Publisher::of(&job.sender), word, was_alive, at)
                    .0
            }
        };
        match belief {
            Belief::Dead => Answered::next(Next::Dead { since: None }),
            Belief::Doubted => {
                self.blocklist.block(job.token, BlockReason::Doubted, now);
                Answered::ended(Outcome::TokenBlocked, None)
            }
        }
    }
}

/// Held pushes come back so soon that find too many under way at strangers' servers.
const CROWDED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
