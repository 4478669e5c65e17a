//! Servers that strangers have chosen: each a lane of its own, and none of them a burden to another.
//!
//! What is remembered of one is small, and bounded in all: beyond that the one that was used longest ago is forgotten, which
//! costs one request more. Only those at which pushes are under way have a queue.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fpush_push::{Backoff, Fingerprint};

use super::turns::{PLACES_PER_PERMIT, Turns, Wanting};
use crate::{
    fair::{Entered, Standing, Ticket},
    job::SenderDomain,
    recency::Recency,
    verdict::{VerdictGuard, Whose},
};

/// All origins of a module.
#[derive(Debug)]
pub(super) struct Origins<W> {
    known: Recency<Known>,
    busy: BTreeMap<Fingerprint, Busy<W>>,
    /// Those in which somebody may have a permit, now or when one of another comes back.
    ready: VecDeque<Fingerprint>,
    /// Pushes that may be under way at all of them.
    permits: usize,
    out: usize,
    /// Publishes that wait for a permit at any of them.
    waiting: usize,
    /// Those of what is under way at origins that have never accepted one, or not since they last failed.
    unproven_out: usize,
    /// Pushes under way by the registrable domain that pays for them.
    out_of: BTreeMap<Fingerprint, usize>,
    /// The first words against devices. They are not the lanes', so that no lane that is forgotten takes one with it.
    pub(super) words: VerdictGuard,
    /// When any of them last accepted a push.
    pub(super) accepted: Option<Instant>,
}

/// What is remembered of an origin.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Nothing is sent before then.
    until: Option<Instant>,
    /// How often in a row nobody could say yes or no.
    failures: u8,
    /// Whether it has accepted a push since it last failed.
    proven: bool,
}

/// An origin at which pushes are under way, or at which some want a permit.
#[derive(Debug)]
struct Busy<W> {
    turns: Turns<W>,
    payer: Payer,
}

/// Who pays for what is under way at an origin: the registrable domain that began when nothing was, as both were then.
#[derive(Clone, Copy, Debug)]
struct Payer {
    domain: Fingerprint,
    /// What it may have under way at all origins.
    most: usize,
    /// Whether the origin was proven.
    proven: bool,
}

impl<W> Origins<W> {
    pub(super) fn new(permits: usize, digest: u128) -> Self {
        Self {
            known: Recency::new(MAX_KNOWN),
            busy: BTreeMap::new(),
            ready: VecDeque::new(),
            permits,
            out: 0,
            waiting: 0,
            unproven_out: 0,
            out_of: BTreeMap::new(),
            words: VerdictGuard::of(Whose::Strangers, digest),
            accepted: None,
        }
    }

    /// Goes on with other settings: what kept us from an origin may have been a setting.
    pub(super) fn configure(&mut self, permits: usize) {
        self.permits = permits;
        self.known = Recency::new(MAX_KNOWN);
    }

    /// A permit (`None`), or what a publish finds in the queue for one. Where all origins together, or those of a sender, have
    /// too many under way, there is no waiting for that, unless something is under way at this one.
    pub(super) fn take_turn(
        &mut self,
        origin: Fingerprint,
        sender: &SenderDomain,
        waiter: impl FnOnce() -> W,
    ) -> Option<Entered<Fingerprint, W>> {
        let has_room = self.has_room(origin, sender);
        let busy = self.busy.get_mut(&origin);
        let has_permit = busy
            .as_ref()
            .is_none_or(|busy| busy.turns.out < busy.turns.permits);
        if has_room && has_permit {
            self.take_for(origin, sender);
            return None;
        }
        let is_full = self.waiting >= self.permits.saturating_mul(PLACES_PER_PERMIT);
        match busy.filter(|busy| busy.turns.out > 0 && !is_full) {
            Some(busy) => {
                let entered = busy.turns.waiting.enter(sender.sender(), waiter());
                self.waiting += usize::from(matches!(entered, Entered::Waiting(_)));
                Some(entered)
            }
            None => Some(Entered::Full(waiter())),
        }
    }

