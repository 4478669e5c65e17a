//! What last became of a token's pushes, for whoever asks why a phone gets none.

use std::time::Instant;

use fpush_push::{Fingerprint, Outcome};

use crate::recency::Recency;

/// The last outcomes of the tokens that were published to last.
#[derive(Debug)]
pub(crate) struct Recent {
    entries: Recency<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Instant,
    end: End,
    reason: Option<&'static str>,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its publish was answered.
    Answered(Outcome),
    /// It had been acknowledged, and the provider has accepted it since.
    Delivered,
    /// It had been acknowledged, and could not be delivered.
    Lost,
    /// It had been acknowledged, and was not sent because its token is dead.
    Dropped,
    /// An attempt failed, and another one is to come.
    Failed,
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

impl Default for Recent {
    fn default() -> Self {
        Self {
            entries: Recency::new(MAX_TOKENS),
        }
    }
}

impl Recent {
    /// Takes note of how a push ended. A reason that the provider gave a moment ago stays with it.
    pub(crate) fn ended(&mut self, token: Fingerprint, end: End, now: Instant) {
        let reason = match self.entries.get(token) {
            Some(Entry {
                end: End::Failed,
                reason,
                ..
            }) => *reason,
            Some(_) | None => None,
        };
        self.entries.touch(token, Entry { at: now, end, reason });
    }

    /// Takes note of an attempt that failed, and of the provider's reason.
    pub(crate) fn failed(&mut self, token: Fingerprint, reason: &'static str, now: Instant) {
        let entry = Entry {
            at: now,
            end: End::Failed,
            reason: Some(reason),
        };
        self.entries.touch(token, entry);
    }

    pub(crate) fn last(&self, token: Fingerprint) -> Option<Last> {
        let Entry { at, end, reason } = *self.entries.get(token)?;
        // A reason belongs to what was not accepted.
        let accepted = matches!(end, End::Answered(Outcome::Accepted) | End::Delivered);
        Some(Last {
            at,
            end,
            reason: reason.filter(|_| !accepted),
        })
    }
}

/// 72 bytes each with their place in the table: 3.6 MB a module at most.
const MAX_TOKENS: u32 = 50_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use fpush_push::TokenHasher;

    #[test]
    fn the_reason_of_a_failure_stays_until_a_push_is_accepted() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let token = TokenHasher::with_key([7; 16]).fingerprint("t");
        assert_eq!(recent.last(token), None);
        recent.failed(token, "BadDeviceToken", start);
        let now = start + Duration::from_secs(1);
        recent.ended(token, End::Answered(Outcome::TokenBlocked), now);
        let last = recent.last(token).unwrap();
        assert_eq!((last.at, last.reason), (now, Some("BadDeviceToken")));
        recent.ended(token, End::Answered(Outcome::TokenBlocked), now);
        assert_eq!(recent.last(token).unwrap().reason, None, "nobody was asked");
        recent.failed(token, "timeout", now);
        recent.ended(token, End::Delivered, now);
        assert_eq!(recent.last(token).unwrap().reason, None);
    }

    #[test]
    fn an_entry_is_as_small_as_it_is_said_to_be() {
        assert!(size_of::<Entry>() <= 40, "{}", size_of::<Entry>());
        let (mut recent, now) = (Recent::default(), Instant::now());
        let hasher = TokenHasher::with_key([7; 16]);
        for token in 0..MAX_TOKENS + 10 {
            let token = hasher.fingerprint(&token.to_string());
            recent.ended(token, End::Answered(Outcome::Accepted), now);
        }
        assert_eq!(recent.entries.len(), MAX_TOKENS as usize);
    }
}
