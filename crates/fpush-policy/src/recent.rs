//! What last became of a token's pushes, for the operator who asks why a phone gets none.

use std::time::{Duration, Instant};

use fpush_push::{Fingerprint, Outcome};

/// The last outcomes of the tokens that were published to last. Every push is noted here, so it costs no order of all
/// tokens: a token has its place in one of few, by its fingerprint, and the one that is noted longest ago leaves it.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    buckets: Vec<[Option<Entry>; PLACES]>,
    used: usize,
    /// When the first push was accepted, from which the others are counted.
    start: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    token: Fingerprint,
    last: Last,
    /// When a push was last accepted, in tenths of seconds after the first one of all; none has it.
    accepted: Option<Tenths>,
}

/// Of a second, and one.
type Tenths = std::num::NonZeroU32;

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its publish was answered.
    Answered(Outcome),
    /// It had been acknowledged, and the provider has accepted it since.
    Delivered,
    /// It had been acknowledged, and could not be delivered.
    Lost,
    /// It had been acknowledged, and ended because the provider refuses its token.
    Dropped,
    /// An attempt failed, and another one is to come.
    Failed,
}

impl End {
    /// Its name: of an answer that in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered(outcome) => outcome.name(),
            Self::Delivered => "queued push accepted",
            Self::Lost => "queued push lost",
            Self::Dropped => "queued push dropped",
            Self::Failed => "attempt failed",
        }
    }

    /// What it means, and what to look at next.
    #[must_use]
    pub fn meaning(self) -> [&'static str; 2] {
        let of_outcome = |outcome: Outcome| [outcome.meaning(), outcome.advice()];
        match self {
            Self::Answered(outcome) => of_outcome(outcome),
            Self::Delivered => of_outcome(Outcome::Accepted),
            Self::Lost => [
                "It was acknowledged, and could not be delivered.",
                "The log of this push service says why.",
            ],
            Self::Dropped => [
                "It was acknowledged, and the provider refuses the token: it is dead or wrong.",
                Outcome::TokenDead.advice(),
            ],
            Self::Failed => ["It is tried again.", "There is nothing to do."],
        }
    }
}

/// What is known of the last push to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// When.
    pub at: Instant,
    /// How it ended.
    pub end: End,
    /// The provider's reason, by its own name, if it refused the push.
    pub reason: Option<&'static str>,
}

impl Recent {
    /// Takes note of how a push ended. A reason that the provider gave a moment ago stays with it; so does the one for which
    /// nothing is sent to the token.
    pub(crate) fn ended(&mut self, token: Fingerprint, end: End, now: Instant) {
        let is_block = matches!(end, End::Answered(Outcome::TokenBlocked | Outcome::TokenDead));
        let last = self
            .last(token)
            .filter(|last| last.end == End::Failed || is_block && last.end == end);
        let reason = last.and_then(|last| last.reason);
        self.note(token, Last { at: now, end, reason });
    }

    /// Takes note that the provider has accepted a push.
    pub(crate) fn accepted(&mut self, token: Fingerprint, now: Instant) {
        let last = Last {
            at: now,
            end: End::Answered(Outcome::Accepted),
            reason: None,
        };
        self.note(token, last);
        let start = *self.start.get_or_insert(now);
        let tenths = now.saturating_duration_since(start).as_millis() / 100 + 1;
        let tenths = u32::try_from(tenths).ok().and_then(Tenths::new);
        if let Some(entry) = self.entry_mut(token) {
            entry.accepted = tenths;
        }
    }

    /// When a push to a token was last accepted, as far as that is remembered; the tenth of a second in which it was.
    pub(crate) fn accepted_at(&self, token: Fingerprint) -> Option<Instant> {
        let tenths = self.entry(token)?.accepted?.get() - 1;
        Some(self.start? + Duration::from_millis(100) * tenths)
    }

    /// Takes note of an attempt that failed, and of the provider's reason.
    pub(crate) fn failed(&mut self, token: Fingerprint, reason: &'static str, now: Instant) {
        let last = Last {
            at: now,
            end: End::Failed,
            reason: Some(reason),
        };
        self.note(token, last);
    }

    pub(crate) fn last(&self, token: Fingerprint) -> Option<Last> {
        self.entry(token).map(|entry| entry.last)
    }

