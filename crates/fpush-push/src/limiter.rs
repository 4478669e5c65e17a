//! The rate limit: one push at once, one queued behind it, the rest refused.
//!
//! A phone that is woken for each of fifty messages has an empty battery, and Apple throttles it. So the
//! first push for a token goes out at once; the next within the window is queued until the window ends; any
//! further one is refused, because the queued one will wake the phone for it too. The rules are functions of
//! the state and `now`; sleeping and sending is the module's.

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
    key: Fingerprint,
    class: Class,
    mark: Mark,
}

/// What happens to a push whose token is too busy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is the token's queued push now, due then.
    Queue(Instant),
    /// Another push is queued for the token, and waits longer now.
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
    /// Times are kept as milliseconds since then.
    origin: Instant,
}

impl Limiter {
    pub(crate) fn new(settings: RatelimitSettings, origin: Instant) -> Self {
        Self {
            settings,
            marks: Recency::new(MAX_TOKENS),
            origin,
        }
    }

    /// Between two pushes to a token, unless its device has a time of its own.
    pub(crate) fn spacing(&self) -> Duration {
        self.settings.spacing
    }

    /// Decides about a new push. `spacing` is the time between two pushes to the token, `room` says whether one more
    /// can be queued.
    pub(crate) fn admit(
        &mut self,
        token: Fingerprint,
        class: Class,
        spacing: Duration,
        room: bool,
        now: Instant,
    ) -> Admission {
        let key = token.with_class(class);
        self.forget(now);
        let now = self.millis(now);
        match self.marks.get(key).map(|mark| (mark.state(), mark.free_at())) {
            Some((State::Queued, _)) => Admission::Refuse,
            Some((State::Sent | State::Silenced, free_at)) if now < free_at => {
                if class == Class::Voip {
                    Admission::Refuse
                } else if room {
                    self.marks.touch(key, Mark::new(State::Queued, free_at));
                    Admission::Queue(self.instant(free_at))
                } else {
                    Admission::NoRoom
                }
            }
            Some((State::Sent | State::Silenced, _)) | None => {
                Admission::Go(self.take(key, class, spacing, now))
            }
        }
    }

    /// Takes a slot back whose push the provider did not take: the next one goes out at once.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        if self.marks.get(slot.key) == Some(&slot.mark) {
            self.marks.remove(slot.key);
        }
    }

    /// Silences a token that its provider called too busy. The push that met the refusal becomes the queued
    /// one where that is possible. `room` says whether one more can be queued.
    pub(crate) fn hold(&mut self, slot: Slot, room: bool, now: Instant) -> Hold {
        let already = self.marks.get(slot.key).map_or(0, |mark| mark.free_at());
        let free_at = self.millis(now + self.settings.hard_spacing).max(already);
        let queued = self
            .marks
            .get(slot.key)
            .is_some_and(|mark| mark.state() == State::Queued);
        let queue = slot.class != Class::Voip && (queued || room);
        let state = if queue { State::Queued } else { State::Silenced };
        self.marks.touch(slot.key, Mark::new(state, free_at));
        match (queue, queued) {
            (true, true) => Hold::Covered,
            (true, false) => Hold::Queue(self.instant(free_at)),
            (false, _) => Hold::Refuse,
        }
    }

    /// Puts a push that was acknowledged and failed back in line, due then, unless another one is queued for
    /// its token: that one stands for it.
    pub(crate) fn requeue(&mut self, slot: Slot, due: Instant) -> Hold {
        if self
            .marks
            .get(slot.key)
            .is_some_and(|mark| mark.state() == State::Queued)
        {
            return Hold::Covered;
        }
        self.marks
            .touch(slot.key, Mark::new(State::Queued, self.millis(due)));
        Hold::Queue(due)
    }

    /// Takes note of a push that was queued before the daemon started again.
    pub(crate) fn restore(&mut self, token: Fingerprint, class: Class, due: Instant) {
        let due = self.millis(due);
        self.marks
            .touch(token.with_class(class), Mark::new(State::Queued, due));
    }

    /// Lets the queued push of a token out; with it a new window begins.
    pub(crate) fn release(
        &mut self,
        token: Fingerprint,
        class: Class,
        spacing: Duration,
        now: Instant,
    ) -> Release {
        let key = token.with_class(class);
        let now = self.millis(now);
        match self.marks.get(key).map(|mark| (mark.state(), mark.free_at())) {
            Some((State::Queued, free_at)) if now < free_at => Release::NotBefore(self.instant(free_at)),
            Some(_) | None => Release::Go(self.take(key, class, spacing, now)),
        }
    }

    /// A slot for a push that goes out whatever the window says, because the daemon is about to stop.
    pub(crate) fn occupy(
        &mut self,
        token: Fingerprint,
        class: Class,
        spacing: Duration,
        now: Instant,
    ) -> Slot {
        let now = self.millis(now);
        self.take(token.with_class(class), class, spacing, now)
    }

    /// Other rules from now on. Windows that run keep their end.
    pub(crate) fn set_settings(&mut self, settings: RatelimitSettings) {
        self.settings = settings;
    }

    /// How many tokens are remembered.
    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }

    fn take(&mut self, key: Fingerprint, class: Class, spacing: Duration, now: u64) -> Slot {
        let mark = Mark::new(State::Sent, now + as_millis(spacing));
        if self.settings.enabled {
            self.marks.touch(key, mark);
        } else {
            self.marks.remove(key);
        }
        Slot { key, class, mark }
    }

    /// Forgets tokens whose last push is longer ago than the clean-up interval and whose window is over: a few
    /// with each call, because nobody shall wait while a million are forgotten.
    fn forget(&mut self, now: Instant) {
        let keep = as_millis(self.settings.cleanup.saturating_sub(self.settings.spacing));
        let now = self.millis(now);
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

/// A state and the time when the token is free for its next push, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The last push went out; a window runs, or ran.
    Sent,
    /// A push waits for the end of the window.
    Queued,
    /// Nothing waits, but the provider wants silence.
    Silenced,
}

