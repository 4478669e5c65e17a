//! How often strangers may make the disk work.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    mem,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use fpush_push::sync::lock;
use tokio::time::Instant;

/// Counts what each of many strangers did in a span of time. Of too many strangers those are forgotten that were counted
/// longest ago.
pub struct Throttle {
    span: Duration,
    hasher: RandomState,
    state: Mutex<State>,
}

/// Strangers are forgotten by the half: when there is no room for another one, `recent` takes the place of `earlier`.
#[derive(Default)]
struct State {
    recent: HashMap<u64, Count>,
    earlier: HashMap<u64, Count>,
}

#[derive(Clone, Copy)]
struct Count {
    began: Instant,
    number: u32,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Throttle")
    }
}

impl Throttle {
    /// Counts anew after each span.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self {
            span,
            hasher: RandomState::new(),
            state: Mutex::default(),
        }
    }

    /// Counts one more for a stranger, and returns whether those are not too many.
    pub fn allows(&self, who: impl Hash, most: u32, now: Instant) -> bool {
        let key = self.hasher.hash_one(who);
        let mut state = self.lock();
        let mut count = self.current(&state, key, now);
        count.number = count.number.saturating_add(1);
        state.put(key, count);
        count.number <= most
    }

    /// Whether one more for a stranger would not be too many.
    pub fn would_allow(&self, who: impl Hash, most: u32, now: Instant) -> bool {
        let key = self.hasher.hash_one(who);
        self.current(&self.lock(), key, now).number < most
    }

    /// Takes one back.
    pub fn take_back(&self, who: impl Hash, now: Instant) {
        let key = self.hasher.hash_one(who);
        let mut state = self.lock();
        let mut count = self.current(&state, key, now);
        if let Some(number) = count.number.checked_sub(1) {
            count.number = number;
            state.put(key, count);
        }
    }

    fn current(&self, state: &State, key: u64, now: Instant) -> Count {
        let known = state.recent.get(&key).or_else(|| state.earlier.get(&key));
        match known {
            Some(count) if now.saturating_duration_since(count.began) < self.span => *count,
            Some(_) | None => Count {
                began: now,
                number: 0,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn put(&mut self, key: u64, count: Count) {
        if self.recent.len() >= HALF && !self.recent.contains_key(&key) {
            self.earlier = mem::take(&mut self.recent);
        }
        self.recent.insert(key, count);
    }
}

/// Half of the strangers that are counted: all of them take 8 MB.
const HALF: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    #[test]
    fn a_stranger_has_so_many_in_a_span() {
        let throttle = Throttle::new(SPAN);
        let now = Instant::now();
        for _ in 0..3 {
            assert!(throttle.allows("a", 3, now));
        }
        assert!(!throttle.would_allow("a", 3, now));
        throttle.take_back("a", now);
        assert!(throttle.would_allow("a", 3, now) && throttle.allows("a", 3, now));
        assert!(!throttle.allows("a", 3, now + Duration::from_secs(59)));
        assert!(throttle.allows("b", 3, now));
        assert!(throttle.allows("a", 3, now + Duration::from_secs(61)));
    }

    #[test]
    fn a_crowd_makes_nobody_forgotten_who_is_counted_again_and_again() {
        let throttle = Throttle::new(SPAN);
        let now = Instant::now();
        assert!(throttle.allows("insistent", 1, now) && throttle.allows("quiet", 1, now));
        for number in 0..5 * HALF {
            throttle.allows(number, 1, now);
            if number % 1_000 == 0 {
                assert!(!throttle.allows("insistent", 1, now), "after {number}");
            }
        }
        assert!(throttle.allows("quiet", 1, now), "the oldest are forgotten");
        let state = throttle.lock();
        assert!(state.recent.len() <= HALF && state.earlier.len() <= HALF);
    }
}
