//! The daemon from its start to its end.

use std::{
    path::Path,
    pin::{Pin, pin},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fpush_component::Component;
use fpush_push::{Drain, Module, TokenHasher, settings::Severity};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    exit, registration,
    settings::{Loaded, load},
};

pub(crate) fn run(file: &Path) -> ExitCode {
    let (loaded, problems) = load(file);
    for problem in problems {
        match problem.severity {
            Severity::Error => error!("{problem}"),
            Severity::UnknownKey | Severity::Warning => warn!("{problem}"),
        }
    }
    let Some(loaded) = loaded else {
        error!("not started, because the settings are wrong");
        return ExitCode::from(exit::CONFIG);
    };
    match start(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e:#}");
            ExitCode::from(exit::OS_ERROR)
        }
    }
}

/// One thread carries more pushes than any component link brings (see ARCHITECTURE.md), and spares every
/// push the way between threads.
fn start(loaded: Loaded) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(loaded));
    // A name look-up that hangs in its thread keeps nobody from ending.
    runtime.shutdown_background();
    result
}

async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let hasher = TokenHasher::new().context("the operating system gives no random numbers")?;
    let drain = Drain::default();
    let Loaded {
        component,
        modules,
        registration,
    } = loaded;
    let (by_name, modules, background) = Loaded::build(modules, &hasher, &drain);
    for task in background {
        tokio::spawn(task);
    }
    for module in &modules {
        drain.spawn(Arc::clone(module).run());
    }
    let by_name = Arc::new(by_name);
    let (registration, registering) = match registration {
        Some(settings) => {
            let (registration, registering) = registration::start(settings, &by_name, &drain).await?;
            (Some(registration), Some(registering))
        }
        None => (None, None),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        modules = modules.len(),
        "started"
    );
    let mut component = pin!(Component::new(component, by_name, registration, drain.clone()).run());

    let name = tokio::select! {
        biased;
        name = signals.next() => name,
        () = &mut component => anyhow::bail!("the component ended by itself"),
    };
    let held: usize = modules.iter().map(|module| module.held()).sum();
    info!(
        held,
        "{name}: finishing what is under way and sending what is held; a second signal ends this at once"
    );
    drain.begin();
    tokio::select! {
        () = finish(component, &drain) => {}
        _ = signals.next() => warn!("a second signal: ended at once"),
    }
    if let Some(registering) = registering {
        registering.close().await;
    }
    say_goodbye(&modules);
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

fn say_goodbye(modules: &[Arc<Module>]) {
    let mut undelivered = 0;
    for module in modules {
        let lost = module.lost() + module.held() as u64;
        undelivered += lost;
        if lost > 0 {
            warn!(
                module = module.name(),
                lost, "pushes were acknowledged and could not be delivered"
            );
        }
    }
    info!(undelivered, "stopped");
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
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

/// For what is under way when the daemon is told to stop.
const PATIENCE: Duration = Duration::from_secs(7);
/// For saying that the rest will not come.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
