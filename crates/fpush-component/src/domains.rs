//! What is known of the domains that send: how much, whose share they use, and whether a push of theirs was accepted not
//! long ago.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{Mutex, MutexGuard},
};

use fpush_policy::{Sender, Standing};
use fpush_push::{registrable, sync::lock};
use tokio::time::{Duration, Instant};

/// Domains, in memory: after a start none is known until a push of it is accepted.
#[derive(Debug)]
pub(crate) struct Domains {
    /// Domains are chosen by strangers: their hashes have a key.
    hasher: RandomState,
    records: Mutex<Records>,
}

/// Publishes are counted in windows of ten minutes. A sender that invents new domains makes the counts of small ones
/// wrong, and uses no memory.
#[derive(Debug)]
struct Records {
    /// The window that runs.
    current: HashMap<Box<str>, Sent>,
    /// The one before it.
    previous: HashMap<Box<str>, Sent>,
    start: Instant,
    /// Registrable domains, and when a push of theirs was last noted as accepted.
    accepted: HashMap<u64, Instant>,
}

/// What a domain has sent in a window.
#[derive(Debug, Default)]
struct Sent {
    publishes: u64,
    /// Whether it was noted in this window that a push was accepted.
    noted: bool,
}

impl Domains {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            records: Mutex::new(Records {
                current: HashMap::new(),
                previous: HashMap::new(),
                start: now,
                accepted: HashMap::new(),
            }),
        }
    }

    /// A publish came from this domain.
    pub(crate) fn count(&self, domain: &str, now: Instant) {
        let mut records = self.lock();
        records.turn(now);
        if let Some(sent) = records.current.get_mut(domain) {
            sent.publishes += 1;
            return;
        }
        if records.current.len() >= MOST_COUNTED {
            records.current.retain(|_, sent| {
                sent.publishes /= 2;
                sent.publishes > 0
            });
        }
        if records.current.len() < MOST_COUNTED && domain.len() <= MAX_DOMAIN {
            let sent = Sent {
                publishes: 1,
                noted: false,
            };
            records.current.insert(domain.into(), sent);
        }
    }

    /// The domains that sent most publishes in the last ten to twenty minutes, and how many: most first.
    pub(crate) fn top(&self, now: Instant) -> Vec<(String, u64)> {
        let mut records = self.lock();
        records.turn(now);
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (domain, sent) in records.current.iter().chain(&records.previous) {
            *sums.entry(domain).or_default() += sent.publishes;
        }
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_unstable_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
        top.truncate(TOP);
        top.into_iter()
            .map(|(domain, count)| (domain.to_owned(), count))
            .collect()
    }

    /// Whose share a domain uses, and whose turn.
    pub(crate) fn sender(&self, domain: &str, now: Instant) -> Sender<u64> {
        self.user(domain, domain, now)
    }

    /// The same for a user of a domain, with separate turns.
    pub(crate) fn user(&self, domain: &str, address: &str, now: Instant) -> Sender<u64> {
        let share = self.hasher.hash_one(registrable(domain));
        let accepted = self.lock().accepted.get(&share).copied();
        let is_known = accepted.is_some_and(|at| now.saturating_duration_since(at) < KNOWN_FOR);
        Sender {
            share,
            name: self.hasher.hash_one(address),
            standing: if is_known {
                Standing::Known
            } else {
                Standing::Unknown
            },
        }
    }

    /// The domain of a publish, to be noted if the push is accepted; `None` if that was done not long ago.
    pub(crate) fn to_note(&self, domain: &str) -> Option<Box<str>> {
        let is_noted = self.lock().current.get(domain).is_some_and(|sent| sent.noted);
        (!is_noted).then(|| domain.into())
    }

    /// A push of this domain was accepted.
    pub(crate) fn note_accepted(&self, domain: &str, now: Instant) {
        let share = self.hasher.hash_one(registrable(domain));
        let mut records = self.lock();
        if records.accepted.len() >= MOST_KNOWN && !records.accepted.contains_key(&share) {
            let is_known = |at: &Instant| now.saturating_duration_since(*at) < KNOWN_FOR;
            records.accepted.retain(|_, at| is_known(at));
            // Nobody who is known makes room for another one.
            if records.accepted.len() >= MOST_KNOWN {
                return;
            }
        }
        records.accepted.insert(share, now);
        if let Some(sent) = records.current.get_mut(domain) {
            sent.noted = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }
}

