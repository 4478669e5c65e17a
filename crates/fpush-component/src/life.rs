//! The life of a link: one connection after the other, until nobody wants it any more.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_driver::{Drain, Probe};
use fpush_push::{Backoff, Cut, jitter};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::{
    connection::{self, LinkEnd},
    dial::{Dial, Socket},
    dispatcher::Dispatcher,
    link::Link,
    login::{Established, FAREWELL, LoginError, close, login},
    settings::LinkSettings,
    stream::Cutter,
};

/// A link, and all that it needs.
pub(crate) struct Life<D> {
    pub(crate) link: Arc<Link>,
    /// In whose place it comes: Prosody allows one connection of a name.
    pub(crate) after: Option<Arc<Link>>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) dial: D,
    pub(crate) drain: Drain,
    pub(crate) probe: Probe,
}

impl<D: Dial> Life<D> {
    /// Connects, and connects again whenever the connection ends. When the link is dismissed, or the shutdown begins, it
    /// answers what is under way, closes the stream and returns.
    pub(crate) async fn live(mut self) {
        let link = Arc::clone(&self.link);
        self.connect_again_and_again().await;
        link.end();
    }

    async fn connect_again_and_again(&mut self) {
        let (link, drain) = (Arc::clone(&self.link), self.drain.clone());
        let until_left = || async {
            tokio::select! {
                () = drain.until_begun() => {}
                () = link.until_dismissed() => {}
            }
        };
        if let Some(former) = self.after.take() {
            // A waiter behind this link must wait for that one, too.
            tokio::select! {
                () = self.probe.while_waiting(former.until_ended()) => {}
                () = drain.until_begun() => return,
            }
        }
        let mut pauses = Pauses::default();
        loop {
            let settings = link.settings();
            link.outbox().drop_late(Instant::now());
            let connected = {
                let mut login = pin!(login(&settings, &self.dial));
                tokio::select! {
                    biased;
                    connected = self.probe.while_waiting(&mut login) => connected,
                    // A server that has accepted us may have sent something already.
                    () = until_left() => match timeout(FAREWELL, login).await {
                        Ok(connected @ Ok(_)) => connected,
                        Ok(Err(_)) | Err(_) => return,
                    },
                }
            };
            let pause = match connected {
                Ok(established) => {
                    let start = Instant::now();
                    info!(link = %settings.name, component = %settings.hostname, server = %settings.server_host, "link up");
                    link.meters().connects.increment();
                    link.note_up();
                    let end = match self.serve(established, &settings).await {
                        Served::Until(end) => end,
                        Served::Left => return,
                    };
                    link.meters().disconnects.increment(end.name());
                    let why = end.describe(&settings.hostname);
                    warn!(link = %settings.name, "link down: {why}");
                    link.note_down(why);
                    pauses.after_connection(&end, start.elapsed(), link.settings().retry_after, jitter())
                }
                Err(error) => {
                    let pause = pauses.after_login_error(&error, link.settings().retry_after, jitter());
                    link.meters().login_failures.increment(error.name());
                    let why = format!("{error}; {}", error.advice(&settings));
                    error!(link = %settings.name, retry_in = ?pause, "no link: {why}");
                    link.note_down(why);
                    pause
                }
            };
            tokio::select! {
                () = self.probe.while_waiting(sleep(pause)) => {}
                () = until_left() => return,
            }
        }
    }

    /// Serves one connection.
    async fn serve<S: Socket>(&mut self, established: Established<S>, settings: &LinkSettings) -> Served {
        let Established { socket, already_read } = established;
        let (mut reader, mut writer) = socket.halves();
        let mut cutter = Cutter::new(settings.max_stanza_size, &already_read);
        let (dispatcher, link, drain) = (
            Arc::clone(&self.dispatcher),
            Arc::clone(&self.link),
            self.drain.clone(),
        );
        let outbox = link.outbox();
        outbox.open();
        let stop = async {
            let why = tokio::select! {
                () = drain.until_begun() => Left::Stopped,
                () = link.until_dismissed() => Left::Dismissed,
            };
            info!(link = %settings.name, "closing the link as soon as all replies are written");
            match why {
                Left::Dismissed => drop(timeout(HANDOVER, outbox.until_idle()).await),
                Left::Stopped => {
                    drain.until_idle().await;
                    outbox.until_written().await;
                }
            }
            why
        };
        let connected = connection::run(
            (&mut reader, &mut writer),
            &mut cutter,
            &link,
            &dispatcher,
            &mut self.probe,
        );
        let end = tokio::select! {
            end = connected => Ok(end),
            why = stop => Err(why),
        };
        outbox.close();
        let why = match end {
            Ok(end) => return Served::Until(end),
            Err(why) => why,
        };
        close(&mut writer).await;
        // A busy server sends until it sees the end of the stream, and does not send again what it has sent: whatever is
        // on its way by then is read. The stream takes no more replies, but that of the link's successor does. Before its
        // login that costs nothing: Prosody refuses it while it holds the old connection. A daemon that stops could not
        // answer, nor push any more.
        match why {
            Left::Stopped => {}
            Left::Dismissed => {
                let last_read = Mutex::new(Instant::now());
                let rest = connection::read(
                    &mut reader,
                    &mut cutter,
                    &link,
                    &dispatcher,
                    &last_read,
                    &mut self.probe,
                );
                drop(timeout(FAREWELL, rest).await);
            }
        }
        info!(link = %settings.name, "link closed");
        Served::Left
    }
}

