//! What the provider's answers mean for a push.

use std::time::{Duration, Instant};

use fpush_push::{Choice, Failure, Form, LaneId, Outcome, PushError, Unavailable};

use super::Policy;
use crate::{
    attempts::{Answered, Ended, Next, Notice, Tries},
    block::BlockReason,
    fair::Standing,
    job::{Elsewhere, PushJob, Said},
    shared::{Change, SharedWord},
    verdict::{Belief, Condition, Publisher, Seconds, Word},
};

impl<W> Policy<W> {
    /// Whether an attempt at a lane that must have ended by then may begin now; otherwise when to try again. What has failed does
    /// not try again while the lane is down: it can be held.
    ///
    /// # Errors
    ///
    /// The end of the pause; now, if there is no time left.
    pub fn may_attempt(
        &mut self,
        lane: LaneId,
        tries: &Tries,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Instant> {
        let is_held = lane == LaneId::Main && !self.hold_for.is_zero();
        let gives_up = tries.has_failed() && is_held && !self.is_last_chance();
        match self.holds_back(lane, now) {
            Some(until) => Err(until),
            None if now >= deadline || gives_up && self.is_down(lane, now) => Err(now),
            None => {
                if lane == LaneId::Main {
                    self.outage.asked(now);
                }
                Ok(())
            }
        }
    }

    /// What an answer of the provider means for the push that it was given to. `generation` is that of the settings with
    /// which the attempt was made, `jitter` a random number from 0 to 1.
    pub fn answered(
        &mut self,
        job: &mut PushJob,
        tries: &mut Tries,
        answer: Result<(), &Failure>,
        generation: u64,
        now: Instant,
        jitter: f64,
    ) -> Answered {
        if job.lane == LaneId::Main {
            self.outage.told();
        }
        let answered = self.hear_answer(job, tries, answer, generation, now, jitter);
        self.tell_deaths(job.lane);
        answered
    }

    fn hear_answer(
        &mut self,
        job: &mut PushJob,
        tries: &mut Tries,
        answer: Result<(), &Failure>,
        generation: u64,
        now: Instant,
        jitter: f64,
    ) -> Answered {
        let is_current = generation == self.generation;
        let failure = match answer {
            Ok(()) => {
                if self.outbox.is_open() && self.guard.is_doubted(job.token) | self.blocklist.knows(job.token)
                {
                    self.outbox.tell(|| Change::Unblock(job.token));
                }
                self.blocklist.unblock(job.token);
                self.recent.accepted(job.token, now);
                let at = self.clock.seconds(now);
                let publisher = Publisher::of_accepted(&job.sender);
                self.learn_home(job);
                self.cover(job);
                let mut notice = None;
                if let LaneId::Origin(origin) = job.lane {
                    self.lanes.origins.accepted(origin, now);
                    self.lanes.origins.words.unblock(job.token);
                    if let Some(vendor) = job.vendor {
                        self.lanes.relayed(vendor).accepted(job.token, publisher, at);
                    }
                } else if is_current {
                    if job.lane == LaneId::Main {
                        let is_backlog = self.has_backlog();
                        self.outage.accepted(is_backlog, now);
                    }
                    self.health_of(job.lane).accepted(now);
                    if let (Elsewhere::Asked { .. }, Some(other)) = (job.elsewhere, job.lane.other()) {
                        self.take_neutral_of(other, job, now);
                    }
                    let change = self.guard_of(job.lane).accepted(job.token, publisher, at);
                    notice = change.map(Notice::Lane);
                }
                if !is_current || job.elsewhere != Elsewhere::Nowhere {
                    // Whatever settings it was sent with, and whatever another lane said before: the token is alive.
                    self.forget_words(job.token);
                }
                return Answered::ended(Outcome::Accepted, notice);
            }
            Err(failure) => failure,
        };
        self.recent.failed(job.token, failure.reason, now);
        if !is_current {
            // What was refused with other settings says nothing.
            job.ask_anew();
            return Answered::next(Next::Again);
        }
        let is_told = !matches!(failure.error, PushError::Crowded | PushError::HostAway { .. });
        if job.lane == LaneId::Main && is_told {
            self.outage.answered(now);
        }
        let asked = match failure.error {
            PushError::Crowded => return Answered::next(Next::Ended(Ended::Busy)),
            PushError::Reconnected if tries.may_reconnect() => return Answered::next(Next::Again),
            PushError::Renewed if tries.may_renew() => return Answered::next(Next::Again),
            PushError::TooLarge if job.push.form == Form::Full => {
                job.push.form = Form::Minimal;
                return Answered {
                    next: Next::Again,
                    // What a stranger's server takes is nobody's trouble but theirs.
                    notice: (!job.lane.is_strangers()).then_some(Notice::TooLarge),
                };
            }
            _ if let LaneId::Origin(origin) = job.lane => {
                return self.strangers_answer(origin, job, failure, now, jitter);
            }
            PushError::Later { after } => after,
            PushError::HostAway { after } => return again_later(job, tries, after, None, now, jitter),
            PushError::Reconnected | PushError::Renewed => None,
            PushError::TokenBusy => return self.silenced(job, now),
            PushError::TooMany { pause } => {
                return if self
                    .health_of(job.lane)
                    .too_many(job.token, job.sender.share, now)
                {
                    self.paused(job, failure, pause, false, now)
                } else {
                    self.silenced(job, now)
                };
            }
            PushError::Pause { length, alarm } => return self.paused(job, failure, length, alarm, now),
            PushError::TokenGone { since } => return self.rejected(job, Said::Gone { since }, now),
            PushError::TokenDoubted => {
                let mut answered = self.rejected(job, Said::Wrong, now);
                if self.note_other_key(job, failure) {
                    answered.notice.get_or_insert(Notice::KeyRefused);
                }
                return answered;
            }
            PushError::TokenOfAnotherApp => return self.rejected(job, Said::AnotherApps, now),
            PushError::Unexplained => {
                self.take_neutral(job, now);
                self.health_of(job.lane).answered();
                self.block(job.token, BlockReason::Unexplained, now);
                return Answered::ended(Outcome::TokenBlocked, Some(Notice::Unknown));
            }
            PushError::TokenUnserved => {
                // It is about what the token is, so neither health nor verdicts on other tokens follow from it.
                self.block(job.token, BlockReason::Doubted, now);
                return Answered::ended(Outcome::TokenBlocked, Some(Notice::Unserved));
            }
            PushError::Misconfigured => {
                self.take_neutral(job, now);
                self.health_of(job.lane).misconfigured(failure);
                return Answered::ended(Outcome::ProviderUnavailable, Some(Notice::Refused));
            }
            PushError::TooLarge => {
                self.take_neutral(job, now);
                self.health_of(job.lane).answered();
                return Answered::ended(Outcome::ProviderUnavailable, Some(Notice::Refused));
            }
        };
        self.note_unwell(job, failure);
        if job.lane == LaneId::Main {
            self.outage.failed(job.token, asked, now);
        }
        again_later(job, tries, asked, Some(Notice::NotTaken), now, jitter)
    }

    /// The provider wants silence for the token.
    fn silenced(&mut self, job: &PushJob, now: Instant) -> Answered {
        self.take_neutral(job, now);
        self.health_of(job.lane).answered();
        Answered::next(Next::Ended(Ended::Busy))
    }

    /// The provider refuses everything for so long.
    fn paused(
        &mut self,
        job: &PushJob,
        failure: &Failure,
        length: Duration,
        alarm: bool,
        now: Instant,
    ) -> Answered {
        self.take_neutral(job, now);
        let resume = now + length;
        let first = self.health_of(job.lane).pause(resume, alarm, failure, now);
        if job.lane == LaneId::Main {
            self.outbox.tell(|| Change::Pause(length));
            self.outage.paused(resume, now);
        }
        Answered {
            next: Next::Ended(Ended::Failed { resume }),
            notice: first.then_some(Notice::Paused { length, alarm }),
        }
    }

    /// The lane of a push says something against its token. Where the token may be at home in
    /// another lane, nothing of that counts before the other one was asked.
    fn rejected(&mut self, job: &mut PushJob, said: Said, now: Instant) -> Answered {
        let Some(other) = job.lane.other() else {
            return self.weigh(job, said, None, now);
        };
        match job.elsewhere {
            Elsewhere::Nowhere => self.weigh(job, said, None, now),
            Elsewhere::Unasked => {
                self.health_of(job.lane).answered();
                job.elsewhere = Elsewhere::Asked { said };
                job.lane = other;
                Answered::next(Next::Elsewhere)
            }
            // What knows the token counts, or else the lane in which it was tried first. For the other one it was none of its tokens.
            Elsewhere::Asked { said: before } => {
                let (heard, unheard, said) = match (before, said) {
                    (_, Said::Gone { .. }) | (Said::Wrong, Said::AnotherApps) => (job.lane, other, said),
                    (_, Said::Wrong) | (Said::Gone { .. } | Said::AnotherApps, Said::AnotherApps) => {
                        (other, job.lane, before)
                    }
                };
                self.health_of(unheard).answered();
                self.take_neutral_of(unheard, job, now);
                job.lane = heard;
                self.weigh(job, said, Some(unheard), now)
            }
        }
    }

    /// Weighs what the lane of a push says against its token, which the other lane does not know either if that was asked. A second
    /// token, for calls, is not a reason to give up the device: it is left alone for a while.
    fn weigh(&mut self, job: &PushJob, said: Said, unheard: Option<LaneId>, now: Instant) -> Answered {
        let health = self.health_of(job.lane);
        match (job.lane, said) {
            // It may have another key than ours.
            (LaneId::Vendor(_), Said::Wrong) => health.heard(),
            (LaneId::Main | LaneId::Second | LaneId::Vendor(_) | LaneId::Origin(_), _) => health.answered(),
        }
        if let Some(answered) = self.stays_dead(job, now) {
            return answered;
        }
        let (token, publisher) = (job.token, Publisher::of(&job.sender));
        let (at, wall) = (self.clock.seconds(now), self.clock.millis(now));
        let word = match said {
            // A provider that speaks of the future may be wrong about all else.
            Said::Gone { since } if since.is_none_or(|since| since <= wall) => Word::BeyondDoubt,
            Said::AnotherApps => Word::AnotherApps,
            Said::Gone { .. } | Said::Wrong => Word::AboutUs,
        };
        let is_second = job.push.extra.as_ref().is_some_and(|extra| extra.call);
        let may_be_about_us = word.may_be_about_us();
        // Of another module, as likely as not, whose name was lost on the way.
        let is_astray = may_be_about_us && job.choice == Choice::Default;
        let may_live_unheard =
            may_be_about_us && unheard.is_some_and(|unheard| self.may_live_in(unheard, job, at));
        // The settings name one environment where they named both before: it lives in the other one.
        let is_at_home_elsewhere = may_be_about_us
            && (job.lane, job.elsewhere) == (LaneId::Main, Elsewhere::Nowhere)
            && self.home(token) == LaneId::Second;
        let (belief, change) = if is_second || is_astray || may_live_unheard || is_at_home_elsewhere {
            (
                Belief::Doubted,
                self.guard_of(job.lane).rejected(token, publisher, at),
            )
        } else {
            let was_alive = self.was_alive(token, at);
            let weighed = self
                .guard_of(job.lane)
                .weigh(token, publisher, word, was_alive, at);
            let is_shared = publisher.standing == Standing::Known && job.lane == LaneId::Main;
            if is_shared && self.outbox.is_open() && self.guard.is_doubted(token) {
                let beyond_doubt = !may_be_about_us;
                self.outbox
                    .tell(|| Change::Word(token, SharedWord::said_now(beyond_doubt)));
            }
            weighed
        };
        let next = match belief {
            Belief::Dead => Next::Dead {
                since: match said {
                    Said::Gone { since } => since,
                    Said::Wrong | Said::AnotherApps => None,
                },
            },
            Belief::Doubted => {
                self.block(token, BlockReason::Doubted, now);
                Next::Ended(Ended::Settled(Outcome::TokenBlocked))
            }
        };
        Answered {
            next,
            notice: change.map(Notice::Lane),
        }
    }

    /// What a word means against a token that is dead already, and was asked for once more: nothing new. It says nothing of the
    /// lane, as if nobody had asked.
    pub(super) fn stays_dead(&mut self, job: &PushJob, now: Instant) -> Option<Answered> {
        let (reason, _) = self.blocklist.look(job.token, now)?;
        if reason != BlockReason::Dead || job.record.is_some() {
            return None;
        }
        self.block(job.token, BlockReason::Dead, now);
        Some(Answered::ended(Outcome::TokenDead, None))
    }

    /// Whether a token that is called wrong may live in the other lane than that of its push, whose word about it is not heard:
    /// that lane calls all its tokens wrong, or may do so, because it has accepted none since the first word, so few ask it.
    fn may_live_in(&mut self, unheard: LaneId, job: &PushJob, at: Seconds) -> bool {
        let is_known = self.is_known_home(job.token, job.lane, at);
        let first = self.guard_of(job.lane).first_word(job.token);
        let guard = self.guard_of(unheard);
        guard.condition(at) > Condition::Stale
            || !is_known && first.is_some_and(|first| !guard.has_accepted_since(&first))
    }

    /// The registry has said whether the registration of a dead token has ended; where there is none, it has. Returns what
    /// became of the push, and how many queued pushes went with the token.
    pub fn registry_said(
        &mut self,
        job: &PushJob,
        ended: Result<bool, Unavailable>,
        now: Instant,
    ) -> (Outcome, usize) {
        if ended != Ok(true) {
            self.guard_of(job.lane).take_back_death();
            self.tell_deaths(job.lane);
        }
        let (reason, outcome) = match ended {
            Ok(true) => (BlockReason::Dead, Outcome::TokenDead),
            // The device has registered since.
            Ok(false) => (BlockReason::Doubted, Outcome::TokenBlocked),
            // The provider will say it again.
            Err(Unavailable) => return (Outcome::RegistryUnavailable, 0),
        };
        self.forget_words(job.token);
        self.outbox.tell(|| Change::Unblock(job.token));
        self.block(job.token, reason, now);
        let dropped = match outcome {
            Outcome::TokenDead => self.held.remove_dead(job.key, job.token),
            _ => Vec::new(),
        };
        for key in &dropped {
            self.outbox.tell(|| Change::Unqueue(*key));
        }
        let dropped = dropped.len();
        (outcome, dropped)
    }

    /// Tells others how many tokens are taken for dead here, if that is other than they think.
    pub(super) fn tell_deaths(&mut self, lane: LaneId) {
        // Taken also where there are no others: who comes later is told nothing of how the lane was.
        if let Some(deaths) = self.guard_of(lane).take_deaths() {
            self.outbox.tell(|| Change::Deaths(deaths));
        }
    }

    /// Takes note of an answer that says nothing of the token.
    fn take_neutral(&mut self, job: &PushJob, now: Instant) {
        self.take_neutral_of(job.lane, job, now);
    }

    /// Takes note of an answer of this lane, likewise.
    fn take_neutral_of(&mut self, lane: LaneId, job: &PushJob, now: Instant) {
        let at = self.clock.seconds(now);
        self.guard_of(lane).neutral(job.token, job.sender.share, at);
    }
}

/// What becomes of a push that could not be taken now: another attempt after the pause that was asked for, if there is time.
fn again_later(
    job: &PushJob,
    tries: &mut Tries,
    asked: Option<Duration>,
    notice: Option<Notice>,
    now: Instant,
    jitter: f64,
) -> Answered {
    let resume = now + tries.pause(asked, jitter);
    // There it is held at once: it is known of no outage that its lane has.
    let is_held = job.lane == LaneId::Second && job.worth_until.is_some_and(|until| now < until);
    Answered {
        next: if is_held || resume + LEAST_ATTEMPT > tries.patience {
            Next::Ended(Ended::Failed { resume })
        } else {
            Next::After { resume }
        },
        notice,
    }
}

/// An attempt with less time than this is not worth making.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);
