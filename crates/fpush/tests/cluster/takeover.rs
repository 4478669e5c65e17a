//! What one instance holds another one sends when it is gone: each device is woken once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use fpush_testkit::{Answer, Flow, Redis, Relay, until};

use crate::rig::{LONG, RESULT, Rig, Setup, token};

/// A provider that takes nothing until it is back.
pub(crate) struct Provider {
    is_back: Arc<AtomicBool>,
    /// How often it has accepted a push for each token.
    accepted: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Provider {
    /// It is away.
    pub(crate) fn of(rig: &Rig) -> Self {
        let provider = Self {
            is_back: Arc::default(),
            accepted: Arc::default(),
        };
        let (is_back, accepted) = (Arc::clone(&provider.is_back), Arc::clone(&provider.accepted));
        rig.apns.answer_with(move |request| {
            if !is_back.load(Ordering::Relaxed) {
                return Answer::reason(503, "ServiceUnavailable");
            }
            *accepted.lock().unwrap().entry(request.token.clone()).or_default() += 1;
            Answer::status(200)
        });
        provider
    }

    pub(crate) fn comes_back(&self) {
        self.is_back.store(true, Ordering::Relaxed);
    }

    fn goes_away(&self) {
        self.is_back.store(false, Ordering::Relaxed);
    }

    fn accepted(&self) -> BTreeMap<String, usize> {
        self.accepted.lock().unwrap().clone()
    }
}

impl Rig {
    /// Has an instance hold pushes to these devices.
    #[track_caller]
    pub(crate) fn hold(&mut self, instance: usize, devices: std::ops::Range<usize>) {
        let count = devices.len();
        let before = self.held(instance);
        let ids: Vec<_> = devices
            .map(|number| self.all[instance].publish(&token(number)))
            .collect();
        for id in ids {
            assert_eq!(self.all[instance].link.reply_to(&id, LONG).verdict(), RESULT);
        }
        assert_eq!(self.held(instance), before + count);
    }

    fn value(&self, instance: usize, name: &str, labels: &[(&str, &str)]) -> usize {
        let scrape = self.all[instance].monitoring().scrape();
        scrape.value(name, labels).unwrap_or_default() as usize
    }

    /// How many pushes an instance holds.
    fn held(&self, instance: usize) -> usize {
        self.all[instance].monitoring().wait_for_news();
        self.value(instance, "fpush_pushes_queued", &[("module", "m")])
    }

    #[track_caller]
    pub(crate) fn wait_until_held(&self, instance: usize, count: usize) {
        until(LONG, &format!("{count} are held"), || {
            self.value(instance, "fpush_pushes_queued", &[("module", "m")]) == count
        });
    }

    #[track_caller]
    fn wait_for_takeover(&self, instance: usize, from: &str, count: usize) {
        until(LONG, &format!("{count} are taken over"), || {
            let labels = [("module", "m"), ("from", from)];
            self.value(instance, "fpush_held_takeovers_total", &labels) == count
        });
    }

    #[track_caller]
    pub(crate) fn wait_until_shared(&self, count: usize) {
        until(LONG, &format!("{count} are in the engine"), || {
            self.redis.ask(&["HLEN", "fpush:{m}:held"]) == count.to_string()
        });
    }

    /// The provider is back: each of these devices is woken so often, and nothing is held any more.
    #[track_caller]
    pub(crate) fn expect_woken(
        &self,
        provider: &Provider,
        instances: &[usize],
        devices: std::ops::Range<usize>,
    ) {
        let all: BTreeMap<_, _> = devices.map(|number| (token(number), 1)).collect();
        until(LONG, "all are woken", || provider.accepted().len() == all.len());
        for instance in instances {
            self.wait_until_held(*instance, 0);
        }
        self.wait_until_shared(0);
        assert_eq!(provider.accepted(), all);
    }
}

#[test]
fn what_a_dead_instance_held_is_sent_once_by_another_one() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..8);
    rig.hold(1, 8..12);
    // The newer push for a device is the one that counts, wherever it is.
    rig.hold(1, 7..8);
    rig.wait_until_shared(12);
    rig.all[0].daemon.kill();
    rig.wait_for_takeover(1, "dead", 7);
    rig.wait_until_held(1, 12);
    provider.comes_back();
    rig.expect_woken(&provider, &[1], 0..12);
}

