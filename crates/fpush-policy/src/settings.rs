//! What every module has, whatever its backend.

use fpush_push::{Delivery, settings::Section};

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
    /// `shadow`. It is nothing to decide by: whoever carries the decisions out goes by it.
    pub delivery: Delivery,
}

impl ModuleSettings {
    /// Reads the keys that every module has, except `type` and `is_default_module`.
    pub fn read(module: &mut Section<'_>) -> Self {
        Self {
            max_in_flight: module.integer("maxInFlight", 1..=100_000, 1_000) as usize,
            ratelimit: RatelimitSettings::read(module),
            blocklist: BlocklistSettings::read(module),
            delivery: read_delivery(module),
        }
    }
}

fn read_delivery(module: &mut Section<'_>) -> Delivery {
    if !module.boolean("shadow", false) {
        return Delivery::Real;
    }
    module.warning(
        "shadow",
        "this module sends nothing and answers every publish with a result: devices that only this fpush is to wake get no push",
    );
    Delivery::Shadow
}
