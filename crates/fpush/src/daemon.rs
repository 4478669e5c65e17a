//! Everything that runs, and how it becomes what new settings say without losing a push.

use std::{
    env, mem,
    path::{Path, PathBuf, absolute},
    slice,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use fpush_component::{Component, ComponentSettings, Handle};
use fpush_http::{Limits, Listener};
use fpush_monitor::{Certificate, Counted, Link, Monitor, Reload, Status};
use fpush_push::{
    Built, Clocks, Drain, Liveness, Module, Modules, TokenHasher,
    metrics::WordCounters,
    settings::{Problem, Severity},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tracing::{debug, error, info, warn};

use crate::{
    backends::Row,
    control::{Control, Desk, Holding, Reloads, RuntimeFolder},
    inquiry::Verdict,
    logging::Log,
    memory::{Memory, Remembered, Typed},
    recovery::{Recovered, Recovery},
    registration::{self, KnownChange, Registering, RegistrationSettings},
    run::log_problems,
    settings::{Loaded, LoadedModule, MonitoringSettings, Source, load, load_again},
};

/// Everything that runs.
pub(crate) struct Daemon {
    file: PathBuf,
    /// The types of backends; they live as long as the daemon, because what backends share must not be made twice.
    backends: Arc<[Row]>,
    log: Log,
    monitor: Arc<Monitor>,
    drain: Drain,
    liveness: Arc<Liveness>,
    hasher: TokenHasher,
    modules: Arc<Modules>,
    active: Vec<Active>,
    /// Modules that are not in the settings any more and still send what they hold.
    retired: Vec<Typed>,
    /// Acknowledged pushes that those could not deliver which have ended since.
    lost_by_retired: u64,
    component: Handle,
    component_settings: ComponentSettings,
    registration: Option<(RegistrationSettings, Registering)>,
    monitoring: Option<(MonitoringSettings, Listening)>,
    memory: Option<Memory>,
    /// What is known of the database of registered devices.
    known: Option<KnownChange>,
    state_folder: Option<PathBuf>,
    runtime_folder: RuntimeFolder,
    /// For those who ask what is taken.
    holding: Arc<Mutex<Holding>>,
    /// For those who ask what is registered.
    devices: registration::Lookup,
    source: Source,
    files: Files,
    reload: Option<Reload>,
    reload_results: Arc<WordCounters>,
    recovery: Recovery,
    /// The settings file that the operator asked for last, if it was refused: what else is taken over later does not
    /// make that good.
    refused: Option<Reload>,
}

/// A module of the settings in force.
struct Active {
    module: Arc<Module>,
    kind: &'static str,
    digest: u128,
}

/// A listener of ours that is being served.
struct Listening {
    handle: fpush_http::Handle,
    drain: Drain,
}

/// What is known of the files that the settings name, when they are other ones than those in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// They are those in force.
    InForce,
    /// They could not be used when they were looked at: certificate and key are often written one after the other.
    Unusable,
    /// They were refused, and this was said.
    Refused(u128),
}

/// Why settings are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The operator wants it.
    Asked,
    /// A file that they name has changed.
    Files,
}

