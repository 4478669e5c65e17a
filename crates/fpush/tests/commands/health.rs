//! `fpush check --healthcheck`: what a container's probe learns.

use std::time::Instant;

use serde_json::Value;

use crate::rig::{LONG, NO, Place, Said};

fn ask(place: &Place) -> Said {
    place.fpush(&["check", "--healthcheck"])
}

/// Asks until the answer has this exit status: the daemon looks at itself once a second.
#[track_caller]
fn wait_for(place: &Place, status: i32) -> Said {
    let end = Instant::now() + LONG;
    loop {
        let said = ask(place);
        if said.status == Some(status) {
            return said;
        }
        assert!(Instant::now() < end, "{}{}", said.out, said.err);
    }
}

#[test]
fn the_exit_status_is_the_readiness_of_the_running_daemon() {
    let place = Place::new();
    ask(&place).expect(NO, &["not ready: no fpush runs (none answers at "]);
    let running = place.start();
    wait_for(&place, 0).expect(0, &["ready"]);
    // What is wrong with the file now is no matter of the daemon's.
    place.set(|settings| settings["pushModules"]["ios"]["apns"]["topic"] = 5.into());
    ask(&place).expect(0, &["ready"]);
    let crate::rig::Running { daemon, link, .. } = running;
    link.close();
    wait_for(&place, NO).expect(NO, &["not ready: "]);
    let said = place.fpush(&["check", "--healthcheck", "--json"]);
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["ok"], false);
    assert!(
        answer["findings"][0]["message"]
            .as_str()
            .unwrap()
            .starts_with("not ready: ")
    );
    drop(daemon);
}
