//! Ad-hoc commands (XEP-0050) as clients send them, and the forms in the answers.

use std::fmt::{self, Display, Formatter};

use quick_xml::events::{BytesStart, Event};
use quick_xml::{NsReader, name::ResolveResult};

use crate::fake_xmpp::Reply;
use crate::publish::{escape, field};

/// A command iq, to be sent with [`Link::send`](crate::Link::send). It comes from `alice@a.example/phone` unless
/// [`Command::from`] says otherwise, and has no `action`.
#[derive(Debug, Clone)]
pub struct Command {
    from: String,
    to: String,
    id: String,
    node: String,
    action: Option<String>,
    session: Option<String>,
    fields: String,
}

impl Command {
    /// A command with these fields in its form.
    pub fn new(id: &str, node: &str, fields: &[(&str, &str)]) -> Self {
        Self {
            from: "alice@a.example/phone".to_owned(),
            to: "push.localhost".to_owned(),
            id: id.to_owned(),
            node: node.to_owned(),
            action: None,
            session: None,
            fields: fields.iter().map(|(name, value)| field(name, value)).collect(),
        }
    }

    /// Changes the sender.
    #[must_use]
    pub fn from(mut self, from: &str) -> Self {
        from.clone_into(&mut self.from);
        self
    }

    /// Changes the receiver.
    #[must_use]
    pub fn to(mut self, to: &str) -> Self {
        to.clone_into(&mut self.to);
        self
    }

    /// Says what is to be done with the command.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }

    /// Says to which session the command belongs.
    #[must_use]
    pub fn session(mut self, session: &str) -> Self {
        self.session = Some(session.to_owned());
        self
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            id,
            node,
            action,
            session,
            fields,
        } = self;
        let attribute = |name: &str, value: &Option<String>| {
            value
                .as_ref()
                .map(|value| format!(" {name}='{}'", escape(value)))
                .unwrap_or_default()
        };
        write!(
            f,
            "<iq type='set' from='{}' to='{}' id='{}'><command xmlns='{COMMANDS}' node='{}'{}{}>\
             <x xmlns='{DATA}' type='submit'>{fields}</x></command></iq>",
            escape(from),
            escape(to),
            escape(id),
            escape(node),
            attribute("action", action),
            attribute("sessionid", session),
        )
    }
}

/// The answer to a command, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// `node` of the command.
    pub node: String,
    /// `status` of the command.
    pub status: String,
    /// `sessionid` of the command.
    pub session: String,
    /// `type` of the form; empty if there is none.
    pub kind: String,
    /// Name, type (empty if there is none) and values of each field, in order.
    pub fields: Vec<(String, String, Vec<String>)>,
}

impl Form {
    /// Takes a result apart. Panics if it is not the answer to a command.
    #[track_caller]
    pub fn of(reply: &Reply) -> Self {
        Self::read(&reply.raw).unwrap_or_else(|why| panic!("{why} in {}", reply.raw))
    }

    /// The only value of a field. Panics if there is another number of them.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        match self.fields.iter().find(|(field, _, _)| field == name) {
            Some((_, _, values)) if values.len() == 1 => &values[0],
            _ => panic!("no single value for {name} in {self:?}"),
        }
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _, _)| name.as_str()).collect()
    }

    fn read(raw: &str) -> Result<Self, String> {
        let mut form = Self::default();
        let mut reader = NsReader::from_str(raw);
        reader.config_mut().expand_empty_elements = true;
        let (mut path, mut seen) = (Vec::<String>::new(), false);
        loop {
            let (namespace, event) = reader.read_resolved_event().map_err(|error| error.to_string())?;
            match event {
                Event::Start(tag) => {
                    path.push(tag.local_name().as_ref().to_owned());
                    let namespace = match namespace {
                        ResolveResult::Bound(namespace) => namespace.as_ref().to_owned(),
                        ResolveResult::Unbound | ResolveResult::Unknown(_) => String::new(),
                    };
                    let path: Vec<_> = path.iter().map(String::as_str).collect();
                    match (namespace.as_str(), path.as_slice()) {
                        (COMMANDS, ["iq", "command"]) => {
                            seen = true;
                            form.node = attribute(&tag, "node")?;
                            form.status = attribute(&tag, "status")?;
                            form.session = attribute(&tag, "sessionid")?;
                        }
                        (DATA, ["iq", "command", "x"]) => form.kind = attribute(&tag, "type")?,
                        (DATA, ["iq", "command", "x", "field"]) => {
                            let (name, kind) = (attribute(&tag, "var")?, attribute(&tag, "type")?);
                            form.fields.push((name, kind, Vec::new()));
                        }
                        (DATA, ["iq", "command", "x", "field", "value"]) => {
                            let (_, _, values) = form.fields.last_mut().ok_or("a value without a field")?;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                Event::Text(text) if path.last().is_some_and(|name| name == "value") => {
                    form.add(&text);
                }
                Event::GeneralRef(reference) if path.last().is_some_and(|name| name == "value") => {
                    let escaped = format!("&{};", &*reference);
                    let char = quick_xml::escape::unescape(&escaped).map_err(|error| error.to_string())?;
                    form.add(&char);
                }
                Event::End(_) => {
                    path.pop();
                }
                Event::Eof => break,
                _ => {}
            }
        }
        seen.then_some(form).ok_or_else(|| "no command".to_owned())
    }

    fn add(&mut self, text: &str) {
        if let Some(value) = self
            .fields
            .last_mut()
            .and_then(|(_, _, values)| values.last_mut())
        {
            value.push_str(text);
        }
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<String, String> {
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.as_ref() == name {
            let value = quick_xml::escape::unescape(&attribute.value).map_err(|error| error.to_string())?;
            return Ok(value.into_owned());
        }
    }
    Ok(String::new())
}

const COMMANDS: &str = "http://jabber.org/protocol/commands";
const DATA: &str = "jabber:x:data";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let raw = "<iq type='result' from='p' to='a' id='1'><command xmlns='http://jabber.org/protocol/commands' \
                   node='n' status='completed' sessionid='s'><x xmlns='jabber:x:data' type='result'>\
                   <field var='node' type='text-single'><value>a&lt;b&amp;</value></field>\
                   <field var='features'><value>1</value><value/></field></x></command></iq>";
        let form = Form::of(&Reply::parse(raw));
        assert_eq!((form.node.as_str(), form.status.as_str()), ("n", "completed"));
        assert_eq!((form.session.as_str(), form.kind.as_str()), ("s", "result"));
        assert_eq!(form.names(), ["node", "features"]);
        assert_eq!(form.value("node"), "a<b&");
        assert_eq!(form.fields[1].2, ["1", ""]);
        assert!(Form::read("<iq type='result' id='1'/>").is_err());
    }

    #[test]
    fn a_command_is_what_clients_send() {
        let command = Command::new("1", "register-device", &[("device-token", "a&b")]).action("next");
        let text = command.session("s").from("b@c/d").to("push").to_string();
        assert_eq!(
            text,
            "<iq type='set' from='b@c/d' to='push' id='1'><command xmlns='http://jabber.org/protocol/commands' \
             node='register-device' action='next' sessionid='s'><x xmlns='jabber:x:data' type='submit'>\
             <field var='device-token'><value>a&amp;b</value></field></x></command></iq>"
        );
    }
}
