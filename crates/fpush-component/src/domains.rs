//! How much each domain has sent lately.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard},
};

use fpush_push::{SenderNames, sync::lock};
use tokio::time::{Duration, Instant};

/// Publishes by domain.
#[derive(Debug)]
pub(crate) struct Domains {
    records: Mutex<Records>,
}

/// Publishes are counted in windows of ten minutes. A sender that invents new domains makes the counts of small ones
/// wrong, and uses no memory.
#[derive(Debug)]
struct Records {
    /// The window that runs.
    current: HashMap<Box<str>, u64>,
    /// The one before it.
    previous: HashMap<Box<str>, u64>,
    start: Instant,
}

impl Domains {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            records: Mutex::new(Records {
                current: HashMap::new(),
                previous: HashMap::new(),
                start: now,
            }),
        }
    }

    /// A publish came from this domain.
    pub(crate) fn count(&self, domain: &str, now: Instant) {
        if SenderNames::current() == SenderNames::Off {
            return;
        }
        let mut records = self.lock();
        records.turn(now);
        if let Some(publishes) = records.current.get_mut(domain) {
            *publishes += 1;
            return;
        }
        if records.current.len() >= MOST_COUNTED {
            records.current.retain(|_, publishes| {
                *publishes /= 2;
                *publishes > 0
            });
        }
        if records.current.len() < MOST_COUNTED && domain.len() <= MAX_DOMAIN {
            records.current.insert(domain.into(), 1);
        }
    }

    /// The domains that sent most publishes in the last ten to twenty minutes, and how many: most first. `None` if nobody is to
    /// know; then they are forgotten, too.
    pub(crate) fn top(&self, now: Instant) -> Option<Vec<(String, u64)>> {
        let mut records = self.lock();
        match SenderNames::current() {
            SenderNames::Top => records.turn(now),
            SenderNames::Off => {
                records.current.clear();
                records.previous.clear();
                return None;
            }
        }
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (domain, publishes) in records.current.iter().chain(&records.previous) {
            *sums.entry(domain).or_default() += publishes;
        }
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_unstable_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
        top.truncate(TOP);
        let top = top.into_iter().map(|(domain, count)| (domain.to_owned(), count));
        Some(top.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_send_most_come_first_and_are_forgotten_with_time() {
        let start = Instant::now();
        let domains = Domains::new(start);
        for (domain, count) in [("a.example", 3), ("b.example", 5), ("c.example", 1)] {
            (0..count).for_each(|_| domains.count(domain, start));
        }
        let top = |after| {
            let top = domains.top(start + after).unwrap();
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
        let top = domains.top(start).unwrap();
        assert_eq!(top[0].0, "large.example");
        assert_eq!(top.len(), TOP);
        domains.count(&"x".repeat(1_000), start);
        assert!(
            domains
                .lock()
                .current
                .keys()
                .all(|domain| domain.len() <= MAX_DOMAIN)
        );
    }
}
