//! When a provider that calls a token dead or wrong is believed.
//!
//! A mistake in the settings, a change at the provider and its bad hour all look as if devices were dead, and a device
//! that its server forgets is silent for days. So each word is weighed against what the lane (what shares a fate at the
//! provider: here the module) answered before. All of it are functions of what was answered and the time.

use fpush_push::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::{fair::Standing, recency::Recency};

use self::{
    alive::Alive,
    deaths::Deaths,
    history::{FirstWord, Hysteresis, Totals, Usual},
    window::{Answer, CALM_ACCEPTED, DAY, Evidence, HOUR, LONGEST, Sign, Window},
    words::Words,
};

mod alive;
mod alone;
mod clock;
mod deaths;
mod history;
mod publisher;
mod record;
mod shared;
mod window;
mod words;

pub(crate) use self::clock::LaneClock;
pub(crate) use self::deaths::MOST_DEATHS;
pub(crate) use self::history::Word;
pub(crate) use self::publisher::Publisher;
pub use self::record::VerdictRecord;
pub(crate) use self::record::{GuardPlace, Whose};
pub(crate) use self::window::Seconds;

/// What became of a word against a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// The token is dead.
    Dead,
    /// It is not, as far as we know.
    Doubted,
}

/// Something about the lane that a person should hear once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneChange {
    /// The provider rejects far more tokens than usual.
    BurstBegan,
    /// It accepts pushes again, or has rejected as many for two weeks.
    BurstEnded,
    /// It rejects every token, and has never accepted one with these settings.
    NothingAccepted,
}

/// How the lane is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It rejects few tokens.
    Well,
    /// It rejects many tokens, as it has for long.
    Stale,
    /// It has rejected every token so far, and accepted none.
    NothingAccepted,
    /// The provider rejects far more tokens than usual.
    Burst,
}

/// The state of one lane. A digest names the settings that the provider's words depend on: under another one what was said
/// counts no more.
#[derive(Debug)]
pub(crate) struct VerdictGuard {
    whose: Whose,
    digest: u128,
    window: Window,
    /// Tokens that were called dead or wrong and are not believed dead.
    words: Words,
    /// The last two tokens that were accepted, the last one first.
    accepted: [Option<Accepted>; 2],
    /// All that were, in the last 30 days.
    alive: Alive,
    /// Whether one was accepted since the daemon started: until then, what was read from disk is not a reason to believe.
    proven: bool,
    deaths: Deaths,
    totals: Totals,
    usual: Usual,
    /// Domains that had as many devices accepted at a time as make a lane calm.
    proven_domains: Recency<()>,
    /// That the provider rejects far more tokens than usual.
    burst: Option<Burst>,
    /// Whether it was said that the lane has never accepted anything.
    nothing_accepted_said: bool,
    changes: u64,
}

/// What is known of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Burst {
    /// When it began.
    at: Seconds,
    /// Samples of what it answers, for an hour or until there are enough.
    later: Evidence,
    /// When the first of them began.
    #[serde(default)]
    since: Seconds,
    /// Tokens that were called dead or wrong and have been accepted since the last such word.
    #[serde(default)]
    recovered: usize,
    /// Whether an hour has passed in which it rejected no more tokens than usual.
    #[serde(default)]
    is_usual_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accepted {
    token: Fingerprint,
    at: Seconds,
}

impl Burst {
    /// Looks at what it answered, once there are samples of an hour, and enough; then another hour begins.
    fn look_at_hour(&mut self, usual: &Usual, now: Seconds) {
        if now.saturating_sub(self.since) >= HOUR && self.later.answers >= ENOUGH_LATER {
            self.is_usual_again = self.later.accepts() && !usual.is_exceeded_by(self.later, Hysteresis::Last);
            (self.later, self.since) = (Evidence::default(), now);
        }
    }
}

impl VerdictGuard {
    pub(crate) fn new(digest: u128) -> Self {
        Self::of(Whose::Main, digest)
    }

    /// One for these words.
    pub(crate) fn of(whose: Whose, digest: u128) -> Self {
        Self {
            whose,
            digest,
            window: Window::default(),
            words: Words::new(),
            accepted: [None; 2],
            alive: Alive::default(),
            proven: false,
            deaths: Deaths::default(),
            totals: Totals::default(),
            usual: Usual::default(),
            proven_domains: Recency::new(MAX_DOMAINS),
            burst: None,
            nothing_accepted_said: false,
            changes: 0,
        }
    }

