//! What a stanza asks of us.
//!
//! Servers and clients write requests in many ways, and a publish that is not understood is a phone that does not ring. So
//! reading is lenient: unknown attributes, children and fields are skipped, the order does not matter, and nothing is
//! required but the node.

use std::borrow::Cow;

use fpush_push::canonical_domain;
use quick_xml::escape::unescape;
use xmpp_parsers::ns;

use crate::{
    command::{AdHoc, COMMANDS},
    publish::{Publish, Pubsub},
    reply::Addresses,
    stream::Stanza,
    xml::{Cursor, Malformed, Open},
};

/// A stanza that wants exactly one reply.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Incoming<'a> {
    /// Those of the reply.
    pub(crate) addresses: Addresses,
    /// The sender's domain, in the one spelling in which domains are compared.
    pub(crate) domain: Cow<'a, str>,
    /// What the sender wants.
    pub(crate) request: Request<'a>,
}

/// What somebody wants from us.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Request<'a> {
    /// XEP-0357: wake a device.
    Publish(Publish<'a>),
    /// A publish that names no node.
    NoNode,
    /// XEP-0030: what are you? With the node asked about.
    DiscoInfo(Option<Cow<'a, str>>),
    /// XEP-0030: what do you have? With the node asked about.
    DiscoItems(Option<Cow<'a, str>>),
    /// XEP-0050: do something.
    Command(AdHoc<'a>),
    /// XEP-0199.
    Ping,
    /// XEP-0092.
    Version,
    /// Any other use of pubsub.
    OtherPubsub,
    /// Any other iq.
    Unknown,
    /// An iq with not exactly one child, as RFC 6120 section 8.2.3 wants it.
    Malformed,
    /// An iq that we cannot read, or that was too large. For all we know it is a publish.
    Unreadable,
    /// A presence: the sender wants to see ours.
    Subscribe,
}

/// Why a server closes a stream (RFC 6120 section 4.9.3), as far as it makes a difference to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// Somebody else has taken our name.
    Conflict,
    /// Another condition.
    Other(String),
}

impl<'a> Incoming<'a> {
    /// Reads a stanza; `None` if it wants no reply, or if not even its start tag can be read, so that there is nobody
    /// to reply to.
    pub(crate) fn read(stanza: Stanza<'a>) -> Option<Self> {
        let mut cursor = Cursor::new(stanza).ok()?;
        let root = cursor.root().ok()?;
        let Head {
            addresses,
            domain,
            stanza_type,
        } = Head::of(&root)?;
        let request = match stanza_type {
            StanzaType::Get => Request::read(&mut cursor, &root, false),
            StanzaType::Set => Request::read(&mut cursor, &root, true),
            StanzaType::Subscribe => Ok(Request::Subscribe),
        };
        Some(Self {
            addresses,
            domain,
            request: request.unwrap_or(Request::Unreadable),
        })
    }

    /// Reads the start tag of a stanza whose content was dropped.
    pub(crate) fn too_large(head: &'a [u8]) -> Option<Self> {
        let Head {
            addresses,
            domain,
            stanza_type,
        } = Head::of(&Open::alone(head).ok()?)?;
        match stanza_type {
            StanzaType::Get | StanzaType::Set => Some(Self {
                addresses,
                domain,
                request: Request::Unreadable,
            }),
            StanzaType::Subscribe => None,
        }
    }
}

/// What the start tag says of a stanza that wants a reply.
struct Head<'a> {
    addresses: Addresses,
    domain: Cow<'a, str>,
    stanza_type: StanzaType,
}

enum StanzaType {
    Get,
    Set,
    Subscribe,
}

impl<'a> Head<'a> {
    fn of(root: &Open<'a>) -> Option<Self> {
        // A server that forgets to rename the namespace of what it passes on means it well.
        if !matches!(
            root.namespace.as_ref(),
            ns::COMPONENT | ns::JABBER_CLIENT | "jabber:server"
        ) {
            return None;
        }
        let [stanza_type, from, to, id] = root.raw_attributes(["type", "from", "to", "id"]).ok()?;
        let stanza_type = match (root.local, stanza_type?) {
            ("iq", "get") if id.is_some() => StanzaType::Get,
            ("iq", "set") if id.is_some() => StanzaType::Set,
            ("presence", "subscribe") => StanzaType::Subscribe,
            _ => return None,
        };
        Some(Self {
            addresses: Addresses::of_reply(from?, to?, id)?,
            domain: sender_domain(from?)?,
            stanza_type,
        })
    }
}

impl<'a> Request<'a> {
    fn read(cursor: &mut Cursor<'a>, iq: &Open<'a>, set: bool) -> Result<Self, Malformed> {
        let mut found = None;
        while let Some(child) = cursor.child(iq)? {
            let request = Self::of_child(cursor, iq, &child, set)?;
            if matches!(request, Self::Publish(_) | Self::NoNode) {
                return Ok(request);
            }
            if found.is_some() {
                return Ok(Self::Malformed);
            }
            found = Some(request);
        }
        Ok(found.unwrap_or(Self::Malformed))
    }

    fn of_child(
        cursor: &mut Cursor<'a>,
        iq: &Open<'a>,
        child: &Open<'a>,
        set: bool,
    ) -> Result<Self, Malformed> {
        Ok(match (child.namespace.as_ref(), child.local) {
            (ns::PUBSUB, "pubsub") if set => match Publish::read(cursor, child)? {
                Pubsub::Publish(publish) => Self::Publish(publish),
                Pubsub::NoNode => Self::NoNode,
                Pubsub::Other => Self::OtherPubsub,
            },
            (ns::PUBSUB | ns::PUBSUB_OWNER, "pubsub") => Self::OtherPubsub,
            (ns::DISCO_INFO, "query") if !set => {
                Self::DiscoInfo(child.attribute("node")?.filter(|node| !node.is_empty()))
            }
            (ns::DISCO_ITEMS, "query") if !set => {
                Self::DiscoItems(child.attribute("node")?.filter(|node| !node.is_empty()))
            }
            (COMMANDS, "command") if set => Self::Command(AdHoc::read(cursor, iq, child)?),
            (ns::PING, "ping") if !set => Self::Ping,
            (ns::VERSION, "query") if !set => Self::Version,
            _ => Self::Unknown,
        })
    }
}

impl StreamError {
    /// Reads a stanza; `None` if it is another one.
    pub(crate) fn read(stanza: Stanza<'_>) -> Option<Self> {
        let mut cursor = Cursor::new(stanza).ok()?;
        let error = cursor.root().ok()?;
        if !error.is(ns::STREAM, "error") {
            return None;
        }
        let mut condition = "unknown".to_owned();
        while let Ok(Some(child)) = cursor.child(&error) {
            if child.namespace == ns::XMPP_STREAMS && child.local != "text" {
                condition = child.local.chars().take(64).collect();
                break;
            }
        }
        Some(if condition == "conflict" {
            Self::Conflict
        } else {
            Self::Other(condition)
        })
    }
}

/// The domain of a sender, whose address is escaped yet, in the one spelling in which domains are compared.
fn sender_domain(from: &str) -> Option<Cow<'_, str>> {
    Some(match unescape(from).ok()? {
        Cow::Borrowed(from) => canonical_domain(domain_of(from)),
        Cow::Owned(from) => Cow::Owned(canonical_domain(domain_of(&from)).into_owned()),
    })
}

/// The domain of an address: between `@` and `/`, whichever of them there are (RFC 7622 section 3.2).
fn domain_of(jid: &str) -> &str {
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    bare.split_once('@').map_or(bare, |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
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
        let pubsub =
            |inner: &str| format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub>");
        let table = [
            (
                "get",
                "<ping xmlns='urn:xmpp:ping'/>".to_owned(),
                Some(Request::Ping),
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
                    Incoming::read(stanza)
                        .is_some_and(|incoming| matches!(incoming.request, Request::Publish(_)))
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
        fn what_is_no_xml_harms_nothing(
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
}
