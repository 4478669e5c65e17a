//! Push 2.0: a server forgets a registration at an error of type `cancel`. No mistake of an operator may bring one, for days.

use fpush_testkit::{
    Answer, ApnsKey, Clock, Daemon, FakeProxy, FakePush, FakeXmpp, Moves, ProxyAnswer, Push2Server, TestCa,
    merged,
};
use serde_json::{Value, json};

use super::rig::{HOUR, LONG};

const VENDOR: &str = "updates.push.services.mozilla.com";
const OTHER: &str = "up.example.org";

/// What is wrong.
struct Mistake {
    name: &'static str,
    /// In section `webpush` of the module.
    settings: Value,
    /// What the push services answer.
    answer: Answer,
}

fn mistakes() -> Vec<Mistake> {
    let mistake = |name, settings, answer| Mistake {
        name,
        settings,
        answer,
    };
    let well = || Answer::status(201);
    let of_service = |name, status| mistake(name, json!({}), Answer::status(status));
    vec![
        mistake(
            "the hosts are not allowed any more",
            json!({ "allowedEndpoints": ["web.push.apple.com"] }),
            well(),
        ),
        mistake(
            "the port is not allowed any more",
            json!({ "allowedPorts": [8443] }),
            well(),
        ),
        mistake(
            "another authority is trusted",
            json!({ "caFilePath": "other-ca.pem" }),
            well(),
        ),
        mistake(
            "nothing answers",
            json!({ "requestTimeout": "1s" }),
            Answer::Silence,
        ),
        of_service("the claims are refused", 401),
        of_service("the key is refused", 403),
        of_service("the request is refused", 400),
        of_service("it is too large", 413),
        of_service("it is too much", 429),
        of_service("nobody listens", 507),
        of_service("an outage", 503),
        of_service("a redirect", 301),
    ]
}

#[test]
fn no_mistake_of_an_operator_ends_a_registration_of_push2() {
    for Mistake {
        name,
        settings,
        answer,
    } in mistakes()
    {
        let (ca, proxy, xmpp) = (
            TestCa::new(),
            FakeProxy::start(),
            FakeXmpp::start("push.localhost", "secret"),
        );
        let push = FakePush::start(&ca);
        proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
        push.answer_with(move |_| answer.clone());
        let usual = json!({
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "ca.pem",
            "allowedEndpoints": [VENDOR, OTHER],
        });
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush"))
            .file("ca.pem", ca.pem())
            .file("other-ca.pem", TestCa::new().pem())
            .file("vapid.key", ApnsKey::generate().p8())
            .env("HTTPS_PROXY", &proxy.url())
            .settings(&json!({
                "component": {
                    "componentHostname": "push.localhost", "componentKey": "secret",
                    "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
                    "push2": { "modules": ["web"] },
                },
                "pushModules": { "web": { "type": "webpush", "webpush": merged(usual, settings) } },
            }));
        let (daemon, mut clock) = Clock::start(builder, Moves::Time);
        let mut link = xmpp.try_accept(LONG).unwrap();
        let server = Push2Server::new();
        let devices = [VENDOR, OTHER].map(|host| push.subscribe_at(host, "/device"));
        let mut sent = 0;
        for _ in 0..8 {
            for device in &devices {
                sent += 1;
                let id = format!("id-{sent}");
                link.send(server.notification(device, "x").message("a.example", &id));
                let verdict = link.reply_to(&id, LONG).verdict();
                assert!(
                    verdict.starts_with("wait/"),
                    "{name}: {verdict}\n{}",
                    daemon.log()
                );
            }
            clock.advance(11 * HOUR);
            // The stream is looked at before the next one.
            sent += 1;
            let id = format!("id-{sent}");
            link.send(format!(
                "<iq type='get' from='a.example' to='push.localhost' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"
            ));
            assert!(link.reply_to(&id, LONG).is_result());
        }
    }
}
