//! Tokens to which pushes were accepted: their devices were alive.

use fpush_push::Fingerprint;

use super::{history::day, window::Seconds};

/// The tokens that were accepted in the last 30 days, as far as there is room. Every accepted push is looked for here, so that it
/// costs no order of all tokens: a token has its place in one of few, by its fingerprint, and there the oldest goes first. What
/// providers call dead or wrong takes no place.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    buckets: Vec<[Entry; PLACES]>,
    used: usize,
}

/// A part of a token's fingerprint, and in the last sixteen bits the day on which a push was accepted, counted from 1970: zero
/// is a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    fn new(token: Fingerprint, now: Seconds) -> Self {
        Self(token.table_hash() & !DAYS | u64::from(day(now).max(1)))
    }

    fn day(self) -> u16 {
        (self.0 & DAYS) as u16
    }

    fn is_of(self, other: Self) -> bool {
        self.0 & !DAYS == other.0 & !DAYS && self.0 != 0
    }

    /// Whether a push was accepted so many days ago, or later.
    fn is_within(self, days: u16, now: Seconds) -> bool {
        self.0 != 0 && day(now).saturating_sub(self.day()) <= days
    }

    fn index(self, buckets: usize) -> usize {
        // The number of buckets is a power of two.
        (self.0 >> 16) as usize & buckets.wrapping_sub(1)
    }
}

impl Alive {
    /// A push for a token was accepted. Returns whether that should survive a restart.
    pub(crate) fn note(&mut self, token: Fingerprint, now: Seconds) -> bool {
        let entry = Entry::new(token, now);
        let at = entry.index(self.buckets.len());
        let bucket = self.buckets.get_mut(at);
        if let Some(known) = bucket.and_then(|bucket| bucket.iter_mut().find(|known| known.is_of(entry))) {
            let is_news = !known.is_within(FRESH, now);
            if is_news {
                *known = entry;
            }
            return is_news;
        }
        self.put(entry);
        true
    }

    /// Whether a push for a token was accepted in the last 30 days, as far as that is known.
    pub(crate) fn contains(&self, token: Fingerprint, now: Seconds) -> bool {
        let entry = Entry::new(token, now);
        let bucket = self.buckets.get(entry.index(self.buckets.len()));
        let known = bucket.and_then(|bucket| bucket.iter().find(|known| known.is_of(entry)));
        known.is_some_and(|known| known.is_within(KEPT, now))
    }

    /// The clock has jumped: what was accepted before was so now.
    pub(crate) fn begin_again(&mut self, now: Seconds) {
        let today = u64::from(day(now).max(1));
        for entry in self.buckets.iter_mut().flatten().filter(|entry| entry.0 != 0) {
            *entry = Entry(entry.0 & !DAYS | today);
        }
    }

    /// So many of them or a few more, to be written down, from a place on, and the place of the next part. If there is more
    /// room meanwhile, some are in two parts, and none is in no part.
    pub(crate) fn part(&self, from: usize, most: usize, now: Seconds) -> (Vec<u64>, Option<usize>) {
        let mut part = Vec::new();
        for (bucket, at) in self.buckets.iter().skip(from).zip(from..) {
            if part.len() >= most {
                return (part, Some(at));
            }
            part.extend(
                bucket
                    .iter()
                    .filter(|entry| entry.is_within(KEPT, now))
                    .map(|entry| entry.0),
            );
        }
        (part, None)
    }

    /// Takes what was written down.
    pub(crate) fn remember(&mut self, entries: impl IntoIterator<Item = u64>) {
        for entry in entries.into_iter().map(Entry).filter(|entry| entry.day() > 0) {
            let at = entry.index(self.buckets.len());
            let is_known = self
                .buckets
                .get(at)
                .is_some_and(|bucket| bucket.iter().any(|known| known.is_of(entry)));
            if !is_known {
                self.put(entry);
            }
        }
    }

    fn put(&mut self, entry: Entry) {
        if self.used >= self.buckets.len() * PLACES / 2 && self.buckets.len() < MAX_BUCKETS {
            self.grow();
        }
        let at = entry.index(self.buckets.len());
        // Of a free place the day is the oldest.
        let oldest = self.buckets[at].iter_mut().min_by_key(|entry| entry.day());
        if let Some(place) = oldest {
            self.used += usize::from(place.0 == 0);
            *place = entry;
        }
    }

