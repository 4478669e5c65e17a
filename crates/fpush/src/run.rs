//! The daemon from its start to its end.

use std::{
    future::Future,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fpush_driver::Drain;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    backends::{self, Row},
    cli,
    console::Exit,
    daemon::Daemon,
    descriptors,
    logging::{self, Log, log_problems},
    notify::{self, Notifier},
    settings::{Loaded, Overridden, load},
};

pub(crate) fn run(file: &Path) -> Exit {
    let log = logging::start();
    let backends = Arc::<[Row]>::from(backends::table());
    let (loaded, problems) = load(file, &backends);
    log.set(
        &loaded
            .as_ref()
            .map(|loaded| loaded.settings.logging.clone())
            .unwrap_or_default(),
    );
    log_problems(&problems);
    descriptors::raise();
    let Some(loaded) = loaded else {
        error!("not started, because the settings are wrong");
        log.problems().finish();
        return Exit::Config;
    };
    for Overridden { path, variable } in loaded.source.overridden() {
        info!("{path} is what the environment variable {variable} says");
    }
    let problems = Arc::clone(log.problems());
    match start(file, loaded, backends, log) {
        Ok(()) => Exit::Success,
        Err(e) => {
            error!("{e:#}");
            problems.finish();
            Exit::OsError
        }
    }
}

/// One thread carries more pushes than any component link brings (see ARCHITECTURE.md), and spares every
/// push the way between threads.
fn start(file: &Path, loaded: Loaded, backends: Arc<[Row]>, log: Log) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(file, loaded, backends, log));
    // A name look-up that hangs in its thread keeps nobody from ending.
    runtime.shutdown_background();
    result
}

async fn serve(file: &Path, loaded: Loaded, backends: Arc<[Row]>, log: Log) -> anyhow::Result<()> {
    let mut stops = Stops::new().context("cannot listen for signals")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let notifier = Arc::new(Notifier::from_environment());
    let (reloads, mut asked) = mpsc::channel(1);
    let (mut daemon, component) = Daemon::start(file, loaded, backends, log, reloads).await?;
    info!(
        version = cli::VERSION,
        settings = %file.display(),
        modules = daemon.len(),
        "started"
    );
    notifier.ready();
    if let Some(patience) = notify::watchdog() {
        let (notifier, liveness) = (Arc::clone(&notifier), Arc::clone(daemon.liveness()));
        tokio::spawn(async move { notify::feed_watchdog(&notifier, &liveness, patience).await });
    }
    let mut component = pin!(component.run());
    let (mut seconds, mut looks) = (interval(SECOND), interval(LOOK));
    for ticks in [&mut seconds, &mut looks] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut line = String::new();
    let name = loop {
        // What takes time here, such as a database that does not answer, must keep neither the component from its work
        // nor anybody from stopping it: where a reload waits, nothing has changed yet.
        let mut turn = pin!(async {
            tokio::select! {
                biased;
                _ = hang_up.recv() => {
                    info!("SIGHUP: reading the settings again");
                    notifier.reloading();
                    // All of it is in the log.
                    drop(daemon.reload().await);
                    notifier.ready();
                }
                Some(answer) = asked.recv() => {
                    info!("fpush reload: reading the settings again");
                    notifier.reloading();
                    let verdict = daemon.reload().await;
                    notifier.ready();
                    // Nobody waits for it any more.
                    drop(answer.send(verdict));
                }
                _ = seconds.tick() => {
                    daemon.tick().await;
                    let now = daemon.line();
                    if now != line {
                        notifier.status(&now);
                        line = now;
                    }
                }
                _ = looks.tick() => daemon.look_at_files().await,
            }
        });
        tokio::select! {
            biased;
            name = stops.next() => break name,
            () = &mut turn => {}
            () = &mut component => anyhow::bail!("the component ended by itself"),
        }
    };
    notifier.stopping();
    info!(
        held = daemon.held(),
        "{name}: finishing what is under way and sending what is held; a second signal ends this at once"
    );
    let end = Instant::now() + LONGEST_END;
    let drain = daemon.drain().clone();
    drain.begin();
    tokio::select! {
        () = finish(component, &drain) => {}
        _ = stops.next() => {
            warn!("a second signal: ended at once");
            // Whatever is under way gives up and is counted, or kept for the next start.
            drain.expire();
            drop(timeout(LAST_WORDS, drain.until_idle()).await);
        }
    }
    daemon.close(end).await;
    Ok(())
}

/// Waits until everything is done, and not longer than systemd and the operator like to wait.
async fn finish(component: Pin<&mut impl Future<Output = ()>>, drain: &Drain) {
    let mut finished = pin!(async { tokio::join!(drain.until_idle(), component) });
    if timeout(PATIENCE, &mut finished).await.is_err() {
        drain.expire();
        drop(timeout(LAST_PATIENCE, finished).await);
    }
}

/// The signals that end the daemon.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// For what gives up after a second signal.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Between two calls of [`Daemon::tick`].
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Between two looks whether files that the settings name have changed: a change is in force within a minute, also if
/// it takes two looks.
const LOOK: Duration = Duration::from_secs(20);
/// For all of the end. Runtimes of containers kill what takes longer, and systemd after the unit's `TimeoutStopSec`.
const LONGEST_END: Duration = Duration::from_secs(10);
/// For what is under way when the daemon is told to stop.
const PATIENCE: Duration = Duration::from_secs(6);
/// For saying that the rest will not come, and for the end of the stream.
const LAST_PATIENCE: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir;

    #[test]
    fn the_parts_of_the_end_fit_into_it_and_it_fits_into_the_unit() {
        assert!(PATIENCE + LAST_PATIENCE + state_dir::CLOSING < LONGEST_END);
        let unit = include_str!("../../../fpush.service");
        let allowed = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
        let allowed = Duration::from_secs(allowed.unwrap().parse().unwrap());
        assert!(LONGEST_END + SECOND < allowed);
    }
}
