//! The life of the component: one link after the other.

use std::{
    cell::Cell,
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_driver::{Drain, Modules, Probe, Senders};
use fpush_push::{Cut, Devices, jitter, sync::lock};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    dial::{Dial, Socket, Tcp},
    dispatcher::Dispatcher,
    link::{self, LinkEnd},
    login::{Established, FAREWELL, LoginError, close, login},
    meters::ComponentMeters,
    settings::ComponentSettings,
    stream::Cutter,
};

/// The component.
#[derive(Debug)]
pub struct Component {
    settings: watch::Receiver<ComponentSettings>,
    dispatcher: Arc<Dispatcher>,
    drain: Drain,
    probe: Probe,
    status: Arc<Mutex<Link>>,
}

/// Changes the component while it runs, and knows how it is.
#[derive(Clone, Debug)]
pub struct Handle {
    settings: watch::Sender<ComponentSettings>,
    dispatcher: Arc<Dispatcher>,
    status: Arc<Mutex<Link>>,
}

/// The link at one moment.
#[derive(Clone, Debug)]
pub struct LinkStatus {
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
struct Link {
    since: Instant,
    down: Option<String>,
}

impl Component {
    /// A component that hands publishes to these modules, and serves these registered devices; and the handle to it.
    #[must_use]
    pub fn new(
        settings: ComponentSettings,
        modules: Arc<Modules>,
        devices: Option<Arc<dyn Devices>>,
        senders: Senders,
        drain: Drain,
        probe: Probe,
    ) -> (Self, Handle) {
        let dispatcher = Dispatcher::new(&settings.hostname, modules, devices, senders, drain.clone());
        let status = Arc::new(Mutex::new(Link {
            since: Instant::now(),
            down: Some("the login has not ended yet".to_owned()),
        }));
        let (sender, settings) = watch::channel(settings);
        let handle = Handle {
            settings: sender,
            dispatcher: Arc::clone(&dispatcher),
            status: Arc::clone(&status),
        };
        let component = Self {
            settings,
            dispatcher,
            drain,
            probe,
            status,
        };
        (component, handle)
    }

    /// Connects, and connects again whenever the link ends or its settings have become others. When the shutdown
    /// begins, it answers what is under way, closes the stream and returns.
    pub async fn run(self) {
        self.run_over(Tcp).await;
    }

    /// The same over connections of another kind.
    pub async fn run_over<D: Dial>(mut self, dial: D) {
        let mut pauses = Pauses::default();
        loop {
            let settings = self.settings.borrow_and_update().clone();
            self.dispatcher.set_name(&settings.hostname);
            let connected = tokio::select! {
                connected = self.probe.while_waiting(login(&settings, &dial)) => connected,
                () = self.drain.until_begun() => return,
            };
            let pause = match connected {
                Ok(established) => {
                    let start = Instant::now();
                    info!(component = %settings.hostname, server = %settings.server_host, "link up");
                    self.meters().connects.increment();
                    self.note(None);
                    let end = match self.serve(established, &settings).await {
                        Served::Until(end) => end,
                        Served::Changed => {
                            self.note(Some("it is being opened anew, with the new settings".to_owned()));
                            continue;
                        }
                        Served::Stopped => return,
                    };
                    self.meters().disconnects.increment(end.name());
                    let why = end.describe(&settings.hostname);
                    warn!("link down: {why}");
                    self.note(Some(why));
                    pauses.after_link(&end, start.elapsed(), settings.retry_after, jitter())
                }
                Err(error) => {
                    let pause = pauses.after_login_error(&error, settings.retry_after, jitter());
                    self.meters().login_failures.increment(error.name());
                    let why = format!("{error}; {}", error.advice(&settings));
                    error!(retry_in = ?pause, "no link: {why}");
                    self.note(Some(why));
                    pause
                }
            };
            let mut changed = self.settings.clone();
            tokio::select! {
                () = self.probe.while_waiting(sleep(pause)) => {}
                () = until_changed(&mut changed, &settings) => {}
                () = self.drain.until_begun() => return,
            }
        }
    }

