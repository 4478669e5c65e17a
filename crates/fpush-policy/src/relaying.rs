//! How much is passed on for whom: notifications of Push 2.0.
//!
//! Anybody can have them sent anywhere that the settings allow, registers nothing before that, and may never listen to an
//! answer. So each sender's domain has a rate, each receiver has one of its own, what is under way has a bound, and a receiver that
//! could not be reached is not tried for ever longer times. All of that is one domain's business: no other one is refused for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fpush_push::{Fingerprint, Outcome};

use crate::{fair::Standing, job::SenderDomain, recency::Recency};

/// How much may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Notifications of one registrable domain in a minute.
    pub per_domain: u32,
    /// Notifications for one receiver in a minute.
    pub per_receiver: u32,
}

/// What is known of those who have notifications passed on, and of those who get them.
#[derive(Debug)]
pub struct Relaying {
    domains: Recency<Rate>,
    /// By receiver and registrable domain of the sender.
    receivers: Recency<Known>,
    under_way: usize,
    under_way_of: BTreeMap<Fingerprint, usize>,
}

/// What is known of a receiver, as far as one domain sends to it.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    rate: Rate,
    /// How often in a row it could not be reached because of what it is.
    strikes: u8,
    /// Until when that is the answer.
    refused: Option<(Instant, Outcome)>,
}

/// So many in a minute, all of them at once at most (GCRA): the time at which all of it has been made up for.
#[derive(Clone, Copy, Debug, Default)]
struct Rate(Option<Instant>);

impl Default for Relaying {
    fn default() -> Self {
        Self {
            domains: Recency::new(MAX_DOMAINS),
            receivers: Recency::new(MAX_RECEIVERS),
            under_way: 0,
            under_way_of: BTreeMap::new(),
        }
    }
}

impl Relaying {
    /// Decides about a notification. One that may go out is under way until [`ended`](Self::ended) is told.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn begin(
        &mut self,
        receiver: Fingerprint,
        sender: &SenderDomain,
        limits: RelayLimits,
        now: Instant,
    ) -> Result<(), Outcome> {
        let key = receiver.of_sender(sender.share);
        let mut known = self.receivers.get(key).copied().unwrap_or_default();
        if let Some((until, outcome)) = known.refused
            && now < until
        {
            return Err(outcome);
        }
        if !self.has_room(sender) {
            return Err(Outcome::Overloaded);
        }
        let mut domain = self.domains.get(sender.share).copied().unwrap_or_default();
        if !(known.rate.take(1, limits.per_receiver, now) && domain.take(1, limits.per_domain, now)) {
            return Err(Outcome::Refused);
        }
        self.receivers.touch(key, known);
        self.domains.touch(sender.share, domain);
        self.under_way += 1;
        *self.under_way_of.entry(sender.share).or_default() += 1;
        Ok(())
    }

    /// A notification that was under way has this outcome.
    pub fn ended(
        &mut self,
        receiver: Fingerprint,
        sender: &SenderDomain,
        outcome: Outcome,
        limits: RelayLimits,
        now: Instant,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(own) = self.under_way_of.get_mut(&sender.share) {
            *own -= 1;
            if *own == 0 {
                self.under_way_of.remove(&sender.share);
            }
        }
        let is_its_fault = match outcome {
            Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => false,
            Outcome::TokenDead
            | Outcome::TokenBlocked
            | Outcome::TokenInvalid
            | Outcome::UnknownModule
            | Outcome::NotRegistered
            | Outcome::UnknownDevice => true,
            // That says nothing of the receiver.
            Outcome::Refused
            | Outcome::ProviderUnavailable
            | Outcome::Overloaded
            | Outcome::ShuttingDown
            | Outcome::RegistryUnavailable => return,
        };
        let key = receiver.of_sender(sender.share);
        let Some(known) = self.receivers.get_mut(key) else {
            return;
        };
        if !is_its_fault {
            (known.strikes, known.refused) = (0, None);
            return;
        }
        let pause = SHORTEST
            .saturating_mul(1 << known.strikes.min(MOST_DOUBLINGS))
            .min(LONGEST);
        known.strikes = known.strikes.saturating_add(1);
        // That a device is gone is said once, when its provider says so: it may register again before the pause is over.
        let outcome = match outcome {
            Outcome::TokenDead | Outcome::NotRegistered => Outcome::TokenBlocked,
            outcome => outcome,
        };
        known.refused = Some((now + pause, outcome));
        // What was for nothing costs more.
        let mut domain = self.domains.get(sender.share).copied().unwrap_or_default();
        domain.charge(COST_OF_FAILURE, limits.per_domain, now);
        self.domains.touch(sender.share, domain);
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// A domain has less than a part of what is free, so that however many take all that they can, something is left for the
    /// next one.
    fn has_room(&self, sender: &SenderDomain) -> bool {
        let own = self.under_way_of.get(&sender.share).copied().unwrap_or_default();
        let (all, part) = match sender.last_accepted.standing() {
            Standing::Known => (MAX_UNDER_WAY, 2),
            Standing::Unknown => (MAX_UNDER_WAY / 2, 8),
        };
        own < all.saturating_sub(self.under_way).div_ceil(part)
    }
}

