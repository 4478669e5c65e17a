//! The real program between a real Prosody or ejabberd with real clients and stand-ins for Apple and Google: what a
//! publish of these servers comes to, and what our reply does to a registration there.
//!
//! Every test starts a server of its own. `cargo xtask test` installs both; without them the tests fail and say what
//! to install.

#![cfg(any(
    feature = "enable_apns_support",
    feature = "enable_fcm_support",
    feature = "enable_demo_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, ApnsKey, Daemon, FakeApns, FakeFcm, LONG, NewConnections, TestCa,
    daemon::Builder,
    fcm_error,
    publish::push_module,
    servers::{Client, Kind, Seen, Server, Tap, attribute},
};
use serde_json::{Map, Value, json};

macro_rules! on_both_servers {
    ($($(#[$when:meta])* $name:ident,)*) => {
        mod prosody {
            $($(#[$when])* #[test]
            fn $name() {
                super::$name(super::Kind::Prosody);
            })*
        }
        mod ejabberd {
            $($(#[$when])* #[test]
            fn $name() {
                super::$name(super::Kind::Ejabberd);
            })*
        }
    };
}

on_both_servers! {
    a_message_becomes_a_push_of_each_module,
    a_dead_token_is_unregistered_and_a_living_one_is_not,
    #[cfg(feature = "enable_fcm_support")]
    an_installation_id_gets_its_push,
    #[cfg(feature = "enable_fcm_support")]
    an_incident_at_google_costs_no_registration,
    #[cfg(feature = "enable_fcm_support")]
    an_incident_in_a_calm_hour_costs_ten_registrations,
    after_a_restart_of_the_server_pushes_go_on,
    a_second_message_is_acknowledged_at_once_and_delivered_later,
    nothing_that_a_user_sends_ends_the_link,
    what_a_server_makes_longer_ends_no_link,
    who_cannot_log_in_is_told_what_to_change,
    sigterm_sends_what_is_queued_and_ends_the_stream,
}

fn a_message_becomes_a_push_of_each_module(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": true }));
    for module in Type::enabled() {
        stage.register(module.name(), &module.token(1), module.name());
    }
    for module in Type::enabled() {
        let token = module.token(1);
        let count = stage.sent(module, &token);
        stage.write_to(module.name());
        let (_, reply) = stage.exchange(&token, 1);
        assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
        stage.expect_sent(module, &token, count + 1);
        stage.expect_in_log(&Effect::Accepted(&reply), module.name(), &token, 1);
    }
    assert_eq!(stage.server.component_logins(), 1);
}

/// ejabberd unregisters it at once. Prosody counts to 16 first, and counts nothing else.
fn a_dead_token_is_unregistered_and_a_living_one_is_not(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    for module in Type::enabled() {
        let (dead, living) = (module.dead_token(), module.token(1));
        let (mortal, survivor) = (
            format!("mortal-{}", module.name()),
            format!("survivor-{}", module.name()),
        );
        stage.providers.bury(&dead);
        stage.register(&mortal, &dead, module.name());
        stage.register(&survivor, &living, module.name());
        stage.earn_trust(module);
        let asked = stage.sent(module, &dead);

        stage.write_to(&mortal);
        let (_, reply) = stage.exchange(&dead, 1);
        assert!(reply.xml.contains("type='cancel'"), "{reply:?}");
        stage.expect_in_log(&Effect::Dead, &mortal, &dead, 1);
        stage.expect_sent(module, &dead, asked + 1);

        stage.write_to(&mortal);
        if kind == Kind::Prosody {
            stage.exchange(&dead, 2);
            stage.expect_in_log(&Effect::Dead, &mortal, &dead, 2);
        }
        for count in 1..=2 {
            stage.write_to(&survivor);
            let (_, reply) = stage.exchange(&living, count);
            stage.expect_in_log(&Effect::Accepted(&reply), &survivor, &living, count);
        }
        // The server handles messages in their order, so a publish for the second one would have come by now.
        let publishes = stage.exchanges(&dead).len();
        assert_eq!(publishes, if kind == Kind::Prosody { 2 } else { 1 });
        if module != Type::Demo {
            assert_eq!(stage.sent(module, &dead), 1, "the provider is not asked again");
        }
    }
}

/// A device that has a Firebase installation ID and no token.
#[cfg(feature = "enable_fcm_support")]
fn an_installation_id_gets_its_push(kind: Kind) {
    let fid = "dCXr7fTpTm2yXGVYTXJb6r";
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    stage.register("alice", fid, "google");
    for count in 1..=2 {
        stage.write_to("alice");
        let (_, reply) = stage.exchange(fid, count);
        stage.expect_in_log(&Effect::Accepted(&reply), "alice", fid, count);
        let send = &stage.providers.fcm.wait_for(count, LONG)[count - 1];
        assert_eq!((send.fid(), send.token()), (fid, ""));
    }
}

/// Google has a bad hour, in which it calls every device dead, or not its own, or malformed: the server keeps the
/// registration, and publishes again.
#[cfg(feature = "enable_fcm_support")]
fn an_incident_at_google_costs_no_registration(kind: Kind) {
    let violation = fpush_testkit::fake_fcm::bad_request("message.fid", "Invalid FID");
    let incidents = [
        ("gone", fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[])),
        (
            "foreign",
            fcm_error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), &[]),
        ),
        (
            "malformed",
            fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[violation]),
        ),
        ("lost", fcm_error(404, "NOT_FOUND", None, &[])),
        ("replaced", Answer::raw(410, "<html>")),
    ];
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    let fid = |number: usize| format!("dCXr7fTpTm2yXGVYTXJb{number:02}");
    for (number, (user, _)) in incidents.iter().enumerate() {
        stage.register(user, &fid(number), "google");
        stage.write_to(user);
        let (_, reply) = stage.exchange(&fid(number), 1);
        stage.expect_in_log(&Effect::Accepted(&reply), user, &fid(number), 1);
    }
    for (number, (user, answer)) in incidents.clone().into_iter().enumerate() {
        stage.providers.fcm.answer_with(move |_| answer.clone());
        for count in 1..=2 {
            stage.write_to(user);
            let (_, reply) = stage.exchange(&fid(number), 1 + count);
            assert!(reply.xml.contains("type='wait'"), "{user}: {reply:?}");
            let effect = Effect::Kept("remote-server-timeout");
            stage.expect_in_log(&effect, user, &fid(number), count);
        }
    }
    stage.providers.recover();
    for (number, (user, _)) in incidents.iter().enumerate() {
        stage.write_to(user);
        stage.exchange(&fid(number), 4);
    }
}

