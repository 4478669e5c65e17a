//! What a reload does to the link.

use std::{collections::HashSet, thread, time::Instant};

use fpush_testkit::{Answer, FakeXmpp, Reply, fake_xmpp::AcceptError};
use serde_json::{Value, json};

use crate::rig::{DOMAIN, LONG, RESULT, Rig, SECOND, World, accept, apple};

fn start() -> Rig {
    let world = World::new();
    let module = world.apple(json!({ "apns": { "requestTimeout": "24s" } }));
    let settings = world.settings(json!({ "ios": module }));
    world.start(settings, &[])
}

fn component(more: Value) -> Value {
    json!({ "component": more })
}

#[test]
fn what_is_not_about_the_link_leaves_it_alone() {
    let mut rig = start();
    let changes = [
        json!({ "pushModules": { "ios": { "apns": { "alertTitle": "Other" } } } }),
        json!({ "timeout": { "xmppconnectionError": "150ms" } }),
        json!({ "timeout": null }),
        component(json!({ "maxStanzaSize": 1_048_576 })), // As it is anyway.
        json!({ "logging": { "format": "json" }, "monitoring": null }),
    ];
    let id = rig.publish("ios", &apple(0));
    for change in changes {
        rig.reload(change);
    }
    assert_eq!(rig.verdict(&id), RESULT);
    rig.reload(
        json!({ "monitoring": { "listen": "127.0.0.1:0" }, "timeout": { "xmppconnectionError": "1h" } }),
    );
    assert_eq!(rig.push("ios", &apple(1)), RESULT);
    assert_eq!(
        rig.conductor.metric("fpush_component_connects_total", &[]),
        Some(1.0)
    );
    // A link that is about to be opened anew would be closed by now.
    rig.link.expect_silence(SECOND / 5);
    assert_eq!(rig.push("ios", &apple(2)), RESULT);
    assert!(!rig.conductor.daemon.log().contains("closing the link"));
}

/// Reloads while pushes are under way, and checks that they are answered on the old link, which then ends.
#[track_caller]
fn hand_over(rig: &mut Rig, number: usize, change: Value) {
    let seen = rig.world.apns.count();
    rig.world.apns.answer_with(|_| Answer::Normal.after(SECOND));
    let ids: Vec<_> = (0..10)
        .map(|more| rig.publish("ios", &apple(100 * number + more)))
        .collect();
    rig.world.apns.wait_for(seen + ids.len(), LONG);
    rig.reload(change);
    for id in ids {
        assert_eq!(rig.verdict(&id), RESULT);
    }
    assert!(rig.link.expect_end(LONG).stream_closed);
    rig.world.apns.answer_normally();
    assert_eq!(rig.world.apns.count(), seen + 10, "nothing was sent twice");
}

#[test]
fn what_is_about_the_link_opens_it_anew() {
    let mut rig = start();
    hand_over(&mut rig, 1, component(json!({ "maxStanzaSize": 20_000 })));
    rig.next_link();
    assert_eq!(rig.push("ios", &apple(1)), RESULT);
    // The new size is in force.
    let id = rig.publish("ios", &"a".repeat(21_000));
    assert_eq!(rig.verdict(&id), "wait/bad-request");

    // No login is tried again before long, unless the settings change.
    let wrong = json!({
        "timeout": { "xmppconnectionError": "1h" }, "component": { "componentKey": "wrong" },
    });
    hand_over(&mut rig, 2, wrong);
    let refused = rig.world.xmpp.try_accept(LONG).map(drop);
    assert_eq!(refused, Err(AcceptError::WrongSecret));
    rig.reload(component(json!({ "componentKey": "still wrong" })));
    let refused = rig.world.xmpp.try_accept(LONG).map(drop);
    assert_eq!(refused, Err(AcceptError::WrongSecret));
    rig.reload(component(json!({ "componentKey": "secret" })));
    rig.next_link();
    assert_eq!(rig.push("ios", &apple(2)), RESULT);

    let other = FakeXmpp::start(DOMAIN, "another secret");
    let moved = component(json!({ "serverPort": other.port(), "componentKey": "another secret" }));
    hand_over(&mut rig, 3, moved);
    rig.link = accept(&other, &rig.conductor.daemon);
    assert_eq!(rig.push("ios", &apple(3)), RESULT);
    assert_eq!(
        rig.conductor.metric("fpush_component_connects_total", &[]),
        Some(4.0)
    );
}

#[test]
fn pushes_that_outlast_the_old_link_are_answered_on_the_new_one() {
    let mut rig = start();
    rig.world
        .apns
        .answer_with(|_| Answer::Normal.after(7 * SECOND / 2));
    let mut ids = vec![rig.publish("ios", &apple(0))];
    rig.world.apns.wait_for(1, LONG);
    rig.reload(component(json!({ "maxStanzaSize": 20_000 })));
    rig.conductor.daemon.wait_for_log("closing the link", LONG);
    // The server does not know yet, and the component waits 5 s for what is under way.
    let start = Instant::now();
    while start.elapsed() < 3 * SECOND {
        ids.push(rig.publish("ios", &apple(ids.len())));
        thread::sleep(SECOND / 100);
    }
    assert!(rig.link.expect_end(LONG).stream_closed);
    let on_the_old_one: HashSet<_> = rig
        .link
        .pending()
        .iter()
        .map(|raw| Reply::parse(raw).id)
        .collect();
    rig.next_link();
    let left = ids.iter().filter(|id| !on_the_old_one.contains(*id));
    let left: Vec<_> = left.cloned().collect();
    assert!(on_the_old_one.contains(&ids[0]) && !left.is_empty());
    for id in &left {
        assert_eq!(rig.verdict(id), RESULT);
    }
    rig.link.expect_silence(SECOND / 5);
    assert_eq!(rig.world.apns.count(), ids.len(), "nothing was sent twice");
}
