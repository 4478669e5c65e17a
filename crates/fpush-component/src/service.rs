//! What we say about ourselves.

use xmpp_parsers::{
    disco::{DiscoInfoResult, DiscoItemsResult, Identity},
    minidom::Element,
    ns,
    version::VersionResult,
};

/// disco#info (XEP-0030): a push service must show this identity and feature (XEP-0357 section 3), and
/// Converse refuses to enable push without.
pub(crate) fn disco_info() -> String {
    let features = [ns::PUSH, ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, ns::VERSION];
    xml(DiscoInfoResult {
        node: None,
        identities: vec![Identity {
            category: "pubsub".to_owned(),
            type_: "push".to_owned(),
            lang: None,
            name: Some(NAME.to_owned()),
        }],
        features: features.map(str::to_owned).into(),
        extensions: Vec::new(),
    })
}

/// disco#items: there are none, which is an empty list and no error.
pub(crate) fn disco_items() -> String {
    xml(DiscoItemsResult {
        node: None,
        items: Vec::new(),
        rsm: None,
    })
}

/// XEP-0092. What operating system we run on is nobody's business.
pub(crate) fn version() -> String {
    xml(VersionResult {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: None,
    })
}

fn xml(payload: impl Into<Element>) -> String {
    String::from(&payload.into())
}

const NAME: &str = "fpush";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_features_are_there() {
        let info = disco_info();
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
    fn the_version_tells_no_operating_system() {
        assert!(!version().contains("os"));
        assert!(version().contains("<name>fpush</name>"));
    }
}
