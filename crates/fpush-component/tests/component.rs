//! The component against a server: what its settings and registration change while it runs.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use fpush_component::{Component, ComponentSettings, Handle};
use fpush_push::{
    BackendStatus, Class, Drain, Failure, Liveness, Module, ModuleSettings, Modules, Push, PushError,
    PushTrait, Sending, TokenHasher, Urgency, Verifying,
    settings::{Report, Section},
};
use fpush_testkit::{
    FakeXmpp, Link,
    publish::{metronome_publish, prosody_publish},
};
use tokio::time::{Instant, sleep};

const DOMAIN: &str = "push.localhost";
const SECRET: &str = "secret";
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

/// Takes every push, in 3 s if the token is slow; says of unknown tokens that they are none, and of dead ones that they are
/// dead.
struct Provider {
    taken: Arc<Mutex<Vec<String>>>,
}

impl PushTrait for Provider {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        Some(token.into())
    }

    fn class(&self, _urgency: Urgency) -> Class {
        Class::High
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async {
            let token = push.token.as_str();
            if token.starts_with("slow") {
                sleep(3 * SECOND).await;
            }
            if token.starts_with("unknown") {
                return Err(Failure::new(PushError::TokenDoubted, "unknown", "", ""));
            }
            if token.starts_with("dead") {
                let gone = PushError::TokenGone { since: None };
                return Err(Failure::new(gone, "dead", "", ""));
            }
            self.taken.lock().unwrap().push(token.to_owned());
            Ok(())
        })
    }

    fn verify(&self, _deadline: Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

/// A component with one push module that has logged in, and whoever it talks to.
struct Rig {
    xmpp: FakeXmpp,
    link: Link,
    settings: ComponentSettings,
    handle: Handle,
    drain: Drain,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn start() -> Self {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let settings = ComponentSettings {
            hostname: DOMAIN.to_owned(),
            secret: SECRET.to_owned(),
            secret_key: "componentKey",
            server_host: "127.0.0.1".to_owned(),
            server_port: xmpp.port(),
            max_stanza_size: 10_000,
            retry_after: SECOND,
        };
        let (drain, taken) = (Drain::default(), Arc::default());
        let provider = Provider {
            taken: Arc::clone(&taken),
        };
        let (report, empty) = (Report::default(), serde_json::Map::new());
        let module = Module::new(
            "phone",
            Box::new(provider),
            ModuleSettings::read(&mut Section::root(&empty, &report)),
            TokenHasher::new().unwrap(),
            drain.clone(),
        );
        let modules = Arc::new(Modules::new(vec![Arc::clone(&module)], Some(module)));
        let probe = Liveness::new().probe("reader");
        let (component, handle) = Component::new(settings.clone(), modules, None, drain.clone(), probe);
        thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(component.run());
        });
        let link = xmpp.accept(LONG);
        Self {
            xmpp,
            link,
            settings,
            handle,
            drain,
            taken,
        }
    }

    fn publish(&self, token: &str) {
        self.link.send(prosody_publish(token, token, None, true));
    }

    fn verdict(&mut self, id: &str) -> String {
        self.link.reply_to(id, LONG).verdict()
    }

    fn change(&mut self, change: impl FnOnce(&mut ComponentSettings)) {
        change(&mut self.settings);
        self.handle.set_settings(self.settings.clone());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

#[test]
fn what_the_server_sends_before_it_sees_the_end_is_answered_on_the_next_link() {
    let mut rig = Rig::start();
    let late = prosody_publish("late", "late", None, true).to_string();
    let (first, second) = late.split_at(late.len() / 2);
    // Half of it is there already when the link is about to be closed.
    rig.link.send(format!(
        "{}{first}",
        prosody_publish("early", "early", None, true)
    ));
    assert_eq!(rig.verdict("early"), "result");
    rig.change(|settings| settings.max_stanza_size = 20_000);
    assert!(rig.link.expect_end(LONG).stream_closed);
    rig.link.send(second);
    rig.link.close();
    rig.link = rig.xmpp.accept(LONG);
    assert_eq!(rig.verdict("late"), "result");
    assert_eq!(*rig.taken.lock().unwrap(), ["early", "late"]);
}

#[test]
fn a_server_that_does_not_close_its_side_is_left() {
    let mut rig = Rig::start();
    rig.change(|settings| settings.max_stanza_size = 20_000);
    assert!(rig.link.expect_end(LONG).stream_closed);
    let _still_open = std::mem::replace(&mut rig.link, rig.xmpp.accept(3 * SECOND));
    rig.publish("new");
    assert_eq!(rig.verdict("new"), "result");
}

#[test]
fn nothing_is_said_under_a_former_address() {
    let mut rig = Rig::start();
    let other = FakeXmpp::start("other.localhost", SECRET);
    rig.change(|settings| {
        settings.hostname = "other.localhost".to_owned();
        settings.server_port = other.port();
    });
    assert!(rig.link.expect_end(LONG).stream_closed);
    rig.publish("late");
    rig.publish("slow");
    rig.link.close();
    rig.link = other.accept(LONG);
    rig.link.expect_silence(4 * SECOND);
    assert_eq!(
        *rig.taken.lock().unwrap(),
        ["late", "slow"],
        "they are pushed all the same"
    );
    rig.publish("new");
    assert_eq!(rig.verdict("new"), "result");
}

#[test]
fn no_server_forgets_a_registered_device_because_there_is_no_registry() {
    let mut rig = Rig::start();
    // So many that the provider is believed.
    for token in (0..30).map(|number| format!("token-{number}")) {
        rig.link
            .send(metronome_publish(&token, &token, Some("of a device")));
        assert_eq!(rig.verdict(&token), "result", "it may be a token");
    }
    rig.link
        .send(metronome_publish("1", "unknown device", Some("of a device")));
    assert_eq!(rig.verdict("1"), "wait/remote-server-timeout");
    let node = format!("tigase-{}", "ab".repeat(32));
    rig.publish(&node);
    assert_eq!(
        rig.verdict(&node),
        "wait/internal-server-error",
        "no provider is asked"
    );
    rig.publish("dead token");
    assert_eq!(rig.verdict("dead token"), "cancel/item-not-found");
}
