//! Whether a lane is down, and how held pushes go out when it is back.
//!
//! A lane is down when three attempts for different tokens have failed over five seconds and none was accepted, when its
//! provider has said nothing for five seconds to anybody, and while its provider wants a pause. Then one held push at a time
//! finds out whether it is back. After the first one that is accepted the others follow at a rate that doubles, because a
//! provider that has just come back is not to be hit by all that has gathered.

use std::time::{Duration, Instant};

use fpush_push::Fingerprint;

/// What is known of a lane's outage.
#[derive(Debug)]
pub(crate) struct Outage {
    state: State,
    /// The tokens for which attempts have failed since a push was last accepted, and when that was first noticed.
    failed: Vec<(Fingerprint, Instant)>,
    /// Since when the provider has said nothing to anybody, while requests are there.
    quiet_since: Option<Instant>,
    /// Requests that it has not answered yet. A push that waits for its next attempt has none.
    asked: usize,
    /// The provider has asked for no attempt before then.
    not_before: Option<Instant>,
    /// In how long the rate of held pushes doubles.
    doubling: Duration,
}

#[derive(Debug)]
enum State {
    Up,
    Down(Down),
    /// It is back, and held pushes go out at a rate that grows.
    Growing(Growth),
}

#[derive(Debug)]
struct Down {
    since: Instant,
    cause: Cause,
    /// When the next probe may go out.
    probe_at: Instant,
    /// Probes that have failed.
    probes: u32,
    /// Since when a probe is at the provider, if one is.
    probing: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Failures,
    /// What was held before the start: where that has gone to others before anybody was asked, nothing speaks against the lane.
    Remembered,
    /// The provider wanted a pause: when it is over, nothing speaks against the lane.
    Pause,
}

#[derive(Debug)]
struct Growth {
    /// The rate is one a second then. Failures move it.
    began: Instant,
    /// When it was last moved.
    moved: Instant,
    /// How many held pushes have gone out, or might have.
    sent: f64,
}

/// What a lane does, for those who watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Publishes go to the provider.
    Up,
    /// Publishes are held.
    Down {
        /// For so long.
        since: Duration,
    },
    /// Publishes go to the provider, and what was held follows at a rate that grows.
    Recovering,
}

impl Outage {
    pub(crate) fn new(doubling: Duration) -> Self {
        Self {
            state: State::Up,
            failed: Vec::new(),
            quiet_since: None,
            asked: 0,
            not_before: None,
            doubling: doubling.max(SHORTEST_DOUBLING),
        }
    }

    /// Other settings are in force: they may end the outage.
    pub(crate) fn begin_anew(&mut self, now: Instant) {
        self.failed.clear();
        (self.not_before, self.quiet_since) = (None, None);
        self.probe_soon(now);
    }

    /// The rate of held pushes doubles in this time.
    pub(crate) fn set_ramp(&mut self, doubling: Duration) {
        self.doubling = doubling.max(SHORTEST_DOUBLING);
    }

    /// What stopped the lane may be over.
    pub(crate) fn probe_soon(&mut self, now: Instant) {
        if let State::Down(down) = &mut self.state {
            down.probe_at = down.probe_at.min(now);
        }
    }

    /// Whether the lane is down now. One that paused, and has nothing left from that, is up at the pause's end.
    pub(crate) fn is_down(&mut self, is_backlog: bool, now: Instant) -> bool {
        match &self.state {
            State::Up | State::Growing(_) => false,
            State::Down(down) => {
                let is_over = !is_backlog
                    && match down.cause {
                        Cause::Failures => false,
                        Cause::Remembered => down.probes == 0 && down.probing.is_none(),
                        Cause::Pause => now >= down.probe_at,
                    };
                if is_over {
                    self.state = State::Up;
                }
                !is_over
            }
        }
    }

    /// Whether the provider says nothing to anybody.
    pub(crate) fn look(&mut self, now: Instant) {
        let silent = |since: Instant| now.saturating_duration_since(since) >= LONG;
        let is_down = matches!(self.state, State::Down(_));
        if self.asked >= MANY && self.quiet_since.is_some_and(silent) && !is_down {
            self.go_down(Cause::Failures, now, now);
        }
    }

