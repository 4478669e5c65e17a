//! The real program between a fake XMPP server and the demo module, or a fake APNs where a provider has to be slow:
//! what it answers to publishes and to everything else, what strangers cannot do to it, its logins and its end.

#![cfg(feature = "enable_demo_support")]
#![cfg_attr(
    feature = "enable_apns_support",
    expect(clippy::unwrap_used, reason = "in a test a panic is the report")
)]

mod common;

use std::{
    fmt::Display,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Command, Daemon, FakeXmpp, Form, LONG, Link, Refusal, Reply, daemon::Builder, fake_xmpp::AcceptError,
    publish::*,
};
use serde_json::{Value, json};

use crate::common::{DOMAIN, SECRET, settings};

const BIN: &str = env!("CARGO_BIN_EXE_fpush");

/// A daemon that is logged in.
struct Session {
    link: Link,
    daemon: Daemon,
    xmpp: FakeXmpp,
    asked: usize,
}

impl Session {
    fn start(modules: &Value) -> Self {
        Self::start_with(modules, |settings| settings, |builder| builder)
    }

    fn start_with(
        modules: &Value,
        change: impl FnOnce(Value) -> Value,
        prepare: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let settings = change(settings(&xmpp, modules));
        let daemon = prepare(Daemon::builder(BIN).settings(&settings)).start();
        let link = xmpp.accept(LONG);
        Self {
            link,
            daemon,
            xmpp,
            asked: 0,
        }
    }

    fn fresh_id(&mut self) -> String {
        self.asked += 1;
        format!("ask-{}", self.asked)
    }

    /// The reply to a request with an id of its own.
    #[track_caller]
    fn ask<T: Display>(&mut self, request: impl FnOnce(&str) -> T) -> Reply {
        let id = self.fresh_id();
        self.link.send(request(&id));
        self.link.reply_to(&id, LONG)
    }

    /// The reply to an iq with this content, as `result` or `type/condition`.
    #[track_caller]
    fn iq(&mut self, kind: &str, content: &str) -> String {
        self.ask(|id| iq(kind, id, content)).verdict()
    }

    #[track_caller]
    fn publish(&mut self, node: &str, module: Option<&str>) -> String {
        self.ask(|id| prosody_publish(id, node, module, true)).verdict()
    }

    /// Has pushes to so many devices accepted that the provider's word about others is believed at once.
    #[track_caller]
    fn earn_trust(&mut self, module: Option<&str>) {
        for number in 0..40 {
            assert_eq!(self.publish(&format!("trusted-{number}"), module), "result");
        }
    }

    /// Waits until everything sent until now was handled, and checks that nothing came but what was asked for.
    #[track_caller]
    fn nothing_else_came(&mut self) {
        let reply = self.ask(|id| iq("get", id, "<ping xmlns='urn:xmpp:ping'/>"));
        assert_eq!(reply.verdict(), "result");
        let others = self.link.pending();
        assert!(others.is_empty(), "nobody asked for {others:#?}");
    }
}

fn iq(kind: &str, id: &str, content: &str) -> String {
    format!("<iq type='{kind}' from='a.example' to='{DOMAIN}' id='{id}'>{content}</iq>")
}

fn pubsub(content: &str) -> String {
    format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>")
}

/// One demo module that every publish without a name means, and that sends everything at once.
fn demo() -> Value {
    json!({ "demo": { "type": "demo", "is_default_module": true, "ratelimit": { "enabled": false } } })
}

mod publishes {
    use super::*;

    #[test]
    fn every_outcome_has_its_reply() {
        let module = |refused: &str, default: bool| {
            json!({
                "type": "demo",
                "is_default_module": default,
                "ratelimit": { "ratelimitTime": "1h", "refusedReply": refused },
            })
        };
        let modules = json!({ "first": module("wait", true), "quiet": module("result", false) });
        let mut session = Session::start(&modules);
        session.earn_trust(Some("first"));
        let table = [
            ("accepted", "a", Some("first"), "result"),
            ("queued", "a", Some("first"), "result"),
            ("refused", "a", Some("first"), "wait/service-unavailable"),
            ("still refused", "a", Some("first"), "wait/service-unavailable"),
            ("each module has its own limit", "a", Some("quiet"), "result"),
            ("queued", "a", Some("quiet"), "result"),
            ("refused and acknowledged", "a", Some("quiet"), "result"),
            (
                "the default module is one of those",
                "a",
                None,
                "wait/service-unavailable",
            ),
            (
                "as by the name default",
                "a",
                Some("default"),
                "wait/service-unavailable",
            ),
            ("and by an empty name", "a", Some(""), "wait/service-unavailable"),
            ("another token", "b", None, "result"),
            ("busy: queued", "busy-1", Some("first"), "result"),
            (
                "busy: one is queued",
                "busy-1",
                Some("first"),
                "wait/service-unavailable",
            ),
            ("dead", "dead-1", Some("first"), "cancel/item-not-found"),
            (
                "dead, for the default module, too",
                "dead-2",
                None,
                "cancel/item-not-found",
            ),
            (
                "unknown module",
                "a",
                Some("monalProdiOS"),
                "wait/internal-server-error",
            ),
            (
                "names are exact",
                "a",
                Some("First"),
                "wait/internal-server-error",
            ),
            ("no token", "", Some("first"), "wait/bad-request"),
        ];
        for (what, node, module, expected) in table {
            assert_eq!(session.publish(node, module), expected, "{what}");
        }
        let no_node = session.iq("set", &pubsub("<publish><item/></publish>"));
        assert_eq!(no_node, "wait/bad-request");
        session.nothing_else_came();
    }

    #[test]
    fn a_dead_token_is_not_sent_to_its_provider_again() {
        let mut session =
            Session::start_with(&demo(), |settings| settings, |daemon| daemon.rust_log("debug"));
        session.earn_trust(None);
        for token in ["dead-1", "dead-2", "dead-1"] {
            assert_eq!(session.publish(token, None), "cancel/item-not-found");
        }
        session.daemon.wait_for_nth_log("TokenDead", 3, LONG);
        assert_eq!(session.daemon.log().matches("push failed").count(), 2);
    }

    #[test]
    fn without_a_default_module_a_publish_must_name_one() {
        let mut session = Session::start(&json!({ "m": { "type": "demo" } }));
        for module in [None, Some(""), Some("default")] {
            assert_eq!(
                session.publish("t", module),
                "wait/internal-server-error",
                "{module:?}"
            );
        }
        assert_eq!(session.publish("t", Some("m")), "result");
        let line = session.daemon.wait_for_log("names no push module", LONG);
        assert!(
            line.contains("ERROR") && line.contains("is_default_module"),
            "{line}"
        );
        session.nothing_else_came();
    }

    #[test]
    fn a_module_may_be_called_default() {
        let modules = json!({
            "default": { "type": "demo", "ratelimit": { "ratelimitTime": "1h" } },
            "other": { "type": "demo", "is_default_module": true, "ratelimit": { "ratelimitTime": "1h" } },
        });
        let mut session = Session::start(&modules);
        assert_eq!(session.publish("t", Some("default")), "result");
        assert_eq!(session.publish("t", Some("default")), "result");
        assert_eq!(session.publish("t", Some("default")), "wait/service-unavailable");
        assert_eq!(session.publish("t", Some("other")), "result", "another one");
    }

    #[test]
    fn an_unknown_module_is_reported_in_a_log_that_nobody_can_fill_or_forge() {
        let mut session = Session::start(&demo());
        let name = "x\n\u{1b}[31m ERROR forged yyy";
        let escaped = escape(name).replace('\n', "&#10;").replace('\u{1b}', "&#27;");
        let options = options(
            "submit",
            &format!("<field var='pushModule'><value>{escaped}</value></field>"),
        );
        for _ in 0..30 {
            let reply = session.ask(|id| Publish::new(id, "t", "<item/>", &options).from("u@b.example/r"));
            assert_eq!(reply.verdict(), "wait/internal-server-error");
        }
        let line = session.daemon.wait_for_log("not in the settings", LONG);
        assert!(line.contains("ERROR"), "{line}");
        assert!(line.contains("x\\n\\u{1b}[31m ERROR forged yyy"), "{line}");
        assert!(
            line.contains("b.example") && !line.contains("u@b.example"),
            "{line}"
        );
        session.daemon.terminate();
        session.daemon.wait(LONG);
        let log = session.daemon.log();
        let (summaries, lines): (Vec<_>, Vec<_>) = log
            .lines()
            .filter(|line| line.contains("not in the settings"))
            .partition(|line| line.contains("more in the last minute"));
        assert_eq!(lines.len(), 5, "{log}");
        assert!(
            summaries.len() == 1 && summaries[0].contains("… and 25 more"),
            "{log}"
        );
        assert!(!log.contains('\u{1b}'), "{log}");
    }

    #[test]
    fn a_long_name_of_a_module_may_be_a_token_and_is_not_in_the_log() {
        let mut session = Session::start(&demo());
        let name = "y".repeat(100);
        assert_eq!(session.publish("t", Some(&name)), "wait/internal-server-error");
        let line = session.daemon.wait_for_log("not in the settings", LONG);
        assert!(line.contains("ERROR") && line.contains("of 100 bytes"), "{line}");
        assert!(!session.daemon.log().contains("yyyy"), "{line}");
    }

