//! The HTTP API through the program: its settings reach it, and it shares its devices with the component.

use std::{
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::Answer;
use serde_json::json;

use crate::rig::{ALICE, LONG, MISSING, RESULT, Rig, apple, google, http, is_random, until};

const FORBIDDEN: [&str; 2] = ["ERROR", "Node or secret not found!"];
/// As if the database were away: it may be a living device.
const UNKNOWN: [&str; 2] = ["ERROR", "Internal server error, try again later!"];
const NOT_FOUND: [&str; 2] = ["ERROR", "Node not found!"];
const RATELIMIT: [&str; 2] = ["ERROR", "Ratelimit reached!"];

#[test]
fn a_device_of_http_is_pushed_to_by_http_and_by_xmpp() {
    let mut rig = Rig::start();
    let answer = rig.http(
        "POST /push_appserver/v1/register",
        &format!("type=apns&node=E0FF1D8C+%C3%A4%26&token={}", apple(1)),
    );
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.contains("content-type: text/plain;charset=utf-8"),
        "{}",
        answer.head
    );
    let node = "E0FF1D8C ä&";
    let secret = answer
        .body
        .strip_prefix(&format!("OK\n{node}\n"))
        .unwrap()
        .to_owned();
    assert!(is_random(&secret), "{}", answer.body);
    let again = rig.post(
        "register",
        &format!("node=E0FF1D8C%20%c3%a4%26&token={}&type=apns", apple(2)),
    );
    assert_eq!(again[..2], ["OK", node]);
    assert_ne!(
        again[2], secret,
        "the secret is shown only to a request that says it"
    );
    let proof = format!(
        "node=E0FF1D8C%20%c3%a4%26&token={}&type=apns&secret={secret}",
        apple(2)
    );
    assert_eq!(
        rig.post("register", &proof),
        again,
        "the first one is good for a while"
    );

    assert_eq!(
        rig.post("push", &format!("node=E0FF1D8C+ä%26&secret={secret}")),
        ["OK", node]
    );
    rig.expect_apple(node, Some(&secret), "org.example.ios", &apple(2));
    let requests = rig.apns.requests();
    assert_eq!(requests[0].token, apple(2));
    assert_eq!(requests[0].header("apns-push-type"), Some("alert"));
    assert_eq!(requests[0].body, requests[1].body);

    for secret in ["wrong", &secret[1..]] {
        assert_eq!(
            rig.post("push", &format!("node=E0FF1D8C+ä%26&secret={secret}")),
            UNKNOWN
        );
    }
    assert_eq!(rig.post("push", &format!("node=other&secret={secret}")), UNKNOWN);
    assert_eq!(rig.post("unregister", "type=fcm&node=E0FF1D8C+ä%26"), NOT_FOUND);
    assert_eq!(rig.post("unregister", "type=apns&node=E0FF1D8C+ä%26"), again);
    assert_eq!(rig.post("unregister", "type=apns&node=E0FF1D8C+ä%26"), NOT_FOUND);
    assert_eq!(rig.push(node, &secret), MISSING);
    assert_eq!(
        rig.post("push", &format!("node=E0FF1D8C+ä%26&secret={secret}")),
        FORBIDDEN
    );
    rig.assert_discreet(&["E0FF1D8C", &secret, &apple(1), &apple(2)]);
}

#[test]
fn a_push_waits_for_the_provider_and_says_what_became_of_it() {
    let mut rig = Rig::start();
    rig.earn_trust("ios", apple);
    let rig = rig;
    let register = |node: &str, token: &str| {
        rig.post("register", &format!("type=apns&node={node}&token={token}"))
            .remove(2)
    };
    let push = |node: &str, secret: &str| rig.post("push", &format!("node={node}&secret={secret}"));
    let delay = Duration::from_millis(400);
    let secret = register("slow", &apple(1));
    rig.apns.queue([Answer::Normal.after(delay)]);
    let began = Instant::now();
    assert_eq!(push("slow", &secret), ["OK", "slow"]);
    assert!(began.elapsed() >= delay);

    for (reason, line) in [
        (
            "BadTopic",
            "Push service does not take the push, try again later!",
        ),
        // The first word about this token: that may be a mistake of ours.
        ("BadDeviceToken", "Token is blocked for a while!"),
        ("SomethingNew", "Token is blocked for a while!"),
    ] {
        rig.apns.queue([Answer::json(400, &json!({ "reason": reason }))]);
        assert_eq!(push("slow", &secret), ["ERROR", line], "{reason}");
        register("slow", &apple(1));
    }
    let dead = Answer::json(410, &json!({ "reason": "Unregistered" }));
    rig.apns.answer_with(move |_| dead.clone());
    assert_eq!(push("slow", &secret), ["ERROR", "Token is dead, register again!"]);
    until(LONG, "the device is gone", || push("slow", &secret) == FORBIDDEN);
    let asked = rig.apns.count();
    assert_eq!(push("slow", &secret), FORBIDDEN);
    assert_eq!(rig.apns.count(), asked, "a dead token is not asked for again");
}

