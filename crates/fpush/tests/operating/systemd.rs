//! What systemd is told.

use std::{
    fs,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::rig::{LONG, Rig};

/// systemd's end of it.
struct Systemd {
    socket: UnixDatagram,
}

impl Systemd {
    fn at(address: &SocketAddr) -> Self {
        Self {
            socket: UnixDatagram::bind_addr(address).unwrap(),
        }
    }

    /// The next message, unless none comes for so long.
    fn next(&self, patience: Duration) -> Option<String> {
        self.socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))
            .unwrap();
        let mut buffer = [0; 4_096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("{e}"),
        }
    }

    /// Waits for a message that begins like this, and returns it. `STATUS=` may come at any time, and is passed over.
    #[track_caller]
    fn expect(&self, start: &str) -> String {
        let end = Instant::now() + LONG;
        loop {
            let told = self.next(end.saturating_duration_since(Instant::now()));
            let told = told.unwrap_or_else(|| panic!("systemd was not told {start}"));
            if told.starts_with(start) {
                return told;
            }
            assert!(told.starts_with("STATUS="), "{told} instead of {start}");
        }
    }
}

fn demo() -> serde_json::Value {
    json!({ "pushModules": { "m": { "type": "demo" } } })
}

fn told_of_its_life(systemd: &Systemd, address: &str) {
    let mut rig = Rig::with(demo(), |builder| builder.env("NOTIFY_SOCKET", address));
    assert_eq!(systemd.expect("READY"), "READY=1\n");
    assert_eq!(
        systemd.expect("STATUS=link up"),
        "STATUS=link up; push modules: 1\n"
    );

    rig.xmpp.close_port();
    drop(rig.take_link());
    systemd.expect("STATUS=link down: cannot connect to the server: Connection refused");
    rig.xmpp.open_port();
    rig.accept();
    systemd.expect("STATUS=link up");

    // Whether the new settings are good or not, the reload ends.
    for change in [
        json!({ "timeout": { "xmppconnectionError": "2s" } }),
        json!({ "pushModules": 1 }),
    ] {
        rig.change_settings(change);
        let reload = systemd.expect("RELOADING");
        let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let time: u64 = time.trim_end().parse().unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let ago = uptime - time as f64 / 1e6;
        assert!(
            (-1.0..30.0).contains(&ago),
            "systemd drops a reload with another clock's time: {ago} s ago"
        );
        assert_eq!(systemd.expect("READY"), "READY=1\n");
    }

    rig.daemon.terminate();
    assert_eq!(systemd.expect("STOPPING"), "STOPPING=1\n");
    rig.link().close();
    assert!(rig.daemon.wait(LONG).success());
    assert_eq!(systemd.next(Duration::from_millis(1)), None);
}

#[test]
fn it_is_told_at_a_path() {
    let dir = fpush_testkit::TempDir::new();
    let path = dir.path().join("notify");
    let systemd = Systemd::at(&SocketAddr::from_pathname(&path).unwrap());
    told_of_its_life(&systemd, path.to_str().unwrap());
}

#[test]
fn it_is_told_at_an_abstract_address() {
    let name = format!("fpush-operating-{}", process::id());
    let systemd = Systemd::at(&SocketAddr::from_abstract_name(&name).unwrap());
    told_of_its_life(&systemd, &format!("@{name}"));
}

/// A process that is stopped gives no sign of life, and systemd would start it again.
#[test]
fn the_watchdog_is_fed_while_the_daemon_works() {
    let name = format!("fpush-watchdog-{}", process::id());
    let systemd = Systemd::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let rig = Rig::with(demo(), |builder| {
        builder
            .env("NOTIFY_SOCKET", &format!("@{name}"))
            .env("WATCHDOG_USEC", "600000")
    });
    assert_eq!(systemd.expect("READY"), "READY=1\n");
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(systemd.expect("WATCHDOG"), "WATCHDOG=1\n");
    }
    let took = start.elapsed();
    // Three in 600 ms; how much more it is depends on what else this machine has to do.
    assert!(took > Duration::from_millis(1_500), "{took:?}");

    rig.daemon.signal("STOP");
    // What was sent before the signal.
    while systemd.next(Duration::from_millis(10)).is_some() {}
    assert_eq!(
        systemd.next(Duration::from_millis(1_200)),
        None,
        "twice the time that systemd waits"
    );
    rig.daemon.signal("CONT");
    for _ in 0..5 {
        assert_eq!(systemd.expect("WATCHDOG"), "WATCHDOG=1\n");
    }
}
