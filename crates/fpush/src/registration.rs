//! Registered devices: the registry and the HTTP listener, as far as this build has them.

#[cfg(feature = "enable_registration")]
mod with;
#[cfg(not(feature = "enable_registration"))]
mod without;

#[cfg(feature = "enable_registration")]
pub(crate) use with::*;
#[cfg(not(feature = "enable_registration"))]
pub(crate) use without::*;

/// What was found of registered devices.
pub(crate) enum Looked {
    /// The settings have no registered devices.
    NoRegistration,
    /// The database is out of reach.
    #[cfg_attr(
        not(feature = "enable_registration"),
        expect(dead_code, reason = "nobody registers")
    )]
    Unavailable,
    /// These.
    #[cfg_attr(
        not(feature = "enable_registration"),
        expect(dead_code, reason = "nobody registers")
    )]
    Devices(Vec<KnownDevice>),
}

/// A registered device, for an operator who asks why it gets no push.
pub(crate) struct KnownDevice {
    /// The push module of its kind, if the settings have one.
    pub(crate) module: Option<String>,
    pub(crate) kind: String,
    pub(crate) dialect: &'static str,
    pub(crate) node: String,
    /// Never shown.
    pub(crate) token: String,
    /// Never shown.
    pub(crate) voip_token: Option<String>,
    pub(crate) registered: String,
    pub(crate) renewed: Option<String>,
    /// When the provider last accepted a push.
    pub(crate) accepted: Option<String>,
    /// When the provider last refused a push.
    pub(crate) refused: Option<String>,
}
