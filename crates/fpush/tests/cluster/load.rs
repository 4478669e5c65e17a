//! Three instances under load, each of which is killed, as is the engine: what goes out is what one instance would send.

use std::{collections::BTreeMap, thread};

use fpush_testkit::{Flow, Redis};

use crate::{
    engine::times_alone,
    rig::{DEAD, LONG, RESULT, Rig, Setup, token, wait_until_asked},
};

const TOKENS: usize = 200;

/// Publishes for so many tokens at these instances, for each token at all of them at once. Returns the replies by token.
#[track_caller]
fn publish(rig: &mut Rig, instances: &[usize], first: usize) -> Vec<Vec<String>> {
    let mut ids = Vec::new();
    for number in first..first + TOKENS {
        for instance in instances {
            ids.push((*instance, rig.all[*instance].publish(&token(number))));
        }
    }
    let mut verdicts = ids.into_iter().map(|(instance, id)| {
        let verdict = rig.all[instance].link.reply_to(&id, LONG).verdict();
        assert_ne!(verdict, DEAD, "no device is forgotten");
        verdict
    });
    (0..TOKENS)
        .map(|_| verdicts.by_ref().take(instances.len()).collect())
        .collect()
}

/// Publishes, for tokens from `first` on, at instances that use the engine. Returns the replies, and how many tokens got how many
/// pushes.
#[track_caller]
fn publish_together(
    rig: &mut Rig,
    instances: &[usize],
    first: usize,
) -> (Vec<Vec<String>>, BTreeMap<usize, usize>) {
    // On a busy machine an instance may have waited too long for the engine, and has decided alone: that proves nothing.
    for first in (0..5).map(|again| first + again * TOKENS) {
        let before = decisions_alone(rig, instances);
        let verdicts = publish(rig, instances, first);
        if before.is_some() && decisions_alone(rig, instances) == before {
            return (verdicts, sent(rig, first));
        }
    }
    panic!("this machine is too slow");
}

/// What grows when one of these instances decides alone: the engine could not be used, or did not answer a question in time. It
/// waits until all use the engine; `None` if one does not any more.
fn decisions_alone(rig: &Rig, instances: &[usize]) -> Option<f64> {
    thread::scope(|scope| {
        for instance in instances {
            let monitoring = rig.all[*instance].monitoring();
            scope.spawn(move || wait_until_asked(monitoring));
        }
    });
    let alone = |instance: &usize| {
        let metrics = rig.all[*instance].monitoring().scrape();
        let value = |name, labels: &[_]| metrics.value(name, labels).unwrap_or_default();
        let unanswered = ["failed", "timeout", "unknown"]
            .map(|result| value("fpush_cluster_requests_total", &[("result", result)]));
        let is_used = value("fpush_cluster_up", &[]) == 1.0;
        is_used.then(|| unanswered.iter().sum::<f64>() + times_alone(rig, *instance) as f64)
    };
    instances.iter().map(alone).sum()
}

/// How many tokens got how many pushes.
fn sent(rig: &Rig, first: usize) -> BTreeMap<usize, usize> {
    let mut by_token = BTreeMap::<_, usize>::new();
    for request in rig.apns.requests() {
        *by_token.entry(request.token).or_default() += 1;
    }
    let mut counts = BTreeMap::new();
    for number in first..first + TOKENS {
        let count = by_token.get(&token(number)).copied().unwrap_or_default();
        *counts.entry(count).or_default() += 1;
    }
    counts
}

#[test]
fn every_token_gets_one_push_and_one_is_queued_also_if_instances_are_killed() {
    let redis = Redis::start_new();
    let (relay, url) = redis.relay();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(redis.url()), Some(redis.url()), Some(url)],
        redis,
        change: |settings| settings["cluster"]["timeout"] = "1s".into(),
        ..Setup::of(3, "1h")
    });
    let one_each = BTreeMap::from([(1, TOKENS)]);
    let (verdicts, counts) = publish_together(&mut rig, &[0, 1, 2], 0);
    for verdicts in verdicts {
        let accepted = verdicts.iter().filter(|verdict| *verdict == RESULT).count();
        assert_eq!(accepted, 2, "one is sent and one is queued: {verdicts:?}");
    }
    assert_eq!(counts, one_each);

    // An instance is killed while it sends: those go on.
    for number in 1_000..1_000 + TOKENS {
        rig.all[1].publish(&token(number));
    }
    rig.all[1].daemon.kill();
    assert_eq!(publish_together(&mut rig, &[0, 2], 2_000).1, one_each);
    rig.all[1].start_again();
    assert_eq!(publish_together(&mut rig, &[0, 1, 2], 3_000).1, one_each);

    // One cannot reach the engine: it sends once more what the others send, and nothing is lost.
    relay.hold(Flow::Answers);
    publish(&mut rig, &[0, 1, 2], 4_000);
    let counts = sent(&rig, 4_000);
    assert!(
        !counts.contains_key(&0) && counts.keys().all(|count| *count <= 2),
        "{counts:?}"
    );
    relay.release();
    relay.cut();
    assert_eq!(publish_together(&mut rig, &[0, 1, 2], 5_000).1, one_each);

    // The engine itself, in the middle of it.
    for number in 6_000..6_000 + TOKENS {
        for instance in &mut rig.all {
            instance.publish(&token(number));
        }
        if number == 6_000 + TOKENS / 2 {
            rig.redis.kill();
        }
    }
    publish(&mut rig, &[0, 1, 2], 7_000);
    let counts = sent(&rig, 6_000);
    assert!(
        !counts.contains_key(&0) && counts.keys().all(|count| *count <= 3),
        "{counts:?}"
    );
    rig.redis.start();
    assert_eq!(publish_together(&mut rig, &[0, 1, 2], 8_000).1, one_each);
}