    /// Serves one link.
    async fn serve<S: Socket>(
        &mut self,
        established: Established<S>,
        settings: &ComponentSettings,
    ) -> Served {
        let Established { socket, already_read } = established;
        let (mut reader, mut writer) = socket.halves();
        let mut cutter = Cutter::new(settings.max_stanza_size, &already_read);
        let (dispatcher, drain) = (Arc::clone(&self.dispatcher), self.drain.clone());
        let outbox = dispatcher.outbox();
        let mut changed = self.settings.clone();
        let stop = async {
            let end = tokio::select! {
                () = drain.until_begun() => Served::Stopped,
                () = until_changed(&mut changed, settings) => Served::Changed,
            };
            info!("closing the link as soon as all replies are written");
            match end {
                Served::Changed => drop(timeout(HANDOVER, outbox.until_idle()).await),
                Served::Stopped | Served::Until(_) => {
                    drain.until_idle().await;
                    outbox.until_written().await;
                }
            }
            end
        };
        let linked = link::run(
            (&mut reader, &mut writer),
            &mut cutter,
            &settings.hostname,
            &dispatcher,
            &mut self.probe,
        );
        let end = tokio::select! {
            end = linked => return Served::Until(end),
            end = stop => end,
        };
        close(&mut writer).await;
        // A busy server sends until it sees the end of the stream, and does not send again what it has sent: whatever is
        // on its way by then is read. The stream takes no more replies, but the next one does. Before the next login that
        // costs nothing: Prosody refuses it while it holds the old connection. A daemon that stops could not answer, nor
        // push any more.
        if matches!(end, Served::Changed) {
            let last_read = Cell::new(Instant::now());
            let rest = link::read(&mut reader, &mut cutter, &dispatcher, &last_read, &mut self.probe);
            drop(timeout(FAREWELL, rest).await);
        }
        info!("link closed");
        end
    }

    fn meters(&self) -> &ComponentMeters {
        self.dispatcher.outbox().meters()
    }

    fn note(&self, down: Option<String>) {
        let mut link = lock(&self.status);
        if link.down.is_some() != down.is_some() {
            link.since = Instant::now();
        }
        link.down = down;
    }
}

impl Handle {
    /// Goes on with these settings. The link is opened anew if they are about it.
    pub fn set_settings(&self, settings: ComponentSettings) {
        self.settings.send_if_modified(|current| {
            let changed = *current != settings;
            *current = settings;
            changed
        });
    }

    /// Serves these registered devices from now on.
    pub fn set_devices(&self, devices: Option<Arc<dyn Devices>>) {
        self.dispatcher.set_devices(devices);
    }

    /// The link now.
    #[must_use]
    pub fn link(&self) -> LinkStatus {
        let settings = self.settings.borrow();
        let link = lock(&self.status);
        LinkStatus {
            component: settings.hostname.clone(),
            server: format!("{}:{}", settings.server_host, settings.server_port),
            since: link.since,
            down: link.down.clone(),
        }
    }

    /// What the component counts.
    #[must_use]
    pub fn meters(&self) -> &ComponentMeters {
        self.dispatcher.outbox().meters()
    }

    /// The domains that sent most publishes in the last ten to twenty minutes, and how many: most first, twenty at most.
    /// `None` if [`SenderNames`](fpush_push::SenderNames) are off.
    #[must_use]
    pub fn senders(&self) -> Option<Vec<(String, u64)>> {
        self.dispatcher.domains().top(Instant::now())
    }
}

/// How serving a link ended.
enum Served {
    /// The link ended.
    Until(LinkEnd),
    /// The settings have become others.
    Changed,
    /// The daemon is about to stop.
    Stopped,
}

impl LinkEnd {
    /// For the log and the status page.
    fn describe(&self, name: &str) -> String {
        match self {
            Self::Closed => "the server closed it".to_owned(),
            Self::Replaced => format!(
                "another instance has logged in as {name}, and the server allows only one (Prosody: \
                 component_conflict_resolve = \"kick_old\"); stop one of the two"
            ),
            Self::StreamError(condition) => format!("the server closed it with {}", Cut(condition)),
            Self::Io(e) => e.to_string(),
            Self::Silent => "nothing came from the server, not even an answer to a ping".to_owned(),
            Self::Stuck => "the server takes nothing from us".to_owned(),
        }
    }
}

/// Waits until the link's settings are others than these.
async fn until_changed(settings: &mut watch::Receiver<ComponentSettings>, current: &ComponentSettings) {
    if settings
        .wait_for(|settings| !settings.has_link_of(current))
        .await
        .is_err()
    {
        // Nobody is left who could change them.
        std::future::pending::<()>().await;
    }
}

/// How long to wait before the next login.
#[derive(Debug, Default)]
struct Pauses {
    /// Whether the last link was followed by a login at once.
    at_once: bool,
    /// Logins in a row that failed for a reason that only an operator removes.
    hopeless: u32,
}

impl Pauses {
    /// After a link that had been up for some time. At once the first time; but a server that closes each
    /// link as soon as it is up is not run against in a loop.
    fn after_link(&mut self, end: &LinkEnd, lived: Duration, retry_after: Duration, jitter: f64) -> Duration {
        self.hopeless = 0;
        match end {
            LinkEnd::Replaced => {
                self.at_once = false;
                // Only later, never earlier: the instance that replaced us wants to stay.
                REPLACED.max(retry_after).mul_f64(1.0 + jitter / 5.0)
            }
            LinkEnd::Closed | LinkEnd::StreamError(_) | LinkEnd::Io(_) | LinkEnd::Silent | LinkEnd::Stuck => {
                self.at_once = lived >= retry_after || !self.at_once;
                if self.at_once {
                    Duration::ZERO
                } else {
                    spread(retry_after, jitter)
                }
            }
        }
    }

