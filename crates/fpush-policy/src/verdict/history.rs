//! What is known of a lane over hours and days.

use serde::{Deserialize, Serialize};

use crate::{fair::Standing, shared::SharedWord};

use super::window::{DAY, Evidence, Seconds};

/// What a provider says against a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It may be about our settings, or a provider's new idea of a token.
    AboutUs,
    /// The device has gone.
    BeyondDoubt,
    /// It is one of another app or project. A device is there, and its publishes name the wrong module, as likely as not.
    AnotherApps,
}

impl Word {
    /// Whether a mistake of ours would look the same.
    pub(crate) fn may_be_about_us(self) -> bool {
        match self {
            Self::AboutUs | Self::AnotherApps => true,
            Self::BeyondDoubt => false,
        }
    }
}

/// What is known of a token that was called dead or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstWord {
    /// When that was said first.
    pub(crate) at: u32,
    /// The last day on which it was said, counted from 1970.
    pub(crate) last_day: u16,
    /// On how many days it was said.
    pub(crate) days: u16,
    /// The lane's totals then.
    pub(crate) totals: Totals,
    /// Whether it was a word beyond doubt.
    pub(crate) beyond_doubt: bool,
    /// Whether a known domain published to the token: other instances are told of no others.
    #[serde(default)]
    pub(crate) of_known: bool,
}

/// Samples of the window, one every ten minutes, added up: shares over hours and days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) answers: u32,
    pub(crate) accepted: u32,
    #[serde(default)]
    pub(crate) rejected: u32,
}

/// The share of tokens that the lane usually rejects, from the same samples; old ones count less and less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usual {
    pub(crate) answers: f64,
    pub(crate) rejected: f64,
    /// The last sample.
    pub(crate) at: Seconds,
}

impl FirstWord {
    pub(crate) fn new(word: Word, now: Seconds, totals: Totals) -> Self {
        Self {
            at: u32::try_from(now).unwrap_or(u32::MAX),
            last_day: day(now),
            days: 1,
            totals,
            beyond_doubt: word == Word::BeyondDoubt,
            of_known: false,
        }
    }

    /// What another instance was told. What may be about us begins now.
    pub(crate) fn learnt(word: SharedWord, now: Seconds, totals: Totals) -> Self {
        let ago = |seconds: u32| now.saturating_sub(u64::from(seconds));
        let at = if word.beyond_doubt { ago(word.age) } else { now };
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            last_day: day(ago(word.last)),
            days: word.days,
            totals,
            beyond_doubt: word.beyond_doubt,
            of_known: true,
        }
    }

    /// Together with what was known of the same kind: the earlier first word, with what was answered until then.
    pub(crate) fn with(self, known: Self) -> Self {
        let first = if known.at <= self.at { known } else { self };
        Self {
            days: self.days.max(known.days),
            last_day: self.last_day.max(known.last_day),
            of_known: self.of_known || known.of_known,
            ..first
        }
    }

    /// To be told to others.
    pub(crate) fn to_share(self, now: Seconds) -> SharedWord {
        let last = now.saturating_sub(u64::from(self.last_day) * DAY);
        let age = u32::try_from(self.age(now)).unwrap_or(u32::MAX);
        SharedWord {
            age,
            // Within that day; never before the first one.
            last: u32::try_from(last.saturating_sub(DAY - 1))
                .unwrap_or(u32::MAX)
                .min(age),
            days: self.days,
            beyond_doubt: self.beyond_doubt,
        }
    }

    /// As if it had been said now for the first time.
    pub(crate) fn begun_again(self, now: Seconds, totals: Totals) -> Self {
        let word = if self.beyond_doubt {
            Word::BeyondDoubt
        } else {
            Word::AboutUs
        };
        Self {
            of_known: self.of_known,
            ..Self::new(word, now, totals)
        }
    }

    pub(crate) fn said_again(self, now: Seconds) -> Self {
        Self {
            last_day: day(now),
            days: self.days_with(now),
            ..self
        }
    }

    /// The same, of a token to which such a domain has published.
    pub(crate) fn published_by(self, standing: Standing) -> Self {
        Self {
            of_known: self.of_known || standing == Standing::Known,
            ..self
        }
    }

    pub(crate) fn age(&self, now: Seconds) -> Seconds {
        now.saturating_sub(u64::from(self.at))
    }

    /// On how many days it was said, if it is said now.
    pub(crate) fn days_with(&self, now: Seconds) -> u16 {
        self.days.saturating_add(u16::from(day(now) != self.last_day))
    }

    /// Whether the provider stays with it, even if the lane accepts nothing that could be compared.
    pub(crate) fn is_said_for_days(&self, now: Seconds) -> bool {
        self.age(now) >= 3 * DAY && self.days_with(now) >= 3
    }
}

