//! The life of the component: one link after the other.

use std::{fmt, sync::Arc, time::Duration};

use fpush_push::{Drain, LogGate, Modules, jitter};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    desk::{Desk, Registration},
    link::{self, End},
    login::{Established, LoginError, login},
    stream::Cutter,
};

/// How to reach the server and who we are there.
#[derive(Clone)]
pub struct ComponentSettings {
    /// `componentHostname`: our address.
    pub hostname: String,
    /// `componentKey`: the secret that we share with the server. It is never shown.
    pub secret: String,
    /// `serverHostname`: a name or an address.
    pub server_host: String,
    /// `serverPort`.
    pub server_port: u16,
    /// `maxStanzaSize`, in bytes.
    pub max_stanza_size: usize,
    /// `timeout.xmppconnectionError`: before the next attempt to connect.
    pub retry_after: Duration,
}

impl fmt::Debug for ComponentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentSettings")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// The component.
#[derive(Debug)]
pub struct Component {
    settings: ComponentSettings,
    desk: Arc<Desk>,
    drain: Drain,
    failed_logins: LogGate,
}

impl Component {
    /// A component that hands publishes to these modules, and serves registered devices where there are some.
    #[must_use]
    pub fn new(
        settings: ComponentSettings,
        modules: Arc<Modules>,
        registration: Option<Registration>,
        drain: Drain,
    ) -> Self {
        Self {
            desk: Desk::new(&settings.hostname, modules, registration, drain.clone()),
            drain,
            failed_logins: LogGate::new(),
            settings,
        }
    }

    /// Connects, and connects again whenever the link ends. When the shutdown begins, it answers what is
    /// under way, closes the stream and returns.
    pub async fn run(self) {
        let mut pauses = Pauses::new(self.settings.retry_after);
        loop {
            let connected = tokio::select! {
                connected = login(&self.settings) => connected,
                () = self.drain.until_begun() => return,
            };
            let pause = match connected {
                Ok(established) => {
                    let start = Instant::now();
                    info!(component = %self.settings.hostname, server = %self.settings.server_host, "link up");
                    let Some(end) = self.serve(established).await else {
                        return;
                    };
                    pauses.after_link(&end, start.elapsed(), jitter())
                }
                Err(error) => {
                    let pause = pauses.after_login_error(&error, jitter());
                    if let Some(withheld) = self.failed_logins.pass(Instant::now()) {
                        let advice = error.advice(&self.settings);
                        error!(retry_in = ?pause, withheld, "no link: {error}; {advice}");
                    }
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.drain.until_begun() => return,
            }
        }
    }

    /// Serves one link. `None` if it was closed because the daemon is about to stop.
    async fn serve(&self, established: Established) -> Option<End> {
        let Established { socket, already_read } = established;
        let (reader, mut writer) = socket.into_split();
        let cutter = Cutter::new(self.settings.max_stanza_size, &already_read);
        let name = &self.settings.hostname;
        let linked = link::run((reader, &mut writer), cutter, name, self.desk.outbox(), |event| {
            self.desk.handle(event, Instant::now());
        });
        let end = tokio::select! {
            end = linked => end,
            () = self.drained() => {
                let farewell = async {
                    writer.write_all(b"</stream:stream>").await?;
                    writer.shutdown().await
                };
                // Where the server does not take it, there is nobody to tell.
                drop(timeout(FAREWELL, farewell).await);
                info!("link closed");
                return None;
            }
        };
        match &end {
            End::Closed => warn!("link down: the server closed it"),
            End::Replaced => warn!(
                "link down: another instance has logged in as {name}, and the server allows only one (Prosody: \
                 component_conflict_resolve = \"kick_old\"); stop one of the two"
            ),
            End::StreamError(condition) => warn!("link down: the server closed it with {condition}"),
            End::Io(e) => warn!("link down: {e}"),
            End::Silent => warn!("link down: nothing came from the server, not even an answer to a ping"),
            End::Stuck => warn!("link down: the server takes nothing from us"),
        }
        Some(end)
    }

    /// Resolves when the shutdown has begun and everything that was under way has its reply written.
    async fn drained(&self) {
        self.drain.until_begun().await;
        self.drain.until_idle().await;
        self.desk.outbox().until_written().await;
    }
}

/// How long to wait before the next login.
#[derive(Debug)]
struct Pauses {
    retry_after: Duration,
    /// Whether the last link was followed by a login at once.
    at_once: bool,
    /// Logins in a row that failed for a reason that only an operator removes.
    hopeless: u32,
}

impl Pauses {
    fn new(retry_after: Duration) -> Self {
        Self {
            retry_after,
            at_once: false,
            hopeless: 0,
        }
    }

