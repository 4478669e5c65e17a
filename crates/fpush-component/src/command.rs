//! Ad-hoc commands of one step (XEP-0050) with their forms (XEP-0004): what somebody wants done, and how we say that it
//! was done.

use std::{borrow::Cow, slice, sync::Arc};

use fpush_push::{
    BadPayload, COMMAND_FIELDS, Command, CommandError, Completed, Devices, Scope, Value, Wording,
    canonical_jid,
};
use uuid::Uuid;
use xmpp_parsers::{
    minidom::{Element, ElementBuilder, rxml::xml_ncname},
    ns,
};

use crate::{
    addresses::is_sayable,
    reply::{Reply, Xml},
    xml::{Cursor, Malformed, Open},
};

/// A command with its form. It has no `Debug` in the program: it holds addresses and tokens.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct AdHoc<'a> {
    node: Cow<'a, str>,
    action: Action,
    /// An empty one counts as none.
    session: Option<Cow<'a, str>>,
    /// The address of the sender, as its server wrote it.
    from: Cow<'a, str>,
    /// Our own address as the sender wrote it.
    to: Cow<'a, str>,
    form: Submitted<'a>,
}

/// What is to be done with a command. Of our commands none has more than one form, so all that goes forward executes it:
/// clients send nothing, `execute`, `complete` or `next` in the very first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Execute it.
    Execute,
    /// Forget it.
    Cancel,
    /// Go back.
    Previous,
    /// What nobody knows.
    Unknown,
}

/// A request of a command that may have steps.
pub(crate) struct Step {
    pub(crate) action: Action,
    /// The session that it says it belongs to.
    pub(crate) session: Option<String>,
    /// The whole address of the sender, as its server wrote it.
    pub(crate) from: String,
    /// The sender's bare JID, in the spelling in which owners are compared.
    pub(crate) sender: String,
    /// The fields of [`COMMAND_FIELDS`] that it has, each once and not empty.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// What is kept of the forms of a command: no more than commands read, however much was sent.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct Submitted<'a> {
    /// The fields of [`COMMAND_FIELDS`], each once and not empty.
    fields: Vec<(&'static str, Cow<'a, str>)>,
    /// Whether there are others with a value.
    has_other_fields: bool,
    /// One of them whose value is longer than any that makes sense.
    too_long: Option<&'static str>,
}

impl<'a> AdHoc<'a> {
    pub(crate) fn read(
        cursor: &mut Cursor<'a>,
        iq: &Open<'a>,
        command: &Open<'a>,
    ) -> Result<Self, Malformed> {
        let action = match command.attribute("action")?.as_deref() {
            None | Some("execute" | "complete" | "next") => Action::Execute,
            Some("cancel") => Action::Cancel,
            Some("prev") => Action::Previous,
            Some(_) => Action::Unknown,
        };
        let session = command.attribute("sessionid")?;
        let mut submitted = Submitted::default();
        while let Some(form) = cursor.child(command)? {
            if form.is(ns::DATA_FORMS, "x") {
                cursor.fields(&form, |var, value| submitted.add(&var, value))?;
            }
        }
        Ok(Self {
            node: command.attribute("node")?.unwrap_or_default(),
            action,
            session: session.filter(|session| !session.is_empty()),
            from: iq.attribute("from")?.unwrap_or_default(),
            to: iq.attribute("to")?.unwrap_or_default(),
            form: submitted,
        })
    }

