//! The rules, with the time as an argument.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{words::MAX_WORDS, *};

mod partial;

/// A lane, and what time it is there.
struct Lane {
    guard: VerdictGuard,
    now: Seconds,
    /// Domains of which a push was accepted.
    known: HashSet<u64>,
}

const MINUTE: Seconds = 60;
const GONE: Word = Word::BeyondDoubt;
const WRONG: Word = Word::AboutUs;
const DOMAIN: u64 = 1;

impl Lane {
    fn new() -> Self {
        Self {
            guard: VerdictGuard::new(1),
            now: 20_000 * DAY,
            known: HashSet::new(),
        }
    }

    /// One whose last answers are these many successes, one a second.
    fn calm(devices: u64) -> Self {
        let mut lane = Self::new();
        lane.accept_all(1_000_000..1_000_000 + devices);
        lane
    }

    fn accept(&mut self, token: u64) -> Option<LaneChange> {
        self.accept_from(token, DOMAIN)
    }

    fn accept_from(&mut self, token: u64, domain: u64) -> Option<LaneChange> {
        self.known.insert(domain);
        let publisher = self.publisher(domain);
        self.guard.accepted(token_of(token), publisher, self.now)
    }

    fn accept_all(&mut self, tokens: impl IntoIterator<Item = u64>) {
        for token in tokens {
            self.now += 1;
            self.accept(token);
        }
    }

    /// Fifty tokens are accepted, and so many others called wrong.
    fn accept_fifty_and_call_wrong(&mut self, wrong: u64) {
        for token in 0..50 {
            self.accept(1_000_000 + token);
        }
        for token in 0..wrong {
            self.say(token, WRONG);
        }
    }

    fn say(&mut self, token: u64, word: Word) -> bool {
        self.say_from(token, DOMAIN, word).0 == Belief::Dead
    }

    fn say_from(&mut self, token: u64, domain: u64, word: Word) -> (Belief, Option<LaneChange>) {
        let publisher = self.publisher(domain);
        let was_alive = self.guard.is_alive(token_of(token), self.now);
        let (belief, turn) = self
            .guard
            .weigh(token_of(token), publisher, word, was_alive, self.now);
        if belief == Belief::Dead {
            self.guard.unblock(token_of(token));
        }
        (belief, turn)
    }

    fn publisher(&self, domain: u64) -> Publisher {
        let is_known = self.known.contains(&domain);
        Publisher {
            domain: domain_of(domain),
            standing: if is_known {
                Standing::Known
            } else {
                Standing::Unknown
            },
        }
    }

    fn condition(&mut self) -> Condition {
        self.guard.condition(self.now)
    }

    /// The lane that reads what this one has written, after so long.
    fn started_again(&self, after: Seconds) -> Self {
        let now = self.now + after;
        let mut guard = VerdictGuard::new(1);
        assert!(guard.remember(self.written(), now));
        let known = self.known.clone();
        Self { guard, now, known }
    }