/// The same where Google was well just before, so that its first words are believed: ten devices at most are forgotten, and
/// the server goes on publishing for all others.
#[cfg(feature = "enable_fcm_support")]
fn an_incident_in_a_calm_hour_costs_ten_registrations(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    let device = |number: usize| {
        (
            format!("user{number}"),
            format!("dCXr7fTpTm2yXGVYTXJc{number:02}"),
        )
    };
    let devices = (0..24).map(device).collect::<Vec<_>>();
    for (user, fid) in &devices {
        stage.register(user, fid, "google");
        stage.write_to(user);
        stage.exchange(fid, 1);
    }
    let gone = fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]);
    stage.providers.fcm.answer_with(move |_| gone.clone());
    let mut kept = Vec::new();
    for (user, fid) in &devices {
        stage.write_to(user);
        let (_, reply) = stage.exchange(fid, 2);
        if reply.xml.contains("type='wait'") {
            kept.push((user, fid));
        }
    }
    assert!(kept.len() < devices.len(), "the lane was calm");
    assert!(kept.len() + 10 >= devices.len(), "{} kept", kept.len());
    stage.providers.recover();
    for (user, fid) in kept {
        stage.write_to(user);
        stage.exchange(fid, 3);
    }
}

/// On both servers at the same time, because a reply may take 25 s while a provider cannot be reached.
#[test]
fn an_outage_and_a_wrong_setting_cost_no_registration() {
    thread::scope(|scope| {
        for kind in [Kind::Prosody, Kind::Ejabberd] {
            scope.spawn(move || nothing_is_unregistered_for_our_faults(kind));
        }
    });
}