    /// Which command is meant.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// What is asked of a command that may have steps; or the reply, if that cannot be asked.
    pub(crate) fn into_step(self) -> Result<Step, Reply<'static>> {
        let Submitted {
            fields,
            has_other_fields: _,
            too_long,
        } = self.form;
        if !fields.iter().all(|(_, value)| is_sayable(value)) {
            return Err(Reply::BadCharacters);
        }
        if let Some(field) = too_long {
            return Err(Reply::CommandFailed(BadPayload::Impossible(field).into()));
        }
        Ok(Step {
            action: self.action,
            session: self.session.map(Cow::into_owned),
            sender: canonical_jid(bare(&self.from)).into_owned(),
            from: self.from.into_owned(),
            fields: owned(fields),
        })
    }

    /// What the registry is to execute, and under which of its names; or the reply, if there is nothing to execute.
    pub(crate) fn check(
        self,
        devices: &dyn Devices,
        scope: Arc<Scope>,
    ) -> Result<(&'static str, Command), Reply<'static>> {
        let Submitted {
            fields,
            has_other_fields,
            too_long,
        } = self.form;
        // What came escaped need not be XML, and an answer might repeat it.
        if !is_sayable(&self.node) || !fields.iter().all(|(_, value)| is_sayable(value)) {
            return Err(Reply::BadCharacters);
        }
        let mut commands = devices.commands().into_iter();
        let Some((name, _)) = commands.find(|(name, _)| *name == self.node) else {
            return Err(Reply::CommandFailed(CommandError::UnknownCommand));
        };
        match self.action {
            Action::Execute => {}
            Action::Cancel => return Err(Reply::Xml(canceled(name))),
            Action::Previous | Action::Unknown => return Err(Reply::BadAction),
        }
        if let Some(field) = too_long {
            return Err(Reply::CommandFailed(BadPayload::Impossible(field).into()));
        }
        let written = bare(&self.from);
        let command = Command {
            name: name.to_owned(),
            sender: canonical_jid(written).into_owned(),
            written: written.to_owned(),
            service: bare(&self.to).to_owned(),
            scope,
            fields: owned(fields),
            has_other_fields,
        };
        Ok((name, command))
    }
}

impl<'a> Submitted<'a> {
    fn add(&mut self, var: &str, value: Cow<'a, str>) {
        let Some(var) = COMMAND_FIELDS.iter().find(|known| **known == var) else {
            self.has_other_fields |= var != "FORM_TYPE" && !value.is_empty();
            return;
        };
        if value.len() > MAX_VALUE {
            self.too_long.get_or_insert(var);
        } else if !value.is_empty() && !self.fields.iter().any(|(known, _)| known == var) {
            // Of several the first one with a value counts.
            self.fields.push((var, value));
        }
    }
}

fn owned(fields: Vec<(&'static str, Cow<'_, str>)>) -> Vec<(&'static str, String)> {
    fields
        .into_iter()
        .map(|(var, value)| (var, value.into_owned()))
        .collect()
}

fn bare(address: &str) -> &str {
    address.split_once('/').map_or(address, |(bare, _)| bare)
}

impl Step {
    /// How many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let values = self.fields.iter().map(|(_, value)| value);
        let texts = [&self.from, &self.sender]
            .into_iter()
            .chain(&self.session)
            .chain(values);
        texts.map(String::len).sum()
    }
}

/// How many bytes a command takes.
pub(crate) fn size(command: &Command) -> usize {
    let texts = [&command.name, &command.sender, &command.written, &command.service];
    let values = command.fields.iter().map(|(_, value)| value);
    texts.into_iter().chain(values).map(String::len).sum()
}

/// The answer to a command that was executed in its one step.
pub(crate) fn completed(name: &str, completed: &Completed) -> Xml {
    let (status, kind) = match completed.wording {
        Wording::Standard => ("completed", "result"),
        // No XEP knows either of them.
        Wording::Original => ("complete", "form"),
    };
    let session = Uuid::new_v4().to_string();
    let command = command(name, status)
        .attr(xml_ncname!("sessionid").into(), session)
        .append(form(kind, &completed.values));
    Xml::of(command.build())
}

/// A form of this type with these values.
fn form(kind: &str, values: &[(&str, Value)]) -> Element {
    Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").into(), kind)
        .append_all(values.iter().map(|(var, value)| field(var, value)))
        .build()
}

fn field(var: &str, value: &Value) -> Element {
    let (kind, values) = match value {
        Value::Text(value) => ("text-single", slice::from_ref(value)),
        Value::Address(value) => ("jid-single", slice::from_ref(value)),
        Value::List(values) => ("text-multi", values.as_slice()),
    };
    let value = |value: &String| {
        Element::builder("value", ns::DATA_FORMS)
            .append(value.as_str())
            .build()
    };
    Element::builder("field", ns::DATA_FORMS)
        .attr(xml_ncname!("var").into(), var)
        .attr(xml_ncname!("type").into(), kind)
        .append_all(values.iter().map(value))
        .build()
}

/// The answer to a sender that cancels a command. It names no session: commands of one step leave none behind, and
/// what was sent is not repeated.
fn canceled(name: &str) -> Xml {
    Xml::of(command(name, "canceled").build())
}

