//! Ctrl-C, SIGTERM and a closed terminal: noted here and asked for wherever something waits, so that the work is left
//! by its ordinary way out, which stops and removes everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes the signals from now on.
pub(crate) fn watch() -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot start a runtime")?;
    let context = runtime.enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    }
    drop(context);
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(())
}

/// Whether one of them came.
pub(crate) fn happened() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if one of them came.
pub(crate) fn check() -> Result<()> {
    if happened() {
        bail!("a signal came");
    }
    Ok(())
}