    /// A request goes to the provider.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.asked == 0 {
            self.quiet_since = Some(now);
        }
        self.asked += 1;
    }

    /// A request is not there any more.
    pub(crate) fn told(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// The provider has said something.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.quiet_since = Some(now);
    }

    /// The provider has accepted a push.
    pub(crate) fn accepted(&mut self, is_backlog: bool, now: Instant) {
        self.answered(now);
        self.failed.clear();
        self.not_before = None;
        if matches!(self.state, State::Down(_)) {
            self.state = State::Up;
            if is_backlog {
                self.begin_growing(now);
            }
        }
    }

    /// An attempt has failed, and says nothing of the token. The provider may have asked for a while without one.
    pub(crate) fn failed(&mut self, token: Fingerprint, asked: Option<Duration>, now: Instant) {
        self.quiet_since = Some(now);
        if let Some(asked) = asked {
            let until = now + asked.min(LONGEST_PAUSE);
            self.not_before = Some(self.not_before.map_or(until, |before| before.max(until)));
        }
        if self.failed.len() < MANY && self.failed.iter().all(|(other, _)| *other != token) {
            self.failed.push((token, now));
        }
        let first = self.failed.first().map(|(_, at)| *at);
        let lasts = first.is_some_and(|first| now.saturating_duration_since(first) >= LONG);
        match &mut self.state {
            State::Up | State::Growing(_) if self.failed.len() >= MANY && lasts => {
                self.go_down(Cause::Failures, now + FIRST_PROBE, now);
            }
            State::Growing(growth) if now.saturating_duration_since(growth.moved) >= self.doubling => {
                // Half as fast.
                growth.moved = now;
                growth.began = (growth.began + self.doubling).min(now);
                growth.sent = total(growth.began, self.doubling, now);
            }
            State::Up | State::Growing(_) | State::Down(_) => {}
        }
    }

    /// The provider wants nothing until then.
    pub(crate) fn paused(&mut self, until: Instant, now: Instant) {
        self.quiet_since = Some(now);
        match &mut self.state {
            State::Down(down) => down.probe_at = down.probe_at.max(until),
            State::Up | State::Growing(_) => self.go_down(Cause::Pause, until, now),
        }
    }

    /// What waited until its provider is back when the daemon stopped says that the lane was down.
    pub(crate) fn begin_down(&mut self, now: Instant) {
        if matches!(self.state, State::Up) {
            self.go_down(Cause::Remembered, now, now);
        }
    }

    /// Whether only what was held before the start says that the lane is down: nobody has heard from the provider since.
    pub(crate) fn is_unasked(&self) -> bool {
        match &self.state {
            State::Down(down) => down.cause == Cause::Remembered && down.probes == 0,
            State::Up | State::Growing(_) => false,
        }
    }

    /// Others held so many that their number says nothing of this provider's patience: they go out at a rate that grows.
    pub(crate) fn begin_growing(&mut self, now: Instant) {
        if matches!(self.state, State::Up) {
            self.state = State::Growing(Growth {
                began: now,
                moved: now,
                sent: 0.0,
            });
        }
    }

    fn go_down(&mut self, cause: Cause, probe_at: Instant, now: Instant) {
        self.state = State::Down(Down {
            since: now,
            cause,
            probe_at: self.not_before.map_or(probe_at, |before| before.max(probe_at)),
            probes: 0,
            probing: None,
        });
    }

    /// Whether one more held push may go out, of which so many are at the provider; otherwise when that is to be asked
    /// again, if time alone brings it. Who asks before gets no earlier time: that would wake who waits again and again.
    pub(crate) fn may_send_held(&mut self, out: usize, now: Instant) -> Result<(), Option<Instant>> {
        match &mut self.state {
            State::Up => Ok(()),
            State::Down(down) if down.probing.is_some() => Err(None),
            State::Down(down) if now < down.probe_at => Err(Some(down.probe_at)),
            State::Down(_) => Ok(()),
            State::Growing(growth) => {
                let rate = rate(growth.began, self.doubling, now);
                let total = total(growth.began, self.doubling, now);
                // What was not used is not made up for at once.
                growth.sent = growth.sent.max(total - (rate / 2.0).max(1.0));
                if out as f64 >= rate.max(1.0) {
                    return Err(None);
                }
                if growth.sent + 1.0 <= total + 1.0e-9 {
                    return Ok(());
                }
                let next = growth.began + reached(growth.sent + 1.0, self.doubling);
                Err(Some(next.clamp(now + SHORTEST_WAIT, now + LONGEST_WAIT)))
            }
        }
    }

    /// A held push goes out. Returns whether it is a probe.
    pub(crate) fn held_sent(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Up => {}
            State::Down(down) => down.probing = Some(now),
            State::Growing(growth) => growth.sent += 1.0,
        }
        matches!(self.state, State::Down(_))
    }

    /// A held push has come back. With `failed` nobody could say yes or no.
    pub(crate) fn held_ended(&mut self, failed: bool, now: Instant) {
        let State::Down(down) = &mut self.state else {
            return;
        };
        let Some(sent) = down.probing.take() else {
            return;
        };
        let pause = if failed {
            let pause = FIRST_PROBE.saturating_mul(2_u32.saturating_pow(down.probes));
            down.probes += 1;
            pause.min(LONGEST_BETWEEN_PROBES)
        } else {
            // It said something about a token: the next one knows more.
            FIRST_PROBE / 2
        };
        let asked = self.not_before.unwrap_or(now);
        let next = (sent + pause).max(now + FIRST_PROBE / 2);
        down.probe_at = down.probe_at.max(asked).max(next);
    }

    /// A publish that cannot be held is the probe, if it is time for one.
    pub(crate) fn take_probe(&mut self, now: Instant) -> bool {
        let State::Down(down) = &mut self.state else {
            return true;
        };
        let is_time = down.probing.is_none() && now >= down.probe_at;
        if is_time {
            // Nobody says how it ended, so the next one has its time already.
            down.probe_at = now + LONGEST_BETWEEN_PROBES;
        }
        is_time
    }

    /// How many held pushes are to be ready: those that go out in the next second.
    pub(crate) fn ahead(&self, now: Instant) -> usize {
        match &self.state {
            State::Up => MOST_AHEAD,
            State::Down(_) => 1,
            State::Growing(growth) => {
                let rate = rate(growth.began, self.doubling, now + Duration::from_secs(1));
                (rate as usize).clamp(FEWEST_AHEAD, MOST_AHEAD)
            }
        }
    }

    /// Nothing is held any more, or the rate has no meaning any more.
    pub(crate) fn settle(&mut self, is_backlog: bool, now: Instant) {
        self.is_down(is_backlog, now);
        if let State::Growing(growth) = &self.state
            && (!is_backlog || rate(growth.began, self.doubling, now) >= NO_RATE)
        {
            self.state = State::Up;
        }
    }

    /// In how long so many more held pushes have gone out, if the provider takes them; unknown while it is down.
    pub(crate) fn out_in(&self, held: usize, now: Instant) -> Option<Duration> {
        let began = match &self.state {
            State::Up => return Some(Duration::ZERO),
            State::Down(_) => return None,
            State::Growing(growth) => growth.began,
        };
        let all = total(began, self.doubling, now) + held as f64;
        let passed = now.saturating_duration_since(began);
        Some(reached(all, self.doubling).saturating_sub(passed))
    }

    pub(crate) fn state(&self, now: Instant) -> LaneState {
        match &self.state {
            State::Up => LaneState::Up,
            State::Down(down) => LaneState::Down {
                since: now.saturating_duration_since(down.since),
            },
            State::Growing(_) => LaneState::Recovering,
        }
    }
}

