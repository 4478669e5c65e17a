use proptest::prelude::*;

use super::*;
use crate::stream::{Cutter, Piece};

fn read(stanza: &str) -> Option<Incoming<'static>> {
    Incoming::read(Stanza::cut(stanza.as_bytes()).unwrap())
}

#[test]
fn requests_are_told_apart() {
    let read = |kind: &str, children: &str| {
        let stanza = format!("<iq type='{kind}' from='a' to='b' id='1'>{children}</iq>");
        read(&stanza).map(|incoming| incoming.request)
    };
    let pubsub = |inner: &str| format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub>");
    let table = [
        (
            "get",
            "<ping xmlns='urn:xmpp:ping'/>".to_owned(),
            Some(Request::Ping("1".into())),
        ),
        (
            "set",
            "<ping xmlns='urn:xmpp:ping'/>".to_owned(),
            Some(Request::Unknown),
        ),
        ("get", "<ping/>".to_owned(), Some(Request::Unknown)),
        (
            "get",
            "<query xmlns='jabber:iq:version'/>".to_owned(),
            Some(Request::Version),
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items'/>".into(),
            Some(Request::DiscoItems(None)),
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>".into(),
            Some(Request::DiscoInfo(None)),
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>".into(),
            Some(Request::DiscoInfo(Some("n".into()))),
        ),
        ("get", pubsub("<publish node='x'/>"), Some(Request::OtherPubsub)),
        ("set", pubsub("<publish node=''/>"), Some(Request::NoNode)),
        ("set", pubsub("<create node='x'/>"), Some(Request::OtherPubsub)),
        ("set", pubsub(""), Some(Request::OtherPubsub)),
        ("set", String::new(), Some(Request::Malformed)),
        ("set", "<a/><b/>".to_owned(), Some(Request::Malformed)),
        ("set", "<a></b>".to_owned(), Some(Request::Unreadable)),
        ("result", "<ping xmlns='urn:xmpp:ping'/>".to_owned(), None),
        ("error", "<ping xmlns='urn:xmpp:ping'/>".to_owned(), None),
    ];
    for (kind, children, expected) in table {
        assert_eq!(read(kind, &children), expected, "{kind} {children}");
    }
    let foreign = format!(
        "<foreign xmlns='x'/>{}<more xmlns='y'/>",
        pubsub("<x/><publish node='n'/>")
    );
    assert!(matches!(read("set", &foreign), Some(Request::Publish(_))));
}

#[test]
fn what_wants_no_answer_gets_none() {
    for stanza in [
        "<iq type='get' from='a' to='b'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' to='b' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq from='a' to='b' id='1'/>",
        "<message from='a' to='b' type='chat'><body>x</body></message>",
        "<presence from='a' to='b' type='probe'/>",
        "<presence from='a' to='b'/>",
        "<iq xmlns='urn:else' type='get' from='a' to='b' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<something xmlns='else'/>",
        "<iq type='get' from='a<' to='b' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' from='a' to='b' id='&nope;'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<<></<>",
        "<></>",
    ] {
        assert_eq!(read(stanza), None, "{stanza}");
    }
}

#[test]
fn of_a_stanza_that_was_too_large_the_sender_is_known() {
    let too_large = |head: &'static str| Incoming::too_large(head.as_bytes());
    let incoming = too_large("<iq type='set' from='u@a.example/r' to='push.example' id='1'>").unwrap();
    assert_eq!(
        (incoming.request, &*incoming.domain),
        (Request::Unreadable, "a.example")
    );
    for head in [
        "<presence type='subscribe' from='a.example' to='push.example'>",
        "<iq type='result' from='a.example' to='push.example' id='1'>",
        "<iq type='set' to='push.example' id='1'>",
    ] {
        assert_eq!(too_large(head), None, "{head}");
    }
}

#[test]
fn stream_errors_are_read() {
    let read = |stanza: &str| StreamError::read(Stanza::cut(stanza.as_bytes()).unwrap());
    let error = |condition: &str| {
        read(&format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        ))
    };
    assert_eq!(error("conflict"), Some(StreamError::Conflict));
    assert_eq!(
        error("system-shutdown"),
        Some(StreamError::Other("system-shutdown".into()))
    );
    assert_eq!(read("<message/>"), None);
}

#[test]
fn a_sender_is_known_by_its_domain_however_that_is_written() {
    for from in ["u@A.Example./r", "a.example", "&#65;.example", "\u{ff41}.example"] {
        assert_eq!(sender_domain(from).unwrap(), "a.example", "{from}");
    }
}

