//! Publishes while a lane is down.

use std::time::{Duration, Instant};

use fpush_push::{LaneId, Outcome};

use super::{Decision, HoldUntil, Policy};
use crate::{job::SenderDomain, limiter::Target};

impl<W> Policy<W> {
    /// Whether what cannot be held finds out if a lane is still down. What is refused by the rate limit sends nothing, and finds
    /// out nothing. What is held does that itself; beside it goes what comes before the provider has said anything since the start:
    /// a call is not refused for an outage of yesterday.
    pub(super) fn takes_as_probe(&mut self, target: Target, lane: LaneId, now: Instant) -> bool {
        let is_limited = self.limiter.not_before(target, now).is_some();
        let is_paused = self.paused_until(lane, now).is_some();
        if is_limited || is_paused {
            return false;
        }
        self.outage.is_unasked() || !self.has_backlog() && self.outage.take_probe(now)
    }

    /// Decides about a publish while the provider cannot take it. One push is held for each key, so that there is always room
    /// for another one for the same key.
    pub(super) fn publish_while_down(
        &self,
        target: Target,
        lane: LaneId,
        sender: &SenderDomain,
        spacing: Duration,
        worth_until: Option<Instant>,
        now: Instant,
    ) -> Decision {
        let is_queued = self.held.queued(target).is_some();
        let is_new = !is_queued && self.spool.find(target).is_none();
        // Only the main lane has a spool: elsewhere a push is held until it is tried again.
        let until = match self.paused_until(lane, now) {
            Some(until) if is_new && lane != LaneId::Main => HoldUntil::Due(until),
            Some(_) | None => HoldUntil::Back,
        };
        let (has_room, encrypted) = if is_queued || until != HoldUntil::Back {
            let has_room = self.held.has_room(sender);
            (has_room, self.held.has_room_for_encrypted(sender.share))
        } else {
            let has_room = self.spool.has_room(sender);
            (has_room, self.spool.has_room_for_encrypted(sender.share))
        };
        if is_new && !has_room {
            return Decision::Answer(Outcome::Overloaded);
        }
        Decision::Hold {
            until,
            spacing,
            encrypted,
            worth_until,
        }
    }

    /// For how long a push is held at most that its provider cannot take. Those that share a lane beside the main one are not:
    /// their senders hear of it.
    pub(super) fn worth(&self, lane: LaneId, time_to_live: Duration) -> Duration {
        match lane {
            LaneId::Main | LaneId::Second => self.hold_for.min(time_to_live),
            LaneId::Vendor(_) | LaneId::Origin(_) => Duration::ZERO,
        }
    }

    /// Whether a lane's publishes are held because the provider cannot take them, or refused where they are not held.
    pub fn is_down(&mut self, lane: LaneId, now: Instant) -> bool {
        if lane != LaneId::Main || self.hold_for.is_zero() {
            return self.paused_until(lane, now).is_some();
        }
        self.outage.look(now);
        let is_backlog = self.has_backlog();
        self.outage.is_down(is_backlog, now)
    }

    /// Whether anything waits until the provider is back, or for a permit after it has waited.
    pub(super) fn has_backlog(&self) -> bool {
        self.spool.len() > 0 || !self.turns.due.is_empty()
    }
}
