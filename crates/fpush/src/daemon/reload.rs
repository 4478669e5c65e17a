//! How the daemon becomes what new settings say: read, compare, do what may fail, then what may not.

use std::{mem, slice, sync::Arc, time::SystemTime};

use fpush_push::settings::{Problem, Severity};
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use super::{
    Daemon, Listening,
    plan::{ListenerStep, ModuleStep, Plan, Step},
    progress::Cause,
};
use crate::{
    inquiry::Verdict,
    logging::log_problems,
    registration,
    settings::{Changed, Loaded, Settings, load, load_again},
};

impl Daemon {
    /// Reads the settings again and goes on with them, or with the old ones if anything is wrong with the new ones.
    /// What was found has been logged.
    pub(crate) async fn reload(&mut self) -> Verdict {
        let changed = self.changed_files().await.map(|changed| changed.digest);
        match self.load(Cause::Asked).await {
            Ok((loaded, mut problems)) => {
                let (is_taken, more) = match self.go_on_with(loaded, Cause::Asked, changed).await {
                    Ok(later) => (true, later),
                    Err(refused) => (false, vec![refused]),
                };
                problems.extend(more);
                Verdict { is_taken, problems }
            }
            Err(problems) => {
                self.refuse(&problems, Cause::Asked, changed);
                Verdict {
                    is_taken: false,
                    problems,
                }
            }
        }
    }

    /// Looks whether a file that the settings name has changed, and goes on with what it says now.
    pub(crate) async fn look_at_files(&mut self) {
        let Some(Changed { digest, files }) = self.changed_files().await else {
            if self.progress.are_in_force() {
                info!("the files that had been refused are again as they are in force");
            }
            return;
        };
        if !self.progress.is_worth_a_try(digest) {
            return;
        }
        match self.load(Cause::Files).await {
            Ok((loaded, _)) => {
                info!(?files, "a file that the settings name has changed");
                // What was refused has been said.
                drop(self.go_on_with(loaded, Cause::Files, Some(digest)).await);
            }
            Err(problems) => {
                if self.progress.are_refused() {
                    self.refuse(&problems, Cause::Files, Some(digest));
                } else {
                    debug!(
                        ?files,
                        "files have changed and cannot be used; looking again soon"
                    );
                }
                self.renew_certificates().await;
            }
        }
    }

    /// The files that the settings name, if they are other ones than those in force.
    async fn changed_files(&self) -> Option<Changed> {
        let source = self.source.clone();
        spawn_blocking(move || source.look()).await.ok().flatten()
    }