#[test]
fn the_domain_of_every_kind_of_address() {
    for jid in ["a.example", "a.example/r@x/y", "u@a.example", "u@a.example/r"] {
        assert_eq!(domain_of(jid), "a.example");
    }
}

/// Cuts and reads what was received; `true` for each piece that is a publish.
fn read_all(cutter: &mut Cutter, received: &[u8]) -> Vec<bool> {
    cutter.space().extend_from_slice(received);
    let mut publishes = Vec::new();
    while let Some(piece) = cutter.next() {
        publishes.push(match piece {
            Piece::Stanza(stanza) => {
                StreamError::read(stanza);
                Incoming::read(stanza).is_some_and(|incoming| matches!(incoming.request, Request::Publish(_)))
            }
            Piece::Oversized(head) => {
                head.as_deref().and_then(Incoming::too_large);
                false
            }
            Piece::End => false,
        });
    }
    publishes
}

const PUBLISH: &[u8] = concat!(
    "<iq type='set' from='a.example' to=\"push.example\" id='1'>",
    "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item><!-- x -->",
    "<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='message-count'>",
    "<value>1&lt;é<![CDATA[>]]></value></field></x></notification></item></publish></pubsub></iq>"
)
.as_bytes();

/// Replaces pieces of a publish.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        "[<>/!?&;:='\"\\[\\] -]{0,4}".prop_map(String::into_bytes),
        "<(/|!|\\?|!--|!\\[CDATA\\[|!DOCTYPE )?[a-z]?".prop_map(String::into_bytes),
        " ?xmlns(:[a-z])?='?".prop_map(String::into_bytes),
    ];
    prop::collection::vec((0..PUBLISH.len(), 0..6_usize, piece), 0..6).prop_map(|pieces| {
        let mut stanza = PUBLISH.to_vec();
        for (at, length, piece) in pieces {
            let at = at.min(stanza.len());
            let end = (at + length).min(stanza.len());
            stanza.splice(at..end, piece);
        }
        stanza
    })
}

proptest! {
    /// Whatever comes, nothing panics; and once a stanza has ended nothing of it is left.
    #[test]
    fn what_is_not_xml_harms_nothing(
        stanzas in prop::collection::vec(mutated(), 1..4),
        limit in 50..1_000_usize,
        size in 1..200_usize,
    ) {
        let mut cutter = Cutter::new(limit.max(PUBLISH.len()), b"");
        for chunk in stanzas.concat().chunks(size) {
            read_all(&mut cutter, chunk);
        }
        if !cutter.in_stanza() {
            prop_assert_eq!(read_all(&mut cutter, PUBLISH), [true]);
        }
    }

    /// As long as its tags are in order, a stanza may hold any bytes.
    #[test]
    fn bytes_between_the_tags_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..40), size in 1..50_usize) {
        let without = |special: &[u8]| -> Vec<u8> {
            bytes.iter().copied().filter(|byte| !special.contains(byte)).collect()
        };
        let stanza = [
            b"<iq type='set' from='a' to='b' id='1' ", &without(b"<>'\"/")[..],
            b" c='", &without(b"'"),
            b"'><d", &without(b"<>'\"/"),
            b">", &without(b"<"),
            b"<!--", &without(b"-"),
            b"--><![CDATA[", &without(b"]"),
            b"]]></d", &without(b">"),
            b"></iq>", PUBLISH,
        ].concat();
        let mut cutter = Cutter::new(1_000, b"");
        let publishes: Vec<bool> = stanza.chunks(size).flat_map(|chunk| read_all(&mut cutter, chunk)).collect();
        prop_assert_eq!(publishes, [false, true]);
    }
}

fn publish(item: &str, options: &str) -> Publish<'static> {
    let stanza = format!(
        "<iq type='set' from='a.example/res' to='push.example' id='1'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='TOKEN'>{item}</publish>{options}\
         </pubsub></iq>"
    );
    let mut cursor = Cursor::new(Stanza::cut(stanza.as_bytes()).unwrap()).unwrap();
    let iq = cursor.root().unwrap();
    let pubsub = cursor.child(&iq).unwrap().unwrap();
    let Request::Publish(publish) = Publish::read(&mut cursor, &pubsub).unwrap() else {
        panic!("no publish")
    };
    assert_eq!(publish.node, "TOKEN");
    publish
}

fn urgency(notification: &str) -> Urgency {
    publish(
        &format!("<item><notification xmlns='urn:xmpp:push:0'>{notification}</notification></item>"),
        "",
    )
    .urgency
}

fn summary(fields: &str) -> String {
    format!("<x xmlns='jabber:x:data'>{fields}</x>")
}

