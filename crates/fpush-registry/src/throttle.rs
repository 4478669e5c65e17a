//! How often strangers may make the disk work.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// Counts what each of many strangers did in the current span of time.
pub(crate) struct Throttle {
    span: Duration,
    hasher: RandomState,
    state: Mutex<State>,
}

struct State {
    began: Instant,
    counts: HashMap<u64, u32>,
}

impl Throttle {
    /// Counts anew after each span.
    pub(crate) fn new(span: Duration) -> Self {
        Self {
            span,
            hasher: RandomState::new(),
            state: Mutex::new(State {
                began: Instant::now(),
                counts: HashMap::new(),
            }),
        }
    }

    /// Counts one more for a stranger, and returns whether those are not too many.
    pub(crate) fn allows(&self, who: impl Hash, most: u32, now: Instant) -> bool {
        let key = self.hasher.hash_one(who);
        let mut state = self.current(now);
        let count = state.counts.entry(key).or_insert(0);
        *count = count.saturating_add(1);
        *count <= most
    }

    /// Whether one more for a stranger would not be too many.
    pub(crate) fn would_allow(&self, who: impl Hash, most: u32, now: Instant) -> bool {
        let key = self.hasher.hash_one(who);
        self.current(now)
            .counts
            .get(&key)
            .is_none_or(|count| *count < most)
    }

    /// Takes one back.
    pub(crate) fn take_back(&self, who: impl Hash, now: Instant) {
        let key = self.hasher.hash_one(who);
        if let Some(count) = self.current(now).counts.get_mut(&key) {
            *count = count.saturating_sub(1);
        }
    }

    fn current(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if now.saturating_duration_since(state.began) >= self.span || state.counts.len() >= MOST_STRANGERS {
            state.began = now;
            state.counts.clear();
        }
        state
    }
}

/// Beyond that all are counted anew: it takes 5 MB.
const MOST_STRANGERS: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_has_so_many_in_a_span() {
        let throttle = Throttle::new(Duration::from_secs(60));
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
}
