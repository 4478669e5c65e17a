//! The rate limit: one push at once, one queued behind it, the rest refused.
//!
//! A phone that is woken for each of fifty messages has an empty battery, and Apple throttles it. So the
//! first push for a key goes out at once; the next within the window is queued until the window ends; any
//! further one is refused, because the queued one will wake the phone for it too. A key is a registered device or a
//! token that did not register: accounts and chats on one phone have one token and a key each, and do not stand for
//! each other. Only the silence that a provider asks for is the token's. Whether a push is queued for a key is the hold
//! queue's to know.

use std::time::{Duration, Instant};

use fpush_push::{Class, Fingerprint, settings::Section};

use crate::{
    recency::Recency,
    shared::{SharedHeld, SharedSlot},
    ticks::{Tick, Ticks},
};

/// `ratelimit` of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatelimitSettings {
    /// `enabled`: off, every push goes out at once, unless the provider itself asked for silence.
    pub enabled: bool,
    /// `ratelimitTime`: between two pushes to a token.
    pub spacing: Duration,
    /// `hardRatelimitTime`: silence for a token after the provider called it too busy.
    pub hard_spacing: Duration,
    /// `ratelimitCleanupInterval`: a token whose last push is longer ago is forgotten.
    pub cleanup: Duration,
    /// `refusedReply`: whether a refused push is answered as if it had been accepted.
    pub acknowledge_refused: bool,
}

impl RatelimitSettings {
    /// Reads `ratelimit`; everything in it is optional.
    pub fn read(module: &mut Section<'_>) -> Self {
        let mut section = module.section_or_empty("ratelimit");
        let settings = Self {
            enabled: section.boolean("enabled", true),
            spacing: section.duration("ratelimitTime", Duration::from_secs(20)),
            hard_spacing: section
                .duration("hardRatelimitTime", Duration::from_secs(600))
                .max(SHORTEST_SILENCE),
            cleanup: section.duration("ratelimitCleanupInterval", Duration::from_secs(300)),
            acknowledge_refused: section.choice("refusedReply", &[("wait", false), ("result", true)], false),
        };
        section.finish();
        settings
    }
}

/// The right to send one push, valid until it is sent or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSlot {
    target: Target,
    /// The end of the window that it began.
    free_at: Tick,
    /// The same window, as all instances know it.
    shared: Option<SharedSlot>,
    /// What another instance holds for the same key.
    covers: Option<SharedHeld>,
}

impl RateSlot {
    /// The same, where it is the window of all instances as well, and makes superfluous what another one holds.
    pub(crate) fn shared_by(self, shared: Option<SharedSlot>, covers: Option<SharedHeld>) -> Self {
        Self {
            shared,
            covers,
            ..self
        }
    }

    /// What another instance holds for the same key.
    #[must_use]
    pub fn covers(&self) -> Option<SharedHeld> {
        self.covers
    }

    /// Its window, as all instances know it.
    pub(crate) fn shared(&self) -> Option<SharedSlot> {
        self.shared
    }

    /// The key of its window.
    pub(crate) fn key(&self) -> Fingerprint {
        self.target.slot_key()
    }
}

/// What a push is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// A registered device, or a token that did not register.
    pub key: Fingerprint,
    /// The token; of a push to one that did not register it is the key as well.
    pub token: Fingerprint,
    /// What kind of push it is.
    pub class: Class,
}

impl Target {
    /// The key of its window and its queued push: each class has its own.
    #[must_use]
    pub fn slot_key(self) -> Fingerprint {
        self.key.with_class(self.class)
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    settings: RatelimitSettings,
    /// When a key is free for its next push.
    windows: Recency<Tick>,
    /// Until when a provider wants silence for a token.
    silences: Recency<Tick>,
    ticks: Ticks,
}

impl Limiter {
    pub(crate) fn new(settings: RatelimitSettings, ticks: Ticks) -> Self {
        Self {
            settings,
            windows: Recency::new(MAX_KEYS),
            silences: Recency::new(MAX_KEYS),
            ticks,
        }
    }

    pub(crate) fn settings(&self) -> &RatelimitSettings {
        &self.settings
    }

    /// When a key is free for its next push, if that is later than now.
    pub(crate) fn not_before(&self, target: Target, now: Instant) -> Option<Instant> {
        let window = self.windows.get(target.slot_key()).copied();
        self.later(window.max(self.silent_until(target.token)), now)
    }

