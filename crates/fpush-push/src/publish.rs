//! A publish, as far as modules need it.

use crate::{Encrypted, Recipient, Urgency};

/// A publish for a module.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The token.
    pub token: &'a str,
    /// How certain it is that the publish means this module.
    pub choice: Choice,
    /// What the publish says about its importance.
    pub urgency: Urgency,
    /// How many messages wait for the user, if the publish says so.
    pub count: Option<u32>,
    /// The domain of its sender.
    pub domain: &'a str,
    /// The device, if it is one that registered.
    pub registered: Option<Registered<'a>>,
}

/// What a publish for a registered device says beside that.
#[derive(Clone, Copy)]
pub struct Registered<'a> {
    /// The device.
    pub recipient: &'a Recipient,
    /// What its server has for the app.
    pub encrypted: Option<&'a Encrypted>,
}

/// How certain it is that a publish means the module that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Choice {
    /// It names the module.
    Named,
    /// The device has registered for it.
    Registered,
    /// It names none, and there is only one.
    Only,
    /// It names none, and this is the default one of several: the name may have been lost on the way, as
    /// Metronome loses it.
    Default,
}

impl<'a> Request<'a> {
    /// The token for a call, if this is one that the app can read: others would make the phone ring for nothing.
    #[must_use]
    pub fn voip_token(&self) -> Option<&'a str> {
        let Registered { recipient, encrypted } = self.registered?;
        let token = recipient.voip_token.as_ref()?;
        (self.urgency == Urgency::Voip && encrypted.is_some()).then(|| token.as_str())
    }
}
