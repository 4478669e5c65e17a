//! Incidents that only a part of the tokens is in, on lanes where answers are rare.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Devices that get so many pushes a day, at random. A token that dies has a successor.
struct Population {
    lane: Lane,
    random: Random,
    devices: u64,
    a_day: u64,
    domains: u64,
    tokens: HashMap<u64, u64>,
    blocked: HashMap<u64, Seconds>,
    requests: u64,
}

impl Population {
    fn new(devices: u64, a_day: u64, domains: u64, seed: u64) -> Self {
        Self {
            lane: Lane::new(),
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            devices,
            a_day,
            domains,
            tokens: HashMap::new(),
            blocked: HashMap::new(),
            requests: 0,
        }
    }

    /// Lets so much time pass, in which these tokens are called so; returns how many of them died.
    fn pass(&mut self, length: Seconds, word: Word, is_hit: impl Fn(u64) -> bool) -> usize {
        let (end, mut dead) = (self.lane.now + length, 0);
        while self.lane.now < end {
            self.lane.now += self.random.below(2 * DAY / self.a_day) + 1;
            let device = self.random.below(self.devices);
            let token = device + 1_000 * self.tokens.get(&device).copied().unwrap_or_default();
            let domain = 100 + device % self.domains;
            if self
                .blocked
                .get(&token)
                .is_some_and(|until| self.lane.now < *until)
            {
                continue;
            }
            self.requests += 1;
            if !is_hit(token) {
                self.lane.accept_from(token, domain);
            } else if self.lane.say_from(token, domain, word).0 == Belief::Dead {
                dead += 1;
                *self.tokens.entry(device).or_default() += 1;
            } else {
                self.blocked.insert(token, self.lane.now + 10 * MINUTE);
            }
        }
        dead
    }
}

/// A part of the tokens, in percent, the same whenever it is asked.
fn is_in(token: u64, percent: u64) -> bool {
    (token.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 100 < percent
}

#[test]
fn costs_ten_devices_however_rare_answers_are_and_however_long_it_lasts() {
    let mut worst = Vec::new();
    let mut seed = 0;
    for devices in [5, 20, 60, 100, 300] {
        for a_day in [50, 150, 800] {
            for percent in [20, 35, 50, 80] {
                let hit = (0..devices).filter(|token| is_in(*token, percent)).count() as u64;
                if hit > 10 && (hit - 10) * 10 < devices {
                    // When ten have died, no rise is left.
                    continue;
                }
                for days in [3, 10] {
                    for (domains, word) in [(1, GONE), (7, WRONG), (devices, GONE)] {
                        seed += 1;
                        let mut population = Population::new(devices, a_day, domains, seed);
                        population.pass(5 * DAY, GONE, |_| false);
                        if seed % 5 == 0 {
                            population.lane = population.lane.started_again(MINUTE);
                        }
                        let dead = population.pass(days * DAY, word, |token| is_in(token, percent));
                        if dead > 10 {
                            worst.push((dead, devices, a_day, percent, days, domains));
                        }
                    }
                }
            }
        }
    }
    worst.sort_unstable();
    assert_eq!(worst, [], "dead, devices, pushes a day, percent, days, domains");
}

#[test]
fn an_old_population_goes_within_days_where_answers_are_rare() {
    for (devices, a_day, domains) in [(60, 150, 1), (100, 300, 7), (300, 800, 1), (300, 800, 300)] {
        let mut population = Population::new(devices, a_day, domains, devices);
        // Their successors live.
        let is_gone = |token: u64| token < 1_000 && is_in(token, 60);
        let gone = (0..devices).filter(|token| is_gone(*token)).count();
        let dead = population.pass(8 * DAY, GONE, is_gone);
        assert!(
            dead * 10 >= gone * 9,
            "{dead} of {gone} of {devices}, {a_day} a day, {domains}"
        );
    }
}

/// Devices go now and then, as they do.
#[test]
fn what_goes_now_and_then_goes_within_days() {
    for (devices, a_day) in [(5, 20), (60, 150), (300, 800)] {
        let mut population = Population::new(devices, a_day, 3, a_day);
        let mut gone = 0;
        for week in 1..30 {
            // Tokens of the generation of that week have gone, of one device of twenty.
            let dead = population.pass(7 * DAY, GONE, |token| {
                token % 1_000 % 20 == week % 20 && token / 1_000 <= week / 20
            });
            gone += dead as u64;
        }
        assert!(gone * 20 >= 20 * devices, "{gone} of {devices}");
    }
}

/// Nothing is known of their domains: they may be strangers', or it was forgotten.
#[test]
fn costs_ten_devices_also_where_those_that_are_hit_were_never_accepted() {
    for share in [3, 5, 9] {
        let mut lane = Lane::calm(200);
        let mut dead = 0;
        for token in 0..3_000 {
            lane.now += 5;
            if token % 10 < share {
                let (belief, _) = lane.say_from(token, 1_000 + token, GONE);
                dead += usize::from(belief == Belief::Dead);
            } else {
                lane.accept(1_000_000 + token % 200);
            }
        }
        assert!(dead <= 10, "{dead} of {share} in ten");
    }
}
