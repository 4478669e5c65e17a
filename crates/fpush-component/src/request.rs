//! What a stanza asks of us.
//!
//! Servers and clients write publishes in many ways, and a publish that is not understood is a phone that
//! does not ring. So reading is lenient: unknown attributes, children and fields are skipped, the order does
//! not matter, and nothing is required but the node.

use std::borrow::Cow;

use fpush_push::{Urgency, canonical_domain};
use quick_xml::escape::unescape;
use xmpp_parsers::ns;

use crate::{
    reply::{Addresses, is_sayable},
    stream::Stanza,
    xml::{Cursor, Malformed, Open},
};

/// What came over the stream, as far as it concerns us.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Incoming<'a> {
    /// Somebody wants exactly one reply.
    Request {
        addresses: Addresses,
        domain: Cow<'a, str>,
        request: Request<'a>,
    },
    /// Somebody wants to see our presence.
    Subscribe { addresses: Addresses },
    /// The server is about to close the stream, for this reason.
    StreamError(StreamError),
    /// Nothing that wants an answer.
    Nothing,
}

/// An iq of type get or set.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Request<'a> {
    /// XEP-0357: wake a device.
    Publish(Publish<'a>),
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
    /// Anything else.
    Unknown,
    /// Not exactly one child, as RFC 6120 section 8.2.3 wants it.
    Malformed,
    /// XML that we cannot read. For all we know it is a publish.
    Unreadable,
}

/// A publish. It has no `Debug` in the program: nothing of it may get into the log.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Publish<'a> {
    /// The node that the client registered.
    pub(crate) node: Option<Cow<'a, str>>,
    /// The publish option `pushModule`.
    pub(crate) push_module: Option<Cow<'a, str>>,
    /// The publish option `secret`.
    pub(crate) secret: Option<Cow<'a, str>>,
    /// What the notification says about its importance.
    pub(crate) urgency: Urgency,
    /// What the account's server has for the app.
    pub(crate) encrypted: Option<Ciphertext<'a>>,
}

/// `<encrypted xmlns='tigase:push:encrypt:0'/>` as it came: base64, which we cannot read.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Ciphertext<'a> {
    pub(crate) iv: Cow<'a, str>,
    pub(crate) text: Cow<'a, str>,
}

/// An ad-hoc command with its form. It has no `Debug` in the program: it holds addresses and tokens.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct AdHoc<'a> {
    /// Which command.
    pub(crate) node: Cow<'a, str>,
    pub(crate) action: Action,
    /// The bare JID of the sender, as its server wrote it.
    pub(crate) sender: String,
    /// Our own address as the sender wrote it, without a resource.
    pub(crate) service: String,
    /// Name and first value of each field.
    pub(crate) fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// What is to be done with a command. Our commands have one step, so all that goes forward executes it: clients
/// send nothing, `execute`, `complete` or `next` in the very first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Execute it.
    Execute,
    /// Forget it.
    Cancel,
    /// Go back, or what nobody knows.
    Other,
}

/// Why a server closes a stream (RFC 6120 section 4.9.3), as far as it makes a difference to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// Somebody else has taken our name.
    Conflict,
    /// Another condition.
    Other(String),
}

/// What kind of stanza it is, by its start tag alone.
enum Kind<'a> {
    Request {
        addresses: Addresses,
        domain: Cow<'a, str>,
        /// Its type: set or get.
        set: bool,
    },
    Subscribe {
        addresses: Addresses,
    },
    StreamError,
}

impl<'a> Incoming<'a> {
    /// Reads a stanza.
    pub(crate) fn read(stanza: Stanza<'a>) -> Self {
        // Where not even the start tag can be read there is nobody to answer.
        let Ok(mut cursor) = Cursor::new(stanza) else {
            return Self::Nothing;
        };
        let Ok(root) = cursor.root() else {
            return Self::Nothing;
        };
        match Kind::of(&root) {
            Some(Kind::Request {
                addresses,
                domain,
                set,
            }) => Self::Request {
                addresses,
                domain,
                request: Request::read(&mut cursor, &root, set).unwrap_or(Request::Unreadable),
            },
            Some(Kind::Subscribe { addresses }) => Self::Subscribe { addresses },
            Some(Kind::StreamError) => Self::StreamError(StreamError::read(&mut cursor, &root)),
            None => Self::Nothing,
        }
    }

    /// Reads the start tag of a stanza whose content was dropped: whom to tell so, if it wants a reply.
    pub(crate) fn sender_of(head: &[u8]) -> Option<Addresses> {
        match Kind::of(&Open::alone(head).ok()?)? {
            Kind::Request { addresses, .. } => Some(addresses),
            Kind::Subscribe { .. } | Kind::StreamError => None,
        }
    }
}