    #[test]
    fn the_demo_takes_every_token_up_to_4_kib() {
        let mut session = Session::start(&demo());
        assert_eq!(session.publish(&"t".repeat(4_096), Some("demo")), "result");
        let long = "t".repeat(4_097);
        for module in [Some("demo"), None] {
            assert_eq!(session.publish(&long, module), "wait/internal-server-error");
        }
    }

    /// A server may have lost the name of the module, or Apple may have found a new form: the device may be alive.
    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn a_token_that_is_none_of_apples_never_reaches_it() {
        let modules = json!({ "phone": apple(true, "https://127.0.0.1:1", json!({})) });
        let mut session = Session::start(&modules);
        let path = format!("../{}", "a".repeat(61));
        let long = "ab".repeat(101);
        let tokens = [
            "fGc:APA91bH-x_y",
            &"a".repeat(63),
            &"a".repeat(65),
            &"g".repeat(64),
            &path,
            &"ä".repeat(32),
            &format!("{}\u{0}", "a".repeat(63)).replace('\u{0}', " "),
            &long,
        ];
        for token in tokens {
            for module in [Some("phone"), None, Some("default")] {
                assert_eq!(
                    session.publish(token, module),
                    "wait/internal-server-error",
                    "{token}"
                );
            }
        }
        session.nothing_else_came();
    }
}

mod parsing {
    use super::*;

    /// What every server makes of a publish for this node and module.
    fn shapes(id: &str, node: &str, module: Option<&str>) -> Vec<(&'static str, Publish)> {
        vec![
            ("Prosody, important", prosody_publish(id, node, module, true)),
            ("Prosody", prosody_publish(id, node, module, false)),
            (
                "Debian 11, important",
                prosody_debian11_publish(id, node, module, true),
            ),
            ("Debian 11", prosody_debian11_publish(id, node, module, false)),
            (
                "encrypted",
                prosody_encrypted_publish(id, node, module, false, false),
            ),
            (
                "encrypted, important",
                prosody_encrypted_publish(id, node, module, true, false),
            ),
            (
                "encrypted, a call",
                prosody_encrypted_publish(id, node, module, true, true),
            ),
            ("ejabberd with a body", ejabberd_publish(id, node, module, true)),
            ("ejabberd", ejabberd_publish(id, node, module, false)),
            ("MongooseIM", mongooseim_publish(id, node, module)),
            ("Tigase, all read", tigase_publish(id, node, module, 0, false)),
            ("Tigase", tigase_publish(id, node, module, 3, false)),
            ("Tigase with priority", tigase_publish(id, node, module, 3, true)),
            ("Tigase, a call", tigase_call_publish(id, node, module)),
            ("Openfire", openfire_publish(id, node, module)),
        ]
    }

    /// Publishes without a module's name, as Metronome sends them all.
    fn nameless(id: &str, node: &str) -> Vec<(&'static str, Publish)> {
        let mut nameless = shapes(id, node, None);
        nameless.push(("Metronome", metronome_publish(id, node, None)));
        nameless.push(("Metronome with a secret", metronome_publish(id, node, Some("s"))));
        nameless
    }

    #[test]
    fn the_publish_of_every_server_is_understood() {
        // Only a module's name leads anywhere.
        let mut session =
            Session::start(&json!({ "m": { "type": "demo", "ratelimit": { "enabled": false } } }));
        session.earn_trust(Some("m"));
        for (node, expected) in [("t", "result"), ("dead-t", "cancel/item-not-found")] {
            for (server, publish) in shapes("x", node, Some("m")) {
                session.link.send(publish);
                assert_eq!(session.link.reply_to("x", LONG).verdict(), expected, "{server}");
            }
        }
        for (server, publish) in nameless("x", "t") {
            session.link.send(publish);
            let verdict = session.link.reply_to("x", LONG).verdict();
            assert_eq!(verdict, "wait/internal-server-error", "{server} without a module");
        }
        session.nothing_else_came();
    }

    #[test]
    fn a_publish_without_a_module_goes_to_the_default_one() {
        let mut session = Session::start(&demo());
        session.earn_trust(None);
        for (server, publish) in nameless("x", "dead-t") {
            session.link.send(publish);
            let verdict = session.link.reply_to("x", LONG).verdict();
            // With a secret its node is that of a device that registered, and the registry may be missing by mistake.
            let expected = match server {
                "Metronome with a secret" => "wait/internal-server-error",
                _ => "cancel/item-not-found",
            };
            assert_eq!(verdict, expected, "{server}");
        }
        session.nothing_else_came();
    }

    #[test]
    fn options_are_read_leniently() {
        let mut session =
            Session::start(&json!({ "m": { "type": "demo", "ratelimit": { "enabled": false } } }));
        let module = field("pushModule", "m");
        let hidden = "<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>";
        let foreign = field("FORM_TYPE", "urn:foreign");
        let many: String = (0..20).map(|n| field(&format!("option-{n}"), "v")).collect();
        let decorated = "<field xml:lang='en' label='Module' type='list-single' unknown='1' var='pushModule'>\
                         <desc>d</desc><required/> text <option><value>n</value></option>\
                         <value x='y'>m</value><value>n</value></field>";
        let known = [
            options("submit", &module),
            options("form", &module),
            options("result", &module),
            format!("<publish-options><x xmlns='jabber:x:data'>{module}</x></publish-options>"),
            options("submit", &format!("{hidden}{module}")),
            options("submit", &format!("{module}{hidden}")),
            options("submit", &format!("{foreign}{module}")),
            options("submit", &format!("{}{module}", field("secret", "s"))),
            options("submit", &format!("{module}{}", field("secret", "s"))),
            options("submit", &format!("{many}{module}{many}")),
            options("submit", decorated),
            options(
                "submit",
                &format!("<title>t</title><field/><field type='fixed'/>{module}"),
            ),
            options(
                "submit",
                "<field var='pushModule'><value><![CDATA[m]]></value></field>",
            ),
            options(
                "submit",
                "<field var='push&#77;odule'><value>&#109;</value></field>",
            ),
            format!("<publish-options>text<other/>{}<!-- c --></publish-options>", {
                format!(
                    "<x xmlns='other'>{}</x><x xmlns='jabber:x:data'>{module}</x>",
                    field("pushModule", "n")
                )
            }),
            format!(
                "<unknown xmlns='x'><publish-options/></unknown>{}",
                push_module(Some("m"))
            ),
        ];
        for options in known {
            let reply = session.ask(|id| Publish::new(id, "t", "<item/>", &options));
            assert_eq!(reply.verdict(), "result", "{options}");
        }
        let none = [
            String::new(),
            "<publish-options/>".to_owned(),
            "<publish-options><x xmlns='jabber:x:data'/></publish-options>".to_owned(),
            options("submit", "<field var='pushModule'/>"),
            options("submit", "<field var='pushModule'><value/></field>"),
            options("submit", "<field var='pushmodule'><value>m</value></field>"),
            "<publish-options xmlns='else'><x xmlns='jabber:x:data'><field var='pushModule'><value>m</value>\
             </field></x></publish-options>"
                .to_owned(),
        ];
        for options in none {
            let reply = session.ask(|id| Publish::new(id, "t", "<item/>", &options));
            assert_eq!(reply.verdict(), "wait/internal-server-error", "{options}");
        }
        session.nothing_else_came();
    }

    #[test]
    fn items_are_read_leniently() {
        let mut session = Session::start(&demo());
        let notification = "<notification xmlns='urn:xmpp:push:0'/>";
        let items = [
            String::new(),
            "text".to_owned(),
            "<item/>".to_owned(),
            "<item id='current' publisher='a@b' x='y'/>".to_owned(),
            format!("<item>{notification}</item><item>{notification}</item>"),
            format!("<item> <a xmlns='b'><c/></a> t {notification}{notification}<!-- c --><?pi p?></item>"),
            "<item><entry xmlns='http://www.w3.org/2005/Atom'/></item>".to_owned(),
            "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='nonsense'>\
             <field/><field var='message-count'><value>many</value></field><reported/><item/></x></notification>\
             </item>"
                .to_owned(),
        ];
        session.earn_trust(None);
        for item in &items {
            let reply = session.ask(|id| Publish::new(id, "dead-t", item, ""));
            assert_eq!(reply.verdict(), "cancel/item-not-found", "{item}");
        }
        session.nothing_else_came();
    }

    #[test]
    fn order_prefixes_and_unknown_things_do_not_matter() {
        let mut session =
            Session::start(&json!({ "m": { "type": "demo", "ratelimit": { "enabled": false } } }));
        let module = push_module(Some("m"));
        let publish = "<publish node='t' ver='1' xml:lang='de'>text<item/></publish>";
        let iqs = [
            pubsub(&format!("{module}{publish}")),
            pubsub(&format!(" <before/>text{publish}<between xmlns='a'/>{module}<after/> ")),
            format!("{}<more xmlns='y'/>", pubsub(&format!("{publish}{module}"))),
            format!("<!-- c -->{}", pubsub(&format!("{publish}{module}"))),
            "<p:pubsub xmlns:p='http://jabber.org/protocol/pubsub' xmlns:d='jabber:x:data'><p:publish node=\"t\"/>\
             <p:publish-options><d:x><d:field var='pushModule'><d:value>m</d:value></d:field></d:x>\
             </p:publish-options></p:pubsub>"
                .to_owned(),
        ];
        for content in iqs {
            assert_eq!(session.iq("set", &content), "result", "{content}");
        }
        let spelt = format!(
            "<iq\txmlns='jabber:component:accept'\n id = 'spelt' unknown='1' xml:lang='en'\n to=\"{DOMAIN}\" \
             from='a.example' type=\"set\" >\n{}\n</iq >",
            pubsub(&format!("{publish}{module}"))
        );
        session.link.send(spelt);
        assert_eq!(session.link.reply_to("spelt", LONG).verdict(), "result");
        for namespace in ["jabber:client", "jabber:server"] {
            let publish = pubsub(&format!("{publish}{module}"));
            let iq = iq("set", namespace, &publish).replacen("<iq ", &format!("<iq xmlns='{namespace}' "), 1);
            session.link.send(iq);
            assert_eq!(session.link.reply_to(namespace, LONG).verdict(), "result");
        }
        session.nothing_else_came();
    }

