//! Which domains send most publishes.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard},
};

use fpush_push::sync::lock;
use tokio::time::{Duration, Instant};

/// Counts publishes by their sender's domain, in windows of ten minutes. Whoever sends from ever new domains makes the
/// counts of small ones wrong, and takes no memory.
#[derive(Debug)]
pub(crate) struct Senders {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The window that runs.
    current: HashMap<Box<str>, u64>,
    /// The one before it.
    previous: HashMap<Box<str>, u64>,
    start: Instant,
}

impl Senders {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                current: HashMap::new(),
                previous: HashMap::new(),
                start: now,
            }),
        }
    }

    /// A publish came from this domain.
    pub(crate) fn count(&self, domain: &str, now: Instant) {
        let mut state = self.lock();
        state.turn(now);
        if let Some(count) = state.current.get_mut(domain) {
            *count += 1;
            return;
        }
        if state.current.len() >= MAX_DOMAINS {
            state.current.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
        if state.current.len() < MAX_DOMAINS && domain.len() <= MAX_DOMAIN {
            state.current.insert(domain.into(), 1);
        }
    }

    /// The domains that sent most in the last ten to twenty minutes, and how many: most first.
    pub(crate) fn top(&self, now: Instant) -> Vec<(String, u64)> {
        let mut state = self.lock();
        state.turn(now);
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (domain, count) in state.current.iter().chain(&state.previous) {
            *sums.entry(domain).or_default() += count;
        }
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_unstable_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
        top.truncate(TOP);
        top.into_iter()
            .map(|(domain, count)| (domain.to_owned(), count))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
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
const MAX_DOMAINS: usize = 1_000;
/// Longer ones are nobody's (RFC 1035 section 2.3.4).
const MAX_DOMAIN: usize = 255;
const TOP: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_send_most_come_first_and_are_forgotten_with_time() {
        let start = Instant::now();
        let senders = Senders::new(start);
        for (domain, count) in [("a.example", 3), ("b.example", 5), ("c.example", 1)] {
            (0..count).for_each(|_| senders.count(domain, start));
        }
        let top = |after| {
            let top = senders.top(start + after);
            top.iter()
                .map(|(domain, count)| format!("{domain} {count}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(top(Duration::ZERO), ["b.example 5", "a.example 3", "c.example 1"]);
        senders.count("a.example", start + WINDOW);
        assert_eq!(top(WINDOW), ["b.example 5", "a.example 4", "c.example 1"]);
        assert_eq!(top(2 * WINDOW), ["a.example 1"]);
        assert!(top(4 * WINDOW).is_empty());
    }

    #[test]
    fn a_flood_of_domains_takes_no_memory_and_hides_nobody_large() {
        let start = Instant::now();
        let senders = Senders::new(start);
        for number in 0..50_000 {
            senders.count(&format!("{number}.example"), start);
            senders.count("large.example", start);
        }
        assert!(senders.lock().current.len() <= MAX_DOMAINS);
        assert_eq!(senders.top(start)[0].0, "large.example");
        assert_eq!(senders.top(start).len(), TOP);
        senders.count(&"x".repeat(1_000), start);
        assert!(
            senders
                .lock()
                .current
                .keys()
                .all(|domain| domain.len() <= MAX_DOMAIN)
        );
    }
}
