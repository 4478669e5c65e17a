//! What each domain's publishes were answered in the last day, for its users who ask.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

use fpush_policy::SenderDomain;
use fpush_push::{Fingerprint, Outcome, SenderNames, sync::lock};
use tokio::time::{Duration, Instant};

/// Counts by domain and outcome. Domains are known by their hashes.
pub(crate) struct Answers {
    start: Instant,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    days: HashMap<Fingerprint, Day>,
    /// How many names each registrable domain has among them.
    shares: HashMap<Fingerprint, u32>,
    /// When room was last looked for: not for each domain that somebody invents.
    swept: u64,
}

/// The counts of one domain.
struct Day {
    share: Fingerprint,
    /// The number of the newest slot that something was counted in.
    newest: u64,
    /// In turns, one for each part of the day.
    slots: [[u32; Outcome::ALL.len()]; SLOTS],
}

impl Answers {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            start: now,
            records: Mutex::default(),
        }
    }

    /// A publish of this sender that arrived then was answered so. Where the settings keep no domains, nothing is counted.
    pub(crate) fn count(&self, sender: &SenderDomain, outcome: Outcome, now: Instant) {
        if SenderNames::current() == SenderNames::Off {
            return;
        }
        let slot = self.slot(now);
        let mut records = self.lock();
        let Some(day) = records.day(sender, slot) else {
            return;
        };
        day.turn(slot);
        let count = &mut day.slots[(slot % SLOTS as u64) as usize][outcome as usize];
        *count = count.saturating_add(1);
    }

    /// What the publishes of a domain were answered in the last day: each outcome that there was, and how often. `None` if
    /// that is not kept.
    pub(crate) fn of(&self, domain: Fingerprint, now: Instant) -> Option<Vec<(Outcome, u64)>> {
        let slot = self.slot(now);
        let mut records = self.lock();
        if SenderNames::current() == SenderNames::Off {
            *records = Records::default();
            return None;
        }
        let Some(day) = records.days.get_mut(&domain) else {
            return Some(Vec::new());
        };
        day.turn(slot);
        let sum = |outcome: Outcome| {
            day.slots
                .iter()
                .map(|slot| u64::from(slot[outcome as usize]))
                .sum()
        };
        let sums = Outcome::ALL.into_iter().map(|outcome| (outcome, sum(outcome)));
        Some(sums.filter(|(_, sum)| *sum > 0).collect())
    }

    /// Since when is counted: a day at most.
    pub(crate) fn counted_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start).min(SLOT * SLOTS as u32)
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SLOT.as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }
}

impl Records {
    /// The counts of a sender; `None` if there is no room for one more.
    fn day(&mut self, sender: &SenderDomain, slot: u64) -> Option<&mut Day> {
        if !self.days.contains_key(&sender.key) {
            if self.days.len() >= MOST_DOMAINS && self.swept < slot {
                self.sweep(slot);
            }
            let names = self.shares.entry(sender.share).or_default();
            if self.days.len() >= MOST_DOMAINS || *names >= MOST_OF_SHARE {
                if *names == 0 {
                    self.shares.remove(&sender.share);
                }
                return None;
            }
            *names += 1;
        }
        let day = self.days.entry(sender.key).or_insert_with(|| Day {
            share: sender.share,
            newest: slot,
            slots: [[0; Outcome::ALL.len()]; SLOTS],
        });
        Some(day)
    }

    /// Forgets those that have been silent for a day, or, if there are none, for the last part of one.
    fn sweep(&mut self, slot: u64) {
        self.swept = slot;
        for silent in [SLOTS as u64, 1] {
            self.days.retain(|_, day| day.newest + silent > slot);
            if self.days.len() < MOST_DOMAINS {
                break;
            }
        }
        self.shares.clear();
        for day in self.days.values() {
            *self.shares.entry(day.share).or_default() += 1;
        }
    }
}

impl Day {
    /// Forgets what is older than a day.
    fn turn(&mut self, slot: u64) {
        let over = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for number in 1..=over {
            let at = (self.newest.max(slot - over) + number) % SLOTS as u64;
            self.slots[at as usize] = [0; Outcome::ALL.len()];
        }
        self.newest = self.newest.max(slot);
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// Parts of a day that are counted by themselves.
const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_secs(86_400 / SLOTS as u64);
/// Half a kilobyte each.
const MOST_DOMAINS: usize = 4_000;
/// Names below one registrable domain: others can be invented.
const MOST_OF_SHARE: u32 = 100;

#[cfg(test)]
mod tests {
    use fpush_push::TokenHasher;

    use super::*;

    fn sender(name: &str) -> SenderDomain {
        SenderDomain::new(name, &TokenHasher::with_key([7; 16]))
    }

    #[test]
    fn what_is_older_than_a_day_is_forgotten_part_by_part() {
        let start = Instant::now();
        let (answers, a) = (Answers::new(start), sender("a.example"));
        let sums = |after: Duration| answers.of(a.key, start + after).unwrap();
        assert!(sums(Duration::ZERO).is_empty());
        for part in 0..SLOTS as u32 {
            answers.count(&a, Outcome::Accepted, start + SLOT * part);
        }
        answers.count(&a, Outcome::TokenDead, start);
        let day = SLOT * SLOTS as u32;
        let last = day - Duration::from_secs(1);
        assert_eq!(sums(last), [(Outcome::Accepted, 8), (Outcome::TokenDead, 1)]);
        assert_eq!(sums(day), [(Outcome::Accepted, 7)]);
        assert_eq!(sums(day + SLOT * 6), [(Outcome::Accepted, 1)]);
        assert!(sums(day * 9).is_empty());
        assert_eq!(answers.counted_for(start + SLOT), SLOT);
        assert_eq!(answers.counted_for(start + day * 9), day);
    }

    #[test]
    fn invented_domains_use_no_memory_and_take_no_room_from_others() {
        let start = Instant::now();
        let answers = Answers::new(start);
        let large = sender("large.example");
        answers.count(&large, Outcome::Accepted, start);
        for number in 0..1_000 {
            answers.count(
                &sender(&format!("x{number}.evil.org")),
                Outcome::UnknownModule,
                start,
            );
        }
        assert_eq!(answers.lock().days.len(), 1 + MOST_OF_SHARE as usize);
        for number in 0..2 * MOST_DOMAINS {
            answers.count(&sender(&format!("{number}.org")), Outcome::UnknownModule, start);
        }
        assert_eq!(answers.lock().days.len(), MOST_DOMAINS);
        assert!(answers.lock().shares.len() <= MOST_DOMAINS);
        assert_eq!(answers.of(large.key, start).unwrap(), [(Outcome::Accepted, 1)]);
        // The next part of the day finds room again.
        let late = sender("late.example");
        answers.count(&late, Outcome::Accepted, start);
        assert!(answers.of(late.key, start).unwrap().is_empty());
        answers.count(&late, Outcome::Accepted, start + SLOT);
        assert_eq!(answers.of(late.key, start + SLOT).unwrap().len(), 1);
    }
}
