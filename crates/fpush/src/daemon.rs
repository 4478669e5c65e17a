//! Everything that runs.

mod modules;
mod plan;
mod progress;
mod reload;

use std::{
    path::{Path, PathBuf, absolute},
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use fpush_component::{Component, Handle, LinkStatus};
use fpush_driver::{Drain, Liveness, Senders, clocks};
use fpush_http::{Listener, Security};
use fpush_monitor::{Certificate, Counted, Link, Monitor, Status};
use fpush_push::{Delivery, Devices, TokenHasher, metrics::WordCounters, sync::lock};
use tokio::{
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tracing::{info, warn};

use self::{modules::RunningModules, plan::Plan, progress::Progress};
use crate::{
    backends::Row,
    cluster::{ClusterSettings, Sharing},
    control::{Control, Reloads, Responder},
    descriptors::listener_limits,
    inquiry::Holding,
    logging::Log,
    recovery::{Recovered, Recovery},
    registration::{self, KnownChange, Registering, RegistrationSettings},
    run::SECOND,
    settings::{Loaded, MonitoringSettings, Settings, Source},
    state_dir::{Remembered, StateDir, TypedModule},
};

/// Everything that runs.
pub(crate) struct Daemon {
    file: PathBuf,
    /// The types of backends; they live as long as the daemon, because what backends share must not be made twice.
    types: Arc<[Row]>,
    log: Log,
    monitor: Arc<Monitor>,
    drain: Drain,
    liveness: Arc<Liveness>,
    modules: RunningModules,
    component: Handle,
    registration: Option<Registering>,
    monitoring: Option<Listening>,
    state: Option<StateDir>,
    /// What other instances share with this one.
    sharing: Option<Arc<Sharing>>,
    /// What is known of the database of registered devices.
    known: Option<KnownChange>,
    /// For those who ask what is taken.
    holding: Arc<Mutex<Holding>>,
    /// For those who ask whether the settings file was edited.
    in_force: Arc<Mutex<Source>>,
    /// For those who ask what is registered.
    devices: registration::Lookup,
    /// Those in force.
    settings: Settings,
    source: Source,
    progress: Progress,
    reload_results: Arc<WordCounters>,
    recovery: Recovery,
}

/// A listener of ours that is being served.
struct Listening {
    handle: fpush_http::Handle,
    drain: Drain,
}

impl Daemon {
    /// Starts everything. Returns the component, too, which has to be run.
    pub(crate) async fn start(
        file: &Path,
        loaded: Loaded,
        types: Arc<[Row]>,
        log: Log,
        reloads: Reloads,
    ) -> anyhow::Result<(Self, Component)> {
        let (settings, source) = (loaded.settings.clone(), loaded.source.clone());
        let (state, senders, remembered) = match &settings.state_folder {
            Some(folder) => {
                let (state, senders, remembered) = StateDir::open(folder, Instant::now())?;
                (Some(state), senders, remembered)
            }
            None => {
                let hasher = TokenHasher::new().context("the operating system gives no random numbers")?;
                (None, Senders::new(hasher), Remembered::default())
            }
        };
        let known = state.as_ref().and_then(StateDir::known).cloned();
        let (drain, liveness) = (Drain::default(), Arc::new(Liveness::new()));
        let modules = RunningModules::new(senders.clone(), drain.clone(), Arc::clone(&liveness), remembered);
        let (component, handle) = Component::new(
            Arc::clone(modules.table()),
            None,
            senders,
            drain.clone(),
            Arc::clone(&liveness),
        );
        let reload_results = Arc::<WordCounters>::default();
        let meters = handle.meters();
        let monitor = Monitor::new(
            env!("CARGO_PKG_VERSION"),
            Counted {
                outcomes: Arc::clone(&meters.outcomes),
                notifications: Arc::clone(&meters.notifications),
                lost: Arc::clone(modules.lost()),
                reply_durations: Arc::clone(&meters.durations),
                reloads: Arc::clone(&reload_results),
                state_writes: state.as_ref().map(StateDir::writes).cloned().unwrap_or_default(),
                problems: Arc::clone(log.problems().counted()),
            },
        );
        let plan = Plan::start(&settings);
        let mut daemon = Self {
            file: file.to_owned(),
            types,
            log,
            monitor,
            drain,
            liveness,
            modules,
            component: handle,
            registration: None,
            monitoring: None,
            state,
            sharing: None,
            known,
            holding: Arc::default(),
            in_force: Arc::default(),
            devices: registration::Lookup::default(),
            settings,
            source,
            progress: Progress::default(),
            reload_results,
            recovery: Recovery::default(),
        };
        daemon.apply(&plan, loaded).await?;
        if let Some(control) = Control::open(&daemon.settings.runtime_folder).await? {
            let responder = Responder {
                modules: Arc::clone(daemon.modules.table()),
                component: daemon.component.clone(),
                settings: absolute(file).unwrap_or_else(|_| file.to_owned()),
                reloads,
                holding: Arc::clone(&daemon.holding),
                source: Arc::clone(&daemon.in_force),
                devices: daemon.devices.clone(),
                monitor: Arc::clone(&daemon.monitor),
            };
            tokio::spawn(control.serve(responder));
        }
        Ok((daemon, component))
    }

    /// What everybody shares for the end.
    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Who is asked whether they are alive.
    pub(crate) fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    /// How many push modules there are.
    pub(crate) fn len(&self) -> usize {
        self.modules.active().len()
    }

    /// How many acknowledged pushes are held.
    pub(crate) fn held(&self) -> usize {
        self.modules.held()
    }

    /// The line for `systemctl status`.
    pub(crate) fn line(&self) -> String {
        let (links, modules) = (self.component.links(), self.len());
        let down: Vec<_> = links
            .iter()
            .filter_map(|link| Some((link, link.down.as_ref()?)))
            .collect();
        let (all, up) = (links.len(), links.len() - down.len());
        match down.first() {
            None if all == 1 => format!("link up; push modules: {modules}"),
            None => format!("{all} links up; push modules: {modules}"),
            Some((_, why)) if all == 1 => format!("link down: {why}"),
            Some((link, why)) => format!("{up} of {all} links up; link {} down: {why}", link.name),
        }
    }

    /// What has to be done once a second.
    pub(crate) async fn tick(&mut self) {
        let now = Instant::now();
        self.log.problems().tick(now);
        let clocks = clocks();
        self.modules.tick(clocks);
        let all = self.modules.all();
        self.take_known();
        if let Some(state) = &mut self.state {
            state.tick(&all, self.modules.remembered(), now).await;
        }
        for some in all.chunks(MODULES_AT_ONCE) {
            for TypedModule { module, .. } in some {
                module.follow_clock(clocks);
                module.exchange();
            }
            yield_now().await;
        }
        let status = self.status(now, clocks.wall).await;
        let modules = status.modules.iter().map(|module| &module.status);
        for Recovered { module, kind, lasted } in self.recovery.look(modules, now) {
            let trouble = kind.name();
            info!(
                module,
                trouble,
                seconds = lasted.as_secs(),
                "the module works again"
            );
        }
        self.monitor.tick(status, now, clocks.wall);
    }

    /// From now on this instance shares what it knows over this engine, or with nobody.
    async fn share(&mut self, settings: Option<&ClusterSettings>) {
        // The modules share over the old one until then.
        self.sharing = match settings {
            Some(settings) => {
                let (hasher, modules) = (self.modules.hasher(), self.modules.table());
                let sharing = Sharing::start(settings, hasher, modules);
                if self.len() == 0 {
                    sharing.tried().await;
                }
                Some(Arc::new(sharing))
            }
            None => None,
        };
        let agreement = self.sharing.as_deref().map(Sharing::agreement);
        for backend in self.types.iter().filter_map(|row| row.backend.as_ref()) {
            backend.agree_by(agreement.clone());
        }
        self.modules.share(self.sharing.clone());
    }

    /// Takes note of what is known of the database of registered devices now. While it is doubted, that stays what it was.
    fn take_known(&mut self) {
        let known = self.registration.as_ref().and_then(Registering::known);
        if known.is_none() {
            return;
        }
        if let Some(state) = &mut self.state {
            state.set_known(known.clone());
        }
        self.known = known;
    }

    /// Ends everything that has to be ended, after the drain, and says what is lost. It takes until `end` at most: then a
    /// database that hangs is left, and costs nothing of what was acknowledged.
    pub(crate) async fn close(mut self, end: Instant) {
        let all = self.modules.all();
        self.take_known();
        let (state, remembered) = (self.state, self.modules.remembered());
        let keep = async {
            match state {
                Some(state) => state.close(&all, remembered).await,
                None => false,
            }
        };
        let registration = self.registration;
        let unregister = timeout_at(end, async {
            if let Some(registering) = registration {
                registering.close().await;
            }
        });
        let sharing = self.sharing;
        let tell = timeout(HAND_OVER, async {
            if let Some(sharing) = sharing {
                sharing.flush().await;
                for TypedModule { module, .. } in &all {
                    module.hand_over().await;
                }
            }
        });
        let (kept, _, _) = tokio::join!(keep, unregister, tell);
        let (mut undelivered, mut held) = (self.modules.lost().get(), 0);
        if kept {
            held += remembered.held();
        } else {
            undelivered += remembered.held() as u64;
        }
        for TypedModule { module, .. } in &all {
            let kept = kept && module.delivery() == Delivery::Real;
            let lost = module.lost() + if kept { 0 } else { module.held() as u64 };
            held += if kept { module.held() } else { 0 };
            undelivered += lost;
            if lost > 0 {
                let module = module.name();
                warn!(
                    module,
                    lost, "pushes were acknowledged and could not be delivered"
                );
            }
        }
        self.log.problems().finish();
        info!(undelivered, kept = held, "stopped");
    }

    /// Opens the port of metrics and status page; it may be the one of the listener that runs.
    async fn bind(&self, settings: &MonitoringSettings) -> anyhow::Result<Listener> {
        let running: Vec<_> = self
            .monitoring
            .iter()
            .map(|listening| listening.handle.clone())
            .collect();
        Listener::bind(
            settings.listen,
            settings.security.clone(),
            listener_limits(),
            &running,
        )
        .await
        .context("monitoring")
    }

    fn serve(&self, security: &Security, listener: Listener) -> Listening {
        info!(listen = %listener.address(), "metrics and status page are open");
        let drain = self.drain.child();
        let handle = listener.handle();
        let router = security
            .host_names
            .clone()
            .guard(self.monitor.router(), "monitoring");
        drain.spawn(listener.serve(router, drain.clone()));
        Listening { handle, drain }
    }

    /// Opens the registry and its listener; they may take the place of those that run. A database may need long for that: what
    /// has to be done once a second is done meanwhile, once there is something to look after.
    async fn open(
        &mut self,
        settings: &RegistrationSettings,
    ) -> anyhow::Result<(Arc<dyn Devices>, Registering)> {
        self.take_known();
        let (settings, known) = (settings.clone(), self.known.clone());
        let (modules, drain) = (Arc::clone(self.modules.table()), self.drain.clone());
        let old = self.registration.as_ref().map(Registering::running);
        let mut opening = pin!(registration::start(settings, &modules, &drain, old, known));
        let has_started = self.len() > 0;
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                opened = &mut opening => return opened,
                _ = seconds.tick(), if has_started => self.tick().await,
            }
        }
    }

    /// Takes note of what somebody may ask for over the socket: what nobody else can have now, and what is registered.
    fn note_for_askers(&self) {
        let Settings {
            links,
            registration,
            monitoring,
            state_folder,
            ..
        } = &self.settings;
        self.devices
            .set(registration.as_ref().zip(self.registration.as_ref()));
        let monitoring = monitoring.as_ref().map(|settings| settings.listen);
        let http = registration.as_ref().and_then(registration::listen);
        let state_folder = self.state.as_ref().and(state_folder.as_deref());
        *lock(&self.in_force) = self.source.clone();
        *lock(&self.holding) = Holding {
            settings: self.file.canonicalize().ok(),
            components: links.iter().map(|link| link.hostname.clone()).collect(),
            listens: monitoring.into_iter().chain(http).collect(),
            state_folder: state_folder.and_then(|folder| folder.canonicalize().ok()),
        };
    }

    async fn status(&self, now: Instant, wall: SystemTime) -> Status {
        let mut modules = Vec::with_capacity(self.modules.active().len());
        for some in self.modules.active().chunks(MODULES_AT_ONCE) {
            modules.extend(some.iter().map(|typed| fpush_monitor::Module {
                module_type: typed.module_type,
                status: typed.module.status(now, wall),
            }));
            yield_now().await;
        }
        modules.sort_by(|a, b| a.status.name.cmp(&b.status.name));
        let links = self.component.links().into_iter().map(shown).collect();
        let listeners = [
            (
                "monitoring",
                self.monitoring.as_ref().map(|listening| listening.handle.clone()),
            ),
            (
                "registration.http",
                self.registration.as_ref().and_then(Registering::listener),
            ),
        ];
        let certificates = listeners
            .into_iter()
            .filter_map(|(name, handle)| {
                let expires = handle?.certificate_expires()?;
                let name = name.to_owned();
                Some(Certificate { name, expires })
            })
            .collect();
        Status {
            links,
            link_meters: self.component.link_meters(),
            modules,
            retired: self
                .modules
                .retired()
                .iter()
                .map(|typed| (typed.module.name().to_owned(), Arc::clone(typed.module.meters())))
                .collect(),
            certificates,
            registered_devices: self.registration.as_ref().and_then(Registering::devices),
            cluster: self.sharing.as_deref().map(Sharing::status),
            registry: self.registration.as_ref().map(Registering::status),
            registry_outage: self.registration.as_ref().and_then(Registering::outage),
            ended: self.registration.as_ref().map(Registering::ended),
            reload: self.progress.last().cloned(),
            state_trouble: self.state.as_ref().and_then(StateDir::trouble).map(str::to_owned),
            senders: self.component.senders(),
            problems: self.log.problems().recent(),
        }
    }
}

/// A link as the operator sees it.
fn shown(link: LinkStatus) -> Link {
    let LinkStatus {
        name,
        component,
        server,
        since,
        down,
    } = link;
    Link {
        name,
        component,
        server,
        since,
        down,
    }
}

/// So many modules are looked at before pushes have their turn again: that takes less than a millisecond.
const MODULES_AT_ONCE: usize = 16;
/// For telling the other instances, at the end, what they can have.
const HAND_OVER: Duration = Duration::from_secs(2);
