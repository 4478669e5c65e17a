//! The last answers of a lane: what its provider says now.

use std::collections::VecDeque;

use fpush_push::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::fair::Standing;

/// Seconds on the clock of the lane.
pub(crate) type Seconds = u64;

pub(crate) const HOUR: Seconds = 3_600;
pub(crate) const DAY: Seconds = 24 * HOUR;

/// What one answer says about the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sign {
    /// A push was accepted.
    Accepted,
    /// The token was called dead or wrong.
    Rejected,
    /// It was, and its domain is not a known one: anybody may have invented both.
    RejectedOfUnknown,
    /// Neither.
    Neutral,
}

impl Sign {
    /// That a token was called dead or wrong which a domain like this published.
    pub(crate) fn rejected(standing: Standing) -> Self {
        match standing {
            Standing::Known => Self::Rejected,
            Standing::Unknown => Self::RejectedOfUnknown,
        }
    }

    pub(crate) fn is_rejected(self) -> bool {
        matches!(self, Self::Rejected | Self::RejectedOfUnknown)
    }
}

/// The last answer for one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) token: Fingerprint,
    /// The registrable domain that published.
    pub(crate) domain: Fingerprint,
    pub(crate) at: Seconds,
    pub(crate) sign: Sign,
}

/// The last answers, in their order: one for each token, none older than ten minutes, and at most a quarter of the
/// places for one domain while others have any.
#[derive(Debug, Default)]
pub(crate) struct Window {
    answers: VecDeque<Answer>,
    /// A part of each token's fingerprint, in the same order: every answer is looked for.
    tokens: VecDeque<u64>,
    domains: Vec<OfDomain>,
    rejected: usize,
}

/// How many answers of a domain are in the window.
#[derive(Debug)]
struct OfDomain {
    domain: Fingerprint,
    answers: usize,
    accepted: usize,
}

/// Answers by what they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    pub(crate) answers: usize,
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
}

impl Window {
    pub(crate) fn record(&mut self, answer: Answer) {
        let Answer {
            token,
            domain,
            at: now,
            sign,
        } = answer;
        self.forget(now);
        let known = self.position(token);
        let same_place = known.is_some_and(|at| self.answers[at].domain == domain);
        if let Some(at) = known {
            self.remove(at);
        }
        if !same_place {
            self.make_room(domain);
        }
        self.rejected += usize::from(sign.is_rejected());
        self.answers.push_back(answer);
        self.tokens.push_back(token.table_hash());
        let accepted = usize::from(sign == Sign::Accepted);
        match self.domains.iter_mut().find(|of| of.domain == domain) {
            Some(of) => {
                of.answers += 1;
                of.accepted += accepted;
            }
            None => self.domains.push(OfDomain {
                domain,
                answers: 1,
                accepted,
            }),
        }
    }

    /// How many tokens were called dead or wrong.
    pub(crate) fn rejected(&self) -> usize {
        self.rejected
    }

    /// How many tokens of a domain were accepted.
    pub(crate) fn accepted_of(&self, domain: Fingerprint) -> usize {
        self.of(domain).map_or(0, |of| of.accepted)
    }

    /// What the answers from `since` on say. Of a domain that is not `full`, no more rejected tokens count than it has
    /// accepted ones, and one in any case; of one that is not known none does, because anybody can invent tokens, and domains
    /// as well.
    pub(crate) fn evidence(&self, since: Seconds, full: impl Fn(Fingerprint) -> bool) -> Evidence {
        let mut evidence = Evidence::default();
        let mut others: Vec<(Fingerprint, usize)> = Vec::new();
        for answer in self.answers.iter().filter(|answer| answer.at >= since) {
            match answer.sign {
                Sign::Accepted => evidence.accepted += 1,
                Sign::Neutral => {}
                Sign::Rejected | Sign::RejectedOfUnknown if full(answer.domain) => evidence.rejected += 1,
                Sign::RejectedOfUnknown => continue,
                Sign::Rejected => {
                    let other = others.iter_mut().find(|(domain, _)| *domain == answer.domain);
                    match other {
                        Some((_, left)) if *left == 0 => continue,
                        Some((_, left)) => *left -= 1,
                        None => {
                            let most = self.accepted_of(answer.domain).max(1);
                            others.push((answer.domain, most - 1));
                        }
                    }
                    evidence.rejected += 1;
                }
            }
            evidence.answers += 1;
        }
        evidence
    }

