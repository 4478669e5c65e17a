//! A running fpush whose link is up.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use fpush_testkit::{Daemon, Monitoring};
use serde_json::{Value, json};

use super::load::{Amount, Done, Kind, Link, Listener};
use super::paced::{Pace, Sent};
use super::proc;
use super::template::Template;

pub(super) struct Rig {
    daemon: Daemon,
    pub(super) link: Link,
    /// From its start until the link was up.
    pub(super) startup: Duration,
}

impl Rig {
    /// Starts fpush with these modules, the log at info as by default.
    pub(super) fn start(fpush: &Path, modules: &Value) -> Result<Self> {
        Self::start_with(fpush, modules, None)
    }

    /// The same with a state directory, and with metrics.
    pub(super) fn start_in(fpush: &Path, modules: &Value, state: &Path) -> Result<Self> {
        let settings = json!({
            "pushModules": modules,
            "stateDirectory": state,
            "monitoring": { "listen": "127.0.0.1:0" },
        });
        Self::start_of(fpush, settings, None)
    }

    /// The same as one of several instances, which share by the engine at this URL.
    pub(super) fn start_sharing(fpush: &Path, modules: &Value, engine: &str) -> Result<Self> {
        let settings = json!({ "pushModules": modules, "cluster": { "url": engine } });
        Self::start_of(fpush, settings, None)
    }

    /// The same behind a proxy, which is for all that is not on this machine.
    pub(super) fn start_behind(fpush: &Path, modules: &Value, proxy: &str) -> Result<Self> {
        Self::start_of(fpush, json!({ "pushModules": modules }), Some(proxy))
    }

    /// The same with a block `registration`.
    pub(super) fn start_with(fpush: &Path, modules: &Value, registration: Option<&Value>) -> Result<Self> {
        let mut settings = json!({ "pushModules": modules });
        if let Some(registration) = registration {
            settings["registration"] = registration.clone();
        }
        Self::start_of(fpush, settings, None)
    }

    fn start_of(fpush: &Path, mut settings: Value, proxy: Option<&str>) -> Result<Self> {
        let listener = Listener::bind()?;
        settings["component"] = component(listener.port());
        let mut builder = Daemon::builder(fpush).settings(&settings).rust_log("info");
        if let Some(proxy) = proxy {
            builder = builder.env("HTTPS_PROXY", proxy).env("NO_PROXY", "127.0.0.1");
        }
        let start = Instant::now();
        let daemon = builder.start();
        let link = listener.accept().map_err(|error| explain(error, &daemon))?;
        Ok(Self {
            daemon,
            link,
            startup: start.elapsed(),
        })
    }

    /// Keeps so many publishes in flight. Returns what was done and what processor time it took fpush.
    pub(super) fn run(
        &mut self,
        templates: &[Template],
        in_flight: u64,
        amount: Amount,
        expected: Kind,
    ) -> Result<(Done, Duration)> {
        let before = self.cpu_time()?;
        let done = self
            .link
            .run(templates, in_flight, amount, expected)
            .map_err(|error| explain(error, &self.daemon))?;
        Ok((done, self.cpu_time()? - before))
    }

    /// Sends publishes at that pace; returns the same.
    pub(super) fn paced(
        &mut self,
        template: &Template,
        pace: Pace,
        time: Duration,
    ) -> Result<(Sent, Duration)> {
        let before = self.cpu_time()?;
        let sent = self
            .link
            .paced(std::slice::from_ref(template), pace, time)
            .map_err(|error| explain(error, &self.daemon))?;
        Ok((sent, self.cpu_time()? - before))
    }

    /// Sends publishes, made of the templates in turn, at that pace. Meanwhile something is done to the daemon every second.
    pub(super) fn paced_while(
        &mut self,
        templates: &[Template],
        pace: Pace,
        time: Duration,
        every_second: impl Fn(&Daemon) + Sync,
    ) -> Result<Sent> {
        let (daemon, link) = (&self.daemon, &mut self.link);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                for second in 1.. {
                    every_second(daemon);
                    while start.elapsed() < Duration::from_secs(second) {
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
            let sent = link.paced(templates, pace, time);
            ended.store(true, Ordering::Relaxed);
            sent.map_err(|error| explain(error, daemon))
        })
    }

    /// Keeps so many publishes in flight, however they are answered. Returns how many there were, how many of them with a result, and
    /// what processor time it took fpush.
    pub(super) fn overload(
        &mut self,
        templates: &[Template],
        in_flight: u64,
        amount: Amount,
    ) -> Result<(Done, u64, Duration)> {
        let (before, mut accepted) = (self.cpu_time()?, 0);
        let done = self.link.run_with(templates, in_flight, amount, |reply| {
            accepted += u64::from(reply.kind == Kind::Result);
            Ok(())
        });
        let done = done.map_err(|error| explain(error, &self.daemon))?;
        Ok((done, accepted, self.cpu_time()? - before))
    }

    /// How many pushes it holds; with a state directory.
    pub(super) fn held(&self) -> Result<u64> {
        let monitoring = Monitoring::of(&self.daemon, Duration::from_secs(30));
        monitoring.wait_for_news();
        let held = monitoring.scrape().value("fpush_pushes_queued", &[]);
        Ok(held.context("there is no metric of held pushes")? as u64)
    }

    /// How many lines of its log so far hold this.
    pub(super) fn log_lines(&self, text: &str) -> usize {
        self.daemon.log().matches(text).count()
    }

    pub(super) fn cpu_time(&self) -> Result<Duration> {
        proc::cpu_time(self.daemon.pid())
    }

    pub(super) fn resident(&self) -> Result<u64> {
        proc::resident(self.daemon.pid())
    }
}

/// fpush with these modules at a server on this port.
pub(super) fn behind(fpush: &Path, modules: &Value, port: u16) -> Daemon {
    let settings = json!({ "pushModules": modules, "component": component(port) });
    Daemon::builder(fpush)
        .settings(&settings)
        .rust_log("info")
        .start()
}

fn component(port: u16) -> Value {
    json!({
        "componentHostname": NAME,
        "componentKey": KEY,
        "serverHostname": "127.0.0.1",
        "serverPort": port,
    })
}

/// How a server knows fpush.
pub(super) const NAME: &str = "push.localhost";
pub(super) const KEY: &str = "made-up-component-secret";

fn explain(error: anyhow::Error, daemon: &Daemon) -> anyhow::Error {
    anyhow!("{error:#}\nfpush says:\n{}", daemon.log())
}
