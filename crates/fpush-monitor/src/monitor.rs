//! Holds what is known about the daemon, and makes of it what is asked for.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    concerns,
    counters::{self, Counted},
    exposition::Exposition,
    gauges,
    history::{Counts, History},
    process,
    status::Status,
    table, view,
};

/// What is known about the daemon, for those who watch it.
pub struct Monitor {
    pub(crate) counted: Counted,
    version: &'static str,
    start: SystemTime,
    pub(crate) started: Instant,
    seen: Mutex<Seen>,
    /// Held by who has a text written: of many who ask one after the other gets one.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// What was recorded.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    last: Option<(Instant, Arc<Status>)>,
    history: Arc<History>,
}

impl Monitor {
    /// Begins to watch.
    #[must_use]
    pub fn new(version: &'static str, counted: Counted) -> Arc<Self> {
        Arc::new(Self {
            counted,
            version,
            start: SystemTime::now(),
            started: Instant::now(),
            seen: Mutex::default(),
            writing: Arc::default(),
        })
    }

    /// Records the status. Once a second.
    pub fn tick(&self, status: Status, now: Instant, wall: SystemTime) {
        let mut seen = self.seen();
        if seen.history.is_due(now) {
            let meters = status.meters();
            let of_modules = meters
                .iter()
                .map(|(name, meters)| ((*name).into(), meters.outcomes().get()));
            let mut counts: Counts = of_modules.collect();
            counts.insert("".into(), self.counted.outcomes.get());
            // A copy only while somebody reads it.
            Arc::make_mut(&mut seen.history).add(counts, now, wall);
        }
        seen.last = Some((now, Arc::new(status)));
    }

    /// Has a text written beside the thread that pushes: those about a thousand modules take as long as many pushes.
    pub(crate) async fn written(
        self: Arc<Self>,
        write: impl FnOnce(&Self) -> Option<String> + Send + 'static,
    ) -> Option<String> {
        // Not given back by who asked and has gone meanwhile, because the text is written to the end.
        let writing = Arc::clone(&self.writing).lock_owned().await;
        let text = spawn_blocking(move || {
            let _writing = writing;
            write(&self)
        });
        text.await.ok().flatten()
    }

    /// All metrics as Prometheus wants them.
    pub(crate) fn metrics(&self, wall: SystemTime) -> String {
        let mut text = Exposition::default();
        let last = self.seen().last.clone();
        let status = last.as_ref().map(|(_, status)| &**status);
        let meters = status.map(Status::meters).unwrap_or_default();
        let links = status.map(|status| &*status.link_meters).unwrap_or_default();
        counters::write(&mut text, &self.counted, &meters, links);
        text.family(&table::BUILD_INFO, [([self.version], 1)]);
        if let Some((at, status)) = &last
            && is_current(*at)
        {
            gauges::write(&mut text, status, self.start, wall);
        }
        text.single(
            &table::PROCESS_START_TIME,
            gauges::seconds_from(SystemTime::UNIX_EPOCH, self.start),
        );
        process::write(&mut text);
        text.into_text()
    }

    /// Why fpush is not ready; nothing if it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        match &self.seen().last {
            Some((at, status)) if is_current(*at) => concerns::unready(status),
            Some(_) | None => {
                vec!["no status in the last minute: fpush has just started, or hangs".to_owned()]
            }
        }
    }

    /// What there is to know although fpush is ready.
    pub(crate) fn remark(&self) -> Option<&'static str> {
        let (_, status) = self.seen().last.clone()?;
        concerns::remark(&status)
    }

    /// What the status page shows, as JSON; `None` before there is a status.
    pub(crate) fn view(&self, now: Instant, wall: SystemTime) -> Option<Value> {
        let Seen { last, history } = self.seen().clone();
        let (at, status) = last?;
        let mut view = view::view(&status, &history, now, wall);
        view["version"] = self.version.into();
        view["uptime"] = now.saturating_duration_since(self.started).as_secs().into();
        view["age"] = now.saturating_duration_since(at).as_secs().into();
        Some(view)
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a status of then says anything about now.
fn is_current(at: Instant) -> bool {
    at.elapsed() < STALE
}

const STALE: Duration = Duration::from_secs(60);
