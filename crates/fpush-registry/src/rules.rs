//! Who may register and remove what, as pure decisions about what the database holds.

use std::collections::BTreeSet;

use crate::{
    device::{Device, Dialect, share_of},
    error::RegisterError,
    former,
    p2::{is_somebody, somebody_of},
    time::Time,
};

/// What the settings say of how many devices there may be.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Devices of one bare JID.
    pub(crate) max_per_owner: usize,
    /// Devices in all.
    pub(crate) max_devices: i64,
    /// Devices of one registrable domain.
    pub(crate) max_devices_per_domain: i64,
    /// Registrable domains that may have as many devices as there may be.
    pub(crate) trusted: BTreeSet<String>,
}

impl Rules {
    /// Whether a registrable domain may have as many devices as there may be.
    pub(crate) fn trusts(&self, domain: &str) -> bool {
        self.trusted.contains(domain)
    }
}

/// What a registration makes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joins {
    /// There is one device more.
    All,
    /// A device that is there is one more of its new owner's domain.
    Domain,
    /// It renews what is there, or says who owns what an operator has imported: that is always welcome.
    Nothing,
}

impl Joins {
    pub(crate) fn of(claim: &Claim, existing: Option<&Device>) -> Self {
        match existing {
            None => Self::All,
            Some(device) if device.imported => Self::Nothing,
            Some(device) if share_of(device.owner.as_deref()) == share_of(claim.owner()) => Self::Nothing,
            Some(_) => Self::Domain,
        }
    }
}

/// For how much there must be room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) in_all: i64,
    /// In the share of the owner's domain.
    pub(crate) of_domain: i64,
}

impl Joins {
    /// What a device needs that counts as so many, in the place of one that counted as so many before. A renewal is always
    /// welcome, unless it makes the device a large one.
    pub(crate) fn needs(self, places: i64, before: i64) -> Needs {
        let grown = if places > WELCOME {
            (places - before).max(0)
        } else {
            0
        };
        let (in_all, of_domain) = match self {
            Self::All => (places, places),
            Self::Domain => (grown, places),
            Self::Nothing => (grown, grown),
        };
        Needs { in_all, of_domain }
    }
}

/// The registration that somebody means.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) dialect: Dialect,
    pub(crate) kind: String,
    /// The node; in the other dialects than the seed's the one that a new registration gets.
    pub(crate) node: String,
    /// The token; empty if it does not matter.
    pub(crate) token: String,
    pub(crate) account: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) by: By,
    /// The secret, if it was given.
    pub(crate) secret: Option<String>,
    /// Whether the node is one that nobody may choose: what looks like a push token, or like a node of ours.
    pub(crate) is_reserved: bool,
    /// When it was claimed.
    pub(crate) now: Time,
}

/// Who claims it.
#[derive(Clone)]
pub(crate) enum By {
    /// A bare JID, as its server wrote it.
    Owner(String),
    /// Somebody over HTTP.
    Http {
        /// Whether a registration may make one device more.
        may_add: bool,
        /// Whether what is there already is changed only by who knows its secret.
        has_to_prove: bool,
    },
}

/// What somebody is to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// It is theirs.
    Owner,
    /// They may renew and remove it, and are not shown its secret: it came over HTTP, and so did they.
    Renewer,
    /// It is somebody else's.
    Stranger,
}

impl Claim {
    /// Who owns what is registered with this claim.
    pub(crate) fn owner(&self) -> Option<&str> {
        match &self.by {
            By::Owner(owner) => Some(owner),
            By::Http { .. } => None,
        }
    }

    /// Whether a device of the same owner is the one that is meant. In the dialects in which clients do not know
    /// their node this finds devices that came from another database, too, where nodes were made with another key.
    pub(crate) fn refers_to(&self, device: &Device) -> bool {
        let alike = device.dialect == self.dialect && device.kind == self.kind;
        match self.dialect {
            Dialect::Seed => device.node == self.node,
            Dialect::P2 => alike && device.account == self.account && device.channel == self.channel,
            // Old versions kept a token as the client had spelt it, in whichever case; no two tokens differ in that only.
            Dialect::Tigase => alike && self.has_token_of(device),
        }
    }