    /// Whether two nodes are one token is seen by the rate limit.
    #[test]
    fn nodes_are_taken_as_they_are() {
        let mut session =
            Session::start(&json!({ "m": { "type": "demo", "ratelimit": { "ratelimitTime": "1h" } } }));
        let uuid = "3b0c9b3e-1f0a-4c1e-9a53-0d6f3f0f7c11";
        let nodes = [
            "t", "T", " t", "t ", "a:b-c_d", "ab+/==", "ab+/=", uuid, "ä🦀", "a<b", "a&b", "a&amp;b", "it's",
            "\"", "%41", "A",
        ];
        for node in nodes {
            for expected in ["result", "result", "wait/service-unavailable"] {
                assert_eq!(session.publish(node, Some("m")), expected, "{node:?}");
            }
        }
    }

    #[test]
    fn large_bodies_are_read() {
        let mut session = Session::start(&demo());
        session.earn_trust(None);
        for size in [64 * 1_024, 500 * 1_024] {
            let body = field("last-message-body", &"x<&".repeat(size / 10));
            let item = format!(
                "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'>{body}</x></notification></item>"
            );
            let reply = session.ask(|id| Publish::new(id, "dead-t", &item, ""));
            assert_eq!(reply.verdict(), "cancel/item-not-found");
        }
    }

    /// In the mode `auto` Apple's push tells what was read from the summary.
    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn the_importance_of_every_servers_publish_is_understood() {
        let ca = TestCa::new();
        let apns = FakeApns::start(&ca);
        let extra = json!({ "pushPriority": "auto", "caFilePath": "ca.pem" });
        let modules = json!({ "phone": apple(true, &apns.url(), extra) });
        let mut session = Session::start_with(
            &modules,
            |settings| settings,
            |daemon| daemon.file("ca.pem", ca.pem()),
        );
        let low = [
            "Prosody",
            "Debian 11",
            "encrypted",
            "ejabberd",
            "Tigase, all read",
        ];
        for (n, (server, publish)) in nameless("x", &apns_token(1)).into_iter().enumerate() {
            session.link.send(publish);
            assert_eq!(session.link.reply_to("x", LONG).verdict(), "result", "{server}");
            let request = apns.wait_for(n + 1, LONG).pop().unwrap();
            let expected = if low.contains(&server) {
                "background"
            } else {
                "alert"
            };
            assert_eq!(request.header("apns-push-type"), Some(expected), "{server}");
        }
    }
}

mod other_traffic {
    use super::*;

    const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";

    #[test]
    fn disco_info_shows_a_push_service() {
        let mut session = Session::start(&demo());
        let query = format!("<query xmlns='{DISCO_INFO}'/>");
        let reply = session.ask(|id| iq("get", id, &query));
        assert_eq!(reply.verdict(), "result");
        assert_eq!(reply.raw.matches("<query").count(), 1, "{}", reply.raw);
        let identities: Vec<_> = elements(&reply.raw, "identity").collect();
        let [identity] = identities.as_slice() else {
            panic!("{identities:?}")
        };
        for attribute in ["category='pubsub'", "type='push'", "name='fpush'"] {
            assert!(identity.contains(attribute), "{identity}");
        }
        let mut features: Vec<_> = elements(&reply.raw, "feature")
            .map(|feature| feature.split('\'').nth(1).unwrap())
            .collect();
        features.sort_unstable();
        let expected = [
            "http://jabber.org/protocol/commands",
            DISCO_INFO,
            DISCO_ITEMS,
            "jabber:iq:version",
            "urn:xmpp:ping",
            "urn:xmpp:push:0",
        ];
        assert_eq!(features, expected);
        session.nothing_else_came();
    }