    /// Until when the provider wants silence for a token, if that is later than now.
    pub(crate) fn silence(&self, token: Fingerprint, now: Instant) -> Option<Instant> {
        self.later(self.silent_until(token), now)
    }

    /// Begins a window. The slot must be given back if the provider does not take the push.
    pub(crate) fn take(&mut self, target: Target, spacing: Duration, now: Instant) -> RateSlot {
        self.forget(now);
        let free_at = self.ticks.from(now + spacing);
        if self.settings.enabled && !spacing.is_zero() {
            self.windows.touch(target.slot_key(), free_at);
        } else {
            self.windows.remove(target.slot_key());
        }
        RateSlot {
            target,
            free_at,
            shared: None,
            covers: None,
        }
    }

    /// Takes a slot back whose push the provider did not take: the next one goes out at once.
    pub(crate) fn give_back(&mut self, slot: RateSlot) {
        let key = slot.target.slot_key();
        if self.windows.get(key) == Some(&slot.free_at) {
            self.windows.remove(key);
        }
    }

    /// For how long the window of a slot runs on, if it is still the one that its key has.
    pub(crate) fn left(&self, slot: RateSlot, now: Instant) -> Option<Duration> {
        let end = self.windows.get(slot.target.slot_key()).copied();
        let end = self.later(end.filter(|end| *end == slot.free_at), now)?;
        Some(end.duration_since(now))
    }

    /// Silences a token that its provider called too busy. Returns until when.
    pub(crate) fn silence_now(&mut self, token: Fingerprint, now: Instant) -> Instant {
        let until = self.ticks.from(now + self.settings.hard_spacing);
        let until = self.silent_until(token).map_or(until, |before| before.max(until));
        self.silences.touch(token, until);
        self.ticks.instant(until)
    }

    /// Other rules from now on. Windows that run keep their end.
    pub(crate) fn set_settings(&mut self, settings: RatelimitSettings) {
        self.settings = settings;
    }

    /// How many keys are remembered.
    pub(crate) fn len(&self) -> usize {
        self.windows.len()
    }

    /// Windows that run, of a part of all, and for how long, and the place of the next part.
    pub(crate) fn windows(
        &self,
        from: usize,
        most: usize,
        now: Instant,
    ) -> (impl Iterator<Item = (Fingerprint, Duration)>, Option<usize>) {
        self.running(&self.windows, from, most, now)
    }

    /// Silences that last, of a part of all, and for how long, and the place of the next part.
    pub(crate) fn silences(
        &self,
        from: usize,
        most: usize,
        now: Instant,
    ) -> (impl Iterator<Item = (Fingerprint, Duration)>, Option<usize>) {
        self.running(&self.silences, from, most, now)
    }

    fn running<'a>(
        &'a self,
        times: &'a Recency<Tick>,
        from: usize,
        most: usize,
        now: Instant,
    ) -> (impl Iterator<Item = (Fingerprint, Duration)> + 'a, Option<usize>) {
        let (part, next) = times.part(from, most);
        let part = part.filter_map(move |(key, end)| {
            let end = self.later(Some(*end), now)?;
            Some((key, end.duration_since(now)))
        });
        (part, next)
    }

    /// The end of a silence of the token.
    fn silent_until(&self, token: Fingerprint) -> Option<Tick> {
        if self.silences.is_empty() {
            return None;
        }
        self.silences.get(token).copied()
    }

    /// Forgets keys whose last push is longer ago than the clean-up interval and whose window is over: a few
    /// with each call, because nobody shall wait while a million are forgotten.
    fn forget(&mut self, now: Instant) {
        let RatelimitSettings { spacing, cleanup, .. } = self.settings;
        let keep = cleanup.saturating_sub(spacing);
        let over = self.ticks.until(now);
        if self.silences.oldest().is_some_and(|until| *until < over) {
            self.silences.pop_oldest();
        }
        let (last, latest) = (over.minus(keep), over.plus(keep + spacing));
        for _ in 0..FORGOTTEN_AT_A_TIME {
            match self.windows.oldest_entry() {
                Some((_, free_at)) if free_at < last => {
                    self.windows.pop_oldest();
                }
                // A device with a longer window than others must not keep all others in memory.
                Some((key, free_at)) if free_at > latest => {
                    self.windows.touch(key, free_at);
                }
                Some(_) | None => return,
            }
        }
    }