impl<'a> Kind<'a> {
    /// `None` for what wants no answer.
    fn of(root: &Open<'a>) -> Option<Self> {
        if root.is(ns::STREAM, "error") {
            return Some(Self::StreamError);
        }
        // A server that forgets to rename the namespace of what it passes on means it well.
        if !matches!(
            root.namespace.as_ref(),
            ns::COMPONENT | ns::JABBER_CLIENT | "jabber:server"
        ) {
            return None;
        }
        let [kind, from, to, id] = root.raw_attributes(["type", "from", "to", "id"]).ok()?;
        match (root.local, kind?) {
            ("iq", kind @ ("get" | "set")) => Some(Self::Request {
                addresses: Addresses::of_reply(from?, to?, Some(id?))?,
                domain: sender_domain(from?)?,
                set: kind == "set",
            }),
            ("presence", "subscribe") => Some(Self::Subscribe {
                addresses: Addresses::of_reply(from?, to?, id)?,
            }),
            _ => None,
        }
    }
}

impl<'a> Request<'a> {
    fn read(cursor: &mut Cursor<'a>, iq: &Open<'a>, set: bool) -> Result<Self, Malformed> {
        let mut found = None;
        while let Some(child) = cursor.child(iq)? {
            let request = Self::of_child(cursor, iq, &child, set)?;
            if matches!(request, Self::Publish(_)) {
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
            (ns::PUBSUB, "pubsub") if set => {
                Publish::read(cursor, child)?.map_or(Self::OtherPubsub, Self::Publish)
            }
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

impl<'a> Publish<'a> {
    /// Reads a pubsub element; `None` if it holds no publish.
    fn read(cursor: &mut Cursor<'a>, pubsub: &Open<'a>) -> Result<Option<Self>, Malformed> {
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
        Ok(publish.map(|(node, signs)| Self {
            node,
            push_module,
            secret,
            urgency: signs.urgency(),
            encrypted: signs.encrypted,
        }))
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

impl<'a> AdHoc<'a> {
    fn read(cursor: &mut Cursor<'a>, iq: &Open<'a>, command: &Open<'a>) -> Result<Self, Malformed> {
        let bare = |address: &str| address.split('/').next().unwrap_or_default().to_owned();
        let address = |name| Ok::<_, Malformed>(iq.attribute(name)?.as_deref().map(bare).unwrap_or_default());
        let action = match command.attribute("action")?.as_deref() {
            None | Some("execute" | "complete" | "next") => Action::Execute,
            Some("cancel") => Action::Cancel,
            Some(_) => Action::Other,
        };
        let mut fields = Vec::new();
        while let Some(form) = cursor.child(command)? {
            if form.is(ns::DATA_FORMS, "x") {
                read_fields(cursor, &form, |var, value| {
                    if fields.len() < MAX_FIELDS {
                        fields.push((var, value));
                    }
                })?;
            }
        }
        Ok(Self {
            node: command.attribute("node")?.unwrap_or_default(),
            action,
            sender: address("from")?,
            service: address("to")?,
            fields,
        })
    }

    /// Whether XML can say everything that an answer might repeat: what came escaped need not be XML.
    pub(crate) fn is_sayable(&self) -> bool {
        let values = self.fields.iter().map(|(_, value)| &**value);
        [&*self.node, &*self.service]
            .into_iter()
            .chain(values)
            .all(is_sayable)
    }
}

/// Calls back with the name and the first value of each field of a data form; a field without a value has an
/// empty one.
fn read_fields<'a>(
    cursor: &mut Cursor<'a>,
    form: &Open<'a>,
    mut field: impl FnMut(Cow<'a, str>, Cow<'a, str>),
) -> Result<(), Malformed> {
    while let Some(child) = cursor.child(form)? {
        if !child.is(ns::DATA_FORMS, "field") {
            continue;
        }
        let Some(var) = child.attribute("var")? else {
            continue;
        };
        let mut first = None;
        while let Some(value) = cursor.child(&child)? {
            if first.is_none() && value.is(ns::DATA_FORMS, "value") {
                first = Some(cursor.text(&value)?);
            }
        }
        field(var, first.unwrap_or_default());
    }
    Ok(())
}

/// The signs in a notification that tell how much it matters.
#[derive(Default)]
struct Signs<'a> {
    call: bool,
    high: bool,
    low: bool,
    /// There is a notification, and nothing in it.
    empty: bool,
    /// There is a summary beside the notification.
    beside: bool,
    encrypted: Option<Ciphertext<'a>>,
}

impl<'a> Signs<'a> {
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

    fn of_publish(cursor: &mut Cursor<'a>, publish: &Open<'a>) -> Result<Self, Malformed> {
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

    fn read_notification(
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
                        self.encrypted = Ciphertext::read(cursor, &child)?;
                    }
                }
                (JINGLE, "jingle") => self.call |= child.attribute("action")?.as_deref() == Some("propose"),
                _ => {}
            }
        }
        self.low |= encrypted && !tagged;
        Ok(())
    }

    fn read_summary(&mut self, cursor: &mut Cursor<'a>, form: &Open<'a>) -> Result<(), Malformed> {
        read_fields(cursor, form, |var, value| match &*var {
            "last-message-body" if value.is_empty() => self.low = true,
            "last-message-body" => self.high = true,
            "message-count" => self.low |= value.trim() == "0",
            _ => {}
        })
    }
}

impl<'a> Ciphertext<'a> {
    /// `None` for what is no base64 or larger than what any provider takes.
    fn read(cursor: &mut Cursor<'a>, encrypted: &Open<'a>) -> Result<Option<Self>, Malformed> {
        let iv = encrypted.attribute("iv")?.unwrap_or_default();
        let text = cursor.text(encrypted)?;
        let is_base64 = |text: &str, most: usize| {
            let base64 =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
            (1..=most).contains(&text.len()) && text.bytes().all(base64)
        };
        Ok((is_base64(&iv, MAX_IV) && is_base64(&text, MAX_CIPHERTEXT)).then_some(Self { iv, text }))
    }
}

impl StreamError {
    fn read<'a>(cursor: &mut Cursor<'a>, error: &Open<'a>) -> Self {
        let mut condition = "unknown".to_owned();
        while let Ok(Some(child)) = cursor.child(error) {
            if child.namespace == ns::XMPP_STREAMS && child.local != "text" {
                condition = child.local.chars().take(64).collect();
                break;
            }
        }
        if condition == "conflict" {
            Self::Conflict
        } else {
            Self::Other(condition)
        }
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

const PRIORITY: &str = "tigase:push:priority:0";
const ENCRYPT: &str = "tigase:push:encrypt:0";
/// XEP-0050.
const COMMANDS: &str = crate::service::COMMANDS;
/// More than any form of ours has.
const MAX_FIELDS: usize = 32;
/// In bytes; Apple takes as many for a whole push.
const MAX_CIPHERTEXT: usize = 5 * 1_024;
/// In bytes; what is used has 12 or 16, and a third more in base64.
const MAX_IV: usize = 64;
const JINGLE: &str = "tigase:push:jingle:0";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stanza: &str) -> Incoming<'static> {
        Incoming::read(Stanza::cut(stanza.as_bytes()).unwrap())
    }

    fn publish(item: &str, options: &str) -> Publish<'static> {
        let stanza = format!(
            "<iq type='set' from='a.example/res' to='push.example' id='1'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='TOKEN'>{item}</publish>{options}\
             </pubsub></iq>"
        );
        match read(&stanza) {
            Incoming::Request {
                domain,
                request: Request::Publish(publish),
                ..
            } => {
                assert_eq!(domain, "a.example");
                assert_eq!(publish.node.as_deref(), Some("TOKEN"));
                publish
            }
            other => panic!("{other:?}"),
        }
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
        assert_eq!(module(&form("<field var='pushModule'/>")), Some(String::new()));
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
                .map(|Ciphertext { iv, text }| (iv.into_owned(), text.into_owned()))
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

    #[test]
    fn commands_are_read_whatever_forward_action_they_have() {
        let read = |attributes: &str, children: &str| {
            let stanza = format!(
                "<iq type='set' from='u@a.example/r' to='push.example/x' id='1'><command \
                 xmlns='http://jabber.org/protocol/commands' node='n'{attributes}>{children}</command></iq>"
            );
            match read(&stanza) {
                Incoming::Request {
                    request: Request::Command(command),
                    ..
                } => command,
                other => panic!("{other:?}"),
            }
        };
        let form = "<x xmlns='jabber:x:data' type='submit'><field var='token'><value>t</value></field></x>";
        for (attributes, action) in [
            ("", Action::Execute),
            (" action='execute'", Action::Execute),
            (" action='complete' sessionid='s'", Action::Execute),
            (" action='next'", Action::Execute),
            (" action='cancel'", Action::Cancel),
            (" action='prev'", Action::Other),
            (" action='dance'", Action::Other),
        ] {
            let command = read(attributes, form);
            assert_eq!(command.action, action, "{attributes}");
            assert_eq!(command.node, "n");
            assert_eq!(
                (&*command.sender, &*command.service),
                ("u@a.example", "push.example")
            );
            assert_eq!(command.fields, [("token".into(), "t".into())]);
        }
        assert_eq!(read("", "").fields, []);
        assert!(read(" sessionid='s'", form).is_sayable());
        let illegal = form.replace(">t<", ">&#xFFFE;<");
        assert!(!read("", &illegal).is_sayable());
        let flood = format!(
            "<x xmlns='jabber:x:data'>{}</x>",
            "<field var='f'/>".repeat(1_000)
        );
        assert_eq!(read("", &flood).fields.len(), MAX_FIELDS);
    }

    #[test]
    fn requests_are_told_apart() {
        let read = |kind: &str, children: &str| {
            let stanza = format!("<iq type='{kind}' from='a' to='b' id='1'>{children}</iq>");
            match read(&stanza) {
                Incoming::Request { request, .. } => Some(request),
                Incoming::Nothing => None,
                other => panic!("{other:?}"),
            }
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
            assert_eq!(read(stanza), Incoming::Nothing, "{stanza}");
        }
    }

    #[test]
    fn stream_errors_are_read() {
        let read = |condition: &str| {
            let error = format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
            );
            read(&error)
        };
        assert_eq!(read("conflict"), Incoming::StreamError(StreamError::Conflict));
        assert_eq!(
            read("system-shutdown"),
            Incoming::StreamError(StreamError::Other("system-shutdown".into()))
        );
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
}
