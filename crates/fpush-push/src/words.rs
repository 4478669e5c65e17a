//! What became of a push, in words for persons: the one table, for the command line and for users' clients alike. Nothing
//! in it names who asked.

use crate::{Class, Outcome, PushError};

impl Class {
    /// What a person calls a push of this class.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::High => "a visible push",
            Self::Low => "a silent push",
            Self::Voip => "a call",
        }
    }
}

impl Outcome {
    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Accepted => "The provider has it.",
            Self::Queued => {
                "It was acknowledged, and goes out when the rate limit lets it, or when the provider is back."
            }
            Self::Coalesced | Self::Refused => {
                "A push for the device went out a moment ago, or is queued already, which wakes it for this one, too; or it was \
                 a call that came too soon."
            }
            Self::TokenDead => {
                "The provider says that the app was removed, or has another token. The server of a publish is told so, and \
                 forgets the device."
            }
            Self::TokenBlocked => {
                "Nothing is sent to it for a while, after the provider refused it. The device stays registered."
            }
            Self::TokenInvalid => "It cannot be a token of the module. The device stays registered.",
            Self::ProviderUnavailable => {
                "The provider could not be reached, refuses this module, or took too long. The server of a publish is told to \
                 wait."
            }
            Self::Overloaded => "Too many pushes were under way. The server of a publish is told to wait.",
            Self::ShuttingDown => "fpush was about to stop. The server of a publish is told to wait.",
            Self::UnknownModule => "No push module of this name is in the settings, or may be used here.",
            Self::NotRegistered => {
                "fpush has itself ended the registration of the device. The server of a publish is told so, and forgets the \
                 device."
            }
            Self::UnknownDevice => {
                "Node or secret are not those of a registered device. The server of a publish is told to wait."
            }
            Self::RegistryUnavailable => "The database of registered devices could not be asked.",
            Self::Unwanted => {
                "The settings send nothing: for what nobody has to see, or because the module is a shadow."
            }
        }
    }

    /// What to look at next.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Accepted => {
                "If the phone shows nothing: it may be off, battery saving may keep it, or the app may handle pushes wrongly."
            }
            Self::Queued => "There is nothing to do.",
            Self::Coalesced | Self::Refused => {
                "The next one goes out when the time of the rate limit is over, usually in less than half a minute: try again then."
            }
            Self::TokenDead | Self::NotRegistered => "Open the app: it has to register again.",
            Self::TokenBlocked => "Open the app, so that it registers again: that ends it.",
            Self::TokenInvalid => {
                "Look whether the app names the right module (one that has registered here names none), and whether the token is \
                 complete. APNs: hexadecimal digits, 64 of them today; FCM: the token as the app got it, 20 characters or more."
            }
            Self::ProviderUnavailable | Self::Overloaded | Self::RegistryUnavailable => {
                "Wait for some minutes. If it stays so, the log of this push service says why."
            }
            Self::ShuttingDown => "Try again in a minute.",
            Self::UnknownModule => {
                "Look which name the app has in the field pushModule, and ask the operator of this push service which one is right."
            }
            Self::UnknownDevice => {
                "Open the app, so that it registers, and look whether push is switched on in it."
            }
            Self::Unwanted => "Ask the operator of this push service.",
        }
    }
}

impl PushError {
    /// What a user can do about a push that the provider did not take.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::TokenGone { since: _ } => {
                "Open the app: it was removed from the device, or has another token, and has to register again."
            }
            Self::TokenDoubted | Self::TokenOfAnotherApp => {
                "Open the app, so that it registers again. If it stays so, the app was built for another environment or another \
                 push module than it names: tell its developer the reason."
            }
            Self::TokenBusy | Self::TooMany { pause: _ } => {
                "The provider wants fewer pushes for this device: wait for some minutes."
            }
            Self::TokenUnserved => {
                "The provider cannot reach the platform of this device for this app: tell the reason to the operator of this \
                 push service."
            }
            Self::Reconnected
            | Self::Renewed
            | Self::Crowded
            | Self::Later { after: _ }
            | Self::HostAway { after: _ } => {
                "The provider has an outage, is out of reach, or gives an unknown answer: try again in some minutes."
            }
            Self::Pause {
                length: _,
                alarm: false,
            } => "The provider wants fewer pushes from this push service: try again later.",
            Self::Pause {
                length: _,
                alarm: true,
            }
            | Self::TooLarge
            | Self::Misconfigured
            | Self::Unexplained => {
                "The fault is not the device's. Tell the reason to the operator of this push service."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_whole_sentences() {
        for outcome in Outcome::ALL {
            for text in [outcome.meaning(), outcome.advice()] {
                assert!(
                    text.ends_with('.') && !text.contains("  "),
                    "{}: {text}",
                    outcome.name()
                );
            }
        }
    }
}
