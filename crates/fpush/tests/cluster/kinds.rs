//! Kinds of engines: behind sentinels that name another one, with TLS, and by a file.

use std::{thread::sleep, time::Duration};

use fpush_testkit::{Redis, TestCa, run_to_end, until};

use crate::rig::{LONG, PROGRAM, REFUSED, RESULT, Rig, Setup, token, wait_until_it_has_all};

/// Both instances keep one limit.
#[track_caller]
pub(crate) fn expect_shared(rig: &mut Rig, number: usize) {
    let device = token(number);
    assert_eq!(rig.push(0, &device), RESULT, "sent");
    assert_eq!(rig.push(1, &device), RESULT, "queued");
    assert_eq!(rig.push(0, &device), REFUSED);
    assert_eq!(rig.sent(&device).len(), 1);
}

#[test]
fn the_sentinels_name_another_primary() {
    let primary = Redis::start_new();
    let port = primary.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port, "--appendonly", "yes"]);
    let config = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 5000\nsentinel failover-timeout main 2000\n"
    );
    let sentinel = Redis::sentinel(&config);
    until(LONG, "the replica follows", || {
        primary.ask(&["INFO", "replication"]).contains("state=online")
    });
    until(LONG, "the sentinel knows the replica", || {
        sentinel
            .ask(&["SENTINEL", "replicas", "main"])
            .contains("127.0.0.1")
    });
    let url = format!("redis-sentinel://127.0.0.1:{}/main", sentinel.port());
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), Some(url)],
        redis: primary,
        ..Setup::of(2, "1h")
    });
    expect_shared(&mut rig, 1);
    // What has not reached it is lost with the primary.
    wait_until_it_has_all(&replica, &rig.redis);
    rig.redis.kill();
    until(LONG, "the replica has taken over", || {
        // It closes connections while it changes its role.
        let said = replica.try_ask(&["INFO", "replication"]);
        said.is_some_and(|said| said.contains("role:master"))
    });
    for instance in 0..2 {
        assert_eq!(rig.push(instance, &token(2 + instance)), RESULT);
        rig.all[instance].daemon.wait_for_log("can be used again", LONG);
    }
    expect_shared(&mut rig, 5);
    assert_eq!(rig.push(0, &token(1)), REFUSED, "what was known is known");
}

#[test]
fn tls_is_spoken_with_a_certificate_of_the_operators() {
    let ca = TestCa::new();
    let folder = fpush_testkit::TempDir::new();
    let server = ca.server_cert(&["localhost", "127.0.0.1"], None);
    let ca_file = folder.write("ca.pem", ca.pem());
    let certificate = folder.write("cert.pem", server.cert_pem);
    let key = folder.write("key.pem", server.key_pem);
    let redis = Redis::with_tls(&certificate, &key, &ca_file);
    let url = format!("rediss://localhost:{}", redis.tls_port());
    let roots = std::fs::read(&ca_file).unwrap();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), Some(url)],
        redis,
        files: vec![("redis.pem", roots)],
        change: |settings| settings["cluster"]["caFilePath"] = "redis.pem".into(),
        ..Setup::of(2, "1h")
    });
    expect_shared(&mut rig, 1);
}

/// With no more rights than docs/operate/instances.md says.
#[test]
fn a_user_of_its_own_may_do_all_that_is_needed() {
    let page = include_str!("../../../../docs/operate/instances.md");
    let (_, rule) = page.split_once("`ACL SETUSER fpush on >PASSWORD ").unwrap();
    let (rule, _) = rule.split_once('`').unwrap();
    let redis = Redis::start_new();
    let user = ["ACL", "SETUSER", "fpush", "on", ">secret"];
    redis.ask(&user.into_iter().chain(rule.split(' ')).collect::<Vec<_>>());
    let url = redis.tcp_url().replace("://", "://fpush:secret@");
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), Some(url)],
        redis,
        ..Setup::of(2, "1h")
    });
    expect_shared(&mut rig, 1);
    rig.apns
        .queue([fpush_testkit::Answer::reason(400, "BadDeviceToken")]);
    assert_ne!(rig.push(0, &token(2)), RESULT);
    rig.wait_for_key(":words:");
    sleep(Duration::from_millis(2_500));
    for instance in &rig.all {
        assert!(
            !instance.daemon.log().contains("decides alone"),
            "{}",
            instance.daemon.log()
        );
    }
}