    /// To whom the device belongs that is meant, if it was imported and nobody knew its account, and the hash by which it is
    /// found.
    pub(crate) fn unknown_account(&self) -> Option<(String, &str)> {
        let owner = self.owner().filter(|owner| !is_somebody(owner))?;
        let (_, domain) = owner.split_once('@')?;
        let account = self.account.as_deref().filter(|_| self.dialect == Dialect::P2)?;
        Some((somebody_of(domain), account))
    }

    fn has_token_of(&self, device: &Device) -> bool {
        device.token.eq_ignore_ascii_case(&self.token)
    }

    fn relation(&self, device: &Device) -> Relation {
        // Such a node is made of its owner and its device, under a key that nobody else has.
        if self.dialect != Dialect::Seed && device.node == self.node {
            return Relation::Owner;
        }
        if device.dialect != self.dialect {
            return Relation::Stranger;
        }
        let has_secret = device.secret_matches(self.secret.as_deref(), self.now);
        match (&device.owner, &self.by) {
            (Some(owner), By::Owner(by)) if owner == by && !is_somebody(by) => Relation::Owner,
            // Only who knows the account and the id of the device has this hash.
            (Some(owner), By::Owner(_))
                if self.unknown_account().is_some_and(|(somebody, account)| {
                    *owner == somebody && device.account.as_deref() == Some(account)
                }) =>
            {
                Relation::Owner
            }
            (Some(_), By::Owner(_) | By::Http { .. }) => Relation::Stranger,
            (None, By::Owner(_) | By::Http { .. }) if has_secret => Relation::Owner,
            // Of a device that was imported nobody knows how its app registers: by either way with type and node alone, as
            // it did before, and after that only by this one.
            (None, By::Owner(_)) if device.imported && self.secret.is_none() => Relation::Renewer,
            (None, By::Http { has_to_prove, .. }) if self.secret.is_none() && !has_to_prove => {
                Relation::Renewer
            }
            (None, By::Owner(_) | By::Http { .. }) => Relation::Stranger,
        }
    }

    /// Whether registering makes one device more for its owner.
    fn adds(&self, existing: Option<&Device>) -> bool {
        existing.is_none_or(|device| device.owner.as_deref() != self.owner())
    }
}

/// The device after a registration. `owned` is how many devices the owner has, `secret` what a new one gets.
pub(crate) fn register(
    claim: &Claim,
    voip_token: Option<String>,
    existing: Option<Device>,
    owned: usize,
    secret: String,
    max_per_owner: usize,
) -> Result<Device, RegisterError> {
    let relation = match &existing {
        // An owner that has registered such a node already keeps it.
        None if claim.is_reserved => return Err(RegisterError::ReservedNode),
        None => Relation::Owner,
        Some(device) => claim.relation(device),
    };
    if relation == Relation::Stranger {
        return Err(RegisterError::Forbidden);
    }
    let may_add = match claim.by {
        By::Owner(_) => owned < max_per_owner,
        By::Http { may_add, .. } => may_add,
    };
    if claim.adds(existing.as_ref()) && !may_add {
        return Err(RegisterError::TooMany);
    }
    // A clock that was set back must not make a registration older than what it renews or replaces, nor as old: what is
    // said of the one before it is not said of this one, and the last push came with a secret of that one.
    let now = existing.as_ref().map_or(claim.now, |device| {
        let changed = device.changed();
        let last = changed.max(device.delivered.unwrap_or(changed));
        claim.now.max(last.next())
    });
    let new = |former| Device {
        dialect: claim.dialect,
        kind: claim.kind.clone(),
        node: claim.node.clone(),
        secret: secret.clone(),
        token: claim.token.clone(),
        voip_token: voip_token.clone(),
        owner: claim.owner().map(str::to_owned),
        account: claim.account.clone(),
        channel: claim.channel.clone(),
        registered: now,
        renewed: None,
        delivered: None,
        failed: None,
        former,
        imported: false,
        in_second: false,
    };
    let Some(device) = existing.filter(|device| device.dialect == claim.dialect) else {
        return Ok(new(Vec::new()));
    };
    let is_same = device.kind == claim.kind;
    let keeps_secret = is_same && relation == Relation::Owner;
    let present = if keeps_secret { &device.secret } else { &secret }.clone();
    // Its server knows the old one until the app has told it the new one. One that stays is among them already if pushes came
    // with it: after this registration nothing else says so.
    let used = device.delivered > Some(device.changed());
    let former = if keeps_secret && !used {
        device.former.clone()
    } else {
        let most = match device.owner {
            Some(_) => former::MOST_OF_OWNER,
            None => former::MOST,
        };
        former::replace(
            device.former.clone(),
            device.secret.clone(),
            used,
            claim.now,
            most,
        )
    };
    if !is_same {
        return Ok(new(former));
    }
    Ok(Device {
        secret: present,
        former,
        imported: false,
        in_second: device.in_second && device.token == claim.token,
        token: claim.token.clone(),
        voip_token,
        owner: claim.owner().map(str::to_owned),
        account: claim.account.clone(),
        channel: claim.channel.clone(),
        renewed: Some(now),
        ..device
    })
}

