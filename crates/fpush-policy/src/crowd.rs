//! Whether a limit that a provider does not name is one device's or the module's.

use std::time::{Duration, Instant};

use fpush_push::Fingerprint;

/// The devices that met such a limit not long ago. One device's own limit must not stop all others, nor must all devices of
/// one stranger.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Two at most, one for each token: a domain with more of them is found with the next one, or is one domain.
    met: Vec<Met>,
}

#[derive(Debug)]
struct Met {
    token: Fingerprint,
    domain: Fingerprint,
    at: Instant,
}

impl Crowd {
    /// A device meets the limit. Returns whether it is the module's: three tokens of two registrable domains have met it
    /// within ten seconds.
    pub(crate) fn meets(&mut self, token: Fingerprint, domain: Fingerprint, now: Instant) -> bool {
        self.met
            .retain(|met| now.duration_since(met.at) <= WITHIN && met.token != token);
        let is_full = self.met.len() + 1 == DEVICES;
        if is_full
            && self
                .met
                .iter()
                .any(|met| met.domain != self.met[0].domain || met.domain != domain)
        {
            self.met.clear();
            return true;
        }
        if is_full {
            self.met.remove(0);
        }
        self.met.push(Met {
            token,
            domain,
            at: now,
        });
        false
    }
}

const DEVICES: usize = 3;
const WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fingerprint;

    /// After which of these the limit is the module's: token, domain, second.
    fn found(met: &[(&str, &str, u64)]) -> Vec<usize> {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let mut meets = |&(token, domain, second): &(&str, &str, u64)| {
            let now = start + Duration::from_secs(second);
            let found = crowd.meets(fingerprint(token), fingerprint(domain), now);
            assert!(crowd.met.len() < DEVICES);
            found
        };
        let numbers = 0..met.len();
        numbers.filter(|number| meets(&met[*number])).collect()
    }

    #[test]
    fn three_tokens_of_two_domains_within_ten_seconds_are_the_modules_limit() {
        let none = Vec::<usize>::new();
        assert_eq!(found(&[("1", "a", 0), ("2", "a", 0), ("3", "b", 10)]), [2]);
        assert_eq!(found(&[("1", "a", 0), ("2", "b", 5), ("3", "a", 10)]), [2]);
        assert_eq!(found(&[("1", "a", 0), ("2", "b", 5), ("3", "c", 10)]), [2]);
        assert_eq!(found(&[("1", "a", 0), ("2", "b", 5), ("3", "c", 11)]), none);
        assert_eq!(
            found(&[("1", "a", 0), ("2", "b", 0), ("1", "c", 0)]),
            none,
            "two tokens"
        );
        let one_domain = ["1", "2", "3", "4", "5"].map(|token| (token, "a", 0));
        assert_eq!(found(&one_domain), none);
        assert_eq!(found(&[&one_domain[..], &[("6", "b", 1)]].concat()), [5]);
        // The next ones begin anew.
        assert_eq!(
            found(&[
                ("1", "a", 0),
                ("2", "b", 0),
                ("3", "c", 0),
                ("4", "a", 0),
                ("5", "b", 0)
            ]),
            [2]
        );
    }
}
