//! How many tokens may be taken for dead.

use fpush_push::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::shared::OwnDeaths;

use super::{
    STEADY,
    history::{Hysteresis, Usual},
    window::{Answer, DAY, Evidence, LONGEST, Seconds, Sign},
};

/// Tokens that were taken for dead, until enough answers show that the lane rejects no more tokens than it does usually.
/// The window is too short for that where answers are rare, and what is usual there is learnt too soon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Deaths {
    pub(crate) count: u32,
    /// The share of rejected tokens that is usual: nothing of a rise is in it.
    pub(crate) usual: Usual,
    /// Since when there have been more than that.
    pub(crate) risen: Option<Seconds>,
    /// How often in a row there were not, after a rise.
    pub(crate) usually: u32,
    /// Deaths since it was last looked at the answers.
    pub(crate) lately: u32,
    /// The answers since then: the last one for each token within ten minutes.
    pub(crate) later: Vec<Answer>,
    /// What other instances should know of it.
    pub(crate) news: News,
    /// Those of them that were accepted here before.
    pub(crate) living: Living,
}

/// How many tokens that were accepted here were taken for dead within a day, while the lane rejected many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Living {
    since: Seconds,
    count: u32,
}

impl Living {
    /// Whether one more may be taken for dead; then it is counted.
    pub(crate) fn take(&mut self, now: Seconds) -> bool {
        if now.saturating_sub(self.since) >= DAY {
            *self = Self { since: now, count: 0 };
        }
        let has_room = self.count < MOST_DEATHS;
        self.count += u32::from(has_room);
        has_room
    }

    /// The same, if it was written down by a clock that was ahead.
    pub(crate) fn until(self, now: Seconds) -> Self {
        Self {
            since: self.since.min(now),
            ..self
        }
    }
}

/// What other instances, with which the bound is shared, should know of the count.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct News {
    /// How often the count has changed.
    version: u64,
    untold: Untold,
    /// Whether they refused one.
    refused: bool,
}

/// What other instances have not been told yet, the most last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Untold {
    #[default]
    Nothing,
    /// The count is other than they think.
    Count,
    /// The lane was as usual when it was last looked at: this holds also if the answer that completed the look is a death itself.
    Calm,
}

impl Deaths {
    /// Takes an answer that was written down.
    pub(crate) fn remember(&mut self, answer: Answer) {
        if self.later.len() < ENOUGH {
            self.later.push(answer);
        }
    }

    /// Whether one more token may be taken for dead.
    pub(crate) fn has_room(&self) -> bool {
        self.count < MOST_DEATHS
    }

    /// Whether one that is counted already may be taken for dead although other instances cannot be asked.
    pub(crate) fn has_room_alone(&self) -> bool {
        self.count <= MOST_ALONE
    }

    /// What other instances count with.
    pub(crate) fn own(&self, lane: u16) -> OwnDeaths {
        OwnDeaths {
            lane,
            count: self.count,
            version: self.news.version,
            calm: false,
        }
    }

    /// What they should know.
    pub(crate) fn take_news(&mut self, lane: u16) -> Option<OwnDeaths> {
        let calm = match std::mem::take(&mut self.news.untold) {
            Untold::Nothing => return None,
            Untold::Count => false,
            Untold::Calm => true,
        };
        Some(OwnDeaths {
            calm,
            ..self.own(lane)
        })
    }

    /// A token that was taken for dead is not.
    pub(crate) fn take_back(&mut self) {
        self.count = self.count.saturating_sub(1);
        self.news.version += 1;
        self.news.untold = self.news.untold.max(Untold::Count);
    }

    /// Other instances have no room for one that was counted.
    pub(crate) fn refused(&mut self) {
        self.take_back();
        self.news.refused = true;
    }

    /// Fingerprints of tokens are other ones from now on.
    pub(crate) fn rekey(&mut self) {
        self.later.clear();
    }

    /// A token is taken for dead.
    pub(crate) fn add(&mut self) {
        self.count = self.count.saturating_add(1);
        self.news.version += 1;
        self.lately = self.lately.saturating_add(1);
        if !self.has_room() {
            // What comes from now on shows whether more may die.
            self.lately = 0;
            self.later.clear();
        }
    }

