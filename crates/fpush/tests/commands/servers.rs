//! `fpush check --connect` at real servers. Without them these tests fail and say what to install.

use std::path::PathBuf;

use fpush_testkit::{
    Answer, ApnsKey, Daemon, FakeApns, TempDir, TestCa,
    servers::{Ejabberd, Prosody, Server},
};
use serde_json::json;

use crate::rig::{ALONE, ASKED, LONG, NO, PROGRAM, Said};

const COMPONENT: &str = "push.localhost";
const SECRET: &str = "made-up-component-secret";
const LET_IN: &str = "component push.localhost: the XMPP server accepted the login";

macro_rules! on_both_servers {
    ($($name:ident,)*) => {
        mod prosody {
            $(#[test]
            fn $name() {
                super::$name(&mut super::Prosody::start(&[(super::COMPONENT, super::SECRET)], "").unwrap());
            })*
        }
        mod ejabberd {
            $(#[test]
            fn $name() {
                super::$name(&mut super::Ejabberd::start(&[(super::COMPONENT, super::SECRET)], "").unwrap());
            })*
        }
    };
}

on_both_servers! {
    a_daemon_that_runs_keeps_its_link,
    a_wrong_secret_is_explained,
}

/// A folder with settings for a server.
struct Folder {
    dir: TempDir,
    _apns: FakeApns,
}

impl Folder {
    fn new(server: &dyn Server, secret: &str) -> Self {
        let (dir, ca) = (TempDir::new(), TestCa::new());
        let apns = FakeApns::start(&ca);
        apns.answer_with(|_| Answer::reason(400, "BadDeviceToken"));
        let settings = json!({
            "component": {
                "componentHostname": COMPONENT, "componentKey": secret,
                "serverHostname": "127.0.0.1", "serverPort": server.component_port(),
            },
            "pushModules": { "ios": { "type": "apple", "apns": {
                "tokenKeyFilePath": dir.write("key.p8", ApnsKey::generate().p8()),
                "keyId": "KEY1234567", "teamId": "TEAM123456", "topic": "org.example.app",
                "endpoint": apns.url(), "caFilePath": dir.write("ca.pem", ca.pem()),
            } } },
            "runtimeDirectory": dir.path().join("run"),
        });
        dir.write("settings.json", settings.to_string());
        Self { dir, _apns: apns }
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("settings.json")
    }

    #[track_caller]
    fn check(&self) -> Said {
        let args = ["check".into(), "--connect".into(), self.settings()];
        Said::of(fpush_testkit::run_to_end(PROGRAM, args, self.dir.path()))
    }
}

fn a_daemon_that_runs_keeps_its_link(server: &mut dyn Server) {
    let folder = Folder::new(server, SECRET);
    let mut daemon = Daemon::builder(PROGRAM).args([folder.settings()]).start();
    server.wait_for_component(1, LONG).unwrap();
    daemon.wait_for_log("link up", LONG);
    folder
        .check()
        .expect(0, &[ASKED, LET_IN, "module ios: Apple accepts the credentials"]);
    assert_eq!(server.component_logins(), 1);
    assert!(
        daemon.is_running() && !daemon.log().contains("link down"),
        "{}",
        daemon.log()
    );

    daemon.terminate();
    assert!(daemon.wait(LONG).success());
    for logins in 2..=3 {
        folder
            .check()
            .expect(0, &[ALONE, LET_IN, "module ios: Apple accepts the credentials"]);
        // The servers' logs are written a moment later.
        server.wait_for_component(logins, LONG).unwrap();
    }
}

fn a_wrong_secret_is_explained(server: &mut dyn Server) {
    let folder = Folder::new(server, "wrong");
    folder.check().expect(
        NO,
        &[
            ALONE,
            "component push.localhost: the server answered not-authorized\n  the server does not accept \
             component.componentKey for push.localhost. Prosody: it must be the component_secret of Component \
             \"push.localhost\". ejabberd: it must be the password of push.localhost in hosts",
            "module ios: Apple accepts the credentials",
        ],
    );
    assert_eq!(server.component_logins(), 0);
}
