//! Bounds that leave no room for new devices.

use std::fmt;

/// A bound that leaves no room for new devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The one of all devices.
    All {
        /// As how many they count.
        devices: i64,
        /// How many there may be.
        most: i64,
    },
    /// The one of devices without an owner.
    WithoutOwner {
        /// As how many they count.
        devices: i64,
        /// How many there may be.
        most: i64,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { devices, most } => write!(
                f,
                "the devices count as {devices}, and registration.maxDevices ({most}) has no room for new ones: raise it, or \
                 only devices that are there can register"
            ),
            Self::WithoutOwner { devices, most } => write!(
                f,
                "the devices without an owner count as {devices}, and registration.maxDevicesPerDomain ({most}) has no room \
                 for new ones: raise it, or no new device can register over HTTP"
            ),
        }
    }
}