#[test]
fn the_priority_decision() {
    let body = "<field var='last-message-body'><value>New Message!</value></field>";
    let no_body = "<field var='last-message-body' type='text-single'/>";
    let priority = |word: &str| format!("<priority xmlns='tigase:push:priority:0'>{word}</priority>");
    let encrypted =
        |kind: &str| format!("<encrypted xmlns='tigase:push:encrypt:0' iv='A' {kind}>x</encrypted>");
    let table = [
        (String::new(), Urgency::Low),
        (summary(body), Urgency::High),
        (summary(no_body), Urgency::Low),
        (
            summary("<field var='last-message-body'><value/></field>"),
            Urgency::Low,
        ),
        (
            summary("<field var='message-count'><value>0</value></field>"),
            Urgency::Low,
        ),
        (
            summary("<field var='message-count'><value>3</value></field>"),
            Urgency::High,
        ),
        (
            summary(&format!(
                "<field var='message-count'><value>0</value></field>{body}"
            )),
            Urgency::High,
        ),
        (priority("high"), Urgency::High),
        (priority("low"), Urgency::Low),
        (priority("high") + &summary(no_body), Urgency::High),
        (priority("low") + &summary(body), Urgency::High),
        (encrypted(""), Urgency::Low),
        (encrypted("") + &priority("high"), Urgency::High),
        (encrypted("type='voip'"), Urgency::Voip),
        (
            "<jingle xmlns='tigase:push:jingle:0' action='propose'/>".to_owned(),
            Urgency::Voip,
        ),
        (
            "<jingle xmlns='tigase:push:jingle:0' action='accept'/>".to_owned() + &summary(no_body),
            Urgency::Low,
        ),
        ("<something xmlns='else'/>".to_owned(), Urgency::High),
    ];
    for (notification, expected) in table {
        assert_eq!(urgency(&notification), expected, "{notification}");
    }
}

#[test]
fn the_summary_beside_the_notification_counts() {
    let beside = |body: &str| {
        let field = format!("<field var='last-message-body'>{body}</field>");
        let item = format!(
            "<item><notification xmlns='urn:xmpp:push:0'/>{}</item>",
            summary(&field)
        );
        publish(&item, "").urgency
    };
    assert_eq!(beside("<value>New Message!</value>"), Urgency::High);
    assert_eq!(beside(""), Urgency::Low);
}

#[test]
fn the_push_module_is_found_wherever_it_stands() {
    let module = |options: &str| publish("", options).push_module.map(Cow::into_owned);
    let form =
        |fields: &str| format!("<publish-options><x xmlns='jabber:x:data'>{fields}</x></publish-options>");
    let many: String = (0..20)
        .map(|n| format!("<field var='f{n}'><value>v</value></field>"))
        .collect();
    let field = "<field var='pushModule'><value>m</value><value>n</value></field>";
    assert_eq!(module(&form(&format!("{many}{field}"))), Some("m".into()));
    assert_eq!(module(&form(field)), Some("m".into()));
    assert_eq!(module(&form(&many)), None);
    assert_eq!(module(&form("<field var='pushModule'/>")), None);
    assert_eq!(module("<publish-options/>"), None);
    assert_eq!(module(""), None);
}

#[test]
fn the_secret_is_found_beside_the_push_module() {
    let read = |fields: &str| {
        let options = format!("<publish-options><x xmlns='jabber:x:data'>{fields}</x></publish-options>");
        let publish = publish("", &options);
        [publish.secret, publish.push_module].map(|value| value.map(Cow::into_owned))
    };
    let field = |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    assert_eq!(read(&field("secret", "s")), [Some("s".to_owned()), None]);
    let both = field("pushModule", "m") + &field("secret", "s") + &field("secret", "t");
    assert_eq!(read(&both), [Some("s".to_owned()), Some("m".to_owned())]);
}

#[test]
fn what_is_encrypted_is_relayed_if_it_is_base64() {
    let read = |iv: &str, text: &str| {
        let item = format!(
            "<item><notification xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0' iv='{iv}'>\
             {text}</encrypted></notification></item>"
        );
        publish(&item, "")
            .encrypted
            .map(|Encrypted { iv, ciphertext }| (iv.into_string(), ciphertext.into_string()))
    };
    assert_eq!(
        read("AA==", "c2Vj+/"),
        Some(("AA==".to_owned(), "c2Vj+/".to_owned()))
    );
    assert_eq!(read("", "c2Vj"), None);
    assert_eq!(read("AA==", ""), None);
    assert_eq!(read("AA==", "a b"), None);
    assert_eq!(read("AA==", &"x".repeat(MAX_CIPHERTEXT + 1)), None);
    assert_eq!(read(&"A".repeat(MAX_IV + 1), "c2Vj"), None);
}
