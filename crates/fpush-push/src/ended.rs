//! Registrations that have ended: how many, whose and why.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use crate::{SenderNames, sync::lock};

/// Counts registrations that have ended, by reason, and by the registrable domain of their owners.
#[derive(Debug, Default)]
pub struct EndedRegistrations(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    reasons: BTreeMap<&'static str, u64>,
    domains: HashMap<(Box<str>, &'static str), u64>,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// By reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// Domain, reason and number of those of which most have ended: most first, twenty at most. `None` if domains are not to be
    /// shown.
    pub domains: Option<Vec<(String, &'static str, u64)>>,
}

impl EndedRegistrations {
    /// Counts one; of an owner in this registrable domain, which is empty if there was none.
    pub fn count(&self, domain: &str, reason: &'static str) {
        let mut counts = lock(&self.0);
        *counts.reasons.entry(reason).or_default() += 1;
        if domain.is_empty() || SenderNames::current() == SenderNames::Off {
            return;
        }
        let domains = &mut counts.domains;
        if domains.len() >= MOST_COUNTED && !domains.contains_key(&(domain.into(), reason)) {
            // Who invents domains makes the counts of small ones wrong, and uses no memory.
            domains.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
        if domains.len() < MOST_COUNTED {
            *domains.entry((domain.into(), reason)).or_default() += 1;
        }
    }

    /// What was counted. What must not be shown any more is forgotten.
    #[must_use]
    pub fn get(&self) -> Ended {
        let mut counts = lock(&self.0);
        let reasons = counts
            .reasons
            .iter()
            .map(|(reason, count)| (*reason, *count))
            .collect();
        let domains = match SenderNames::current() {
            SenderNames::Off => {
                counts.domains.clear();
                None
            }
            SenderNames::Top => {
                let mut top: Vec<_> = counts.domains.iter().collect();
                top.sort_unstable_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
                top.truncate(TOP);
                let top = top
                    .into_iter()
                    .map(|((domain, reason), count)| (domain.to_string(), *reason, *count));
                Some(top.collect())
            }
        };
        Ended { reasons, domains }
    }
}

const MOST_COUNTED: usize = 1_000;
const TOP: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_domains_takes_no_memory_and_hides_nobody_large() {
        let ended = EndedRegistrations::default();
        for number in 0..20_000 {
            for _ in 0..2 {
                ended.count(&format!("{number}.example"), "unregistered");
            }
            ended.count("large.example", "dead");
            ended.count("", "expired");
            assert!(lock(&ended.0).domains.len() <= MOST_COUNTED);
        }
        let Ended { reasons, domains } = ended.get();
        assert_eq!(
            reasons,
            [("dead", 20_000), ("expired", 20_000), ("unregistered", 40_000)]
        );
        let domains = domains.unwrap();
        assert_eq!(domains.len(), TOP);
        assert_eq!((&*domains[0].0, domains[0].1), ("large.example", "dead"));
    }
}