fn nothing_is_unregistered_for_our_faults(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": true }));
    let with_provider = || Type::enabled().filter(|module| *module != Type::Demo);
    stage.register("nobody", "left-out", "no-such-module");
    for module in with_provider() {
        stage.register(module.name(), &module.token(1), module.name());
    }

    for count in 1..=2 {
        stage.write_to("nobody");
        stage.exchange("left-out", count);
        let effect = Effect::Kept("internal-server-error");
        stage.expect_in_log(&effect, "nobody", "left-out", count);
    }

    // First it answers that it is overloaded, then it cannot even be connected to.
    stage.providers.overload();
    for count in 1..=2 {
        for module in with_provider() {
            stage.write_to(module.name());
        }
        for module in with_provider() {
            let token = module.token(1);
            stage.exchange(&token, count);
            let effect = Effect::Kept("remote-server-timeout");
            stage.expect_in_log(&effect, module.name(), &token, count);
        }
        stage.providers.refuse_connections();
    }
    assert!(
        !stage
            .server
            .log()
            .contains("error count for this identifier is now at"),
        "Prosody counts"
    );

    stage.providers.recover();
    for module in with_provider() {
        let token = module.token(1);
        let count = stage.sent(module, &token);
        stage.write_to(module.name());
        let (_, reply) = stage.exchange(&token, 3);
        stage.expect_in_log(&Effect::Accepted(&reply), module.name(), &token, 1);
        assert_eq!(stage.sent(module, &token), count + 1);
    }
}

fn after_a_restart_of_the_server_pushes_go_on(kind: Kind) {
    let mut stage = Stage::start_directly(kind, &json!({ "enabled": false }));
    let module = Type::any();
    let token = module.token(1);
    stage.register("alice", &token, module.name());
    stage.write_to("alice");
    until("the first push", || {
        (stage.sent(module, &token) == 1).then_some(())
    });

    stage.server.restart().unwrap();
    stage.server.wait_for_component(2, LONG).unwrap();
    stage.daemon.wait_for_nth_log("link up", 2, LONG);
    stage.bob = stage.server.login("bob", PASSWORD).unwrap();
    stage.write_to("alice");
    until("the push after the restart", || {
        (stage.sent(module, &token) == 2).then_some(())
    });
}

fn a_second_message_is_acknowledged_at_once_and_delivered_later(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "ratelimitTime": "5s" }));
    let module = Type::any();
    let token = module.token(1);
    stage.register("alice", &token, module.name());
    stage.write_to("alice");
    stage.write_to("alice");
    let (first, _) = stage.exchange(&token, 1);
    let (second, reply) = stage.exchange(&token, 2);
    let sent = stage.sent(module, &token);
    assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
    assert!(reply.at - second.at < Duration::from_secs(1));
    assert_eq!(sent, 1);
    stage.expect_in_log(&Effect::Accepted(&reply), "alice", &token, 2);

    until("the second push", || {
        (stage.sent(module, &token) == 2).then_some(())
    });
    let waited = first.at.elapsed();
    assert!(
        waited >= Duration::from_millis(4_900) && waited < Duration::from_secs(13),
        "{waited:?}"
    );
}