#[test]
fn an_instance_that_comes_back_sends_nothing_that_was_taken_over() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..8);
    rig.wait_until_shared(8);
    rig.all[0].daemon.kill();
    rig.wait_for_takeover(1, "dead", 8);
    rig.all[0].start_again();
    let taken = [("module", "m"), ("outcome", "taken")];
    until(LONG, "its own are dropped", || {
        rig.value(0, "fpush_held_pushes_total", &taken) == 8
    });
    rig.wait_until_held(0, 0);
    // It takes over in its turn.
    rig.hold(0, 8..9);
    rig.wait_until_shared(9);
    rig.all[1].daemon.kill();
    rig.wait_for_takeover(0, "dead", 8);
    provider.comes_back();
    rig.expect_woken(&provider, &[0], 0..9);
}

/// As after a failover to an engine whose clock is an hour behind.
#[test]
fn what_is_held_after_the_engines_clock_was_set_back_is_sent() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.wait_until_shared(4);
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 1], 0..4);
    until(LONG, "it is known who was woken", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:held-delivered"]) == "4"
    });
    // It was an hour ahead until now.
    let later = "for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
                 redis.call('ZINCRBY', KEYS[1], 3600000, member) end return 1";
    for key in ["fpush:{m}:held-delivered", "fpush:{m}:leases"] {
        rig.redis.ask(&["EVAL", later, "1", key]);
    }
    rig.redis
        .ask(&["HINCRBY", "fpush:{m}:held-watch", "seen", "3600000"]);
    provider.goes_away();
    rig.hold(0, 0..4);
    rig.wait_until_shared(4);
    rig.all[0].daemon.kill();
    rig.wait_for_takeover(1, "dead", 4);
    provider.comes_back();
    until(LONG, "all are woken again", || {
        provider.accepted().values().copied().eq([2; 4])
    });
}

/// Its lease has not run out when it is there again.
#[test]
fn an_instance_that_is_back_at_once_goes_on_with_what_it_held() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..8);
    rig.wait_until_shared(8);
    rig.all[0].daemon.kill();
    rig.all[0].start_again();
    rig.wait_until_held(0, 8);
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 1], 0..8);
}

#[test]
fn an_instance_that_is_stopped_hands_over_at_once() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..8);
    rig.wait_until_shared(8);
    rig.all[0].stop();
    rig.wait_for_takeover(1, "stopped", 8);
    rig.all[0].start_again();
    rig.wait_until_held(0, 0);
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 1], 0..8);
}

#[test]
fn what_was_held_while_the_engine_was_away_is_taken_over_later() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.hold(1, 4..5);
    rig.wait_until_shared(5);
    rig.redis.kill();
    rig.hold(0, 5..8);
    rig.redis.start();
    rig.wait_until_shared(8);
    rig.all[0].daemon.kill();
    // Nobody is taken for gone until all have had the time to come back.
    until(LONG, "they are taken over", || {
        let labels = [("module", "m"), ("from", "dead")];
        rig.value(1, "fpush_held_takeovers_total", &labels) == 7
    });
    provider.comes_back();
    rig.expect_woken(&provider, &[1], 0..8);
}

#[test]
fn what_several_hold_for_a_device_because_the_engine_was_away_is_one_push() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.wait_until_shared(4);
    rig.redis.kill();
    rig.hold(0, 4..8);
    rig.hold(1, 2..10);
    rig.redis.start();
    until(LONG, "both have told what they hold", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:taken"]) == "6"
    });
    rig.wait_until_shared(10);
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 1], 0..10);
    let taken = |instance| {
        rig.value(
            instance,
            "fpush_held_pushes_total",
            &[("module", "m"), ("outcome", "taken")],
        )
    };
    assert_eq!((taken(0), taken(1)), (6, 0), "the newer ones are sent");
}

/// The newer push has ended the older one, whose instance takes the newer one over before it has heard of that.
#[test]
fn a_newer_push_is_sent_by_the_instance_that_held_an_older_one() {
    let (mut rig, relay, provider) = mute_after_four_are_held_by(1);
    rig.hold(0, 0..4);
    relay.cut();
    relay.release();
    until(LONG, "the newer ones are told", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:taken"]) == "4"
    });
    rig.all[0].stop();
    rig.wait_for_takeover(1, "stopped", 4);
    provider.comes_back();
    rig.expect_woken(&provider, &[1], 0..4);
}