    /// Whether one more push may be under way at an origin, as far as it is not the origin's to say.
    pub(super) fn has_room(&self, origin: Fingerprint, sender: &SenderDomain) -> bool {
        let busy = self.busy.get(&origin).filter(|busy| busy.turns.out > 0);
        self.may_take(busy.map_or_else(|| self.payer(origin, sender), |busy| busy.payer))
    }

    /// A sender as the one who pays for what is under way at an origin.
    fn payer(&self, origin: Fingerprint, sender: &SenderDomain) -> Payer {
        let proven = self.is_proven(origin);
        let most = match sender.last_accepted.standing() {
            Standing::Known => self.permits / 2,
            Standing::Unknown => self.permits / 4,
        };
        // Who has not accepted anything yet may never answer.
        let most = if proven { most } else { most / 2 };
        Payer {
            domain: sender.share,
            most: most.max(1),
            proven,
        }
    }

    fn may_take(&self, payer: Payer) -> bool {
        let own = self.out_of.get(&payer.domain).copied().unwrap_or_default();
        let has_room = payer.proven || self.unproven_out < self.permits.div_ceil(2);
        self.out < self.permits && has_room && own < payer.most
    }

    /// Takes a permit of an origin for a push of this sender.
    pub(super) fn take_for(&mut self, origin: Fingerprint, sender: &SenderDomain) {
        self.begin(origin, sender);
        self.take(origin);
    }

    /// Takes a permit of an origin at which something is under way, or waits.
    pub(super) fn take(&mut self, origin: Fingerprint) {
        let Some(busy) = self.busy.get_mut(&origin) else {
            return;
        };
        busy.turns.out += 1;
        let payer = busy.payer;
        self.out += 1;
        self.unproven_out += usize::from(!payer.proven);
        *self.out_of.entry(payer.domain).or_default() += 1;
    }

    /// A push is not under way any more. Returns whether somebody waits for its permit.
    pub(super) fn give_back(&mut self, origin: Fingerprint) -> bool {
        let Some(busy) = self.busy.get_mut(&origin).filter(|busy| busy.turns.out > 0) else {
            return false;
        };
        busy.turns.out -= 1;
        self.out -= 1;
        let payer = busy.payer;
        self.unproven_out -= usize::from(!payer.proven);
        if let Some(own) = self.out_of.get_mut(&payer.domain) {
            *own -= 1;
            if *own == 0 {
                self.out_of.remove(&payer.domain);
            }
        }
        if busy.turns.is_wanted() {
            self.ready.push_back(origin);
        } else {
            self.forget_idle(origin);
        }
        !self.ready.is_empty()
    }

    /// A held push wants a permit.
    pub(super) fn become_due(&mut self, origin: Fingerprint, sender: &SenderDomain, number: u64) {
        self.begin(origin, sender).turns.due.join(sender.sender(), number);
        self.ready.push_back(origin);
    }

    /// Who is next, at an origin that has a permit. It has to be [taken](Self::take). Where something is under way and its
    /// payer has no room, all wait in line until that has ended, held pushes as well as publishes.
    pub(super) fn next(&mut self) -> Option<(Fingerprint, Wanting<W>)> {
        while self.out < self.permits
            && let Some(&origin) = self.ready.front()
        {
            let may_take = |busy: &Busy<W>| {
                busy.turns.out == 0 || busy.turns.out < busy.turns.permits && self.may_take(busy.payer)
            };
            let may_take = self.busy.get(&origin).is_some_and(may_take);
            let busy = self.busy.get_mut(&origin).filter(|_| may_take);
            if let Some(wanting) = busy.and_then(|busy| busy.turns.next(false)) {
                self.waiting -= usize::from(matches!(wanting, Wanting::Waiter(_)));
                return Some((origin, wanting));
            }
            self.ready.pop_front();
            self.forget_idle(origin);
        }
        None
    }