    /// Forgets what is too old.
    pub(crate) fn forget(&mut self, now: Seconds) {
        while self
            .answers
            .front()
            .is_some_and(|answer| now.saturating_sub(answer.at) > LONGEST)
        {
            self.remove(0);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter()
    }

    /// Takes an answer out for one more of this domain, if there have to be fewer.
    fn make_room(&mut self, domain: Fingerprint) {
        match self.of(domain).map(|of| of.answers) {
            Some(own) if own >= DOMAIN_PLACES && own < self.answers.len() => {
                if let Some(oldest) = self.answers.iter().position(|answer| answer.domain == domain) {
                    self.remove(oldest);
                }
            }
            Some(_) => {}
            // The domain that had the window alone shares it from now on.
            None if self.domains.len() == 1 => {
                while self.answers.len() > DOMAIN_PLACES {
                    self.remove(0);
                }
            }
            None => {}
        }
        if self.answers.len() >= PLACES {
            self.remove(0);
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(answer) = self.answers.remove(at) else {
            return;
        };
        self.tokens.remove(at);
        self.rejected -= usize::from(answer.sign.is_rejected());
        let Some(at) = self.domains.iter().position(|of| of.domain == answer.domain) else {
            return;
        };
        let of = &mut self.domains[at];
        of.answers -= 1;
        of.accepted -= usize::from(answer.sign == Sign::Accepted);
        if of.answers == 0 {
            self.domains.swap_remove(at);
        }
    }

    fn position(&self, token: Fingerprint) -> Option<usize> {
        let (first, second) = self.tokens.as_slices();
        let part = token.table_hash();
        // Without a way out of the loop the comparisons are made several at a time.
        let contains = |tokens: &[u64]| tokens.iter().fold(false, |found, other| found | (*other == part));
        if !contains(first) && !contains(second) {
            return None;
        }
        self.answers.iter().position(|answer| answer.token == token)
    }

    fn of(&self, domain: Fingerprint) -> Option<&OfDomain> {
        self.domains.iter().find(|of| of.domain == domain)
    }
}

impl Evidence {
    pub(crate) fn add(&mut self, more: Self) {
        self.answers = self.answers.saturating_add(more.answers);
        self.accepted = self.accepted.saturating_add(more.accepted);
        self.rejected = self.rejected.saturating_add(more.rejected);
    }

    /// The lane works as it should.
    pub(crate) fn is_calm(self) -> bool {
        self.accepted >= CALM_ACCEPTED && self.rejected * 10 < self.answers
    }

    /// The lane answers one in ten or more with success.
    pub(crate) fn accepts(self) -> bool {
        self.accepted > 0 && self.accepted * 10 >= self.answers
    }

    /// Many tokens are rejected: too many to be calm.
    pub(crate) fn rejects(self) -> bool {
        self.rejected >= MANY_REJECTED && self.rejected * 10 >= self.answers
    }
}

const PLACES: usize = 100;
/// Of them for one domain, while others have any.
const DOMAIN_PLACES: usize = 25;
pub(super) const LONGEST: Seconds = 600;
/// So many accepted pushes make a lane calm, and a domain one that is proven.
pub(super) const CALM_ACCEPTED: usize = 10;
const MANY_REJECTED: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u64) -> Fingerprint {
        Fingerprint::from_parts([number, 0])
    }

    fn answer(token: u64, domain: u64, at: Seconds, sign: Sign) -> Answer {
        Answer {
            token: name(token),
            domain: name(domain),
            at,
            sign,
        }
    }

    fn all(window: &Window) -> Evidence {
        window.evidence(0, |_| true)
    }

    #[test]
    fn the_last_answer_for_a_token_counts() {
        let mut window = Window::default();
        for at in 0..5 {
            window.record(answer(1, 1, at, Sign::Rejected));
        }
        assert_eq!((window.rejected(), all(&window).answers), (1, 1));
        window.record(answer(1, 1, 5, Sign::Accepted));
        assert_eq!((window.rejected(), all(&window).accepted), (0, 1));
    }