#[test]
fn a_reload_begins_and_ends_the_sharing() {
    let redis = Redis::start_new();
    let url = redis.url();
    let mut rig = Rig::with(Setup {
        urls: vec![Some(url.clone()), None],
        redis,
        ..Setup::of(2, "1h")
    });
    assert_eq!(rig.push(1, &token(1)), RESULT);
    rig.all[1].change_settings(|settings| {
        settings["cluster"] = serde_json::json!({ "url": url, "timeout": "1s" });
    });
    rig.all[1].daemon.signal("HUP");
    rig.all[1].daemon.wait_for_log("settings reloaded", LONG);
    rig.all[1].daemon.wait_for_log("engine can be used", LONG);
    expect_shared(&mut rig, 2);

    rig.all[1].change_settings(|settings| drop(settings.as_object_mut().unwrap().remove("cluster")));
    rig.all[1].daemon.signal("HUP");
    rig.all[1].daemon.wait_for_nth_log("settings reloaded", 2, LONG);
    assert_eq!(rig.push(0, &token(3)), RESULT);
    assert_eq!(rig.push(1, &token(3)), RESULT, "sent");
    assert_eq!(rig.sent(&token(3)).len(), 2);
    until(LONG, "the other one is alone", || {
        sleep(Duration::from_millis(200));
        rig.all[0]
            .monitoring()
            .scrape()
            .value("fpush_cluster_instances", &[])
            == Some(1.0)
    });
}

#[test]
fn check_says_what_is_shared_and_whether_it_can_be() {
    let redis = Redis::with(&["--appendonly", "no"]);
    let folder = fpush_testkit::TempDir::new();
    folder.write("url", format!("{}\n", redis.url()));
    let check = |cluster: serde_json::Value, connect: bool| {
        let settings = serde_json::json!({
            "component": { "componentHostname": "push.localhost", "componentKey": "s", "serverHostname": "127.0.0.1",
                "serverPort": 1 },
            "pushModules": { "m": { "type": "demo" } },
            "cluster": cluster,
        });
        let file = folder.write("settings.json", settings.to_string());
        let mut arguments = vec!["check".to_owned(), file.display().to_string()];
        arguments.extend(connect.then(|| "--connect".to_owned()));
        let output = run_to_end(PROGRAM, arguments, folder.path());
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let by_file = serde_json::json!({ "urlFile": folder.path().join("url") });
    let said = check(by_file.clone(), false);
    assert!(
        said.contains("shared with other instances") && said.contains("redis.sock"),
        "{said}"
    );
    let said = check(by_file.clone(), true);
    assert!(said.contains("set appendonly to yes"), "{said}");
    assert!(said.contains("the engine accepts us"), "{said}");
    for (rights, missing) in [
        ("~fpush:* +@all -@sortedset", "may not run zadd, "),
        (
            "~other:* +@all",
            "may not use keys that begin with cluster.prefix",
        ),
        ("~fpush:* +@all -evalsha", "may not run evalsha"),
        ("~fpush:* +@all -info", "may not run info"),
    ] {
        let set = ["ACL", "SETUSER", "limited", "reset", "on", ">p"];
        redis.ask(&set.into_iter().chain(rights.split(' ')).collect::<Vec<_>>());
        let url = redis.tcp_url().replace("redis://", "redis://limited:p@");
        let said = check(serde_json::json!({ "url": url }), true);
        assert!(
            said.contains(missing) && !said.contains("accepts us"),
            "{rights}: {said}"
        );
    }
    for (url, what) in [
        (
            redis.tcp_url().replace("redis://", "redis-sentinel://") + "/main",
            "is not a sentinel",
        ),
        (
            redis.tcp_url().replace("redis://", "rediss://"),
            "it does not answer in TLS",
        ),
    ] {
        let said = check(serde_json::json!({ "url": url }), true);
        assert!(said.contains(what), "{url}: {said}");
    }
    redis.kill();
    let said = check(by_file, true);
    assert!(
        said.contains("cluster: the engine cannot be used: it cannot be reached"),
        "{said}"
    );
    for (wrong, what) in [
        (
            serde_json::json!({ "url": "http://a" }),
            "cluster.url: expected a URL such as",
        ),
        (serde_json::json!({}), "cluster.url: this key is missing"),
        (
            serde_json::json!({ "url": "redis://a", "urlFile": "b" }),
            "expected url or urlFile, not both",
        ),
        (
            serde_json::json!({ "url": "redis://a", "timeout": "5s" }),
            "cluster.timeout: expected \"1ms\" to \"1s\"",
        ),
        (
            serde_json::json!({ "url": "redis://a", "prefix": "a b" }),
            "cluster.prefix: expected",
        ),
        (
            serde_json::json!({ "url": "redis://a", "caFilePath": "url" }),
            "TLS is off",
        ),
        (
            serde_json::json!({ "url": "redis://a", "tiemout": "5ms" }),
            "did you mean \"timeout\"?",
        ),
    ] {
        let said = check(wrong, false);
        assert!(said.contains(what), "{what}: {said}");
    }
}
