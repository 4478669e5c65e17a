//! What an operator sees of the daemon: metrics, health and the status page.
//!
//! Counters and histograms come through the `metrics` facade from where things happen. All else comes once a second as
//! a [`Status`]: gauges, health and the page are made of the last one when somebody asks.

mod concerns;
mod exposition;
mod gauges;
mod histograms;
mod history;
mod process;
mod routes;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::Router;
use metrics::Recorder as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tokio::time::Instant;

pub use status::{Certificate, Link, Module, Problem, Reload, Severity, Standing, Status};
pub use table::{Kind, METRICS, Metric};

use crate::{
    exposition::Exposition,
    gauges::Totals,
    histograms::{Histograms, Recording},
    history::{Counts, History},
};

/// What is known about the daemon, for those who watch it.
pub struct Monitor {
    exporter: PrometheusHandle,
    histograms: Arc<Histograms>,
    version: &'static str,
    start: SystemTime,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<(Instant, Status)>,
    totals: Totals,
    history: History,
}

impl Monitor {
    /// Begins to watch: installs the recorder of all metrics of this process. Once, before anything is counted; `None` if
    /// there is a recorder already.
    #[must_use]
    pub fn install(version: &'static str) -> Option<Arc<Self>> {
        let (recording, monitor) = Self::build(version);
        metrics::set_global_recorder(recording).ok()?;
        Some(monitor)
    }

    /// A monitor and its recorder, which is not installed.
    fn build(version: &'static str) -> (Recording, Arc<Self>) {
        let exporter = PrometheusBuilder::new().build_recorder();
        for metric in METRICS {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => exporter.describe_counter(name, None, help),
                // Those are written here.
                Kind::Gauge | Kind::Histogram(_) => {}
            }
        }
        let histograms = Arc::<Histograms>::default();
        let monitor = Arc::new(Self {
            exporter: exporter.handle(),
            histograms: Arc::clone(&histograms),
            version,
            start: SystemTime::now(),
            started: Instant::now(),
            state: Mutex::default(),
        });
        let recording = Recording { exporter, histograms };
        (recording, monitor)
    }

    /// Takes note of the status. Once a second.
    pub fn tick(&self, status: Status, now: Instant, wall: SystemTime) {
        let mut state = self.state();
        state.totals.add(&status);
        if state.history.wants(now) {
            let counts = Counts::of(&self.exporter.render());
            state.history.add(counts, now, wall);
        }
        state.last = Some((now, status));
    }

    /// `/metrics`, `/livez`, `/readyz` and the status page. Requests are `GET` or `HEAD`, and have no body that anybody
    /// reads.
    pub fn router(self: &Arc<Self>) -> Router {
        routes::router(Arc::clone(self))
    }

    /// All metrics as Prometheus wants them.
    fn metrics(&self, wall: SystemTime) -> String {
        let mut text = Exposition(self.exporter.render());
        self.histograms.write(&mut text);
        text.family(&table::BUILD_INFO, [([self.version], 1.0)]);
        let state = self.state();
        if let Some(status) = state.current() {
            gauges::write(&mut text, status, &state.totals, self.start, wall);
        }
        drop(state);
        text.single(
            &table::PROCESS_START_TIME,
            gauges::seconds_from(SystemTime::UNIX_EPOCH, self.start),
        );
        process::write(&mut text);
        text.0
    }

    /// Why fpush is not ready; nothing if it is.
    fn unready(&self) -> Vec<String> {
        match self.state().current() {
            Some(status) => concerns::unready(status),
            None => vec!["there is no news of what goes on; it may have just been started".to_owned()],
        }
    }

    /// What the status page shows; `None` before there is a status.
    fn view(&self, now: Instant, wall: SystemTime) -> Option<Value> {
        let state = self.state();
        let (at, status) = state.last.as_ref()?;
        let mut view = view::view(status, &state.history, now, wall);
        view["version"] = self.version.into();
        view["uptime"] = now.saturating_duration_since(self.started).as_secs().into();
        view["age"] = now.saturating_duration_since(*at).as_secs().into();
        Some(view)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The last status, unless it is so old that it says nothing about now.
    fn current(&self) -> Option<&Status> {
        let (at, status) = self.last.as_ref()?;
        (at.elapsed() < STALE).then_some(status)
    }
}

const STALE: Duration = Duration::from_secs(60);
