//! `cargo xtask demo --web`, as a reader of the documents runs it, but without the internet: a proxy leads to a push service
//! that is a stand-in, and a few requests stand for the browser.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fpush_testkit::{FakeProxy, FakePush, Http, ProxyAnswer, TempDir, TestCa, http};
use serde_json::Value;

#[test]
#[ignore = "builds fpush and takes a while: `cargo xtask test --long` runs it"]
fn the_page_is_there_and_its_button_sends_a_push() {
    let (ca, folder, proxy) = (TestCa::new(), TempDir::new(), FakeProxy::start());
    let push = FakePush::start(&ca);
    proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
    let demo = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--web"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("HTTPS_PROXY", proxy.url())
        .env("SSL_CERT_FILE", folder.write("ca.pem", ca.pem()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut demo = Demo(demo.unwrap());
    let mut said = BufReader::new(demo.0.stdout.take().unwrap());
    let mut line = String::new();
    // What it prints first are settings, in which that address has no slash at its end.
    let page = loop {
        line.clear();
        assert_ne!(
            said.read_line(&mut line).unwrap(),
            0,
            "it ends before it says an address"
        );
        let address = line.trim().strip_prefix("http://");
        if let Some(address) = address.and_then(|address| address.strip_suffix('/')) {
            break address.parse::<SocketAddr>().unwrap();
        }
    };

    let get = |path: &str| http(page, &format!("GET /{path}"), "").body;
    assert!(get("").contains("Send me a push"));
    for file in ["app.js", "worker.js"] {
        assert!(get(file).contains("push"), "{file}");
    }
    let config: Value = serde_json::from_str(&get("config.json")).unwrap();
    let api = config["api"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (api, path) = api.split_once('/').unwrap();
    let api: SocketAddr = api.parse().unwrap();
    let vapid = http(api, &format!("GET /{path}vapid/webpush"), "").body;
    let device = push.subscribe_at("fcm.googleapis.com", "/wp/browser");
    let form = format!(
        "type=webpush&node=browser&endpoint={}&p256dh={}&auth={}&vapid={vapid}",
        device.endpoint, device.p256dh, device.auth
    );
    let Http { body, .. } = http(api, &format!("POST /{path}register"), &form);
    let answer: Vec<_> = body.lines().collect();
    let [status, node, secret] = answer[..] else {
        panic!("{body}")
    };
    assert_eq!(status, "OK");

    let published = http(page, "POST /publish", &format!("node={node}&secret={secret}"));
    assert_eq!(published.body, "result");
    let pushed = &push.wait_for(1, Duration::from_secs(30))[0];
    assert_eq!((pushed.text.as_deref(), &*pushed.key), (Ok("{}"), &*vapid));

    demo.interrupt();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("Everything is stopped"), "{rest}");
    assert!(demo.0.wait().unwrap().success());
}

/// It ends what it has started when it is interrupted, also where the test fails.
struct Demo(Child);

impl Demo {
    fn interrupt(&self) {
        let mut kill = Command::new("kill");
        drop(kill.args(["-INT", &self.0.id().to_string()]).status());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its number may be another's once it has been waited for.
        if let Ok(None) = self.0.try_wait() {
            self.interrupt();
            drop(self.0.wait());
        }
    }
}