impl Rate {
    /// Takes so many, if they are left.
    fn take(&mut self, count: u32, per_minute: u32, now: Instant) -> bool {
        let before = *self;
        self.charge(count, per_minute, now);
        let is_left = self.0.is_some_and(|even| even <= now + MINUTE);
        if !is_left {
            *self = before;
        }
        is_left
    }

    /// Takes so many, whether they are left or not.
    fn charge(&mut self, count: u32, per_minute: u32, now: Instant) {
        let even = self.0.map_or(now, |even| even.max(now));
        self.0 = Some(even + MINUTE * count / per_minute.max(1));
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Of 8 KiB each at most.
const MAX_UNDER_WAY: usize = 2_048;
const MAX_DOMAINS: u32 = 10_000;
/// Some 80 bytes each.
const MAX_RECEIVERS: u32 = 100_000;
/// For how long a receiver is left alone that could not be reached, at first.
const SHORTEST: Duration = MINUTE;
const LONGEST: Duration = Duration::from_secs(3_600);
const MOST_DOUBLINGS: u8 = 6;
/// In notifications, beside its own.
const COST_OF_FAILURE: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        known::LastAccepted,
        testing::{fingerprint, hasher},
    };

    const LIMITS: RelayLimits = RelayLimits {
        per_domain: 600,
        per_receiver: 30,
    };

    fn domain(name: &str) -> SenderDomain {
        SenderDomain::new(name, &hasher())
    }

    /// Has one passed on, which has this outcome.
    fn relay(all: &mut Relaying, token: &str, from: &str, outcome: Outcome, now: Instant) -> Outcome {
        let (receiver, sender) = (fingerprint(token), domain(from));
        match all.begin(receiver, &sender, LIMITS, now) {
            Ok(()) => {
                all.ended(receiver, &sender, outcome, LIMITS, now);
                outcome
            }
            Err(refused) => refused,
        }
    }

