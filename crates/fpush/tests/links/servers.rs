//! Several links at real servers. Without them these tests fail and say what to install.

use std::{thread, time::Instant};

use fpush_testkit::{
    TempDir, TestCa,
    servers::{Client, Ejabberd, Prosody, Server},
    until,
};
use serde_json::{Value, json};

use crate::rig::{LONG, Rig, SECOND};

const COMPONENT: &str = "push.localhost";
const SECRET: &str = "made-up-component-secret";
const PASSWORD: &str = "made-up-password";

fn link(name: &str, server: &dyn Server) -> Value {
    json!({
        "linkName": name, "componentHostname": COMPONENT, "componentKey": SECRET,
        "serverHostname": "127.0.0.1", "serverPort": server.component_port(), "group": server.name(),
    })
}

/// A user with a phone that is off, and somebody who writes to it.
struct Pair {
    name: String,
    writer: Client,
    written: usize,
}

impl Pair {
    fn new(server: &dyn Server, name: &str, token: &str) -> Self {
        let writer = format!("{name}-writer");
        for user in [name, &writer] {
            server.register(user, PASSWORD).unwrap();
        }
        let mut phone = server.login(name, PASSWORD).unwrap();
        phone.send_presence().unwrap();
        phone.enable_push(COMPONENT, token, Some("ios")).unwrap();
        phone.logout().unwrap();
        Self {
            name: name.to_owned(),
            writer: server.login(&writer, PASSWORD).unwrap(),
            written: 0,
        }
    }

    fn write(&mut self) {
        self.written += 1;
        let text = format!("message {}", self.written);
        let to = format!("{}@localhost", self.name);
        self.writer.send_message(&to, &text).unwrap();
    }
}

fn results(rig: &Rig, link: &str) -> f64 {
    let labels = [("link", link), ("type", "result")];
    let scrape = rig.monitoring.scrape();
    scrape.value("fpush_replies_total", &labels).unwrap_or_default()
}

/// ejabberd gives each publish to one of the connections of a name, at random.
#[test]
fn three_links_of_one_name_at_ejabberd_and_one_at_prosody_lose_nothing() {
    let ejabberd = Ejabberd::start(&[(COMPONENT, SECRET)], "").unwrap();
    let prosody = Prosody::start(&[(COMPONENT, SECRET)], "").unwrap();
    let names = ["a", "b", "c"];
    let mut links: Vec<_> = names.map(|name| link(name, &ejabberd)).into();
    links.push(link("prosody", &prosody));
    let mut rig = Rig::start(&links);
    ejabberd.wait_for_component(3, LONG).unwrap();
    prosody.wait_for_component(1, LONG).unwrap();
    rig.expect_lines(&[]);
    let mut pairs = [
        Pair::new(&ejabberd, "alice", &format!("{:064x}", 1)),
        Pair::new(&prosody, "carol", &format!("{:064x}", 2)),
    ];
    let mut sent = 0;
    let mut write = |rig: &Rig, messages: usize| {
        for _ in 0..messages {
            pairs.iter_mut().for_each(Pair::write);
            sent += 2;
            rig.apns.wait_for(sent, LONG);
        }
    };
    write(&rig, 30);
    // A push is there before its reply is counted.
    let each = |rig: &Rig| names.map(|name| results(rig, name));
    rig.expect("30 replies over three links", |rig| {
        each(rig).iter().sum::<f64>() == 30.0
    });
    assert!(
        each(&rig).iter().all(|results| *results > 0.0),
        "{:?}",
        each(&rig)
    );
    rig.expect("30 replies over one", |rig| results(rig, "prosody") == 30.0);

    // One goes and another one comes, and the others stay.
    links.remove(1);
    links.push(link("d", &ejabberd));
    rig.reload(&links);
    ejabberd.wait_for_component(4, LONG).unwrap();
    write(&rig, 10);
    rig.expect_metrics(&[
        "fpush_component_connects_total{link=\"a\"} == 1",
        "fpush_component_connects_total{link=\"prosody\"} == 1",
        "fpush_component_up{link=\"b\"} absent",
        "fpush_replies_total{type=\"dropped\"} absent",
    ]);
    assert_eq!(prosody.component_logins(), 1);
    assert!(!rig.daemon.log().contains("link down"), "{}", rig.daemon.log());
}

/// Nothing is said for two minutes: pings of one link come back over others, and none takes that for its end.
#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn quiet_links_of_one_name_stay() {
    let ejabberd = Ejabberd::start(&[(COMPONENT, SECRET)], "").unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let links = names.map(|name| link(name, &ejabberd));
    let rig = Rig::start(&links);
    ejabberd.wait_for_component(names.len(), LONG).unwrap();
    let end = Instant::now() + 150 * SECOND;
    while Instant::now() < end {
        thread::sleep(SECOND);
        assert!(!rig.daemon.log().contains("link down"), "{}", rig.daemon.log());
    }
    assert_eq!(ejabberd.component_logins(), names.len());
}

#[test]
fn ejabberd_is_spoken_to_over_tls() {
    let (ca, folder) = (TestCa::new(), TempDir::new());
    let certificate = ca.server_cert(&["xmpp.example"], None);
    let file = folder.write(
        "ejabberd.pem",
        [certificate.cert_pem, certificate.key_pem].concat(),
    );
    let ejabberd = Ejabberd::start_with_tls(&[(COMPONENT, SECRET)], &file).unwrap();
    let mut with_tls = link("tls", &ejabberd);
    let roots = folder.write("roots.pem", ca.pem());
    with_tls["tls"] = json!({ "caFilePath": roots, "serverName": "xmpp.example" });
    let mut rig = Rig::start(&[with_tls]);
    ejabberd.wait_for_component(1, LONG).unwrap();
    let mut alice = Pair::new(&ejabberd, "alice", &format!("{:064x}", 1));
    for count in 1..=5 {
        alice.write();
        rig.apns.wait_for(count, LONG);
    }
    until(LONG, "all replies are sent", || results(&rig, "tls") == 5.0);
    rig.daemon.terminate();
    assert!(rig.daemon.wait(LONG).success());
}