    fn grow(&mut self) {
        let buckets = (4 * self.buckets.len()).clamp(FEWEST_BUCKETS, MAX_BUCKETS);
        let old = std::mem::replace(&mut self.buckets, vec![[Entry::default(); PLACES]; buckets]);
        self.used = 0;
        for entry in old.into_iter().flatten().filter(|entry| entry.0 != 0) {
            self.put(entry);
        }
    }
}

/// In each bucket: what a processor reads at a time.
const PLACES: usize = 8;
const FEWEST_BUCKETS: usize = 64;
/// 262,144 tokens a lane in 2 MiB.
const MAX_BUCKETS: usize = 32_768;
/// The bits of an entry that hold the day.
const DAYS: u64 = 0xffff;
/// What was accepted longer ago says nothing of today.
const KEPT: u16 = 30;
/// What was accepted so many days ago need not be written down anew.
const FRESH: u16 = 6;

#[cfg(test)]
mod tests {
    use fpush_push::TokenHasher;

    use super::*;
    use crate::verdict::window::DAY;

    const NOW: Seconds = 20_000 * DAY;

    fn token(number: usize) -> Fingerprint {
        TokenHasher::with_key([7; 16]).fingerprint(&number.to_string())
    }

    fn of(tokens: usize) -> Alive {
        let mut alive = Alive::default();
        (0..tokens).for_each(|number| _ = alive.note(token(number), NOW));
        alive
    }

    #[test]
    fn who_was_accepted_is_alive_for_a_month_after_the_last_time() {
        let mut alive = Alive::default();
        assert!(!alive.contains(token(0), NOW));
        assert!(alive.note(token(0), NOW));
        assert!(!alive.note(token(0), NOW + 6 * DAY), "nothing to write down");
        assert!(alive.note(token(0), NOW + 7 * DAY));
        let last = NOW + 37 * DAY;
        assert!(alive.contains(token(0), last) && !alive.contains(token(1), last));
        assert!(!alive.contains(token(0), last + DAY));
        assert_eq!(
            alive.part(0, 10, last + DAY),
            (Vec::new(), None),
            "nor is it kept on disk"
        );
        // A clock that was wrong, and is set right.
        alive.begin_again(last + DAY);
        assert!(alive.contains(token(0), last + DAY));
        assert!(alive.contains(token(0), NOW), "in the future");
    }

    #[test]
    fn memory_is_bounded_and_a_large_service_has_room() {
        assert_eq!(size_of::<[Entry; PLACES]>(), 64);
        let alive = of(100_000);
        let known = (0..100_000)
            .filter(|number| alive.contains(token(*number), NOW))
            .count();
        assert!(known > 99_000, "{known}");
        assert!(alive.part(0, usize::MAX, NOW).0.len() == known);
        let alive = of(500_000);
        assert_eq!(alive.buckets.len(), MAX_BUCKETS);
        assert!(alive.used > 250_000);
    }

    /// Those that come are in it, and of the others those stay that were accepted to last.
    #[test]
    fn the_oldest_go_first() {
        let mut alive = of(200_000);
        for number in 1_000_000..1_200_000 {
            alive.note(token(number), NOW + DAY);
        }
        let known = |numbers: std::ops::Range<usize>| {
            numbers
                .filter(|number| alive.contains(token(*number), NOW + DAY))
                .count()
        };
        let (old, new) = (known(0..200_000), known(1_000_000..1_200_000));
        assert!(new > 180_000 && old < 80_000, "{old} {new}");
    }

    #[test]
    fn it_is_written_in_parts_and_none_is_missed_while_it_grows() {
        let mut alive = of(250);
        let all: Vec<_> = (0..250)
            .map(token)
            .filter(|token| alive.contains(*token, NOW))
            .collect();
        let (mut written, mut from, mut parts) = (Vec::new(), Some(0), 0);
        while let Some(place) = from {
            let part;
            (part, from) = alive.part(place, 10, NOW);
            assert!(part.len() < 10 + PLACES);
            written.extend(part);
            parts += 1;
            alive.note(token(1_000 + parts), NOW);
        }
        assert!(parts > 10 && alive.buckets.len() > FEWEST_BUCKETS);
        let mut again = Alive::default();
        again.remember(written.into_iter().chain([0]));
        assert!(all.iter().all(|token| again.contains(*token, NOW)));
    }
}