    /// After a link that had been up for some time. At once the first time; but a server that closes each
    /// link as soon as it is up is not run against in a loop.
    fn after_link(&mut self, end: &End, lived: Duration, jitter: f64) -> Duration {
        self.hopeless = 0;
        match end {
            End::Replaced => {
                self.at_once = false;
                // Only later, never earlier: whoever replaced us wants to stay.
                REPLACED.max(self.retry_after).mul_f64(1.0 + jitter / 5.0)
            }
            End::Closed | End::StreamError(_) | End::Io(_) | End::Silent | End::Stuck => {
                self.at_once = lived >= self.retry_after || !self.at_once;
                if self.at_once {
                    Duration::ZERO
                } else {
                    spread(self.retry_after, jitter)
                }
            }
        }
    }

    /// After a login that failed; slower and slower where only an operator can help.
    fn after_login_error(&mut self, error: &LoginError, jitter: f64) -> Duration {
        if !error.needs_the_operator() {
            self.hopeless = 0;
            return spread(self.retry_after, jitter);
        }
        let pause = self.retry_after * 2u32.pow(self.hopeless.min(10));
        self.hopeless += 1;
        spread(pause.min(SLOWEST.max(self.retry_after)), jitter)
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
/// How long the end of the stream may take.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);

    #[test]
    fn at_once_after_a_link_that_had_been_up_but_not_in_a_loop() {
        let mut pauses = Pauses::new(BASE);
        let hour = Duration::from_secs(3_600);
        assert_eq!(pauses.after_link(&End::Closed, hour, 0.5), Duration::ZERO);
        assert_eq!(pauses.after_link(&End::Closed, Duration::ZERO, 0.5), BASE);
        assert_eq!(
            pauses.after_link(&End::Closed, Duration::ZERO, 0.5),
            Duration::ZERO
        );
        assert_eq!(pauses.after_link(&End::Closed, hour, 0.5), Duration::ZERO);
    }

    #[test]
    fn who_was_replaced_does_not_fight() {
        for jitter in [0.0, 1.0] {
            let pause = Pauses::new(BASE).after_link(&End::Replaced, Duration::from_secs(3_600), jitter);
            assert!(pause >= REPLACED && pause <= REPLACED * 2, "{pause:?}");
        }
    }

    #[test]
    fn a_refused_connection_is_tried_again_with_jitter() {
        let mut pauses = Pauses::new(BASE);
        let refused = LoginError::Connect(std::io::ErrorKind::ConnectionRefused.into());
        let pause = [0.0, 0.5, 1.0].map(|jitter| pauses.after_login_error(&refused, jitter).as_secs());
        assert_eq!(pause, [8, 10, 12]);
    }

    #[test]
    fn what_an_operator_must_change_is_tried_more_and_more_slowly() {
        let mut pauses = Pauses::new(BASE);
        for error in [
            LoginError::NotAuthorized,
            LoginError::HostUnknown,
            LoginError::Conflict,
        ] {
            let first = pauses.after_login_error(&error, 0.5);
            assert!(first >= BASE, "{first:?}");
        }
        assert_eq!(pauses.after_login_error(&LoginError::NotAuthorized, 0.5), SLOWEST);
        assert_eq!(pauses.after_link(&End::Closed, BASE, 0.5), Duration::ZERO);
        assert_eq!(
            pauses.after_login_error(&LoginError::NotAuthorized, 0.5),
            BASE,
            "it begins anew"
        );
    }
}
