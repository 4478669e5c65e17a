//! Who may register and remove what, as pure decisions about what the database holds.

use std::net::IpAddr;

use crate::{
    cache::opens,
    device::{Device, Dialect, Time},
    error::RegisterError,
};

/// What the settings say about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Devices of one bare JID.
    pub(crate) max_per_owner: usize,
    /// Whether a node that nobody owns is changed only by who knows its secret.
    pub(crate) require_secret: bool,
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
    /// When it was claimed.
    pub(crate) now: Time,
}

/// Who claims it.
#[derive(Clone)]
pub(crate) enum By {
    /// A bare JID, as its server wrote it.
    Owner(String),
    /// Somebody at an address, over HTTP.
    Address(IpAddr),
}

impl Claim {
    /// Who owns what is registered with this claim.
    pub(crate) fn owner(&self) -> Option<&str> {
        match &self.by {
            By::Owner(owner) => Some(owner),
            By::Address(_) => None,
        }
    }

    /// Whether a device of the same owner is the one that is meant. In the dialects in which clients do not know
    /// their node this finds devices that came from another database, too, where nodes were made with another key.
    pub(crate) fn means(&self, device: &Device) -> bool {
        let alike = device.dialect == self.dialect && device.kind == self.kind;
        match self.dialect {
            Dialect::Seed => device.node == self.node,
            Dialect::P2 => alike && device.account == self.account && device.channel == self.channel,
            // Old versions kept a token as the client had spelt it, in whichever case; no two tokens differ in that only.
            Dialect::Tigase => alike && device.token.eq_ignore_ascii_case(&self.token),
        }
    }

    /// Whether the claim is made by who may change the device.
    fn is_allowed(&self, device: &Device, rules: Rules) -> bool {
        if device.dialect != self.dialect {
            return false;
        }
        match (&device.owner, &self.by) {
            (Some(owner), By::Owner(by)) => owner == by,
            (Some(_), By::Address(_)) => false,
            (None, By::Owner(_) | By::Address(_)) => {
                !rules.require_secret || opens(device.secret.as_bytes(), self.secret.as_deref())
            }
        }
    }

    /// Whether registering makes one device more for its owner.
    pub(crate) fn adds(&self, existing: Option<&Device>) -> bool {
        existing.is_none_or(|device| device.owner.as_deref() != self.owner())
    }
}

/// The device after a registration. `owned` is how many devices the owner has, `secret` what a new one gets.
pub(crate) fn register(
    claim: &Claim,
    call_token: Option<String>,
    existing: Option<Device>,
    owned: usize,
    secret: String,
    rules: Rules,
) -> Result<Device, RegisterError> {
    if existing
        .as_ref()
        .is_some_and(|device| !claim.is_allowed(device, rules))
    {
        return Err(RegisterError::Forbidden);
    }
    if claim.adds(existing.as_ref()) && owned >= rules.max_per_owner {
        return Err(RegisterError::TooMany);
    }
    let owner = claim.owner().map(str::to_owned);
    Ok(match existing {
        Some(device) if device.kind == claim.kind => Device {
            token: claim.token.clone(),
            call_token,
            owner,
            account: claim.account.clone(),
            channel: claim.channel.clone(),
            // A clock that was set back must not make a renewal older than what it renews, nor as old: what is said of
            // the registration before it is not said of this one.
            renewed: Some(claim.now.max(device.changed().next())),
            ..device
        },
        Some(_) | None => Device {
            dialect: claim.dialect,
            kind: claim.kind.clone(),
            node: claim.node.clone(),
            secret,
            token: claim.token.clone(),
            call_token,
            owner,
            account: claim.account.clone(),
            channel: claim.channel.clone(),
            registered: claim.now,
            renewed: None,
            delivered: None,
            failed: None,
        },
    })
}

/// Whether a registration may be removed.
pub(crate) fn unregister(
    claim: &Claim,
    existing: Option<Device>,
    rules: Rules,
) -> Result<Device, RegisterError> {
    existing
        .filter(|device| device.kind == claim.kind && claim.is_allowed(device, rules))
        .ok_or(RegisterError::NotFound)
}

/// Whether an imported device takes the place of the one that is there: only if it is the later one, so that
/// importing twice changes nothing, and a device that registered since is left alone.
pub(crate) fn is_later(imported: &Device, existing: &Device) -> bool {
    imported.changed() > existing.changed()
}
