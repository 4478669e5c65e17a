//! The forms of the two commands, and their answers: each in words, with the machine-readable form beside it.

use fpush_driver::Words;
use fpush_push::{Outcome, Unavailable};
use humantime::format_duration;
use tokio::time::Duration;
use xmpp_parsers::{
    minidom::{Element, ElementBuilder, rxml::xml_ncname},
    ns,
};

use super::{Trial, own::Own};
use crate::{
    addresses::is_sayable,
    command::{COMMANDS, command},
    reply::Xml,
};

/// What a domain was answered, and in how long; `None` if that is not kept.
pub(super) type Answered = (Option<Vec<(Outcome, u64)>>, Duration);

/// The form of the test push, with the devices that its sender may choose from.
pub(super) fn ask(session: &str, own: &[Own]) -> Xml {
    let options = own.iter().map(|own| {
        let label = format!("{} ({}), registered {}", own.kind, own.module, own.registered);
        Element::builder("option", ns::DATA_FORMS)
            .attr(xml_ncname!("label").into(), said(&label))
            .append(value(&own.mark))
    });
    let device = (!own.is_empty()).then(|| {
        let field = field("device", "list-single", "One of your own devices", &[]);
        field.append_all(options.map(ElementBuilder::build))
    });
    let form = Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").into(), "form")
        .append(text("title", Trial::Push.title()))
        .append(text("instructions", INSTRUCTIONS))
        .append(hidden(Trial::Push))
        .append_all(device.map(ElementBuilder::build))
        .append(field("node", "text-single", "Or: node of a registered device", &[]).build())
        .append(field("secret", "text-private", "Its secret", &[]).build())
        .append(field("pushModule", "text-single", "Or: name of the push module", &[]).build())
        .append(
            field(
                "token",
                "text-private",
                "Token of the device at its provider",
                &[],
            )
            .build(),
        );
    let actions = Element::builder("actions", COMMANDS)
        .attr(xml_ncname!("execute").into(), "complete")
        .append(Element::builder("complete", COMMANDS));
    let command = command(Trial::Push.name(), "executing")
        .attr(xml_ncname!("sessionid").into(), session)
        .append(actions)
        .append(form);
    Xml::of(command.build())
}

/// What became of a test push to a device of this push module.
pub(super) fn tested(session: &str, module: Option<&str>, words: &Words) -> Xml {
    let Words {
        outcome,
        reason,
        said,
        meaning,
        advice,
    } = words;
    let is_well = *outcome == Outcome::Accepted.name();
    // What was sent and refused says it already.
    let reason_said = match reason {
        Some(reason) if !said.contains(reason) => format!(" The provider's reason: {reason}."),
        Some(_) | None => String::new(),
    };
    let sentences = format!("{}: {said}. {meaning}{reason_said} {advice}", Trial::Push.title());
    let fields = [
        ("outcome", "Outcome", Some(*outcome)),
        ("module", "Push module", module),
        ("reason", "The provider's reason", *reason),
        ("said", "What happened", Some(said.as_str())),
        ("meaning", "What it means", Some(*meaning)),
        ("next", "What to look at next", Some(*advice)),
    ];
    let fields = fields.into_iter().filter_map(|(var, label, value)| {
        let value = [value?.to_owned()];
        Some(field(var, "text-single", label, &value).build())
    });
    completed(Trial::Push, session, is_well, &sentences, fields)
}

