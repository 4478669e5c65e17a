//! What became of a publish, in words that name neither XMPP nor HTTP.

/// What became of a publish. The component's reply table turns each into one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider has it.
    Accepted,
    /// It is held and goes out when its time has come.
    Queued,
    /// One push for the key is queued already; that one wakes the device for both, and the operator wants
    /// no error shown.
    Coalesced,
    /// One push for the key is queued already, or it is a call that came too soon.
    Refused,
    /// The provider declared the token dead, now or earlier.
    TokenDead,
    /// Nothing is sent to the token for a while, after an error that nobody could explain.
    TokenBlocked,
    /// The token cannot be one of the module's provider, as far as we know. It may well be a living one: of another
    /// module, or of a form that the provider has introduced since.
    TokenInvalid,
    /// The provider cannot be reached, refuses us, or took too long.
    ProviderUnavailable,
    /// Too much is going on.
    Overloaded,
    /// The daemon is about to stop.
    ShuttingDown,
    /// No module has the name, or no name was given and there is no default module.
    UnknownModule,
    /// The device was registered, and the registry has itself ended that.
    NotRegistered,
    /// The node is not known, or the secret is missing or another one. It may well be a living device all the same.
    UnknownDevice,
    /// The database of registered devices cannot be asked.
    RegistryUnavailable,
    /// The settings say that nothing is sent: for what nobody has to see, or at all.
    Unwanted,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 15] = [
        Self::Accepted,
        Self::Queued,
        Self::Coalesced,
        Self::Refused,
        Self::TokenDead,
        Self::TokenBlocked,
        Self::TokenInvalid,
        Self::ProviderUnavailable,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::UnknownModule,
        Self::NotRegistered,
        Self::UnknownDevice,
        Self::RegistryUnavailable,
        Self::Unwanted,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Coalesced => "coalesced",
            Self::Refused => "refused",
            Self::TokenDead => "token_dead",
            Self::TokenBlocked => "token_blocked",
            Self::TokenInvalid => "token_invalid",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::UnknownModule => "unknown_module",
            Self::NotRegistered => "not_registered",
            Self::UnknownDevice => "unknown_device",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::Unwanted => "unwanted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_at_its_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{}", outcome.name());
        }
    }
}