    #[test]
    fn one_in_ten_is_too_much_to_be_calm_and_enough_to_accept() {
        let of = |answers, accepted, rejected| Evidence {
            answers,
            accepted,
            rejected,
        };
        assert!(of(101, 91, 10).is_calm() && !of(100, 90, 10).is_calm());
        assert!(of(100, 90, 10).rejects() && !of(101, 91, 10).rejects());
        assert!(of(100, 10, 90).accepts() && !of(101, 10, 91).accepts());
        assert!(
            of(10, 10, 0).is_calm() && !of(9, 9, 0).is_calm(),
            "ten were accepted"
        );
        assert!(
            !of(90, 81, 9).is_calm() && !of(90, 81, 9).rejects(),
            "ten were rejected"
        );
        assert!(!of(0, 0, 0).accepts());
    }

    #[test]
    fn an_answer_counts_for_ten_minutes() {
        let mut window = Window::default();
        window.record(answer(1, 1, 0, Sign::Accepted));
        window.forget(600);
        assert_eq!(all(&window).answers, 1);
        window.forget(601);
        assert_eq!(all(&window).answers, 0);
    }

    #[test]
    fn a_domain_that_publishes_alone_has_all_places_and_shares_them_with_the_next() {
        let mut window = Window::default();
        for token in 0..150 {
            window.record(answer(token, 1, 0, Sign::Accepted));
        }
        assert_eq!(all(&window).answers, 100);
        window.record(answer(1_000, 2, 0, Sign::Rejected));
        assert_eq!(window.accepted_of(name(1)), 25);
        let newest: Vec<_> = window.iter().map(|answer| answer.token).collect();
        assert_eq!(newest[0], name(125), "its own oldest went");
        for token in 2_000..2_100 {
            window.record(answer(token, 2, 0, Sign::Rejected));
        }
        assert_eq!((window.accepted_of(name(1)), window.rejected()), (25, 25));
    }

    #[test]
    fn of_a_small_domain_one_rejected_token_counts_and_of_a_stranger_none() {
        for (sign, counted) in [(Sign::Rejected, 1), (Sign::RejectedOfUnknown, 0)] {
            let mut window = Window::default();
            for token in 0..25 {
                window.record(answer(token, 1, 0, sign));
                window.record(answer(100 + token, 2, 0, Sign::Accepted));
            }
            let evidence = window.evidence(0, |domain| domain == name(2));
            assert_eq!((evidence.rejected, evidence.answers), (counted, 25 + counted));
            assert_eq!(all(&window).rejected, 25);
            window.record(answer(50, 1, 0, Sign::Accepted));
            window.record(answer(51, 1, 0, Sign::Accepted));
            let evidence = window.evidence(0, |domain| domain == name(2));
            assert_eq!(evidence.rejected, 2 * counted, "as many as it has accepted ones");
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_comes(answers in prop::collection::vec((0..300u64, 0..6u64, 0..20u64, 0..4u8), 0..400)) {
            let (mut window, mut now) = (Window::default(), 0);
            for (token, domain, pause, sign) in answers {
                now += pause;
                let sign = [Sign::Accepted, Sign::Rejected, Sign::Neutral, Sign::RejectedOfUnknown][usize::from(sign)];
                window.record(answer(token, domain, now, sign));
                let entries: Vec<_> = window.iter().copied().collect();
                prop_assert!(entries.len() <= PLACES);
                prop_assert_eq!(entries.iter().filter(|entry| entry.sign.is_rejected()).count(), window.rejected());
                prop_assert!(entries.is_sorted_by_key(|entry| entry.at));
                for entry in &entries {
                    prop_assert!(now - entry.at <= LONGEST);
                    prop_assert_eq!(entries.iter().filter(|other| other.token == entry.token).count(), 1);
                    let own = entries.iter().filter(|other| other.domain == entry.domain).count();
                    prop_assert!(own <= DOMAIN_PLACES || own == entries.len());
                }
            }
        }
    }
}
