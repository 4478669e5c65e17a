//! What every module has, whatever its backend.

use std::time::Duration;

use fpush_push::settings::Section;

use crate::{blocklist::BlocklistSettings, limiter::RatelimitSettings};

/// What every module has, whatever its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSettings {
    /// `maxInFlight`: pushes at the provider at a time.
    pub max_in_flight: usize,
    /// `holdFor`: how long a push is held that the provider cannot take. Zero: it is answered with an error instead.
    pub hold_for: Duration,
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
            hold_for: module.duration("holdFor", HOLD_FOR).min(LONGEST_HOLD),
            ratelimit: RatelimitSettings::read(module),
            blocklist: BlocklistSettings::read(module),
        }
    }
}

const HOLD_FOR: Duration = Duration::from_secs(4 * 3_600);
/// What is older than that wakes nobody any more.
const LONGEST_HOLD: Duration = Duration::from_secs(28 * 86_400);
