//! What a stanza asks of us.
//!
//! Servers and clients write requests in many ways, and a publish that is not understood is a phone that does not ring. So
//! reading is lenient: unknown attributes, children and fields are skipped, the order does not matter, and nothing is
//! required but the node.

use std::borrow::Cow;

use fpush_push::{Encrypted, Urgency, canonical_domain};
use quick_xml::escape::unescape;
use xmpp_parsers::ns;

use crate::{
    addresses::Addresses,
    command::{AdHoc, COMMANDS},
    push2::Sent,
    stream::Stanza,
    xml::{Cursor, Malformed, Open},
};

/// A stanza that wants a reply: exactly one, or, if it is a message, one at most.
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
    /// XEP-0199. With its id.
    Ping(Cow<'a, str>),
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
    /// Push 2.0, in a message: pass this on to a device.
    Notify(Sent<'a>),
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
        let (addresses, domain, stanza_type) = read_head(&root)?;
        let request = match stanza_type {
            StanzaType::Get => Request::read(&mut cursor, &root, false),
            StanzaType::Set => Request::read(&mut cursor, &root, true),
            StanzaType::Subscribe => Ok(Request::Subscribe),
            // Of what cannot be read nobody knows whether it is a notification.
            StanzaType::Message => Ok(Request::Notify(Sent::read(&mut cursor, &root).ok()??)),
        };
        Some(Self {
            addresses,
            domain,
            request: request.unwrap_or(Request::Unreadable),
        })
    }

    /// Reads the start tag of a stanza whose content was dropped.
    pub(crate) fn too_large(head: &'a [u8]) -> Option<Self> {
        let (addresses, domain, stanza_type) = read_head(&Open::alone(head).ok()?)?;
        match stanza_type {
            StanzaType::Get | StanzaType::Set => Some(Self {
                addresses,
                domain,
                request: Request::Unreadable,
            }),
            StanzaType::Subscribe | StanzaType::Message => None,
        }
    }
}

/// Whether a stanza in this namespace is one for us: a server that forgets to rename the namespace of what it passes on means
/// it well.
pub(crate) fn is_stanza_namespace(namespace: &str) -> bool {
    matches!(namespace, ns::COMPONENT | ns::JABBER_CLIENT | "jabber:server")
}

enum StanzaType {
    Get,
    Set,
    Subscribe,
    Message,
}

/// Reads the start tag of a stanza that wants a reply: the addresses of that, the sender's domain, and what is wanted.
fn read_head<'a>(root: &Open<'a>) -> Option<(Addresses, Cow<'a, str>, StanzaType)> {
    if !is_stanza_namespace(&root.namespace) {
        return None;
    }
    let [stanza_type, from, to, id] = root.raw_attributes(["type", "from", "to", "id"]).ok()?;
    let stanza_type = match (root.local, stanza_type.unwrap_or_default()) {
        ("iq", "get") if id.is_some() => StanzaType::Get,
        ("iq", "set") if id.is_some() => StanzaType::Set,
        ("presence", "subscribe") => StanzaType::Subscribe,
        // Whatever its type is: servers give it none. An error is never answered, or errors would go to and fro.
        ("message", kind) if unescape(kind).is_ok_and(|kind| kind != "error") => StanzaType::Message,
        _ => return None,
    };
    let (from, to) = (from?, to?);
    Some((
        Addresses::of_reply(from, to, id)?,
        sender_domain(from)?,
        stanza_type,
    ))
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
            (ns::PUBSUB, "pubsub") if set => Publish::read(cursor, child)?,
            (ns::PUBSUB | ns::PUBSUB_OWNER, "pubsub") => Self::OtherPubsub,
            (ns::DISCO_INFO, "query") if !set => {
                Self::DiscoInfo(child.attribute("node")?.filter(|node| !node.is_empty()))
            }
            (ns::DISCO_ITEMS, "query") if !set => {
                Self::DiscoItems(child.attribute("node")?.filter(|node| !node.is_empty()))
            }
            (COMMANDS, "command") if set => Self::Command(AdHoc::read(cursor, iq, child)?),
            (ns::PING, "ping") if !set => Self::Ping(iq.attribute("id")?.unwrap_or_default()),
            (ns::VERSION, "query") if !set => Self::Version,
            _ => Self::Unknown,
        })
    }
}

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
    /// `message-count`: how many messages wait for the user.
    pub(crate) count: Option<u32>,
    /// What the account's server has for the app: `<encrypted xmlns='tigase:push:encrypt:0'/>`, which we cannot read.
    pub(crate) encrypted: Option<Encrypted>,
}

