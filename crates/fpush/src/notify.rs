//! What systemd is told of the daemon, and its watchdog: `sd_notify(3)`. Without systemd nobody is told.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use fpush_driver::Liveness;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

/// The way to systemd.
#[derive(Debug)]
pub(crate) struct Notifier {
    manager: Option<Manager>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// To the process that started this one, if it wants to be told (`NOTIFY_SOCKET`).
    pub(crate) fn from_environment() -> Self {
        Self::new(env::var_os(NOTIFY_SOCKET))
    }

    fn new(address: Option<OsString>) -> Self {
        let manager = address.filter(|address| !address.is_empty()).and_then(|address| {
            Manager::at(&address)
                .inspect_err(|e| warn!("cannot tell systemd anything: {NOTIFY_SOCKET} cannot be used: {e}"))
                .ok()
        });
        Self { manager }
    }

    /// The daemon has started, or has finished a reload.
    pub(crate) fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A line for `systemctl status`.
    pub(crate) fn status(&self, line: &str) {
        // A line break would begin another assignment, and systemd takes at most 4 KiB.
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = line.chars().map(printable).take(MAX_STATUS).collect();
        self.tell(&[NotifyState::Status(&line)]);
    }

    /// The settings are being read again. [`Self::ready`] has to follow, whether they are good or not.
    pub(crate) fn reloading(&self) {
        // Only with the time does systemd know which reload is meant (`Type=notify-reload`).
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(e) => warn!("cannot tell systemd of the reload: {e}"),
        }
    }

    /// The daemon has begun to stop.
    pub(crate) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn feed(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(manager) = &self.manager else {
            return;
        };
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(e) = manager.send(&lines) {
            warn!("cannot tell systemd anything: {e}");
        }
    }
}

impl Manager {
    /// `@` begins an abstract address, which the crate `sd-notify` takes for a file's name.
    fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let socket = UnixDatagram::unbound()?;
        // systemd that is stuck must not keep pushes from their devices.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address })
    }

    fn send(&self, lines: &str) -> io::Result<()> {
        self.socket.send_to_addr(lines.as_bytes(), &self.address)?;
        Ok(())
    }
}

/// How long systemd waits for a sign of life before it starts the daemon again (`WatchdogSec`), if it waits
/// for one.
pub(crate) fn watchdog() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    patience(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        process::id(),
    )
}

/// `pid` is whom systemd means; nobody else's child is to give signs of life.
fn patience(microseconds: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let microseconds = microseconds?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds))
}

