//! Web Push subscriptions: how they register, and where their pushes go.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use fpush_testkit::{ApnsKey, FakePush, Reply, Subscription, TestCa};
use serde_json::{Value, json};

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig};

const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const PAGE: &str = "https://chat.example.org";

/// A daemon whose push type `webpush` sends to a fake push service.
struct Web {
    rig: Rig,
    push: FakePush,
}

impl Web {
    fn start(more: Value) -> Self {
        let ca = TestCa::new();
        let push = FakePush::start(&ca);
        let module = json!({ "web": {
            "type": "webpush", "ratelimit": { "enabled": false },
            "webpush": {
                "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "push-ca.pem",
                "allowedEndpoints": ["127.0.0.1"], "allowedNetworks": ["127.0.0.1"],
                "allowedPorts": [push.address().port()],
            },
        } });
        let types = json!({ "types": { "webpush": "web" }, "http": { "allowedOrigins": [PAGE] } });
        let rig = Rig::run(fpush_testkit::merged(types, more), module, |builder| {
            builder
                .file("vapid.key", ApnsKey::generate().p8())
                .file("push-ca.pem", ca.pem())
        });
        Self { rig, push }
    }

    fn register(&mut self, subscription: &Subscription, more: &[(&str, &str)]) -> Reply {
        let fields = [
            ("type", "webpush"),
            ("node", "browser-1"),
            ("endpoint", &subscription.endpoint),
            ("p256dh", &subscription.p256dh),
            ("auth", &subscription.auth),
        ];
        self.rig
            .execute(ALICE, "v1-register-push", &[&fields, more].concat())
    }

    /// Publishes, and expects that exactly this path gets one more push.
    #[track_caller]
    fn expect(&mut self, node: &str, secret: &str, path: &str) {
        let seen = self.push.pushes().len();
        assert_eq!(self.rig.push(node, secret), RESULT);
        let pushes = self.push.wait_for(seen + 1, LONG);
        assert_eq!(pushes.len(), seen + 1);
        assert_eq!(pushes[seen].path, path);
        assert!(pushes[seen].text.is_ok());
    }

    /// The key with which apps subscribe.
    fn key(&mut self) -> String {
        self.rig.http("GET /push_appserver/v1/vapid/webpush", "").body
    }
}

fn secret(reply: &Reply) -> String {
    fpush_testkit::Form::of(reply).value("secret").to_owned()
}

/// Base64 as `btoa` writes it.
fn standard(text: &str) -> String {
    let text = text.replace('-', "+").replace('_', "/");
    let padding = (4 - text.len() % 4) % 4;
    text + &"=".repeat(padding)
}

fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::new(), |all, byte| all + &format!("%{byte:02x}"))
}

#[test]
fn a_subscription_registers_by_command_and_gets_its_pushes() {
    let mut web = Web::start(json!({}));
    let subscription = web.push.subscribe("/a?b=%2b");
    let reply = web.register(&subscription, &[]);
    let secret_1 = secret(&reply);
    web.expect("browser-1", &secret_1, "/a?b=%2b");
    // Browsers give out another endpoint now and then.
    let renewed = web.push.subscribe("/b");
    let spelled = Subscription {
        endpoint: renewed.endpoint.replace("https", "HTTPS"),
        p256dh: standard(&renewed.p256dh),
        auth: standard(&renewed.auth),
    };
    let reply = web.register(&spelled, &[]);
    assert_eq!(secret(&reply), secret_1);
    web.expect("browser-1", &secret_1, "/b");
    let unregistered = web.rig.execute(
        ALICE,
        "v1-unregister-push",
        &[
            ("type", "webpush"),
            ("node", "browser-1"),
            ("endpoint", &subscription.endpoint),
            ("p256dh", &subscription.p256dh),
            ("auth", &subscription.auth),
        ],
    );
    assert_eq!(unregistered.verdict(), MISSING, "it is not the device's any more");
    let fields = [
        ("type", "webpush"),
        ("node", "browser-1"),
        ("endpoint", &spelled.endpoint),
        ("p256dh", &spelled.p256dh),
        ("auth", &spelled.auth),
    ];
    assert!(web.rig.execute(ALICE, "v1-unregister-push", &fields).is_result());
    assert_eq!(web.rig.push("browser-1", &secret_1), MISSING);
    web.rig.assert_discreet(&[
        &subscription.endpoint,
        &subscription.auth,
        &renewed.p256dh,
        &spelled.auth,
        "/b?",
    ]);
}