impl<'a> Publish<'a> {
    /// Reads a pubsub element.
    fn read(cursor: &mut Cursor<'a>, pubsub: &Open<'a>) -> Result<Request<'a>, Malformed> {
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
        Ok(match publish {
            Some((Some(node), signs)) => {
                Request::Publish(Self::new(node, options.unwrap_or_default(), signs))
            }
            Some((None, _)) => Request::NoNode,
            None => Request::OtherPubsub,
        })
    }

    pub(crate) fn new(node: Cow<'a, str>, options: Options<'a>, signs: Signs) -> Self {
        let Options { push_module, secret } = options;
        Self {
            node,
            push_module: push_module.filter(|name| !name.is_empty()),
            secret,
            urgency: signs.urgency(),
            count: signs.count,
            encrypted: signs.encrypted,
        }
    }

    /// The same without the stanza that it came in.
    pub(crate) fn into_owned(self) -> Publish<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Publish {
            node: owned(self.node),
            push_module: self.push_module.map(owned),
            secret: self.secret.map(owned),
            urgency: self.urgency,
            count: self.count,
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

/// The fields of the publish options that mean something here, at any place among the others.
#[derive(Default)]
pub(crate) struct Options<'a> {
    push_module: Option<Cow<'a, str>>,
    secret: Option<Cow<'a, str>>,
}

impl<'a> Options<'a> {
    fn read(cursor: &mut Cursor<'a>, options: &Open<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        while let Some(form) = cursor.child(options)? {
            if form.is(ns::DATA_FORMS, "x") {
                cursor.fields(&form, |var, value| found.field(&var, value))?;
            }
        }
        Ok(found)
    }

    /// Takes a field of one of their forms.
    pub(crate) fn field(&mut self, var: &str, value: Cow<'a, str>) {
        let field = match var {
            "pushModule" => &mut self.push_module,
            "secret" => &mut self.secret,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

/// The signs in a notification that tell how much it matters.
#[derive(Default)]
pub(crate) struct Signs {
    call: bool,
    high: bool,
    low: bool,
    /// There is a notification, and nothing in it.
    empty: bool,
    /// There is a summary beside the notification.
    beside: bool,
    count: Option<u32>,
    encrypted: Option<Encrypted>,
}

impl Signs {
    /// High wins where the signs contradict each other, and where there is none.
    fn urgency(&self) -> Urgency {
        if self.call {
            return Urgency::Voip;
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
                        signs.summarized_beside();
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
        self.notified();
        while let Some(child) = cursor.child(notification)? {
            self.notified_of_something();
            match (child.namespace.as_ref(), child.local) {
                (ns::DATA_FORMS, "x") => self.read_summary(cursor, &child)?,
                (PRIORITY, "priority") => {
                    tagged = true;
                    self.priority(&cursor.text(&child)?);
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
        cursor.fields(form, |var, value| self.field(&var, &value))
    }

    /// There is a notification, with nothing in it so far.
    pub(crate) fn notified(&mut self) {
        self.empty = true;
    }

    /// There is something in the notification.
    pub(crate) fn notified_of_something(&mut self) {
        self.empty = false;
    }

    /// There is a summary beside the notification.
    pub(crate) fn summarized_beside(&mut self) {
        self.beside = true;
    }

    /// Takes Tigase's priority tag.
    pub(crate) fn priority(&mut self, priority: &str) {
        match priority.trim() {
            "high" => self.high = true,
            "low" => self.low = true,
            _ => {}
        }
    }

    /// Takes a field of the summary.
    pub(crate) fn field(&mut self, var: &str, value: &str) {
        match var {
            "last-message-body" if value.is_empty() => self.low = true,
            "last-message-body" => self.high = true,
            "message-count" => {
                self.count = value.trim().parse().ok();
                self.low |= self.count == Some(0);
            }
            _ => {}
        }
    }
}

/// `None` for a value that is not base64, or is larger than any provider accepts.
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
pub(crate) fn sender_domain(from: &str) -> Option<Cow<'_, str>> {
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

pub(crate) const PRIORITY: &str = "tigase:push:priority:0";
const ENCRYPT: &str = "tigase:push:encrypt:0";
const JINGLE: &str = "tigase:push:jingle:0";
/// In bytes; Apple takes as many for a whole push.
const MAX_CIPHERTEXT: usize = 5 * 1_024;
/// In bytes; what is used has 12 or 16, and a third more in base64.
const MAX_IV: usize = 64;

#[cfg(test)]
mod tests;