/// What it had not told yet when it was killed is newer than what another one has sent for the device, but older than that.
#[test]
fn an_instance_that_comes_back_sends_nothing_that_came_before_the_device_was_woken() {
    let (mut rig, relay, provider) = mute_after_four_are_held_by(0);
    for device in 2..4 {
        assert_eq!(rig.push(0, &token(device)), RESULT);
    }
    rig.hold(0, 4..5);
    rig.all[0].daemon.kill();
    relay.release();
    rig.wait_for_takeover(1, "dead", 4);
    provider.comes_back();
    until(LONG, "what was told is sent", || provider.accepted().len() == 4);
    rig.wait_until_held(1, 0);
    rig.wait_until_shared(0);
    rig.all[0].start_again();
    rig.expect_woken(&provider, &[0, 1], 0..5);
}

#[test]
fn what_a_dead_instance_had_not_told_to_be_acknowledged_is_one_push_with_what_others_hold() {
    let (rig, provider) = unacknowledged();
    rig.wait_until_shared(9);
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 2], 0..9);
}

#[test]
fn what_a_dead_instance_had_not_told_to_be_acknowledged_is_one_push_with_what_others_have_sent() {
    let (rig, provider) = unacknowledged();
    provider.comes_back();
    rig.expect_woken(&provider, &[0, 2], 0..9);
}

/// Two instances; the way of the first one to the engine can be stopped.
fn behind_a_relay() -> (Rig, Relay) {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    let rig = Rig::with(Setup {
        urls: vec![Some(url), Some(redis.url())],
        redis,
        ..Setup::of(2, "0s")
    });
    (rig, relay)
}

/// Of two instances this one holds a push for four devices, which the engine knows. What the first one says from then on does not
/// reach the engine.
fn mute_after_four_are_held_by(instance: usize) -> (Rig, Relay, Provider) {
    let (mut rig, relay) = behind_a_relay();
    let provider = Provider::of(&rig);
    rig.hold(instance, 0..4);
    rig.wait_until_shared(4);
    relay.hold(Flow::Questions);
    (rig, relay, provider)
}

/// Of three instances the second one was killed, and had pushes for devices that the others hold one for.
fn unacknowledged() -> (Rig, Provider) {
    let mut rig = Rig::start(3, "0s");
    let provider = Provider::of(&rig);
    rig.hold(1, 8..9);
    rig.hold(0, 0..4);
    rig.hold(2, 4..8);
    rig.wait_until_shared(9);
    rig.leave_unacknowledged(&token(8), &[token(0), token(1), token(4), token(5)]);
    rig.wait_until_shared(13);
    rig.all[1].daemon.kill();
    (rig, provider)
}

/// A second wake-up is better than none.
#[test]
fn an_instance_that_cannot_ask_sends_what_it_holds_after_a_while() {
    let mut rig = Rig::start(1, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.all[0].daemon.kill();
    rig.redis.kill();
    provider.comes_back();
    rig.all[0].start_again();
    until(LONG, "all are woken", || provider.accepted().len() == 4);
}

#[test]
fn a_push_that_another_instance_sends_meanwhile_covers_the_held_one() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.wait_until_shared(4);
    rig.all[0].daemon.signal("STOP");
    provider.comes_back();
    assert_eq!(rig.push(1, &token(3)), RESULT);
    rig.wait_until_shared(3);
    rig.all[0].daemon.signal("CONT");
    rig.expect_woken(&provider, &[0, 1], 0..4);
    let taken = [("module", "m"), ("outcome", "taken")];
    assert_eq!(rig.value(0, "fpush_held_pushes_total", &taken), 1);
}

#[test]
fn what_goes_out_twice_because_a_lease_ran_out_is_counted() {
    let (mut rig, relay) = behind_a_relay();
    let provider = Provider::of(&rig);
    rig.hold(0, 0..3);
    rig.wait_until_shared(3);
    relay.hold(Flow::Answers);
    rig.wait_for_takeover(1, "dead", 3);
    provider.comes_back();
    until(LONG, "both have sent", || {
        provider.accepted().values().sum::<usize>() == 6
    });
    relay.release();
    relay.cut();
    rig.wait_for_takeover(0, "sent_twice", 3);
}

