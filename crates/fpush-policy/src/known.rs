//! Known domains: those of which a push was accepted in the last 30 days.
//!
//! Half of every bound that strangers could use up is kept for them. One record is asked for all of these bounds, whichever
//! module accepted the push, and it outlasts a restart.

use fpush_push::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::{fair::Standing, recency::Recency, records::Clocks};

/// The last day on which a push of a registrable domain was accepted, of each one that is known.
#[derive(Debug)]
pub struct KnownDomains {
    days: Recency<Day>,
    today: Day,
    changes: u64,
}

/// When a push of a domain was last accepted, as far as that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAccepted {
    /// Today, so that there is nothing to note if one is accepted.
    Today,
    /// In the last 30 days.
    Lately,
    /// Longer ago, or never.
    Never,
}

/// A known domain, in a form that can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDomain {
    share: [u64; 2],
    day: Day,
}

/// A day, counted from 1970.
type Day = u32;

impl LastAccepted {
    /// Whether it is a known domain.
    #[must_use]
    pub fn standing(self) -> Standing {
        match self {
            Self::Today | Self::Lately => Standing::Known,
            Self::Never => Standing::Unknown,
        }
    }
}

impl KnownDomains {
    /// Knows none.
    #[must_use]
    pub fn new(clocks: Clocks) -> Self {
        Self {
            days: Recency::new(MOST_KNOWN),
            today: day(clocks),
            changes: 0,
        }
    }

    /// Follows the wall clock.
    pub fn follow_clock(&mut self, clocks: Clocks) {
        self.today = day(clocks);
    }

    /// When a push of a registrable domain was last accepted.
    #[must_use]
    pub fn last_accepted(&self, share: Fingerprint) -> LastAccepted {
        match self.days.get(share) {
            Some(day) if *day == self.today => LastAccepted::Today,
            Some(day) if self.is_lately(*day) => LastAccepted::Lately,
            Some(_) | None => LastAccepted::Never,
        }
    }

    /// A push of a registrable domain was accepted. Where there is no room for one more, nobody who is known makes any.
    pub fn note_accepted(&mut self, share: Fingerprint) {
        let is_new = self.days.get(share).is_none();
        let is_full = self.days.len() >= MOST_KNOWN as usize;
        if is_new && is_full && self.days.oldest().is_some_and(|day| self.is_lately(*day)) {
            return;
        }
        self.days.touch(share, self.today);
        self.changes += 1;
    }

    /// How often something changed that should survive a restart.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A part of them, to be written down, from a place on, and the place of the next part; none after the last one.
    #[must_use]
    pub fn part(&self, from: usize) -> (Vec<KnownDomain>, Option<usize>) {
        let (part, next) = self.days.part(from, PART);
        let domain = |(share, day): (Fingerprint, &Day)| KnownDomain {
            share: share.to_parts(),
            day: *day,
        };
        (part.map(domain).collect(), next)
    }

    /// Takes what was written down before the daemon started. A day to come stays as it is for a month: if the clock is wrong
    /// now, and not when it was written, it is right once the clock is.
    pub fn remember(&mut self, domains: impl IntoIterator<Item = KnownDomain>) {
        let mut domains: Vec<_> = domains.into_iter().collect();
        domains.sort_unstable_by_key(|domain| domain.day);
        for KnownDomain { share, day } in domains {
            self.days.touch(Fingerprint::from_parts(share), day);
        }
    }

    fn is_lately(&self, day: Day) -> bool {
        self.today.saturating_sub(day) <= KNOWN_DAYS
    }
}

fn day(clocks: Clocks) -> Day {
    u32::try_from(clocks.to_millis(clocks.now) / 86_400_000).unwrap_or(Day::MAX)
}

const KNOWN_DAYS: Day = 30;
/// Some 4 MB.
const MOST_KNOWN: u32 = 100_000;
/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{clocks, fingerprint};

    struct Fixture {
        known: KnownDomains,
        start: Clocks,
    }

    impl Fixture {
        fn new() -> Self {
            let start = clocks();
            Self {
                known: KnownDomains::new(start),
                start,
            }
        }

        fn go_to(&mut self, days: u64) {
            let after = Duration::from_secs(days * 86_400);
            self.known.follow_clock(Clocks {
                now: self.start.now + after,
                wall: self.start.wall + after,
            });
        }

        fn last(&self, domain: &str) -> LastAccepted {
            self.known.last_accepted(fingerprint(domain))
        }

        fn written(&self) -> Vec<KnownDomain> {
            let (mut all, mut from) = (Vec::new(), Some(0));
            while let Some(place) = from {
                let part;
                (part, from) = self.known.part(place);
                assert!(part.len() <= 1_000, "pushes wait for as long as a part takes");
                all.extend(part);
            }
            let text = serde_json::to_string(&all).unwrap();
            serde_json::from_str(&text).unwrap()
        }
    }

    #[test]
    fn a_domain_is_known_for_thirty_days_after_a_push_was_accepted() {
        let mut f = Fixture::new();
        assert_eq!(f.last("a"), LastAccepted::Never);
        f.known.note_accepted(fingerprint("a"));
        assert_eq!(
            (f.last("a"), f.last("b")),
            (LastAccepted::Today, LastAccepted::Never)
        );
        f.go_to(1);
        assert_eq!(f.last("a"), LastAccepted::Lately);
        f.go_to(30);
        assert_eq!(f.last("a").standing(), Standing::Known);
        f.go_to(31);
        assert_eq!(f.last("a").standing(), Standing::Unknown);
        f.known.note_accepted(fingerprint("a"));
        assert_eq!(f.last("a"), LastAccepted::Today);
    }

    #[test]
    fn a_restart_forgets_no_domain_whatever_the_clock_says_then() {
        let mut f = Fixture::new();
        for number in 0..2_500 {
            f.known.note_accepted(fingerprint(&number.to_string()));
        }
        f.go_to(20);
        f.known.note_accepted(fingerprint("0"));
        let written = f.written();
        assert_eq!(written.len(), 2_500);
        // A machine without a battery for its clock begins long ago, until the network has told it the time.
        let mut again = Fixture::new();
        again.known.remember(written);
        assert_eq!(again.last("0"), LastAccepted::Lately);
        assert_eq!(again.last("2499"), LastAccepted::Today);
        again.known.note_accepted(fingerprint("1"));
        let mut once_more = Fixture::new();
        once_more.known.remember(again.written());
        once_more.go_to(40);
        assert_eq!(once_more.last("0").standing(), Standing::Known);
        assert_eq!(once_more.last("2499").standing(), Standing::Unknown);
        once_more.go_to(51);
        assert_eq!(once_more.last("0").standing(), Standing::Unknown);
    }

    #[test]
    fn a_flood_of_domains_displaces_nobody_who_is_known() {
        let mut f = Fixture::new();
        f.known.note_accepted(fingerprint("good"));
        f.go_to(1);
        for number in 0..MOST_KNOWN + 10 {
            f.known.note_accepted(fingerprint(&number.to_string()));
        }
        assert_eq!(f.known.days.len(), MOST_KNOWN as usize);
        assert_eq!(f.last("good"), LastAccepted::Lately);
        assert_eq!(f.last(&MOST_KNOWN.to_string()), LastAccepted::Never);
        f.go_to(31);
        f.known.note_accepted(fingerprint("new"));
        assert_eq!(
            (f.last("new"), f.last("good")),
            (LastAccepted::Today, LastAccepted::Never)
        );
        f.known.note_accepted(fingerprint("newer"));
        assert_eq!(f.last("newer"), LastAccepted::Never, "the others are known");
    }
}
