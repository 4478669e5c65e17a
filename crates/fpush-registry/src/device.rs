//! A registered device.

use std::{borrow::Cow, fmt, net::Ipv6Addr};

use fpush_push::{client_site, masked, registrable};

use crate::{
    former::{self, Former},
    text::{MAX_JID, MAX_KIND, MAX_NODE, MAX_SECRET, MAX_TOKEN, is_sane, secret_matches},
    time::Time,
};

/// The way in which a device registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `mod_push_appserver`'s commands, or its HTTP API: the client chooses the node.
    Seed,
    /// p2's commands, as Conversations sends them.
    P2,
    /// Tigase's commands, as Siskin sends them: the node needs no secret.
    Tigase,
}

/// A registered device. It has no `Debug` that shows more than the dialect: all else is somebody's secret or address.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// How it registered.
    pub dialect: Dialect,
    /// The push type; the provider id in Tigase's dialect.
    pub kind: String,
    /// The name under which it is published to; unique.
    pub node: String,
    /// What a publish has to carry.
    pub secret: String,
    /// Its token at the provider.
    pub token: String,
    /// Its second token, for calls.
    pub voip_token: Option<String>,
    /// The bare JID that registered it; none if it came over HTTP.
    pub owner: Option<String>,
    /// What tells the app which of its accounts is meant.
    pub account: Option<String>,
    /// What tells the app which group chat is meant.
    pub channel: Option<String>,
    /// When it registered first.
    pub registered: Time,
    /// When it registered again.
    pub renewed: Option<Time>,
    /// When the provider last accepted a push (`last_successful_push`).
    pub delivered: Option<Time>,
    /// When the provider last refused a push (`last_push_error`).
    pub failed: Option<Time>,
    /// Secrets that were replaced and are good for a while.
    pub former: Vec<Former>,
    /// Whether it came from elsewhere without an owner, and nobody has registered it since: nobody knows whether its app
    /// registers over XMPP or over HTTP. One that has an owner never is.
    pub imported: bool,
    /// Whether the last push was accepted in the second lane of a provider that has two
    /// ([`LaneId::Second`](fpush_push::LaneId::Second)).
    pub in_second: bool,
}

impl Dialect {
    pub(crate) const ALL: [Self; 3] = [Self::Seed, Self::P2, Self::Tigase];

    /// Its name in the database and in an export.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "mod_push_appserver",
            Self::P2 => "p2",
            Self::Tigase => "tigase",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}

impl Device {
    /// When it last registered.
    #[must_use]
    pub fn changed(&self) -> Time {
        self.renewed.unwrap_or(self.registered)
    }

    /// Whether a secret is the device's, or one that was replaced and is still good.
    pub(crate) fn secret_matches(&self, secret: Option<&str>, now: Time) -> bool {
        secret_matches(self.secret.as_bytes(), secret)
            || former::matching(&self.former, secret, now).is_some()
    }

    /// As how many it counts: as one, or as several if it has more texts than most have, because clients choose how long they
    /// are. The secrets that were replaced do not count: a stranger may replace one over HTTP.
    pub(crate) fn places(&self) -> i64 {
        let optional = [&self.voip_token, &self.owner, &self.account, &self.channel];
        let texts = [&self.node, &self.secret, &self.token].into_iter();
        let bytes: usize = texts.chain(optional.into_iter().flatten()).map(String::len).sum();
        bytes.div_ceil(PLACE) as i64
    }

    /// What may be shown of the secret.
    #[must_use]
    pub fn masked_secret(&self) -> String {
        masked(&self.secret)
    }

    /// Whether every field has a sane length and no control characters.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let optional = |field: &Option<String>, max| field.as_deref().is_none_or(|text| is_sane(text, max));
        is_sane(&self.kind, MAX_KIND)
            && is_sane(&self.node, MAX_NODE)
            && is_sane(&self.secret, MAX_SECRET)
            && is_sane(&self.token, MAX_TOKEN)
            && optional(&self.voip_token, MAX_TOKEN)
            && optional(&self.owner, MAX_JID)
            && optional(&self.account, MAX_JID)
            && optional(&self.channel, MAX_JID)
            && self.former.len() <= former::MOST
            && self
                .former
                .iter()
                .all(|former| is_sane(&former.secret, MAX_SECRET))
    }
}

/// In whose share of what strangers can use up an owner is, or a domain, or an address: that of the registrable domain, or
/// of the network. What has no owner, because it came over HTTP or from elsewhere, is in one share without a name.
pub(crate) fn share_of(owner: Option<&str>) -> Cow<'_, str> {
    let Some(owner) = owner else {
        return Cow::Borrowed("");
    };
    let domain = owner.split_once('@').map_or(owner, |(_, domain)| domain);
    let share = registrable(domain);
    match share.parse::<Ipv6Addr>() {
        Ok(address) => Cow::Owned(client_site(address.into()).to_string()),
        Err(_) => share,
    }
}

/// Bytes of a device that counts as one; the statements that count have the same number.
const PLACE: usize = 512;

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_somebody_can_invent_are_in_one_share() {
        for owner in ["a@flood.org", "b@x1.flood.org", "flood.org", "c@X2.Flood.Org."] {
            assert_eq!(share_of(Some(owner)), "flood.org", "{owner}");
        }
        for owner in ["2001:db8:1:2::", "2001:db8:1:3::7", "a@[2001:db8:1::1]"] {
            assert_eq!(share_of(Some(owner)), "2001:db8:1::", "{owner}");
        }
        assert_eq!(share_of(Some("192.0.2.7")), "192.0.2.7");
        assert_eq!(share_of(Some("a@localhost")), "localhost");
        assert_eq!(share_of(None), "");
    }
}
