//! What every module has, whatever its backend.

use std::time::Duration;

use fpush_push::{
    Delivery,
    settings::{MAX_IN_FLIGHT, Section},
};

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
    /// `shadow`. It is nothing to decide by: the driver, which carries the decisions out, goes by it.
    pub delivery: Delivery,
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
            max_in_flight: module.integer("maxInFlight", 1..=100_000, MAX_IN_FLIGHT) as usize,
            hold_for: hold_for.min(LONGEST_HOLD),
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
const HOLD_FOR: Duration = Duration::from_secs(4 * 3_600);
/// What is older than that wakes nobody any more.
const LONGEST_HOLD: Duration = Duration::from_secs(28 * 86_400);