#[test]
fn a_page_registers_over_http() {
    let mut web = Web::start(json!({}));
    let subscription = web.push.subscribe("/http");
    let key = web.key();
    let form = format!(
        "type=webpush&node=page-1&endpoint={}&p256dh={}&auth={}&vapid={}",
        encoded(&subscription.endpoint),
        encoded(&standard(&subscription.p256dh)),
        subscription.auth,
        encoded(&standard(&key)),
    );
    let answer = web.rig.post("register", &form);
    assert_eq!(answer[..2], ["OK", "page-1"]);
    web.expect("page-1", &answer[2], "/http");

    let token = encoded(&web.push.subscribe("/string").token());
    let answer = web
        .rig
        .post("register", &format!("type=webpush&node=page-2&token={token}"));
    assert_eq!(answer[..2], ["OK", "page-2"]);
    web.expect("page-2", &answer[2], "/string");

    let without = web.rig.http(
        "POST /push_appserver/v1/register",
        &format!(
            "type=webpush&node=page-3&endpoint={}",
            encoded(&subscription.endpoint)
        ),
    );
    assert_eq!(without.status, 400);
    assert!(without.body.contains("p256dh"), "{}", without.body);
    for (field, with, said) in [
        ("vapid", "B", "Subscribed with another VAPID key!"),
        ("auth", "AAAA", "auth is not 16 bytes in base64url!"),
        ("p256dh", "AAAA", "p256dh is not a public key!"),
        (
            "endpoint",
            "https%3a%2f%2f127.0.0.1%2fa",
            "Endpoint is not allowed here!",
        ),
    ] {
        let wrong = form.replacen(&format!("{field}="), &format!("{field}={with}&x="), 1);
        assert_eq!(web.rig.post("register", &wrong), ["ERROR", said], "{field}");
    }
}

#[test]
fn what_could_never_get_a_push_is_told_at_once() {
    let mut web = Web::start(json!({}));
    let (key, good) = (web.key(), web.push.subscribe("/a"));
    for (right, vapid) in [
        (true, key.clone()),
        (true, standard(&key)),
        (false, good.p256dh.clone()),
    ] {
        let reply = web.register(&good, &[("vapid", &vapid)]);
        assert_eq!(reply.is_result(), right, "{}", reply.raw);
        if !right {
            assert!(
                reply.raw.contains("bad-payload") && reply.raw.contains("VAPID"),
                "{}",
                reply.raw
            );
        }
    }
    let reply = web.rig.execute(
        ALICE,
        "v1-register-push",
        &[
            ("type", "apns"),
            ("node", "n"),
            ("token", &"a".repeat(64)),
            ("vapid", &key),
        ],
    );
    assert!(reply.raw.contains("bad-payload"), "{}", reply.raw);
    let with = |endpoint: &str, p256dh: &str, auth: &str| Subscription {
        endpoint: endpoint.to_owned(),
        p256dh: p256dh.to_owned(),
        auth: auth.to_owned(),
    };
    let Subscription {
        endpoint,
        p256dh,
        auth,
    } = &good;
    for (said, wrong) in [
        ("this endpoint", with("https://10.0.0.1/", p256dh, auth)),
        ("this endpoint", with("https://evil.example/", p256dh, auth)),
        (
            "this endpoint",
            with(&endpoint.replace("https", "http"), p256dh, auth),
        ),
        ("this endpoint", with(&format!("{endpoint}#x"), p256dh, auth)),
        (
            "this endpoint",
            with(&endpoint.replace("127.0.0.1", "127.1"), p256dh, auth),
        ),
        ("p256dh is not", with(endpoint, &p256dh[1..], auth)),
        ("auth is not", with(endpoint, p256dh, &auth[1..])),
        (
            "p256dh is not",
            with(endpoint, &p256dh.replacen('B', "A", 1), auth),
        ),
        ("field p256dh", with(endpoint, "", auth)),
        ("field auth", with(endpoint, p256dh, &"a".repeat(2_000))),
    ] {
        let reply = web.register(&wrong, &[]);
        assert!(
            reply.raw.contains("bad-payload") && reply.raw.contains(said),
            "{said}: {}",
            reply.raw
        );
        assert!(!reply.raw.contains(&wrong.endpoint), "{}", reply.raw);
        assert!(!reply.raw.contains(&*p256dh.to_owned()), "{}", reply.raw);
    }
    assert_eq!(web.push.connections(), 0);
}

