//! What a module knows of how well it works, from the answers of its provider.

use std::{borrow::Cow, time::Instant};

use fpush_push::{Failure, Fingerprint, PushError, TroubleKind};

use crate::{crowd::Crowd, several::Several};

/// How well a module works.
#[derive(Debug, Default)]
pub(crate) struct ModuleHealth {
    accepted: Option<Instant>,
    paused_until: Option<Instant>,
    /// The same, as other instances were told by the provider.
    paused_elsewhere: Option<Instant>,
    /// Why the provider wants less, while the module pauses for that.
    throttled: Option<Complaint>,
    /// Tokens for which the provider wanted less without saying of whom.
    crowd: Crowd,
    /// Why the provider refuses our credentials. It is kept until the provider gives another answer.
    refused: Option<Complaint>,
    misconfigured: Streak,
    /// What the provider said against our settings when it was asked for a proof. Once is enough, and so is one good answer.
    disproven: Option<Complaint>,
    unwell: Streak,
    /// The same where senders choose what is asked for.
    unwell_for_several: Several,
    /// The provider refuses our key, or what is signed with it, where it says so for each token.
    key_refused: Several,
    /// Whether the provider has shown that it knows us, since these settings are in force.
    proven: bool,
    /// Why the last attempt to prove it was in vain, until something does.
    in_vain: Option<Complaint>,
}

/// What the provider said, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// As in [`Failure::answer`].
    pub answer: Cow<'static, str>,
    /// As in [`Failure::meaning`].
    pub meaning: &'static str,
}

/// The same trouble several times in a row.
#[derive(Debug, Default)]
struct Streak {
    length: u32,
    last: Option<Complaint>,
}

impl ModuleHealth {
    /// The provider accepted a push.
    pub(crate) fn accepted(&mut self, now: Instant) {
        self.accepted = Some(now);
        self.works();
    }

    /// The provider accepted a push of any sender: credentials and settings are right.
    fn works(&mut self) {
        self.answered();
        self.misconfigured.end();
        self.key_refused.end();
        self.disproven = None;
    }

    /// The provider said something about a token: it knows us, and is well.
    pub(crate) fn answered(&mut self) {
        self.refused = None;
        self.heard();
        self.proven = true;
        self.in_vain = None;
    }

    /// The provider said something: it is well, whether it knows us or not.
    pub(crate) fn heard(&mut self) {
        self.unwell.end();
        self.unwell_for_several.end();
    }

    /// The provider has accepted our credentials: there is nothing to wait for, if that was the reason.
    pub(crate) fn verified(&mut self) {
        if self.refused.take().is_some() {
            self.paused_until = None;
        }
        self.disproven = None;
        self.answered();
    }

    /// The provider has accepted a push that the operator tried: that shows as much as a proof and a publish together.
    pub(crate) fn tried(&mut self) {
        self.verified();
        self.works();
    }

    /// The provider was asked whether it accepts our credentials, and did not say yes. This pauses nothing: the next push
    /// finds out for itself.
    pub(crate) fn not_verified(&mut self, failure: &Failure) {
        match failure.error {
            PushError::Pause { alarm: true, .. } => self.refuse(failure),
            PushError::Misconfigured | PushError::TooLarge => {
                self.answered();
                self.disproven = Some(Complaint::of(failure));
            }
            // The provider is away or wants less: that says nothing about us.
            PushError::Later { .. }
            | PushError::HostAway { .. }
            | PushError::Reconnected
            | PushError::Renewed
            | PushError::Pause { alarm: false, .. }
            | PushError::Unexplained
            // Tokens that are invented for the question are nobody's.
            | PushError::TokenGone { .. }
            | PushError::TokenDoubted
            | PushError::TokenOfAnotherApp
            | PushError::TokenBusy
            | PushError::Crowded
            | PushError::TooMany { .. }
            | PushError::TokenUnserved => {
                self.unwell.note(failure);
                if !self.proven {
                    self.in_vain = Some(Complaint::of(failure));
                }
            }
        }
    }