/// Whether a registration may be removed. What the claim says of it, such as its token, must fit: a command that names
/// less than what it would remove is refused.
pub(crate) fn unregister(claim: &Claim, existing: Option<Device>) -> Result<Device, RegisterError> {
    let is_meant = |device: &Device| {
        device.kind == claim.kind
            && (claim.token.is_empty() || claim.has_token_of(device))
            && match claim.relation(device) {
                Relation::Owner => true,
                // As mod_push_appserver's clients do it. Over XMPP nobody removes what is not known to be theirs.
                Relation::Renewer => matches!(claim.by, By::Http { .. }),
                Relation::Stranger => false,
            }
    };
    existing.filter(is_meant).ok_or(RegisterError::NotFound)
}

/// As how many a device may count that renews where there is no room: tokens and addresses change their lengths.
const WELCOME: i64 = 2;

/// Whether an imported device takes the place of the one that is there: only if it is the later one, so that
/// importing twice changes nothing, and a device that registered since is left alone.
pub(crate) fn is_later(imported: &Device, existing: &Device) -> bool {
    let is_of_nobody_known = |device: &Device| device.owner.as_deref().is_some_and(is_somebody);
    // It has no date of its own, but that of the table in which it was.
    if is_of_nobody_known(imported) {
        let says_the_same = imported.kind == existing.kind
            && imported.secret == existing.secret
            && imported.token == existing.token
            && imported.account == existing.account
            && imported.channel == existing.channel;
        if says_the_same || !is_of_nobody_known(existing) {
            return false;
        }
    }
    imported.changed() > existing.changed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unknown_account_registered_is_only_for_who_has_its_hash() {
        let claim = |owner: &str, account: &str| Claim {
            dialect: Dialect::P2,
            kind: "fcm".to_owned(),
            node: "another".to_owned(),
            token: "t".to_owned(),
            account: Some(account.to_owned()),
            channel: None,
            by: By::Owner(owner.to_owned()),
            secret: None,
            is_reserved: false,
            now: Time::from_millis(5),
        };
        let register = |claim: &Claim, device: &Device| {
            register(claim, None, Some(device.clone()), 0, "new".to_owned(), 1).map(|device| device.secret)
        };
        let alice = claim("alice@a.example", "hash");
        let imported = Device {
            owner: Some("@a.example".to_owned()),
            node: "node".to_owned(),
            secret: "old".to_owned(),
            ..register_new(&alice)
        };
        assert_eq!(register(&alice, &imported).ok().as_deref(), Some("old"));
        for stranger in [
            claim("alice@a.example", "another"),
            claim("alice@b.example", "hash"),
            claim("a.example", "hash"),
            claim("@a.example", "hash"),
        ] {
            assert!(matches!(
                register(&stranger, &imported),
                Err(RegisterError::Forbidden)
            ));
            assert!(unregister(&stranger, Some(imported.clone())).is_err());
        }
    }

    fn register_new(claim: &Claim) -> Device {
        register(claim, None, None, 0, "new".to_owned(), 1).unwrap_or_else(|_| unreachable!("it is nobody's"))
    }
}
