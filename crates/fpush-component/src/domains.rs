//! What is known of the domains that send: whose share one uses, and whether a push of it was accepted not long ago.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard},
};

use fpush_policy::{Sender, Standing};
use fpush_push::{registrable, sync::lock};
use tokio::time::{Duration, Instant};

/// Known domains, in memory: after a start all are unknown until a push of theirs is accepted.
#[derive(Debug)]
pub(crate) struct Domains {
    /// Domains are chosen by strangers: their hashes have a key.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Registrable domains, and when a push of theirs was last noted as accepted.
    accepted: HashMap<u64, Instant>,
    /// Full names that were noted since then: most publishes are of one of them, and need not be looked at.
    noted: HashSet<u64>,
    since: Instant,
}

impl Domains {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            state: Mutex::new(State {
                accepted: HashMap::new(),
                noted: HashSet::new(),
                since: now,
            }),
        }
    }

    /// Whose share a domain uses, and whose turn.
    pub(crate) fn sender(&self, domain: &str, now: Instant) -> Sender<u64> {
        let share = self.hasher.hash_one(registrable(domain));
        let accepted = self.lock().accepted.get(&share).copied();
        let is_known = accepted.is_some_and(|at| now.saturating_duration_since(at) < KNOWN_FOR);
        Sender {
            share,
            name: self.hasher.hash_one(domain),
            standing: if is_known {
                Standing::Known
            } else {
                Standing::Unknown
            },
        }
    }

    /// The same for a user of a domain, whose turn is their own.
    pub(crate) fn owner(&self, domain: &str, address: &str, now: Instant) -> Sender<u64> {
        Sender {
            name: self.hasher.hash_one(address),
            ..self.sender(domain, now)
        }
    }

    /// The domain of a publish, to be noted if the push is accepted; `None` if it was noted not long ago.
    pub(crate) fn to_note(&self, domain: &str, now: Instant) -> Option<Box<str>> {
        let name = self.hasher.hash_one(domain);
        let mut state = self.lock();
        if now.saturating_duration_since(state.since) >= NOTED_FOR {
            state.since = now;
            state.noted.clear();
        }
        (!state.noted.contains(&name)).then(|| domain.into())
    }

    /// A push of this domain was accepted.
    pub(crate) fn note_accepted(&self, domain: &str, now: Instant) {
        let share = self.hasher.hash_one(registrable(domain));
        let name = self.hasher.hash_one(domain);
        let mut state = self.lock();
        if state.accepted.len() >= MOST && !state.accepted.contains_key(&share) {
            state
                .accepted
                .retain(|_, at| now.saturating_duration_since(*at) < KNOWN_FOR);
        }
        if state.accepted.len() < MOST || state.accepted.contains_key(&share) {
            state.accepted.insert(share, now);
        }
        if state.noted.len() < MOST {
            state.noted.insert(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// How long a domain is known after a push of it was accepted.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How exact that is.
const NOTED_FOR: Duration = Duration::from_secs(86_400);
/// Of registrable domains, and of names: they take 1 MB.
const MOST: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_known_for_thirty_days_after_a_push_of_any_of_its_names() {
        let start = Instant::now();
        let domains = Domains::new(start);
        let standing = |domain: &str, now| domains.sender(domain, now).standing;
        assert_eq!(standing("b.example.org", start), Standing::Unknown);
        domains.note_accepted("a.example.org", start);
        assert_eq!(standing("b.example.org", start), Standing::Known);
        assert_eq!(standing("example.com", start), Standing::Unknown);
        let late = start + KNOWN_FOR;
        assert_eq!(
            standing("b.example.org", late - Duration::from_secs(1)),
            Standing::Known
        );
        assert_eq!(standing("b.example.org", late), Standing::Unknown);
    }

    #[test]
    fn a_name_is_noted_once_a_day() {
        let start = Instant::now();
        let domains = Domains::new(start);
        assert_eq!(domains.to_note("a.example", start).as_deref(), Some("a.example"));
        domains.note_accepted("a.example", start);
        assert_eq!(domains.to_note("a.example", start), None);
        assert_eq!(domains.to_note("b.example", start).as_deref(), Some("b.example"));
        assert!(domains.to_note("a.example", start + NOTED_FOR).is_some());
    }

    #[test]
    fn names_below_one_domain_are_one_share() {
        let now = Instant::now();
        let domains = Domains::new(now);
        let [one, other, third] =
            ["a.example.org", "b.example.org", "a.example.com"].map(|domain| domains.sender(domain, now));
        assert_eq!(one.share, other.share);
        assert_ne!(one.name, other.name);
        assert_ne!(one.share, third.share);
    }

    #[test]
    fn a_flood_of_domains_takes_no_memory_and_displaces_nobody() {
        let start = Instant::now();
        let domains = Domains::new(start);
        domains.note_accepted("good.example", start);
        let later = start + Duration::from_secs(1);
        for number in 0..MOST + 10 {
            domains.note_accepted(&format!("{number}.example"), later);
        }
        let lengths = |domains: &Domains| {
            let state = domains.lock();
            (state.accepted.len(), state.noted.len())
        };
        assert_eq!(lengths(&domains), (MOST, MOST));
        assert_eq!(domains.sender("good.example", later).standing, Standing::Known);
        domains.note_accepted("new.example", start + KNOWN_FOR);
        assert_eq!(
            domains.sender("new.example", start + KNOWN_FOR).standing,
            Standing::Known
        );
    }
}