impl Daemon {
    /// Starts everything. Returns the component, too, which has to be run.
    pub(crate) async fn start(
        file: &Path,
        loaded: Loaded,
        backends: Arc<[Row]>,
        log: Log,
        reloads: Reloads,
    ) -> anyhow::Result<(Self, Component)> {
        let Loaded {
            component: component_settings,
            modules: loaded_modules,
            registration,
            monitoring,
            logging: _,
            state_folder,
            runtime_folder,
            source,
        } = loaded;
        let (memory, hasher, remembered) = match &state_folder {
            Some(folder) => {
                let (memory, hasher, remembered) = Memory::open(folder, Instant::now())?;
                (Some(memory), hasher, remembered)
            }
            None => {
                let hasher = TokenHasher::new().context("the operating system gives no random numbers")?;
                (None, hasher, Remembered::default())
            }
        };
        let known = memory.as_ref().and_then(Memory::known).cloned();
        let (drain, liveness) = (Drain::default(), Arc::new(Liveness::new()));
        let modules = Arc::<Modules>::default();
        let (component, handle) = Component::new(
            component_settings.clone(),
            Arc::clone(&modules),
            None,
            drain.clone(),
            liveness.probe("component"),
        );
        let reload_results = Arc::<WordCounters>::default();
        let meters = handle.meters();
        let monitor = Monitor::new(
            env!("CARGO_PKG_VERSION"),
            Counted {
                outcomes: Arc::clone(&meters.outcomes),
                replies: Arc::clone(&meters.replies),
                dropped_replies: Arc::clone(&meters.dropped_replies),
                reply_durations: Arc::clone(&meters.durations),
                connects: Arc::clone(&meters.connects),
                disconnects: Arc::clone(&meters.disconnects),
                login_failures: Arc::clone(&meters.login_failures),
                reloads: Arc::clone(&reload_results),
                state_writes: memory.as_ref().map(Memory::writes).cloned().unwrap_or_default(),
                problems: Arc::clone(log.problems().counted()),
            },
        );
        let mut daemon = Self {
            file: file.to_owned(),
            backends,
            log,
            monitor,
            drain,
            liveness,
            hasher,
            modules,
            active: Vec::new(),
            retired: Vec::new(),
            lost_by_retired: 0,
            component: handle,
            component_settings,
            registration: None,
            monitoring: None,
            memory,
            known,
            state_folder,
            runtime_folder,
            holding: Arc::default(),
            devices: registration::Lookup::default(),
            source,
            files: Files::InForce,
            reload: None,
            reload_results,
            recovery: Recovery::default(),
            refused: None,
        };
        daemon.set_modules(loaded_modules, remembered);
        if let Some(settings) = registration {
            let (devices, registering) = registration::start(
                settings.clone(),
                &daemon.modules,
                &daemon.drain,
                None,
                daemon.known.clone(),
            )
            .await?;
            daemon.component.set_devices(Some(devices));
            daemon.registration = Some((settings, registering));
        }
        if let Some(settings) = monitoring {
            let listener = daemon.listener(&settings).await?;
            daemon.listen(settings, listener);
        }
        daemon.note_for_askers();
        if let Some(control) = Control::open(&daemon.runtime_folder).await? {
            let desk = Desk {
                modules: Arc::clone(&daemon.modules),
                component: daemon.component.clone(),
                settings: absolute(file).unwrap_or_else(|_| file.to_owned()),
                reloads,
                holding: Arc::clone(&daemon.holding),
                devices: daemon.devices.clone(),
            };
            tokio::spawn(control.serve(desk));
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
        self.active.len()
    }

    /// How many acknowledged pushes are held.
    pub(crate) fn held(&self) -> usize {
        self.typed().iter().map(|(module, _)| module.held()).sum()
    }

    /// The line for `systemctl status`.
    pub(crate) fn line(&self) -> String {
        let link = self.component.link();
        let modules = self.len();
        match link.down {
            None => format!("link up; push modules: {modules}"),
            Some(why) => format!("link down: {why}"),
        }
    }

    /// What has to be done once a second.
    pub(crate) async fn tick(&mut self) {
        let now = Instant::now();
        self.log.problems().tick(now);
        self.retired.retain(|(module, _)| {
            let ended = module.has_ended();
            self.lost_by_retired += if ended { module.lost() } else { 0 };
            !ended
        });
        let typed = self.typed();
        self.take_known();
        if let Some(memory) = &mut self.memory {
            memory.tick(&typed, now).await;
        }
        let clocks = Clocks::read();
        for (module, _) in &typed {
            module.follow_clock(clocks);
        }
        let status = self.status(now, clocks.wall);
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

    /// Takes note of what is known of the database of registered devices now. While it is doubted, that stays what it was.
    fn take_known(&mut self) {
        let running = self.registration.as_ref();
        let known = running.and_then(|(_, running)| running.known());
        if known.is_none() {
            return;
        }
        if let Some(memory) = &mut self.memory {
            memory.set_known(known.clone());
        }
        self.known = known;
    }

    /// Reads the settings again and goes on with them, or with the old ones if anything is wrong with the new ones.
    /// What was found has been logged.
    pub(crate) async fn reload(&mut self) -> Verdict {
        let digest = self.digest_of_files().await;
        match self.load(Cause::Asked).await {
            Ok((loaded, mut problems)) => {
                let refused = self.go_on_with(loaded, Cause::Asked, digest).await.err();
                let is_taken = refused.is_none();
                problems.extend(refused);
                Verdict { is_taken, problems }
            }
            Err(problems) => {
                self.files = digest.map_or(Files::InForce, Files::Refused);
                self.refuse(&problems, Cause::Asked);
                Verdict {
                    is_taken: false,
                    problems,
                }
            }
        }
    }

    /// Looks whether a file that the settings name has changed, and goes on with what it says now.
    pub(crate) async fn look_at_files(&mut self) {
        let Some(digest) = self.digest_of_files().await else {
            if matches!(self.files, Files::Refused(_)) {
                // They are again what they were: only what the operator asked for may still be refused.
                self.reload.clone_from(&self.refused);
            }
            self.files = Files::InForce;
            return;
        };
        if self.files == Files::Refused(digest) {
            return;
        }
        match self.load(Cause::Files).await {
            Ok((loaded, _)) => {
                info!("a file that the settings name has changed");
                // What was refused has been said.
                drop(self.go_on_with(loaded, Cause::Files, Some(digest)).await);
            }
            Err(problems) if self.files == Files::Unusable => {
                self.files = Files::Refused(digest);
                self.refuse(&problems, Cause::Files);
            }
            Err(_) => {
                debug!("files that the settings name have changed and cannot be used; looking again soon");
                self.files = Files::Unusable;
            }
        }
    }

    /// Ends everything that has to be ended, after the drain, and says what is lost. It takes until `end` at most: then a
    /// database that hangs is left, and costs nothing of what was acknowledged.
    pub(crate) async fn close(mut self, end: Instant) {
        let typed = self.typed();
        self.take_known();
        let memory = self.memory;
        let keep = async {
            match memory {
                Some(memory) => memory.close(&typed).await,
                None => false,
            }
        };
        let registration = self.registration;
        let unregister = timeout_at(end, async {
            if let Some((_, registering)) = registration {
                registering.close().await;
            }
        });
        let (kept, _) = tokio::join!(keep, unregister);
        let (mut undelivered, mut held) = (self.lost_by_retired, 0);
        for (module, _) in &typed {
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

    /// The digest of the files that the settings name; `None` if they are those in force.
    async fn digest_of_files(&self) -> Option<u128> {
        let source = self.source.clone();
        spawn_blocking(move || source.digest_of_changed_files())
            .await
            .ok()
            .flatten()
    }

    /// Reads settings beside the thread that pushes. Returns what is wrong with them, also if they can be used.
    async fn load(&mut self, cause: Cause) -> Result<(Loaded, Vec<Problem>), Vec<Problem>> {
        let (file, source, backends) = (self.file.clone(), self.source.clone(), Arc::clone(&self.backends));
        let loading = spawn_blocking(move || match cause {
            Cause::Asked => load(&file, &backends),
            Cause::Files => load_again(&source, &backends),
        });
        let Ok((loaded, problems)) = loading.await else {
            unreachable!("a panic ends the whole daemon");
        };
        match loaded {
            Some(loaded) => {
                log_problems(&problems);
                Ok((loaded, problems))
            }
            None => Err(problems),
        }
    }

    /// Goes on with settings that could be read. `digest` is that of the files that they name, if they are other ones
    /// than those in force.
    async fn go_on_with(
        &mut self,
        loaded: Loaded,
        cause: Cause,
        digest: Option<u128>,
    ) -> Result<(), Problem> {
        let source = loaded.source.clone();
        match self.apply(loaded).await {
            Ok(()) => {
                self.source = source;
                self.files = Files::InForce;
                self.reload_results.increment("ok");
                match cause {
                    Cause::Asked => {
                        info!("settings reloaded");
                        self.refused = None;
                    }
                    Cause::Files => info!("files reloaded"),
                }
                self.reload = self.refused.clone().or_else(|| {
                    Some(Reload {
                        at: SystemTime::now(),
                        refused: None,
                    })
                });
                Ok(())
            }
            Err(e) => {
                self.files = digest.map_or(Files::InForce, Files::Refused);
                let problem = Problem {
                    severity: Severity::Error,
                    path: String::new(),
                    message: format!("{e:#}"),
                };
                self.refuse(slice::from_ref(&problem), cause);
                Err(problem)
            }
        }
    }

    fn refuse(&mut self, problems: &[Problem], cause: Cause) {
        self.reload_results.increment("refused");
        let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
        log_problems(problems);
        error!("reload rejected, keeping the old settings");
        self.reload = Some(Reload {
            at: SystemTime::now(),
            refused: Some(all.join("; ")),
        });
        if cause == Cause::Asked {
            self.refused.clone_from(&self.reload);
        }
    }

    /// Goes on with other settings. First comes what may fail, and changes nothing.
    async fn apply(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded {
            component,
            modules,
            registration,
            monitoring,
            logging,
            state_folder,
            runtime_folder,
            source: _,
        } = loaded;
        let listener = match &monitoring {
            Some(settings) if !self.monitors_with(settings) => Some(self.listener(settings).await?),
            Some(_) | None => None,
        };
        let same_registration =
            registration.as_ref() == self.registration.as_ref().map(|(settings, _)| settings);
        let registering = match &registration {
            Some(settings) if !same_registration => {
                self.take_known();
                let old = self.registration.as_ref().map(|(_, registering)| registering);
                let (settings, known) = (settings.clone(), self.known.clone());
                Some(registration::start(settings, &self.modules, &self.drain, old, known).await?)
            }
            Some(_) | None => None,
        };

        self.log.set(&logging);
        self.set_modules(modules, Remembered::default());
        if !same_registration {
            let old = self.registration.take();
            match (registering, registration) {
                (Some((devices, registering)), Some(settings)) => {
                    self.component.set_devices(Some(devices));
                    self.registration = Some((settings, registering));
                }
                _ => self.component.set_devices(None),
            }
            if let Some((_, old)) = old {
                self.drain.spawn(old.close());
            }
            info!("registered devices: the settings have changed");
        }
        match (listener, monitoring) {
            (Some(listener), Some(settings)) => self.listen(settings, listener),
            (None, Some(_)) | (Some(_), None) => {}
            (None, None) => {
                if let Some((_, old)) = self.monitoring.take() {
                    old.drain.begin();
                }
            }
        }
        if component != self.component_settings {
            self.component.set_settings(component.clone());
            self.component_settings = component;
            info!("component: the settings have changed");
        }
        self.note_for_askers();
        if state_folder != self.state_folder {
            warn!("stateDirectory has changed, which takes effect with the next start");
        }
        if runtime_folder != self.runtime_folder {
            warn!("runtimeDirectory has changed, which takes effect with the next start");
        }
        Ok(())
    }

    /// Takes note of what somebody may ask for over the socket: what nobody else can have now, and what is registered.
    fn note_for_askers(&self) {
        self.devices.set(self.registration.as_ref());
        let monitoring = self.monitoring.as_ref().map(|(settings, _)| settings.listen);
        let registration = self.registration.as_ref();
        let http = registration.and_then(|(settings, _)| registration::listen(settings));
        let state_folder = self.memory.as_ref().and(self.state_folder.as_deref());
        *self.holding.lock().expect("mutex poisoned") = Holding {
            settings: self.file.canonicalize().ok(),
            component: self.component_settings.hostname.clone(),
            listens: monitoring.into_iter().chain(http).collect(),
            state_folder: state_folder.and_then(|folder| folder.canonicalize().ok()),
        };
    }

    /// Asks the module's provider whether it accepts the credentials, soon: not all providers at one moment.
    fn verify_soon(module: &Arc<Module>, modules: usize) {
        if env::var_os(VERIFY).is_none_or(|verify| verify != "off") {
            let spread = VERIFICATION.min(VERIFICATION_OF_ONE * u32::try_from(modules).unwrap_or(u32::MAX));
            tokio::spawn(module.prove(spread));
        }
    }

    /// Goes on with these modules: what is the same stays, what is another one goes on with what the old one knew and
    /// held, and what is not there any more ends by itself.
    fn set_modules(&mut self, loaded: Vec<LoadedModule>, mut remembered: Remembered) {
        let mut old = mem::take(&mut self.active);
        let (mut default, mut added, mut changed) = (None, 0, 0);
        let count = loaded.len();
        for module in loaded {
            let LoadedModule {
                name,
                kind,
                is_default,
                settings,
                backend,
                digest,
            } = module;
            let known = old
                .iter()
                .position(|old| old.module.name() == name && old.kind == kind);
            let module = match known.map(|place| old.swap_remove(place)) {
                Some(same) if same.digest == digest => same.module,
                known => {
                    let Built { backend, background } = (backend.build)();
                    let module = match known {
                        Some(Active { module, .. }) => {
                            changed += 1;
                            info!(module = module.name(), "the settings of this module have changed");
                            module.replace(backend, settings);
                            module
                        }
                        None => {
                            added += 1;
                            if let Some(module) = self.take_back(&name, kind) {
                                module.replace(backend, settings);
                                module
                            } else {
                                let (hasher, drain) = (self.hasher.clone(), self.drain.clone());
                                let module = Module::new(&name, backend, settings, hasher, drain);
                                if self.memory.is_some() {
                                    module.keep_held();
                                }
                                remembered.tell(&module, kind);
                                let probe = self.liveness.probe(format!("module {name}"));
                                self.drain.spawn(Arc::clone(&module).run(probe));
                                module
                            }
                        }
                    };
                    background.into_iter().for_each(|task| drop(tokio::spawn(task)));
                    Self::verify_soon(&module, count);
                    module
                }
            };
            if is_default {
                default = Some(Arc::clone(&module));
            }
            self.active.push(Active { module, kind, digest });
        }
        let all = self
            .active
            .iter()
            .map(|active| Arc::clone(&active.module))
            .collect();
        self.modules.set(all, default);
        let removed = old.len();
        for Active { module, kind, .. } in old {
            info!(
                module = module.name(),
                held = module.held(),
                "this module is not in the settings any more"
            );
            module.retire();
            self.retired.push((module, kind));
        }
        remembered.finish();
        if self.reload.is_some() || changed + removed > 0 {
            info!(added, changed, removed, "push modules");
        }
    }

    /// A module that was removed and has not ended yet, with all that it knows.
    fn take_back(&mut self, name: &str, kind: &str) -> Option<Arc<Module>> {
        let is_it = |(module, its): &Typed| module.name() == name && *its == kind && module.resume();
        let place = self.retired.iter().position(is_it)?;
        let (module, _) = self.retired.swap_remove(place);
        Some(module)
    }

    fn monitors_with(&self, settings: &MonitoringSettings) -> bool {
        self.monitoring
            .as_ref()
            .is_some_and(|(present, _)| present == settings)
    }

    async fn listener(&self, settings: &MonitoringSettings) -> anyhow::Result<Listener> {
        let running: Vec<_> = self
            .monitoring
            .iter()
            .map(|(_, listening)| listening.handle.clone())
            .collect();
        Listener::bind(
            settings.listen,
            settings.security.clone(),
            Limits::default(),
            &running,
        )
        .await
        .context("monitoring")
    }

    fn listen(&mut self, settings: MonitoringSettings, listener: Listener) {
        info!(listen = %listener.address(), "metrics and status page are open");
        let drain = self.drain.child();
        let listening = Listening {
            handle: listener.handle(),
            drain: drain.clone(),
        };
        let host_names = settings.security.host_names.clone();
        let router = host_names.guard(self.monitor.router(), "monitoring");
        drain.spawn(listener.serve(router, drain.clone()));
        if let Some((_, old)) = self.monitoring.replace((settings, listening)) {
            old.drain.begin();
        }
    }

    /// All modules that may hold something.
    fn typed(&self) -> Vec<Typed> {
        let active = self
            .active
            .iter()
            .map(|active| (Arc::clone(&active.module), active.kind));
        active.chain(self.retired.iter().cloned()).collect()
    }

    fn status(&self, now: Instant, wall: SystemTime) -> Status {
        let link = self.component.link();
        let mut modules: Vec<_> = self
            .active
            .iter()
            .map(|active| fpush_monitor::Module {
                kind: active.kind,
                status: active.module.status(now, wall),
            })
            .collect();
        modules.sort_by(|a, b| a.status.name.cmp(&b.status.name));
        let listeners = [
            (
                "monitoring",
                self.monitoring
                    .as_ref()
                    .map(|(_, listening)| listening.handle.clone()),
            ),
            (
                "registration.http",
                self.registration
                    .as_ref()
                    .and_then(|(_, registering)| registering.listener()),
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
            link: Link {
                component: link.component,
                server: link.server,
                since: link.since,
                down: link.down,
            },
            modules,
            retired: self
                .retired
                .iter()
                .map(|(module, _)| (module.name().to_owned(), Arc::clone(module.meters())))
                .collect(),
            certificates,
            registered_devices: self
                .registration
                .as_ref()
                .and_then(|(_, registering)| registering.devices()),
            registry: self
                .registration
                .as_ref()
                .map(|(_, registering)| registering.standing()),
            reload: self.reload.clone(),
            state_trouble: self.memory.as_ref().and_then(Memory::trouble).map(str::to_owned),
            senders: self.component.senders(),
            problems: self.log.problems().recent(),
        }
    }
}

/// `off`: no provider is asked for anything but pushes.
const VERIFY: &str = "FPUSH_VERIFY";
/// Within this time after the start or a reload each new module has been verified.
const VERIFICATION: Duration = Duration::from_secs(60);
/// One module has less time, as there is nothing to spread.
const VERIFICATION_OF_ONE: Duration = Duration::from_secs(2);
