//! What every module has, whatever its backend.

use fpush_push::settings::Section;

use crate::{blocklist::BlocklistSettings, limiter::RatelimitSettings};

/// What every module has, whatever its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSettings {
    /// `maxInFlight`: pushes at the provider at a time.
    pub max_in_flight: usize,
    /// `ratelimit`.
    pub ratelimit: RatelimitSettings,
    /// `blacklist`.
    pub blocklist: BlocklistSettings,
}

impl ModuleSettings {
    /// Reads the keys that every module has, except `type` and `is_default_module`.
    pub fn read(module: &mut Section<'_>) -> Self {
        Self {
            max_in_flight: module.integer("maxInFlight", 1..=100_000, 1_000) as usize,
            ratelimit: RatelimitSettings::read(module),
            blocklist: BlocklistSettings::read(module),
        }
    }
}