/// How serving a connection ended.
enum Served {
    /// The connection ended.
    Until(LinkEnd),
    /// Nobody wants the link any more.
    Left,
}

/// Why nobody wants a link any more.
enum Left {
    /// The settings do not have it.
    Dismissed,
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

/// How long to wait before the next login.
#[derive(Debug, Default)]
struct Pauses {
    /// Whether the last connection was followed by a login at once.
    at_once: bool,
    /// Logins in a row that failed for a reason that only an operator removes.
    hopeless: u32,
}

impl Pauses {
    /// After a connection that had been up for some time. At once the first time; but a server that closes each
    /// connection as soon as it is up is not run against in a loop.
    fn after_connection(
        &mut self,
        end: &LinkEnd,
        lived: Duration,
        retry_after: Duration,
        jitter: f64,
    ) -> Duration {
        self.hopeless = 0;
        match end {
            LinkEnd::Replaced => {
                self.at_once = false;
                // The instance that replaced us wants to stay.
                steady(REPLACED.max(retry_after), jitter)
            }
            LinkEnd::Closed | LinkEnd::StreamError(_) | LinkEnd::Io(_) | LinkEnd::Silent | LinkEnd::Stuck => {
                self.at_once = lived >= retry_after || !self.at_once;
                if self.at_once {
                    Duration::ZERO
                } else {
                    steady(retry_after, jitter)
                }
            }
        }
    }

    /// After a login that failed; slower and slower where only an operator can help.
    fn after_login_error(&mut self, error: &LoginError, retry_after: Duration, jitter: f64) -> Duration {
        if !error.needs_the_operator() {
            self.hopeless = 0;
            return steady(retry_after, jitter);
        }
        let pause = Backoff::new(retry_after, SLOWEST.max(retry_after)).pause(self.hopeless, jitter);
        self.hopeless = self.hopeless.saturating_add(1);
        pause
    }
}

/// A pause that does not grow.
fn steady(pause: Duration, jitter: f64) -> Duration {
    Backoff::new(pause, pause).pause(0, jitter)
}

/// The wait after somebody else has taken our name.
const REPLACED: Duration = Duration::from_secs(60);
/// The longest wait where an operator has to change something, but for its jitter.
const SLOWEST: Duration = Duration::from_secs(60);
/// How long a link that was dismissed is kept for the replies that are due.
const HANDOVER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);

    #[test]
    fn at_once_after_a_connection_that_had_been_up_but_not_in_a_loop() {
        let mut pauses = Pauses::default();
        let hour = Duration::from_secs(3_600);
        let after = |pauses: &mut Pauses, lived| pauses.after_connection(&LinkEnd::Closed, lived, BASE, 0.0);
        assert_eq!(after(&mut pauses, hour), Duration::ZERO);
        assert_eq!(after(&mut pauses, Duration::ZERO), BASE);
        assert_eq!(after(&mut pauses, Duration::ZERO), Duration::ZERO);
        assert_eq!(after(&mut pauses, hour), Duration::ZERO);
    }

    #[test]
    fn who_was_replaced_does_not_fight() {
        for jitter in [0.0, 1.0] {
            let hour = Duration::from_secs(3_600);
            let pause = Pauses::default().after_connection(&LinkEnd::Replaced, hour, BASE, jitter);
            assert!(pause >= REPLACED && pause <= REPLACED * 2, "{pause:?}");
        }
    }

    #[test]
    fn a_refused_connection_is_tried_again_with_jitter_and_never_earlier() {
        let mut pauses = Pauses::default();
        let refused = LoginError::Connect(std::io::ErrorKind::ConnectionRefused.into());
        let pause = [0.0, 0.4, 1.0].map(|jitter| pauses.after_login_error(&refused, BASE, jitter).as_secs());
        assert_eq!(pause, [10, 12, 15]);
    }

    #[test]
    fn what_an_operator_must_change_is_tried_more_and_more_slowly() {
        let mut pauses = Pauses::default();
        let errors = [
            LoginError::NotAuthorized,
            LoginError::HostUnknown,
            LoginError::Conflict,
            LoginError::NotAuthorized,
        ];
        let each = errors.map(|error| pauses.after_login_error(&error, BASE, 0.0).as_secs());
        assert_eq!(each, [10, 20, 40, 60]);
        assert_eq!(
            pauses.after_connection(&LinkEnd::Closed, BASE, BASE, 0.0),
            Duration::ZERO
        );
        let again = pauses.after_login_error(&LoginError::NotAuthorized, BASE, 0.0);
        assert_eq!(again, BASE, "it begins anew");
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            pauses.after_login_error(&LoginError::Conflict, hour, 0.0),
            hour,
            "the settings may ask for more patience"
        );
    }
}
