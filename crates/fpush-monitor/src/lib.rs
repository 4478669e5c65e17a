//! What an operator sees of the daemon: metrics, health and the status page.
//!
//! Counters and histograms are held by those who count, and read when somebody asks. All else comes once a second as a
//! [`Status`]: gauges, health and the page are made of the last one.

mod concerns;
mod counters;
mod exposition;
mod gauges;
mod history;
mod monitor;
mod process;
mod routes;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use counters::Counted;
pub use monitor::Monitor;
pub use status::{
    Certificate, ClusterStatus, Link, Module, Problem, RegistryStatus, Reload, Severity, Status,
};
pub use table::{METRICS, Metric, MetricType};
