//! Reading in one pass a publish as servers write them: elements and attributes without prefixes, nothing escaped, no space
//! between elements, the form and what it may hold in the usual places.
//!
//! That is nearly every publish, and a third of the work that a push makes. Whatever else may come, the reader of all stanzas
//! ([`Incoming::read`]) reads: this one only takes what that one would read in the same way, which the tests and the fuzz
//! target compare.

use std::borrow::Cow;

use memchr::{memchr, memmem};
use xmpp_parsers::ns;

use crate::{
    addresses::Addresses,
    request::{Incoming, Options, PRIORITY, Publish, Request, Signs, is_stanza_namespace, sender_domain},
};

/// Reads the publish that the bytes begin with. Returns also how many bytes it has; `None` if it is written in another way, or
/// if it is not all there.
pub(crate) fn read(bytes: &[u8]) -> Option<(Incoming<'_>, usize)> {
    if !bytes.starts_with(b"<iq ") {
        return None;
    }
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let length = memmem::find(bytes, END)? + END.len();
    let bytes = &bytes[..length];
    if memchr(b'&', bytes).is_some() {
        return None;
    }
    let mut reader = Reader(std::str::from_utf8(bytes).ok()?);
    let incoming = reader.iq()?;
    // What looks like the end may be within a value.
    reader.0.is_empty().then_some((incoming, length))
}

/// What is left to be read.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn iq(&mut self) -> Option<Incoming<'a>> {
        let (mut stanza_type, mut from, mut to, mut id) = (None, None, None, None);
        self.eat("<iq")?;
        let is_empty = self.attributes(|name, value| {
            let attribute = match name {
                "type" => &mut stanza_type,
                "from" => &mut from,
                "to" => &mut to,
                "id" => &mut id,
                "xmlns" => return is_stanza_namespace(value).then_some(()),
                name => return other(name),
            };
            attribute.get_or_insert(value);
            Some(())
        })?;
        if is_empty || stanza_type != Some("set") {
            return None;
        }
        let (from, to, id) = (from?, to?, id?);
        let publish = self.pubsub()?;
        self.eat("</iq>")?;
        Some(Incoming {
            addresses: Addresses::of_reply(from, to, Some(id))?,
            domain: sender_domain(from)?,
            request: Request::Publish(publish),
        })
    }

    fn pubsub(&mut self) -> Option<Publish<'a>> {
        self.eat("<pubsub")?;
        self.open_in(ns::PUBSUB).filter(|is_empty| !is_empty)?;
        self.eat("<publish")?;
        let (node, is_empty) = self.attribute("node")?;
        if is_empty {
            return None;
        }
        let mut signs = Signs::default();
        self.item(&mut signs)?;
        self.eat("</publish>")?;
        let mut options = Options::default();
        if self.eat("<publish-options>").is_some() {
            while self.eat("</publish-options>").is_none() {
                self.form(|var, value| options.field(var, Cow::Borrowed(value)))?;
            }
        }
        self.eat("</pubsub>")?;
        let node = node.filter(|node| !node.is_empty())?;
        Some(Publish::new(Cow::Borrowed(node), options, signs))
    }

    fn item(&mut self, signs: &mut Signs) -> Option<()> {
        self.eat("<item")?;
        self.attributes(|name, _| other(name))
            .filter(|is_empty| !is_empty)?;
        self.eat("<notification")?;
        signs.notified();
        let is_empty = self.open_in(ns::PUSH)?;
        while !is_empty && self.eat("</notification>").is_none() {
            signs.notified_of_something();
            if self.eat("<priority").is_some() {
                self.open_in(PRIORITY).filter(|is_empty| !is_empty)?;
                signs.priority(self.text("</priority>")?);
            } else {
                self.form(|var, value| signs.field(var, value))?;
            }
        }
        while self.eat("</item>").is_none() {
            signs.summarized_beside();
            self.form(|var, value| signs.field(var, value))?;
        }
        Some(())
    }

    /// A data form (XEP-0004). Calls back with the name and the value of each field; one without a value has an empty one.
    fn form(&mut self, mut field: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.eat("<x")?;
        let is_empty = self.open_in(ns::DATA_FORMS)?;
        while !is_empty && self.eat("</x>").is_none() {
            self.eat("<field")?;
            let (var, is_empty) = self.attribute("var")?;
            let mut value = "";
            if !is_empty {
                if self.eat("<value>").is_some() {
                    value = self.text("</value>")?;
                } else {
                    self.eat("<value/>");
                }
                self.eat("</field>")?;
            }
            field(var?, value);
        }
        Some(())
    }

    /// What is left of a start tag behind a name, which has to declare this namespace. Returns whether its element is empty.
    fn open_in(&mut self, namespace: &str) -> Option<bool> {
        let mut is_declared = false;
        let is_empty = self.attributes(|name, value| match name {
            "xmlns" if value == namespace && !is_declared => {
                is_declared = true;
                Some(())
            }
            name => other(name),
        })?;
        is_declared.then_some(is_empty)
    }

    /// What is left of a start tag behind a name: the value of the attribute with this name, and whether the element is empty.
    fn attribute(&mut self, wanted: &str) -> Option<(Option<&'a str>, bool)> {
        let mut found = None;
        let is_empty = self.attributes(|name, value| {
            if name == wanted {
                found.get_or_insert(value);
                return Some(());
            }
            other(name)
        })?;
        Some((found, is_empty))
    }

    /// Attributes up to the end of their start tag, as long as `each` takes them. Returns whether their element is empty.
    fn attributes(&mut self, mut each: impl FnMut(&'a str, &'a str) -> Option<()>) -> Option<bool> {
        loop {
            match self.0.as_bytes() {
                [b'>', ..] => {
                    self.0 = &self.0[1..];
                    return Some(false);
                }
                [b'/', b'>', ..] => {
                    self.0 = &self.0[2..];
                    return Some(true);
                }
                [b' ', rest @ ..] => {
                    let end_of_name = rest.iter().position(|byte| !is_in_name(*byte));
                    let length = end_of_name.filter(|length| *length > 0)?;
                    let [b'=', quote @ (b'\'' | b'"'), behind @ ..] = &rest[length..] else {
                        return None;
                    };
                    let end = memchr(*quote, behind)?;
                    let (name, value) = self.0[1..].split_at(length);
                    let value = &value[2..2 + end];
                    self.0 = &self.0[1 + length + 2 + end + 1..];
                    each(name, value)?;
                }
                _ => return None,
            }
        }
    }

    /// The text up to the end tag of its element, if there is nothing else.
    fn text(&mut self, end: &str) -> Option<&'a str> {
        let (text, rest) = self.0.split_at(memchr(b'<', self.0.as_bytes())?);
        self.0 = rest;
        self.eat(end)?;
        Some(text)
    }

    /// Reads this, if it comes next.
    fn eat(&mut self, what: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(what)?;
        Some(())
    }
}