#[test]
fn the_rate_limit_is_that_of_the_publishes() {
    let mut rig = Rig::with(json!({ "rateLimit": "1h" }));
    let secret = rig
        .post("register", &format!("type=fcm&node=n&token={}", google(1)))
        .remove(2);
    assert_eq!(rig.push("n", &secret), RESULT);
    let form = format!("node=n&secret={secret}");
    assert_eq!(rig.post("push", &form), ["OK", "n"], "it is queued");
    assert_eq!(rig.post("push", &form), RATELIMIT);
    assert_eq!(rig.push("n", &secret), "wait/service-unavailable");
    assert_eq!(rig.fcm.count(), 1);
}

#[test]
fn the_secret_can_be_demanded() {
    let mut rig = Rig::with(json!({ "http": { "requireSecret": true } }));
    let register = format!("type=apns&node=n&token={}", apple(1));
    let secret = rig.post("register", &register).remove(2);
    let renewal = format!("type=apns&node=n&token={}", apple(2));
    for proof in [
        "",
        "&secret=",
        "&secret=wrong",
        &format!("&secret={}", &secret[1..]),
    ] {
        assert_eq!(
            rig.post("register", &format!("{renewal}{proof}")),
            FORBIDDEN,
            "{proof}"
        );
        assert_eq!(
            rig.post("unregister", &format!("type=apns&node=n{proof}")),
            NOT_FOUND,
            "{proof}"
        );
    }
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
    assert_eq!(
        rig.post("register", &format!("{renewal}&secret={secret}")),
        ["OK", "n", &secret]
    );
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(2));

    // Over XMPP it is the same: nobody takes over a node that came over HTTP without its secret.
    let fields = [
        ("type", "apns"),
        ("node", "n"),
        ("token", &apple(3)),
        ("secret", &secret),
    ];
    assert_eq!(
        rig.execute(ALICE, "v1-register-push", &fields[..3]).verdict(),
        "auth/forbidden"
    );
    assert_eq!(
        rig.form(ALICE, "v1-register-push", &fields).value("secret"),
        secret
    );
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(3));
    assert_eq!(
        rig.post("unregister", &format!("type=apns&node=n&secret={secret}")),
        NOT_FOUND
    );
}

