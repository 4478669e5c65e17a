//! The fake XMPP server, as a component on a bare socket sees it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fpush_testkit::fake_xmpp::{AcceptError, End, ErrorChild};
use fpush_testkit::publish::{
    ejabberd_publish, metronome_publish, mongooseim_publish, openfire_publish, prosody_debian11_publish,
    prosody_encrypted_publish, prosody_publish, tigase_call_publish, tigase_publish,
};
use fpush_testkit::{FakeXmpp, LONG, Link, Refusal, Reply};
use sha1::{Digest as _, Sha1};

const SHORT: Duration = Duration::from_millis(100);
const DOMAIN: &str = "push.localhost";

struct Component {
    socket: TcpStream,
}

impl Component {
    fn connect(server: &FakeXmpp, domain: &str) -> Self {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let component = Self { socket };
        component.write(&format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' xmlns='jabber:component:accept' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        ));
        component
    }

    /// Connects and logs in with an id that the server was told.
    fn log_in(server: &FakeXmpp, id: &str, secret: &str) -> Self {
        server.set_stream_id(id);
        let component = Self::connect(server, DOMAIN);
        component.write(&format!(
            "<handshake>{:x}</handshake>",
            Bytes::copy_from_slice(&Sha1::digest(format!("{id}{secret}")))
        ));
        component
    }

    fn write(&self, text: &str) {
        (&self.socket).write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the text read ends so.
    fn read_to(&self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let mut byte = [0];
            assert_eq!(
                (&self.socket).read(&mut byte).unwrap(),
                1,
                "the end instead of {end:?} after {text:?}"
            );
            text.push(char::from(byte[0]));
        }
        text
    }

    fn read_to_close(&self) -> String {
        let mut text = String::new();
        (&self.socket).read_to_string(&mut text).unwrap();
        text
    }
}

fn linked() -> (FakeXmpp, Link, Component) {
    let server = FakeXmpp::start(DOMAIN, "secret");
    let component = Component::log_in(&server, "s1", "secret");
    let link = server.accept(LONG);
    component.read_to("<handshake/>");
    (server, link, component)
}

#[test]
fn a_component_logs_in() {
    let server = FakeXmpp::start(DOMAIN, "secret");
    // The digest of XEP-0114 is made of the id behind the escapes.
    let component = Component::log_in(&server, "a&'<b", "secret");
    let _link = server.accept(LONG);
    let header = component.read_to("<handshake/>");
    assert!(
        header.contains("from='push.localhost' id='a&amp;&apos;&lt;b'>"),
        "{header}"
    );
}

#[test]
fn a_wrong_login_is_refused() {
    let server = FakeXmpp::start(DOMAIN, "secret");
    let component = Component::log_in(&server, "s1", "wrong");
    assert_eq!(server.try_accept(LONG).err(), Some(AcceptError::WrongSecret));
    assert!(component.read_to("</stream:stream>").contains("<not-authorized "));

    let component = Component::connect(&server, "other");
    assert_eq!(
        server.try_accept(LONG).err(),
        Some(AcceptError::WrongDomain("other".to_owned()))
    );
    assert!(component.read_to("</stream:stream>").contains("<host-unknown "));

    let _component = Component::connect(&server, DOMAIN);
    assert_eq!(server.try_accept(SHORT).err(), Some(AcceptError::Timeout));
    assert_eq!(
        server.try_accept(Duration::ZERO).err(),
        Some(AcceptError::Timeout)
    );

    TcpStream::connect(server.address())
        .unwrap()
        .write_all(b"<stream:stream xmlns='jabber:client'>")
        .unwrap();
    assert!(matches!(
        server.try_accept(LONG).err(),
        Some(AcceptError::Protocol(_))
    ));
}

#[test]
fn refuses_as_told() {
    let server = FakeXmpp::start(DOMAIN, "secret");
    for (refusal, said) in [
        (Refusal::HostUnknown, "<host-unknown "),
        (Refusal::NotAuthorized, "<not-authorized "),
        (Refusal::Conflict, "<conflict "),
        (Refusal::Close, ""),
    ] {
        let component = Component::log_in(&server, "s1", "secret");
        let read = thread::spawn(move || component.read_to_close());
        server.refuse(refusal, LONG);
        let (_, rest) = read
            .join()
            .unwrap()
            .split_once("id='s1'>")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert!(rest.contains(said), "{refusal:?}: {rest}");
        assert_eq!(rest.is_empty(), refusal == Refusal::Close, "{refusal:?}: {rest}");
        assert!(!rest.contains("<handshake"));
    }
}

#[test]
fn closes_and_opens_its_port() {
    let server = FakeXmpp::start(DOMAIN, "secret");
    server.close_port();
    assert_eq!(
        TcpStream::connect(server.address()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    server.open_port();
    let _component = Component::log_in(&server, "s1", "secret");
    server.accept(LONG);
}

#[test]
fn stanzas_pass_byte_by_byte() {
    let (_server, mut link, component) = linked();
    link.send(prosody_publish("p1", "tok", Some("m"), true));
    assert_eq!(
        component.read_to("</iq>"),
        prosody_publish("p1", "tok", Some("m"), true).to_string()
    );
    link.send_split("<iq id='ü'></iq>", 3);
    assert_eq!(
        component.read_to("</iq>").len(),
        "<iq id='ü'></iq>".len() + "ü".len()
    );
    link.send_bytes(b"<a/>");
    component.read_to("<a/>");

    let odd = "<iq  id = \"a>b\" to='a.example'><x>&amp;<![CDATA[</iq>]]></x ></iq >";
    component.write("  \n");
    component.write(&odd[..20]);
    component.write(&format!("{}<message/>", &odd[20..]));
    assert_eq!(link.next_stanza(LONG), odd);
    assert_eq!(link.next_stanza(LONG), "<message/>");
    link.expect_silence(SHORT);
}

#[test]
fn replies_are_found_among_others() {
    let (_server, mut link, component) = linked();
    component.write(
        "<iq type='get' id='2' to='a.example'/><iq type='result' id='1' from='f' to='t'/><message id='2'/>\
         <iq type='error' id='a&apos;&#38;b' to='a.example/r&amp;s' from='push.localhost'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>why</text><own/></error></iq>\
         <iq type='result' id='2'><query xmlns='q'><error type='x'/></query></iq>",
    );
    for id in ["a'&b", "a&apos;&amp;b", "a&apos;&#38;b"] {
        let (_server, mut link, component) = linked();
        component.write("<iq type='result' id='a&apos;&#38;b'/>");
        assert_eq!(link.reply_to(id, LONG).id, "a&apos;&#38;b");
    }
    let reply = link.reply_to("a'&b", LONG);
    assert_eq!(reply.verdict(), "cancel/item-not-found");
    assert_eq!(
        (reply.to.as_deref(), reply.from.as_deref()),
        (Some("a.example/r&amp;s"), Some(DOMAIN))
    );
    let child = |name: &str, namespace: &str, text: &str| ErrorChild {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        text: text.to_owned(),
    };
    let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
    assert_eq!(
        reply.error_children,
        [
            child("item-not-found", stanzas, ""),
            child("text", stanzas, "why"),
            child("own", "jabber:component:accept", "")
        ]
    );
    let two = link.reply_to("2", LONG);
    assert_eq!(
        (two.verdict().as_str(), two.error_type, two.error_children.len()),
        ("result", None, 0)
    );
    let one = link.reply_to("1", LONG);
    assert_eq!(
        (one.is_result(), one.raw.as_str()),
        (true, "<iq type='result' id='1' from='f' to='t'/>")
    );
    assert_eq!(link.next_stanza(LONG), "<iq type='get' id='2' to='a.example'/>");
    assert_eq!(link.pending(), ["<message id='2'/>"]);

    let panic = catch_unwind(AssertUnwindSafe(|| link.reply_to("3", Duration::from_millis(20)))).unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .starts_with("no reply to \"3\" within 20ms")
    );
}

#[test]
fn a_malformed_reply_panics() {
    for raw in [
        "<iq type='error' id='1'><error></iq>",
        "<iq type='result'/>",
        "<iq type='result' id='1' id='2'/>",
    ] {
        assert!(catch_unwind(|| Reply::parse(raw)).is_err(), "{raw}");
    }
}

#[test]
fn iqs_to_its_own_domain_go_back() {
    let (_server, mut link, component) = linked();
    for to in [
        "push.localhost",
        "any@push.localhost",
        "push.localhost/r",
        "any@push.localhost/r@s",
    ] {
        let ping = format!(
            "<iq type='get' id='1' to='{to}' from='push.localhost'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        component.write(&ping);
        assert_eq!(component.read_to("</iq>"), ping);
    }
    component.write(
        "<iq to='a.push.localhost'/><iq to='push.localhost@a.example'/><message to='push.localhost'/>",
    );
    for _ in 0..3 {
        link.next_stanza(LONG);
    }
    assert_eq!(link.routed(), 4);
    link.route_self(false);
    component.write("<iq to='push.localhost'/>");
    assert_eq!(link.next_stanza(LONG), "<iq to='push.localhost'/>");
}

#[test]
fn the_component_ends_the_stream() {
    let (_server, mut link, component) = linked();
    component.write("<iq/></stream:stream>");
    assert!(catch_unwind(AssertUnwindSafe(|| link.expect_end(SHORT))).is_err());
    drop(component);
    assert_eq!(link.expect_end(LONG), End { stream_closed: true });
    assert_eq!(link.next_stanza(LONG), "<iq/>");
    assert!(catch_unwind(AssertUnwindSafe(|| link.next_stanza(LONG))).is_err());

    let (_server, mut link, component) = linked();
    drop(component);
    assert_eq!(link.expect_end(LONG), End { stream_closed: false });
}

#[test]
fn the_server_ends_the_stream() {
    let (_server, link, component) = linked();
    link.close();
    component.read_to("</stream:stream>");
    link.drop_tcp();
    assert_eq!(component.read_to_close(), "");

    let (_server, link, component) = linked();
    link.stream_error("conflict");
    assert_eq!(
        component.read_to("</stream:stream>"),
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    );
    drop(link);
}

#[test]
fn garbage_breaks_the_stream() {
    let (_server, mut link, component) = linked();
    component.write("<iq/>garbage<iq/>");
    assert_eq!(link.next_stanza(LONG), "<iq/>");
    assert!(catch_unwind(AssertUnwindSafe(|| link.expect_end(LONG))).is_err());
}

#[test]
fn a_paused_link_lets_the_component_wait() {
    let (_server, mut link, component) = linked();
    link.pause_reading(true);
    component.socket.set_write_timeout(Some(SHORT)).unwrap();
    let stanza = format!("<iq>{}</iq>", "x".repeat(50_000 - 9));
    let mut written = 0;
    let error = loop {
        match (&component.socket).write(&stanza.as_bytes()[written % stanza.len()..]) {
            Ok(n) => written += n,
            Err(error) => break error,
        }
        assert!(written < 100_000_000);
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    link.expect_silence(SHORT);
    link.pause_reading(false);
    assert_eq!(link.next_stanza(LONG), stanza);
}

#[test]
fn every_publish_is_what_its_server_sends() {
    let all = [
        prosody_publish("i", "n", Some("m"), true),
        prosody_publish("i", "n", None, false),
        prosody_debian11_publish("i", "n", Some("m"), true),
        prosody_encrypted_publish("i", "n", None, true, true),
        ejabberd_publish("i", "n", Some("m"), true),
        ejabberd_publish("i", "n", None, false),
        mongooseim_publish("i", "n", Some("m")),
        tigase_publish("i", "n", Some("m"), 3, true),
        tigase_call_publish("i", "n", None),
        metronome_publish("i", "n", Some("S")),
        openfire_publish("i", "n", Some("m")),
    ];
    for publish in &all {
        let text = publish.to_string();
        // Well-formed, which the parser of replies checks.
        Reply::parse(&text);
        assert!(
            text.contains(" to='push.localhost' id='i'><pubsub xmlns='http://jabber.org/protocol/pubsub'>")
        );
        assert!(
            text.contains("<publish node='n'><item><notification xmlns='urn:xmpp:push:0'"),
            "{text}"
        );
    }
    let [
        prosody,
        quiet,
        debian11,
        encrypted,
        ejabberd,
        empty,
        mongooseim,
        tigase,
        call,
        metronome,
        openfire,
    ] = all.map(|publish| publish.to_string());
    assert_eq!(
        prosody,
        "<iq type='set' from='a.example' to='push.localhost' id='i'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='n'><item><notification xmlns='urn:xmpp:push:0'>\
         <x xmlns='jabber:x:data' type='form'>\
         <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
         <field var='message-count' type='text-single'><value>1</value></field>\
         <field var='pending-subscription-count' type='text-single'/>\
         <field var='last-message-sender' type='jid-single'/>\
         <field var='last-message-body' type='text-single'><value>New Message!</value></field>\
         </x></notification></item></publish>\
         <publish-options><x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
         <field var='pushModule'><value>m</value></field></x></publish-options></pubsub></iq>"
    );
    assert!(
        quiet.contains("<field var='last-message-body' type='text-single'/>") && !quiet.contains("options")
    );
    assert!(
        debian11
            .contains("<item><notification xmlns='urn:xmpp:push:0'/><x xmlns='jabber:x:data' type='form'>")
    );
    assert!(
        encrypted.contains(" type='voip'>")
            && encrypted.contains(">high</priority>")
            && !encrypted.contains("<x ")
    );
    assert!(ejabberd.contains("type='submit'><field var='FORM_TYPE' type='hidden'>"));
    assert!(!ejabberd.contains("message-count") && ejabberd.contains("last-message-body"));
    assert!(empty.contains("<item><notification xmlns='urn:xmpp:push:0'/></item></publish></pubsub>"));
    assert!(
        mongooseim.contains("<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#")
    );
    assert!(tigase.contains(" from='a.example/push-1' ") && tigase.contains("<value>3</value>"));
    assert!(
        tigase.contains("<x xmlns='jabber:x:data'><field var='FORM_TYPE'><value>")
            && !tigase.contains("jingle")
    );
    assert!(call.contains("<jingle xmlns='tigase:push:jingle:0' action='propose' sid='s1'>"));
    assert!(metronome.contains("<publish-options><x xmlns='jabber:x:data'><field var='FORM_TYPE'>"));
    assert!(metronome.contains("<field var='secret'><value>S</value></field></x>"));
    assert!(openfire.contains("<field var='last-message-sender'/>"));

    let escaped = prosody_publish("a'b", "<n>", Some("m&m"), true)
        .from("u@b.example/\"")
        .to("p.example")
        .to_string();
    Reply::parse(&escaped);
    assert!(
        escaped.contains("from='u@b.example/&quot;' to='p.example' id='a&apos;b'"),
        "{escaped}"
    );
    assert!(
        escaped.contains("node='&lt;n&gt;'") && escaped.contains("<value>m&amp;m</value>"),
        "{escaped}"
    );
}