    /// The clock has jumped.
    pub(crate) fn begin_again(&mut self, now: Seconds) {
        for answer in &mut self.later {
            answer.at = now;
        }
        self.usual.at = now;
        self.living.since = now;
        self.risen = self.risen.map(|_| now);
    }

    /// The provider answered a push. Returns whether it was the last answer that was needed to know how the lane is.
    pub(crate) fn answered(
        &mut self,
        token: Fingerprint,
        domain: Fingerprint,
        sign: Sign,
        now: Seconds,
        is_proven: impl Fn(Fingerprint) -> bool,
    ) -> bool {
        match sign {
            Sign::Accepted | Sign::Rejected | Sign::RejectedOfUnknown => {}
            Sign::Neutral => return false,
        }
        let answer = Answer {
            token,
            domain,
            at: now,
            sign,
        };
        let same =
            |other: &&mut Answer| other.token == answer.token && now.saturating_sub(other.at) < LONGEST;
        if let Some(same) = self.later.iter_mut().rev().find(same) {
            same.sign = sign;
            return false;
        }
        self.later.push(answer);
        if self.later.len() < ENOUGH {
            return false;
        }
        let evidence = self.evidence(is_proven);
        self.later.clear();
        self.judge(evidence, now);
        self.lately = 0;
        true
    }

    /// Of a domain that is not proven no more rejected tokens count than it has accepted ones, and one in any case, also if it
    /// is not known: its devices may be living ones. Where strangers' tokens make a rise, dead ones live longer, and no living one dies.
    fn evidence(&self, is_proven: impl Fn(Fingerprint) -> bool) -> Evidence {
        let mut evidence = Evidence::default();
        for (place, answer) in self.later.iter().enumerate() {
            let of_domain = |answers: &[Answer], rejected: bool| {
                let of =
                    |other: &&Answer| other.domain == answer.domain && other.sign.is_rejected() == rejected;
                answers.iter().filter(of).count()
            };
            let is_rejected = answer.sign.is_rejected();
            let counts = !is_rejected || is_proven(answer.domain) || {
                let accepted = of_domain(&self.later, false);
                of_domain(&self.later[..place], true) < accepted.max(1)
            };
            evidence.answers += usize::from(counts);
            evidence.accepted += usize::from(!is_rejected);
            evidence.rejected += usize::from(counts && is_rejected);
        }
        evidence
    }

    fn judge(&mut self, evidence: Evidence, now: Seconds) {
        let is_usual = evidence.accepts() && !self.usual.is_exceeded_by(evidence, Hysteresis::Last);
        if is_usual {
            self.usually = self.usually.saturating_add(1);
            if self.risen.is_none() || self.usually >= USUALLY {
                // An incident may have begun since: what it has cost counts on.
                let left = self.count.min(self.lately);
                self.news.end(left != self.count);
                self.count = left;
                self.risen = None;
                self.usual.approach(evidence, now);
            }
            return;
        }
        self.usually = 0;
        let has_risen = !evidence.accepts() || self.usual.is_exceeded_by(evidence, Hysteresis::Begin);
        if self.risen.is_none() && !has_risen {
            return;
        }
        let since = *self.risen.get_or_insert(now);
        if evidence.accepts() && now.saturating_sub(since) >= STEADY {
            self.usual.become_the_share_of(evidence);
            self.usual.at = now;
            self.news.end(self.count > 0);
            (self.count, self.risen) = (0, None);
        }
    }
}

impl News {
    /// The lane is as usual: with that the incident is over, if there was one.
    fn end(&mut self, has_changed: bool) {
        self.version += u64::from(has_changed);
        if std::mem::take(&mut self.refused) || has_changed {
            self.untold = Untold::Calm;
        }
    }
}

/// However long an incident lasts, so many tokens die, with other instances in all of them.
pub(crate) const MOST_DEATHS: u32 = 10;
/// So many of them at one instance that cannot ask the others.
const MOST_ALONE: u32 = 1;
/// Answers that show how a lane is.
const ENOUGH: usize = 50;
/// So often in a row the lane must be as usual after a rise, because once is chance.
const USUALLY: u32 = 3;