impl Totals {
    pub(crate) fn plus(self, evidence: Evidence) -> Self {
        // A hundred every ten minutes reach the end after 800 years.
        let add = |total: u32, more: usize| total.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        Self {
            answers: add(self.answers, evidence.answers),
            accepted: add(self.accepted, evidence.accepted),
            rejected: add(self.rejected, evidence.rejected),
        }
    }

    pub(crate) fn accepts_since(self, before: &Self) -> bool {
        let answers = self.answers.saturating_sub(before.answers);
        let accepted = self.accepted.saturating_sub(before.accepted);
        u64::from(accepted) * 10 >= u64::from(answers)
    }

    /// Whether fewer than one in ten answers since then rejected a token.
    pub(crate) fn rejects_few_since(self, before: &Self) -> bool {
        let answers = self.answers.saturating_sub(before.answers);
        let rejected = self.rejected.saturating_sub(before.rejected);
        u64::from(rejected) * 10 < u64::from(answers)
    }
}

/// A burst ends where it could not begin, so that it does not begin and end all the time.
#[derive(Clone, Copy)]
pub(crate) enum Hysteresis {
    Begin,
    Last,
}

impl Usual {
    pub(crate) fn add(&mut self, sample: Evidence, now: Seconds) {
        let ago = now.saturating_sub(self.at) as f64;
        let weight = 0.5_f64.powf(ago / DAY as f64);
        self.answers = self.answers * weight + sample.answers as f64;
        self.rejected = self.rejected * weight + sample.rejected as f64;
    }

    /// What has lasted for long is usual.
    pub(crate) fn become_the_share_of(&mut self, evidence: Evidence) {
        let share = evidence.rejected as f64 / evidence.answers.max(1) as f64;
        self.answers = ENOUGH;
        self.rejected = share * ENOUGH;
    }

    /// Goes half of the way to a share in a day if it is smaller, and in a week if it is larger: a rise
    /// must not become usual while it lasts.
    pub(crate) fn approach(&mut self, evidence: Evidence, now: Seconds) {
        let before = *self;
        self.become_the_share_of(evidence);
        self.at = now;
        if before.answers >= ENOUGH {
            let usual = before.rejected / before.answers * ENOUGH;
            let half = if self.rejected < usual { DAY } else { 7 * DAY };
            let weight = 0.5_f64.powf(now.saturating_sub(before.at) as f64 / half as f64);
            self.rejected += (usual - self.rejected) * weight;
        }
    }

    /// Whether fewer than one in ten tokens are usually rejected. Before there is a usual share it is not small.
    pub(crate) fn is_small(&self) -> bool {
        self.answers >= ENOUGH && self.rejected * 10.0 < self.answers
    }

    /// Whether the share of rejected tokens has risen: to more than twice the usual one, and a tenth of all on top.
    /// Before there is a usual one nothing rises.
    pub(crate) fn is_exceeded_by(&self, evidence: Evidence, hysteresis: Hysteresis) -> bool {
        if self.answers < ENOUGH {
            return false;
        }
        let (factor, margin) = match hysteresis {
            Hysteresis::Begin => (2.0, 0.1),
            Hysteresis::Last => (1.5, 0.05),
        };
        let usual = self.rejected / self.answers;
        evidence.rejected as f64 >= (factor * usual + margin) * evidence.answers as f64
    }
}

pub(crate) fn day(now: Seconds) -> u16 {
    u16::try_from(now / DAY).unwrap_or(u16::MAX)
}

/// Sampled answers from which a usual share can be told.
const ENOUGH: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answers: usize, rejected: usize) -> Evidence {
        Evidence {
            answers,
            accepted: answers - rejected,
            rejected,
        }
    }

    #[test]
    fn one_in_ten_is_not_few() {
        let before = Totals::default().plus(of(50, 50));
        assert!(before.plus(of(101, 10)).rejects_few_since(&before));
        assert!(!before.plus(of(100, 10)).rejects_few_since(&before));
        assert!(before.plus(of(100, 90)).accepts_since(&before));
        assert!(!before.plus(of(101, 91)).accepts_since(&before));
        let usual = |answers, rejected| {
            let mut usual = Usual::default();
            usual.add(of(answers, rejected), 0);
            usual
        };
        assert!(usual(101, 10).is_small() && !usual(100, 10).is_small());
        assert!(
            usual(50, 0).is_small() && !usual(49, 0).is_small(),
            "fifty show what is usual"
        );
    }
}
