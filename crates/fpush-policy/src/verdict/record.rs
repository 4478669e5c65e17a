//! What a lane must not forget when the daemon starts again.

use fpush_push::Fingerprint;
use serde::{Deserialize, Serialize};

use super::{
    Accepted, Burst, JUMP, VerdictGuard,
    deaths::{Deaths, Living},
    history::{FirstWord, Totals, Usual},
    window::{Answer, DAY, Seconds, Sign},
};

/// A part of what a module knows of its provider's words, in a form that can be written down. Times are seconds since
/// 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord(Part);

/// Whose words a guard keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Whose {
    /// Those of the main lane.
    #[default]
    Main,
    /// Those of a vendor's.
    Vendor(u8),
    /// The first words of all servers that strangers have chosen.
    Strangers,
}

/// Where the next part of a lane's records begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GuardPlace {
    /// Before all others.
    #[default]
    Lane,
    /// At one of the words that were said under this digest.
    Words(u128, usize),
    /// At one of the domains.
    Domains(usize),
    /// At some of the tokens that were alive.
    Alive(usize),
}

/// The first one of a lane is [`Part::Lane`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Part {
    Lane {
        #[serde(default)]
        whose: Whose,
        digest: [u64; 2],
        /// When it was written.
        at: Seconds,
        accepted: Vec<([u64; 2], Seconds)>,
        deaths: u32,
        /// What is usual where those are counted, and since when there is more.
        #[serde(default)]
        course: (Usual, Option<Seconds>),
        /// How often in a row there was no more after a rise, and the deaths since it was last looked at the answers.
        #[serde(default)]
        lately: (u32, u32),
        /// The deaths of tokens that had been alive.
        #[serde(default)]
        living: Living,
        totals: Totals,
        usual: Usual,
        burst: Option<Burst>,
    },
    /// One of the window.
    Answer(AnswerRecord),
    /// An answer by which it is seen whether more tokens may be taken for dead.
    Later(AnswerRecord),
    Word {
        token: [u64; 2],
        word: FirstWord,
    },
    Domain([u64; 2]),
    /// Tokens that were alive.
    Alive(Vec<u64>),
}

