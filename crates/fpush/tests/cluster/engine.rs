//! The engine is away, slow, full, flushed, or set up badly. That costs nothing but the sharing.

use std::time::{Duration, Instant};

use fpush_testkit::{Answer, Flow, Redis, until};

use crate::rig::{DEAD, LONG, REFUSED, RESULT, Rig, SECOND, Setup, token};

pub(crate) const DOWN: &str = "this instance decides alone";
pub(crate) const BACK: &str = "can be used again";

/// The status page is red, and readiness is not touched.
#[track_caller]
pub(crate) fn expect_red(rig: &Rig, instance: usize, why: &str) {
    let monitoring = rig.all[instance].monitoring();
    until(LONG, "the status page says so", || {
        monitoring.status().to_string().contains(why)
    });
    until(LONG, "it is ready", || monitoring.readiness().0 == 200);
    assert_eq!(
        monitoring.scrape().value("fpush_cluster_up", &[]),
        Some(0.0),
        "the metric says so"
    );
}

/// So often an instance has said that the engine cannot be used: once each time, whatever it is asked meanwhile.
#[track_caller]
pub(crate) fn expect_lines(rig: &Rig, instance: usize, count: usize) {
    let times = times_alone(rig, instance);
    assert_eq!(times, count, "{}", rig.all[instance].daemon.log());
}

/// How often an instance has begun to decide alone.
pub(crate) fn times_alone(rig: &Rig, instance: usize) -> usize {
    rig.all[instance].daemon.log().matches(DOWN).count()
}

/// So many windows are known to all.
#[track_caller]
fn expect_windows(rig: &Rig, count: usize) {
    until(LONG, "what was sent meanwhile is told", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:windows"]) == count.to_string()
    });
}

#[test]
fn instances_decide_alone_while_the_engine_is_away_and_tell_it_all_when_it_is_back() {
    let mut rig = Rig::start(2, "1h");
    rig.earn_trust(0);
    assert_eq!(rig.push(0, &token(1)), RESULT);
    rig.redis.kill();
    // At once, whichever task notices.
    assert_eq!(rig.push(0, &token(2)), RESULT);
    assert_eq!(
        rig.push(1, &token(2)),
        RESULT,
        "the other one does not know of it"
    );
    assert_eq!(rig.push(0, &token(2)), RESULT, "queued");
    assert_eq!(rig.push(0, &token(2)), REFUSED);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(0, &token(3)), DEAD);
    for instance in &rig.all {
        instance.daemon.wait_for_log(DOWN, LONG);
    }
    expect_red(&rig, 0, "it cannot be reached");
    rig.redis.start();
    for instance in &rig.all {
        instance.daemon.wait_for_log(BACK, LONG);
    }
    expect_lines(&rig, 0, 1);
    expect_lines(&rig, 1, 1);
    until(LONG, "all is told", || {
        rig.redis.keys().iter().any(|key| key.contains(":queued")) && rig.push(1, &token(3)) == DEAD
    });
    assert_eq!(rig.push(1, &token(2)), REFUSED, "one is queued at the other");
    assert_eq!(
        rig.push(1, &token(1)),
        RESULT,
        "its window was written down: queued"
    );
    assert_eq!(rig.push(0, &token(1)), REFUSED);
}