    fn elements<'a>(xml: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        xml.split('<')
            .filter(move |tag| tag.split([' ', '/', '>']).next() == Some(name))
    }

    #[test]
    fn questions_about_us_are_answered() {
        let mut session = Session::start(&demo());
        let items = session.ask(|id| iq("get", id, &format!("<query xmlns='{DISCO_ITEMS}'/>")));
        assert_eq!(items.verdict(), "result");
        assert!(
            items.raw.contains(DISCO_ITEMS) && !items.raw.contains("<item"),
            "{}",
            items.raw
        );
        let ping = session.ask(|id| iq("get", id, "<ping xmlns='urn:xmpp:ping'/>"));
        assert_eq!(ping.verdict(), "result");
        assert!(ping.raw.ends_with("/>"), "it is empty: {}", ping.raw);
        let version = session.ask(|id| iq("get", id, "<query xmlns='jabber:iq:version'/>"));
        assert_eq!(version.verdict(), "result");
        let number = env!("CARGO_PKG_VERSION");
        assert!(version.raw.contains("<name>fpush</name>"), "{}", version.raw);
        assert!(
            version.raw.contains(&format!("<version>{number}</version>")),
            "{}",
            version.raw
        );
        assert!(!version.raw.contains("<os"), "{}", version.raw);
        session.nothing_else_came();
    }

    #[test]
    fn other_iqs_are_refused_as_servers_expect() {
        let mut session = Session::start(&demo());
        let unsupported = "cancel/service-unavailable";
        let pubsub_unsupported = "cancel/feature-not-implemented";
        let owner = "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='n'/></pubsub>";
        let table = [
            (
                "get",
                format!("<query xmlns='{DISCO_INFO}' node='n'/>"),
                "cancel/item-not-found",
            ),
            ("get", "<vCard xmlns='vcard-temp'/>".to_owned(), unsupported),
            (
                "set",
                "<query xmlns='jabber:iq:register'><username>u</username></query>".to_owned(),
                unsupported,
            ),
            (
                "set",
                "<command xmlns='http://jabber.org/protocol/commands' node='x'/>".to_owned(),
                unsupported,
            ),
            ("get", "<ping/>".to_owned(), unsupported),
            ("get", "<query xmlns='urn:xmpp:ping'/>".to_owned(), unsupported),
            ("set", "<ping xmlns='urn:xmpp:ping'/>".to_owned(), unsupported),
            ("set", format!("<query xmlns='{DISCO_INFO}'/>"), unsupported),
            (
                "get",
                "<publish node='n' xmlns='http://jabber.org/protocol/pubsub'/>".to_owned(),
                unsupported,
            ),
            ("get", pubsub("<items node='n'/>"), pubsub_unsupported),
            ("get", pubsub("<publish node='n'/>"), pubsub_unsupported),
            ("get", pubsub(""), pubsub_unsupported),
            (
                "set",
                pubsub("<create node='n'/><configure/>"),
                pubsub_unsupported,
            ),
            (
                "set",
                pubsub("<subscribe node='n' jid='u@a.example'/>"),
                pubsub_unsupported,
            ),
            ("set", pubsub("<publish-options/>"), pubsub_unsupported),
            (
                "set",
                pubsub("<publish xmlns='else' node='n'/>"),
                pubsub_unsupported,
            ),
            ("set", owner.to_owned(), pubsub_unsupported),
            ("set", String::new(), "modify/bad-request"),
            ("get", "only text".to_owned(), "modify/bad-request"),
            (
                "set",
                "<a xmlns='a'/><b xmlns='b'/>".to_owned(),
                "modify/bad-request",
            ),
            (
                "get",
                "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>".to_owned(),
                "modify/bad-request",
            ),
        ];
        for (kind, content, expected) in table {
            assert_eq!(session.iq(kind, &content), expected, "{kind} {content}");
        }
        session.nothing_else_came();
    }

    #[test]
    fn the_condition_is_the_first_thing_in_an_error() {
        let mut session = Session::start(&demo());
        let reply = session.ask(|id| iq("set", id, "<unknown xmlns='x'/>"));
        let first = reply.error_children.first().unwrap();
        assert_eq!(first.namespace, "urn:ietf:params:xml:ns:xmpp-stanzas");
        assert_eq!(reply.error_type.as_deref(), Some("cancel"));
        assert_eq!(reply.from.as_deref(), Some(DOMAIN));
    }

    /// Also where no device can register.
    #[test]
    fn a_user_can_send_a_test_push() {
        let mut session = Session::start(&demo());
        let items = session.ask(|id| {
            let node = "http://jabber.org/protocol/commands";
            iq(
                "get",
                id,
                &format!("<query xmlns='{DISCO_ITEMS}' node='{node}'/>"),
            )
        });
        assert_eq!(items.raw.matches("<item ").count(), 2, "{}", items.raw);
        for (token, outcome) in [("t", "accepted"), ("dead-t", "not_accepted")] {
            let fields = [("pushModule", "demo"), ("token", token)];
            let reply = session.ask(|id| Command::new(id, "test-push", &fields).to(DOMAIN));
            assert_eq!(Form::of(&reply).value("outcome"), outcome);
        }
        let status = session.ask(|id| Command::new(id, "push-status", &[]).to(DOMAIN));
        assert_eq!(Form::of(&status).names(), ["FORM_TYPE"]);
    }

    /// For the developer of an app: which field, or which push module. Nothing that was sent is repeated.
    #[test]
    fn errors_say_which_field_or_which_module() {
        let module = json!({ "type": "demo" });
        let modules = json!({ "one": module, "two": module });
        let mut session = Session::start(&modules);
        let unnamed = Publish::new("unnamed", "a-token", "", "");
        let unknown = Publish::new("unknown", "a-token", "", &push_module(Some("nobody")));
        let dead = Publish::new("dead", "dead-token", "", &push_module(Some("one")));
        for (id, stanza, said) in [
            ("unnamed", unnamed.to_string(), "field pushModule is missing"),
            ("unknown", unknown.to_string(), "no push module of this name"),
            ("dead", dead.to_string(), "(push module one)"),
            ("no-node", iq("set", "no-node", &pubsub("<publish/>")), "node"),
            ("two", iq("get", "two", "<a/><b/>"), "exactly one child"),
            (
                "command",
                iq(
                    "set",
                    "command",
                    "<command xmlns='http://jabber.org/protocol/commands' node='register-push-fcm'/>",
                ),
                "registration",
            ),
        ] {
            session.link.send(stanza);
            let reply = session.link.reply_to(id, LONG);
            let text = reply.text().unwrap_or_default();
            assert!(text.contains(said), "{}", reply.raw);
            for sent in ["nobody", "a-token", "dead-token", "register-push-fcm"] {
                assert!(!text.contains(sent), "{text}");
            }
        }
    }

    #[test]
    fn a_publish_and_its_reply_are_joined_in_the_log() {
        let mut session =
            Session::start_with(&demo(), |settings| settings, |daemon| daemon.rust_log("debug"));
        let field = |line: &str, name: &str| {
            let value = line.split_once(&format!("{name}=")).map(|(_, rest)| rest);
            value
                .and_then(|rest| rest.split_whitespace().next())
                .unwrap_or_default()
                .to_owned()
        };
        let mut hashes = Vec::new();
        for (number, node, outcome) in [
            (1, "t", "accepted"),
            (2, "dead-t", "token_blocked"),
            (3, "t", "accepted"),
        ] {
            session.publish(node, None);
            let end = format!("publish={number} outcome={outcome}");
            let reply = session.daemon.wait_for_log(&end, LONG);
            let number = format!("publish={number} ");
            let log = session.daemon.log();
            let of_it: Vec<_> = log
                .lines()
                .filter(|line| format!("{line} ").contains(&number))
                .collect();
            assert_eq!(of_it.len(), 2, "{reply} {of_it:#?}");
            assert_eq!(field(of_it[0], "sender"), "a.example");
            assert_eq!(field(of_it[0], "module"), "demo");
            assert_eq!(field(of_it[1], "outcome"), outcome);
            hashes.push(field(of_it[0], "token"));
        }
        assert!(
            !hashes[0].is_empty() && hashes[0] == hashes[2] && hashes[0] != hashes[1],
            "{hashes:?}"
        );
        assert!(
            session
                .daemon
                .log()
                .lines()
                .any(|line| { line.contains("push accepted") && field(line, "token") == hashes[0] })
        );
    }

    #[test]
    fn what_asks_for_nothing_gets_nothing() {
        let mut session = Session::start(&demo());
        let to = format!("from='u@a.example/r' to='{DOMAIN}'");
        let ping = "<ping xmlns='urn:xmpp:ping'/>";
        let publish = pubsub("<publish node='t'/>");
        let error =
            "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let push2 = "<notification xmlns='urn:xmpp:push2:0'><client>https://up.example/x</client>\
                     <priority>high</priority><voip/><encrypted xmlns='urn:xmpp:sce:rfc8291:0'><payload>AAAA\
                     </payload></encrypted><jwt key='AAAA'>x</jwt></notification>";
        let stanzas = [
            format!("<iq type='result' {to} id='1'/>"),
            format!("<iq type='result' {to} id='1'>{ping}</iq>"),
            format!("<iq type='error' {to} id='1'>{error}</iq>"),
            format!("<iq type='error' {to} id='1'>{publish}</iq>"),
            format!("<iq type='set' {to}>{publish}</iq>"),
            format!("<iq type='get' {to}>{ping}</iq>"),
            format!("<iq type='fetch' {to} id='1'>{ping}</iq>"),
            format!("<iq {to} id='1'>{ping}</iq>"),
            format!("<message {to} type='chat' id='1'><body>hello</body></message>"),
            format!("<message {to} id='1'><body>hello</body></message>"),
            format!("<message {to} type='error' id='1'>{error}</message>"),
            format!("<message {to} type='headline' id='1'>{publish}</message>"),
            format!("<message {to} type='groupchat' id='1'><body>hello</body></message>"),
            format!("<message from='a.example' to='{DOMAIN}' id='1'>{push2}</message>"),
            format!("<presence {to}/>"),
            format!("<presence {to} type='unavailable'/>"),
            format!("<presence {to} type='probe'/>"),
            format!("<presence {to} type='subscribed'/>"),
            format!("<presence {to} type='unsubscribe'/>"),
            format!("<presence {to} type='unsubscribed'/>"),
            format!("<presence {to} type='error'>{error}</presence>"),
            " \n\t ".to_owned(),
        ];
        for stanza in stanzas {
            session.link.send(&stanza);
            session.nothing_else_came();
        }
    }

    #[test]
    fn nobody_may_subscribe_to_our_presence() {
        let mut session = Session::start(&demo());
        for id in ["", " id='s-1'"] {
            let subscribe = format!("<presence from='u@a.example' to='{DOMAIN}' type='subscribe'{id}/>");
            session.link.send(subscribe);
            let answer = session.link.next_stanza(LONG);
            let expected = format!("<presence type='unsubscribed' from='{DOMAIN}' to='u@a.example'{id}/>");
            assert_eq!(answer, expected);
        }
        session.nothing_else_came();
    }
}

mod addresses {
    use super::*;

    /// Addresses in quotes, as they stand in the stream.
    #[test]
    fn addresses_are_repeated_byte_for_byte() {
        let mut session = Session::start(&demo());
        let froms = [
            "'a.example'",
            "\"a.example/push-1\"",
            "'u@A.Example/r@x/y'",
            "'d&apos;artagnan@a.example'",
            "\"o'hara@a.example/it's\"",
            "'&quot;x&quot;@a.example/&lt;&gt;&#228;'",
            "'a\u{308}@müller.example/🦀'",
            "''",
            "'no jid@@/'",
        ];
        let tos = [
            "'push.localhost'",
            "'Push.LocalHost'",
            "\"n@push.localhost/r\"",
            "'x.push.localhost'",
        ];
        let ids = [
            "'rr-1700000000000-Tq+/=-dGVzdA==-ejabberd@host'",
            "\"_.-=+/\"",
            "'&lt;&amp;&quot;'",
            "\"it's\"",
            "'say \"x\"'",
            "'&#x27;&#34;'",
            "'a>b'",
            "' spaces  and\ttabs '",
            &format!("'{}'", "9f86d081884c7d65".repeat(16)),
        ];
        let inner = |quoted: &str| quoted[1..quoted.len() - 1].to_owned();
        let check = |session: &mut Session, from: &str, to: &str, id: &str| {
            for (content, verdict) in [
                (pubsub("<publish node='t'/>"), "result"),
                (pubsub("<publish node='dead-t'/>"), "wait/remote-server-timeout"),
                (
                    "<ping xmlns='urn:xmpp:ping'/>".to_owned(),
                    "cancel/service-unavailable",
                ),
            ] {
                session.link.send(format!(
                    "<iq to={to} id={id} type='set' from={from}>{content}</iq>"
                ));
                let reply = session.link.reply_to(&inner(id), LONG);
                assert_eq!(reply.verdict(), verdict, "{from} {to} {id}");
                assert_eq!(reply.from, Some(inner(to)));
                assert_eq!(reply.to, Some(inner(from)));
                assert_eq!(reply.id, inner(id));
            }
        };
        for from in froms {
            check(&mut session, from, tos[0], "'plain'");
        }
        for to in tos {
            check(&mut session, froms[0], to, "'plain'");
        }
        for id in ids {
            check(&mut session, froms[1], tos[0], id);
        }
        session.link.route_self(false);
        check(
            &mut session,
            "'push.localhost'",
            "'push.localhost'",
            "'to ourselves'",
        );
        session.nothing_else_came();
    }

    #[test]
    fn repeated_ids_are_answered_each_time() {
        let mut session = Session::start(&demo());
        let publish = prosody_publish("same", "t", None, true).to_string();
        session.link.send(publish.repeat(10));
        for _ in 0..10 {
            assert_eq!(session.link.reply_to("same", LONG).verdict(), "result");
        }
        session.nothing_else_came();
    }

    /// What our link sends to ourselves comes back through the server, and is answered.
    #[test]
    fn a_ping_of_our_own_is_answered_once() {
        let mut session = Session::start(&demo());
        let own = format!("from='x@{DOMAIN}' to='x@{DOMAIN}' id='own'");
        session
            .link
            .send(format!("<iq type='get' {own}><ping xmlns='urn:xmpp:ping'/></iq>"));
        session.nothing_else_came();
        session.nothing_else_came();
        assert_eq!(
            session.link.routed(),
            1,
            "the answer went through the server and was not answered"
        );
    }
}

mod strangers {
    use super::*;

