//! Nodes that other push services made: known by their form, since devices with such nodes were imported.
//!
//! A publish for one of them may come without a secret and without the name of a module, because it needs none or lost it on
//! the way. Then nothing but its form says that it is not a token of the default module. Only an import makes a form known: what
//! clients choose could be the form of somebody's tokens.

use std::{collections::HashSet, sync::RwLock};

use fpush_push::{is_tigase_node, sync};

use crate::{
    device::{Device, Dialect},
    nodes::is_device_id,
};

/// The form of nodes of another push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) dialect: Dialect,
    /// In bytes.
    pub(crate) length: usize,
}

impl Form {
    /// The form of an imported device's node; `None` if such nodes are made here too, or tokens could have that form and the
    /// node has a secret.
    pub(crate) fn of(device: &Device) -> Option<Self> {
        let node = device.node.as_str();
        let is_foreign = match device.dialect {
            Dialect::P2 => node.len() < TOKENS_FROM,
            Dialect::Tigase => !is_tigase_node(node),
            // The client has chosen it.
            Dialect::Seed => is_device_id(node),
        };
        is_foreign.then_some(Self {
            dialect: device.dialect,
            length: node.len(),
        })
    }
}

/// All forms that are known.
#[derive(Default)]
pub(crate) struct Foreign(RwLock<HashSet<Form>>);

impl Foreign {
    pub(crate) fn learn(&self, forms: impl IntoIterator<Item = Form>) {
        sync::write(&self.0).extend(forms);
    }

    /// Whether a form is known.
    pub(crate) fn knows(&self, form: &Form) -> bool {
        sync::read(&self.0).contains(form)
    }

    /// Whether a node has a known form that tokens do not have.
    pub(crate) fn is_no_token(&self, node: &str) -> bool {
        node.len() < TOKENS_FROM
            && Dialect::ALL
                .into_iter()
                .any(|dialect| self.may_be_of(dialect, node))
    }

    /// Whether a node may be one that is published to without a secret.
    pub(crate) fn needs_no_secret(&self, node: &str) -> bool {
        self.may_be_of(Dialect::Tigase, node)
    }

    fn may_be_of(&self, dialect: Dialect, node: &str) -> bool {
        let length = node.len();
        self.knows(&Form { dialect, length }) && (dialect != Dialect::Seed || is_device_id(node))
    }
}

/// Tokens of Apple's have so many digits, and most of Google's have more. A shorter one of Google's that has the length of imported
/// nodes needs the name of its module.
const TOKENS_FROM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    fn form(dialect: &str, node: &str) -> Option<Form> {
        let line = r#"{"dialect":"D","type":"fcm","node":"N","secret":"s","token":"t","registered":"2026-01-01T00:00:00Z"}"#;
        let line = line.replace('D', dialect).replace('N', node);
        Form::of(&lines::from_line(&line).unwrap())
    }

    #[test]
    fn nodes_that_are_made_here_or_may_be_tokens_have_no_foreign_form() {
        let (uuid, hash) = ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "5eed".repeat(16));
        for (dialect, node, length) in [
            ("p2", "AAAAAAAAAAAB", Some(12)),
            ("p2", &hash, None),
            ("tigase", uuid, Some(36)),
            ("tigase", &hash, Some(64)),
            ("tigase", &format!("tigase-{hash}"), None),
            ("mod_push_appserver", uuid, Some(36)),
            ("mod_push_appserver", &hash, None),
            ("mod_push_appserver", "chosen by app", None),
        ] {
            assert_eq!(
                form(dialect, node).map(|form| form.length),
                length,
                "{dialect} {node}"
            );
        }
    }

    #[test]
    fn a_form_is_known_by_its_length_and_of_chosen_nodes_by_their_letters_too() {
        let foreign = Foreign::default();
        let (uuid, other) = ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "x".repeat(36));
        assert!(!foreign.is_no_token(uuid));
        foreign.learn(form("mod_push_appserver", uuid));
        assert!(foreign.is_no_token(uuid) && !foreign.is_no_token(&other));
        assert!(!foreign.needs_no_secret(uuid));
        foreign.learn(form("tigase", &"5eed".repeat(16)));
        let token = "c0de".repeat(16);
        assert!(foreign.needs_no_secret(&token) && !foreign.is_no_token(&token));
        foreign.learn(form("p2", "AAAAAAAAAAAB"));
        assert!(foreign.is_no_token("BAAAAAAAAAAA") && !foreign.is_no_token("BAAAAAAAAAAAA"));
    }
}