impl VerdictRecord {
    /// Whose words it and those behind it are, if it is the first one of a lane.
    pub(crate) fn whose(&self) -> Option<Whose> {
        match &self.0 {
            Part::Lane { whose, .. } => Some(*whose),
            Part::Answer(_) | Part::Later(_) | Part::Word { .. } | Part::Domain(_) | Part::Alive(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct AnswerRecord {
    token: [u64; 2],
    domain: [u64; 2],
    at: Seconds,
    sign: Sign,
}

impl From<&Answer> for AnswerRecord {
    fn from(answer: &Answer) -> Self {
        Self {
            token: answer.token.to_parts(),
            domain: answer.domain.to_parts(),
            at: answer.at,
            sign: answer.sign,
        }
    }
}

impl From<AnswerRecord> for Answer {
    fn from(record: AnswerRecord) -> Self {
        Self {
            token: Fingerprint::from_parts(record.token),
            domain: Fingerprint::from_parts(record.domain),
            at: record.at,
            sign: record.sign,
        }
    }
}

impl VerdictGuard {
    /// A part of everything, to be written down, and the place of the next part; none after the last one. A word that is
    /// lifted meanwhile makes another one move, which then may be in no part: it is said once more.
    pub(crate) fn part(
        &self,
        place: GuardPlace,
        most: usize,
        now: Seconds,
    ) -> (Vec<VerdictRecord>, Option<GuardPlace>) {
        let word = |(token, word): (Fingerprint, &FirstWord)| Part::Word {
            token: token.to_parts(),
            word: *word,
        };
        let domain = |(domain, ()): (Fingerprint, &())| Part::Domain(domain.to_parts());
        let (part, next): (Vec<_>, _) = match place {
            GuardPlace::Lane => (self.lane(now), Some(GuardPlace::Words(self.digest, 0))),
            // What was said to other settings has no place behind that lane.
            GuardPlace::Words(digest, _) if digest != self.digest => {
                (Vec::new(), Some(GuardPlace::Domains(0)))
            }
            GuardPlace::Words(digest, from) => {
                let (part, next) = self.words.part(from, most);
                let next = next.map_or(GuardPlace::Domains(0), |next| GuardPlace::Words(digest, next));
                (part.map(word).collect(), Some(next))
            }
            GuardPlace::Domains(from) => {
                let (part, next) = self.proven_domains.part(from, most);
                let next = next.map_or(GuardPlace::Alive(0), GuardPlace::Domains);
                (part.map(domain).collect(), Some(next))
            }
            GuardPlace::Alive(from) => {
                let (part, next) = self.alive.part(from, most, now);
                let record = (!part.is_empty()).then_some(Part::Alive(part));
                (record.into_iter().collect(), next.map(GuardPlace::Alive))
            }
        };
        (part.into_iter().map(VerdictRecord).collect(), next)
    }

    /// The lane and its window, which belong together.
    fn lane(&self, now: Seconds) -> Vec<Part> {
        let lane = Part::Lane {
            whose: self.whose,
            digest: parts(self.digest),
            at: now,
            accepted: self
                .accepted
                .iter()
                .flatten()
                .map(|accepted| (accepted.token.to_parts(), accepted.at))
                .collect(),
            deaths: self.deaths.count,
            course: (self.deaths.usual, self.deaths.risen),
            lately: (self.deaths.usually, self.deaths.lately),
            living: self.deaths.living,
            totals: self.totals,
            usual: self.usual,
            burst: self.burst,
        };
        let answers = self.window.iter().map(|answer| Part::Answer(answer.into()));
        let later = self.deaths.later.iter().map(|answer| Part::Later(answer.into()));
        std::iter::once(lane).chain(answers).chain(later).collect()
    }

    /// Takes what was written down. Nothing of it is believed that a wrong clock may have written. Returns whether it was
    /// written under the same settings, and so something is known of them.
    pub(crate) fn remember(
        &mut self,
        records: impl IntoIterator<Item = VerdictRecord>,
        now: Seconds,
    ) -> bool {
        let (mut same, mut is_clock_doubted) = (false, false);
        for VerdictRecord(part) in records {
            match part {
                Part::Lane {
                    whose: _,
                    digest,
                    at,
                    accepted,
                    deaths,
                    course: (usual_of_deaths, risen),
                    lately: (usually, lately),
                    living,
                    totals,
                    usual,
                    burst,
                } => {
                    same = digest == parts(self.digest);
                    is_clock_doubted = at > now + JUMP || now > at.saturating_add(LONGEST_REST);
                    self.usual = usual.checked(now);
                    self.deaths = Deaths {
                        count: deaths,
                        usual: usual_of_deaths.checked(now),
                        risen: risen.map(|risen| risen.min(now)),
                        usually,
                        lately,
                        living: living.until(now),
                        ..Deaths::default()
                    };
                    if !same {
                        continue;
                    }
                    for (place, (token, at)) in self.accepted.iter_mut().zip(accepted) {
                        let token = Fingerprint::from_parts(token);
                        *place = Some(Accepted {
                            token,
                            at: at.min(now),
                        });
                    }
                    self.totals = totals;
                    self.burst = burst.map(|burst| Burst {
                        at: burst.at.min(now),
                        since: burst.since.min(now),
                        ..burst
                    });
                }
                Part::Answer(answer) if same && !is_clock_doubted && answer.at <= now => {
                    self.window.record(answer.into());
                }
                Part::Later(answer) => self.deaths.remember(Answer {
                    at: answer.at.min(now),
                    ..answer.into()
                }),
                Part::Word { token, word } if same => {
                    let word = if u64::from(word.at) > now {
                        word.begun_again(now, self.totals)
                    } else {
                        word
                    };
                    self.words.remember(Fingerprint::from_parts(token), word);
                }
                Part::Answer(_) | Part::Word { .. } => {}
                Part::Alive(tokens) => self.alive.remember(tokens),
                Part::Domain(domain) => {
                    self.proven_domains.touch(Fingerprint::from_parts(domain), ());
                }
            }
        }
        if is_clock_doubted {
            self.begin_hours_again(now);
        }
        self.window.forget(now);
        same
    }
}

/// After a longer rest of the whole service its clock may be ahead as well: then all that is remembered looks older than it is.
const LONGEST_REST: Seconds = DAY;

impl Usual {
    /// The same, if it can be.
    fn checked(self, now: Seconds) -> Self {
        let possible = self.answers.is_finite() && self.rejected >= 0.0 && self.rejected <= self.answers;
        let at = self.at.min(now);
        if possible {
            Self { at, ..self }
        } else {
            Self {
                at,
                ..Self::default()
            }
        }
    }
}

fn parts(digest: u128) -> [u64; 2] {
    [(digest >> 64) as u64, digest as u64]
}
