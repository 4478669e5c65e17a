//! File descriptors, when strangers take as many as they get.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use fpush_testkit::{FakeApns, TestCa, http, merged};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    runtime,
    time::timeout,
};

use crate::rig::{LONG, PROGRAM, RESULT, Rig, apple, apple_token};

/// Started by hand: the soft limit is small, and so is the hard one here. Strangers at an HTTP listener keep more
/// connections than there are descriptors, from many addresses, each with an answer behind it.
#[test]
fn strangers_connections_keep_nobody_from_his_provider_his_files_and_the_listener() {
    outlasts_strangers(json!({}), |rig| rig.monitoring.address());
}

/// The same at the listener of apps.
#[test]
#[cfg(feature = "enable_registration")]
fn strangers_connections_keep_no_app_from_its_registration() {
    let registration = json!({ "registration": {
        "store": { "path": "devices.db" }, "types": { "apns": "m" }, "http": { "listen": "127.0.0.1:0" },
    } });
    let apps = |rig: &Rig| fpush_testkit::http_address(&rig.daemon, LONG);
    let rig = outlasts_strangers(registration, apps);
    assert!(rig.path("devices.db").exists());
}

fn outlasts_strangers(more: Value, listener: impl Fn(&Rig) -> SocketAddr) -> Rig {
    let (ca, few) = (
        TestCa::new(),
        format!("ulimit -Sn 64; ulimit -Hn 400; exec {PROGRAM} settings.json"),
    );
    let apns = FakeApns::start(&ca);
    let settings =
        json!({ "pushModules": { "m": apple(&apns.url(), json!({})) }, "stateDirectory": "state" });
    let is_for_apps = more.get("registration").is_some();
    let mut rig = Rig::with(merged(settings, more), |builder| {
        builder
            .file("run.sh", &few)
            .file("ca.pem", ca.pem())
            .program("/bin/sh")
            .args(["run.sh"])
    });
    let limits = fs::read_to_string(format!("/proc/{}/limits", rig.daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(files, ["400", "400"], "the soft limit is the hard one");

    let address = listener(&rig);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let kept = runtime.block_on(async {
        let mut kept = Vec::new();
        for number in 0..500 {
            kept.push(idle(address, number).await);
        }
        kept
    });
    for number in 0..3 {
        assert_eq!(rig.push_all([apple_token(number)]), [RESULT]);
        assert!(!rig.monitoring.scrape().text.is_empty());
        if is_for_apps {
            let form = format!("type=apns&node=n-{number}&token={}", apple_token(number));
            let answer = http(address, "POST /push_appserver/v1/register", &form);
            assert!(answer.body.starts_with("OK"), "{}", answer.body);
        }
    }
    drop(kept);
    rig.daemon.terminate();
    assert!(rig.daemon.wait(LONG).success());
    assert!(rig.path("state/blocklist.jsonl").exists());
    let log = rig.daemon.log();
    assert!(!log.contains("Too many open files"), "{log}");
    rig
}

/// A connection that has had an answer, and stays as long as the other side lets it.
async fn idle(address: SocketAddr, number: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 0).to_bits() + u32::from(number / 40));
    socket.bind((source, 0).into()).unwrap();
    let answered = async {
        let mut stream = socket.connect(address).await.unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
        stream
    };
    timeout(LONG, answered).await.expect("nobody is answered")
}
