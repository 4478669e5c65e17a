//! Registered devices while the settings change.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use fpush_testkit::{
    Postgres,
    publish::{Publish, field, options},
    try_http,
};
use serde_json::json;

use crate::rig::{LONG, OVERLOAD, RESULT, Rig, World, apple, google};

/// A form to the HTTP API, and the lines of its answer.
fn post(address: SocketAddr, endpoint: &str, form: &str) -> io::Result<Vec<String>> {
    let answer = try_http(address, &format!("POST /push_appserver/v1/{endpoint}"), form)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(answer.body.split('\n').map(str::to_owned).collect())
}

/// Registers a device, and returns its secret.
#[track_caller]
fn register(address: SocketAddr, node: &str, token: &str) -> String {
    let kind = if token.len() == 64 { "apns" } else { "fcm" };
    let answer = post(
        address,
        "register",
        &format!("type={kind}&node={node}&token={token}"),
    );
    let answer = answer.unwrap();
    assert_eq!(answer[..2], ["OK", node]);
    answer[2].clone()
}

/// Publishes for a registered device, and returns how that was answered.
#[track_caller]
fn publish(rig: &mut Rig, id: &str, node: &str, secret: &str) -> String {
    let item = "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='last-message-body'>\
                <value>New message</value></field></x></notification></item>";
    let form_type = field("FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options");
    let options = options("submit", &format!("{form_type}{}", field("secret", secret)));
    rig.link.send(Publish::new(id, node, item, &options));
    rig.verdict(id)
}

/// The address of the HTTP API that was opened as the `n`th one.
#[track_caller]
fn api(rig: &Rig, n: usize) -> SocketAddr {
    let line = rig
        .conductor
        .daemon
        .wait_for_nth_log("the HTTP API is open", n, LONG);
    let (_, address) = line.split_once("listen=").unwrap();
    address.split(' ').next().unwrap().parse().unwrap()
}

fn topic(rig: &Rig) -> (String, String) {
    let requests = rig.world.apns.requests();
    let last = requests.last().unwrap();
    (last.token.clone(), last.header("apns-topic").unwrap().to_owned())
}