    fn written(&self) -> Vec<VerdictRecord> {
        let text = serde_json::to_string(&self.parts(7).concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn parts(&self, most: usize) -> Vec<Vec<VerdictRecord>> {
        let (mut parts, mut from) = (Vec::new(), Some(GuardPlace::default()));
        while let Some(place) = from {
            let part;
            (part, from) = self.guard.part(place, most, self.now);
            parts.push(part);
        }
        parts
    }
}

fn token_of(number: u64) -> Fingerprint {
    // As a hash would have it, of which any bits are different.
    Fingerprint::from_parts([number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number])
}

fn domain_of(number: u64) -> Fingerprint {
    Fingerprint::from_parts([number, 1])
}

// Words beyond doubt.

#[test]
fn while_the_lane_is_calm_a_gone_token_is_dead_at_once() {
    assert!(Lane::calm(10).say(1, GONE));
    assert!(!Lane::calm(9).say(1, GONE), "ten were accepted");
    let mut lane = Lane::calm(10);
    lane.now += 601;
    assert!(!lane.say(1, GONE), "ten minutes ago");
    let mut lane = Lane::new();
    for _ in 0..20 {
        lane.accept(1);
    }
    assert!(!lane.say(2, GONE), "a token counts once");
}

#[test]
fn a_burst_costs_ten_devices_and_is_said_once() {
    for living in [10, 50, 100, 1_000] {
        let mut lane = Lane::calm(living);
        let (mut dead, mut turns) = (0, Vec::new());
        for token in 0..1_000 {
            let (belief, turn) = lane.say_from(token, DOMAIN, GONE);
            dead += u32::from(belief == Belief::Dead);
            turns.extend(turn);
        }
        assert!((1..=10).contains(&dead), "{living}: {dead}");
        assert_eq!(turns, [LaneChange::BurstBegan], "{living}");
        assert_eq!(lane.condition(), Condition::Burst);
        // Others say nothing: some tokens may be in it and some not. It lasts until those are accepted that were rejected.
        turns.clear();
        for token in 2_000..2_200 {
            turns.extend(lane.accept(token));
        }
        assert_eq!(turns, [], "{living}");
        for token in 700..900 {
            turns.extend(lane.accept(token));
        }
        assert_eq!(turns, [LaneChange::BurstEnded], "{living}");
        assert_eq!(lane.condition(), Condition::Well);
        assert!(lane.say(5_000, GONE), "calm again");
    }
}

/// It is not over because some tokens are accepted, and there is room for ten.
#[test]
fn while_a_burst_lasts_no_second_word_counts() {
    let mut lane = Lane::new();
    for _ in 0..3 {
        lane.accept_all(1_000_000..1_000_100);
        lane.now += 10 * MINUTE;
    }
    lane.accept_fifty_and_call_wrong(50);
    assert_eq!(lane.condition(), Condition::Burst);
    assert!(!lane.say(200, GONE));
    for _ in 0..9 {
        lane.now += 10 * MINUTE;
        lane.accept_fifty_and_call_wrong(50);
    }
    assert_eq!(lane.condition(), Condition::Burst);
    assert!(!lane.say(200, GONE));
    lane.now += 11 * MINUTE;
    lane.accept_all(0..50);
    assert_eq!(lane.condition(), Condition::Well);
    assert!(lane.say(200, GONE));
}

/// Servers publish no more for the tokens that were rejected, so that nothing of it is taken back.
#[test]
fn a_burst_has_ended_after_an_hour_like_those_before_it() {
    for (rejected, ends) in [(0, true), (2, true), (30, false)] {
        let mut lane = Lane::new();
        let hour = |lane: &mut Lane, rejected| {
            (0..6).find(|_| {
                lane.accept_fifty_and_call_wrong(rejected);
                lane.now += 10 * MINUTE;
                lane.condition() != Condition::Burst
            })
        };
        hour(&mut lane, 0);
        lane.accept_fifty_and_call_wrong(50);
        assert_eq!(lane.condition(), Condition::Burst);
        assert_eq!(hour(&mut lane, rejected), None, "{rejected}: not yet an hour");
        // The first sample may be that of the burst itself.
        let has_ended = (0..2).any(|_| hour(&mut lane, rejected).is_some());
        assert_eq!(has_ended, ends, "{rejected}");
    }
}

#[test]
fn outside_of_a_calm_lane_a_gone_token_is_dead_at_the_second_word_after_an_hour() {
    let mut lane = Lane::new();
    assert!(!lane.say(1, GONE));
    lane.now += 59 * MINUTE;
    lane.accept(2);
    assert!(!lane.say(1, GONE), "not yet an hour");
    lane.now += MINUTE;
    assert!(lane.say(1, GONE));
    assert!(!lane.say(1, GONE), "it begins again");
}

#[test]
fn the_second_word_counts_among_successes_only() {
    // None in between.
    let mut lane = Lane::new();
    lane.accept(2);
    lane.say(1, GONE);
    lane.now += HOUR;
    assert!(!lane.say(1, GONE));
    // Some in between, and none now.
    let mut lane = Lane::new();
    lane.say(1, GONE);
    lane.now += 30 * MINUTE;
    lane.accept(2);
    lane.now += 30 * MINUTE;
    assert!(!lane.say(1, GONE));
    // Fewer than one in ten now.
    let mut lane = Lane::new();
    lane.say(1, GONE);
    lane.now += HOUR;
    lane.accept(2);
    for token in 3..12 {
        lane.say(token, GONE);
    }
    assert!(!lane.say(1, GONE), "one of eleven");
}

#[test]
fn a_lone_gone_token_is_dead_after_three_days_on_which_it_was_said() {
    let mut lane = Lane::new();
    for (hours, dead) in [(0, false), (23, false), (24, false), (71, false), (72, true)] {
        lane.now = 20_000 * DAY + hours * HOUR;
        assert_eq!(lane.say(1, GONE), dead, "{hours}");
    }
    let mut lane = Lane::new();
    for (hours, dead) in [(0, false), (100, false), (150, true)] {
        lane.now = 20_000 * DAY + hours * HOUR;
        assert_eq!(lane.say(1, GONE), dead, "{hours}: three different days");
    }
    // A lane that only ever accepted another token long ago.
    let mut lane = Lane::calm(1);
    for day in 0..=3 {
        assert_eq!(lane.say(1, GONE), day == 3);
        lane.now += DAY + MINUTE;
    }
}

#[test]
fn in_a_lane_of_two_the_gone_one_goes_while_the_other_is_accepted() {
    let mut lane = Lane::new();
    let mut died = None;
    for round in 0..100 {
        lane.now += 20 * MINUTE;
        lane.accept(1);
        lane.now += 5 * MINUTE;
        if lane.say(2, GONE) {
            died = Some(round);
            break;
        }
    }
    assert_eq!(died, Some(3), "after 75 minutes");
}

// Words that may be about us.

#[test]
fn a_wrong_token_is_dead_at_the_second_word_after_a_day_of_others_successes() {
    let mut lane = Lane::calm(100);
    assert!(!lane.say(1, WRONG), "never at the first word");
    lane.accept(2);
    lane.now += DAY - 2;
    lane.accept_all([2, 3]);
    lane.now -= 1;
    assert!(!lane.say(1, WRONG), "not yet a day");
    lane.now += 1;
    assert!(lane.say(1, WRONG));
}

#[test]
fn a_wrong_token_needs_two_others_and_one_in_ten() {
    let mut lane = Lane::calm(100);
    lane.say(1, WRONG);
    lane.now += DAY;
    lane.accept(2);
    assert!(!lane.say(1, WRONG), "one other");
    lane.accept(3);
    assert!(lane.say(1, WRONG));

    let mut lane = Lane::calm(1);
    lane.say(1, WRONG);
    for token in 100..120 {
        lane.now += HOUR;
        lane.say(token, WRONG);
    }
    lane.accept_all([2, 3]);
    lane.now += DAY;
    assert!(!lane.say(1, WRONG), "two of more than twenty");
}

#[test]
fn a_wrong_token_is_never_dead_without_a_success() {
    let mut lane = Lane::new();
    for _ in 0..30 {
        assert!(!lane.say(1, WRONG));
        lane.now += DAY;
    }
    assert!(!lane.say(1, GONE), "the first of its kind");
}

// Incidents.

/// What an incident in which every answer is a word costs, however long it lasts.
#[test]
fn an_incident_of_any_length_costs_ten_devices() {
    for length in [10 * MINUTE, 61 * MINUTE, 3 * DAY + HOUR, 10 * DAY] {
        for devices in [2, 5, 100, 5_000] {
            for word in [GONE, WRONG] {
                let mut lane = Lane::new();
                for _ in 0..3 {
                    lane.accept_all(0..devices);
                }
                let (begin, mut dead, mut token) = (lane.now, HashSet::new(), 0);
                let pause = (length / 6_000).max(1);
                while lane.now < begin + length {
                    token = (token + 1) % devices;
                    if lane.say(token, word) {
                        dead.insert(token);
                    }
                    lane.now += pause;
                }
                let most = if word == WRONG { 0 } else { 10 };
                assert!(
                    dead.len() <= most,
                    "{devices} devices, {length} s: {} are dead",
                    dead.len()
                );
                // It is over: nobody dies of it afterwards.
                for token in 0..devices {
                    lane.now += 1;
                    lane.accept(token);
                }
                assert_eq!(lane.guard.doubted(), 0);
            }
        }
    }
}

/// Of most devices nothing was accepted between the two.
#[test]
fn a_second_incident_a_day_later_costs_ten_more() {
    for word in [GONE, WRONG] {
        let mut lane = Lane::calm(1_000);
        let mut dead = [0, 0];
        for dead in &mut dead {
            for token in 0..5_000 {
                *dead += u32::from(lane.say(token, word));
            }
            lane.accept_all(1_000_000..1_000_300);
            lane.now += 26 * HOUR;
            lane.accept_all(1_000_000..1_000_300);
        }
        assert!(dead[0] <= 10 && dead[1] <= 10, "{dead:?}");
    }
}

/// Every fifth push is accepted meanwhile: one in ten, so that only the rise of the share tells that it is none of the
/// devices' fault.
#[test]
fn a_rise_of_the_share_stops_the_second_word() {
    for word in [GONE, WRONG] {
        let mut lane = Lane::calm(100);
        for _ in 0..20 {
            lane.accept_all(1_000_000..1_000_100);
            lane.now += HOUR;
        }
        lane.accept_all(1_000_000..1_000_100);
        let mut dead = 0;
        for round in 0..60 * 48u64 {
            lane.now += MINUTE;
            for token in 0..20 {
                if (token + round) % 5 == 0 {
                    lane.accept(2_000_000 + token);
                } else {
                    dead += u32::from(lane.say(token, word));
                }
            }
        }
        assert!(dead <= 10, "{dead}");
        assert_eq!(lane.condition(), Condition::Burst);
    }
}

#[test]
fn a_share_that_has_lasted_for_two_weeks_is_the_usual_one() {
    let mut lane = Lane::calm(100);
    for _ in 0..20 {
        lane.accept_all(1_000_000..1_000_100);
        lane.now += HOUR;
    }
    lane.accept_all(1_000_000..1_000_100);
    let (begin, mut turns) = (lane.now, Vec::new());
    for round in 0..24 * 16 {
        for number in 0..50 {
            lane.now += 1;
            let token = 1_000 * round + number;
            if number % 2 == 0 {
                turns.extend(lane.accept(token).map(|turn| (turn, (lane.now - begin) / DAY)));
            } else {
                let (_, turn) = lane.say_from(token, DOMAIN, GONE);
                turns.extend(turn.map(|turn| (turn, (lane.now - begin) / DAY)));
            }
        }
        lane.now += HOUR - 50;
    }
    assert_eq!(turns, [(LaneChange::BurstBegan, 0), (LaneChange::BurstEnded, 14)]);
    assert_ne!(lane.condition(), Condition::Burst);
}

/// An old population, on which fpush takes over: three of five devices are gone.
#[test]
fn an_old_population_is_clean_within_hours_and_raises_no_alarm() {
    let mut lane = Lane::new();
    let devices = 5_000;
    let gone = |token: u64| token % 5 < 3;
    let (mut dead, mut conditions) = (HashSet::new(), HashSet::new());
    for minute in 0..5 * 60u64 {
        // Each device gets a push twice an hour.
        for token in (0..devices).filter(|token| token * 7_919 % 5_003 % 30 == minute % 30) {
            if dead.contains(&token) {
                continue;
            }
            if gone(token) {
                let (belief, turn) = lane.say_from(token, token % 7, GONE);
                assert_ne!(turn, Some(LaneChange::BurstBegan));
                if belief == Belief::Dead {
                    dead.insert(token);
                }
            } else {
                assert_eq!(lane.accept_from(token, token % 7), None);
            }
            conditions.insert(format!("{:?}", lane.condition()));
        }
        lane.now += MINUTE;
    }
    let all = (0..devices).filter(|token| gone(*token)).count();
    assert!(dead.len() * 100 > all * 95, "{} of {all}", dead.len());
    assert!(dead.iter().all(|token| gone(*token)));
    assert!(
        conditions.contains("Stale") && !conditions.contains("Burst"),
        "{conditions:?}"
    );
    assert_eq!(lane.condition(), Condition::Well);
}

/// What a population published that was taken over: 200 devices are alive, 300 long dead. Every 20 minutes all are published; from
/// the second round on a third of the living is called dead, too.
struct Takeover {
    domains: u64,
    /// The time between two answers.
    each: Seconds,
    /// Of so many publishes at a time those answers come first that accept: a body takes its time.
    at_a_time: u64,
    restarts: &'static [u32],
}

impl Takeover {
    /// How many of the living and of the dead are forgotten.
    fn cost(&self) -> (usize, usize) {
        let mut lane = Lane::new();
        let (mut lost, mut gone) = (HashSet::new(), HashSet::new());
        for round in 0..20 {
            if self.restarts.contains(&round) {
                lane = lane.started_again(10);
            }
            let is_alive = |token: u64| token % 5 < 2;
            let accepts = |token: u64| is_alive(token) && (round == 0 || token % 15 > 1);
            let mut tokens: Vec<u64> = (0..500).collect();
            tokens.sort_by_key(|token| (token / self.at_a_time, self.at_a_time > 1 && !accepts(*token)));
            for token in tokens {
                if lost.contains(&token) || gone.contains(&token) {
                    continue;
                }
                lane.now += self.each;
                let domain = token % self.domains;
                if accepts(token) {
                    lane.accept_from(token, domain);
                } else if lane.say_from(token, domain, GONE).0 == Belief::Dead {
                    let those = if is_alive(token) { &mut lost } else { &mut gone };
                    those.insert(token);
                }
            }
            lane.now += 1_200 - 500 * self.each;
        }
        (lost.len(), gone.len())
    }
}

/// All publish at once, a few times an hour: that ten dead ones come first is chance, and must not keep the others for days.
/// Of what was taken over most is dead, so that an incident beside that is not a rise. That the daemon starts again before or in it
/// makes nobody forget who was alive.
#[test]
fn an_incident_amid_an_old_population_costs_ten_of_those_that_were_alive() {
    for restarts in [&[][..], &[1], &[4], &[1, 2, 3, 7, 8, 15]] {
        let takeover = Takeover {
            domains: 1,
            each: 2,
            at_a_time: 1,
            restarts,
        };
        let (lost, gone) = takeover.cost();
        assert!(lost <= 10, "{lost} with restarts at {restarts:?}");
        assert_eq!(gone, 300, "the dead have gone, with restarts at {restarts:?}");
    }
}

/// Of answers that accept, enough may come in a row to make such a lane look calm for a moment.
#[test]
fn in_which_order_answers_come_costs_none_of_those_that_were_alive() {
    for domains in [1, 3, 40] {
        for at_a_time in [1, 7, 25, 50, 100, 250, 500] {
            for (each, restarts) in [(0, &[][..]), (0, &[1]), (2, &[1, 2, 7])] {
                let takeover = Takeover {
                    domains,
                    each,
                    at_a_time,
                    restarts,
                };
                let (lost, _) = takeover.cost();
                assert!(
                    lost <= 10,
                    "{lost} of {domains} domains, {at_a_time} at a time, {each} s each, restarts at {restarts:?}"
                );
            }
        }
    }
}

#[test]
fn an_old_population_is_clean_within_hours_in_any_order() {
    for seed in 0..100 {
        let mut lane = Lane::new();
        let gone = |token: u64| token * 7 % 5 >= 2;
        let mut dead = HashSet::new();
        for round in 0..18 {
            lane.now += 21 * MINUTE;
            let mut order: Vec<u64> = (0..150).collect();
            order.sort_by_key(|token| (token * 7_919 + round * 104_729 + seed * 1_299_721).pow(2) % 100_003);
            for token in order {
                if dead.contains(&token) {
                    continue;
                }
                if !gone(token) {
                    lane.accept_from(token, token % 40);
                } else if lane.say_from(token, token % 40, GONE).0 == Belief::Dead {
                    dead.insert(token);
                }
            }
        }
        assert_eq!(dead.len(), 90, "seed {seed}");
    }
}

// Strangers.

#[test]
fn a_strangers_invented_tokens_raise_no_alarm_and_keep_nobody_elses_alive() {
    for before in [0, 2, 200] {
        let mut lane = Lane::calm(before);
        let mut turns = Vec::new();
        for round in 0..200 {
            lane.now += 30;
            for token in 0..60 {
                let (_, turn) = lane.say_from(10_000 + round * 100 + token, 99, GONE);
                turns.extend(turn);
            }
            assert_ne!(lane.condition(), Condition::Burst);
        }
        turns.retain(|turn| *turn != LaneChange::NothingAccepted);
        assert_eq!(turns, [], "{before}");
        // A quiet lane with two devices.
        lane.accept(1);
        assert!(!lane.say(3, GONE));
        lane.now += HOUR;
        for token in 0..60 {
            lane.say_from(90_000 + token, 99, GONE);
        }
        lane.accept(1);
        assert!(lane.say(3, GONE));
        // And a busy one.
        lane.accept_all(0..60);
        for token in 0..60 {
            lane.say_from(80_000 + token, 99, GONE);
        }
        lane.accept_all(0..60);
        assert!(lane.say(4, GONE), "at once");
    }
}

#[test]
fn the_only_domain_can_be_calm_and_can_burst() {
    let mut lane = Lane::calm(100);
    assert!(lane.say(1, GONE));
    let turns: Vec<_> = (2..150)
        .filter_map(|token| lane.say_from(token, DOMAIN, GONE).1)
        .collect();
    assert_eq!(turns, [LaneChange::BurstBegan]);
}

#[test]
fn many_small_domains_can_burst() {
    let mut lane = Lane::new();
    for token in 0..100 {
        lane.accept_from(token, token);
    }
    let turns: Vec<_> = (0..100)
        .filter_map(|token| lane.say_from(token, token, GONE).1)
        .collect();
    assert_eq!(turns, [LaneChange::BurstBegan]);
}

#[test]
fn tokens_and_domains_that_are_invented_raise_no_alarm() {
    let mut lane = Lane::calm(100);
    for token in 0..1_000 {
        lane.now += 1;
        lane.accept(1_000_000 + token % 100);
        let (_, turn) = lane.say_from(token, 100 + token, WRONG);
        assert_eq!(turn, None, "{token}");
    }
    assert_eq!(lane.condition(), Condition::Well);
    assert!(lane.say(1_000_000, GONE));
}

#[test]
fn a_lane_that_never_accepted_anything_says_so_once() {
    let mut lane = Lane::new();
    let turns: Vec<_> = (0..50)
        .filter_map(|token| lane.say_from(token, DOMAIN, WRONG).1)
        .collect();
    assert_eq!(turns, [LaneChange::NothingAccepted]);
    assert_eq!(lane.condition(), Condition::NothingAccepted);
    lane.accept(1_000);
    assert_eq!(lane.condition(), Condition::Well);
}

// What is kept, and under which settings.

#[test]
fn a_restart_keeps_window_words_and_deaths() {
    let mut lane = Lane::calm(100);
    let dead = (0..100).filter(|token| lane.say(*token, GONE)).count();
    assert!((9..=10).contains(&dead));
    let mut lane = lane.started_again(30);
    assert_eq!(lane.condition(), Condition::Burst);
    assert!((100..200).all(|token| !lane.say(token, GONE)));
    assert_eq!(lane.guard.doubted(), 200 - dead);
    // The hours go on.
    let mut lane = Lane::new();
    lane.say(1, GONE);
    let mut lane = lane.started_again(HOUR);
    lane.accept(2);
    assert!(lane.say(1, GONE));
}

/// Fifty answers never come between two starts.
#[test]
fn who_starts_again_and_again_is_cleaned_as_well() {
    let mut lane = Lane::calm(100);
    for round in 0..40 {
        lane = lane.started_again(MINUTE);
        lane.accept_all(1_000_000 + 20 * (round % 5)..1_000_000 + 20 * (round % 5) + 20);
        assert!(lane.say(round, GONE), "{round}");
    }
}

/// The daemon ended without writing down what the incident had cost.
#[test]
fn what_was_read_from_disk_makes_no_lane_calm() {
    let mut lane = Lane::calm(100).started_again(10);
    assert!(!lane.say(1, GONE));
    lane.accept(2);
    assert!(lane.say(3, GONE));
}

#[test]
fn other_settings_start_empty_and_the_same_do_not() {
    let mut lane = Lane::calm(100);
    lane.say(1, WRONG);
    let changes = lane.guard.changes();
    assert!(!lane.guard.go_on_under(1));
    assert_eq!(lane.guard.changes(), changes);
    assert_eq!(lane.guard.doubted(), 1);
    let written = lane.written();
    assert!(lane.guard.go_on_under(2));
    assert!(lane.guard.changes() > changes, "it is to be written down");
    assert_eq!(lane.guard.doubted(), 0);
    assert!(!lane.say(2, GONE), "not calm any more");
    let mut other = VerdictGuard::new(2);
    assert!(!other.remember(written, lane.now));
    assert_eq!(other.doubted(), 0);
    assert_eq!(other.condition(lane.now), Condition::Well);
    assert!(
        other.is_proven(domain_of(DOMAIN)),
        "whose devices were accepted is no matter of settings"
    );
}

/// A lane that accepts 40 tokens and calls 20 others wrong, because their app names the wrong module.
fn with_a_wrong_app(lane: &mut Lane, days: u64) {
    for _ in 0..days * 24 {
        for token in 0..60 {
            if token < 40 {
                lane.accept(token);
            } else {
                assert!(!lane.say(token, WRONG), "{token} at {}", lane.now);
            }
        }
        lane.now += HOUR;
    }
}

#[test]
fn an_app_that_names_the_wrong_module_loses_no_device_however_long() {
    with_a_wrong_app(&mut Lane::new(), 20);
    let mut running = Lane::new();
    for _ in 0..7 * 24 {
        running.accept_all(0..40);
        running.now += HOUR;
    }
    with_a_wrong_app(&mut running, 20);
}

/// A status page is looked at all the time: what is usual is learnt nevertheless.
#[test]
fn a_rise_is_seen_where_answers_are_rare() {
    let mut lane = Lane::new();
    for _ in 0..40 {
        lane.accept_all(0..20);
        for _ in 0..11 {
            lane.now += MINUTE;
            lane.condition();
        }
    }
    for token in 0..60 {
        if token % 2 == 0 {
            lane.accept(token);
        } else {
            lane.say(token, WRONG);
        }
    }
    assert_eq!(lane.condition(), Condition::Burst);
}

/// Two of three tokens of each of many small servers are in an incident: their servers are not known, and still count.
#[test]
fn a_rise_is_seen_where_all_servers_are_small() {
    let mut lane = Lane::new();
    for _ in 0..40 {
        for token in 0..90 {
            lane.accept_from(token, 10 + token / 3);
        }
        lane.now += 11 * MINUTE;
    }
    for token in 0..90 {
        if token % 3 < 2 {
            lane.accept_from(token, 10 + token / 3);
        }
    }
    let mut dead = 0;
    for token in (0..90).filter(|token| token % 3 == 2) {
        dead += usize::from(lane.say_from(token, 10 + token / 3, GONE).0 == Belief::Dead);
    }
    assert!(dead <= 10, "{dead}");
    assert_eq!(lane.condition(), Condition::Burst);
}

/// An incident that a part of the tokens is in, while the operator changes the credential.
#[test]
fn the_share_that_is_usual_outlasts_other_settings() {
    for restart in [false, true] {
        let mut lane = Lane::new();
        for _ in 0..24 * 6 {
            lane.accept_all(0..100);
            lane.now += 11 * MINUTE;
        }
        let strike = |lane: &mut Lane| {
            let mut dead = 0;
            for token in 0..100 {
                if token % 5 < 3 {
                    lane.accept(token);
                } else {
                    dead += usize::from(lane.say(token, GONE));
                }
            }
            lane.now += 20 * MINUTE;
            dead
        };
        let mut dead = strike(&mut lane);
        if restart {
            let mut guard = VerdictGuard::new(2);
            assert!(!guard.remember(lane.written(), lane.now));
            lane.guard = guard;
        } else {
            assert!(lane.guard.go_on_under(2));
        }
        for _ in 0..3 * 24 * 4 {
            dead += strike(&mut lane);
        }
        assert!(dead <= 10, "{dead}, restart: {restart}");
        assert_eq!(lane.condition(), Condition::Burst);
    }
}

/// Twenty phones at one server get tokens of the wrong environment, and two development builds the right one: fewer than
/// one in ten, however few of the server's devices are ever accepted at a time.
#[test]
fn a_server_that_never_had_ten_devices_accepted_counts_whole_where_the_settings_are_wrong() {
    let mut lane = Lane::calm(0);
    for _ in 0..200 {
        lane.now += 11 * 60;
        lane.accept_all([1, 2]);
        for token in 10..32 {
            assert!(!lane.say(token, WRONG));
        }
    }
}

/// A file that holds nothing about the settings says nothing of what was blocked.
#[test]
fn what_names_no_settings_is_of_none() {
    let lane = Lane::calm(100);
    let mut guard = VerdictGuard::new(1);
    assert!(!guard.remember([], lane.now));
    assert!(!guard.remember(lane.written().split_off(1), lane.now));
}

#[test]
fn after_a_jump_of_the_clock_the_hours_begin_again() {
    let mut lane = Lane::calm(10);
    lane.say(1, WRONG);
    lane.accept_all([2, 3]);
    lane.now += 365 * DAY;
    lane.guard.begin_hours_again(lane.now);
    assert!(!lane.say(1, WRONG));
    lane.now += DAY;
    assert!(!lane.say(1, WRONG), "what was accepted before does not count");
    lane.accept_all([2, 3]);
    assert!(lane.say(1, WRONG));
}

#[test]
fn what_a_clock_that_was_ahead_has_written_is_doubted() {
    let mut lane = Lane::calm(100);
    lane.say(1, WRONG);
    lane.say(2, GONE);
    let mut guard = VerdictGuard::new(1);
    let now = lane.now - 365 * DAY;
    guard.remember(lane.written(), now);
    let mut lane = Lane {
        guard,
        now,
        known: lane.known,
    };
    assert_eq!(lane.condition(), Condition::Well);
    lane.accept(1_000);
    assert!(!lane.say(3, GONE), "the window is not of now");
    lane.accept_all([4, 5]);
    assert!(!lane.say(1, WRONG));
    lane.now += DAY;
    lane.accept_all([4, 5]);
    assert!(lane.say(1, WRONG));
}

/// A clock that is ahead at the start makes all of it look old: words get their second one too soon, and devices that live are not
/// known to.
#[test]
fn what_was_written_long_ago_begins_its_hours_again() {
    let mut lane = Lane::calm(100);
    lane.say(1, WRONG);
    lane.say(2, GONE);
    let mut lane = lane.started_again(2 * DAY);
    for token in [1, 2] {
        lane.accept_all([4, 5]);
        assert!(!lane.say(token, WRONG), "{token}");
    }
    lane.now += DAY;
    for token in [1, 2] {
        lane.accept_all([4, 5]);
        assert!(lane.say(token, WRONG), "{token}");
    }
}

#[test]
fn nonsense_on_disk_is_not_believed() {
    for text in [
        r#"{"Lane":{"digest":[0,1],"at":18446744073709551615,"accepted":[[[1,2],18446744073709551615]],"deaths":4294967295,
            "totals":{"answers":4294967295,"accepted":4294967295},"usual":{"answers":-1.0,"rejected":5.0,"at":0},
            "burst":{"at":18446744073709551615,"later":{"answers":18446744073709551615,"accepted":0,"rejected":0}}}}"#,
        r#"{"Word":{"token":[1,2],"word":{"at":4294967295,"last_day":65535,"days":65535,
            "totals":{"answers":4294967295,"accepted":0},"beyond_doubt":true}}}"#,
        r#"{"Answer":{"token":[1,2],"domain":[1,2],"at":18446744073709551615,"sign":"Accepted"}}"#,
    ] {
        let lane = Lane::calm(5);
        let mut records = lane.written();
        records.push(serde_json::from_str(text).unwrap());
        records.extend(lane.written());
        let mut guard = VerdictGuard::new(1);
        guard.remember(records, lane.now);
        let mut lane = Lane {
            guard,
            now: lane.now,
            known: lane.known.clone(),
        };
        for token in 0..300 {
            lane.say(token, GONE);
            lane.accept(1_000 + token);
            lane.now += HOUR;
        }
        lane.condition();
    }
}