/// Takes an attribute that nothing here asks for. One that declares a namespace changes what names mean.
fn other(name: &str) -> Option<()> {
    (!name.starts_with("xmlns")).then_some(())
}

/// Those of the names of attributes that servers use.
fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_')
}

const END: &[u8] = b"</iq>";
/// In bytes. Nobody can have more than that looked through in vain.
const LONGEST: usize = 4_096;

#[cfg(test)]
mod tests {
    use fpush_testkit::publish::{
        Publish, ejabberd_publish, metronome_publish, mongooseim_publish, openfire_publish,
        prosody_debian11_publish, prosody_encrypted_publish, prosody_publish, tigase_publish,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::stream::{Cutter, Piece};

    /// Reads with both readers, which must agree if the one here reads anything. Returns whether it does.
    fn is_usual(stream: &[u8]) -> bool {
        let Some((incoming, length)) = read(stream) else {
            return false;
        };
        let mut cutter = Cutter::new(stream.len(), stream);
        let Some(Piece::Stanza(stanza)) = cutter.next() else {
            panic!("the cutter finds no stanza");
        };
        assert_eq!(stanza.bytes, &stream[..length]);
        assert_eq!(Some(incoming), Incoming::read(stanza));
        true
    }

    #[test]
    fn publishes_of_servers_are_usual() {
        let module = Some("ios");
        let usual = [
            prosody_publish("1", "n", module, true),
            prosody_publish("1", "n", module, false),
            prosody_debian11_publish("1", "n", module, true),
            ejabberd_publish("1", "n", module, true),
            ejabberd_publish("1", "n", None, false),
            tigase_publish("1", "n", module, 0, true),
            metronome_publish("1", "n", Some("secret")),
            openfire_publish("1", "n", module),
        ];
        for publish in usual {
            let publish = publish.to_string();
            assert!(is_usual(publish.as_bytes()), "{publish}");
            assert!(is_usual(format!("{publish}<iq").as_bytes()), "{publish}");
            let quoted = publish.replace('\'', "\"");
            assert!(is_usual(quoted.as_bytes()), "{quoted}");
        }
    }

    #[test]
    fn what_else_there_is_is_left_to_the_other_reader() {
        let publish = prosody_publish("1", "n", Some("ios"), true).to_string();
        let changed = [
            ("<iq ", "<iq\n"),
            ("<iq ", "<iq xmlns='else' "),
            ("<iq ", "<iq xmlns:a='b' "),
            ("type='set'", "type='get'"),
            ("type='set' ", ""),
            ("from='a.example'", "from='a.example&amp;'"),
            ("id='1'", "id='1</iq>'"),
            ("node='n'", "node=''"),
            ("node='n'", ""),
            ("node='n'", "node = 'n'"),
            ("<item>", "<item> "),
            ("<item>", "<item/><item>"),
            ("<item>", "<item xmlns='else'>"),
            ("<item>", "<!-- --><item>"),
            ("<value>", "<value xmlns='else'>"),
            ("<value>", "<value><b/>"),
            ("<value>", "<value><![CDATA[x]]>"),
            ("</publish>", "</publish><publish node='m'/>"),
            ("</pubsub>", "</pubsub><a/>"),
            ("pubsub", "p:pubsub"),
            ("urn:xmpp:push:0", "urn:xmpp:push:1"),
        ];
        for (from, to) in changed {
            assert!(publish.contains(from), "{from}");
            let changed = publish.replace(from, to);
            assert!(!is_usual(changed.as_bytes()), "{changed}");
        }
        for publish in [
            prosody_encrypted_publish("1", "n", Some("ios"), true, false),
            mongooseim_publish("1", "n", Some("ios")),
        ] {
            assert!(!is_usual(publish.to_string().as_bytes()), "{publish}");
        }
        for length in 0..publish.len() {
            assert!(!is_usual(&publish.as_bytes()[..length]), "{length} bytes");
        }
        let long = Publish::new("1", &"n".repeat(LONGEST), "", "").to_string();
        assert!(!is_usual(long.as_bytes()));
    }

    /// Pieces of publishes, and of what could come in their place.
    fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
        let piece = prop::sample::select(vec![
            "<iq",
            "</iq>",
            "<pubsub",
            "</pubsub>",
            "<publish",
            "</publish>",
            "<item",
            "</item>",
            "<notification",
            "</notification>",
            "<x",
            "</x>",
            "<field",
            "</field>",
            "<value>",
            "</value>",
            "<value/>",
            "<publish-options>",
            "</publish-options>",
            "<priority",
            "</priority>",
            ">",
            "/>",
            " ",
            " type='set'",
            " type='get'",
            " from='a.example'",
            " to=\"b\"",
            " id='1'",
            " id='2'",
            " node='n'",
            " node='m'",
            " node=''",
            " var='secret'",
            " var='pushModule'",
            " var='message-count'",
            " var='last-message-body'",
            " xmlns='http://jabber.org/protocol/pubsub'",
            " xmlns='urn:xmpp:push:0'",
            " xmlns='jabber:x:data'",
            " xmlns='tigase:push:priority:0'",
            " xmlns='jabber:client'",
            " xmlns=''",
            " xmlns:p='q'",
            "text",
            "high",
            "low",
            "0",
            "&lt;",
            "<!--x-->",
            "<b/>",
            "\u{e9}",
            "'",
            "\"",
        ]);
        prop::collection::vec(piece, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn both_readers_agree(
            server in 0_usize..6,
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..30, pieces()), 0..4),
        ) {
            let mut publish = match server {
                0 => prosody_publish("1", "n", Some("ios"), true),
                1 => ejabberd_publish("1", "n", Some("ios"), true),
                2 => tigase_publish("1", "n", Some("ios"), 2, true),
                3 => metronome_publish("1", "n", Some("secret")),
                4 => prosody_debian11_publish("1", "n", None, false),
                _ => openfire_publish("1", "n", None),
            }
            .to_string();
            for (at, removed, pieces) in changes {
                // Mostly between tags and attributes.
                let places: Vec<_> = publish.match_indices([' ', '<', '>', '/']).map(|(at, _)| at).collect();
                let Some(place) = (!places.is_empty()).then(|| *at.get(&places)) else { break };
                let end = (place + removed).min(publish.len());
                let end = (end..=publish.len()).find(|end| publish.is_char_boundary(*end)).unwrap();
                publish.replace_range(place..end, &pieces.concat());
            }
            is_usual(publish.as_bytes());
        }
    }
}
