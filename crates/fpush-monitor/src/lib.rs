//! What an operator sees of the daemon: metrics, health and the status page.

mod status;

pub use status::{Certificate, Link, Module, Problem, Reload, Severity, Status};