    fn later(&self, time: Option<Tick>, now: Instant) -> Option<Instant> {
        let time = time.filter(|time| self.ticks.until(now) < *time)?;
        Some(self.ticks.instant(time))
    }
}

/// After a provider called a device too busy, whatever the settings say.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
/// More than are added at a time.
const FORGOTTEN_AT_A_TIME: u32 = 8;
/// Beyond it the key whose push is longest ago is forgotten.
const MAX_KEYS: u32 = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fingerprint, settings};

    const SPACING: Duration = Duration::from_secs(20);

    struct Fixture {
        limiter: Limiter,
        start: Instant,
        target: Target,
    }

    fn high(name: &str) -> Target {
        Target {
            key: fingerprint(name),
            token: fingerprint(name),
            class: Class::High,
        }
    }

    impl Fixture {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                limiter: Limiter::new(settings().ratelimit, Ticks::new(start)),
                start,
                target: high("t"),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn take(&mut self, seconds: u64) -> RateSlot {
            let now = self.at(seconds);
            self.limiter.take(self.target, SPACING, now)
        }

        fn not_before(&self, seconds: u64) -> Option<Instant> {
            self.limiter.not_before(self.target, self.at(seconds))
        }
    }

    #[test]
    fn a_push_begins_a_window_unless_it_is_given_back() {
        let mut f = Fixture::new();
        assert_eq!(f.not_before(0), None);
        f.take(0);
        assert_eq!((f.not_before(5), f.not_before(20)), (Some(f.at(20)), None));
        let slot = f.take(20);
        f.limiter.give_back(slot);
        assert_eq!(f.not_before(21), None);
    }

    #[test]
    fn a_slot_given_back_late_takes_nothing_from_its_successor() {
        let mut f = Fixture::new();
        let slot = f.take(0);
        f.take(20);
        f.limiter.give_back(slot);
        assert_eq!(f.not_before(21), Some(f.at(40)));
    }

    #[test]
    fn classes_have_windows_of_their_own() {
        let mut f = Fixture::new();
        f.take(0);
        let low = Target {
            class: Class::Low,
            ..f.target
        };
        assert_eq!(f.limiter.not_before(low, f.at(1)), None);
    }

    #[test]
    fn devices_with_one_token_have_windows_of_their_own_and_its_silence_in_common() {
        let mut f = Fixture::new();
        let bob = Target {
            key: fingerprint("bob"),
            ..f.target
        };
        f.take(0);
        assert_eq!(f.limiter.not_before(bob, f.at(1)), None);
        let now = f.at(2);
        assert_eq!(f.limiter.silence_now(f.target.token, now), f.at(602));
        assert_eq!(f.limiter.not_before(bob, f.at(3)), Some(f.at(602)));
        assert_eq!(f.not_before(602), None);
        f.take(650);
        assert_eq!(f.limiter.silences.len(), 0, "it is forgotten");
    }

    #[test]
    fn a_busy_token_is_silenced_even_with_the_limit_off() {
        let mut f = Fixture::new();
        f.limiter.settings.enabled = false;
        f.take(0);
        assert_eq!(f.not_before(0), None);
        let now = f.at(1);
        f.limiter.silence_now(f.target.token, now);
        assert_eq!(f.not_before(2), Some(f.at(601)));
    }

    #[test]
    fn the_clean_up_forgets_what_is_older_than_its_interval_and_nothing_else() {
        let mut f = Fixture::new();
        f.take(0);
        let now = f.at(299);
        f.limiter.take(high("other"), SPACING, now);
        assert_eq!(f.limiter.len(), 2);
        let now = f.at(301);
        f.limiter.take(high("third"), SPACING, now);
        assert_eq!(f.limiter.len(), 2, "the first one is forgotten");
        assert_eq!(f.limiter.not_before(high("other"), f.at(305)), Some(f.at(319)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut f = Fixture::new();
        f.limiter.windows = Recency::new(500);
        for token in 0..1_000 {
            let now = f.start;
            f.limiter.take(high(&token.to_string()), SPACING, now);
        }
        assert_eq!(f.limiter.len(), 500);
    }
}
