//! The log: to standard error, in the original's way governed by `RUST_LOG`.

use std::io::{self, IsTerminal as _};

use tracing::{Metadata, level_filters::LevelFilter, warn};
use tracing_subscriber::{
    Layer as _,
    filter::{FilterFn, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Starts the log. `RUST_LOG` says how much of it there is, such as `debug` or
/// `info,fpush_apns=debug`; info if it says nothing.
pub(crate) fn start() {
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .filter(|wanted| !wanted.trim().is_empty());
    let parsed = wanted.as_deref().map(str::parse::<Targets>);
    let levels = match &parsed {
        Some(Ok(levels)) => levels.clone(),
        Some(Err(_)) | None => Targets::new().with_default(LevelFilter::INFO),
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(lines.with_filter(levels).with_filter(FilterFn::new(is_safe)))
        .init();
    if let Some(Err(e)) = parsed {
        warn!("RUST_LOG cannot be read, so the level is info: {e}");
    }
}

/// Whatever `RUST_LOG` says, other people's crates are heard from warn on: yup-oauth2 writes access tokens at
/// debug.
fn is_safe(message: &Metadata<'_>) -> bool {
    message.target().starts_with("fpush") || *message.level() <= LevelFilter::WARN
}