    /// Goes on under a digest: if it is another one, with nothing but the domains that are proven, the tokens that were alive, the
    /// share of tokens that the lane usually rejects, by which an incident is seen, and how many died in it. Returns whether it is.
    pub(crate) fn go_on_under(&mut self, digest: u128) -> bool {
        if digest == self.digest {
            return false;
        }
        let fresh = Self::of(self.whose, digest);
        let old = std::mem::replace(self, fresh);
        self.proven_domains = old.proven_domains;
        self.alive = old.alive;
        self.usual = old.usual;
        self.deaths = old.deaths;
        self.changes = old.changes + 1;
        true
    }

    /// How often something changed that should survive a restart.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a push for a token was accepted in the last 30 days, as far as that is known.
    pub(crate) fn is_alive(&self, token: Fingerprint, now: Seconds) -> bool {
        self.alive.contains(token, now)
    }

    /// Whether a token was called dead or wrong and is not believed dead.
    pub(crate) fn is_doubted(&self, token: Fingerprint) -> bool {
        self.words.of(token).is_some()
    }

    /// What was said first against a token that is not believed dead.
    pub(crate) fn first_word(&self, token: Fingerprint) -> Option<FirstWord> {
        self.words.of(token)
    }

    /// Whether pushes for enough other tokens were accepted since a first word against one to believe that it was not about us.
    pub(crate) fn has_accepted_since(&self, first: &FirstWord) -> bool {
        self.others_accepted_since(first) >= ENOUGH_OTHERS
    }

    /// How many tokens were called dead or wrong and are not believed dead.
    pub(crate) fn doubted(&self) -> usize {
        self.words.len()
    }

    /// The provider accepted a push for a token.
    pub(crate) fn accepted(
        &mut self,
        token: Fingerprint,
        publisher: Publisher,
        now: Seconds,
    ) -> Option<LaneChange> {
        let Publisher { domain, standing } = publisher;
        self.record(token, domain, Sign::Accepted, now);
        self.changes += u64::from(self.alive.note(token, now));
        let recovered = self.unblock(token);
        if let Some(burst) = &mut self.burst {
            burst.recovered += usize::from(recovered);
        }
        self.proven = true;
        let [last, before] = &mut self.accepted;
        if last.is_some_and(|last| last.token != token) {
            *before = *last;
        }
        *last = Some(Accepted { token, at: now });
        if standing == Standing::Known
            && self.proven_domains.get(domain).is_none()
            && self.window.accepted_of(domain) >= CALM_ACCEPTED
        {
            self.proven_domains.touch(domain, ());
        }
        let ended = self.has_burst_ended(now);
        if ended {
            self.burst = None;
            self.changes += 1;
        }
        ended.then_some(LaneChange::BurstEnded)
    }

    /// The provider answered a push with something that says nothing of its token.
    pub(crate) fn neutral(&mut self, token: Fingerprint, domain: Fingerprint, now: Seconds) {
        self.record(token, domain, Sign::Neutral, now);
    }

    /// The provider called a token dead or wrong that is not to be taken for dead, whatever the lane answers.
    pub(crate) fn rejected(
        &mut self,
        token: Fingerprint,
        publisher: Publisher,
        now: Seconds,
    ) -> Option<LaneChange> {
        self.record(token, publisher.domain, Sign::rejected(publisher.standing), now);
        self.turn(now)
    }