    struct Nasty {
        what: &'static str,
        stanza: Vec<u8>,
        /// The reply to the id `nasty`, if there is one.
        reply: Option<&'static str>,
    }

    fn nasty(what: &'static str, stanza: impl Into<Vec<u8>>, reply: Option<&'static str>) -> Nasty {
        Nasty {
            what,
            stanza: stanza.into(),
            reply,
        }
    }

    fn set(content: &str) -> String {
        iq("set", "nasty", content)
    }

    fn with_item(item: &str) -> String {
        Publish::new("nasty", "t", item, "").to_string()
    }

    fn deep(depth: usize) -> String {
        format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth))
    }

    fn all() -> Vec<Nasty> {
        let big = "x".repeat(200_000);
        let to = format!("from='u@a.example/r' to='{DOMAIN}'");
        let attributes: String = (0..20_000).map(|n| format!(" a{n}='v'")).collect();
        let fields: String = (0..10_000).map(|n| field(&format!("f{n}"), "v")).collect();
        let ping = "<ping xmlns='urn:xmpp:ping'/>";
        let unsupported = Some("cancel/service-unavailable");
        let done = Some("result");
        let bad = Some("modify/bad-request");
        // It may have been a publish for a living device.
        let unreadable = Some("wait/bad-request");
        let mut all = vec![
            nasty(
                "a node of 200 kB",
                set(&pubsub(&format!("<publish node='{big}'/>"))),
                Some("wait/internal-server-error"),
            ),
            nasty(
                "an attribute of 200 kB",
                format!("<iq type='get' x='{big}' {to} id='nasty'>{ping}</iq>"),
                done,
            ),
            nasty(
                "an attribute of 200 kB inside",
                with_item(&format!("<item a='{big}'/>")),
                done,
            ),
            nasty(
                "a type of 200 kB",
                format!("<iq type='{big}' {to} id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty(
                "a sender of 200 kB",
                format!("<iq type='get' from='{big}' to='{DOMAIN}' id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty(
                "a receiver of 200 kB",
                format!("<iq type='get' from='a.example' to='{big}@{DOMAIN}' id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty(
                "a sender of 3,072 bytes",
                format!(
                    "<iq type='get' from='{}' to='{DOMAIN}' id='nasty'>{ping}</iq>",
                    "x".repeat(3_072)
                ),
                None,
            ),
            nasty(
                "a sender of 3,071 bytes",
                format!(
                    "<iq type='get' from='{}' to='{DOMAIN}' id='nasty'>{ping}</iq>",
                    "x".repeat(3_071)
                ),
                done,
            ),
            nasty(
                "a sender of 200 kB that wants to see our presence",
                format!("<presence type='subscribe' from='{big}' to='{DOMAIN}' id='nasty'/>"),
                None,
            ),
            nasty(
                "an id of 95,000 quotes",
                format!("<iq type='get' {to} id=\"{}\">{ping}</iq>", "'".repeat(95_000)),
                None,
            ),
            nasty(
                "an id of 95,000 quotes as Prosody writes them",
                format!("<iq type='get' {to} id='{}'>{ping}</iq>", "&apos;".repeat(95_000)),
                None,
            ),
            nasty(
                "a publish with an id of 95,000 quotes",
                format!(
                    "<iq type='set' {to} id='{}'>{}</iq>",
                    "&apos;".repeat(95_000),
                    pubsub("<publish node='t'/>")
                ),
                None,
            ),
            nasty(
                "a command with a session of 200 kB",
                set(&format!(
                    "<command xmlns='http://jabber.org/protocol/commands' node='v1-register-push' \
                     action='cancel' sessionid='{}'/>",
                    ">".repeat(200_000)
                )),
                unsupported,
            ),
            nasty(
                "a question about a node of 200 kB",
                iq(
                    "get",
                    "nasty",
                    &format!(
                        "<query xmlns='http://jabber.org/protocol/disco#info' node=\"{}\"/>",
                        "'".repeat(200_000)
                    ),
                ),
                Some("cancel/item-not-found"),
            ),
            nasty(
                "a question for the items of a node of 200 kB",
                iq(
                    "get",
                    "nasty",
                    &format!(
                        "<query xmlns='http://jabber.org/protocol/disco#items' node=\"{}\"/>",
                        "'".repeat(200_000)
                    ),
                ),
                done,
            ),
            nasty("a name of 200 kB", set(&format!("<{big}/>")), unsupported),
            nasty(
                "a namespace of 200 kB",
                set(&format!("<a xmlns='{big}'/>")),
                unreadable,
            ),
            nasty(
                "a module's name of 200 kB",
                Publish::new("nasty", "t", "", &push_module(Some(&big))).to_string(),
                Some("wait/internal-server-error"),
            ),
            nasty(
                "a body of 200 kB",
                with_item(&format!(
                    "<item><notification xmlns='urn:xmpp:push:0'>{big}</notification></item>"
                )),
                done,
            ),
            nasty(
                "a message of 200 kB",
                format!("<message {to} type='chat'><body>{big}</body></message>"),
                None,
            ),
            nasty(
                "a comment of 200 kB",
                set(&format!("<!-- {big} -->{ping}")),
                unsupported,
            ),
            nasty("a top-level name of 200 kB", format!("<{big}/>"), None),
            nasty(
                "20,000 children",
                with_item(&format!("<item>{}</item>", "<a/>".repeat(20_000))),
                done,
            ),
            nasty("20,000 items", with_item(&"<item/>".repeat(20_000)), done),
            nasty("20,000 children of an iq", set(&"<a/>".repeat(20_000)), bad),
            nasty(
                "10,000 options",
                Publish::new("nasty", "t", "", &options("submit", &fields)).to_string(),
                done,
            ),
            nasty(
                "20,000 attributes",
                format!("<iq type='get'{attributes} {to} id='nasty'>{ping}</iq>"),
                done,
            ),
            nasty(
                "20,000 attributes inside",
                with_item(&format!("<item{attributes}/>")),
                done,
            ),
            nasty(
                "an attribute twice",
                format!("<iq type='get' {to} id='nasty' id='2' type='set'>{ping}</iq>"),
                done,
            ),
            nasty(
                "an unknown top-level element",
                format!("<unknown xmlns='x' {to} id='nasty'><iq {to}/></unknown>"),
                None,
            ),
            nasty(
                "an iq of another namespace",
                format!("<iq xmlns='urn:else' type='get' {to} id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty("stream features", "<stream:features><a/></stream:features>", None),
            nasty(
                "a top-level element with an unknown prefix",
                "<x:y a:b='c'/>",
                None,
            ),
            nasty("a late handshake", "<handshake/>", None),
            nasty(
                "a comment of 200 kB between stanzas",
                format!("<!-- {big} -->"),
                None,
            ),
            nasty(
                "text, comments and instructions between stanzas",
                "x<!-- <iq> --><?xml version='1.0'?>&lt;<![CDATA[<iq>]]>",
                None,
            ),
            nasty(
                "an invalid sender",
                format!("<iq type='get' from='@/@' to='{DOMAIN}' id='nasty'>{ping}</iq>"),
                done,
            ),
            nasty(
                "an invalid receiver",
                format!("<iq type='get' from='a.example' to='a@b@c' id='nasty'>{ping}</iq>"),
                done,
            ),
            nasty(
                "no sender",
                format!("<iq type='get' to='{DOMAIN}' id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty(
                "no receiver",
                format!("<iq type='get' from='a.example' id='nasty'>{ping}</iq>"),
                None,
            ),
            nasty(
                "no addresses",
                "<iq type='get'/><iq/><message/><presence/><presence type='subscribe'/>",
                None,
            ),
            nasty(
                "invalid UTF-8",
                [
                    b"<iq type='get' id='nasty' ",
                    to.as_bytes(),
                    b"><a b='\xff\xfe'/></iq>",
                ]
                .concat(),
                None,
            ),
            nasty(
                "invalid UTF-8 in the start tag",
                [b"<iq type='get' id='\xc3\x28' ", to.as_bytes(), b"/>"].concat(),
                None,
            ),
            nasty(
                "NUL",
                [b"<message ", to.as_bytes(), b"><body>\0</body></message>\0"].concat(),
                None,
            ),
            nasty("tags that do not match", set("<a></b>"), unreadable),
            nasty("an unknown entity", set("<a b='&nope;'>&nope;</a>"), unreadable),
            nasty(
                "an unknown entity in the node",
                set(&pubsub("<publish node='&nope;'/>")),
                unreadable,
            ),
            nasty(
                "an unknown entity in the module's name",
                set(&pubsub(
                    "<publish node='t'/><publish-options><x xmlns='jabber:x:data'><field var='pushModule'><value>&nope;</value></field></x></publish-options>",
                )),
                unreadable,
            ),
            nasty(
                "a declaration of an entity",
                format!(
                    "<!DOCTYPE a [<!ENTITY l 'lol'><!ENTITY m '&l;&l;'>]><iq type='get' {to} id='nasty'>{ping}</iq>"
                ),
                done,
            ),
        ];
        for depth in [5_000, 50_000] {
            let deep = deep(depth);
            all.extend([
                nasty(
                    "depth in an item",
                    with_item(&format!("<item>{deep}</item>")),
                    done,
                ),
                nasty("depth in an iq", set(&deep), unsupported),
                nasty(
                    "depth in a version query",
                    iq(
                        "get",
                        "nasty",
                        &format!("<query xmlns='jabber:iq:version'>{deep}</query>"),
                    ),
                    done,
                ),
                nasty(
                    "depth in a message",
                    format!("<message {to}>{deep}</message>"),
                    None,
                ),
                nasty("depth at the top level", deep.clone(), None),
                nasty(
                    "depth in a stream error that is none",
                    format!("<error>{deep}</error>"),
                    None,
                ),
            ]);
        }
        all
    }

    #[test]
    fn nothing_that_strangers_send_ends_the_stream_or_fills_the_memory() {
        let mut session = Session::start(&demo());
        let all = all();
        let (mut sent, mut bytes, mut settled) = (0, 0, 0);
        while sent < 300 {
            for Nasty { what, stanza, reply } in &all {
                session.link.send_bytes(stanza);
                if let Some(reply) = reply {
                    assert_eq!(session.link.reply_to("nasty", LONG).verdict(), *reply, "{what}");
                }
                assert_eq!(session.publish("t", None), "result", "after {what}");
                let others = session.link.pending();
                assert!(others.is_empty(), "{what}: nobody asked for {others:#?}");
                sent += 1;
                bytes += stanza.len() as u64;
            }
            if settled == 0 {
                settled = session.daemon.rss_kib();
            }
        }
        let grown = session.daemon.rss_kib().saturating_sub(settled);
        assert!(grown < bytes / 1_024 / 8, "{grown} KiB more after {bytes} bytes");
        session.nothing_else_came();
    }

    /// A server ends the stream of a component whose stanza is larger than it takes, and makes more of some characters.
    #[test]
    fn an_id_is_repeated_up_to_8_kib_as_the_strictest_server_writes_it() {
        let mut session = Session::start(&demo());
        let most = 8 * 1_024;
        let ids = [
            ("9".repeat(most), true),
            ("9".repeat(most + 1), false),
            ("9".repeat(200_000), false),
            ("&apos;".repeat(most / 6), true),
            ("&apos;".repeat(most / 6 + 1), false),
            ("\"".repeat(most / 6), true),
            ("\"".repeat(most / 6 + 1), false),
            (">".repeat(most / 6 + 1), false),
        ];
        for (id, is_repeated) in ids {
            let what = format!("{} bytes {id:.8}", id.len());
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            session.link.send(iq("get", &id, ping));
            if is_repeated {
                assert_eq!(session.link.reply_to(&id, LONG).verdict(), "result", "{what}");
            }
            session.link.send(iq("set", &id, &pubsub("<publish node='t'/>")));
            if is_repeated {
                // It need not be kept until a provider has answered.
                let verdict = session.link.reply_to(&id, LONG).verdict();
                assert!(
                    verdict == "result" || verdict.starts_with("wait/"),
                    "{what}: {verdict}"
                );
            }
            session.nothing_else_came();
        }
    }

    /// Work that grows with the square of what was sent would stop everybody else's pushes for minutes.
    #[test]
    fn no_stanza_costs_more_than_its_length() {
        let mut session = Session::start(&demo());
        let declarations: String = (0..25_000).map(|n| format!(" xmlns:a{n}='x'")).collect();
        let long = format!("&amp;{}", "x".repeat(400_000));
        let nested = (0..20_000)
            .map(|n| format!("<a xmlns:a{n}='x'>"))
            .collect::<String>();
        let stanzas = [
            with_item(&format!("<item{declarations}>{}</item>", "<b/>".repeat(100_000))),
            with_item(&format!(
                "<item xmlns:long='{long}'>{}</item>",
                "<long:b/>".repeat(60_000)
            )),
            with_item(&format!("<item>{nested}{}</item>", "</a>".repeat(20_000))),
            with_item(&format!(
                "<item>{}</item>",
                "<a xmlns='b' xmlns:c='d'/>".repeat(30_000)
            )),
            with_item(&"<item><notification xmlns='urn:xmpp:push:0'/></item>".repeat(15_000)),
            with_item(&format!(
                "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='last-message-body'><value>{}</value></field></x></notification></item>",
                "a&amp;<b/>".repeat(80_000)
            )),
        ];
        for stanza in stanzas {
            let head: String = stanza.chars().take(160).collect();
            session.link.send(&stanza);
            session.link.reply_to("nasty", LONG);
            assert_eq!(session.publish("t", None), "result", "{head}");
        }
        assert!(
            session.daemon.cpu_time() < Duration::from_secs(20),
            "{:?}",
            session.daemon.cpu_time()
        );
    }

    #[test]
    fn a_stanza_above_the_limit_is_dropped_and_the_stream_stays() {
        let limit = 16 * 1_024;
        let with_limit = |mut settings: Value| {
            settings["component"]["maxStanzaSize"] = limit.into();
            settings
        };
        let mut session = Session::start_with(&demo(), with_limit, |daemon| daemon);
        let body_of = |size: usize| format!("<item>{}</item>", "x".repeat(size));
        let frame = with_item(&body_of(0)).len();
        for (size, expected) in [
            (limit - frame, "result"),
            (limit - frame + 1, "wait/bad-request"),
            (limit, "wait/bad-request"),
            (20 * limit, "wait/bad-request"),
        ] {
            session.link.send(with_item(&body_of(size)));
            assert_eq!(session.link.reply_to("nasty", LONG).verdict(), expected, "{size}");
            assert_eq!(session.publish("t", None), "result");
        }
        // Nobody can be told if the start tag alone is too large, or if it wants no reply.
        let id = "x".repeat(20 * limit);
        session.link.send(prosody_publish(&id, "t", None, true));
        session
            .link
            .send(format!("<message from='a' to='b'><body>{id}</body></message>"));
        session.link.send(format!(
            "<iq type='result' from='a' to='b' id='1'><a>{id}</a></iq>"
        ));
        session.link.send(format!(
            "<presence type='subscribe' from='a' to='b'><a>{id}</a></presence>"
        ));
        session.link.send(format!("<!-- {id} -->"));
        session.nothing_else_came();

        let before = session.daemon.peak_rss_kib();
        let endless = with_item("<item>");
        let (start, end) = endless.split_at(endless.find("<item>").unwrap());
        session.link.send(start);
        let megabyte = "<a b='c'>x</a>".repeat(75_000);
        for _ in 0..30 {
            session.link.send(&megabyte);
        }
        session.link.send(end.replace("<item>", ""));
        assert_eq!(session.link.reply_to("nasty", LONG).verdict(), "wait/bad-request");
        let grown = session.daemon.peak_rss_kib() - before;
        assert!(grown < 4 * 1_024, "{grown} KiB");
        assert_eq!(session.publish("t", None), "result");
    }

    /// Whatever stands in an address, our stream stays well-formed: the fake server ends a broken one.
    #[test]
    fn nobody_writes_into_our_stream() {
        let mut session = Session::start(&demo());
        let ping = "<ping xmlns='urn:xmpp:ping'/>";
        let injections = [
            "'a<b'",
            "'a</iq><message/>'",
            "'&nope;'",
            "'a&b'",
            "'&'",
            "'&#0;'",
            "'&#1;'",
            "'&#xFFFE;'",
            "'&#xD800;'",
            "'&#99999999999;'",
            "'\u{1}'",
            "'\u{ffff}'",
        ];
        for injection in injections {
            for (from, to, id) in [
                (injection, "'push.localhost'", "'1'"),
                ("'a.example'", injection, "'1'"),
                ("'a.example'", "'push.localhost'", injection),
            ] {
                session
                    .link
                    .send(format!("<iq type='get' from={from} to={to} id={id}>{ping}</iq>"));
                session.link.send(format!(
                    "<iq type='set' from={from} to={to} id={id}>{}</iq>",
                    pubsub("<publish node='t'/>")
                ));
                session.link.send(format!(
                    "<presence type='subscribe' from={from} to={to} id={id}/>"
                ));
            }
            session.nothing_else_came();
        }
        // What asks about something does not get it back either.
        let node = "&lt;/query&gt;&lt;/iq&gt;&lt;message/&gt;";
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>");
        assert_eq!(session.iq("get", &query), "cancel/item-not-found");
        session.nothing_else_came();
    }

    #[test]
    fn stanzas_may_be_split_anywhere() {
        let mut session = Session::start(&demo());
        let publish = |id: &str| prosody_publish(id, "t", Some("demo"), true).to_string();
        let length = publish("split-0000").len();
        for at in 0..=length {
            let stanza = publish(&format!("split-{at:04}"));
            let (first, second) = stanza.split_at(at);
            session.link.send(first);
            // Time for the daemon to see the first part alone.
            thread::sleep(Duration::from_micros(100));
            session.link.send(second);
        }
        for at in 0..=length {
            let reply = session.link.reply_to(&format!("split-{at:04}"), LONG);
            assert_eq!(reply.verdict(), "result", "split at {at}");
        }
        session.link.send_split(publish("bytewise"), 1);
        assert_eq!(session.link.reply_to("bytewise", LONG).verdict(), "result");
        session.nothing_else_came();
    }
}

mod logins {
    use super::*;

    fn start(xmpp: &FakeXmpp) -> Daemon {
        Daemon::builder(BIN).settings(&settings(xmpp, &demo())).start()
    }

    #[track_caller]
    fn has_advice(line: &str) {
        assert!(
            line.contains("ERROR") && line.contains("Prosody") && line.contains("ejabberd"),
            "{line}"
        );
    }

    #[test]
    fn a_refused_login_is_explained_and_tried_again() {
        let table = [
            (
                Refusal::HostUnknown,
                "the server answered host-unknown",
                "Component \"push.localhost\"",
            ),
            (
                Refusal::NotAuthorized,
                "the server answered not-authorized",
                "component.componentKey",
            ),
            (Refusal::Conflict, "the server answered conflict", "kick_old"),
        ];
        for (refusal, said, advice) in table {
            let xmpp = FakeXmpp::start(DOMAIN, SECRET);
            let daemon = start(&xmpp);
            xmpp.refuse(refusal, LONG);
            let line = daemon.wait_for_log(said, LONG);
            has_advice(&line);
            assert!(line.contains(advice), "{line}");
            xmpp.accept(LONG);
            assert!(!daemon.log().contains(SECRET));
        }
    }

    #[test]
    fn a_login_that_ends_without_a_word_is_explained_and_tried_again() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let daemon = start(&xmpp);
        xmpp.refuse(Refusal::Close, LONG);
        let line = daemon.wait_for_log("closed the stream during the login", LONG);
        assert!(
            line.contains("ERROR") && line.contains("component.componentKey"),
            "{line}"
        );
        xmpp.accept(LONG);
    }

    #[test]
    fn a_wrong_secret_is_explained() {
        let xmpp = FakeXmpp::start(DOMAIN, "another");
        let daemon = start(&xmpp);
        assert_eq!(xmpp.try_accept(LONG).err(), Some(AcceptError::WrongSecret));
        has_advice(&daemon.wait_for_log("not-authorized", LONG));
    }

    #[test]
    fn a_server_in_brackets_is_connected_to() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let server = TcpListener::bind("[::1]:0").expect("this test needs IPv6");
        let mut settings = settings(&xmpp, &demo());
        settings["component"]["serverHostname"] = "[::1]".into();
        settings["component"]["serverPort"] = server.local_addr().unwrap().port().into();
        let (come, came) = mpsc::channel();
        thread::spawn(move || {
            let (mut link, _) = server.accept().unwrap();
            let mut header = [0; 13];
            link.read_exact(&mut header).unwrap();
            come.send(header).unwrap();
        });
        let _daemon = Daemon::builder(BIN).settings(&settings).start();
        assert_eq!(came.recv_timeout(LONG).as_ref(), Ok(b"<?xml version"));
    }

    /// The key that is in the settings is named, and what is corrected in the file counts.
    #[test]
    fn a_wrong_secret_in_a_file_is_explained_and_can_be_corrected() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let mut settings = settings(&xmpp, &demo());
        let component = settings["component"].as_object_mut().unwrap();
        component.remove("componentKey");
        component.insert("componentKeyFile".to_owned(), "component.key".into());
        let daemon = Daemon::builder(BIN)
            .settings(&settings)
            .file("component.key", "wrong\n")
            .start();
        assert_eq!(xmpp.try_accept(LONG).err(), Some(AcceptError::WrongSecret));
        let line = daemon.wait_for_log("not-authorized", LONG);
        has_advice(&line);
        assert!(line.contains("component.componentKeyFile"), "{line}");
        fs::write(daemon.dir().join("component.key"), SECRET).unwrap();
        daemon.signal("HUP");
        while xmpp.try_accept(LONG).is_err() {}
    }

    #[test]
    fn a_refused_connection_is_explained_and_tried_again() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        xmpp.close_port();
        let daemon = start(&xmpp);
        let line = daemon.wait_for_log("cannot connect to the server", LONG);
        has_advice(&line);
        assert!(line.contains(&xmpp.port().to_string()), "{line}");
        daemon.wait_for_nth_log("cannot connect to the server", 3, LONG);
        xmpp.open_port();
        xmpp.accept(LONG);
    }

    #[test]
    fn a_port_of_something_else_is_explained() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let mut settings = settings(&xmpp, &demo());
        settings["component"]["serverPort"] = listener.local_addr().unwrap().port().into();
        let daemon = Daemon::builder(BIN).settings(&settings).start();
        for answer in [
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "",
            "<a/>",
            "<?xml version='1.0'?><html></html>",
        ] {
            let (mut socket, _) = listener.accept().unwrap();
            let mut header = [0; 16];
            socket.read_exact(&mut header).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
        }
        listener.accept().unwrap();
        let line = daemon.wait_for_nth_log("no link", 4, LONG);
        assert!(line.contains("server's port for components"), "{line}");
    }

    #[test]
    fn any_stream_id_can_be_hashed() {
        for id in ["a&b<c>\"d'", "ä🦀", " "] {
            let xmpp = FakeXmpp::start(DOMAIN, SECRET);
            xmpp.set_stream_id(id);
            let _daemon = start(&xmpp);
            xmpp.accept(LONG);
        }
    }

    /// No pause could hide a mistake here: it would last an hour.
    #[test]
    fn after_a_link_that_ended_the_next_comes_at_once() {
        let ends: [fn(Link); 4] = [
            |link| link.close(),
            |link| link.stream_error("system-shutdown"),
            Link::drop_tcp,
            |link| {
                link.send("<iq type='set' id='cut off");
                link.drop_tcp();
            },
        ];
        for end in ends {
            let Session {
                link, daemon, xmpp, ..
            } = Session::start_with(&demo(), patient, |daemon| daemon);
            end(link);
            let mut link = xmpp.accept(LONG);
            link.send(prosody_publish("next", "t", None, true));
            assert_eq!(link.reply_to("next", LONG).verdict(), "result");
            let line = daemon.wait_for_log("link down", LONG);
            assert!(line.contains("WARN"), "{line}");
        }
    }

    fn patient(mut settings: Value) -> Value {
        settings["timeout"]["xmppconnectionError"] = "1h".into();
        settings
    }

    /// Two instances that replace each other would do nothing else.
    #[test]
    fn who_was_replaced_does_not_fight() {
        let session = Session::start(&demo());
        session.link.stream_error("conflict");
        let line = session.daemon.wait_for_log("link down", LONG);
        assert!(
            line.contains("another instance") && line.contains("kick_old"),
            "{line}"
        );
        let again = session.xmpp.try_accept(Duration::from_secs(3));
        assert_eq!(again.err(), Some(AcceptError::Timeout));
    }

    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn a_reply_that_is_due_while_the_link_is_down_goes_out_on_the_next() {
        let mut phone = Phone::start(json!({ "enabled": false }), "debug");
        phone
            .apns
            .answer_with(|_| Answer::Normal.after(Duration::from_secs(1)));
        let publish = prosody_publish("late", &apns_token(1), None, true).from("u@a.example/r");
        phone.session.link.send(publish);
        phone.apns.wait_for(1, LONG);
        let Session {
            link, daemon, xmpp, ..
        } = &mut phone.session;
        link.close();
        link.expect_end(LONG);
        daemon.wait_for_log("reply answer", LONG);
        *link = xmpp.accept(LONG);
        let reply = link.reply_to("late", LONG);
        assert_eq!(reply.verdict(), "result");
        assert_eq!(reply.to.as_deref(), Some("u@a.example/r"));
    }
}