fn nothing_that_a_user_sends_ends_the_link(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    let module = Type::any();
    let token = module.token(1);
    stage.register("alice", &token, module.name());

    let (long_id, longer_id) = ("x".repeat(8_000), "x".repeat(9_000));
    let large_body = "x".repeat(100_000);
    let deep = format!("{}{}", "<a>".repeat(3_000), "</a>".repeat(3_000));
    // What is sent, and how the answer begins to differ from others; empty if there must be none.
    let nasty = [
        (
            format!("<iq type='get' id='{long_id}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "type='result'",
        ),
        (
            format!("<iq type='get' id='{longer_id}' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "",
        ),
        (
            format!("<iq type='get' id='unknown' to='{COMPONENT}'><query xmlns='urn:example:unknown'/></iq>"),
            "service-unavailable",
        ),
        (
            format!("<iq type='set' id='deep' to='{COMPONENT}'><q xmlns='urn:example:deep'>{deep}</q></iq>"),
            "service-unavailable",
        ),
        (
            format!(
                "<iq type='set' id='broad' to='{COMPONENT}'><q xmlns='urn:example:broad'>{}</q></iq>",
                "<a/>".repeat(3_000)
            ),
            "service-unavailable",
        ),
        (
            format!("<message id='large' to='{COMPONENT}' type='chat'><body>{large_body}</body></message>"),
            "",
        ),
        (format!("<iq type='result' id='unasked' to='{COMPONENT}'/>"), ""),
        (
            format!("<presence id='subscribe' to='{COMPONENT}' type='subscribe'/>"),
            "",
        ),
    ];
    stage.server.register("mallory", PASSWORD).unwrap();
    for (count, (stanza, answer)) in (1..).zip(nasty) {
        let mut mallory = stage.server.login("mallory", PASSWORD).unwrap();
        mallory.send_raw(&stanza).unwrap();
        let id = attribute(&stanza, "id").unwrap();
        // A server may end the client's stream instead of passing such a thing on.
        let patience = if id == "deep" {
            Duration::from_secs(3)
        } else {
            LONG
        };
        let passed = until_some(patience, || {
            let seen = stage.tap.seen();
            seen.iter()
                .any(|seen| seen.from_server && seen.attribute("id") == Some(id))
                .then_some(())
        });
        if passed.is_some() && !answer.is_empty() {
            let reply = mallory
                .next_matching(|stanza| stanza.contains(id), LONG)
                .unwrap_or_else(|e| panic!("no answer to {id:.20}: {e}"));
            assert!(
                reply.contains(answer) || reply.contains(&answer.replace('\'', "\"")),
                "{reply:.300}"
            );
        }
        assert!(passed.is_some() || id == "deep", "{id:.20} does not reach us");

        stage.write_to("alice");
        stage.exchange(&token, count);
        stage.expect_sent(module, &token, count);
    }
    assert_eq!(stage.server.component_logins(), 1);
    assert!(!stage.daemon.log().contains("link down"));
}

/// Prosody writes each quote as `&apos;`: six times what the user sent, and twice what it takes from a component itself.
/// What is repeated of that ends the stream.
fn what_a_server_makes_longer_ends_no_link(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "enabled": false }));
    let module = Type::any();
    let token = module.token(1);
    stage.register("alice", &token, module.name());
    stage.server.register("mallory", PASSWORD).unwrap();
    let (quotes, brackets) = ("'".repeat(95_000), ">".repeat(200_000));
    let mut count = 0;
    for round in 1..=2 {
        let id = format!("round-{round}-");
        for stanza in [
            format!(
                "<iq type='get' to='{COMPONENT}' id=\"{id}ping-{quotes}\"><ping xmlns='urn:xmpp:ping'/></iq>"
            ),
            format!(
                "<iq type='set' to='{COMPONENT}' id=\"{id}publish-{quotes}\"><pubsub \
                 xmlns='http://jabber.org/protocol/pubsub'><publish node='t'/></pubsub></iq>"
            ),
            format!("<presence type='subscribe' to='{COMPONENT}' id=\"{id}presence-{quotes}\"/>"),
            format!(
                "<iq type='set' to='{COMPONENT}' id='{id}command'><command node='v1-register-push' \
                 action='cancel' xmlns='http://jabber.org/protocol/commands' sessionid='{brackets}'/></iq>"
            ),
            format!(
                "<iq type='get' to='{COMPONENT}' id='{id}node'><query \
                 xmlns='http://jabber.org/protocol/disco#info' node=\"{quotes}\"/></iq>"
            ),
            format!(
                "<iq type='set' to='{COMPONENT}' id=\"{id}test-{quotes}\"><command node='test-push' \
                 xmlns='http://jabber.org/protocol/commands'/></iq>"
            ),
            format!(
                "<iq type='set' to='{COMPONENT}' id='{id}test'><command node='test-push' \
                 xmlns='http://jabber.org/protocol/commands'><x xmlns='jabber:x:data' type='submit'>\
                 <field var='pushModule'><value>{brackets}</value></field><field var='token'><value>t</value></field>\
                 </x></command></iq>"
            ),
            format!(
                "<iq type='set' to='{COMPONENT}' id='{id}status'><command node='push-status' \
                 xmlns='http://jabber.org/protocol/commands' sessionid=\"{quotes}\"/></iq>"
            ),
            format!(
                "<message to='{COMPONENT}' id=\"{id}push2-{quotes}\"><notification xmlns='urn:xmpp:push2:0'>\
                 <client>nonsense</client><priority>normal</priority></notification></message>"
            ),
            format!(
                "<message to='{COMPONENT}' id='{id}push2'><notification xmlns='urn:xmpp:push2:0'>\
                 <client>{brackets}</client><priority>normal</priority></notification></message>"
            ),
        ] {
            let mut mallory = stage.server.login("mallory", PASSWORD).unwrap();
            let seen = stage.tap.seen().len();
            mallory.send_raw(&stanza).unwrap();
            until_some(LONG, || {
                let all = stage.tap.seen();
                let mut new = all.iter().skip(seen);
                new.any(|seen| seen.from_server && seen.xml.contains(&id))
                    .then_some(())
            })
            .unwrap_or_else(|| panic!("{stanza:.80} does not reach us"));
            count += 1;
            stage.write_to("alice");
            stage.exchange(&token, count);
            stage.expect_sent(module, &token, count);
        }
    }
    assert_eq!(stage.server.component_logins(), 1);
    assert!(!stage.daemon.log().contains("link down"));
}