/// Pushes wait for as long as a part takes.
#[test]
fn what_is_written_down_is_copied_in_parts_and_each_record_once() {
    let mut lane = Lane::calm(100);
    for token in 0..5_000 {
        lane.say(token, WRONG);
    }
    for domain in 0..5_000 {
        lane.guard.proven_domains.touch(domain_of(domain), ());
    }
    let parts = lane.parts(1_000);
    let sizes: Vec<_> = parts.iter().map(Vec::len).collect();
    assert!(sizes[1..].iter().all(|size| *size <= 1_000), "{sizes:?}");
    assert!(
        sizes[0] <= 151,
        "the lane, its window and the answers for deaths: {}",
        sizes[0]
    );
    let mut records: Vec<_> = parts
        .concat()
        .iter()
        .map(|record| serde_json::to_string(record).unwrap())
        .collect();
    records.sort_unstable();
    records.dedup();
    assert_eq!(records.len(), sizes.iter().sum::<usize>());
    let of_those_alive = 1;
    assert_eq!(records.len(), sizes[0] + 5_000 + 5_000 + of_those_alive);
}

/// Behind the lane of the former settings it would count for those.
#[test]
fn what_is_said_to_other_settings_while_parts_are_copied_is_not_written() {
    let mut lane = Lane::new();
    (0..10).for_each(|token| _ = lane.say(token, WRONG));
    let (_, next) = lane.guard.part(GuardPlace::default(), 7, lane.now);
    lane.guard.go_on_under(2);
    (0..10).for_each(|token| _ = lane.say(token, WRONG));
    assert!(lane.guard.part(next.unwrap(), 7, lane.now).0.is_empty());
}

