//! Apps that get their pushes by `UnifiedPush`, through real servers of it: ntfy, and Prosody's `mod_unified_push`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fpush_testkit::{
    ApnsKey, Daemon, Ntfy, Subscriber, TempDir, TestCa, free_port,
    servers::{Prosody, Server as _, attribute, form_value, submit_form},
};
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, PROGRAM, RESULT, Rig};

/// A module for a server of `UnifiedPush` on this machine.
fn module(port: u16) -> Value {
    json!({ "up": {
        "type": "webpush", "ratelimit": { "enabled": false, "hardRatelimitTime": "2s" },
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "up-ca.pem",
            "allowedEndpoints": ["127.0.0.1"], "allowedNetworks": ["127.0.0.1"], "allowedPorts": [port],
        },
    } })
}

/// The fields with which an app registers.
fn fields<'a>(node: &'a str, subscription: &'a fpush_testkit::Subscription) -> [(&'a str, &'a str); 5] {
    [
        ("type", "webpush"),
        ("node", node),
        ("endpoint", &subscription.endpoint),
        ("p256dh", &subscription.p256dh),
        ("auth", &subscription.auth),
    ]
}

/// ntfy takes one push, keeps it for a receiver who is away, and refuses what nobody has ever subscribed to, which costs nothing.
#[test]
#[ignore = "needs ntfy: `cargo xtask test --long` brings it"]
fn a_publish_reaches_an_app_through_ntfy() {
    let ca = TestCa::new();
    let ntfy = Ntfy::start(&ca).expect("there is no ntfy; `cargo xtask test --long` unpacks Debian's");
    let mut rig = Rig::run(
        json!({ "types": { "webpush": "up" } }),
        module(ntfy.port()),
        |builder| {
            builder
                .file("vapid.key", ApnsKey::generate().p8())
                .file("up-ca.pem", ca.pem())
        },
    );
    let app = Subscriber::new();
    let topic = "upAbCdEfGhIjKl";
    let subscription = app.subscription(ntfy.endpoint(topic));
    let registered = rig.form(ALICE, "v1-register-push", &fields("phone", &subscription));
    let secret = registered.value("secret").to_owned();

    // Nobody has subscribed yet: ntfy says 507, and one push waits.
    assert_eq!(rig.push("phone", &secret), RESULT);
    rig.daemon.wait_for_log("507", LONG);
    let mut messages = ntfy.listen(topic);
    let mut next = |daemon: &Daemon| {
        let body = messages.next_body(LONG);
        let body = body.unwrap_or_else(|| panic!("no message\n{}\n{}", ntfy.log(), daemon.log()));
        app.read(&body)
    };
    assert_eq!(next(&rig.daemon).as_deref(), Ok("{}"));

    // From now on it goes at once.
    for _ in 0..2 {
        assert_eq!(rig.push("phone", &secret), RESULT);
        assert_eq!(next(&rig.daemon).as_deref(), Ok("{}"));
    }
    assert!(rig.daemon.is_running());
    rig.assert_discreet(&[topic, &subscription.p256dh, &subscription.auth]);
}

/// The whole way through a real Prosody, which is the user's server, and the push service of another app of the user's phone: its
/// answer to a push is the phone's.
#[test]
fn a_message_reaches_an_app_through_prosodys_unified_push() {
    let (ca, folder, port) = (TestCa::new(), TempDir::new(), free_port().unwrap());
    let identity = ca.server_cert(&["127.0.0.1"], None);
    let certificate = folder.write("cert.pem", identity.cert_pem);
    let key = folder.write("key.pem", identity.key_pem);
    let config = format!(
        "modules_enabled = {{ \"saslauth\", \"roster\", \"disco\", \"register\", \"offline\", \"smacks\", \
         \"cloud_notify\", \"unified_push\" }}\n\
         http_ports = {{ }}\nhttps_ports = {{ {port} }}\nhttps_interfaces = {{ \"127.0.0.1\" }}\n\
         https_ssl = {{ certificate = \"{}\", key = \"{}\" }}\n\
         http_external_url = \"https://127.0.0.1:{port}/\"\nhttp_default_host = \"localhost\"\n",
        certificate.display(),
        key.display()
    );
    let prosody = Prosody::start(&[("push.localhost", "secret")], &config).unwrap_or_else(|e| panic!("{e}"));
    let daemon = Daemon::builder(PROGRAM)
        .settings(&json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": prosody.component_port(),
            },
            "pushModules": module(port),
            "registration": {
                "store": { "type": "sqlite", "path": "devices.db" }, "types": { "webpush": "up" },
            },
        }))
        .rust_log("trace")
        .file("vapid.key", ApnsKey::generate().p8())
        .file("up-ca.pem", ca.pem())
        .start();
    prosody.wait_for_component(1, LONG).unwrap();
    for user in ["alice", "bob", "phone"] {
        prosody.register(user, "secret").unwrap();
    }

    // The phone has a client that hands pushes on to other apps, and says where they come in.
    let mut phone = prosody.login("phone", "secret").unwrap();
    phone.send_presence().unwrap();
    let [application, instance] = [[1; 32], [2; 32]].map(|hash| BASE64_STANDARD.encode(hash));
    let registered = phone
        .request(
            "set",
            "localhost",
            &format!("<register xmlns='{DRAFT}' application='{application}' instance='{instance}'/>"),
        )
        .unwrap();
    let place = registered.find("<registered").unwrap();
    let endpoint = attribute(&registered[place..], "endpoint").unwrap();
    let app = Subscriber::new();
    let subscription = app.subscription(endpoint.to_owned());

    // Alice's app registers there, and goes.
    let mut alice = prosody.login("alice", "secret").unwrap();
    let command = "v1-register-push";
    let answer = alice
        .execute(
            "push.localhost",
            command,
            Some("execute"),
            &fields("tablet", &subscription),
        )
        .unwrap();
    let [node, secret] = ["node", "secret"].map(|field| form_value(&answer, field).unwrap());
    let options = [("FORM_TYPE", PUBLISH_OPTIONS), ("secret", &secret)];
    alice
        .enable_push_with("push.localhost", &node, &submit_form(&options))
        .unwrap();
    alice.logout().unwrap();

    let mut bob = prosody.login("bob", "secret").unwrap();
    for (text, status) in [("first", "201"), ("second", "503")] {
        bob.send_message("alice@localhost", text).unwrap();
        let push = phone
            .next_matching(|stanza| stanza.contains("<push "), LONG)
            .unwrap();
        assert_eq!(
            attribute(&push[push.find("<push ").unwrap()..], "instance"),
            Some(&*instance)
        );
        let start = push.find("<push ").unwrap();
        let body = &push[start + push[start..].find('>').unwrap() + 1..push.find("</push>").unwrap()];
        let text = app.read(&BASE64_STANDARD.decode(body).unwrap()).unwrap();
        assert!(
            serde_json::from_str::<Value>(&text).unwrap().is_object(),
            "{text}"
        );
        let id = attribute(&push, "id").unwrap();
        let reply = match status {
            "201" => format!("<iq type='result' to='localhost' id='{id}'/>"),
            _ => format!(
                "<iq type='error' to='localhost' id='{id}'><error type='wait'>\
                 <recipient-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            ),
        };
        phone.send_raw(&reply).unwrap();
    }
    drop(daemon);
}

const DRAFT: &str = "http://gultsch.de/xmpp/drafts/unified-push";

const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