impl Rig {
    /// Puts newer pushes for these devices into the engine, as an instance leaves them that is killed before it has told that they are
    /// acknowledged. It is the one that holds a push for the first device.
    fn leave_unacknowledged(&self, device: &str, devices: &[String]) {
        let script = "local held, found = redis.call('HGETALL', KEYS[1]), {} \
            for at = 1, #held, 2 do \
                for number, device in ipairs(ARGV) do \
                    if string.find(held[at + 1], device, 1, true) then \
                        found[number] = {held[at], held[at + 1]} \
                    end \
                end \
            end \
            local holder = string.match(found[1][1], '^%d+') \
            for number = 2, #ARGV do \
                local count, at, rest = string.match(found[number][2], '^(%d+) (%d+) (%d+ %d+ )') \
                local _, from = string.find(found[number][2], '^%d+ %d+ %d+ %d+ %x+ ') \
                local place = holder .. ':' .. 1000 + number \
                local head = string.format('%s %.0f %s%032x ', count, at + 1, rest, number) \
                redis.call('HSET', KEYS[1], place, head .. string.sub(found[number][2], from + 1)) \
                redis.call('ZADD', KEYS[2], holder, place) \
            end \
            return #ARGV";
        let mut command = vec![
            "EVAL",
            script,
            "2",
            "fpush:{m}:held",
            "fpush:{m}:held-holders",
            device,
        ];
        command.extend(devices.iter().map(String::as_str));
        assert_eq!(self.redis.ask(&command), (1 + devices.len()).to_string());
    }

    /// Changes what is in the engine of the push that is held for a device: what matches a pattern of Lua is replaced.
    #[track_caller]
    fn rewrite(&self, device: usize, pattern: &str, replacement: &str) {
        let script = "for _, place in ipairs(redis.call('HKEYS', KEYS[1])) do \
                local value = redis.call('HGET', KEYS[1], place) \
                if string.find(value, ARGV[1], 1, true) then \
                    local changed, count = string.gsub(value, ARGV[2], ARGV[3], 1) \
                    redis.call('HSET', KEYS[1], place, changed) \
                    return count \
                end \
            end";
        let (held, token) = ("fpush:{m}:held", token(device));
        let count = self
            .redis
            .ask(&["EVAL", script, "1", held, &token, pattern, replacement]);
        assert_eq!(count, "1");
    }

    #[track_caller]
    fn wait_until_unread(&self, instance: usize, count: usize) {
        until(LONG, &format!("{count} cannot be read"), || {
            self.value(instance, "fpush_cluster_unread", &[]) == count
        });
    }
}

/// As another version might write it.
const OF_LATER: [&str; 2] = ["\"class\":\"High\"", "\"class\":\"Highest\""];

#[test]
fn what_only_another_version_can_read_waits_for_the_instance_that_wrote_it() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..3);
    rig.wait_until_shared(3);
    rig.rewrite(1, OF_LATER[0], OF_LATER[1]);
    rig.all[0].daemon.kill();
    rig.wait_for_takeover(1, "dead", 2);
    rig.wait_until_unread(1, 1);
    let monitoring = rig.all[1].monitoring();
    until(LONG, "the status page says so", || {
        monitoring
            .status()
            .to_string()
            .contains("1 held pushes in it were written by another version")
    });
    provider.comes_back();
    until(LONG, "the others are woken", || provider.accepted().len() == 2);
    rig.all[0].start_again();
    rig.expect_woken(&provider, &[0, 1], 0..3);
    rig.wait_until_unread(1, 0);
}

#[test]
fn what_could_not_be_read_is_sent_by_whom_can_unless_it_is_over_or_not_needed() {
    let mut rig = Rig::start(2, "0s");
    let provider = Provider::of(&rig);
    rig.hold(0, 0..4);
    rig.wait_until_shared(4);
    for device in 0..3 {
        rig.rewrite(device, OF_LATER[0], OF_LATER[1]);
    }
    rig.all[0].daemon.kill();
    rig.wait_for_takeover(1, "dead", 1);
    rig.wait_until_unread(1, 3);
    // The time of one is over.
    rig.rewrite(0, "^(%d+ %d+ %d+) %d+", "%1 1");
    rig.wait_until_unread(1, 2);
    rig.all[1].daemon.wait_for_log("no instance could read", LONG);
    // Another message comes for the device of the second one.
    provider.comes_back();
    assert_eq!(rig.push(1, &token(1)), RESULT);
    rig.wait_until_unread(1, 1);
    // An instance of the version that wrote the third one.
    rig.rewrite(2, OF_LATER[1], OF_LATER[0]);
    rig.all[1].stop();
    rig.all[1].start_again();
    rig.expect_woken(&provider, &[1], 1..4);
}
