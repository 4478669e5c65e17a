//! Rows that say about one program at a time what it reaches, and that can be measured alone: `cargo xtask bench NAME …`.

use std::path::Path;

use anyhow::Result;

use super::helper::StandIn;
use super::plan::Plan;
use super::sample::Samples;
use super::target::Target;
use super::{cluster, devices, domains, held, pacing, servers, stalls, webpush};

/// What is measured, and with what.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) fpush: &'a Path,
    pub(super) plan: &'a Plan,
    pub(super) stand_in: &'a StandIn,
    pub(super) samples: &'a Samples,
}

pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) measure: fn(&Subject<'_>) -> Result<Vec<Target>>,
    pub(super) since: Since,
}

/// Since when fpush has what is measured.
#[derive(Clone, Copy)]
pub(super) enum Since {
    First,
    /// 0.1.0 does not have it: it is measured of this program alone.
    Later,
}

pub(super) static GROUPS: [Group; 11] = [
    later("held", "Held pushes in an outage", held::measure),
    later("cluster", "With a cluster", cluster::measure),
    later("webpush", "Web Push", webpush::measure),
    group("domains", "Overload from many domains", domains::measure),
    group("growth", "While tables of tokens grow", stalls::growth),
    group("scrape", "While many modules are scraped", stalls::scrape),
    group("reload", "While many modules are reloaded", stalls::reload),
    group("snapshot", "While a block list is written down", stalls::snapshot),
    group("devices", "Registered devices (SQLite)", devices::measure),
    group("pacing", "Shapes of pacing (APNs, certificate)", pacing::measure),
    group(SERVERS, "Behind real servers", servers::measure),
];

/// Its own option, `--servers`, names it, too.
pub(super) const SERVERS: &str = "servers";

const fn group(
    name: &'static str,
    title: &'static str,
    measure: fn(&Subject<'_>) -> Result<Vec<Target>>,
) -> Group {
    Group {
        name,
        title,
        measure,
        since: Since::First,
    }
}

const fn later(
    name: &'static str,
    title: &'static str,
    measure: fn(&Subject<'_>) -> Result<Vec<Target>>,
) -> Group {
    Group {
        since: Since::Later,
        ..group(name, title, measure)
    }
}
