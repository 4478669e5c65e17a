//! Who has published what a provider answered.

use fpush_push::Fingerprint;

use crate::{fair::Standing, job::SenderDomain};

/// Whose publish it is that the provider answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publisher {
    /// The registrable domain.
    pub(crate) domain: Fingerprint,
    /// Whether it is a known one, so that it cannot have been invented for what it publishes.
    pub(crate) standing: Standing,
}

impl Publisher {
    /// The sender of a publish, as it was known then.
    pub(crate) fn of(sender: &SenderDomain) -> Self {
        Self {
            domain: sender.share,
            standing: sender.last_accepted.standing(),
        }
    }

    /// The sender of a publish whose push was accepted, by which it becomes a known one if it can be one.
    pub(crate) fn of_accepted(sender: &SenderDomain) -> Self {
        let standing = if sender.can_be_known() {
            Standing::Known
        } else {
            Standing::Unknown
        };
        Self {
            domain: sender.share,
            standing,
        }
    }
}