impl Mark {
    fn new(state: State, free_at: u64) -> Self {
        let state = match state {
            State::Sent => 0,
            State::Queued => 1,
            State::Silenced => 2,
        };
        Self(free_at << 2 | state)
    }

    fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Sent,
            1 => State::Queued,
            _ => State::Silenced,
        }
    }

    fn free_at(self) -> u64 {
        self.0 >> 2
    }
}

fn as_millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX >> 3)
}

/// After a provider called a device too busy, whatever the settings say.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
/// More than are added at a time.
const FORGOTTEN_AT_A_TIME: u32 = 8;
/// Beyond it the token whose push is longest ago is forgotten.
const MAX_TOKENS: u32 = 4_000_000;

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

    struct Fixture {
        limiter: Limiter,
        start: Instant,
        token: Fingerprint,
        hasher: TokenHasher,
    }

    impl Fixture {
        fn new(settings: RatelimitSettings) -> Self {
            let start = Instant::now();
            let hasher = TokenHasher::new().unwrap();
            Self {
                limiter: Limiter::new(settings, start),
                start,
                token: hasher.fingerprint("t"),
                hasher,
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn admit(&mut self, seconds: u64) -> Admission {
            self.limiter
                .admit(self.token, Class::High, SPACING, true, self.at(seconds))
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
            f.limiter.release(f.token, Class::High, SPACING, due),
            Release::Go(_)
        ));
        assert_eq!(f.admit(21), Admission::Queue(f.at(40)));
        let due = f.at(40);
        assert!(matches!(
            f.limiter.release(f.token, Class::High, SPACING, due),
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
            f.limiter.admit(f.token, Class::Low, SPACING, true, now),
            Admission::Go(_)
        ));
    }

    #[test]
    fn a_call_is_sent_or_refused_but_never_queued() {
        let mut f = Fixture::new(settings());
        let (start, token) = (f.start, f.token);
        let slot = match f.limiter.admit(token, Class::Voip, SPACING, true, start) {
            Admission::Go(slot) => slot,
            other => panic!("{other:?}"),
        };
        let soon = f.at(1);
        assert_eq!(
            f.limiter.admit(token, Class::Voip, SPACING, true, soon),
            Admission::Refuse
        );
        assert_eq!(f.limiter.hold(slot, true, soon), Hold::Refuse);
        let later = f.at(600);
        assert_eq!(
            f.limiter.admit(token, Class::Voip, SPACING, true, later),
            Admission::Refuse
        );
        let free = f.at(601);
        assert!(matches!(
            f.limiter.admit(token, Class::Voip, SPACING, true, free),
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
            f.limiter.release(f.token, Class::High, SPACING, due),
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
    fn without_room_nothing_is_queued_and_the_token_is_not_marked() {
        let mut f = Fixture::new(settings());
        f.go(0);
        let now = f.at(1);
        assert_eq!(
            f.limiter.admit(f.token, Class::High, SPACING, false, now),
            Admission::NoRoom
        );
        assert_eq!(f.admit(1), Admission::Queue(f.at(20)));
    }

    #[test]
    fn the_clean_up_forgets_what_is_older_than_its_interval_and_nothing_else() {
        let mut f = Fixture::new(settings());
        f.go(0);
        let other = f.hasher.fingerprint("other");
        let now = f.at(299);
        f.limiter.admit(other, Class::High, SPACING, true, now);
        assert_eq!(f.limiter.len(), 2);
        let now = f.at(301);
        f.limiter
            .admit(f.hasher.fingerprint("third"), Class::High, SPACING, true, now);
        assert_eq!(f.limiter.len(), 2, "the first one is forgotten");
        let now = f.at(305);
        assert_eq!(
            f.limiter.admit(other, Class::High, SPACING, true, now),
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
            let fingerprints: Vec<_> = (0..3).map(|n| f.hasher.fingerprint(&n.to_string())).collect();
            let run_queue = |limiter: &mut Limiter, queue: &mut Vec<(Instant, usize)>,
                                 sent: &mut HashMap<usize, Vec<Instant>>, until: Instant| {
                queue.sort();
                while queue.first().is_some_and(|(due, _)| *due <= until) {
                    let (due, token) = queue.remove(0);
                    assert!(matches!(limiter.release(fingerprints[token], Class::High, SPACING, due), Release::Go(_)));
                    sent.entry(token).or_default().push(due);
                }
            };
            for (token, pause) in arrivals {
                now += Duration::from_millis(pause);
                run_queue(&mut f.limiter, &mut queue, &mut sent, now);
                last_publish.insert(token, now);
                let queued = queue.iter().any(|(_, other)| *other == token);
                match f.limiter.admit(fingerprints[token], Class::High, SPACING, true, now) {
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
                let fingerprint = f.hasher.fingerprint(&token.to_string());
                f.limiter.admit(fingerprint, Class::High, SPACING, true, f.start);
            }
            prop_assert!(f.limiter.len() <= 500);
        }
    }
}
