//! What the settings say of the links.

use std::{fmt, sync::Arc, time::Duration};

use fpush_policy::RelayLimits;
use fpush_push::{Scope, canonical_domain};

use crate::tls::TlsSettings;

/// A link: how to reach a server, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// `linkName`: what it is called in metrics, log and status page. No two links have the same.
    pub name: String,
    /// `componentHostname`: our address there.
    pub hostname: String,
    /// `componentKey`: the secret that we share with the server. It is never shown.
    pub secret: String,
    /// Where its settings are: the path of its object.
    pub path: String,
    /// The key that says where the secret is: what to correct if the server does not accept it.
    pub secret_key: &'static str,
    /// `serverHostname`: a name or an address.
    pub server_host: String,
    /// `serverPort`.
    pub server_port: u16,
    /// `tls`; `None` without TLS.
    pub tls: Option<TlsSettings>,
    /// `maxStanzaSize`, in bytes.
    pub max_stanza_size: usize,
    /// `group`: links with the same one send each other's replies if need be. They have one address.
    pub group: Option<String>,
    /// `modules` and `defaultModule`.
    pub scope: Arc<Scope>,
    /// `push2`; without it all messages are dropped.
    pub push2: Option<Push2Settings>,
    /// `timeout.xmppconnectionError`: before the next attempt to connect.
    pub retry_after: Duration,
}

/// What is passed on of what comes over a link as notifications of Push 2.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push2Settings {
    /// `modules`: in this order they are asked whether they can send to a client.
    pub modules: Vec<String>,
    /// `maxPerDomain` and `maxPerReceiver`.
    pub limits: RelayLimits,
}

impl fmt::Debug for LinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSettings")
            .field("name", &self.name)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

impl LinkSettings {
    /// What a link is called that the settings give no name: what tells it from others.
    #[must_use]
    pub fn usual_name(hostname: &str, server_host: &str, server_port: u16) -> String {
        format!("{hostname}@{}", address(server_host, server_port))
    }

    /// The server, as `host:port`.
    #[must_use]
    pub fn server(&self) -> String {
        address(&self.server_host, self.server_port)
    }

    /// Whether we have the same address there, however it is spelt.
    #[must_use]
    pub fn has_address_of(&self, others: &Self) -> bool {
        canonical_domain(&self.hostname) == canonical_domain(&others.hostname)
    }

    /// Whether a link with these may send what one with the others could not: to the same server, or within one cluster.
    #[must_use]
    pub fn may_reply_for(&self, others: &Self) -> bool {
        let is_of_group = self.group.is_some() && self.group == others.group;
        self.has_address_of(others) && (self.server() == others.server() || is_of_group)
    }

    /// Whether a connection that was opened with the others serves these, too.
    #[must_use]
    pub fn has_connection_of(&self, others: &Self) -> bool {
        *self
            == Self {
                path: self.path.clone(),
                secret_key: self.secret_key,
                group: self.group.clone(),
                scope: Arc::clone(&self.scope),
                push2: self.push2.clone(),
                retry_after: self.retry_after,
                ..others.clone()
            }
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
impl LinkSettings {
    /// Those of some link.
    pub(crate) fn made_up() -> Self {
        Self {
            name: "a".to_owned(),
            hostname: "push.example".to_owned(),
            secret: "s3cret".to_owned(),
            path: "component".to_owned(),
            secret_key: "componentKey",
            server_host: "127.0.0.1".to_owned(),
            server_port: 5347,
            tls: None,
            max_stanza_size: 1_000,
            group: None,
            scope: Arc::default(),
            push2: None,
            retry_after: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_name_can_be_read_as_an_address() {
        let names = ["xmpp.example", "192.0.2.1", "::1"]
            .map(|host| LinkSettings::usual_name("push.example", host, 5347));
        assert_eq!(
            names,
            [
                "push.example@xmpp.example:5347",
                "push.example@192.0.2.1:5347",
                "push.example@[::1]:5347"
            ]
        );
    }
}