    /// The provider called a token dead or wrong: whether it is to be taken for dead. What was said against it is kept
    /// until it is [unblocked](Self::unblock) or dead, because a registry may have the last word. `was_alive`: it
    /// [was accepted](Self::is_alive) in this lane or another one. Of those few die a day where the lane rejects many: how many it
    /// rejects usually says nothing of them where most of its tokens were dead when they came.
    pub(crate) fn weigh(
        &mut self,
        token: Fingerprint,
        publisher: Publisher,
        word: Word,
        was_alive: bool,
        now: Seconds,
    ) -> (Belief, Option<LaneChange>) {
        let Publisher { domain, standing } = publisher;
        self.record(token, domain, Sign::rejected(standing), now);
        let first = self.words.of(token);
        // What may have been about us does not make a word beyond doubt the second one.
        let first = first.filter(|first| first.beyond_doubt || word.may_be_about_us());
        // Rejected tokens of other domains, who may have invented them, are not a reason to doubt one of this domain.
        let evidence = self
            .window
            .evidence(0, |other| other == domain || self.is_proven(other));
        let believed = self.believes(word, first, evidence, now)
            && self.deaths.has_room()
            && (!was_alive || self.is_usually_calm(evidence) || self.deaths.living.take(now));
        if believed {
            self.deaths.add();
        }
        if !believed || first.is_some() {
            let totals = self.totals_until_now();
            let word = match first {
                Some(first) => first.said_again(now),
                None => FirstWord::new(word, now, totals),
            };
            self.words.note(token, word.published_by(standing), now);
        }
        self.changes += 1;
        let belief = if believed { Belief::Dead } else { Belief::Doubted };
        (belief, self.turn(now))
    }

    /// A token that was taken for dead has not ended a registration after all: the registry knows better, or could not be
    /// asked.
    pub(crate) fn take_back_death(&mut self) {
        self.deaths.take_back();
        self.changes += 1;
    }

    /// Forgets what was said against a token: it is alive. Returns whether there was something.
    pub(crate) fn unblock(&mut self, token: Fingerprint) -> bool {
        let was_doubted = self.words.forget(token);
        self.changes += u64::from(was_doubted);
        was_doubted
    }

    /// Begins all hours again, because the clock has jumped: `now` is what it says since.
    pub(crate) fn begin_hours_again(&mut self, now: Seconds) {
        let totals = self.totals_until_now();
        self.words.begin_again(now, totals);
        self.window = Window::default();
        for accepted in self.accepted.iter_mut().flatten() {
            accepted.at = 0;
        }
        self.usual.at = now;
        self.alive.begin_again(now);
        self.deaths.begin_again(now);
        if let Some(burst) = &mut self.burst {
            (burst.at, burst.since) = (now, now);
        }
        self.changes += 1;
    }

    /// How the lane is.
    pub(crate) fn condition(&mut self, now: Seconds) -> Condition {
        self.advance(now);
        if self.burst.is_some() {
            Condition::Burst
        } else if self.accepts_nothing() {
            Condition::NothingAccepted
        } else if self.window.rejected() > 0 && self.evidence().rejects() {
            Condition::Stale
        } else {
            Condition::Well
        }
    }

    /// Whether the lane rejects few tokens, now and usually: where it rejects many, those that accept may have been heard first.
    fn is_usually_calm(&self, evidence: Evidence) -> bool {
        evidence.is_calm() && self.deaths.usual.is_small()
    }

    fn believes(&self, word: Word, first: Option<FirstWord>, evidence: Evidence, now: Seconds) -> bool {
        let trusts = self.proven && self.burst.is_none();
        match (word, first) {
            (Word::AboutUs | Word::AnotherApps, Some(first)) => {
                let totals = self.totals_until_now();
                // Of a small app that names the wrong module the share is small, too.
                let is_share = word == Word::AboutUs && totals.rejects_few_since(&first.totals);
                trusts
                    && first.age(now) >= DAY
                    && self.has_accepted_since(&first)
                    && totals.accepts_since(&first.totals)
                    && (is_share || self.words.are_few_wrong())
            }
            (Word::BeyondDoubt, _) if trusts && evidence.is_calm() => true,
            (Word::BeyondDoubt, Some(first)) => {
                let among_successes = trusts
                    && first.age(now) >= HOUR
                    && self.others_accepted_since(&first) >= 1
                    && evidence.accepts();
                among_successes || first.is_said_for_days(now)
            }
            (Word::AboutUs | Word::AnotherApps | Word::BeyondDoubt, None) => false,
        }
    }

