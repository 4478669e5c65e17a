//! Held pushes that go from one instance to another.

use std::time::Instant;

use fpush_push::{Fingerprint, LaneId, TokenHasher};
use uuid::Uuid;

use super::{HeldEnd, HoldUntil, Phase, Policy, TakenOver, take_number};
use crate::{
    hold::HeldPush,
    records::{Clocks, HELD_PATIENCE, HeldRecord, Recipient},
    ticks::TICK,
};

impl<W> Policy<W> {
    /// The key and class that a push is held for, if it is held under this number and its body is in memory.
    #[must_use]
    pub fn key_of(&self, number: u64) -> Option<Fingerprint> {
        let held = self.held.get(number).map(|held| &*held.job);
        let job = held.or_else(|| Some(self.spool.body(number)?.0))?;
        Some(job.target().slot_key())
    }

    /// Whether there is room for what other instances held, and it would be held for as long as there.
    #[must_use]
    pub fn may_take_over(&self) -> bool {
        let is_running = self.end == Phase::Running && !self.hold_for.is_zero();
        is_running && !self.spool.is_full() && !self.held.is_full()
    }

    /// Takes a push that another instance held. A newer one that is held here for the same key stands for it. An older one gives
    /// it its number and its place, and goes: the others may have ended it for this one, which nobody has told here yet.
    pub fn take_over(
        &mut self,
        record: HeldRecord,
        recipient: Recipient,
        hasher: &TokenHasher,
        clocks: Clocks,
    ) -> TakenOver {
        let expires = record.expires(self.hold_for, recipient.time_to_live, clocks);
        let is_spooled = recipient.lane == LaneId::Main && record.is_spooled(clocks);
        let (due, attempts) = (clocks.to_instant(record.due), record.attempts);
        let mut job = record.into_job(recipient, hasher, clocks);
        if expires <= clocks.now {
            return TakenOver::Expired;
        }
        let newest = self.newest_held(job.target());
        // The others' times are not exact: one of the same moment may have been ended as well.
        if newest.is_some_and(|arrived| arrived > job.arrived + TICK) {
            return TakenOver::Covered;
        }
        job.worth_until = Some(expires);
        if newest.is_none() && is_spooled {
            self.outage.begin_growing(clocks.now);
        }
        if newest.is_some() || is_spooled {
            self.hold(job, HoldUntil::Back);
        } else {
            let due = due.min(clocks.now + HELD_PATIENCE.max(job.spacing));
            let mut held = HeldPush::new(job, due, Some(expires));
            held.attempts = attempts;
            self.held.push(take_number(&mut self.next_number), held);
        }
        TakenOver::Held
    }

    /// Another instance has taken over the push that was held under this number. Returns whether it was still here: one with
    /// another id is a newer one, and one that is due is asked for before it is sent.
    pub fn taken_over(&mut self, number: u64, key: Fingerprint, id: Uuid) -> bool {
        if self.held.get(number).is_some() {
            let Some(held) = self.held.remove_waiting(number, id) else {
                return false;
            };
            self.ended.push((held.job.token, HeldEnd::Taken));
            return true;
        }
        let Some(token) = self.spool.take_same(number, key, id) else {
            return false;
        };
        self.ended.push((token, HeldEnd::Taken));
        true
    }