#[test]
fn what_is_not_a_request_of_the_api_is_refused() {
    let mut rig = Rig::start();
    for (request, body, status) in [
        ("GET /push_appserver/v1/health", String::new(), 200),
        ("GET /push_appserver/", String::new(), 200),
        ("GET /push_appserver/v1/register", String::new(), 403),
        ("GET /push_appserver/v1/unregister", String::new(), 403),
        ("GET /push_appserver/v1/push", String::new(), 403),
        ("GET /push_appserver/v1/settings", String::new(), 403),
        ("GET /push_appserver/v1/settings/n", String::new(), 403),
        ("GET /push_appserver/v2/health", String::new(), 404),
        ("DELETE /push_appserver/v1/register", String::new(), 405),
        ("POST /push_appserver/v1/register", String::new(), 400),
        (
            "POST /push_appserver/v1/register",
            "type=apns&node=n".to_owned(),
            400,
        ),
        (
            "POST /push_appserver/v1/register",
            format!("type=apns&node=&token={}", apple(1)),
            400,
        ),
        (
            "POST /push_appserver/v1/register",
            format!("type=apns&node=a%00b&token={}", apple(1)),
            400,
        ),
        (
            "POST /push_appserver/v1/register",
            format!("type=apns&node=%ff&token={}", apple(1)),
            400,
        ),
        (
            "POST /push_appserver/v1/register",
            format!("type=apns&node={}&token={}", "x".repeat(3_000), apple(1)),
            400,
        ),
        (
            "POST /push_appserver/v1/register",
            format!("type=apns&node={}", "x".repeat(4_100)),
            400,
        ),
        ("POST /push_appserver/v1/push", "node=n".to_owned(), 400),
        ("POST /push_appserver/v1/unregister", "node=n".to_owned(), 400),
    ] {
        let answer = rig.http(request, &body);
        assert_eq!(answer.status, status, "{request} {body}: {}", answer.body);
    }
    assert!(
        rig.http("GET /push_appserver/v1/health", "")
            .body
            .contains("RUNNING")
    );
    let unknown = rig.post("register", &format!("type=webpush&node=n&token={}", google(1)));
    assert_eq!(unknown, ["ERROR", "Push type not known!"]);
    let wrong = rig.post("register", &format!("type=fcm&node=n&token={}", apple(1)));
    assert_eq!(wrong, ["ERROR", "Token does not fit the push type!"]);
    for text in ["'; DROP TABLE devices; --", "\" OR 1=1 --"] {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = rig.post(
            "register",
            &format!("type=apns&node={escaped}&token={}", apple(1)),
        );
        assert_eq!(answer[..2], ["OK", text]);
        rig.expect_apple(text, Some(&answer[2]), "org.example.ios", &apple(1));
        assert_eq!(
            rig.post("push", &format!("node={escaped}&secret={escaped}")),
            UNKNOWN
        );
    }
    assert_eq!(rig.export().len(), 2);
}

/// A node that a module would take for a token is nobody's to choose: the publishes for that token have no secret.
#[test]
fn a_token_is_not_a_node_over_http_either() {
    let mut rig = Rig::of(
        json!({}),
        json!({ "plain": { "is_default_module": false }, "android": { "is_default_module": true } }),
    );
    for token in [
        google(1),
        google(1)[..22].to_owned(),
        apple(1),
        apple(1).to_uppercase(),
    ] {
        for kind in ["apns", "fcm"] {
            let own = if kind == "apns" { apple(666) } else { google(666) };
            let form = format!("type={kind}&node={token}&token={own}");
            assert_eq!(rig.post("register", &form)[0], "ERROR", "{kind} {token}");
        }
    }
    assert!(rig.export().is_empty());
    assert_eq!(rig.push_plain(&google(1)), RESULT, "it is still its owner's");
    assert_eq!(rig.fcm.wait_for(1, LONG)[0].token(), google(1));
}

#[test]
fn a_node_cannot_be_tried_out() {
    let rig = Rig::start();
    let secret = rig
        .post("register", &format!("type=apns&node=n&token={}", apple(1)))
        .remove(2);
    // The registration was the first of twelve in this minute.
    for _ in 0..11 {
        assert_eq!(rig.post("unregister", "type=fcm&node=n"), NOT_FOUND);
    }
    assert_eq!(rig.post("unregister", "type=apns&node=n"), RATELIMIT);
    assert_eq!(
        rig.post("register", &format!("type=apns&node=n&token={}", apple(2))),
        RATELIMIT
    );
    assert_eq!(
        rig.post("push", &format!("node=n&secret={secret}")),
        ["OK", "n"],
        "who knows the secret is not a stranger"
    );
}

#[test]
fn an_address_makes_so_many_new_devices_in_a_day() {
    let rig = Rig::with(json!({ "http": { "newPerAddress": 5 } }));
    let register = |number: usize| {
        rig.post(
            "register",
            &format!("type=apns&node=n-{number}&token={}", apple(1)),
        )
    };
    for number in 0..3 {
        assert_eq!(register(number)[0], "OK");
    }
    // Neither what is renewed nor what is refused is a new device.
    let token = format!("type=apns&node={}&token={}", apple(2), apple(1));
    for _ in 0..5 {
        assert_eq!(register(0)[0], "OK");
        assert_eq!(rig.post("register", &token)[0], "ERROR");
    }
    for number in 3..5 {
        assert_eq!(register(number)[0], "OK");
    }
    assert_eq!(register(5), RATELIMIT);
    assert_eq!(register(0)[0], "OK", "a renewal is not a new device");
}