/// What a domain was answered, and how the devices of one of its users are.
pub(super) fn status(session: &str, answered: &Answered, own: &Result<Vec<Own>, Unavailable>) -> Xml {
    let (answers, span) = answered;
    let span = format_duration(Duration::from_secs(span.as_secs())).to_string();
    let answers_said = match answers.as_deref() {
        None => "What your server was answered is not kept here.".to_owned(),
        Some([]) => format!("No push of your server has come here in {span}."),
        Some(answers) => {
            let counts: Vec<_> = answers
                .iter()
                .map(|(outcome, count)| format!("{} {count}", outcome.name()))
                .collect();
            format!(
                "What the pushes of your server were answered in {span}: {}.",
                counts.join(", ")
            )
        }
    };
    let own_said = match own.as_deref() {
        Err(Unavailable) => format!("{} Ask again later.", Outcome::RegistryUnavailable.meaning()),
        Ok([]) => {
            "No device of yours is registered here; apps that publish to tokens do not register, and what registered over \
             HTTP is not listed."
                .to_owned()
        }
        Ok(own) => format!("Devices of yours: {}.", own.len()),
    };
    let is_well =
        |outcome: Outcome| matches!(outcome, Outcome::Accepted | Outcome::Queued | Outcome::Coalesced);
    let answers = answers.iter().flatten();
    let explained = answers.clone().filter(|(outcome, _)| !is_well(*outcome));
    let explained: Vec<_> = explained
        .map(|(outcome, _)| format!("{}: {} {}", outcome.name(), outcome.meaning(), outcome.advice()))
        .collect();
    let counts = answers.map(|(outcome, count)| {
        let (var, label) = (outcome.name(), format!("Answered {}", outcome.name()));
        field(var, "text-single", &label, &[count.to_string()]).build()
    });
    let meanings = (!explained.is_empty())
        .then(|| field("meaning", "text-multi", "What the answers mean", &explained).build());
    let own = own.as_deref().unwrap_or_default();
    let reported = Element::builder("reported", ns::DATA_FORMS).append_all(
        Own::COLUMNS
            .iter()
            .map(|(var, label)| field(var, "text-single", label, &[]).build()),
    );
    let items = own.iter().map(|own| {
        let cells = Own::COLUMNS.iter().zip(own.cells());
        let cells = cells.map(|((var, _), text)| {
            Element::builder("field", ns::DATA_FORMS)
                .attr(xml_ncname!("var").into(), *var)
                .append(value(&text))
                .build()
        });
        Element::builder("item", ns::DATA_FORMS).append_all(cells).build()
    });
    let table = (!own.is_empty()).then(|| reported.build());
    let fields = counts.chain(meanings).chain(table).chain(items);
    let sentences = format!("{answers_said} {own_said}");
    completed(Trial::Status, session, true, &sentences, fields)
}

/// The end of a command: in words, and as a form.
fn completed(
    trial: Trial,
    session: &str,
    is_well: bool,
    sentences: &str,
    fields: impl Iterator<Item = Element>,
) -> Xml {
    let form = Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").into(), "result")
        .append(text("title", trial.title()))
        .append(hidden(trial))
        .append_all(fields);
    let note = Element::builder("note", COMMANDS)
        .attr(xml_ncname!("type").into(), if is_well { "info" } else { "warn" })
        .append(said(sentences));
    let command = command(trial.name(), "completed")
        .attr(xml_ncname!("sessionid").into(), session)
        .append(note)
        .append(form);
    Xml::of(command.build())
}

/// The answer to who cancels a command, and the session, if there was one.
pub(super) fn canceled(trial: Trial, session: Option<&str>) -> Xml {
    let mut command = command(trial.name(), "canceled");
    if let Some(session) = session {
        command = command.attr(xml_ncname!("sessionid").into(), session);
    }
    Xml::of(command.build())
}

/// Names the form, as XEP-0068 has it.
fn hidden(trial: Trial) -> Element {
    let name = format!("fpush:{}:0", trial.name());
    Element::builder("field", ns::DATA_FORMS)
        .attr(xml_ncname!("var").into(), "FORM_TYPE")
        .attr(xml_ncname!("type").into(), "hidden")
        .append(value(&name))
        .build()
}

fn field(var: &str, kind: &str, label: &str, values: &[String]) -> ElementBuilder {
    Element::builder("field", ns::DATA_FORMS)
        .attr(xml_ncname!("var").into(), var)
        .attr(xml_ncname!("type").into(), kind)
        .attr(xml_ncname!("label").into(), label)
        .append_all(values.iter().map(|text| value(text)))
}

fn value(text: &str) -> Element {
    self::text("value", text)
}

fn text(name: &str, text: &str) -> Element {
    Element::builder(name, ns::DATA_FORMS).append(said(text)).build()
}

/// What came from elsewhere need not be XML.
fn said(text: &str) -> &str {
    if is_sayable(text) { text } else { "…" }
}

const INSTRUCTIONS: &str = "Sends one visible push, as a message would. Name one device: one of your own, or its node and its \
    secret, or a push module and a token.";