    /// Whether the provider has shown that it accepts our credentials.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven && self.key_refused.complaint().is_none()
    }

    /// Whether the provider is to be asked again for a proof: nothing has shown yet that it accepts us, or the last proof
    /// said that our settings are wrong.
    pub(crate) fn needs_proof(&self) -> bool {
        !self.is_proven() || self.disproven.is_some()
    }

    fn refuse(&mut self, failure: &Failure) {
        self.refused = Some(Complaint::of(failure));
        self.proven = false;
        self.in_vain = None;
    }

    /// The provider could not be reached, or has an outage.
    pub(crate) fn unwell(&mut self, failure: &Failure) {
        self.unwell.note(failure);
    }

    /// The same, of a token of this registrable domain, where senders choose what is asked for.
    pub(crate) fn unwell_for(&mut self, token: Fingerprint, domain: Fingerprint, failure: &Failure) {
        self.unwell_for_several.note(token, domain, failure);
    }

    /// The provider said of a token of this registrable domain that it is another key's. It says so of all if ours is wrong.
    /// Returns whether that begins to look so.
    pub(crate) fn key_refused_for(
        &mut self,
        token: Fingerprint,
        domain: Fingerprint,
        failure: &Failure,
    ) -> bool {
        self.key_refused.note(token, domain, failure)
    }

    /// The provider refused a push because of our settings.
    pub(crate) fn misconfigured(&mut self, failure: &Failure) {
        self.answered();
        self.misconfigured.note(failure);
    }

    /// Nothing is to be sent until then. With `alarm` because the provider refuses our credentials. Returns whether
    /// the module did not pause before.
    pub(crate) fn pause(&mut self, until: Instant, alarm: bool, failure: &Failure, now: Instant) -> bool {
        let running = self.own_pause(now);
        self.paused_until = Some(running.map_or(until, |running| running.max(until)));
        if alarm {
            self.refuse(failure);
        } else {
            self.answered();
            self.throttled = Some(Complaint::of(failure));
        }
        running.is_none()
    }

    /// The provider wants less and does not say of whom. Returns whether it is the module, as far as can be known.
    pub(crate) fn too_many(&mut self, token: Fingerprint, domain: Fingerprint, now: Instant) -> bool {
        self.crowd.meets(token, domain, now)
    }

    /// The end of the pause, if there is one.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.own_pause(now)
            .max(self.paused_elsewhere.filter(|until| now < *until))
    }

    /// The end of the pause that the provider has told this instance.
    pub(crate) fn own_pause(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| now < *until)
    }

    /// Whether the provider has told this instance to pause, some time.
    pub(crate) fn has_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Whether other instances pause.
    pub(crate) fn paused_elsewhere(&self, now: Instant) -> bool {
        self.paused_elsewhere.is_some_and(|until| now < until)
    }

    /// Until when other instances pause.
    pub(crate) fn pause_elsewhere(&mut self, until: Option<Instant>) {
        self.paused_elsewhere = until;
    }

    /// When the provider last accepted a push.
    pub(crate) fn last_accepted(&self) -> Option<Instant> {
        self.accepted
    }

    /// The worst that there is to say, and what the provider said.
    pub(crate) fn trouble(&self, now: Instant) -> Option<(TroubleKind, Complaint)> {
        let elsewhere = Complaint {
            answer: "another instance was refused".into(),
            meaning: PAUSED_ELSEWHERE,
        };
        let throttled = self.throttled.as_ref().filter(|_| self.own_pause(now).is_some());
        let elsewhere = self.paused_until(now).map(|_| &elsewhere);
        let throttled = throttled.or(elsewhere);
        [
            (TroubleKind::Authentication, self.refused.as_ref()),
            (TroubleKind::Authentication, self.key_refused.complaint()),
            (TroubleKind::Settings, self.misconfigured.complaint()),
            (TroubleKind::Settings, self.disproven.as_ref()),
            (TroubleKind::Provider, self.unwell.complaint()),
            (TroubleKind::Provider, self.unwell_for_several.complaint()),
            (TroubleKind::Paused, throttled),
            (TroubleKind::Unproven, self.in_vain.as_ref()),
        ]
        .into_iter()
        .find_map(|(kind, complaint)| Some((kind, complaint?.clone())))
    }
}

impl Complaint {
    pub(crate) fn of(failure: &Failure) -> Self {
        Self {
            answer: failure.answer.clone(),
            meaning: failure.meaning,
        }
    }
}

/// The worse one of two troubles.
pub(crate) fn worse(
    one: Option<(TroubleKind, Complaint)>,
    other: Option<(TroubleKind, Complaint)>,
) -> Option<(TroubleKind, Complaint)> {
    [one, other].into_iter().flatten().min_by_key(|(kind, _)| *kind)
}