fn who_cannot_log_in_is_told_what_to_change(kind: Kind) {
    let mut server = kind.start(&[(COMPONENT, SECRET)]);
    let started = |name: &str, secret: &str, port: u16| {
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"));
        let modules = Providers::start().settings(&builder, &json!({}));
        builder.settings(&settings(name, secret, port, &modules)).start()
    };
    let port = server.component_port();

    let wrong_secret = started(COMPONENT, "wrong", port);
    let line = wrong_secret.wait_for_log("no link", LONG);
    for part in [
        "not-authorized",
        "component_secret of Component \"push.localhost\"",
        "the password of push.localhost in hosts of the listener with module: ejabberd_service",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let failed = match kind {
        Kind::Prosody => "Component authentication failed for push.localhost",
        Kind::Ejabberd => "Failed external component handshake authentication",
    };
    server.wait_for_log(failed, LONG).unwrap();

    let unknown = started("other.localhost", SECRET, port);
    let line = unknown.wait_for_log("no link", LONG);
    let (condition, advice) = match kind {
        Kind::Prosody => (
            "host-unknown",
            "Component \"other.localhost\" with component_secret",
        ),
        // It does not tell an unknown name from a wrong secret.
        Kind::Ejabberd => ("not-authorized", "which must name other.localhost"),
    };
    assert!(line.contains(condition) && line.contains(advice), "{line}");

    let _first = started(COMPONENT, SECRET, port);
    server.wait_for_component(1, LONG).unwrap();
    let second = started(COMPONENT, SECRET, port);
    match kind {
        Kind::Prosody => {
            let line = second.wait_for_log("no link", LONG);
            let advice =
                line.contains("conflict") && line.contains("component_conflict_resolve = \"kick_old\"");
            assert!(advice, "{line}");
        }
        Kind::Ejabberd => {
            second.wait_for_log("link up", LONG);
        }
    }
    assert_eq!(wrong_secret.log().matches("link up").count(), 0);

    server.stop();
    let refused = started(COMPONENT, SECRET, port);
    let line = refused.wait_for_log("no link", LONG);
    for part in [
        "refused",
        &format!("component_ports = {{ {port} }}"),
        "ejabberd_service",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

fn sigterm_sends_what_is_queued_and_ends_the_stream(kind: Kind) {
    let mut stage = Stage::start(kind, &json!({ "ratelimitTime": "10min" }));
    let module = Type::any();
    let token = module.token(1);
    stage.register("alice", &token, module.name());
    for _ in 1..=3 {
        stage.write_to("alice");
    }
    for number in 1..=3 {
        stage.exchange(&token, number);
    }
    // Acknowledged is the second one; the third would be one too many, which costs no registration either.
    stage.expect_in_log(&Effect::Kept("service-unavailable"), "alice", &token, 1);
    stage.expect_sent(module, &token, 1);

    stage.daemon.terminate();
    let status = stage.daemon.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}\n{}", stage.daemon.log());
    assert_eq!(stage.sent(module, &token), 2, "what was held is sent");
    let log = stage.daemon.log();
    assert!(
        log.contains("link closed") && log.contains("undelivered=0"),
        "{log}"
    );
    stage.expect_clean_end();
}

/// A type of push module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Apple,
    Google,
    Demo,
}

impl Type {
    /// Those that this build has.
    fn enabled() -> impl Iterator<Item = Self> {
        [
            (Self::Apple, cfg!(feature = "enable_apns_support")),
            (Self::Google, cfg!(feature = "enable_fcm_support")),
            (Self::Demo, cfg!(feature = "enable_demo_support")),
        ]
        .into_iter()
        .filter_map(|(module, enabled)| enabled.then_some(module))
    }

    fn any() -> Self {
        Self::enabled().next().unwrap()
    }

    /// Its `type` in the settings; here also the name of the module.
    fn name(self) -> &'static str {
        match self {
            Self::Apple => "apple",
            Self::Google => "google",
            Self::Demo => "demo",
        }
    }

    /// The token of a device, as its provider makes them.
    fn token(self, number: u32) -> String {
        match self {
            Self::Apple => format!("{number:064x}"),
            Self::Google => format!("{number:022}:APA91b{}", "0".repeat(134)),
            Self::Demo => format!("alive-{number}"),
        }
    }

    fn dead_token(self) -> String {
        match self {
            Self::Apple | Self::Google => self.token(0xdead),
            Self::Demo => "dead-1".to_owned(),
        }
    }
}