mod signals {
    use super::*;

    #[test]
    fn an_idle_daemon_ends_at_once_and_closes_its_stream() {
        for signal in ["TERM", "INT"] {
            let mut session = Session::start(&demo());
            assert_eq!(session.publish("t", None), "result");
            let start = Instant::now();
            session.daemon.signal(signal);
            assert!(session.link.expect_end(LONG).stream_closed);
            assert_eq!(session.daemon.wait(LONG).code(), Some(0));
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }

    #[test]
    fn a_daemon_without_a_link_ends_at_once() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        // Nobody answers the connection.
        let mut waiting = Daemon::builder(BIN).settings(&settings(&xmpp, &demo())).start();
        waiting.wait_for_log("started", LONG);
        let closed = FakeXmpp::start(DOMAIN, SECRET);
        closed.close_port();
        let mut settings = settings(&closed, &demo());
        settings["timeout"]["xmppconnectionError"] = "1h".into();
        let mut pausing = Daemon::builder(BIN).settings(&settings).start();
        pausing.wait_for_log("no link", LONG);
        for daemon in [&mut waiting, &mut pausing] {
            let start = Instant::now();
            daemon.terminate();
            assert_eq!(daemon.wait(LONG).code(), Some(0));
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }

    #[test]
    fn a_push_that_is_never_answered_is_given_up_in_time() {
        let mut session = Session::start(&demo());
        session.link.send(prosody_publish("slow", "slow-1", None, true));
        session.nothing_else_came();
        let start = Instant::now();
        session.daemon.terminate();
        assert_eq!(
            session.link.reply_to("slow", LONG).verdict(),
            "wait/remote-server-timeout"
        );
        assert!(session.link.expect_end(LONG).stream_closed);
        assert_eq!(session.daemon.wait(LONG).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn a_second_signal_ends_it_at_once() {
        let mut session = Session::start(&demo());
        session.link.send(prosody_publish("slow", "slow-1", None, true));
        session.nothing_else_came();
        let start = Instant::now();
        session.daemon.terminate();
        session
            .daemon
            .wait_for_log("a second signal ends this at once", LONG);
        session.daemon.signal("INT");
        session.daemon.wait(LONG);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn queued_pushes_are_sent_before_the_end() {
        const TOKENS: usize = 20;
        let mut phone = Phone::start(json!({ "ratelimitTime": "1h" }), "info");
        for token in 0..TOKENS {
            for _ in 0..2 {
                assert_eq!(phone.session.publish(&apns_token(token), None), "result");
            }
        }
        assert_eq!(
            phone.apns.wait_for(TOKENS, LONG).len(),
            TOKENS,
            "the others are queued"
        );
        phone
            .apns
            .answer_with(|_| Answer::Normal.after(Duration::from_secs(1)));
        let start = Instant::now();
        phone.session.daemon.terminate();
        // The first queued push tells that the end has begun.
        phone.apns.wait_for(TOKENS + 1, LONG);
        assert_eq!(
            phone.session.publish(&apns_token(99), None),
            "wait/internal-server-error"
        );
        assert_eq!(phone.session.iq("get", "<ping xmlns='urn:xmpp:ping'/>"), "result");
        assert!(phone.session.link.expect_end(LONG).stream_closed);
        assert_eq!(phone.session.daemon.wait(LONG).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        let mut tokens: Vec<_> = phone
            .apns
            .requests()
            .into_iter()
            .map(|request| request.token)
            .collect();
        tokens.sort_unstable();
        let mut expected: Vec<_> = (0..TOKENS)
            .flat_map(|token| [apns_token(token), apns_token(token)])
            .collect();
        expected.sort_unstable();
        assert_eq!(tokens, expected);
        assert!(phone.session.daemon.log().contains("undelivered=0"));
    }

    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn queued_pushes_are_sent_also_without_a_link() {
        let mut phone = Phone::start(json!({ "ratelimitTime": "1h" }), "info");
        for _ in 0..2 {
            assert_eq!(phone.session.publish(&apns_token(1), None), "result");
        }
        phone.session.xmpp.close_port();
        phone.session.link.close();
        phone.session.daemon.wait_for_log("no link", LONG);
        let start = Instant::now();
        phone.session.daemon.terminate();
        assert_eq!(phone.session.daemon.wait(LONG).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(phone.apns.count(), 2);
    }

    #[cfg(feature = "enable_apns_support")]
    #[test]
    fn what_was_acknowledged_and_could_not_be_sent_is_counted() {
        let mut phone = Phone::start(json!({ "ratelimitTime": "1h" }), "info");
        for token in 0..3 {
            for _ in 0..2 {
                assert_eq!(phone.session.publish(&apns_token(token), None), "result");
            }
        }
        phone.apns.answer_with(|_| Answer::Silence);
        phone
            .session
            .link
            .send(prosody_publish("held", &apns_token(9), None, true));
        phone.apns.wait_for(4, LONG);
        let start = Instant::now();
        phone.session.daemon.terminate();
        let verdict = phone.session.link.reply_to("held", LONG).verdict();
        assert_eq!(verdict, "wait/remote-server-timeout");
        assert_eq!(phone.session.daemon.wait(LONG).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let log = phone.session.daemon.log();
        assert!(log.contains("lost=3") && log.contains("undelivered=3"), "{log}");
    }
}

/// At the highest level, with every kind of answer, the log holds nothing that is nobody's business.
#[cfg(all(feature = "enable_apns_support", feature = "enable_fcm_support"))]
#[test]
fn the_log_holds_no_token_secret_sender_or_body() {
    let ca = TestCa::new();
    let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
    let p8 = ApnsKey::generate().p8();
    let modules = json!({
        "phone": {
            "type": "apple",
            "ratelimit": { "ratelimitTime": "100ms" },
            "apns": {
                "tokenKeyFilePath": "AuthKey.p8", "keyId": "KEY1234567", "teamId": "TEAM123456",
                "topic": "org.example.app", "endpoint": apns.url(), "caFilePath": "ca.pem",
                "additionalData": { "custom": "s3cr3t-of-the-app" },
            },
        },
        "android": {
            "type": "google",
            "fcm": { "fcmSecretPath": "account.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" },
        },
        "demo": { "type": "demo", "is_default_module": true },
    });
    let mut session = Session::start_with(
        &modules,
        |settings| settings,
        |daemon| {
            daemon
                .rust_log("trace")
                .file("ca.pem", ca.pem())
                .file("AuthKey.p8", &p8)
                .file("account.json", fcm.service_account("project-1"))
        },
    );
    // Providers that repeat the token in what they answer.
    apns.answer_with(|request| {
        let token = &request.token;
        match token.as_bytes().last().unwrap() % 8 {
            0 => Answer::raw(502, format!("<html>{token}</html>")),
            1 => Answer::reason_since(410, "Unregistered", 1_700_000_000_000),
            2 => Answer::reason(400, &format!("Unheard{token}")),
            3 => Answer::reason(403, "InvalidProviderToken"),
            4 => Answer::reason(429, "TooManyRequests"),
            5 => Answer::reason(400, "BadDeviceToken"),
            6 => Answer::ResetStream(Reason::REFUSED_STREAM),
            _ => Answer::Normal,
        }
    });
    fcm.answer_with(|send| {
        let token = send.token();
        let error = |code: u16, status: &str| {
            let message = format!("{token} is not a valid registration token");
            Answer::json(
                code,
                &json!({ "error": { "code": code, "status": status, "message": message } }),
            )
        };
        match token.as_bytes().last().unwrap() % 4 {
            0 => error(400, "INVALID_ARGUMENT"),
            1 => fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]),
            2 => error(418, "UNHEARD"),
            _ => Answer::Normal,
        }
    });
    let sender = "romeo@verona.example/balcony";
    let fcm_token = |n: usize| format!("{}:APA91b-{n}", "fcmtoken".repeat(16));
    for n in 0..8 {
        for (token, module) in [
            (apns_token(n), Some("phone")),
            (fcm_token(n), Some("android")),
            (fcm_token(n), Some("phone")),
            (format!("demotoken-{n}"), None),
            (format!("dead-demotoken-{n}"), Some("demo")),
            (format!("busy-demotoken-{n}"), Some("demo")),
            (format!("demotoken-{n}"), Some("unknown")),
        ] {
            let id = session.fresh_id();
            session
                .link
                .send(mongooseim_publish(&id, &token, module).from(sender));
        }
    }
    for stanza in [
        format!("<message from='{sender}' to='{DOMAIN}' type='chat'><body>But soft</body></message>"),
        format!("<presence from='{sender}' to='{DOMAIN}' type='subscribe'/>"),
        format!("<iq from='{sender}' to='{DOMAIN}' type='set' id='1'><a>But soft</b></iq>"),
        format!(
            "<iq from='{sender}' to='{DOMAIN}' type='set' id='2'><a>{}But soft</a></iq>",
            "x".repeat(2 << 20)
        ),
    ] {
        session.link.send(stanza);
    }
    apns.wait_for(8, LONG);
    fcm.wait_for(8, LONG);
    let access_token = fcm.sends()[0].bearer.clone().unwrap();
    let jwt = apns.requests()[0].header("authorization").unwrap().to_owned();
    session.daemon.terminate();
    session.daemon.wait(LONG);

    let log = session.daemon.log();
    assert!(
        log.contains("DEBUG") && log.contains("push failed") && log.contains("verona.example"),
        "{log}"
    );
    let account: Value = serde_json::from_str(&fcm.service_account("project-1")).unwrap();
    let (_, jwt) = jwt.split_once(' ').unwrap();
    let mut secrets = vec![
        SECRET.to_owned(),
        "s3cr3t-of-the-app".to_owned(),
        "romeo".to_owned(),
        "balcony".to_owned(),
        "But soft".to_owned(),
        "demotoken".to_owned(),
        "fcmtoken".to_owned(),
        access_token,
        jwt.to_owned(),
        jwt.rsplit('.').next().unwrap().to_owned(),
    ];
    secrets.extend((0..8).map(apns_token));
    for pem in [&p8, account["private_key"].as_str().unwrap()] {
        secrets.extend(
            pem.lines()
                .filter(|line| !line.starts_with('-'))
                .map(str::to_owned),
        );
    }
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret:?} stands in the log: {line:?}");
    }
}

#[cfg(feature = "enable_apns_support")]
use apple::*;

#[cfg(feature = "enable_apns_support")]
mod apple {
    use super::{Session, json};
    pub(super) use fpush_testkit::{Answer, FakeApns, TestCa, fixture};
    #[cfg(feature = "enable_fcm_support")]
    pub(super) use fpush_testkit::{ApnsKey, FakeFcm, Reason, fcm_error};
    use serde_json::Value;

    /// An `apple` module with the certificate of the fixtures.
    pub(super) fn apple(default: bool, endpoint: &str, extra: Value) -> Value {
        let mut apns = json!({
            "certFilePath": fixture("aps.pem"),
            "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app",
            "endpoint": endpoint,
        });
        apns.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({
            "type": "apple",
            "is_default_module": default,
            "ratelimit": { "enabled": false },
            "apns": apns,
        })
    }

    /// A token that can be one of Apple's.
    pub(super) fn apns_token(n: usize) -> String {
        format!("{:062x}{n:02x}", 0xc0ffee)
    }

    /// A session with an `apple` module in front of a fake APNs.
    pub(super) struct Phone {
        pub(super) session: Session,
        pub(super) apns: FakeApns,
    }

    impl Phone {
        pub(super) fn start(ratelimit: Value, rust_log: &str) -> Self {
            let ca = TestCa::new();
            let apns = FakeApns::start(&ca);
            let mut module = apple(true, &apns.url(), json!({ "caFilePath": "ca.pem" }));
            module["ratelimit"] = ratelimit;
            let session = Session::start_with(
                &json!({ "phone": module }),
                |settings| settings,
                |daemon| daemon.file("ca.pem", ca.pem()).rust_log(rust_log),
            );
            Self { session, apns }
        }
    }
}