#[test]
fn a_stalled_engine_is_left_alone_after_three_pushes_that_waited_for_it() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url), Some(redis.url())],
        redis,
        change: |settings| settings["cluster"]["timeout"] = "1s".into(),
        ..Setup::of(2, "1h")
    });
    assert_eq!(rig.push(0, &token(1)), RESULT);
    relay.hold(Flow::Answers);
    let start = Instant::now();
    for number in 10..40 {
        assert_eq!(rig.push(0, &token(number)), RESULT);
    }
    // Three wait, all others do not: with all of them it would be 30 seconds.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    rig.all[0]
        .daemon
        .wait_for_log("it does not answer within cluster.timeout", LONG);
    expect_red(&rig, 0, "cluster.timeout");
    expect_lines(&rig, 0, 1);
    relay.release();
    relay.cut();
    rig.all[0].daemon.wait_for_log(BACK, LONG);
    until(LONG, "what was sent meanwhile is told", || {
        let windows = rig.redis.ask(&["ZCARD", "fpush:{m}:windows"]);
        windows.parse::<usize>().unwrap() >= 31
    });
    // On a busy machine an instance can once more be without the engine for a moment.
    let mut others = 10..40;
    until(LONG, "what is queued at the other is known", || {
        let number = others.next().expect("one of thirty tokens");
        rig.wait_until_asked();
        assert_eq!(rig.push(1, &token(number)), RESULT, "queued");
        rig.push(0, &token(number)) == REFUSED
    });
}

#[test]
fn an_engine_that_refuses_us_or_takes_nothing_is_not_used() {
    let mut rig = Rig::start(1, "1h");
    let config = |rig: &Rig, key: &str, value: &str| rig.redis.ask(&["CONFIG", "SET", key, value]);
    for (round, (key, bad, good, why)) in [
        ("maxmemory", "1", "0", "it takes no more"),
        (
            "min-replicas-to-write",
            "1",
            "0",
            "it is starting or failing over",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        config(&rig, key, bad);
        assert_eq!(rig.push(0, &token(round)), RESULT, "{key}");
        rig.all[0].daemon.wait_for_nth_log(DOWN, round + 1, LONG);
        expect_red(&rig, 0, why);
        config(&rig, key, good);
        rig.all[0].daemon.wait_for_nth_log(BACK, round + 1, LONG);
        expect_lines(&rig, 0, round + 1);
        expect_windows(&rig, round + 1);
    }
    // A password of which our URL knows nothing.
    rig.redis
        .ask(&["ACL", "SETUSER", "default", "-@all", "+ping", "+acl"]);
    assert_eq!(rig.push(0, &token(90)), RESULT);
    expect_red(&rig, 0, "its user may not run");
    assert!(!rig.all[0].daemon.log().contains("panicked"));
}

#[test]
fn a_wrong_password_is_said_and_costs_nothing() {
    let redis = Redis::start_new();
    redis.ask(&["ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all"]);
    let url = redis.tcp_url().replace("redis://", "redis://app:wr0ng@");
    let mut rig = Rig::with(Setup {
        redis,
        urls: vec![Some(url)],
        ..Setup::of(1, "1h")
    });
    assert_eq!(rig.push(0, &token(1)), RESULT);
    expect_red(&rig, 0, "it refuses the password");
    expect_lines(&rig, 0, 1);
    assert!(!rig.all[0].daemon.log().contains("wr0ng"));
    rig.redis.ask(&["ACL", "SETUSER", "app", ">wr0ng"]);
    rig.all[0].daemon.wait_for_log(BACK, LONG);
    expect_lines(&rig, 0, 1);
    expect_windows(&rig, 1);
}

#[test]
fn an_engine_that_was_flushed_is_told_all_again() {
    let mut rig = Rig::start(2, "1h");
    rig.earn_trust(0);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(0, &token(1)), DEAD);
    assert_eq!(rig.push(0, &token(2)), RESULT);
    let key = rig.redis.ask(&["GET", "fpush:{all}:key"]);
    rig.redis.ask(&["FLUSHALL"]);
    rig.all[0].daemon.wait_for_log("has lost what it knew", LONG);
    rig.wait_for_key(":blocks:");
    assert_eq!(rig.push(1, &token(1)), DEAD);
    assert_eq!(
        rig.redis.ask(&["GET", "fpush:{all}:key"]),
        key,
        "the key is given back"
    );
    until(LONG, "the window as well", || {
        rig.redis
            .ask(&["ZCARD", "fpush:{m}:windows"])
            .parse::<usize>()
            .unwrap()
            > 10
    });
    assert_eq!(rig.push(1, &token(2)), RESULT, "queued");
    assert_eq!(rig.push(0, &token(2)), REFUSED);
}