/// The stand-ins for all types, also for those that this build leaves out.
struct Providers {
    ca: TestCa,
    apns: FakeApns,
    fcm: FakeFcm,
}

impl Providers {
    fn start() -> Self {
        let ca = TestCa::new();
        Self {
            apns: FakeApns::start(&ca),
            fcm: FakeFcm::start(&ca),
            ca,
        }
    }

    /// A module of each type that this build has, under the name of its type.
    fn settings(&self, builder: &Builder, ratelimit: &Value) -> Value {
        let write = |name: &str, content: &str| {
            let path = builder.dir().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let ca_file = write("ca.pem", &self.ca.pem());
        let modules = Type::enabled().map(|module| {
            let mut settings = json!({ "type": module.name(), "ratelimit": ratelimit });
            match module {
                Type::Apple => {
                    settings["apns"] = json!({
                        "tokenKeyFilePath": write("apns.p8", &ApnsKey::generate().p8()),
                        "keyId": "ABCDE12345",
                        "teamId": "TEAM123456",
                        "topic": "org.example.app",
                        "endpoint": self.apns.url(),
                        "caFilePath": ca_file,
                    });
                }
                Type::Google => {
                    settings["fcm"] = json!({
                        "fcmSecretPath": write("fcm.json", &self.fcm.service_account("example-app")),
                        "endpoint": self.fcm.url(),
                        "caFilePath": ca_file,
                    });
                }
                Type::Demo => {}
            }
            (module.name().to_owned(), settings)
        });
        modules.collect::<Map<_, _>>().into()
    }

    /// Answers from now on that this token is dead.
    fn bury(&self, dead: &str) {
        let dead = dead.to_owned();
        self.apns.answer_with({
            let dead = dead.clone();
            move |request| {
                if request.token == dead {
                    Answer::json(410, &json!({ "reason": "Unregistered" }))
                } else {
                    Answer::Normal
                }
            }
        });
        self.fcm.answer_with(move |send| {
            if send.token() == dead {
                fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[])
            } else {
                Answer::Normal
            }
        });
    }

    /// Wants from now on to be left alone for longer than a reply may take.
    fn overload(&self) {
        self.apns.answer_with(|_| {
            Answer::json(503, &json!({ "reason": "ServiceUnavailable" })).header("retry-after", "3600")
        });
        self.fcm.answer_with(|_| {
            fcm_error(503, "UNAVAILABLE", Some("UNAVAILABLE"), &[]).header("retry-after", "3600")
        });
    }

    fn refuse_connections(&self) {
        self.apns.new_connections(NewConnections::Reset);
        self.fcm.new_connections(NewConnections::Reset);
        self.apns.reset_existing_connections();
        self.fcm.reset_existing_connections();
    }

    fn recover(&self) {
        self.apns.answer_normally();
        self.fcm.answer_normally();
        self.apns.new_connections(NewConnections::Serve);
        self.fcm.new_connections(NewConnections::Serve);
    }
}

