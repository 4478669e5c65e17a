//! The rate limit: one push at once, one queued behind it, the rest refused.
//!
//! A phone that is woken for each of fifty messages has an empty battery, and Apple throttles it. So the
//! first push for a key goes out at once; the next within the window is queued until the window ends; any
//! further one is refused, because the queued one will wake the phone for it too. A key is a registered device or a
//! token that did not register: accounts and chats on one phone have one token and a key each, and do not stand for
//! each other. Only the silence that a provider asks for is the token's. The rules are functions of the state and
//! `now`; sleeping and sending is the module's.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Class, Fingerprint, recency::Recency, settings::Section};

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

/// What the limiter says to a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Send it; the slot must be given back if the provider does not take it.
    Go(Slot),
    /// Hold it until then.
    Queue(Instant),
    /// One is queued already.
    Refuse,
    /// It should be held, but there is no room.
    NoRoom,
}

/// The right to send one push, valid until it is sent or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    target: Target,
    mark: Mark,
}

/// What a push is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// A registered device, or a token that did not register.
    pub(crate) key: Fingerprint,
    /// The token; of a push to one that did not register it is the key as well.
    pub(crate) token: Fingerprint,
    pub(crate) class: Class,
}

impl Target {
    /// The key of its window and its queued push: each class has its own.
    fn slot_key(self) -> Fingerprint {
        self.key.with_class(self.class)
    }
}

/// What happens to a push that has to wait after it was tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is its key's queued push now, due then.
    Queue(Instant),
    /// A newer push is queued for the same key, and stands for it.
    Covered,
    /// It cannot be queued.
    Refuse,
}

/// What a queued push does when its time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It goes out.
    Go(Slot),
    /// The provider has asked for more patience meanwhile.
    NotBefore(Instant),
}

#[derive(Debug)]
pub(crate) struct Limiter {
    settings: RatelimitSettings,
    marks: Recency<Mark>,
    /// Until when a provider wants silence for a token.
    silences: Recency<u64>,
    /// Times are kept as milliseconds since then.
    origin: Instant,
}

impl Limiter {
    pub(crate) fn new(settings: RatelimitSettings, origin: Instant) -> Self {
        Self {
            settings,
            marks: Recency::new(MAX_KEYS),
            silences: Recency::new(MAX_KEYS),
            origin,
        }
    }

    /// Between two pushes to a key, unless its device has a time of its own.
    pub(crate) fn spacing(&self) -> Duration {
        self.settings.spacing
    }

    /// Decides about a new push. `spacing` is the time between two pushes to the key, `room` says whether one more can
    /// be queued.
    pub(crate) fn admit(&mut self, target: Target, spacing: Duration, room: bool, now: Instant) -> Admission {
        let key = target.slot_key();
        self.forget(now);
        let now = self.millis(now);
        let mark = self.marks.get(key);
        if mark.is_some_and(|mark| mark.state() == State::Queued) {
            return Admission::Refuse;
        }
        let free_at = mark
            .map_or(0, |mark| mark.free_at())
            .max(self.silent_until(target));
        if free_at <= now {
            Admission::Go(self.take(target, spacing, now))
        } else if target.class == Class::Voip {
            Admission::Refuse
        } else if room {
            self.marks.touch(key, Mark::new(State::Queued, free_at));
            Admission::Queue(self.instant(free_at))
        } else {
            Admission::NoRoom
        }
    }

    /// What is remembered of one class of a key's pushes; changes nothing.
    pub(crate) fn look(&self, target: Target) -> Option<Waiting> {
        let mark = self.marks.get(target.slot_key())?;
        Some(Waiting {
            window: mark.state(),
            until: self.instant(mark.free_at()),
        })
    }

    /// Until when the provider wants silence for a token; changes nothing.
    pub(crate) fn silence(&self, token: Fingerprint) -> Option<Instant> {
        Some(self.instant(*self.silences.get(token)?))
    }