/// Gives systemd a sign of life three times in its `patience`, as long as everybody has answered the last
/// question. Never ends.
pub(crate) async fn feed_watchdog(notifier: &Notifier, liveness: &Liveness, patience: Duration) {
    let mut ticks = interval(patience / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    let mut complained = false;
    loop {
        liveness.ask();
        ticks.tick().await;
        let silent = liveness.silent();
        if silent.is_empty() {
            notifier.feed();
            complained = false;
        } else if !complained {
            complained = true;
            error!(
                "no sign of life from {} for {:.1} s: if this goes on, systemd starts fpush again",
                silent.join(", "),
                (patience / 3).as_secs_f64()
            );
        }
    }
}

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const PATIENCE: Duration = Duration::from_secs(1);
/// In characters.
const MAX_STATUS: usize = 500;

#[cfg(test)]
mod tests {
    use std::{future, sync::Arc};

    use fpush_driver::Probe;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// systemd's end of it.
    fn listen(name: &str) -> (Notifier, UnixDatagram) {
        let name = format!("fpush-test-{}-{name}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        (Notifier::new(Some(format!("@{name}").into())), systemd)
    }

    fn receive(systemd: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn count(systemd: &UnixDatagram) -> usize {
        std::iter::from_fn(|| receive(systemd))
            .filter(|told| told == "WATCHDOG=1\n")
            .count()
    }

    #[test]
    fn systemd_is_told_what_happens() {
        let (notifier, systemd) = listen("told");
        notifier.ready();
        assert_eq!(receive(&systemd).unwrap(), "READY=1\n");
        notifier.status("link up,\n\"12\" devices");
        assert_eq!(receive(&systemd).unwrap(), "STATUS=link up, \"12\" devices\n");
        notifier.status(&"ü".repeat(10_000));
        assert_eq!(
            receive(&systemd).unwrap(),
            format!("STATUS={}\n", "ü".repeat(MAX_STATUS))
        );
        notifier.stopping();
        assert_eq!(receive(&systemd).unwrap(), "STOPPING=1\n");
        notifier.reloading();
        let told = receive(&systemd).unwrap();
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim_end().parse::<u64>().unwrap() > 0);
        assert_eq!(receive(&systemd), None);
    }

    #[test]
    fn a_socket_in_the_file_system_serves_as_well() {
        let directory = fpush_testkit::TempDir::new();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        Notifier::new(Some(path.into())).ready();
        assert_eq!(receive(&systemd).unwrap(), "READY=1\n");
    }

    #[test]
    fn without_systemd_nobody_is_told() {
        for nobody in [None, Some(""), Some("vsock:2:1234"), Some("/nowhere/at/all")] {
            let notifier = Notifier::new(nobody.map(OsString::from));
            notifier.ready();
            notifier.status("alone");
            notifier.reloading();
            notifier.stopping();
        }
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_is_meant() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(patience(Some("60000000"), None, 7), minute);
        assert_eq!(patience(Some("60000000"), Some("7"), 7), minute);
        assert_eq!(patience(Some("60000000"), Some("8"), 7), None);
        assert_eq!(patience(Some("60000000"), Some(""), 7), None);
        assert_eq!(patience(Some("0"), None, 7), None);
        assert_eq!(patience(Some("soon"), None, 7), None);
        assert_eq!(patience(None, Some("7"), 7), None);
    }

    async fn work(mut probe: Probe, until: Instant) {
        loop {
            tokio::select! {
                () = probe.asked() => probe.answer(),
                () = tokio::time::sleep_until(until) => return future::pending().await,
            }
        }
    }

    fn start(notifier: Notifier) -> Arc<Liveness> {
        let liveness = Arc::new(Liveness::new());
        let watched = Arc::clone(&liveness);
        tokio::spawn(async move { feed_watchdog(&notifier, &watched, Duration::from_secs(30)).await });
        liveness
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_everybody_answers() {
        let (notifier, systemd) = listen("fed");
        let liveness = start(notifier);
        let never = Instant::now() + Duration::from_secs(10_000);
        tokio::spawn(work(liveness.probe("reader"), never));
        tokio::spawn(work(liveness.probe("module"), never));
        sleep(Duration::from_secs(61)).await;
        assert_eq!(count(&systemd), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_stops_the_feeding() {
        let (notifier, systemd) = listen("silent");
        let liveness = start(notifier);
        let start = Instant::now();
        tokio::spawn(work(liveness.probe("reader"), start + Duration::from_secs(1_000)));
        tokio::spawn(work(liveness.probe("module"), start + Duration::from_secs(25)));
        sleep(Duration::from_secs(31)).await;
        assert_eq!(
            count(&systemd),
            3,
            "the last question that it answered was asked at 20 s"
        );
        sleep(Duration::from_secs(60)).await;
        assert_eq!(count(&systemd), 0);
        assert_eq!(liveness.silent(), ["module"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_gone_does_not_stop_the_feeding() {
        let (notifier, systemd) = listen("gone");
        let liveness = start(notifier);
        tokio::spawn(work(
            liveness.probe("reader"),
            Instant::now() + Duration::from_secs(1_000),
        ));
        let module = liveness.probe("module");
        sleep(Duration::from_secs(31)).await;
        assert_eq!(count(&systemd), 0);
        drop(module);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(count(&systemd), 3);
    }
}