impl Records {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.start);
        if age < WINDOW {
            return;
        }
        self.previous = mem::take(&mut self.current);
        if age >= 2 * WINDOW {
            self.previous.clear();
        }
        self.start = now;
    }
}

const WINDOW: Duration = Duration::from_secs(600);
const MOST_COUNTED: usize = 1_000;
/// Longer ones are nobody's (RFC 1035 section 2.3.4).
const MAX_DOMAIN: usize = 255;
const TOP: usize = 20;
/// How long a domain is known after a push of it was accepted.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Registrable domains; they take 1 MB.
const MOST_KNOWN: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn those_who_send_most_come_first_and_are_forgotten_with_time() {
        let start = Instant::now();
        let domains = Domains::new(start);
        for (domain, count) in [("a.example", 3), ("b.example", 5), ("c.example", 1)] {
            (0..count).for_each(|_| domains.count(domain, start));
        }
        let top = |after| {
            let top = domains.top(start + after);
            top.iter()
                .map(|(domain, count)| format!("{domain} {count}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(top(Duration::ZERO), ["b.example 5", "a.example 3", "c.example 1"]);
        domains.count("a.example", start + WINDOW);
        assert_eq!(top(WINDOW), ["b.example 5", "a.example 4", "c.example 1"]);
        assert_eq!(top(2 * WINDOW), ["a.example 1"]);
        assert!(top(4 * WINDOW).is_empty());
    }

    #[test]
    fn a_flood_of_domains_takes_no_memory_and_hides_nobody_large() {
        let start = Instant::now();
        let domains = Domains::new(start);
        for number in 0..50_000 {
            domains.count(&format!("{number}.example"), start);
            domains.count("large.example", start);
        }
        assert!(domains.lock().current.len() <= MOST_COUNTED);
        assert_eq!(domains.top(start)[0].0, "large.example");
        assert_eq!(domains.top(start).len(), TOP);
        domains.count(&"x".repeat(1_000), start);
        assert!(
            domains
                .lock()
                .current
                .keys()
                .all(|domain| domain.len() <= MAX_DOMAIN)
        );
    }

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
        assert_eq!(standing("b.example.org", late - SECOND), Standing::Known);
        assert_eq!(standing("b.example.org", late), Standing::Unknown);
    }

    #[test]
    fn a_name_is_noted_once_in_a_window() {
        let start = Instant::now();
        let domains = Domains::new(start);
        let to_note = |domain: &str| domains.to_note(domain).is_some();
        domains.count("a.example", start);
        assert!(to_note("a.example"));
        domains.note_accepted("a.example", start);
        assert!(!to_note("a.example") && to_note("b.example"));
        domains.count("a.example", start + WINDOW);
        assert!(to_note("a.example"));
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
        let user = domains.user("a.example.org", "u@a.example.org", now);
        assert_eq!(user.share, one.share);
        assert_ne!(user.name, one.name);
    }

    #[test]
    fn a_flood_of_known_domains_takes_no_memory_and_displaces_nobody() {
        let start = Instant::now();
        let domains = Domains::new(start);
        domains.note_accepted("good.example", start);
        for number in 0..MOST_KNOWN + 10 {
            domains.note_accepted(&format!("{number}.example"), start + SECOND);
        }
        let standing = |domain: &str, after| domains.sender(domain, start + after).standing;
        assert_eq!(domains.lock().accepted.len(), MOST_KNOWN);
        assert_eq!(standing("good.example", SECOND), Standing::Known);
        domains.note_accepted("new.example", start + KNOWN_FOR);
        assert_eq!(standing("new.example", KNOWN_FOR), Standing::Known);
    }
}