    /// Takes a slot back whose push the provider did not take: the next one goes out at once.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        let key = slot.target.slot_key();
        if self.marks.get(key) == Some(&slot.mark) {
            self.marks.remove(key);
        }
    }

    /// Silences a token that its provider called too busy. The push that met the refusal becomes the queued one of its
    /// key where that is possible. `room` says whether one more can be queued.
    pub(crate) fn hold(&mut self, slot: Slot, room: bool, now: Instant) -> Hold {
        let until = self
            .millis(now + self.settings.hard_spacing)
            .max(self.silent_until(slot.target));
        self.silences.touch(slot.target.token, until);
        if slot.target.class == Class::Voip || !(room || self.is_queued(slot.target)) {
            self.give_back(slot);
            return Hold::Refuse;
        }
        self.requeue(slot, self.instant(until))
    }

    /// Makes a push that was tried the queued one of its key, due then, unless a newer one is queued for it: that one
    /// stands for it.
    pub(crate) fn requeue(&mut self, slot: Slot, due: Instant) -> Hold {
        if self.is_queued(slot.target) {
            return Hold::Covered;
        }
        self.restore(slot.target, due);
        Hold::Queue(due)
    }

    /// Takes note of a push that is queued.
    pub(crate) fn restore(&mut self, target: Target, due: Instant) {
        let due = self.millis(due);
        self.marks.touch(target.slot_key(), Mark::new(State::Queued, due));
    }

    /// Lets the queued push of a key out; with it a new window begins.
    pub(crate) fn release(&mut self, target: Target, spacing: Duration, now: Instant) -> Release {
        match self.not_before(target, now) {
            Some(due) => Release::NotBefore(due),
            None => Release::Go(self.take(target, spacing, self.millis(now))),
        }
    }

    /// When the queued push of a key may go out, if that is later than now.
    pub(crate) fn not_before(&self, target: Target, now: Instant) -> Option<Instant> {
        let due = match self.marks.get(target.slot_key()) {
            Some(mark) if mark.state() == State::Queued => mark.free_at(),
            Some(_) | None => 0,
        };
        let free_at = due.max(self.silent_until(target));
        (self.millis(now) < free_at).then(|| self.instant(free_at))
    }

    /// A slot for a push that goes out whatever the window says, because the daemon is about to stop.
    pub(crate) fn occupy(&mut self, target: Target, spacing: Duration, now: Instant) -> Slot {
        let now = self.millis(now);
        self.take(target, spacing, now)
    }

    /// Other rules from now on. Windows that run keep their end.
    pub(crate) fn set_settings(&mut self, settings: RatelimitSettings) {
        self.settings = settings;
    }

    /// How many keys are remembered.
    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }

    fn take(&mut self, target: Target, spacing: Duration, now: u64) -> Slot {
        let mark = Mark::new(State::Sent, now + as_millis(spacing));
        if self.settings.enabled {
            self.marks.touch(target.slot_key(), mark);
        } else {
            self.marks.remove(target.slot_key());
        }
        Slot { target, mark }
    }

    fn is_queued(&self, target: Target) -> bool {
        let mark = self.marks.get(target.slot_key());
        mark.is_some_and(|mark| mark.state() == State::Queued)
    }

    /// The end of a silence of the token; long ago if there is none.
    fn silent_until(&self, target: Target) -> u64 {
        if self.silences.len() == 0 {
            return 0;
        }
        self.silences.get(target.token).copied().unwrap_or(0)
    }

    /// Forgets keys whose last push is longer ago than the clean-up interval and whose window is over: a few
    /// with each call, because nobody shall wait while a million are forgotten.
    fn forget(&mut self, now: Instant) {
        let keep = as_millis(self.settings.cleanup.saturating_sub(self.settings.spacing));
        let now = self.millis(now);
        if self.silences.oldest().is_some_and(|until| *until < now) {
            self.silences.pop_oldest();
        }
        for _ in 0..FORGOTTEN_AT_A_TIME {
            match self.marks.oldest_entry() {
                Some((_, mark)) if mark.state() != State::Queued && mark.free_at() + keep < now => {
                    self.marks.pop_oldest();
                }
                // One that is held for long must not keep all others in memory.
                Some((key, mark)) if mark.free_at() > now + keep + as_millis(self.settings.spacing) => {
                    self.marks.touch(key, mark);
                }
                Some(_) | None => return,
            }
        }
    }

    fn millis(&self, instant: Instant) -> u64 {
        as_millis(instant.saturating_duration_since(self.origin))
    }

    fn instant(&self, millis: u64) -> Instant {
        self.origin + Duration::from_millis(millis)
    }
}