    /// After a login that failed; slower and slower where only an operator can help.
    fn after_login_error(&mut self, error: &LoginError, retry_after: Duration, jitter: f64) -> Duration {
        if !error.needs_the_operator() {
            self.hopeless = 0;
            return spread(retry_after, jitter);
        }
        let pause = retry_after * 2u32.pow(self.hopeless.min(10));
        self.hopeless += 1;
        spread(pause.min(SLOWEST.max(retry_after)), jitter)
    }
}

/// The time, 20 % up or down.
fn spread(time: Duration, jitter: f64) -> Duration {
    time.mul_f64(0.8 + 0.4 * jitter)
}

/// The wait after somebody else has taken our name.
const REPLACED: Duration = Duration::from_secs(60);
/// The longest wait where an operator has to change something.
const SLOWEST: Duration = Duration::from_secs(60);
/// How long a link is kept for the replies that are due, after its settings have become others.
const HANDOVER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);

    #[test]
    fn at_once_after_a_link_that_had_been_up_but_not_in_a_loop() {
        let mut pauses = Pauses::default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            pauses.after_link(&LinkEnd::Closed, hour, BASE, 0.5),
            Duration::ZERO
        );
        assert_eq!(
            pauses.after_link(&LinkEnd::Closed, Duration::ZERO, BASE, 0.5),
            BASE
        );
        assert_eq!(
            pauses.after_link(&LinkEnd::Closed, Duration::ZERO, BASE, 0.5),
            Duration::ZERO
        );
        assert_eq!(
            pauses.after_link(&LinkEnd::Closed, hour, BASE, 0.5),
            Duration::ZERO
        );
    }

    #[test]
    fn who_was_replaced_does_not_fight() {
        for jitter in [0.0, 1.0] {
            let pause =
                Pauses::default().after_link(&LinkEnd::Replaced, Duration::from_secs(3_600), BASE, jitter);
            assert!(pause >= REPLACED && pause <= REPLACED * 2, "{pause:?}");
        }
    }

    #[test]
    fn a_refused_connection_is_tried_again_with_jitter() {
        let mut pauses = Pauses::default();
        let refused = LoginError::Connect(std::io::ErrorKind::ConnectionRefused.into());
        let pause = [0.0, 0.5, 1.0].map(|jitter| pauses.after_login_error(&refused, BASE, jitter).as_secs());
        assert_eq!(pause, [8, 10, 12]);
    }

    #[test]
    fn what_an_operator_must_change_is_tried_more_and_more_slowly() {
        let mut pauses = Pauses::default();
        for error in [
            LoginError::NotAuthorized,
            LoginError::HostUnknown,
            LoginError::Conflict,
        ] {
            let first = pauses.after_login_error(&error, BASE, 0.5);
            assert!(first >= BASE, "{first:?}");
        }
        assert_eq!(
            pauses.after_login_error(&LoginError::NotAuthorized, BASE, 0.5),
            SLOWEST
        );
        assert_eq!(
            pauses.after_link(&LinkEnd::Closed, BASE, BASE, 0.5),
            Duration::ZERO
        );
        assert_eq!(
            pauses.after_login_error(&LoginError::NotAuthorized, BASE, 0.5),
            BASE,
            "it begins anew"
        );
    }
}