/// Its app asks again, and what the database did not take is not a device.
#[test]
fn a_device_that_the_database_did_not_take_is_not_counted() {
    let rig = Rig::with(json!({ "http": { "newPerAddress": 2 } }));
    let address = rig.http_address();
    let register = |number: usize| {
        let form = format!("type=apns&node=n-{number}&token={}", apple(number));
        http(address, "POST /push_appserver/v1/register", &form).body
    };
    let lock = rusqlite::Connection::open(rig.path("devices.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Each waits for the disk for some seconds.
    thread::scope(|scope| {
        let refused: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || register(number)))
            .collect();
        for refused in refused {
            assert!(!refused.join().unwrap().starts_with("OK"));
        }
    });
    drop(lock);
    until(LONG, "the database takes devices again", || {
        register(10).starts_with("OK")
    });
    assert!(register(11).starts_with("OK"));
    assert_eq!(register(12), RATELIMIT.join("\n"));
}

/// The phones behind a carrier's address are many; pushes of their servers are not requests of theirs.
#[test]
fn an_address_asks_so_often_in_a_minute() {
    let rig = Rig::with(json!({ "http": { "requestsPerAddress": 5 } }));
    let register = |number: usize| {
        rig.post(
            "register",
            &format!("type=apns&node=n-{number}&token={}", apple(number)),
        )
    };
    let secret = register(0).remove(2);
    for number in 1..5 {
        assert_eq!(register(number)[0], "OK");
    }
    assert_eq!(register(5), RATELIMIT);
    assert_eq!(rig.post("unregister", "type=apns&node=n-1"), RATELIMIT);
    assert_eq!(
        rig.post("push", &format!("node=n-0&secret={secret}")),
        ["OK", "n-0"]
    );

    let rig = Rig::start();
    for number in 0..100 {
        let answer = rig.post(
            "register",
            &format!("type=apns&node=n-{number}&token={}", apple(number)),
        );
        assert_eq!(answer[0], "OK", "{number}");
    }
}

#[test]
fn for_debugging_there_are_pages() {
    let mut rig = Rig::with(json!({ "http": { "debugging": true } }));
    let secret = rig.register(ALICE, "<b>n</b>", &apple(1));
    for page in [
        "register",
        "unregister",
        "push",
        "settings",
        "settings/%3Cb%3En%3C%2Fb%3E",
    ] {
        let answer = rig.http(&format!("GET /push_appserver/v1/{page}"), "");
        assert_eq!(answer.status, 200, "{page}");
        assert!(answer.head.contains("content-type: text/html"), "{}", answer.head);
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'"),
            "{}",
            answer.head
        );
        assert!(
            !answer.body.contains(&secret) && !answer.body.contains("<b>n"),
            "{}",
            answer.body
        );
    }
    assert_eq!(rig.http("GET /push_appserver/v1/settings/other", "").status, 404);
}

/// A user with a silent phone may read it, where the operator wants that.
#[test]
fn a_page_that_explains_how_to_test_is_there_if_the_settings_say_so() {
    for (is_wanted, status) in [(None, 404), (Some(false), 404), (Some(true), 200)] {
        let rig = Rig::with(json!({ "http": { "selftest": is_wanted } }));
        let page = rig.http("GET /push_appserver/v1/selftest", "");
        assert_eq!(page.status, status, "{is_wanted:?}: {}", page.body);
        for command in ["push-status", "test-push"] {
            assert_eq!(
                page.body.contains(command),
                is_wanted == Some(true),
                "{}",
                page.body
            );
        }
        assert_eq!(
            rig.http("GET /push_appserver/v1/health", "").status,
            200,
            "{is_wanted:?}"
        );
    }
}

#[test]
fn a_request_under_way_has_its_answer_before_the_end() {
    let mut rig = Rig::start();
    let secret = rig
        .post("register", &format!("type=apns&node=n&token={}", apple(1)))
        .remove(2);
    rig.apns.queue([Answer::Normal.after(Duration::from_millis(500))]);
    let address = rig.http_address();
    let pushing = thread::spawn(move || {
        http(
            address,
            "POST /push_appserver/v1/push",
            &format!("node=n&secret={secret}"),
        )
        .body
    });
    rig.apns.wait_for(1, LONG);
    rig.stop();
    assert_eq!(pushing.join().unwrap(), "OK\nn");
}

#[test]
fn without_the_block_there_is_no_listener() {
    let mut rig = Rig::with(json!({ "http": null }));
    rig.register(ALICE, "n", &apple(1));
    rig.stop();
    assert!(!rig.daemon.log().contains("HTTP API"));
}