    /// Gives up a place in an origin's queue.
    pub(super) fn leave(&mut self, origin: Fingerprint, ticket: &Ticket<Fingerprint>) {
        let busy = self.busy.get_mut(&origin);
        if busy.is_some_and(|busy| busy.turns.waiting.leave(ticket).is_some()) {
            self.waiting -= 1;
        }
    }

    /// Until when nothing is sent to an origin.
    pub(super) fn holds_back(&self, origin: Fingerprint, now: Instant) -> Option<Instant> {
        self.known.get(origin)?.until.filter(|until| now < *until)
    }

    /// An origin has accepted a push.
    pub(super) fn accepted(&mut self, origin: Fingerprint, now: Instant) {
        self.accepted = Some(now);
        self.set(
            origin,
            Known {
                proven: true,
                ..Known::default()
            },
        );
    }

    /// An origin has said something, so that it is there.
    pub(super) fn answered(&mut self, origin: Fingerprint) {
        let proven = self.is_proven(origin);
        self.set(
            origin,
            Known {
                proven,
                ..Known::default()
            },
        );
    }

    /// An origin could not be reached, or has an outage: when to try again. It may have asked for a pause.
    pub(super) fn failed(
        &mut self,
        origin: Fingerprint,
        asked: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) -> Instant {
        let known = self.known.get(origin).copied().unwrap_or_default();
        // Those that were under way together fail together, once.
        if let Some(until) = known.until.filter(|until| now < *until) {
            return until;
        }
        let asked = asked.unwrap_or_default().min(LONGEST);
        let until = now + BACKOFF.pause_at_least(asked, u32::from(known.failures), jitter);
        self.set(
            origin,
            Known {
                until: Some(until),
                failures: known.failures.saturating_add(1),
                proven: false,
            },
        );
        until
    }

    /// Pushes under way, and publishes that wait for a permit.
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.out, self.waiting)
    }

    /// Whether held pushes are due.
    pub(super) fn has_due(&self) -> bool {
        self.busy.values().any(|busy| !busy.turns.due.is_empty())
    }

    fn is_proven(&self, origin: Fingerprint) -> bool {
        self.known.get(origin).is_some_and(|known| known.proven)
    }

    fn set(&mut self, origin: Fingerprint, known: Known) {
        self.known.touch(origin, known);
        if let Some(busy) = self.busy.get_mut(&origin) {
            busy.turns.resize(known.permits());
        }
    }

    /// An origin as one at which something is under way.
    fn begin(&mut self, origin: Fingerprint, sender: &SenderDomain) -> &mut Busy<W> {
        let known = self.known.get(origin).copied().unwrap_or_default();
        let payer = self.payer(origin, sender);
        let busy = self.busy.entry(origin).or_insert_with(|| Busy {
            turns: Turns::new(known.permits()),
            payer,
        });
        // What the payer has under way elsewhere keeps nobody from an origin at which his pushes only wait.
        if busy.turns.out == 0 {
            busy.payer = payer;
        }
        busy
    }

    fn forget_idle(&mut self, origin: Fingerprint) {
        let busy = self.busy.get(&origin);
        if busy.is_some_and(|busy| busy.turns.out == 0 && !busy.turns.is_wanted()) {
            self.busy.remove(&origin);
        }
    }
}

impl Known {
    /// One push finds out whether an origin is back.
    fn permits(self) -> usize {
        if self.failures == 0 { PERMITS } else { 1 }
    }
}

/// Pushes that are under way at one origin.
const PERMITS: usize = 20;
/// After an origin that is away.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), LONGEST);
const LONGEST: Duration = Duration::from_secs(300);
/// Origins of which something is remembered: half a megabyte of them.
const MAX_KNOWN: u32 = 10_000;

#[cfg(test)]
mod tests;
