//! What a publish says (XEP-0357), in whatever way its server writes it.

use std::borrow::Cow;

use fpush_push::{Encrypted, Urgency};
use xmpp_parsers::ns;

use crate::{
    form::read_fields,
    xml::{Cursor, Malformed, Open},
};

/// A publish. It has no `Debug` in the program: nothing of it may get into the log.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Publish<'a> {
    /// The node that the client registered.
    pub(crate) node: Cow<'a, str>,
    /// The publish option `pushModule`; an empty one counts as none.
    pub(crate) push_module: Option<Cow<'a, str>>,
    /// The publish option `secret`.
    pub(crate) secret: Option<Cow<'a, str>>,
    /// What the notification says about its importance.
    pub(crate) urgency: Urgency,
    /// What the account's server has for the app: `<encrypted xmlns='tigase:push:encrypt:0'/>`, which we cannot read.
    pub(crate) encrypted: Option<Encrypted>,
}

/// What a pubsub element holds.
pub(crate) enum Pubsub<'a> {
    Publish(Publish<'a>),
    /// A publish without a node.
    NoNode,
    /// No publish.
    Other,
}

impl<'a> Publish<'a> {
    /// Reads a pubsub element.
    pub(crate) fn read(cursor: &mut Cursor<'a>, pubsub: &Open<'a>) -> Result<Pubsub<'a>, Malformed> {
        let (mut publish, mut options) = (None, None);
        while let Some(child) = cursor.child(pubsub)? {
            if child.namespace != ns::PUBSUB {
                continue;
            }
            match child.local {
                "publish" if publish.is_none() => {
                    let node = child.attribute("node")?.filter(|node| !node.is_empty());
                    publish = Some((node, Signs::of_publish(cursor, &child)?));
                }
                "publish-options" if options.is_none() => options = Some(Options::read(cursor, &child)?),
                _ => {}
            }
        }
        let Options { push_module, secret } = options.unwrap_or_default();
        Ok(match publish {
            Some((Some(node), signs)) => Pubsub::Publish(Self {
                node,
                push_module: push_module.filter(|name| !name.is_empty()),
                secret,
                urgency: signs.urgency(),
                encrypted: signs.encrypted,
            }),
            Some((None, _)) => Pubsub::NoNode,
            None => Pubsub::Other,
        })
    }

    /// The same without the stanza that it came in.
    pub(crate) fn into_owned(self) -> Publish<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Publish {
            node: owned(self.node),
            push_module: self.push_module.map(owned),
            secret: self.secret.map(owned),
            urgency: self.urgency,
            encrypted: self.encrypted,
        }
    }

    /// How many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let encrypted = self.encrypted.as_ref();
        let texts = [Some(&self.node), self.push_module.as_ref(), self.secret.as_ref()];
        texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + encrypted.map_or(0, |encrypted| encrypted.iv.len() + encrypted.ciphertext.len())
    }
}

/// The fields of the publish options that mean something here, wherever they stand among the others.
#[derive(Default)]
struct Options<'a> {
    push_module: Option<Cow<'a, str>>,
    secret: Option<Cow<'a, str>>,
}

impl<'a> Options<'a> {
    fn read(cursor: &mut Cursor<'a>, options: &Open<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        while let Some(form) = cursor.child(options)? {
            if form.is(ns::DATA_FORMS, "x") {
                read_fields(cursor, &form, |var, value| {
                    let field = match &*var {
                        "pushModule" => &mut found.push_module,
                        "secret" => &mut found.secret,
                        _ => return,
                    };
                    field.get_or_insert(value);
                })?;
            }
        }
        Ok(found)
    }
}

/// The signs in a notification that tell how much it matters.
#[derive(Default)]
struct Signs {
    call: bool,
    high: bool,
    low: bool,
    /// There is a notification, and nothing in it.
    empty: bool,
    /// There is a summary beside the notification.
    beside: bool,
    encrypted: Option<Encrypted>,
}

impl Signs {
    /// High wins where the signs contradict each other, and where there is none.
    fn urgency(&self) -> Urgency {
        if self.call {
            return Urgency::Call;
        }
        let low = self.low || self.empty && !self.beside;
        if low && !self.high {
            Urgency::Low
        } else {
            Urgency::High
        }
    }

