//! Whether the provider is to be believed when it calls a token wrong.
//!
//! With the wrong environment or the wrong topic in the settings every token of the module looks wrong. If
//! each were reported as dead, one mistake of the operator would cost all devices their registration.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// What one answer of the provider says about the module's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A push was accepted: the settings are right, at least for this token.
    Accepted,
    /// The token was called wrong.
    WrongToken,
    /// Neither.
    Neutral,
}

/// The module's last answers.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    answers: VecDeque<(Instant, Sign)>,
    accepted: usize,
    wrong: usize,
    neutral: usize,
}

impl Doubt {
    pub(crate) fn record(&mut self, sign: Sign, now: Instant) {
        if self.answers.len() == MEMORY {
            self.drop_oldest();
        }
        self.answers.push_back((now, sign));
        *self.count(sign) += 1;
    }

    /// Whether a token that was called wrong may be taken for dead: of the last answers, that one included,
    /// at least one accepted a push and fewer than half called a token wrong.
    pub(crate) fn believes(&mut self, now: Instant) -> bool {
        while self
            .answers
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > MEMORY_TIME)
        {
            self.drop_oldest();
        }
        self.accepted > 0 && self.wrong * 2 < self.answers.len()
    }

    /// Whether it looks as if the settings were wrong: several tokens were called wrong,
    /// and the provider is not believed.
    pub(crate) fn suspects_settings(&mut self, now: Instant) -> bool {
        !self.believes(now) && self.wrong >= SUSPICIOUS
    }

    fn drop_oldest(&mut self) {
        if let Some((_, sign)) = self.answers.pop_front() {
            *self.count(sign) -= 1;
        }
    }

    fn count(&mut self, sign: Sign) -> &mut usize {
        match sign {
            Sign::Accepted => &mut self.accepted,
            Sign::WrongToken => &mut self.wrong,
            Sign::Neutral => &mut self.neutral,
        }
    }
}

const MEMORY: usize = 100;
/// One wrong token, or two, say nothing.
const SUSPICIOUS: usize = 3;
const MEMORY_TIME: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(signs: &[Sign], at: Instant) -> Doubt {
        let mut doubt = Doubt::default();
        for sign in signs {
            doubt.record(*sign, at);
        }
        doubt
    }

    #[test]
    fn without_a_success_nothing_is_believed() {
        let now = Instant::now();
        assert!(!doubt(&[], now).believes(now));
        assert!(!doubt(&[Sign::Neutral, Sign::Neutral, Sign::WrongToken], now).believes(now));
    }

    #[test]
    fn fewer_than_half_wrong_is_believed_and_half_is_not() {
        let now = Instant::now();
        assert!(doubt(&[Sign::Accepted, Sign::Accepted, Sign::WrongToken], now).believes(now));
        assert!(!doubt(&[Sign::Accepted, Sign::WrongToken], now).believes(now));
    }

    #[test]
    fn only_the_last_hundred_answers_of_ten_minutes_count() {
        let start = Instant::now();
        let mut old = doubt(&[Sign::Accepted; 5], start);
        old.record(Sign::WrongToken, start + Duration::from_secs(599));
        assert!(old.believes(start + Duration::from_secs(600)));
        assert!(
            !old.believes(start + Duration::from_secs(601)),
            "the successes are too old"
        );

        let mut many = doubt(&[Sign::Accepted; 100], start);
        for _ in 0..49 {
            many.record(Sign::WrongToken, start);
        }
        assert!(many.believes(start));
        many.record(Sign::WrongToken, start);
        assert!(!many.believes(start), "half of the last hundred");
    }
}
