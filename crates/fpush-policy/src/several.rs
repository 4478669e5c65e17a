//! Trouble that several devices meet.

use fpush_push::{Failure, Fingerprint};

use crate::health::Complaint;

/// The same trouble for three tokens of two registrable domains, with no success between: what one sender alone meets may be of
/// its own making, where a sender chooses what is asked for.
#[derive(Debug, Default)]
pub(crate) struct Several {
    met: Vec<(Fingerprint, Fingerprint)>,
    last: Option<Complaint>,
}

impl Several {
    /// A token of a registrable domain meets it. Returns whether that makes it one that several meet.
    pub(crate) fn note(&mut self, token: Fingerprint, domain: Fingerprint, failure: &Failure) -> bool {
        let was_met = self.complaint().is_some();
        self.met.retain(|(other, _)| *other != token);
        if self.met.len() >= TOKENS {
            // One that is the last of its domain stays.
            let is_double = |at: &usize| {
                let own = self.met[*at].1;
                let mut others = self.met.iter().enumerate().filter(|(other, _)| other != at);
                own == domain || others.any(|(_, (_, other))| *other == own)
            };
            let at = (0..self.met.len()).find(is_double).unwrap_or_default();
            self.met.remove(at);
        }
        self.met.push((token, domain));
        self.last = Some(Complaint::of(failure));
        !was_met && self.complaint().is_some()
    }

    /// There is no such trouble.
    pub(crate) fn end(&mut self) {
        if !self.met.is_empty() {
            *self = Self::default();
        }
    }

    /// What was said last, if it is met by several.
    pub(crate) fn complaint(&self) -> Option<&Complaint> {
        let is_met = self.met.len() >= TOKENS && self.met.iter().any(|(_, domain)| *domain != self.met[0].1);
        self.last.as_ref().filter(|_| is_met)
    }
}

const TOKENS: usize = 3;

#[cfg(test)]
mod tests {
    use fpush_push::PushError;

    use super::*;
    use crate::testing::fingerprint;

    fn is_met(met: &[(&str, &str)]) -> bool {
        let (mut several, failure) = (
            Several::default(),
            Failure::new(PushError::TokenDoubted, "reason", "answer", "meaning"),
        );
        for (token, domain) in met {
            several.note(fingerprint(token), fingerprint(domain), &failure);
        }
        let is_met = several.complaint().is_some();
        several.end();
        assert!(several.complaint().is_none());
        is_met
    }

    #[test]
    fn three_tokens_of_two_domains_meet_it() {
        assert!(is_met(&[("1", "a"), ("2", "a"), ("3", "b")]));
        assert!(is_met(&[("1", "b"), ("2", "a"), ("3", "a")]));
        assert!(!is_met(&[("1", "a"), ("2", "b")]));
        assert!(!is_met(&[("1", "a"), ("1", "a"), ("1", "b"), ("2", "a")]));
        let own: Vec<_> = ["1", "2", "3", "4", "5", "6"].map(|token| (token, "a")).into();
        assert!(!is_met(&own), "a stranger, however many tokens it has");
        let with_other = [&[("0", "b")], own.as_slice()].concat();
        assert!(is_met(&with_other), "the other domain is not forgotten");
        let and_later = [own.as_slice(), &[("0", "b")]].concat();
        assert!(is_met(&and_later));
    }
}