    #[test]
    fn a_receiver_has_a_rate_for_each_domain() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        let mut accepted = |from: &str, after: u64| {
            let now = start + Duration::from_secs(after);
            (0..100)
                .filter(|_| relay(&mut all, "t", from, Outcome::Accepted, now) == Outcome::Accepted)
                .count()
        };
        assert_eq!(accepted("a.example", 0), 30);
        assert_eq!(accepted("a.example", 1), 0);
        assert_eq!(accepted("a.example", 20), 10);
        assert_eq!(accepted("b.example", 20), 30, "another domain has its own");
        assert_eq!(accepted("a.example", 600), 30, "never more at once");
    }

    #[test]
    fn a_registrable_domain_has_a_rate_under_whatever_names() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        let mut accepted = |suffix: &str, count: u32| {
            let one = |number: u32| {
                let (token, from) = (format!("{suffix}{number}"), format!("x{number}.{suffix}"));
                relay(&mut all, &token, &from, Outcome::Accepted, start) == Outcome::Accepted
            };
            (0..count).map(one).filter(|accepted| *accepted).count()
        };
        assert_eq!(accepted("flood.org", 2_000), 600);
        assert_eq!(accepted("other.org", 100), 100);
    }

    #[test]
    fn who_sends_to_the_dead_sends_less() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        let dead = (0..1_000)
            .filter(|number| {
                let token = format!("dead {number}");
                relay(&mut all, &token, "a.example", Outcome::TokenDead, start) == Outcome::TokenDead
            })
            .count();
        assert_eq!(dead, 60);
    }

    /// How often it is tried in a day by a server that ignores all errors.
    #[test]
    fn what_cannot_be_reached_is_tried_less_and_less() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        let (receiver, sender) = (fingerprint("t"), domain("a.example"));
        let mut tried = Vec::new();
        for second in (0..86_400).step_by(10) {
            let now = start + Duration::from_secs(second);
            match all.begin(receiver, &sender, LIMITS, now) {
                Ok(()) => {
                    tried.push(second);
                    all.ended(receiver, &sender, Outcome::TokenBlocked, LIMITS, now);
                }
                Err(outcome) => assert_eq!(outcome, Outcome::TokenBlocked),
            }
        }
        assert_eq!(tried[..7], [0, 60, 180, 420, 900, 1_860, 3_780]);
        assert!((25..=31).contains(&tried.len()), "{}", tried.len());
        let later = start + Duration::from_secs(2 * 86_400);
        assert_eq!(
            relay(&mut all, "t", "a.example", Outcome::Accepted, later),
            Outcome::Accepted
        );
        assert_eq!(
            relay(&mut all, "t", "a.example", Outcome::TokenBlocked, later),
            Outcome::TokenBlocked
        );
        let soon = later + SHORTEST;
        assert_eq!(
            relay(&mut all, "t", "a.example", Outcome::Accepted, soon),
            Outcome::Accepted,
            "it begins anew"
        );
    }

    #[test]
    fn what_one_domain_cannot_reach_another_one_may() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        relay(&mut all, "t", "a.example", Outcome::TokenDead, start);
        assert_eq!(
            relay(&mut all, "t", "a.example", Outcome::Accepted, start),
            Outcome::TokenBlocked,
            "it is not said again that the device is gone"
        );
        assert_eq!(
            relay(&mut all, "t", "b.example", Outcome::Accepted, start),
            Outcome::Accepted
        );
        // An outage says nothing of a receiver.
        relay(&mut all, "u", "a.example", Outcome::ProviderUnavailable, start);
        assert_eq!(
            relay(&mut all, "u", "a.example", Outcome::Accepted, start),
            Outcome::Accepted
        );
    }

    #[test]
    fn what_is_under_way_has_a_bound_and_shares() {
        let (mut all, start) = (Relaying::default(), Instant::now());
        let wide = RelayLimits {
            per_domain: 1_000_000,
            per_receiver: 1_000_000,
        };
        let mut begun = |sender: &SenderDomain, count: usize| {
            let one = |_: &usize| all.begin(fingerprint("t"), sender, wide, start).is_ok();
            (0..count).filter(one).count()
        };
        assert_eq!(begun(&domain("a.example"), 10_000), 114);
        let others: Vec<_> = (0..40)
            .map(|number| begun(&domain(&format!("x{number}.org")), 1_000))
            .collect();
        assert!(others.iter().all(|begun| *begun > 0), "{others:?}");
        assert!(others.iter().sum::<usize>() + 114 < MAX_UNDER_WAY / 2);
        let known = domain("known.org").accepted(LastAccepted::Today);
        assert!(begun(&known, 10_000) >= MAX_UNDER_WAY / 6);
        let (sender, before) = (domain("a.example"), all.under_way());
        for _ in 0..114 {
            all.ended(fingerprint("t"), &sender, Outcome::Accepted, wide, start);
        }
        assert_eq!(all.under_way(), before - 114);
        assert!(!all.under_way_of.contains_key(&sender.share));
    }
}
