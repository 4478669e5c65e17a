//! What shares a fate at a provider.

use crate::Fingerprint;

/// Names one lane of a module: the pushes that share permits, pauses, and what is believed of the provider's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneId {
    /// The only one of a module with one provider.
    #[default]
    Main,
    /// The other one of a provider that has two of everything, such as Apple's sandbox beside its production. A token is at home
    /// in one of them, and nobody can tell in which by looking at it.
    Second,
    /// One of the few providers that a module's backend knows by name.
    Vendor(u8),
    /// A server that a stranger has chosen, by a hash of its origin (RFC 6454). There may be any number of them.
    Origin(Fingerprint),
}

impl LaneId {
    /// Whether a stranger has chosen what is behind it: what it says is said of its own receivers alone, and proves nothing.
    #[must_use]
    pub fn is_strangers(self) -> bool {
        match self {
            Self::Main | Self::Second | Self::Vendor(_) => false,
            Self::Origin(_) => true,
        }
    }
}
