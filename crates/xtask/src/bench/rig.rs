//! A running fpush whose link is up.

use std::path::Path;
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
        settings["component"] = json!({
            "componentHostname": "push.localhost",
            "componentKey": "made-up-component-secret",
            "serverHostname": "127.0.0.1",
            "serverPort": listener.port(),
        });
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
            .paced(template, pace, time)
            .map_err(|error| explain(error, &self.daemon))?;
        Ok((sent, self.cpu_time()? - before))
    }

    /// How many pushes it holds; with a state directory.
    pub(super) fn held(&self) -> Result<u64> {
        let monitoring = Monitoring::of(&self.daemon, Duration::from_secs(30));
        monitoring.wait_for_news();
        let held = monitoring.scrape().value("fpush_pushes_queued", &[]);
        Ok(held.context("there is no metric of held pushes")? as u64)
    }

    pub(super) fn cpu_time(&self) -> Result<Duration> {
        proc::cpu_time(self.daemon.pid())
    }

    pub(super) fn resident(&self) -> Result<u64> {
        proc::resident(self.daemon.pid())
    }
}

fn explain(error: anyhow::Error, daemon: &Daemon) -> anyhow::Error {
    anyhow!("{error:#}\nfpush says:\n{}", daemon.log())
}
