//! How long it takes until fpush works.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::helper::StandIn;
use super::plan::Plan;
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, millis};

pub(super) struct Startup {
    times: Vec<Duration>,
}

/// Starts fpush with one module several times.
pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Startup> {
    let modules = json!({ "apple": stand_in.endpoints.module(Backend::Certificate) });
    let start = |_| Ok(Rig::start(fpush, &modules)?.startup);
    let times = (0..plan.starts).map(start).collect::<Result<_>>()?;
    Ok(Startup { times })
}

impl Startup {
    pub(super) fn median(&self) -> Duration {
        Spread::of(self.times.clone()).p50
    }

    pub(super) fn count(&self) -> usize {
        self.times.len()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "median_ms": millis(self.median()),
            "times_ms": self.times.iter().copied().map(millis).collect::<Vec<_>>(),
        })
    }
}
