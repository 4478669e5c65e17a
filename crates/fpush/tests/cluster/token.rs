//! One provider token for all instances.

use std::{thread::sleep, time::Duration};

use fpush_testkit::{Answer, ApnsKey, until};
use serde_json::Value;

use crate::rig::{LONG, RESULT, Rig, Setup, token};

/// Modules that prove who they are by a provider token.
fn by_token(instances: usize) -> Rig {
    let key = ApnsKey::generate();
    let p8 = key.p8();
    Rig::with(Setup {
        files: vec![("key.p8", p8.as_bytes().to_vec())],
        change: |settings| {
            use_provider_token(settings);
            settings["pushModules"]["m"]["holdFor"] = "0s".into();
        },
        ..Setup::of(instances, "0s")
    })
}

/// The same after a push of each instance, and the provider tokens in those.
#[track_caller]
fn by_token_used(instances: usize) -> (Rig, Vec<String>) {
    let mut rig = by_token(instances);
    for instance in 0..instances {
        assert_eq!(rig.push(instance, &token(instance)), RESULT);
    }
    let first = used(&rig, instances);
    (rig, first)
}

/// Signs with `key.p8` instead of showing a certificate.
pub(crate) fn use_provider_token(settings: &mut Value) {
    let apns = settings["pushModules"]["m"]["apns"].as_object_mut().unwrap();
    apns.remove("certFilePath");
    apns.remove("certKeyFilePath");
    apns.insert("tokenKeyFilePath".to_owned(), "key.p8".into());
    apns.insert("keyId".to_owned(), "ABC123DEFG".into());
    apns.insert("teamId".to_owned(), "DEF123GHIJ".into());
}

/// The provider tokens in the last so many pushes.
fn used(rig: &Rig, last: usize) -> Vec<String> {
    let requests = rig.apns.requests();
    let last = requests.iter().rev().take(last);
    let mut used: Vec<_> = last
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    used.sort();
    used.dedup();
    used
}

#[test]
fn all_instances_use_one_from_the_first_push_on() {
    let (mut rig, first) = by_token_used(3);
    assert_eq!(first.len(), 1, "{first:?}");

    // One that starts later, and one that starts again.
    rig.all[1].daemon.kill();
    // A second later another signature would be another token.
    sleep(Duration::from_millis(1_100));
    rig.all[1].start_again();
    assert_eq!(rig.push(1, &token(9)), RESULT);
    assert_eq!(used(&rig, 1), first);

    // The engine is away: it is used on.
    rig.redis.kill();
    for instance in 0..3 {
        assert_eq!(rig.push(instance, &token(10 + instance)), RESULT);
    }
    assert_eq!(used(&rig, 3), first);
}

/// As after a failover to an engine whose clock is an hour behind: it would seem to be new until an hour after its end.
#[test]
fn one_whose_age_the_engine_does_not_know_is_replaced() {
    let (mut rig, first) = by_token_used(2);
    for instance in &mut rig.all {
        instance.daemon.kill();
    }
    let keys = rig.redis.keys();
    let key = keys.iter().find(|key| key.contains("apns:")).unwrap();
    rig.redis.ask(&["HINCRBY", key, "since", "3600000"]);
    // A second later another signature is another token.
    sleep(Duration::from_millis(1_100));
    for instance in &mut rig.all {
        instance.start_again();
    }
    for instance in 0..2 {
        assert_eq!(rig.push(instance, &token(2 + instance)), RESULT);
    }
    let second = used(&rig, 2);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(second, first);
}

#[test]
fn one_that_apple_calls_expired_is_renewed_by_one_for_all_and_not_within_twenty_minutes() {
    let (mut rig, first) = by_token_used(2);
    rig.apns.queue([Answer::reason(403, "ExpiredProviderToken")]);
    assert_ne!(rig.push(0, &token(3)), RESULT, "it is too young");

    rig.wait_for_key(":pause:");
    let pause = rig
        .redis
        .keys()
        .into_iter()
        .find(|key| key.contains(":pause:"))
        .unwrap();
    rig.redis.ask(&["DEL", &pause]);

    // As if it had been signed 21 minutes ago.
    let key = rig
        .redis
        .keys()
        .into_iter()
        .find(|key| key.contains("apns:"))
        .unwrap();
    let since: u64 = rig.redis.ask(&["HGET", &key, "since"]).parse().unwrap();
    let before = (since - 21 * 60_000).to_string();
    rig.redis.ask(&["HSET", &key, "since", &before]);
    for instance in &mut rig.all {
        instance.daemon.kill();
        instance.start_again();
    }
    rig.apns.queue([Answer::reason(403, "ExpiredProviderToken")]);
    assert_eq!(rig.push(0, &token(4)), RESULT, "renewed, and sent again");
    let second = used(&rig, 1);
    assert_ne!(second, first);
    until(LONG, "the other one uses it too", || {
        assert_eq!(rig.push(1, &token(5)), RESULT);
        used(&rig, 1) == second
    });
}