#[test]
fn registered_devices_outlive_reloads() {
    let world = World::new();
    let module = |topic: &str| world.apple(json!({ "apns": { "topic": topic } }));
    let (ios, siskin) = (module("org.example.ios"), module("org.example.siskin"));
    let settings =
        world.settings(json!({ "ios": ios, "siskin": siskin, "android": world.google(json!({})) }));
    let mut rig = world.start(settings, &[]);
    assert_eq!(
        publish(&mut rig, "none", "a", "x"),
        OVERLOAD,
        "nobody registers here"
    );

    // The block comes …
    let block = json!({
        "store": { "type": "sqlite", "path": "devices.db" },
        "types": { "apns": "ios" },
        "http": { "listen": "127.0.0.1:0" },
    });
    rig.reload(json!({ "registration": block }));
    let address = api(&rig, 1);
    let alice = register(address, "alice", &apple(1));
    assert_eq!(publish(&mut rig, "first", "alice", &alice), RESULT);
    assert_eq!(topic(&rig), (apple(1), "org.example.ios".to_owned()));
    let unknown = post(
        address,
        "register",
        &format!("type=fcm&node=b&token={}", google(1)),
    )
    .unwrap();
    assert_eq!(unknown[0], "ERROR", "{unknown:?}");

    // … changes, while clients ask its port without a pause …
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = post(address, "push", &format!("node=alice&secret={alice}")).unwrap();
                assert_eq!(answer, ["OK", "alice"]);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        for types in [
            json!({ "apns": "siskin", "fcm": "android" }),
            json!({ "apns": "ios", "fcm": "android" }),
            json!({ "apns": "siskin", "fcm": "android" }),
        ] {
            let until = asked.load(Ordering::Relaxed) + 5;
            crate::rig::until(LONG, "the clients go on", || {
                asking.is_finished() || asked.load(Ordering::Relaxed) >= until
            });
            rig.conductor
                .reload(json!({ "registration": { "types": types } }));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(api(&rig, 4), address, "the port is the same");
    // A device has its type, and that has another module now.
    assert_eq!(publish(&mut rig, "second", "alice", &alice), RESULT);
    assert_eq!(topic(&rig), (apple(1), "org.example.siskin".to_owned()));
    let bob = register(address, "bob", &apple(2));
    assert_eq!(publish(&mut rig, "third", "bob", &bob), RESULT);
    assert_eq!(topic(&rig), (apple(2), "org.example.siskin".to_owned()));
    let carol = register(address, "carol", &google(3));
    assert_eq!(publish(&mut rig, "fourth", "carol", &carol), RESULT);
    assert_eq!(rig.world.fcm.wait_for(1, LONG)[0].token(), google(3));

    // … is refused where it would lose them …
    let misspelt = rig
        .conductor
        .changed(json!({ "registration": { "store": { "path": "device.db" } } }));
    let log = rig.conductor.refuse(&misspelt.to_string());
    assert!(log.contains("the database there has no device"), "{log}");
    assert_eq!(publish(&mut rig, "misspelt", "alice", &alice), RESULT);

    // … goes …
    rig.reload(json!({ "registration": null }));
    assert_eq!(publish(&mut rig, "fifth", "alice", &alice), OVERLOAD);
    crate::rig::until(LONG, "the port is closed", || {
        TcpStream::connect(address).is_err()
    });
    // … and comes again, and nobody had to register anew.
    rig.reload(json!({ "registration": block }));
    for (node, secret, token) in [("alice", &alice, apple(1)), ("bob", &bob, apple(2))] {
        assert_eq!(publish(&mut rig, node, node, secret), RESULT);
        assert_eq!(topic(&rig), (token, "org.example.ios".to_owned()));
    }
    // Her type has no module any more, which is not a reason to unregister her.
    assert_eq!(publish(&mut rig, "carol", "carol", &carol), OVERLOAD);
    let again = post(api(&rig, 5), "push", &format!("node=alice&secret={alice}")).unwrap();
    assert_eq!(again, ["OK", "alice"]);

    // A change that is about something else leaves it alone.
    rig.reload(json!({ "pushModules": { "ios": { "apns": { "topic": "org.example.new" } } } }));
    assert_eq!(publish(&mut rig, "last", "alice", &alice), RESULT);
    assert_eq!(topic(&rig).1, "org.example.new");
    let opened = rig.conductor.daemon.log().matches("the HTTP API is open").count();
    assert_eq!(opened, 5);
    assert_eq!(
        rig.conductor.settings["registration"]["types"],
        json!({ "apns": "ios" })
    );
}

/// All devices are in memory then, and the new registry would have none.
#[test]
fn a_database_that_is_away_keeps_the_registration_as_it_is() {
    let (server, world) = (Postgres::start_new(), World::new());
    let mut settings = world.settings(json!({ "ios": world.apple(json!({})) }));
    settings["registration"] = json!({
        "store": { "type": "postgres", "url": server.database(), "cache": true },
        "types": { "apns": "ios" },
        "http": { "listen": "127.0.0.1:0" },
    });
    let mut rig = world.start(settings, &[]);
    let address = api(&rig, 1);
    let secret = register(address, "alice", &apple(1));
    server.stop();
    let changed = rig
        .conductor
        .changed(json!({ "registration": { "maxPerOwner": 7 } }));
    let log = rig.conductor.refuse(&changed.to_string());
    assert!(log.contains("the database there is out of reach"), "{log}");
    assert_eq!(publish(&mut rig, "away", "alice", &secret), RESULT);

    server.start();
    rig.reload(json!({ "registration": { "maxPerOwner": 8 } }));
    assert_eq!(publish(&mut rig, "back", "alice", &secret), RESULT);
}
