//! A link: what it is to be, how it is, and the replies that go over it.

use std::sync::{Arc, Mutex, RwLock};

use fpush_push::{
    LinkMeters,
    sync::{lock, read, write},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    outbox::{Group, Outbox},
    settings::LinkSettings,
};

/// A link. It has one connection after the other.
#[derive(Debug)]
pub(crate) struct Link {
    settings: RwLock<Arc<LinkSettings>>,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
}

/// A link at one moment.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// Our address.
    pub component: String,
    /// The server, as `host:port`.
    pub server: String,
    /// Since when it is as it is.
    pub since: Instant,
    /// Why it is down, in words with what to do; `None` if it is up.
    pub down: Option<String>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    down: Option<String>,
}

/// Whether a link is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The settings have it.
    Wanted,
    /// The settings do not have it any more.
    Unwanted,
    /// Nobody works for it any more.
    Ended,
}

impl Link {
    pub(crate) fn new(settings: LinkSettings, group: Arc<Group>, meters: Arc<LinkMeters>) -> Arc<Self> {
        Arc::new(Self {
            settings: RwLock::new(Arc::new(settings)),
            outbox: Outbox::new(group, meters),
            state: Mutex::new(State {
                since: Instant::now(),
                down: Some("the login has not ended yet".to_owned()),
            }),
            phase: watch::Sender::new(Phase::Wanted),
        })
    }

    pub(crate) fn settings(&self) -> Arc<LinkSettings> {
        Arc::clone(&read(&self.settings))
    }

    /// Goes on with these settings, which its connection serves.
    pub(crate) fn adjust(&self, settings: LinkSettings) {
        *write(&self.settings) = Arc::new(settings);
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(crate) fn meters(&self) -> &LinkMeters {
        self.outbox.meters()
    }

    pub(crate) fn status(&self) -> LinkStatus {
        let settings = self.settings();
        let state = lock(&self.state);
        LinkStatus {
            name: settings.name.clone(),
            component: settings.hostname.clone(),
            server: settings.server(),
            since: state.since,
            down: state.down.clone(),
        }
    }

    /// It is up.
    pub(crate) fn note_up(&self) {
        self.note(None);
    }

    /// It is down, for this reason.
    pub(crate) fn note_down(&self, why: String) {
        self.note(Some(why));
    }

    fn note(&self, down: Option<String>) {
        let mut state = lock(&self.state);
        if state.down.is_some() != down.is_some() {
            state.since = Instant::now();
        }
        state.down = down;
    }

    /// The settings do not have it any more. It ends when what is under way has its replies.
    pub(crate) fn dismiss(&self) {
        self.phase.send_if_modified(|phase| {
            let was_wanted = *phase == Phase::Wanted;
            if was_wanted {
                *phase = Phase::Unwanted;
            }
            was_wanted
        });
    }

    /// Nobody works for it any more.
    pub(crate) fn end(&self) {
        self.outbox.end();
        self.phase.send_replace(Phase::Ended);
    }

    /// Waits until it is dismissed.
    pub(crate) async fn until_dismissed(&self) {
        self.until(|phase| phase != Phase::Wanted).await;
    }

    /// Waits until it has ended.
    pub(crate) async fn until_ended(&self) {
        self.until(|phase| phase == Phase::Ended).await;
    }

    async fn until(&self, is_it: impl Fn(Phase) -> bool) {
        let mut phase = self.phase.subscribe();
        if phase.wait_for(|phase| is_it(*phase)).await.is_err() {
            unreachable!("we hold the sender");
        }
    }
}

#[cfg(test)]
impl Link {
    /// One that is open.
    pub(crate) fn made_up() -> Arc<Self> {
        let meters = LinkMeters::new(crate::reply::counters());
        let link = Self::new(LinkSettings::made_up(), Arc::default(), Arc::new(meters));
        link.outbox.open();
        link
    }
}