    fn entry(&self, token: Fingerprint) -> Option<&Entry> {
        let bucket = self.buckets.get(self.index(token))?;
        bucket.iter().flatten().find(|entry| entry.token == token)
    }

    fn entry_mut(&mut self, token: Fingerprint) -> Option<&mut Entry> {
        let at = self.index(token);
        let bucket = self.buckets.get_mut(at)?;
        bucket.iter_mut().flatten().find(|entry| entry.token == token)
    }

    fn note(&mut self, token: Fingerprint, last: Last) {
        let accepted = self.entry(token).and_then(|entry| entry.accepted);
        self.put(Entry {
            token,
            last,
            accepted,
        });
    }

    fn put(&mut self, entry: Entry) {
        let token = entry.token;
        if self.used >= self.buckets.len() * PLACES / 2 && self.buckets.len() < MAX_BUCKETS {
            self.grow();
        }
        let at = self.index(token);
        let Some(bucket) = self.buckets.get_mut(at) else {
            return;
        };
        let own = bucket
            .iter()
            .position(|entry| entry.is_some_and(|entry| entry.token == token));
        let oldest = || (0..PLACES).min_by_key(|place| bucket[*place].map(|entry| entry.last.at));
        if let Some(place) = own.or_else(oldest) {
            self.used += usize::from(bucket[place].is_none());
            bucket[place] = Some(entry);
        }
    }

    fn grow(&mut self) {
        let buckets = (4 * self.buckets.len()).clamp(FEWEST_BUCKETS, MAX_BUCKETS);
        let old = std::mem::replace(&mut self.buckets, vec![[None; PLACES]; buckets]);
        self.used = 0;
        for entry in old.into_iter().flatten().flatten() {
            self.put(entry);
        }
    }

    fn index(&self, token: Fingerprint) -> usize {
        // The number of buckets is a power of two.
        token.table_hash() as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// In each bucket.
const PLACES: usize = 4;
const FEWEST_BUCKETS: usize = 64;
/// Of 256 bytes each: 2 MiB a module at most.
const MAX_BUCKETS: usize = 8_192;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fpush_push::TokenHasher;

    use super::*;

    fn fingerprint(token: &str) -> Fingerprint {
        TokenHasher::with_key([7; 16]).fingerprint(token)
    }

    #[test]
    fn the_reason_of_a_failure_stays_until_a_push_is_accepted() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let token = fingerprint("t");
        assert_eq!(recent.last(token), None);
        recent.failed(token, "BadDeviceToken", start);
        let now = start + Duration::from_secs(1);
        recent.ended(token, End::Answered(Outcome::TokenBlocked), now);
        let last = recent.last(token).unwrap();
        assert_eq!((last.at, last.reason), (now, Some("BadDeviceToken")));
        recent.ended(token, End::Answered(Outcome::TokenBlocked), now);
        assert_eq!(
            recent.last(token).unwrap().reason,
            Some("BadDeviceToken"),
            "that is why"
        );
        recent.ended(token, End::Answered(Outcome::Overloaded), now);
        recent.ended(token, End::Answered(Outcome::TokenBlocked), now);
        assert_eq!(recent.last(token).unwrap().reason, None, "nobody was asked");
        recent.failed(token, "timeout", now);
        recent.accepted(token, now);
        recent.ended(token, End::Delivered, now);
        assert_eq!(recent.last(token).unwrap().reason, None);
    }

    #[test]
    fn memory_is_bounded_and_those_that_came_last_are_known() {
        assert!(size_of::<[Option<Entry>; PLACES]>() <= 256);
        let (mut recent, start) = (Recent::default(), Instant::now());
        for number in 0..100_000 {
            let now = start + Duration::from_millis(number);
            recent.ended(
                fingerprint(&number.to_string()),
                End::Answered(Outcome::Accepted),
                now,
            );
        }
        assert_eq!(recent.buckets.len(), MAX_BUCKETS);
        let known = |number: &u64| recent.last(fingerprint(&number.to_string())).is_some();
        assert_eq!((99_000..100_000).filter(known).count(), 1_000);
        assert!((0..10_000).filter(known).count() < 1_000);
    }
}