#[test]
fn every_instance_notices_that_the_engine_was_flushed() {
    let mut rig = Rig::start(3, "1h");
    for instance in 0..3 {
        assert_eq!(rig.push(instance, &token(instance)), RESULT);
    }
    rig.redis.ask(&["FLUSHALL"]);
    for instance in &rig.all {
        instance.daemon.wait_for_log("has lost what it knew", LONG);
    }
    until(LONG, "all windows are told", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:windows"]) == "3"
    });
}

/// Each has a look of its own at it once a second.
#[cfg(feature = "enable_demo_support")]
#[test]
fn a_thousand_modules_come_up_on_an_engine_that_is_not_near() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    relay.delay(Duration::from_millis(5));
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url)],
        redis,
        change: |settings| {
            // One after another the looks of a second would take five seconds.
            settings["cluster"]["timeout"] = "1s".into();
            for number in 0..1_000 {
                settings["pushModules"][format!("other{number}")] = serde_json::json!({ "type": "demo" });
            }
        },
        ..Setup::of(1, "1h")
    });
    assert_eq!(rig.push(0, &token(1)), RESULT);
    until(LONG, "the last module is known there", || {
        let keys = rig.redis.keys();
        (0..1_000).all(|number| keys.iter().any(|key| key.contains(&format!("{{other{number}}}"))))
    });
    // A busy machine may be late with some of it; an engine that is too far away for all of it would never stay up.
    until(LONG, "it stays up for three seconds", || {
        let count = |what| rig.all[0].daemon.log().matches(what).count();
        let (down, back) = (count(DOWN), count(BACK));
        std::thread::sleep(3 * SECOND);
        down == back && count(DOWN) == down
    });
}

#[test]
fn an_instance_that_started_alone_takes_the_key_of_the_others() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    relay.hold(Flow::Questions);
    let mut rig = Rig::with(Setup {
        urls: vec![Some(redis.url()), Some(url)],
        redis,
        ..Setup::of(2, "1h")
    });
    rig.all[1].daemon.wait_for_log(DOWN, LONG);
    assert_eq!(rig.push(0, &token(1)), RESULT);
    assert_eq!(rig.push(1, &token(2)), RESULT);
    assert_eq!(rig.push(1, &token(2)), RESULT, "held under its own key");
    relay.release();
    relay.cut();
    rig.all[1]
        .daemon
        .wait_for_log("taking the other instances' key", LONG);
    rig.all[1].daemon.wait_for_log(BACK, LONG);
    assert_eq!(rig.push(1, &token(1)), RESULT, "queued");
    assert_eq!(rig.push(0, &token(1)), REFUSED);
    assert_eq!(rig.sent(&token(1)).len(), 1);
    until(LONG, "what was held is known under the new key", || {
        rig.redis.ask(&["ZCARD", "fpush:{m}:queued"]) == "2"
    });
    assert_eq!(rig.push(0, &token(2)), REFUSED);
}

#[test]
fn an_engine_that_may_forget_is_amber() {
    let redis = Redis::with(&["--maxmemory-policy", "allkeys-lru"]);
    let rig = Rig::with(Setup {
        urls: vec![Some(redis.url())],
        redis,
        ..Setup::of(1, "1h")
    });
    for why in ["maxmemory-policy is allkeys-lru", "append-only file"] {
        rig.all[0].daemon.wait_for_log(why, LONG);
    }
    let monitoring = rig.all[0].monitoring();
    until(LONG, "the status page says so", || {
        monitoring.status().to_string().contains("append-only file")
    });
    assert_eq!(monitoring.scrape().value("fpush_cluster_up", &[]), Some(1.0));
    std::thread::sleep(SECOND);
}