#[test]
fn words_are_bounded_and_forgotten_after_a_month() {
    let mut lane = Lane::new();
    lane.say(1, WRONG);
    lane.now += 32 * DAY;
    lane.say(2, WRONG);
    assert_eq!(lane.guard.doubted(), 1);
    for token in 0..u64::from(MAX_WORDS) + 10 {
        lane.say(token, WRONG);
    }
    assert_eq!(lane.guard.doubted(), MAX_WORDS as usize);
}

// Any history.

/// A part of a history.
#[derive(Clone, Debug)]
enum Era {
    /// Everybody who is alive is accepted, and the gone are said to be gone.
    Well(u64),
    /// Whatever is sent, the answer is a word.
    Incident(u64),
    /// The daemon starts again, with what it wrote so long ago.
    Restart(u64),
    /// The clock jumps by so many seconds.
    Jump(u64),
}

fn era() -> impl Strategy<Value = Era> {
    let length = prop_oneof![
        5 => 1..2 * HOUR,
        3 => 1..2 * DAY,
        1 => 1..10 * DAY,
    ];
    prop_oneof![
        4 => length.clone().prop_map(Era::Well),
        4 => length.prop_map(Era::Incident),
        1 => (0..MINUTE).prop_map(Era::Restart),
        1 => (0..3 * DAY).prop_map(Era::Jump),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// An incident costs at most ten devices, whatever came before, and those that are gone go in time.
    #[test]
    fn any_history(
        eras in prop::collection::vec(era(), 1..12),
        devices in prop_oneof![Just(1u64), Just(2), Just(5), Just(60), Just(1_000)],
        gone_of_ten in 0..8u64,
        pause in 1..200u64,
        domains in 1..30u64,
        wrong in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut lane = Lane::new();
        let is_gone = |token: u64| token % 10 < gone_of_ten;
        let mut random = seed | 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        // A token that died has its successor, so that there are always as many devices.
        let mut successors: HashMap<u64, u64> = HashMap::new();
        let word = if wrong { WRONG } else { GONE };
        let mut dead_in_incident = 0;
        for era in eras {
            let (length, incident) = match era {
                Era::Well(length) => (length, false),
                Era::Incident(length) => (length, true),
                Era::Restart(before) => {
                    // What happened since then was not written, and happens to be nothing.
                    lane = lane.started_again(before);
                    continue;
                }
                Era::Jump(seconds) => {
                    lane.now += seconds;
                    let now = lane.now;
                    lane.guard.begin_hours_again(now);
                    continue;
                }
            };
            let end = lane.now + length;
            let pause = pause.max(length / 1_000);
            while lane.now < end {
                lane.now += pause;
                let device = next() % devices;
                let token = device + devices * successors.get(&device).copied().unwrap_or_default();
                let domain = 100 + device % domains;
                if incident || is_gone(token) {
                    let (belief, _) = lane.say_from(token, domain, word);
                    if belief == Belief::Dead {
                        *successors.entry(device).or_default() += 1;
                        if !is_gone(token) {
                            dead_in_incident += 1;
                            prop_assert!(incident, "a living device died in good times");
                            prop_assert!(dead_in_incident <= 10, "an incident costs more than ten devices");
                        }
                    }
                } else {
                    lane.accept_from(token, domain);
                    // It is over.
                    dead_in_incident = 0;
                }
            }
        }
    }
}