    /// Reads settings beside the thread that pushes. Returns what is wrong with them, also if they can be used.
    async fn load(&self, cause: Cause) -> Result<(Loaded, Vec<Problem>), Vec<Problem>> {
        let (file, source, types) = (self.file.clone(), self.source.clone(), Arc::clone(&self.types));
        let loading = spawn_blocking(move || match cause {
            Cause::Asked => load(&file, &types),
            Cause::Files => load_again(&source, &types),
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

    /// Goes on with settings that could be read; returns what takes effect later. `changed` is the digest of the files that they name, if they are other
    /// ones than those in force.
    async fn go_on_with(
        &mut self,
        loaded: Loaded,
        cause: Cause,
        changed: Option<u128>,
    ) -> Result<Vec<Problem>, Problem> {
        let plan = Plan::reload(&self.settings, &loaded.settings);
        match self.apply(&plan, loaded).await {
            Ok(()) => {
                self.reload_results.increment("ok");
                let [added, replaced] = [ModuleStep::Add, ModuleStep::Change].map(|step| plan.count(step));
                info!(
                    added,
                    changed = replaced,
                    removed = plan.retired.len(),
                    "push modules"
                );
                let [opened, reopened] = plan.count_links();
                info!(opened, reopened, closed = plan.closed.len(), "links");
                match cause {
                    Cause::Asked => info!("settings reloaded"),
                    Cause::Files => info!("files reloaded"),
                }
                self.progress.taken(cause, SystemTime::now());
                let later = plan.later.iter().map(|key| Problem {
                    severity: Severity::Warning,
                    path: (*key).to_owned(),
                    message: "this has changed, which takes effect with the next start".to_owned(),
                });
                Ok(later.collect())
            }
            Err(e) => {
                let problem = Problem {
                    severity: Severity::Error,
                    path: String::new(),
                    message: format!("{e:#}"),
                };
                self.refuse(slice::from_ref(&problem), cause, changed);
                Err(problem)
            }
        }
    }

    fn refuse(&mut self, problems: &[Problem], cause: Cause, changed: Option<u128>) {
        self.reload_results.increment("refused");
        let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
        log_problems(problems);
        error!("reload rejected, keeping the old settings");
        self.progress
            .refused(cause, all.join("; "), changed, SystemTime::now());
    }

    /// Does what is planned. First comes what may fail, and changes nothing; then, without waiting, what may not.
    pub(super) async fn apply(&mut self, plan: &Plan, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded {
            settings,
            modules,
            source,
        } = loaded;
        let listener = match (&plan.monitoring, &settings.monitoring) {
            (ListenerStep::Open, Some(monitoring)) => Some(self.bind(monitoring).await?),
            _ => None,
        };
        let registering = match (&plan.registration, &settings.registration) {
            (ListenerStep::Open, Some(registration)) => Some(self.open(registration).await?),
            _ => None,
        };

        let Settings {
            links,
            monitoring,
            sender_names,
            logging,
            ..
        } = &settings;
        match plan.logging {
            Step::Keep => {}
            Step::Change => self.log.set(logging),
        }
        match plan.cluster {
            Step::Keep => {}
            Step::Change => self.share(settings.cluster.as_ref()).await,
        }
        sender_names.set();
        let wanted = settings.modules.iter().cloned().zip(modules).collect();
        self.modules.apply(plan, wanted);
        let before = self.registration.take();
        self.registration = match (&plan.registration, registering) {
            (ListenerStep::Open | ListenerStep::Close, new) => {
                let (devices, new) = new.unzip();
                self.component.set_devices(devices);
                if let Some(before) = before {
                    info!("registered devices: the settings have changed");
                    self.drain.spawn(before.close());
                }
                new
            }
            (ListenerStep::Renew(certificate), _) => {
                if let Some(listener) = before.as_ref().and_then(|registering| registering.listener()) {
                    listener.renew(certificate.clone());
                }
                before
            }
            (ListenerStep::Keep, _) => before,
        };
        match (&plan.monitoring, listener, monitoring) {
            (ListenerStep::Open, Some(listener), Some(monitoring)) => {
                let listening = self.serve(&monitoring.security, listener);
                self.replace_monitoring(Some(listening));
            }
            (ListenerStep::Open | ListenerStep::Close, ..) => self.replace_monitoring(None),
            (ListenerStep::Renew(certificate), ..) => {
                if let Some(Listening { handle, .. }) = &self.monitoring {
                    handle.renew(certificate.clone());
                }
            }
            (ListenerStep::Keep, ..) => {}
        }
        let wanted = links.iter().cloned().zip(plan.links.iter().cloned());
        self.component.set_links(&plan.closed, wanted.collect());
        for key in &plan.later {
            warn!("{key} has changed, which takes effect with the next start");
        }
        self.settings = settings;
        self.source = source;
        self.note_for_askers();
        Ok(())
    }

    fn replace_monitoring(&mut self, listening: Option<Listening>) {
        if let Some(before) = mem::replace(&mut self.monitoring, listening) {
            before.drain.begin();
        }
    }

    /// Takes up the listeners' new certificates although other files cannot be used: they have nothing to do with each
    /// other.
    async fn renew_certificates(&mut self) {
        let source = self.source.clone();
        let Ok([monitoring, registration]) = spawn_blocking(move || source.certificates()).await else {
            return;
        };
        let security = self
            .settings
            .monitoring
            .as_mut()
            .map(|monitoring| &mut monitoring.security);
        let handle = self.monitoring.as_ref().map(|listening| &listening.handle);
        renew(security, handle, monitoring);
        let security = self
            .settings
            .registration
            .as_mut()
            .and_then(registration::security);
        let handle = self
            .registration
            .as_ref()
            .and_then(|registering| registering.listener());
        renew(security, handle.as_ref(), registration);
    }
}

fn renew(
    security: Option<&mut fpush_http::Security>,
    handle: Option<&fpush_http::Handle>,
    certificate: Option<fpush_http::ServerCertificate>,
) {
    if let (Some(security), Some(handle), Some(new)) = (security, handle, certificate)
        && security.tls.as_ref().is_some_and(|old| *old != new)
    {
        security.tls = Some(new.clone());
        handle.renew(new);
    }
}
