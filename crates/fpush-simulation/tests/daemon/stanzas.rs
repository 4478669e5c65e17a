//! What servers write, and what is read of our replies.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fpush_push::Urgency;

/// Is in every token, secret, local part and message, and in nothing else: no log may show it.
pub(crate) const MARK: &str = "5ec2e70c5ec2";

pub(crate) const COMPONENT: &str = "push.sim.example";

/// A publish.
pub(crate) fn publish(
    id: &str,
    from: &str,
    node: &str,
    module: Option<&str>,
    secret: Option<&str>,
    urgency: Urgency,
) -> String {
    let field = |name: &str, value: Option<&str>| {
        value.map_or_else(String::new, |value| {
            format!("<field var='{name}'><value>{value}</value></field>")
        })
    };
    let fields = field("pushModule", module) + &field("secret", secret);
    let options = if fields.is_empty() {
        String::new()
    } else {
        format!(
            "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>\
             http://jabber.org/protocol/pubsub#publish-options</value></field>{fields}</x></publish-options>"
        )
    };
    let content = match urgency {
        Urgency::High => format!(
            "<x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field>\
             <field var='last-message-body'><value>{MARK}</value></field></x>"
        ),
        Urgency::Low => "<priority xmlns='tigase:push:priority:0'>low</priority>".to_owned(),
        Urgency::Voip => "<jingle xmlns='tigase:push:jingle:0' action='propose' sid='s'/>".to_owned(),
    };
    format!(
        "<iq type='set' from='{from}' to='{COMPONENT}' id='{id}'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='{node}'><item><notification xmlns='urn:xmpp:push:0'>{content}</notification></item></publish>\
         {options}</pubsub></iq>"
    )
}

/// A notification of Push 2.0 for the device that has this token of an app.
pub(crate) fn notification(id: &str, from: &str, app: usize, token: &str, priority: &str) -> String {
    // Its provider knows by that which one it has.
    let payload = BASE64_STANDARD.encode(id.trim_start_matches('r'));
    format!(
        "<message from='{from}' to='{COMPONENT}' id='{id}'><notification xmlns='urn:xmpp:push2:0'>\
         <client>{}</client><priority>{priority}</priority><encrypted xmlns='urn:xmpp:sce:rfc8291:0'>\
         <payload>{payload}</payload></encrypted></notification></message>",
        client(app, token)
    )
}

/// What names the device that has this token of an app.
fn client(app: usize, token: &str) -> String {
    format!("{}{token}", clients_of(app))
}

/// What all of those begin with.
pub(crate) fn clients_of(app: usize) -> String {
    format!("https://app{app}.sim.example/")
}

/// A command with these fields.
pub(crate) fn command(id: &str, from: &str, name: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"))
        .collect();
    format!(
        "<iq type='set' from='{from}' to='{COMPONENT}' id='{id}'><command xmlns='http://jabber.org/protocol/commands' \
         node='{name}' action='execute'><x xmlns='jabber:x:data' type='submit'>{fields}</x></command></iq>"
    )
}

/// A ping.
pub(crate) fn ping(id: &str, from: &str) -> String {
    format!("<iq type='get' from='{from}' to='{COMPONENT}' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>")
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Result,
    /// The error's type and condition.
    Error(String, String),
}

/// The value of an attribute of a start tag.
pub(crate) fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let head = &stanza[..stanza.find('>')?];
    let (_, rest) = head.split_once(&format!(" {name}='"))?;
    rest.split_once('\'').map(|(value, _)| value)
}

impl Answer {
    /// What an iq answers, if it is a reply.
    pub(crate) fn read(iq: &str) -> Option<Self> {
        match attribute(iq, "type")? {
            "result" => Some(Self::Result),
            "error" => {
                let (_, error) = iq.split_once("<error type='")?;
                let (kind, rest) = error.split_once("'><")?;
                let (condition, _) = rest.split_once(' ')?;
                Some(Self::Error(kind.to_owned(), condition.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether no server forgets the device that is answered so: ejabberd does on each error but `wait`, Tigase on other
    /// conditions than these.
    pub(crate) fn keeps_device(&self) -> bool {
        match self {
            Self::Result => true,
            Self::Error(kind, condition) => {
                kind == "wait"
                    && matches!(
                        &**condition,
                        "remote-server-timeout"
                            | "service-unavailable"
                            | "internal-server-error"
                            | "bad-request"
                    )
            }
        }
    }

    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Error(_, condition) if condition == wanted)
    }
}

/// Takes out the first whole stanza, or the beginning or the end of the stream.
pub(crate) fn cut(buffer: &mut String) -> Option<String> {
    let blank = buffer.len() - buffer.trim_start().len();
    buffer.drain(..blank);
    let head = buffer.find('>')?;
    let name = buffer.get(1..head)?.split([' ', '/']).next()?;
    let stands_alone = buffer[..head].ends_with(['/', '?']) || buffer.starts_with("</") || is_stream(buffer);
    let end = if stands_alone {
        head + 1
    } else {
        let close = format!("</{name}>");
        buffer.find(&close)? + close.len()
    };
    let rest = buffer.split_off(end);
    Some(std::mem::replace(buffer, rest))
}

/// Whether this opens a stream, under whichever prefix.
pub(crate) fn is_stream(piece: &str) -> bool {
    piece.starts_with("<stream ") || piece.starts_with("<stream:stream ")
}
