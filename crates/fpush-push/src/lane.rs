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
    /// That of what this sender has signed itself, or what goes where it says (Push 2.0). The answer to that says
    /// nothing of us, and nothing of what others send there. What we sign stays in the lane that it has.
    #[must_use]
    pub fn of_sender(self, sender: Fingerprint) -> Self {
        match self {
            Self::Main | Self::Second => self,
            Self::Vendor(vendor) => {
                Self::Origin(Fingerprint::from_parts([u64::from(vendor), VENDORS]).of_sender(sender))
            }
            Self::Origin(origin) => Self::Origin(origin.of_sender(sender)),
        }
    }

    /// The other one of a provider that has two; `None` if there is no such lane.
    #[must_use]
    pub fn other(self) -> Option<Self> {
        match self {
            Self::Main => Some(Self::Second),
            Self::Second => Some(Self::Main),
            Self::Vendor(_) | Self::Origin(_) => None,
        }
    }

    /// Whether a stranger has chosen what is behind it: what it says is said of its own receivers alone, and proves nothing.
    #[must_use]
    pub fn is_strangers(self) -> bool {
        match self {
            Self::Main | Self::Second | Self::Vendor(_) => false,
            Self::Origin(_) => true,
        }
    }
}

/// Beside the number of a vendor, where a hash would be.
const VENDORS: u64 = u64::MAX;