    /// Nothing that is held goes out before the other instances were asked what they have taken over, or before then.
    pub fn ask_others_first(&mut self, until: Option<Instant>) {
        self.others_first = until;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use fpush_push::{Outcome, Token};

    use super::*;
    use crate::{
        attempts::Ended,
        job::{Elsewhere, PushJob, SenderDomain},
        outage::LaneState,
        policy::{Grant, Unsent},
        records::HeldChange,
        shared::{Change, Claimed, SharedHeld, SharedPush, Wish},
        testing::{clocks, hasher, settings},
    };

    struct Fixture {
        policy: Policy<()>,
        clocks: Clocks,
    }

    impl Fixture {
        fn new() -> Self {
            let clocks = clocks();
            let mut policy = Policy::new(settings(), 0, clocks);
            policy.share(true);
            policy.begin_noting(0);
            Self { policy, clocks }
        }

        fn later(&self, seconds: u64) -> Instant {
            self.clocks.now + Duration::from_secs(seconds)
        }

        /// Holds a push until the provider is back. Returns its number and how it is written down.
        fn hold(&mut self, token: &str) -> (u64, Box<HeldRecord>) {
            let mut job = push(token, self.clocks);
            job.worth_until = Some(self.later(3_600));
            let number = self.policy.hold(job, HoldUntil::Back).number;
            let changes = self.policy.take_changes();
            let record = changes.into_iter().find_map(|change| match change {
                HeldChange::Put(of, record) if of == number => Some(record),
                _ => None,
            });
            (number, record.unwrap())
        }

        fn take_over(&mut self, push: SharedPush) -> TakenOver {
            let record = push.into_record(self.clocks);
            let recipient = recipient(record.token());
            self.policy.take_over(record, recipient, &hasher(), self.clocks)
        }
    }

    fn recipient(token: &str) -> Recipient {
        Recipient {
            token: Token::new(token),
            lane: LaneId::Main,
            elsewhere: Elsewhere::Nowhere,
            sender: Arc::new(SenderDomain::new("example.org", &hasher())),
            time_to_live: Duration::from_secs(4 * 3_600),
        }
    }

    /// A push with an id, as the hasher of all knows it.
    fn push(token: &str, clocks: Clocks) -> Box<PushJob> {
        let mut job = crate::testing::job(token);
        job.token = hasher().fingerprint(token);
        job.key = job.token;
        job.arrived = clocks.now;
        job.push.id = Uuid::new_v4();
        job
    }

    /// What another instance held.
    fn shared(token: &str) -> SharedPush {
        let mut other = Fixture::new();
        let (_, record) = other.hold(token);
        let key = record.slot_key(token, &hasher());
        SharedPush::of(record, key, other.clocks).unwrap()
    }

    #[test]
    fn what_was_taken_over_is_written_down_and_goes_out_at_a_rate_that_grows() {
        let mut f = Fixture::new();
        for number in 0..50 {
            assert_eq!(f.take_over(shared(&number.to_string())), TakenOver::Held);
        }
        assert_eq!((f.policy.held(), f.policy.take_changes().len()), (50, 50));
        assert_eq!(f.policy.outage.state(f.clocks.now), LaneState::Recovering);
        while f.policy.make_due(f.clocks.now) {}
        let mut out = 0;
        while let Some(Grant::Held(_)) = f.policy.grant(f.clocks.now) {
            out += 1;
        }
        assert!(out <= 1, "{out} at once");
    }

    /// What another instance held for so long.
    fn shared_since(token: &str, age: Duration) -> SharedPush {
        SharedPush {
            age: Some(age),
            ..shared(token)
        }
    }

    #[test]
    fn a_newer_one_that_is_held_here_stands_for_what_another_instance_held() {
        let mut f = Fixture::new();
        let (number, record) = f.hold("t");
        let push = shared_since("t", Duration::from_secs(1));
        assert_eq!(f.policy.key_of(number), Some(push.key), "all have the same keys");
        assert_eq!(f.take_over(push), TakenOver::Covered);
        assert_eq!(f.policy.held(), 1);
        let mut late = SharedPush::of(record, shared("u").key, f.clocks).unwrap();
        late.give_up = Some(Duration::ZERO);
        late.record.token = "u".to_owned();
        f.clocks.now += Duration::from_secs(1);
        f.clocks.wall += Duration::from_secs(3 * 86_400);
        let expired = SharedPush { due: None, ..late };
        let mut record = expired.into_record(f.clocks);
        record.give_up = Some(1);
        let taken = f.policy.take_over(record, recipient("u"), &hasher(), f.clocks);
        assert_eq!(
            taken,
            TakenOver::Held,
            "of a clock that was wrong it is tried once more"
        );
    }

    /// Both were alone when they held one. The newer one has ended the other one, whose instance does not know it yet.
    #[test]
    fn an_older_one_that_is_held_here_goes_for_what_another_instance_held() {
        // By the engine's clock one may be older that is newer by less than a tick here.
        for age in [Duration::ZERO, Duration::from_millis(1)] {
            for is_due in [false, true] {
                let mut f = Fixture::new();
                let (number, _) = f.hold("t");
                while is_due && f.policy.make_due(f.clocks.now) {}
                let taken = shared_since("t", age);
                let id = taken.id;
                assert_eq!(f.take_over(taken), TakenOver::Held);
                let token = hasher().fingerprint("t");
                assert_eq!(f.policy.take_ended(), [(token, HeldEnd::Covered)]);
                let changes = f.policy.take_changes();
                assert!(
                    matches!(&changes[..], [HeldChange::Put(of, record)]
                        if *of == number && record.id == Some(id.as_u128())),
                    "{changes:?}"
                );
                while f.policy.make_due(f.clocks.now) {}
                let sent = f.policy.grant(f.clocks.now);
                assert!(
                    matches!(&sent, Some(Grant::Held(attempt)) if attempt.job.push.id == id),
                    "{is_due} {sent:?}"
                );
                assert_eq!(f.policy.held(), 1);
            }
        }
    }

    #[test]
    fn one_that_is_under_way_stands_for_nothing_that_another_instance_held() {
        let mut f = Fixture::new();
        f.hold("t");
        while f.policy.make_due(f.clocks.now) {}
        let Some(Grant::Held(attempt)) = f.policy.grant(f.clocks.now) else {
            panic!("it goes out");
        };
        assert_eq!(f.take_over(shared("t")), TakenOver::Held);
        f.policy.held_taken(attempt.number, attempt.slot, f.clocks.now);
        assert_eq!(f.policy.held(), 1);
    }

    #[test]
    fn what_another_instance_has_taken_goes_unless_it_is_another_push_by_now() {
        let mut f = Fixture::new();
        let (number, record) = f.hold("t");
        let key = record.slot_key("t", &hasher());
        let id = Uuid::from_u128(record.id.unwrap());
        assert!(!f.policy.taken_over(number, key, Uuid::new_v4()));
        assert!(!f.policy.taken_over(number + 1, key, id));
        // A newer push has its number.
        let (same, newer) = f.hold("t");
        assert_eq!(same, number);
        assert!(!f.policy.taken_over(number, key, id));
        f.policy.take_ended();
        assert!(
            f.policy
                .taken_over(number, key, Uuid::from_u128(newer.id.unwrap()))
        );
        let token = hasher().fingerprint("t");
        assert_eq!(f.policy.take_ended(), [(token, HeldEnd::Taken)]);
        assert_eq!(f.policy.held(), 0);
        assert!(matches!(f.policy.take_changes()[..], [HeldChange::Gone(gone)] if gone == number));
    }

    #[test]
    fn times_go_there_and_come_back_as_lengths() {
        let mut f = Fixture::new();
        let (_, record) = f.hold("t");
        let key = record.slot_key("t", &hasher());
        let before = (*record).clone();
        let push = SharedPush::of(record, key, f.clocks).unwrap();
        assert_eq!(
            (push.record.give_up, push.record.arrived, push.record.id),
            (None, None, None)
        );
        assert_eq!(push.age, Some(Duration::ZERO));
        let ahead = Clocks {
            now: f.clocks.now,
            wall: f.clocks.wall + Duration::from_secs(86_400),
        };
        let there = push.into_record(ahead);
        let moved = |then: Option<u64>| then.map(|then| then + 86_400_000);
        assert_eq!(
            (there.give_up, there.arrived),
            (moved(before.give_up), moved(before.arrived))
        );
        assert_eq!((there.due, there.id, there.token()), (0, before.id, "t"));
    }

    #[test]
    fn nothing_goes_out_before_the_others_were_asked_but_they_are_not_waited_for_for_ever() {
        let mut f = Fixture::new();
        f.hold("t");
        let until = f.later(15);
        f.policy.ask_others_first(Some(until));
        let sends = |f: &mut Fixture, now| {
            while f.policy.make_due(now) {}
            matches!(f.policy.grant(now), Some(Grant::Held(_)))
        };
        let before = f.later(14);
        assert!(!sends(&mut f, before));
        assert_eq!(f.policy.next_timer(before), Some(until));
        assert!(sends(&mut f, until));

        let mut f = Fixture::new();
        f.hold("t");
        f.policy.ask_others_first(Some(until));
        f.policy.ask_others_first(None);
        assert!(sends(&mut f, before));
    }

    #[test]
    fn a_held_push_that_another_instance_has_is_not_sent_and_one_that_goes_out_covers_theirs() {
        let mut f = Fixture::new();
        f.hold("t");
        f.hold("u");
        let now = f.clocks.now;
        while f.policy.make_due(now) {}
        let Some(Grant::Held(attempt)) = f.policy.grant(now) else {
            panic!("it goes out");
        };
        let claim = f.policy.claim(&attempt.job, Wish::SendHeld);
        assert_eq!(claim.id, attempt.job.push.id);
        let unsent = f
            .policy
            .claimed_held(&attempt.job, attempt.slot, Claimed::Taken, now);
        assert_eq!(unsent, Err(Unsent::Taken));
        let end = f.policy.held_taken(attempt.number, attempt.slot, now);
        assert_eq!((end, f.policy.held()), (HeldEnd::Taken, 1));
        assert!(!f.policy.give_back_permit(LaneId::Main) || f.policy.held() == 1);

        let later = f.later(60);
        while f.policy.make_due(later) {}
        let Some(Grant::Held(attempt)) = f.policy.grant(later) else {
            panic!("the next one finds out whether the provider is back");
        };
        let free = Claimed::Free {
            slot: None,
            covers: Some(SharedHeld(7)),
        };
        let slot = f
            .policy
            .claimed_held(&attempt.job, attempt.slot, free, later)
            .unwrap();
        drop(f.policy.take_outbox());
        let accepted = Ended::Settled(Outcome::Accepted);
        f.policy.held_ended(attempt.number, slot, &accepted, later);
        let key = attempt.job.target().slot_key();
        assert_eq!(f.policy.take_outbox(), [Change::Cover(key, SharedHeld(7))]);
    }
}