    /// Whether the provider rejects no more tokens than usual again: it takes its words back, or has been watched for an
    /// hour. The last ten minutes say little, because who was rejected is left alone for as long.
    fn has_burst_ended(&mut self, now: Seconds) -> bool {
        let Some(burst) = self.burst else {
            return false;
        };
        let evidence = self.evidence();
        let takes_back = evidence.rejected == 0 && burst.recovered >= CALM_ACCEPTED;
        if takes_back || burst.is_usual_again {
            return true;
        }
        let is_steady = evidence.accepts() && now.saturating_sub(burst.at) >= STEADY;
        if is_steady {
            self.usual.become_the_share_of(evidence);
            self.deaths.usual = Usual::default();
        }
        is_steady
    }

    fn record(&mut self, token: Fingerprint, domain: Fingerprint, sign: Sign, now: Seconds) {
        self.advance(now);
        if let (Sign::Rejected, Some(burst)) = (sign, &mut self.burst) {
            burst.recovered = 0;
        }
        self.window.record(Answer {
            token,
            domain,
            at: now,
            sign,
        });
        if self.burst.is_none() {
            let proven = &self.proven_domains;
            let is_proven = |domain| proven.get(domain).is_some();
            let judged = self.deaths.answered(token, domain, sign, now, is_proven);
            self.changes += u64::from(judged);
        }
    }

    /// Forgets what is too old, after it has been added to what is usual.
    fn advance(&mut self, now: Seconds) {
        if now.saturating_sub(self.usual.at) >= LONGEST {
            self.take_sample(now);
        }
        self.window.forget(now);
    }

    /// Adds the answers since the last sample to the totals: each once, or the last hundred of many.
    fn take_sample(&mut self, now: Seconds) {
        self.totals = self.totals_until_now();
        let sample = self.sample();
        match &mut self.burst {
            None => self.usual.add(sample, now),
            Some(burst) => {
                burst.later.add(sample);
                burst.look_at_hour(&self.usual, now);
            }
        }
        self.usual.at = now;
        self.changes += u64::from(sample.answers > 0);
    }

    fn sample(&self) -> Evidence {
        self.window
            .evidence(self.usual.at, |domain| self.is_proven(domain))
    }

    /// With every rejected token: to count fewer of them would be a reason to believe the provider.
    fn totals_until_now(&self) -> Totals {
        self.totals.plus(self.window.evidence(self.usual.at, |_| true))
    }

    fn evidence(&self) -> Evidence {
        self.window.evidence(0, |domain| self.is_proven(domain))
    }

    fn is_proven(&self, domain: Fingerprint) -> bool {
        self.proven_domains.get(domain).is_some()
    }

    /// How many other tokens were accepted since the first word against one; two stand for many. The token itself was
    /// not: that would have lifted the word.
    fn others_accepted_since(&self, first: &FirstWord) -> usize {
        let since = |accepted: &&Accepted| accepted.at > u64::from(first.at);
        self.accepted.iter().flatten().filter(since).count()
    }

    fn accepts_nothing(&self) -> bool {
        self.accepted[0].is_none() && self.words.len().max(self.window.rejected()) >= FEW
    }

    /// What a person should hear after a token was called dead or wrong.
    fn turn(&mut self, now: Seconds) -> Option<LaneChange> {
        if self.burst.is_some() {
            return None;
        }
        let evidence = self.evidence();
        let bursts = evidence.rejects()
            && (!evidence.accepts() || self.usual.is_exceeded_by(evidence, Hysteresis::Begin));
        if bursts {
            self.burst = Some(Burst {
                at: now,
                later: Evidence::default(),
                since: now,
                recovered: 0,
                is_usual_again: false,
            });
            self.changes += 1;
            return Some(LaneChange::BurstBegan);
        }
        let news = self.accepts_nothing() && !self.nothing_accepted_said;
        self.nothing_accepted_said |= news;
        news.then_some(LaneChange::NothingAccepted)
    }
}

/// A step of the clock by more seconds is a jump.
pub(crate) const JUMP: Seconds = 60;
/// A share that has lasted so long is the usual one. No incident of a provider lasts as long, and until then few die.
const STEADY: Seconds = 14 * DAY;
/// Fewer tokens that were rejected are not a sign of a mistake.
const FEW: usize = 3;
/// So many other tokens that were accepted show that a word is not about us.
const ENOUGH_OTHERS: usize = 2;
/// Answers from which the end of a burst can be told.
const ENOUGH_LATER: usize = 20;
const MAX_DOMAINS: u32 = 10_000;

#[cfg(test)]
mod tests;