impl Streak {
    fn note(&mut self, failure: &Failure) {
        self.length = self.length.saturating_add(1);
        self.last = Some(Complaint::of(failure));
    }

    fn end(&mut self) {
        *self = Self::default();
    }

    fn complaint(&self) -> Option<&Complaint> {
        self.last.as_ref().filter(|_| self.length >= SERIOUS)
    }
}

const PAUSED_ELSEWHERE: &str = "the provider wants less from all instances, or refuses their credentials; the log of the other \
    instances says what it said";
/// One failure, or two, are nothing to speak of.
const SERIOUS: u32 = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure() -> Failure {
        Failure::new(
            PushError::Misconfigured,
            "Reason",
            "400 Reason",
            "change something",
        )
    }

    fn kind(health: &ModuleHealth, now: Instant) -> Option<TroubleKind> {
        health.trouble(now).map(|(kind, _)| kind)
    }

    #[test]
    fn three_failures_in_a_row_are_trouble_until_an_answer_comes() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        for _ in 0..2 {
            health.unwell(&failure());
            assert_eq!(kind(&health, now), None);
        }
        health.unwell(&failure());
        let (kind_now, complaint) = health.trouble(now).unwrap();
        assert_eq!(kind_now, TroubleKind::Provider);
        assert_eq!(complaint, Complaint::of(&failure()));
        health.answered();
        assert_eq!(kind(&health, now), None);
    }

    #[test]
    fn settings_are_wrong_until_a_push_is_accepted() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        for _ in 0..3 {
            health.misconfigured(&failure());
        }
        health.answered();
        assert_eq!(kind(&health, now), Some(TroubleKind::Settings));
        health.accepted(now);
        assert_eq!(kind(&health, now), None);
        assert_eq!(health.last_accepted(), Some(now));
    }

    #[test]
    fn what_a_proof_made_red_a_good_proof_makes_green() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        health.not_verified(&failure());
        assert_eq!(kind(&health, now), Some(TroubleKind::Settings));
        assert!(health.needs_proof());
        health.answered();
        assert_eq!(
            kind(&health, now),
            Some(TroubleKind::Settings),
            "a word of a token"
        );
        health.verified();
        assert_eq!(kind(&health, now), None);
        assert!(!health.needs_proof());
        health.not_verified(&failure());
        health.accepted(now);
        assert_eq!(kind(&health, now), None);
    }

    #[test]
    fn an_accepted_try_of_the_operator_ends_what_publishes_found_and_is_not_a_publish() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        for _ in 0..3 {
            health.misconfigured(&failure());
        }
        health.verified();
        assert_eq!(
            kind(&health, now),
            Some(TroubleKind::Settings),
            "a proof is not a push"
        );
        health.not_verified(&failure());
        health.tried();
        assert_eq!(kind(&health, now), None);
        assert_eq!(health.last_accepted(), None);
    }

    #[test]
    fn refused_credentials_are_trouble_beyond_the_pause() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        let minute = Duration::from_secs(60);
        assert!(health.pause(now + minute, true, &failure(), now));
        assert!(
            !health.pause(now + minute / 2, true, &failure(), now),
            "it pauses already"
        );
        assert_eq!(health.paused_until(now), Some(now + minute));
        assert_eq!(health.paused_until(now + minute), None);
        assert_eq!(kind(&health, now + 2 * minute), Some(TroubleKind::Authentication));
        health.accepted(now + 2 * minute);
        assert_eq!(kind(&health, now + 2 * minute), None);
    }

    #[test]
    fn credentials_that_are_accepted_again_end_the_pause_that_they_were_refused_with() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        let minute = Duration::from_secs(60);
        health.pause(now + minute, true, &failure(), now);
        health.verified();
        assert_eq!(kind(&health, now), None);
        assert_eq!(health.paused_until(now), None);
        health.pause(now + minute, false, &failure(), now);
        health.verified();
        assert_eq!(health.paused_until(now), Some(now + minute), "it wants less");
    }

    #[test]
    fn a_provider_that_wants_less_is_trouble_while_the_module_pauses() {
        let (mut health, now) = (ModuleHealth::default(), Instant::now());
        let minute = Duration::from_secs(60);
        health.pause(now + minute, false, &failure(), now);
        assert_eq!(kind(&health, now), Some(TroubleKind::Paused));
        assert_eq!(kind(&health, now + minute), None);
    }
}
