//! What we say about ourselves: identity, features, commands and version.

use fpush_push::VapidKey;
use xmpp_parsers::{
    data_forms::{DataForm, DataFormType, Field},
    disco::{DiscoInfoResult, DiscoItemsResult, Identity},
    minidom::{Element, rxml::xml_ncname},
    ns,
    version::VersionResult,
};

use crate::{command::COMMANDS, reply::Xml};

/// disco#info (XEP-0030): a push service must show this identity and feature (XEP-0357 section 3), and
/// Converse refuses to enable push without. Where devices can register there are more features, which their clients look for, and
/// a form (XEP-0128) with the keys with which web apps have to subscribe, by push type.
pub(crate) fn disco_info(more: &[String], keys: &[VapidKey]) -> Xml {
    let features = [
        ns::PUSH,
        ns::DISCO_INFO,
        ns::DISCO_ITEMS,
        ns::PING,
        ns::VERSION,
        COMMANDS,
    ];
    let fields = keys.iter().map(|VapidKey { kind, key }| {
        let name = format!("{KEY_FIELD}{kind}");
        Field::text_single(&name, key)
    });
    let form = (!keys.is_empty()).then(|| DataForm::new(DataFormType::Result_, KEY_FORM, fields.collect()));
    info(
        None,
        ("pubsub", "push", NAME),
        features
            .map(str::to_owned)
            .into_iter()
            .chain(more.iter().cloned()),
        form,
    )
}

/// disco#info for the node of all commands (XEP-0050 section 2.2).
pub(crate) fn command_list_info() -> Xml {
    let features = [COMMANDS, ns::DISCO_INFO, ns::DISCO_ITEMS].map(str::to_owned);
    info(
        Some(COMMANDS),
        ("automation", "command-list", "Commands"),
        features,
        None,
    )
}

/// disco#info for one command (XEP-0050 section 2.3).
pub(crate) fn command_info(node: &str, name: &str) -> Xml {
    let features = [COMMANDS, ns::DATA_FORMS].map(str::to_owned);
    info(Some(node), ("automation", "command-node", name), features, None)
}

fn info(
    node: Option<&str>,
    (category, kind, name): (&str, &str, &str),
    features: impl IntoIterator<Item = String>,
    form: Option<DataForm>,
) -> Xml {
    Xml::of(DiscoInfoResult {
        node: node.map(str::to_owned),
        identities: vec![Identity {
            category: category.to_owned(),
            type_: kind.to_owned(),
            lang: None,
            name: Some(name.to_owned()),
        }],
        features: features.into_iter().collect(),
        extensions: form.into_iter().collect(),
    })
}

/// disco#items: there are none, which is an empty list and no error.
pub(crate) fn disco_items() -> Xml {
    Xml::of(DiscoItemsResult {
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
    Xml::of(query.append_all(items).build())
}

/// XEP-0092. What operating system we run on is nobody's business.
pub(crate) fn version() -> Xml {
    Xml::of(VersionResult {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: None,
    })
}

const NAME: &str = "fpush";
/// The form with the keys of Web Push (VAPID), and what begins the name of each field.
const KEY_FORM: &str = "fpush:webpush:0";
const KEY_FIELD: &str = "vapid/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_features_are_there() {
        let info = disco_info(&[], &[]);
        let info = info.as_str();
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
    fn commands_are_listed_with_our_address() {
        let items = command_items("push.example", &[("a", "A"), ("b", "B")]);
        assert_eq!(
            items.as_str().matches("jid='push.example'").count(),
            2,
            "{items:?}"
        );
        assert!(command_info("a", "A").as_str().contains("type='command-node'"));
        assert!(command_list_info().as_str().contains("type='command-list'"));
        let features = ["tigase:messenger:apns:1".to_owned()];
        let keys = [VapidKey {
            kind: "web<".to_owned(),
            key: "BAbc".to_owned(),
        }];
        assert!(!disco_info(&features, &[]).as_str().contains("jabber:x:data"));
        let info = disco_info(&features, &keys);
        for part in ["jabber:x:data", "fpush:webpush:0", "vapid/web&lt;", "BAbc"] {
            assert!(info.as_str().contains(part), "{info:?}");
        }
        assert!(info.as_str().contains("var='tigase:messenger:apns:1'"));
        assert!(
            info.as_str()
                .contains("var='http://jabber.org/protocol/commands'")
        );
    }

    #[test]
    fn the_version_tells_no_operating_system() {
        assert!(!version().as_str().contains("os"));
        assert!(version().as_str().contains("<name>fpush</name>"));
    }
}
