//! The link to the XMPP server.

use fpush_testkit::{FakeXmpp, Refusal, fake_xmpp::AcceptError};
use serde_json::json;

use crate::rig::{DOMAIN, GREEN, LONG, Rig, Sight};

fn demo() -> serde_json::Value {
    json!({ "pushModules": { "m": { "type": "demo" } } })
}

#[test]
fn the_server_refuses_the_secret() {
    let xmpp = FakeXmpp::start(DOMAIN, "the-right-one");
    let mut rig = Rig::unlinked(xmpp, demo(), |builder| builder);
    assert_eq!(rig.xmpp.try_accept(LONG).err(), Some(AcceptError::WrongSecret));
    rig.expect(Sight {
        page: &[(
            "error",
            "link",
            &[
                "answered not-authorized",
                "component.componentKey",
                "component_secret",
            ],
        )],
        metrics: &[
            "fpush_component_up == 0",
            "fpush_component_login_failures_total{reason=\"not-authorized\"} >= 1",
            "fpush_component_connects_total absent",
        ],
        log: &[("ERROR", "no link: the server answered not-authorized")],
        unready: &["link down: the server answered not-authorized"],
    });
    rig.change_settings(json!({ "component": { "componentKey": "the-right-one" } }));
    // Attempts with the old secret may still stand in line.
    loop {
        match rig.xmpp.try_accept(LONG) {
            Ok(link) => break rig.keep(link),
            Err(AcceptError::WrongSecret) => {}
            Err(e) => panic!("{e}"),
        }
    }
    rig.expect(GREEN);
    rig.expect(Sight {
        metrics: &["fpush_component_connects_total == 1"],
        log: &[("INFO", "link up")],
        ..GREEN
    });
    assert!(!rig.daemon.log().contains("the-right-one"));
}

#[test]
fn the_name_is_taken_at_the_login() {
    let xmpp = FakeXmpp::start(DOMAIN, crate::common::SECRET);
    let mut rig = Rig::unlinked(xmpp, demo(), |builder| builder);
    rig.xmpp.refuse(Refusal::Conflict, LONG);
    rig.expect(Sight {
        page: &[(
            "error",
            "link",
            &["answered conflict", "another fpush", "kick_old"],
        )],
        metrics: &[
            "fpush_component_up == 0",
            "fpush_component_login_failures_total{reason=\"conflict\"} >= 1",
        ],
        log: &[("ERROR", "no link: the server answered conflict")],
        unready: &["link down: the server answered conflict"],
    });
    rig.accept();
    rig.expect(GREEN);
}

#[test]
fn another_instance_takes_the_name() {
    let mut rig = Rig::with(demo(), |builder| builder);
    rig.expect(GREEN);
    rig.link().stream_error("conflict");
    rig.expect(Sight {
        page: &[(
            "error",
            "link",
            &[
                "another instance has logged in as push.localhost",
                "stop one of the two",
            ],
        )],
        metrics: &[
            "fpush_component_up == 0",
            "fpush_component_disconnects_total{reason=\"conflict\"} == 1",
        ],
        log: &[(
            "WARN",
            "link down: another instance has logged in as push.localhost",
        )],
        unready: &["link down: another instance has logged in"],
    });
}

#[test]
fn the_server_is_away() {
    let mut rig = Rig::with(demo(), |builder| builder);
    rig.xmpp.close_port();
    drop(rig.take_link());
    rig.expect(Sight {
        page: &[(
            "error",
            "link",
            &[
                "cannot connect to the server: Connection refused",
                "is the server running",
            ],
        )],
        metrics: &[
            "fpush_component_up == 0",
            "fpush_component_disconnects_total == 1",
            "fpush_component_login_failures_total{reason=\"connect\"} >= 1",
        ],
        log: &[
            ("WARN", "link down: "),
            ("ERROR", "no link: cannot connect to the server"),
        ],
        unready: &["link down: cannot connect to the server"],
    });
    rig.xmpp.open_port();
    rig.accept();
    rig.expect(GREEN);
}
