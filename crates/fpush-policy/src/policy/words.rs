//! What is known of all lanes' words about tokens, to be written down and read again.

use std::{collections::BTreeMap, time::Instant};

use super::Policy;
use crate::{
    records::Clocks,
    verdict::{GuardPlace, VerdictGuard, VerdictRecord, Whose},
};

/// Where the next part of what is known of words begins. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictPlace {
    whose: Whose,
    place: GuardPlace,
}

impl<W> Policy<W> {
    /// A part of what is known of the provider's words about tokens, to be written down, from a place on, and the place of
    /// the next part; none after the last one.
    #[must_use]
    pub fn verdicts(&self, from: VerdictPlace, now: Instant) -> (Vec<VerdictRecord>, Option<VerdictPlace>) {
        let VerdictPlace { whose, place } = from;
        let at = self.clock.seconds(now);
        let (part, next) = match self.guard_whose(whose) {
            Some(guard) => guard.part(place, PART, at),
            None => (Vec::new(), None),
        };
        let next = match next {
            Some(place) => Some(VerdictPlace { whose, place }),
            None => self.whose_next(whose).map(|whose| VerdictPlace {
                whose,
                place: GuardPlace::default(),
            }),
        };
        (part, next)
    }

    /// Takes what was written down of words. Returns whether what was said in the main lane was said under the same settings.
    pub(crate) fn remember_words(
        &mut self,
        records: impl IntoIterator<Item = VerdictRecord>,
        clocks: Clocks,
    ) -> bool {
        let now = self.clock.seconds(clocks.now);
        let (mut by_lane, mut whose) = (BTreeMap::<Whose, Vec<_>>::new(), Whose::Main);
        for record in records {
            whose = record.whose().unwrap_or(whose);
            by_lane.entry(whose).or_default().push(record);
        }
        let of_main = by_lane.remove(&Whose::Main).unwrap_or_default();
        for (whose, records) in by_lane {
            let guard = match whose {
                Whose::Main => &mut self.guard,
                Whose::Vendor(vendor) => &mut self.lanes.vendor(vendor).guard,
                Whose::Strangers => &mut self.lanes.origins.words,
            };
            guard.remember(records, now);
        }
        self.guard.remember(of_main, now)
    }

    fn guard_whose(&self, whose: Whose) -> Option<&VerdictGuard> {
        match whose {
            Whose::Main => Some(&self.guard),
            Whose::Vendor(vendor) => self.lanes.vendors.get(&vendor).map(|vendor| &vendor.guard),
            Whose::Strangers => Some(&self.lanes.origins.words),
        }
    }

    /// Whose words come after these.
    fn whose_next(&self, whose: Whose) -> Option<Whose> {
        let first = match whose {
            Whose::Main => Some(0),
            Whose::Vendor(vendor) => vendor.checked_add(1),
            Whose::Strangers => return None,
        };
        let vendor = first.and_then(|first| self.lanes.vendors.range(first..).next());
        let strangers = (self.lanes.origins.words.doubted() > 0).then_some(Whose::Strangers);
        vendor.map(|(vendor, _)| Whose::Vendor(*vendor)).or(strangers)
    }
}

/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;