/// Held pushes a second, so long after the first one was accepted.
fn rate(began: Instant, doubling: Duration, now: Instant) -> f64 {
    let doublings = now.saturating_duration_since(began).as_secs_f64() / doubling.as_secs_f64();
    doublings.min(40.0).exp2()
}

/// How many that has been: the rate, summed up.
fn total(began: Instant, doubling: Duration, now: Instant) -> f64 {
    (rate(began, doubling, now) - 1.0) * doubling.as_secs_f64() / std::f64::consts::LN_2
}

/// In how long after the first one so many more have gone out.
fn reached(total: f64, doubling: Duration) -> Duration {
    let doubling = doubling.as_secs_f64();
    let seconds = doubling * (total * std::f64::consts::LN_2 / doubling + 1.0).log2();
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

/// Attempts for so many different tokens.
const MANY: usize = 3;
/// They have to fail for so long, or the provider has to be silent.
const LONG: Duration = Duration::from_secs(5);
const FIRST_PROBE: Duration = Duration::from_secs(2);
const LONGEST_BETWEEN_PROBES: Duration = Duration::from_secs(15);
/// Whatever a provider asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
const SHORTEST_DOUBLING: Duration = Duration::from_millis(100);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Held pushes that are ready.
const FEWEST_AHEAD: usize = 16;
const MOST_AHEAD: usize = 4_096;
/// So many a second are what a machine can send.
const NO_RATE: f64 = 100_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fingerprint;

    const DOUBLING: Duration = Duration::from_secs(3);

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// Whether it is down after these failures: token, millisecond.
    fn down_after(failures: &[(&str, u64)]) -> bool {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        for (token, millis) in failures {
            outage.failed(fingerprint(token), None, after(start, *millis));
        }
        outage.is_down(true, after(start, 60_000))
    }

    #[test]
    fn three_tokens_that_fail_over_five_seconds_are_an_outage() {
        assert!(down_after(&[("a", 0), ("b", 1), ("c", 5_000)]));
        assert!(down_after(&[("a", 0), ("b", 1), ("c", 2), ("a", 5_000)]));
        assert!(!down_after(&[("a", 0), ("b", 1), ("c", 4_999)]));
        assert!(!down_after(&[("a", 0), ("b", 1), ("a", 60_000), ("b", 70_000)]));
    }

    #[test]
    fn one_that_is_accepted_begins_the_count_again() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        for (token, millis) in [("a", 0), ("b", 1)] {
            outage.failed(fingerprint(token), None, after(start, millis));
        }
        outage.accepted(false, after(start, 2));
        outage.failed(fingerprint("c"), None, after(start, 6_000));
        assert!(!outage.is_down(false, after(start, 6_000)));
    }

    #[test]
    fn a_provider_that_says_nothing_to_three_pushes_is_down() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        let down = |outage: &mut Outage, millis| {
            outage.look(after(start, millis));
            outage.is_down(false, after(start, millis))
        };
        outage.asked(start);
        outage.asked(start);
        assert!(!down(&mut outage, 20_000));
        outage.told();
        outage.told();
        // Its request was answered: it waits for the next attempt.
        outage.answered(after(start, 20_000));
        for _ in 0..3 {
            outage.asked(after(start, 30_000));
        }
        assert!(!down(&mut outage, 34_999));
        assert!(down(&mut outage, 35_000));
    }

    #[test]
    fn probes_are_one_at_a_time_and_fifteen_seconds_apart_at_most() {
        let (mut outage, mut now) = (Outage::new(DOUBLING), Instant::now());
        outage.begin_down(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(outage.may_send_held(0, now), Ok(()));
            assert!(outage.held_sent(now));
            assert_eq!(outage.may_send_held(1, now), Err(None));
            outage.held_ended(true, now);
            let Err(Some(next)) = outage.may_send_held(0, now) else {
                panic!("it waits");
            };
            pauses.push(next.duration_since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 15, 15, 15]);
    }

    /// Another instance has taken over all of it.
    #[test]
    fn what_was_held_before_the_start_and_is_gone_says_nothing_of_the_lane() {
        for (is_asked, is_over) in [(false, true), (true, false)] {
            let (mut outage, now) = (Outage::new(DOUBLING), Instant::now());
            outage.begin_down(now);
            outage.settle(true, now);
            assert!(matches!(outage.state(now), LaneState::Down { .. }));
            if is_asked {
                outage.held_sent(now);
                outage.settle(false, now);
                outage.held_ended(true, now);
            }
            outage.settle(false, now);
            assert_eq!(outage.state(now) == LaneState::Up, is_over, "{is_asked}");
        }
    }

    #[test]
    fn until_a_probe_has_failed_nobody_has_asked_a_lane_that_was_down_before_the_start() {
        let (mut outage, now) = (Outage::new(DOUBLING), Instant::now());
        assert!(!outage.is_unasked());
        outage.begin_down(now);
        assert!(outage.is_unasked());
        outage.held_sent(now);
        outage.held_ended(true, now);
        assert!(outage.is_down(true, now));
        assert!(!outage.is_unasked());
    }

    #[test]
    fn what_the_provider_asks_for_is_honoured() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        outage.begin_down(start);
        outage.held_sent(start);
        outage.failed(fingerprint("a"), Some(Duration::from_secs(120)), start);
        outage.held_ended(true, start);
        assert_eq!(outage.may_send_held(0, start), Err(Some(after(start, 120_000))));
    }

    #[test]
    fn a_pause_is_over_at_its_end_unless_something_was_held_meanwhile() {
        for is_backlog in [false, true] {
            let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
            outage.paused(after(start, 1_000), start);
            assert!(outage.is_down(false, after(start, 999)));
            assert_eq!(outage.is_down(is_backlog, after(start, 1_000)), is_backlog);
        }
    }

    /// No second has more than twice what the second before had, and a hundred thousand are out in time.
    #[test]
    fn held_pushes_go_out_at_a_rate_that_doubles() {
        for (doubling, within) in [(3, 60), (6, 100)] {
            let (mut outage, start) = (Outage::new(Duration::from_secs(doubling)), Instant::now());
            outage.begin_down(start);
            outage.held_sent(start);
            outage.accepted(true, start);
            let mut seconds = vec![0_u64; 200];
            let (mut sent, mut millis) = (0_u64, 0);
            while sent < 100_000 {
                while outage.may_send_held(0, after(start, millis)).is_ok() && sent < 100_000 {
                    outage.held_sent(after(start, millis));
                    seconds[millis as usize / 1_000] += 1;
                    sent += 1;
                }
                millis += 5;
            }
            assert!(millis < within * 1_000, "{millis} ms");
            for (second, pair) in seconds.windows(2).enumerate() {
                assert!(pair[1] <= 2 * pair[0] + 2, "{second}: {pair:?}");
            }
        }
    }

    /// Who waits for the next one to go out is woken at that time, and not whenever it is asked for.
    #[test]
    fn the_time_of_the_next_one_is_no_earlier_for_who_asks_again() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        outage.begin_down(start);
        outage.accepted(true, start);
        let mut now = start;
        for sent in 0..200 {
            while outage.may_send_held(0, now).is_ok() {
                outage.held_sent(now);
            }
            let time = |outage: &mut Outage, now| outage.may_send_held(0, now).unwrap_err().unwrap();
            let first = time(&mut outage, now);
            for part in 1..10 {
                let meanwhile = now + first.duration_since(now) * part / 10;
                if outage.may_send_held(0, meanwhile).is_err() {
                    assert!(time(&mut outage, meanwhile) >= first, "after {sent}, at {part}");
                }
            }
            let later = first + Duration::from_micros(1);
            assert!(outage.may_send_held(0, later).is_ok(), "{sent}: it is the time");
            now = later;
        }
    }

    #[test]
    fn what_was_not_used_of_the_rate_is_not_made_up_for() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        outage.begin_down(start);
        outage.accepted(true, start);
        let now = after(start, 30_000);
        let mut at_once = 0;
        while outage.may_send_held(0, now).is_ok() {
            outage.held_sent(now);
            at_once += 1;
        }
        assert!(
            (100..=520).contains(&at_once),
            "{at_once}: half a second's of 1,024"
        );
    }

    #[test]
    fn a_failure_while_the_rate_grows_halves_it() {
        let (mut outage, start) = (Outage::new(DOUBLING), Instant::now());
        outage.begin_down(start);
        outage.accepted(true, start);
        let now = after(start, 12_000);
        let State::Growing(growth) = &outage.state else {
            panic!("it is back");
        };
        let before = rate(growth.began, DOUBLING, now);
        outage.failed(fingerprint("a"), None, now);
        outage.failed(fingerprint("a"), None, now);
        let State::Growing(growth) = &outage.state else {
            panic!("it is back");
        };
        assert_eq!(
            (before.round(), rate(growth.began, DOUBLING, now).round()),
            (16.0, 8.0)
        );
    }
}