    fn of_publish<'a>(cursor: &mut Cursor<'a>, publish: &Open<'a>) -> Result<Self, Malformed> {
        let mut signs = Self::default();
        let mut item_read = false;
        while let Some(item) = cursor.child(publish)? {
            if item_read || !item.is(ns::PUBSUB, "item") {
                continue;
            }
            let mut notification_read = false;
            while let Some(child) = cursor.child(&item)? {
                match (child.namespace.as_ref(), child.local) {
                    (ns::PUSH, "notification") if !notification_read => {
                        notification_read = true;
                        signs.read_notification(cursor, &child)?;
                    }
                    // Debian 11's Prosody puts the summary beside the notification.
                    (ns::DATA_FORMS, "x") => {
                        signs.beside = true;
                        signs.read_summary(cursor, &child)?;
                    }
                    _ => {}
                }
            }
            item_read = notification_read;
        }
        Ok(signs)
    }

    fn read_notification<'a>(
        &mut self,
        cursor: &mut Cursor<'a>,
        notification: &Open<'a>,
    ) -> Result<(), Malformed> {
        let (mut encrypted, mut tagged) = (false, false);
        self.empty = true;
        while let Some(child) = cursor.child(notification)? {
            self.empty = false;
            match (child.namespace.as_ref(), child.local) {
                (ns::DATA_FORMS, "x") => self.read_summary(cursor, &child)?,
                (PRIORITY, "priority") => {
                    tagged = true;
                    match cursor.text(&child)?.trim() {
                        "high" => self.high = true,
                        "low" => self.low = true,
                        _ => {}
                    }
                }
                (ENCRYPT, "encrypted") => {
                    encrypted = true;
                    self.call |= child.attribute("type")?.as_deref() == Some("voip");
                    if self.encrypted.is_none() {
                        self.encrypted = read_encrypted(cursor, &child)?;
                    }
                }
                (JINGLE, "jingle") => self.call |= child.attribute("action")?.as_deref() == Some("propose"),
                _ => {}
            }
        }
        self.low |= encrypted && !tagged;
        Ok(())
    }

    fn read_summary<'a>(&mut self, cursor: &mut Cursor<'a>, form: &Open<'a>) -> Result<(), Malformed> {
        read_fields(cursor, form, |var, value| match &*var {
            "last-message-body" if value.is_empty() => self.low = true,
            "last-message-body" => self.high = true,
            "message-count" => self.low |= value.trim() == "0",
            _ => {}
        })
    }
}

/// `None` for what is no base64 or larger than what any provider takes.
fn read_encrypted<'a>(cursor: &mut Cursor<'a>, encrypted: &Open<'a>) -> Result<Option<Encrypted>, Malformed> {
    let iv = encrypted.attribute("iv")?.unwrap_or_default();
    let ciphertext = cursor.text(encrypted)?;
    let is_base64 = |text: &str, most: usize| {
        let base64 =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
        (1..=most).contains(&text.len()) && text.bytes().all(base64)
    };
    let is_one = is_base64(&iv, MAX_IV) && is_base64(&ciphertext, MAX_CIPHERTEXT);
    Ok(is_one.then(|| Encrypted {
        iv: iv.into(),
        ciphertext: ciphertext.into(),
    }))
}

const PRIORITY: &str = "tigase:push:priority:0";
const ENCRYPT: &str = "tigase:push:encrypt:0";
const JINGLE: &str = "tigase:push:jingle:0";
/// In bytes; Apple takes as many for a whole push.
const MAX_CIPHERTEXT: usize = 5 * 1_024;
/// In bytes; what is used has 12 or 16, and a third more in base64.
const MAX_IV: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stanza;

    fn publish(item: &str, options: &str) -> Publish<'static> {
        let stanza = format!(
            "<iq type='set' from='a.example/res' to='push.example' id='1'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='TOKEN'>{item}</publish>{options}\
             </pubsub></iq>"
        );
        let mut cursor = Cursor::new(Stanza::cut(stanza.as_bytes()).unwrap()).unwrap();
        let iq = cursor.root().unwrap();
        let pubsub = cursor.child(&iq).unwrap().unwrap();
        let Pubsub::Publish(publish) = Publish::read(&mut cursor, &pubsub).unwrap() else {
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
            (encrypted("type='voip'"), Urgency::Call),
            (
                "<jingle xmlns='tigase:push:jingle:0' action='propose'/>".to_owned(),
                Urgency::Call,
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
        let form = |fields: &str| {
            format!("<publish-options><x xmlns='jabber:x:data'>{fields}</x></publish-options>")
        };
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
}
