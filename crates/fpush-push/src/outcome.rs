//! What became of a publish, in words that name neither XMPP nor HTTP.

/// What became of a publish. The component's reply table turns each into one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider has it.
    Accepted,
    /// It is held and goes out when the token's time has come.
    Queued,
    /// One push for the token is queued already; that one stands for this one too, and the operator wants
    /// no error shown.
    Coalesced,
    /// One push for the token is queued already, or it is a call that came too soon.
    Refused,
    /// The provider declared the token dead, now or earlier.
    TokenDead,
    /// Nothing is sent to the token for a while, after an error that nobody could explain.
    TokenBlocked,
    /// The token cannot be one for the module that the publish named.
    TokenInvalid,
    /// The token cannot be one for the default module, which the publish did not name: it may well be a
    /// living token of another module whose name was lost on the way.
    TokenForeign,
    /// The provider cannot be reached, refuses us, or took too long.
    ProviderUnavailable,
    /// Too much is going on.
    Overloaded,
    /// The daemon is about to stop.
    ShuttingDown,
    /// No module has the name, or no name was given and there is no default module.
    UnknownModule,
    /// The node and the secret are not those of a registered device.
    NotRegistered,
    /// The database of registered devices cannot be asked.
    RegistryUnavailable,
}