/// What the reply to a publish does at the server.
enum Effect<'a> {
    Accepted(&'a Seen),
    Dead,
    /// An error of type `wait` with this condition, which leaves the registration alone.
    Kept(&'static str),
}

/// Everything that a test needs. The fields end in this order.
struct Stage {
    kind: Kind,
    daemon: Daemon,
    tap: Tap,
    bob: Client,
    server: Box<dyn Server>,
    providers: Providers,
}

impl Stage {
    /// With a relay between the server and fpush that sees every stanza.
    fn start(kind: Kind, ratelimit: &Value) -> Self {
        Self::start_at(kind, ratelimit, |_, tap| tap.port())
    }

    /// Without the relay, which would hide that the server is gone.
    fn start_directly(kind: Kind, ratelimit: &Value) -> Self {
        Self::start_at(kind, ratelimit, |server, _| server.component_port())
    }

    fn start_at(kind: Kind, ratelimit: &Value, port: fn(&dyn Server, &Tap) -> u16) -> Self {
        let server = kind.start(&[(COMPONENT, SECRET)]);
        let providers = Providers::start();
        let tap = Tap::start(server.component_port()).unwrap();
        let port = port(server.as_ref(), &tap);
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush")).rust_log("info,fpush_driver=debug");
        let modules = providers.settings(&builder, ratelimit);
        let daemon = builder
            .settings(&settings(COMPONENT, SECRET, port, &modules))
            .start();
        server
            .wait_for_component(1, LONG)
            .unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
        server.register("bob", PASSWORD).unwrap();
        let bob = server.login("bob", PASSWORD).unwrap();
        Self {
            kind,
            daemon,
            tap,
            bob,
            server,
            providers,
        }
    }

    /// Makes a user who turns push on and goes offline.
    fn register(&self, user: &str, token: &str, module: &str) {
        self.server.register(user, PASSWORD).unwrap();
        let mut client = self.server.login(user, PASSWORD).unwrap();
        client.send_presence().unwrap();
        client.enable_push(COMPONENT, token, Some(module)).unwrap();
        client.logout().unwrap();
    }

    /// A provider that calls a token dead is believed when it has accepted pushes for others. A user may publish as well
    /// as a server.
    fn earn_trust(&mut self, module: Type) {
        let numbers = 800..810;
        let sent = self.sent(module, &module.token(numbers.start));
        for number in numbers.clone() {
            let token = module.token(number);
            let options = push_module(Some(module.name()));
            self.bob
                .send_raw(&format!(
                    "<iq type='set' to='{COMPONENT}' id='{}-{number}'>\
                     <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{token}'>\
                     <item><notification xmlns='urn:xmpp:push:0'/></item></publish>{options}</pubsub></iq>",
                    module.name()
                ))
                .unwrap();
            let (_, reply) = self.exchange(&token, 1);
            assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
        }
        if module == Type::Demo {
            self.expect_sent(module, &module.token(numbers.start), sent + numbers.len());
        }
    }

    fn write_to(&mut self, user: &str) {
        self.bob
            .send_message(&format!("{user}@localhost"), "Are you there?")
            .unwrap();
    }

    /// The publishes for a token, with the replies that went by.
    fn exchanges(&self, token: &str) -> Vec<(Seen, Option<Seen>)> {
        let seen = self.tap.seen();
        let publishes = seen
            .iter()
            .filter(|stanza| stanza.from_server && stanza.xml.contains(token));
        let exchanges = publishes.map(|publish| {
            let id = publish.attribute("id");
            let reply = seen
                .iter()
                .find(|stanza| !stanza.from_server && stanza.attribute("id") == id);
            (publish.clone(), reply.cloned())
        });
        exchanges.collect()
    }

    /// Waits for the publish with this number for a token and for its reply.
    #[track_caller]
    fn exchange(&self, token: &str, number: usize) -> (Seen, Seen) {
        let found = until_some(LONG, || {
            let (publish, reply) = self.exchanges(token).into_iter().nth(number - 1)?;
            Some((publish, reply?))
        });
        found.unwrap_or_else(|| {
            panic!(
                "no reply {number} for {token}; exchanges {:#?}\nthe log:\n{}",
                self.exchanges(token),
                self.daemon.log()
            )
        })
    }

    /// How often a token went to its provider; for the demo module, which has none, how many pushes it got.
    fn sent(&self, module: Type, token: &str) -> usize {
        match module {
            Type::Apple => {
                let requests = self.providers.apns.requests();
                requests.iter().filter(|request| request.token == token).count()
            }
            Type::Google => {
                let sends = self.providers.fcm.sends();
                sends.iter().filter(|send| send.target() == token).count()
            }
            Type::Demo => {
                let log = self.daemon.log();
                let pushes = log.lines().filter(|line| line.contains("module=demo"));
                pushes
                    .filter(|line| line.contains("push accepted") || line.contains("push failed"))
                    .count()
            }
        }
    }

    /// Expects that a token went to its provider so often. What the demo module did is in the log, which may be read later than a
    /// reply.
    #[track_caller]
    fn expect_sent(&self, module: Type, token: &str, count: usize) {
        if module == Type::Demo {
            until("the pushes of the demo module are in the log", || {
                (self.sent(module, token) >= count).then_some(())
            });
        }
        assert_eq!(self.sent(module, token), count);
    }

    /// Waits until the server has logged so many times what a reply did to the registration of a user.
    #[track_caller]
    fn expect_in_log(&self, effect: &Effect<'_>, user: &str, token: &str, count: usize) {
        let (parts, count) = match (self.kind, effect) {
            (Kind::Prosody, Effect::Accepted(reply)) => {
                let id = reply.attribute("id").unwrap();
                (
                    [
                        "Received[component]".to_owned(),
                        format!("id='{id}'"),
                        "type='result'".to_owned(),
                    ],
                    1,
                )
            }
            (Kind::Prosody, Effect::Dead) => (
                [
                    "Got error <cancel:item-not-found:the push provider says".to_owned(),
                    format!("'{COMPONENT}<{token}'"),
                    format!("error count for this identifier is now at {count}"),
                ],
                1,
            ),
            (Kind::Prosody, Effect::Kept(condition)) => (
                [
                    format!("Got error <wait:{condition}:"),
                    format!("'{COMPONENT}<{token}'"),
                    "NOT increasing error count".to_owned(),
                ],
                count,
            ),
            (Kind::Ejabberd, Effect::Accepted(_)) => (
                [
                    format!("{COMPONENT} accepted notification for {user}@localhost"),
                    String::new(),
                    String::new(),
                ],
                count,
            ),
            (Kind::Ejabberd, Effect::Dead) => (
                [
                    format!("{COMPONENT} rejected notification for {user}@localhost"),
                    "disabling push".to_owned(),
                    String::new(),
                ],
                count,
            ),
            (Kind::Ejabberd, Effect::Kept(_)) => (
                [
                    format!("{COMPONENT} rejected notification for {user}@localhost"),
                    "temporarily".to_owned(),
                    String::new(),
                ],
                count,
            ),
        };
        let logged = until_some(LONG, || {
            let log = self.server.log();
            let lines = log
                .lines()
                .filter(|line| parts.iter().all(|part| line.contains(part)));
            (lines.count() >= count).then_some(())
        });
        assert!(
            logged.is_some(),
            "no {count} lines with {parts:?} in the log of {}:\n{}",
            self.server.name(),
            about(&self.server.log(), token)
        );
    }

    /// Waits until the server has logged that the component closed its stream.
    fn expect_clean_end(&self) {
        let line = match self.kind {
            Kind::Prosody => "Received </stream:stream>",
            Kind::Ejabberd => "Received XML on stream = <<\"</stream:stream>\">>",
        };
        self.server.wait_for_log(line, LONG).unwrap();
    }
}

fn settings(name: &str, secret: &str, port: u16, modules: &Value) -> Value {
    let mut settings = json!({
        "component": {
            "componentHostname": name,
            "componentKey": secret,
            "serverHostname": "127.0.0.1",
            "serverPort": port,
        },
        "pushModules": fpush_testkit::without_holding(modules.clone()),
        "timeout": { "xmppconnectionError": "500ms" },
    });
    if modules.get(Type::Apple.name()).is_some() {
        settings["component"]["push2"] = json!({ "modules": [Type::Apple.name()] });
    }
    settings
}

#[track_caller]
fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    until_some(LONG, ask).unwrap_or_else(|| panic!("waited {LONG:?} for {what}, in vain"))
}

fn until_some<T>(patience: Duration, ask: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The lines of a server's log that say something about pushes.
fn about(log: &str, token: &str) -> String {
    let lines = log
        .lines()
        .filter(|line| line.contains(token) || line.contains(COMPONENT));
    lines.collect::<Vec<_>>().join("\n")
}

const COMPONENT: &str = "push.localhost";

const SECRET: &str = "made-up-component-secret";

const PASSWORD: &str = "made-up-password";
