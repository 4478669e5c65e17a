//! The component against a server: what its settings and registration change while it runs, and what a flood does to
//! others.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use fpush_component::{Component, Handle, LinkSettings, LinkStep};
use fpush_driver::{Drain, Liveness, Module, Modules, Senders};
use fpush_policy::ModuleSettings;
use fpush_push::{
    BackendStatus, Class, CommandError, Devices, Executing, Failure, Found, Lookup, Push, PushError,
    PushTrait, Scope, Sending, TokenHasher, Urgency, Verifying,
    settings::{Report, Section},
};
use fpush_testkit::{
    Command, FakeXmpp, LONG, Link,
    publish::{metronome_publish, prosody_publish},
};
use tokio::{sync::Semaphore, time::sleep};

const DOMAIN: &str = "push.localhost";
const SECRET: &str = "secret";
const SECOND: Duration = Duration::from_secs(1);

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

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

/// A component with one push module that has logged in, and its peers.
struct Rig {
    xmpp: FakeXmpp,
    link: Link,
    settings: LinkSettings,
    handle: Handle,
    drain: Drain,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(devices: Option<Arc<dyn Devices>>) -> Self {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let settings = LinkSettings {
            name: "link".to_owned(),
            hostname: DOMAIN.to_owned(),
            secret: SECRET.to_owned(),
            path: "component".to_owned(),
            secret_key: "componentKey",
            server_host: "127.0.0.1".to_owned(),
            server_port: xmpp.port(),
            tls: None,
            max_stanza_size: 10_000,
            group: None,
            scope: Arc::default(),
            push2: None,
            retry_after: SECOND,
        };
        let (drain, taken) = (Drain::default(), Arc::default());
        let provider = Provider {
            taken: Arc::clone(&taken),
        };
        let (report, empty) = (Report::default(), serde_json::Map::new());
        let senders = Senders::new(TokenHasher::new().unwrap());
        let module = Module::new(
            "phone",
            Box::new(provider),
            ModuleSettings::read(&mut Section::root(&empty, &report)),
            senders.clone(),
            drain.clone(),
        );
        let modules = Arc::new(Modules::new(vec![Arc::clone(&module)], Some(module)));
        let liveness = Arc::new(Liveness::new());
        let (component, handle) = Component::new(modules, devices, senders, drain.clone(), liveness);
        handle.set_links(&[], vec![(settings.clone(), LinkStep::Open)]);
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

    /// Returns when everything that was sent has been read.
    fn wait_until_read(&mut self) {
        self.link.send(format!(
            "<iq type='get' from='a.example' to='{DOMAIN}' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        assert_eq!(self.verdict("ping"), "result");
    }

    /// Another link takes the place of this one.
    fn replace(&mut self, change: impl FnOnce(&mut LinkSettings)) {
        let former = LinkStep::Replace(self.settings.name.clone());
        change(&mut self.settings);
        self.handle.set_links(&[], vec![(self.settings.clone(), former)]);
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
    rig.replace(|settings| settings.max_stanza_size = 20_000);
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
    rig.replace(|settings| settings.max_stanza_size = 20_000);
    assert!(rig.link.expect_end(LONG).stream_closed);
    let _still_open = std::mem::replace(&mut rig.link, rig.xmpp.accept(3 * SECOND));
    rig.publish("new");
    assert_eq!(rig.verdict("new"), "result");
}

#[test]
fn nothing_is_said_under_a_former_address() {
    let mut rig = Rig::start();
    let other = FakeXmpp::start("other.localhost", SECRET);
    rig.settings.hostname = "other.localhost".to_owned();
    rig.settings.server_port = other.port();
    let closed = rig.settings.name.clone();
    rig.settings.name = "other".to_owned();
    rig.handle
        .set_links(&[closed], vec![(rig.settings.clone(), LinkStep::Open)]);
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

/// A registry whose database answers when the test says so.
#[derive(Clone)]
struct Registry {
    /// Who asked it, in this order: look-ups by domain, commands by address.
    asked: Arc<Mutex<Vec<String>>>,
    /// Open for as long as the database does not answer.
    held: Arc<Semaphore>,
}

impl Registry {
    fn new() -> Self {
        Self {
            asked: Arc::default(),
            held: Arc::new(Semaphore::new(0)),
        }
    }

    fn ask(&self, who: &str) -> impl Future<Output = ()> + 'static {
        let (registry, who) = (self.clone(), who.to_owned());
        async move {
            registry.asked.lock().unwrap().push(who);
            assert!(registry.held.acquire().await.is_err());
        }
    }

    /// How many were asked for before the first one of this domain, which was.
    fn before(&self, domain: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().position(|who| who.ends_with(domain)).unwrap()
    }
}

impl Devices for Registry {
    fn find(&self, _node: &str, _secret: Option<&str>, sender: &str) -> Lookup {
        let asking = self.ask(sender);
        Lookup::Asking(Box::pin(async move {
            asking.await;
            Ok(Found::Ended)
        }))
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        vec![("register", "Register")]
    }

    fn features(&self, _scope: &Scope) -> Vec<String> {
        Vec::new()
    }

    fn execute(&self, command: fpush_push::Command) -> Result<Executing, CommandError> {
        let asking = self.ask(&command.sender);
        Ok(Box::pin(async move {
            asking.await;
            Err(CommandError::Forbidden)
        }))
    }
}

/// Sends what a flood and somebody else ask the registry for, and counts how much of the flood comes first. What is asked
/// of it has an id that begins with the sender's domain.
fn flood(rig: &mut Rig, registry: &Registry, request: impl Fn(&str, &str) -> String) -> usize {
    const FLOOD: usize = 3_000;
    let domains = (0..FLOOD).map(|number| format!("n{number}.evil.org"));
    let text: String = domains.map(|domain| request(&domain, &domain)).collect();
    rig.link.send(text);
    rig.wait_until_read();
    rig.link.send(request("good.org", "good.org"));
    rig.wait_until_read();
    registry.held.close();
    let verdict = rig.verdict("good.org");
    assert!(
        ["cancel/item-not-found", "auth/forbidden"].contains(&&*verdict),
        "{verdict}"
    );
    // Each has one reply, also those that found no place.
    for number in 0..FLOOD {
        rig.verdict(&format!("n{number}.evil.org"));
    }
    registry.before("good.org")
}

#[test]
fn a_flood_of_lookups_under_many_names_delays_only_its_own_domain() {
    let registry = Registry::new();
    let mut rig = Rig::with(Some(Arc::new(registry.clone())));
    let before = flood(&mut rig, &registry, |id, domain| {
        metronome_publish(id, "node", Some("secret"))
            .from(domain)
            .to_string()
    });
    // Those that were under way when it came, and one whose turn is before it.
    assert!(before <= 33, "{before}");
}

#[test]
fn a_flood_of_commands_under_many_names_delays_only_its_own_domain() {
    let registry = Registry::new();
    let mut rig = Rig::with(Some(Arc::new(registry.clone())));
    let before = flood(&mut rig, &registry, |id, domain| {
        Command::new(id, "register", &[("node", "n")])
            .from(&format!("user@{domain}/phone"))
            .to_string()
    });
    assert!(before <= 65, "{before}");
}
