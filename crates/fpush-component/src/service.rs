//! What we say about ourselves, and the answers to commands.

use std::{fmt, slice};

use fpush_push::{Completed, Value, Wording};
use uuid::Uuid;
use xmpp_parsers::{
    disco::{DiscoInfoResult, DiscoItemsResult, Identity},
    minidom::{Element, ElementBuilder, rxml::xml_ncname},
    ns,
    version::VersionResult,
};

/// XML for a reply. It is not shown: the answer to a registration holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Xml(String);

impl Xml {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Xml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xml")
    }
}

/// disco#info (XEP-0030): a push service must show this identity and feature (XEP-0357 section 3), and
/// Converse refuses to enable push without. With commands there are more features, those of clients among them.
pub(crate) fn disco_info(with_commands: Option<&[String]>) -> Xml {
    let features = [ns::PUSH, ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, ns::VERSION];
    let more =
        with_commands.map(|features| [COMMANDS.to_owned()].into_iter().chain(features.iter().cloned()));
    info(
        None,
        ("pubsub", "push", NAME),
        features
            .map(str::to_owned)
            .into_iter()
            .chain(more.into_iter().flatten()),
    )
}

/// disco#info for the node of all commands (XEP-0050 section 2.2).
pub(crate) fn command_list_info() -> Xml {
    let features = [COMMANDS, ns::DISCO_INFO, ns::DISCO_ITEMS].map(str::to_owned);
    info(
        Some(COMMANDS),
        ("automation", "command-list", "Commands"),
        features,
    )
}

/// disco#info for one command (XEP-0050 section 2.3).
pub(crate) fn command_info(node: &str, name: &str) -> Xml {
    let features = [COMMANDS, ns::DATA_FORMS].map(str::to_owned);
    info(Some(node), ("automation", "command-node", name), features)
}

fn info(
    node: Option<&str>,
    (category, kind, name): (&str, &str, &str),
    features: impl IntoIterator<Item = String>,
) -> Xml {
    xml(DiscoInfoResult {
        node: node.map(str::to_owned),
        identities: vec![Identity {
            category: category.to_owned(),
            type_: kind.to_owned(),
            lang: None,
            name: Some(name.to_owned()),
        }],
        features: features.into_iter().collect(),
        extensions: Vec::new(),
    })
}

/// disco#items: there are none, which is an empty list and no error.
pub(crate) fn disco_items() -> Xml {
    xml(DiscoItemsResult {
        node: None,
        items: Vec::new(),
        rsm: None,
    })
}

/// disco#items for the node of all commands: each with our address, its node and its name.
pub(crate) fn command_items(jid: &str, commands: &[(&str, &str)]) -> Xml {
    let items = commands.iter().map(|(node, name)| {
        Element::builder("item", ns::DISCO_ITEMS)
            .attr(xml_ncname!("jid").into(), jid)
            .attr(xml_ncname!("node").into(), *node)
            .attr(xml_ncname!("name").into(), *name)
            .build()
    });
    let query = Element::builder("query", ns::DISCO_ITEMS).attr(xml_ncname!("node").into(), COMMANDS);
    xml(query.append_all(items).build())
}

/// The answer to a command that was executed in its one step.
pub(crate) fn completed(node: &str, completed: &Completed) -> Xml {
    let (status, form_type) = match completed.wording {
        Wording::Standard => ("completed", "result"),
        // No XEP knows either of them.
        Wording::Original => ("complete", "form"),
    };
    let fields = completed.values.iter().map(|(var, value)| field(var, value));
    let form = Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").into(), form_type)
        .append_all(fields);
    let session = Uuid::new_v4().to_string();
    let command = command(node, status).attr(xml_ncname!("sessionid").into(), session);
    xml(command.append(form).build())
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

/// The answer to who does not want a command any more. It names no session: commands of one step leave none behind, and
/// what was sent is not repeated.
pub(crate) fn canceled(node: &str) -> Xml {
    xml(command(node, "canceled").build())
}

fn command(node: &str, status: &str) -> ElementBuilder {
    Element::builder("command", COMMANDS)
        .attr(xml_ncname!("node").into(), node)
        .attr(xml_ncname!("status").into(), status)
}

/// XEP-0092. What operating system we run on is nobody's business.
pub(crate) fn version() -> Xml {
    xml(VersionResult {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: None,
    })
}

fn xml(payload: impl Into<Element>) -> Xml {
    Xml(String::from(&payload.into()))
}

/// The node of all commands, and their namespace (XEP-0050).
pub(crate) const COMMANDS: &str = "http://jabber.org/protocol/commands";

const NAME: &str = "fpush";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_features_are_there() {
        let info = disco_info(None).0;
        assert!(
            info.starts_with("<query xmlns='http://jabber.org/protocol/disco#info'>"),
            "{info}"
        );
        assert!(
            info.contains("category='pubsub'") && info.contains("type='push'"),
            "{info}"
        );
        assert!(
            info.contains("var='urn:xmpp:push:0'") && info.contains("var='urn:xmpp:ping'"),
            "{info}"
        );
    }

    #[test]
    fn the_answer_to_a_command_has_its_form_and_is_not_shown() {
        let completed = completed(
            "v1-register-push",
            &Completed {
                wording: Wording::Original,
                values: vec![
                    ("jid", Value::Address("push.example".to_owned())),
                    ("secret", Value::Text("<&>".to_owned())),
                    ("features", Value::List(vec!["a".to_owned(), "b".to_owned()])),
                ],
            },
        );
        let text = completed.as_str();
        for part in [
            "<command xmlns='http://jabber.org/protocol/commands'",
            "node='v1-register-push'",
            "status='complete'",
            "<x xmlns='jabber:x:data' type='form'>",
            "<field var='jid' type='jid-single'><value>push.example</value></field>",
            "<field var='secret' type='text-single'><value>&lt;&amp;&gt;</value></field>",
            "<field var='features' type='text-multi'><value>a</value><value>b</value></field>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(format!("{completed:?}"), "Xml");
    }

    #[test]
    fn commands_are_listed_with_our_address() {
        let items = command_items("push.example", &[("a", "A"), ("b", "B")]);
        assert_eq!(
            items.as_str().matches("jid='push.example'").count(),
            2,
            "{items:?}"
        );
        assert!(command_info("a", "A").as_str().contains("type='command-node'"));
        assert!(command_list_info().as_str().contains("type='command-list'"));
        let info = disco_info(Some(&["tigase:messenger:apns:1".to_owned()]));
        assert!(info.as_str().contains("var='tigase:messenger:apns:1'"));
        assert!(
            info.as_str()
                .contains("var='http://jabber.org/protocol/commands'")
        );
    }

    #[test]
    fn the_version_tells_no_operating_system() {
        assert!(!version().0.contains("os"));
        assert!(version().0.contains("<name>fpush</name>"));
    }
}