/// The beginning of an answer.
pub(crate) fn command(name: &str, status: &str) -> ElementBuilder {
    Element::builder("command", COMMANDS)
        .attr(xml_ncname!("node").into(), name)
        .attr(xml_ncname!("status").into(), status)
}

/// The namespace of commands, and the node under which all of them are found.
pub(crate) const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// Bytes of a value: the longest tokens have as many.
const MAX_VALUE: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stanza;

    fn read(attributes: &str, children: &str) -> AdHoc<'static> {
        let stanza = format!(
            "<iq type='set' from='u@a.example/r' to='push.example/x' id='1'><command \
             xmlns='http://jabber.org/protocol/commands' node='n'{attributes}>{children}</command></iq>"
        );
        let mut cursor = Cursor::new(Stanza::cut(stanza.as_bytes()).unwrap()).unwrap();
        let iq = cursor.root().unwrap();
        let command = cursor.child(&iq).unwrap().unwrap();
        AdHoc::read(&mut cursor, &iq, &command).unwrap()
    }

    fn filled(fields: &str) -> String {
        format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>")
    }

    #[test]
    fn commands_are_read_whatever_forward_action_they_have() {
        let form = filled("<field var='token'><value>t</value></field>");
        for (attributes, action) in [
            ("", Action::Execute),
            (" action='execute'", Action::Execute),
            (" action='complete' sessionid='s'", Action::Execute),
            (" action='next'", Action::Execute),
            (" action='cancel'", Action::Cancel),
            (" action='prev'", Action::Previous),
            (" action='dance'", Action::Unknown),
        ] {
            let command = read(attributes, &form);
            assert_eq!(command.action, action, "{attributes}");
            assert_eq!(command.node, "n");
            assert_eq!(
                (bare(&command.from), bare(&command.to)),
                ("u@a.example", "push.example")
            );
            assert_eq!(command.form.fields, [("token", "t".into())]);
        }
        assert_eq!(read("", "").form, Submitted::default());
    }

    #[test]
    fn of_a_form_no_more_is_kept_than_commands_read() {
        let value = |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
        let flood = (0..10_000)
            .map(|number| value(&format!("f{number}"), ""))
            .collect::<String>();
        let command = read(
            "",
            &filled(&(flood + &value("FORM_TYPE", "x") + &value("token", "t"))),
        );
        assert_eq!(command.form.fields, [("token", "t".into())], "behind all others");
        assert!(!command.form.has_other_fields, "they are empty");

        let same = ["", "a", "b"]
            .map(|text| value("token", text))
            .concat()
            .repeat(1_000);
        let command = read("", &filled(&(same + &value("other", "x"))));
        assert_eq!(
            command.form.fields,
            [("token", "a".into())],
            "the first one that is not empty"
        );
        assert!(command.form.has_other_fields);

        let long = value("node", &"x".repeat(MAX_VALUE + 1)) + &value("token", &"t".repeat(MAX_VALUE));
        let form = read("", &filled(&long)).form;
        assert_eq!((form.too_long, form.fields.len()), (Some("node"), 1));
    }

    #[test]
    fn the_answer_to_a_command_has_its_form_and_is_not_shown() {
        let answer = |wording| {
            let answer = completed(
                "v1-register-push",
                &Completed {
                    wording,
                    values: vec![
                        ("jid", Value::Address("push.example".to_owned())),
                        ("secret", Value::Text("<&>".to_owned())),
                        ("features", Value::List(vec!["a".to_owned(), "b".to_owned()])),
                    ],
                },
            );
            assert_eq!(format!("{answer:?}"), "Xml");
            answer.as_str().to_owned()
        };
        for (wording, status, kind) in [
            (Wording::Original, "complete", "form"),
            (Wording::Standard, "completed", "result"),
        ] {
            let text = answer(wording);
            for part in [
                "<command xmlns='http://jabber.org/protocol/commands'",
                "node='v1-register-push'",
                &format!("status='{status}'"),
                &format!("<x xmlns='jabber:x:data' type='{kind}'>"),
                "<field type='jid-single' var='jid'><value>push.example</value></field>",
                "<field type='text-single' var='secret'><value>&lt;&amp;&gt;</value></field>",
                "<field type='text-multi' var='features'><value>a</value><value>b</value></field>",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }
}
