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
        let hold_for = module.duration("holdFor", HOLD_FOR);
        if hold_for > LONGEST_HOLD {
            module.error(
                "holdFor",
                "expected at most 28 days, which is as long as providers keep a push",
            );
        }
        Self {
            max_in_flight: module.integer("maxInFlight", 1..=100_000, 1_000) as usize,
            hold_for: hold_for.min(LONGEST_HOLD),
            ratelimit: RatelimitSettings::read(module),
            blocklist: BlocklistSettings::read(module),
        }
    }
}

const HOLD_FOR: Duration = Duration::from_secs(4 * 3_600);
/// What is older than that wakes nobody any more.
const LONGEST_HOLD: Duration = Duration::from_secs(28 * 86_400);
