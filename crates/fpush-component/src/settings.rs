//! What the settings say of the component.

use std::{fmt, time::Duration};

/// How to reach the server and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct ComponentSettings {
    /// `componentHostname`: our address.
    pub hostname: String,
    /// `componentKey`: the secret that we share with the server. It is never shown.
    pub secret: String,
    /// The key of the settings that says where the secret is: what to correct if the server does not accept it.
    pub secret_key: &'static str,
    /// `serverHostname`: a name or an address.
    pub server_host: String,
    /// `serverPort`.
    pub server_port: u16,
    /// `maxStanzaSize`, in bytes.
    pub max_stanza_size: usize,
    /// `timeout.xmppconnectionError`: before the next attempt to connect.
    pub retry_after: Duration,
}

impl fmt::Debug for ComponentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentSettings")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

impl ComponentSettings {
    /// Whether a link that was opened with the others serves these, too.
    pub(crate) fn has_link_of(&self, others: &Self) -> bool {
        let retry_after = self.retry_after;
        *self
            == Self {
                retry_after,
                ..others.clone()
            }
    }
}
