//! A cluster of nodes: each module is at one of them, and when that dies its replica takes over.

use std::ops::RangeInclusive;

use fpush_testkit::{Answer, Redis, free_port, until};

use crate::{
    engine::{BACK, DOWN, expect_lines, expect_red},
    kinds::expect_shared,
    rig::{DEAD, LONG, Rig, Setup, token, wait_until_it_has_all},
    takeover::Provider,
};

/// The nodes of a cluster that have slots.
struct Nodes {
    primaries: Vec<Redis>,
}

impl Nodes {
    fn start() -> Self {
        let primaries: Vec<_> = (0..3).map(|_| node()).collect();
        for (node, slots) in primaries.iter().zip(SLOTS) {
            let ends = [slots.start().to_string(), slots.end().to_string()];
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &ends[0], &ends[1]]);
            meet(node, &primaries[0]);
        }
        let nodes = Self { primaries };
        nodes.wait_until_whole(&nodes.primaries.iter().collect::<Vec<_>>());
        nodes
    }

    /// All of these know each other, and that each slot has its node.
    #[track_caller]
    fn wait_until_whole(&self, all: &[&Redis]) {
        let count = format!("cluster_known_nodes:{}", all.len());
        until(LONG, "the cluster is whole", || {
            all.iter().all(|node| {
                let info = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&count)
            })
        });
    }

    /// The node that has the module, and nothing else of ours, out of the others.
    fn take_module(&mut self) -> Redis {
        let node_of = |key: &str| {
            let slot = self.primaries[0]
                .ask(&["CLUSTER", "KEYSLOT", key])
                .parse()
                .unwrap();
            SLOTS.iter().position(|slots| slots.contains(&slot)).unwrap()
        };
        let node = node_of("fpush:{m}:held");
        assert!(
            ["fpush:{all}:key", "fpush:{trial}:set"]
                .iter()
                .all(|key| node_of(key) != node)
        );
        self.primaries.remove(node)
    }

    /// A node more, which has what that one has.
    #[track_caller]
    fn replica_of(&self, primary: &Redis) -> Redis {
        let replica = node();
        meet(&replica, primary);
        let all: Vec<_> = self.primaries.iter().chain([primary, &replica]).collect();
        self.wait_until_whole(&all);
        let id = primary.ask(&["CLUSTER", "MYID"]);
        until(LONG, "it becomes a replica", || {
            replica
                .try_ask(&["CLUSTER", "REPLICATE", &id])
                .is_some_and(|said| said == "OK")
        });
        until(LONG, "the replica follows", || {
            primary.ask(&["INFO", "replication"]).contains("state=online")
        });
        until(LONG, "all know that it is one", || {
            all.iter()
                .all(|node| node.ask(&["CLUSTER", "NODES"]).contains("slave"))
        });
        replica
    }
}

fn meet(node: &Redis, other: &Redis) {
    let port = other.port().to_string();
    let answer = other.ask(&["CONFIG", "GET", "cluster-port"]);
    let bus_port = answer.lines().next_back().unwrap();
    node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus_port]);
}

fn node() -> Redis {
    Redis::with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &free_port().unwrap().to_string(),
        "--cluster-node-timeout",
        NODE_TIMEOUT,
        // It takes over when it is told to, and not before, however long that is.
        "--cluster-replica-no-failover",
        "yes",
        "--cluster-replica-validity-factor",
        "0",
        "--appendonly",
        "yes",
        "--appendfsync",
        "no",
    ])
}

/// Milliseconds after which the others take a node for dead. An instance asks twice before that.
const NODE_TIMEOUT: &str = "4000";
const SLOTS: [RangeInclusive<u16>; 3] = [0..=5_999, 6_000..=11_999, 12_000..=16_383];

#[test]
fn a_cluster_has_each_module_at_one_node() {
    let nodes = Nodes::start();
    let url = format!("redis-cluster://127.0.0.1:{}", nodes.primaries[1].port());
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), Some(url)],
        ..Setup::of(2, "1h")
    });
    expect_shared(&mut rig, 1);
    let keys: Vec<_> = nodes.primaries.iter().map(Redis::keys).collect();
    let of_module = |keys: &&Vec<String>| keys.iter().any(|key| key.contains("{m}"));
    assert_eq!(keys.iter().filter(of_module).count(), 1, "{keys:?}");
}

#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn a_replica_of_the_modules_node_takes_over_with_all_that_is_held_and_blocked() {
    let mut nodes = Nodes::start();
    let primary = nodes.take_module();
    let replica = nodes.replica_of(&primary);
    // The one that will be dead is named first.
    let ports: Vec<_> = [&primary]
        .into_iter()
        .chain(&nodes.primaries)
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let url = format!("redis-cluster://{}", ports.join(","));
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), Some(url)],
        redis: primary,
        ..Setup::of(2, "0s")
    });
    rig.earn_trust(0);
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(0, &token(1)), DEAD);
    rig.wait_for_key(":blocks:");
    let provider = Provider::of(&rig);
    rig.hold(0, 10..14);
    rig.hold(1, 14..18);
    rig.wait_until_shared(8);
    wait_until_it_has_all(&replica, &rig.redis);
    rig.redis.kill();
    // For some devices the other instance holds one already, which cannot be asked.
    rig.hold(0, 17..19);
    rig.hold(1, 13..14);
    rig.hold(1, 19..20);
    assert_eq!(rig.push(0, &token(1)), DEAD, "this one knows it");
    for instance in 0..2 {
        rig.all[instance].daemon.wait_for_log(DOWN, LONG);
        expect_red(&rig, instance, "decides alone");
    }

    let takes_over = ["CONFIG", "SET", "cluster-replica-no-failover", "no"];
    assert_eq!(replica.ask(&takes_over), "OK");
    until(LONG, "the replica has taken over", || {
        // It closes connections while it changes its role.
        let said = replica.try_ask(&["INFO", "replication"]);
        said.is_some_and(|said| said.contains("role:master"))
    });
    rig.redis = replica;
    for instance in 0..2 {
        rig.all[instance].daemon.wait_for_log(BACK, LONG);
    }
    // Of the two that both held, the newer one stays.
    rig.wait_until_shared(10);
    for instance in 0..2 {
        expect_lines(&rig, instance, 1);
    }
    rig.all[0].stop();
    rig.wait_until_held(1, 10);
    provider.comes_back();
    rig.expect_woken(&provider, &[1], 10..20);
    assert_eq!(
        rig.push(1, &token(1)),
        DEAD,
        "which hears of it from the engine alone"
    );
    assert_eq!(rig.sent(&token(1)).len(), 1);
}