/// What the limiter remembers of one class of a key's pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) window: State,
    /// When the key is free for its next push.
    pub(crate) until: Instant,
}

/// A state and the time when the key is free for its next push, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u64);

/// What the last push of a token has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The last push went out; a window runs, or ran.
    Sent,
    /// A push waits for the end of the window.
    Queued,
}

impl Mark {
    fn new(state: State, free_at: u64) -> Self {
        let state = match state {
            State::Sent => 0,
            State::Queued => 1,
        };
        Self(free_at << 1 | state)
    }

    fn state(self) -> State {
        if self.0 & 1 == 0 {
            State::Sent
        } else {
            State::Queued
        }
    }

    fn free_at(self) -> u64 {
        self.0 >> 1
    }
}

fn as_millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX >> 3)
}

/// After a provider called a device too busy, whatever the settings say.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
/// More than are added at a time.
const FORGOTTEN_AT_A_TIME: u32 = 8;
/// Beyond it the key whose push is longest ago is forgotten.
const MAX_KEYS: u32 = 4_000_000;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::TokenHasher;

    fn settings() -> RatelimitSettings {
        RatelimitSettings {
            enabled: true,
            spacing: Duration::from_secs(20),
            hard_spacing: Duration::from_secs(600),
            cleanup: Duration::from_secs(300),
            acknowledge_refused: false,
        }
    }

    const SPACING: Duration = Duration::from_secs(20);

    fn high(key: Fingerprint) -> Target {
        Target {
            key,
            token: key,
            class: Class::High,
        }
    }

    struct Fixture {
        limiter: Limiter,
        start: Instant,
        target: Target,
        hasher: TokenHasher,
    }

    impl Fixture {
        fn new(settings: RatelimitSettings) -> Self {
            let start = Instant::now();
            let hasher = TokenHasher::new().unwrap();
            Self {
                limiter: Limiter::new(settings, start),
                start,
                target: high(hasher.fingerprint("t")),
                hasher,
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn admit(&mut self, seconds: u64) -> Admission {
            self.limiter.admit(self.target, SPACING, true, self.at(seconds))
        }

        fn go(&mut self, seconds: u64) -> Slot {
            match self.admit(seconds) {
                Admission::Go(slot) => slot,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn first_goes_second_waits_third_is_refused_and_the_window_starts_anew() {
        let mut f = Fixture::new(settings());
        f.go(0);
        assert_eq!(f.admit(5), Admission::Queue(f.at(20)));
        assert_eq!(f.admit(6), Admission::Refuse);
        let due = f.at(20);
        assert!(matches!(
            f.limiter.release(f.target, SPACING, due),
            Release::Go(_)
        ));
        assert_eq!(f.admit(21), Admission::Queue(f.at(40)));
        let due = f.at(40);
        assert!(matches!(
            f.limiter.release(f.target, SPACING, due),
            Release::Go(_)
        ));
        f.go(60);
    }

    #[test]
    fn a_failed_push_does_not_use_up_its_slot() {
        let mut f = Fixture::new(settings());
        let slot = f.go(0);
        f.limiter.give_back(slot);
        f.go(1);
    }

    #[test]
    fn a_slot_given_back_late_takes_nothing_from_its_successor() {
        let mut f = Fixture::new(settings());
        let slot = f.go(0);
        f.go(20);
        f.limiter.give_back(slot);
        assert_eq!(f.admit(21), Admission::Queue(f.at(40)));
    }

    #[test]
    fn classes_have_windows_of_their_own() {
        let mut f = Fixture::new(settings());
        f.go(0);
        let now = f.at(0);
        assert!(matches!(
            f.limiter.admit(
                Target {
                    class: Class::Low,
                    ..f.target
                },
                SPACING,
                true,
                now
            ),
            Admission::Go(_)
        ));
    }

    #[test]
    fn a_call_is_sent_or_refused_but_never_queued() {
        let mut f = Fixture::new(settings());
        let (start, call) = (
            f.start,
            Target {
                class: Class::Voip,
                ..f.target
            },
        );
        let slot = match f.limiter.admit(call, SPACING, true, start) {
            Admission::Go(slot) => slot,
            other => panic!("{other:?}"),
        };
        let soon = f.at(1);
        assert_eq!(f.limiter.admit(call, SPACING, true, soon), Admission::Refuse);
        assert_eq!(f.limiter.hold(slot, true, soon), Hold::Refuse);
        let later = f.at(600);
        assert_eq!(f.limiter.admit(call, SPACING, true, later), Admission::Refuse);
        let free = f.at(601);
        assert!(matches!(
            f.limiter.admit(call, SPACING, true, free),
            Admission::Go(_)
        ));
    }

    #[test]
    fn a_busy_token_holds_its_push_for_the_hard_time() {
        let mut f = Fixture::new(settings());
        let slot = f.go(0);
        let now = f.at(1);
        assert_eq!(f.limiter.hold(slot, true, now), Hold::Queue(f.at(601)));
        assert_eq!(f.admit(300), Admission::Refuse);
    }

    #[test]
    fn the_queued_push_of_a_busy_token_waits_longer() {
        let mut f = Fixture::new(settings());
        let slot = f.go(0);
        assert_eq!(f.admit(1), Admission::Queue(f.at(20)));
        let now = f.at(2);
        assert_eq!(f.limiter.hold(slot, true, now), Hold::Covered);
        let due = f.at(20);
        assert_eq!(
            f.limiter.release(f.target, SPACING, due),
            Release::NotBefore(f.at(602))
        );
    }

    #[test]
    fn a_busy_token_is_silenced_even_with_the_limit_off() {
        let mut f = Fixture::new(RatelimitSettings {
            enabled: false,
            ..settings()
        });
        let slot = f.go(0);
        f.go(0);
        let now = f.at(1);
        assert_eq!(f.limiter.hold(slot, true, now), Hold::Queue(f.at(601)));
        assert_eq!(f.admit(2), Admission::Refuse);
        assert_eq!(f.limiter.len(), 1);
    }

    #[test]
    fn devices_with_one_token_have_windows_of_their_own_and_its_silence_in_common() {
        let mut f = Fixture::new(settings());
        let bob = Target {
            key: f.hasher.device("bob"),
            ..f.target
        };
        let slot = f.go(0);
        assert_eq!(f.admit(1), Admission::Queue(f.at(20)));
        let now = f.at(2);
        assert!(matches!(
            f.limiter.admit(bob, SPACING, true, now),
            Admission::Go(_)
        ));
        assert_eq!(f.limiter.hold(slot, true, now), Hold::Covered);
        let now = f.at(30);
        assert_eq!(
            f.limiter.admit(bob, SPACING, true, now),
            Admission::Queue(f.at(602))
        );
        let now = f.at(601);
        assert_eq!(
            f.limiter.release(bob, SPACING, now),
            Release::NotBefore(f.at(602))
        );
        let now = f.at(602);
        for target in [bob, f.target] {
            assert!(matches!(f.limiter.release(target, SPACING, now), Release::Go(_)));
        }
        f.go(650);
        assert_eq!(f.limiter.silences.len(), 0, "it is forgotten");
    }

    #[test]
    fn without_room_nothing_is_queued_and_the_token_is_not_marked() {
        let mut f = Fixture::new(settings());
        f.go(0);
        let now = f.at(1);
        assert_eq!(f.limiter.admit(f.target, SPACING, false, now), Admission::NoRoom);
        assert_eq!(f.admit(1), Admission::Queue(f.at(20)));
    }

    #[test]
    fn the_clean_up_forgets_what_is_older_than_its_interval_and_nothing_else() {
        let mut f = Fixture::new(settings());
        f.go(0);
        let other = high(f.hasher.fingerprint("other"));
        let now = f.at(299);
        f.limiter.admit(other, SPACING, true, now);
        assert_eq!(f.limiter.len(), 2);
        let now = f.at(301);
        f.limiter
            .admit(high(f.hasher.fingerprint("third")), SPACING, true, now);
        assert_eq!(f.limiter.len(), 2, "the first one is forgotten");
        let now = f.at(305);
        assert_eq!(
            f.limiter.admit(other, SPACING, true, now),
            Admission::Queue(f.at(319))
        );
    }

    proptest! {
        /// The limiter's law, on any arrival pattern over a few tokens: in a window at most one push goes
        /// out at once and one queued; the last publish of a burst is followed by a push; a refusal happens
        /// only while one is queued.
        #[test]
        fn law(arrivals in prop::collection::vec((0..3usize, 0..9_000u64), 1..300)) {
            let mut f = Fixture::new(settings());
            let spacing = settings().spacing;
            let mut now = f.start;
            let mut queue: Vec<(Instant, usize)> = Vec::new();
            let mut sent: HashMap<usize, Vec<Instant>> = HashMap::new();
            let mut last_publish: HashMap<usize, Instant> = HashMap::new();
            let targets: Vec<_> = (0..3).map(|n| high(f.hasher.fingerprint(&n.to_string()))).collect();
            let run_queue = |limiter: &mut Limiter, queue: &mut Vec<(Instant, usize)>,
                                 sent: &mut HashMap<usize, Vec<Instant>>, until: Instant| {
                queue.sort();
                while queue.first().is_some_and(|(due, _)| *due <= until) {
                    let (due, token) = queue.remove(0);
                    assert!(matches!(limiter.release(targets[token], SPACING, due), Release::Go(_)));
                    sent.entry(token).or_default().push(due);
                }
            };
            for (token, pause) in arrivals {
                now += Duration::from_millis(pause);
                run_queue(&mut f.limiter, &mut queue, &mut sent, now);
                last_publish.insert(token, now);
                let queued = queue.iter().any(|(_, other)| *other == token);
                match f.limiter.admit(targets[token], SPACING, true, now) {
                    Admission::Go(_) => {
                        prop_assert!(!queued);
                        sent.entry(token).or_default().push(now);
                    }
                    Admission::Queue(due) => {
                        prop_assert!(!queued && due > now && due <= now + spacing);
                        queue.push((due, token));
                    }
                    Admission::Refuse => prop_assert!(queued),
                    Admission::NoRoom => prop_assert!(false),
                }
            }
            run_queue(&mut f.limiter, &mut queue, &mut sent, now + spacing);
            for (token, times) in sent {
                prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= spacing));
                prop_assert!(times.last() >= last_publish.get(&token));
            }
        }

        #[test]
        fn memory_is_bounded(tokens in 1..2_000u32) {
            let mut f = Fixture::new(settings());
            f.limiter.marks = Recency::new(500);
            for token in 0..tokens {
                let target = high(f.hasher.fingerprint(&token.to_string()));
                f.limiter.admit(target, SPACING, true, f.start);
            }
            prop_assert!(f.limiter.len() <= 500);
        }
    }
}