#[test]
fn the_key_is_shown_to_apps() {
    let mut web = Web::start(json!({}));
    let key = web.key();
    assert_eq!(key.len(), 87);
    for kind in ["apns", "fcm", "none", ""] {
        let answer = web.rig.http(&format!("GET /push_appserver/v1/vapid/{kind}"), "");
        assert_eq!(answer.status, 404, "{kind}");
    }
    let info = web.rig.ask("get", INFO).raw;
    assert!(
        info.contains("category='pubsub'") && info.contains("type='push'"),
        "Converse wants it: {info}"
    );
    assert!(
        info.contains("fpush:webpush:0") && info.contains("vapid/webpush"),
        "{info}"
    );
    assert!(info.contains(&key), "{info}");
}

/// The head of an answer, in small letters, to a request with these lines.
fn asked(web: &Web, request: &str, lines: &str) -> String {
    let address = web.rig.http_address();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{lines}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase()
}

#[test]
fn pages_of_the_settings_may_read_the_answers_and_no_others() {
    let web = Web::start(json!({}));
    let preflight = |origin: &str| {
        format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        )
    };
    for path in ["register", "unregister", "vapid/webpush"] {
        let request = format!("OPTIONS /push_appserver/v1/{path}");
        let head = asked(&web, &request, &preflight(PAGE));
        for line in [
            "204 no content",
            "access-control-allow-origin: https://chat.example.org",
            "access-control-allow-methods: get, post",
            "access-control-allow-headers: content-type",
            "vary: origin",
        ] {
            assert!(head.contains(line), "{line} in {head}");
        }
        let head = asked(&web, &request, &preflight("https://evil.example"));
        assert!(!head.contains("access-control"), "{head}");
    }
    let get = asked(
        &web,
        "GET /push_appserver/v1/vapid/webpush",
        &format!("Origin: {PAGE}\r\n"),
    );
    assert!(
        get.contains("access-control-allow-origin: https://chat.example.org"),
        "{get}"
    );
    let form = format!("Origin: {PAGE}\r\nContent-Length: 0\r\n");
    let post = asked(&web, "POST /push_appserver/v1/register", &form);
    assert!(
        post.contains("400") && post.contains("access-control-allow-origin"),
        "{post}"
    );
    // Pushes are none of a page's business.
    let push = asked(&web, "POST /push_appserver/v1/push", &form);
    assert!(!push.contains("access-control"), "{push}");
}

/// A page that may register devices is not a page of ours beyond that.
#[test]
fn pages_of_the_settings_use_no_form_for_debugging() {
    let web = Web::start(json!({ "http": { "debugging": true } }));
    let form = |host: Option<&str>, origin: &str, path: &str| {
        let (address, body) = (web.rig.http_address(), "node=x&secret=y");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let host = host.map_or_else(|| address.to_string(), str::to_owned);
        write!(
            stream,
            "POST /push_appserver/v1/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nOrigin: {origin}\r\n\
             Sec-Fetch-Site: cross-site\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(form(None, PAGE, "push"), "403");
    assert_eq!(form(None, PAGE, "register"), "400", "it lacks a type");
    assert_eq!(form(None, "https://evil.example", "register"), "403");
    assert_eq!(form(Some("rebound.evil.example"), PAGE, "register"), "403");
}

#[test]
fn devices_are_exported_and_imported_with_the_one_string() {
    let mut web = Web::start(json!({}));
    let subscription = web.push.subscribe("/export");
    let secret = secret(&web.register(&subscription, &[]));
    let exported = web.rig.export();
    assert_eq!(exported[0]["token"], subscription.token());
    web.rig.stop();
    let mut device = exported[0].clone();
    device["node"] = "imported-1".into();
    std::fs::write(web.rig.path("import.jsonl"), device.to_string()).unwrap();
    let imported = web
        .rig
        .operate(&["import", "json", "import.jsonl", "settings.json"]);
    assert!(imported.status.success(), "{imported:?}");
    web.rig.start_again();
    web.expect("imported-1", &secret, "/export");
    web.expect("browser-1", &secret, "/export");
}
