//! Apple: what reaches it, and what becomes of every answer.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fpush_testkit::{
    Answer, ApnsKey, ApnsRequest, ClientAuth, FakeApns, TestCa,
    clock::{Clock, Moves},
    fixture,
    publish::{ejabberd_publish, prosody_publish, tigase_call_publish, tigase_publish},
};
use serde_json::{Value, json};

use crate::rig::{
    DEAD, LONG, OVERLOAD, REFUSED, RESULT, Rig, SECOND, Scripts, TRUSTED, UNAVAILABLE, merged, modules,
    unlimited,
};

/// An `apple` module with a PEM certificate and what `more` says.
pub(crate) fn apple(apns: &FakeApns, more: Value) -> Value {
    let base = json!({
        "type": "apple",
        "apns": {
            "certFilePath": fixture("aps.pem"),
            "certKeyFilePath": fixture("aps.key.pem"),
            "topic": "org.example.app",
            "endpoint": apns.url(),
            "caFilePath": "ca.pem",
        },
    });
    merged(base, more)
}

/// The same with a provider token from `key.p8`.
fn by_token(apns: &FakeApns, more: Value) -> Value {
    let keys = json!({ "apns": {
        "certFilePath": null, "certKeyFilePath": null,
        "tokenKeyFilePath": "key.p8", "keyId": "KEY1234567", "teamId": "TEAM123456",
    } });
    apple(apns, merged(keys, more))
}

pub(crate) fn token(number: usize) -> String {
    format!("{number:08x}{}", "0123456789abcdef".repeat(4)[8..].to_owned())
}

pub(crate) fn tokens(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(token).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
        && text
            .bytes()
            .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `fpush check` names it, and a service does not end over it.
#[test]
fn blanks_around_a_topic_reach_nobody() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let topic = |topic: &str| apple(&apns, json!({ "apns": { "topic": topic } }));
    let all = modules([
        ("m", topic("org.example.app\n")),
        ("n", topic("\t org.example.app \r\n")),
    ]);
    let mut rig = Rig::start(&ca, all, &[]);
    for (number, module) in ["m", "n"].into_iter().enumerate() {
        assert_eq!(rig.push(module, &token(number)), RESULT);
        let requests = apns.wait_for(number + 1, LONG);
        assert_eq!(requests[number].header("apns-topic"), Some("org.example.app"));
    }
    rig.daemon
        .wait_for_log("found blanks or line ends around it", LONG);
}

#[test]
fn a_push_is_what_apple_wants() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).client_auth(ClientAuth::Required).start();
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, json!({})))]), &[]);
    let before = now();
    assert_eq!(rig.push("m", &token(1)), RESULT);
    let request = &apns.wait_for(1, LONG)[0];
    assert_eq!(
        (request.method.as_str(), &request.path),
        ("POST", &format!("/3/device/{}", token(1)))
    );
    assert!(request.client_cert);
    for (name, value) in [
        ("apns-topic", Some("org.example.app")),
        ("apns-push-type", Some("alert")),
        ("apns-priority", Some("10")),
        ("apns-collapse-id", None),
        ("authorization", None),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert!(
        is_uuid(request.header("apns-id").unwrap()),
        "{:?}",
        request.headers
    );
    let expiration: u64 = request.header("apns-expiration").unwrap().parse().unwrap();
    let in_28_days = before + 28 * 86_400;
    assert!(
        (in_28_days..=in_28_days + 20).contains(&expiration),
        "{expiration} is not in 28 days"
    );
    let alert = json!({ "title": "New Message", "body": "New Message?" });
    assert_eq!(
        request.body,
        json!({ "aps": { "alert": alert, "sound": "default", "mutable-content": 1 } })
    );

    assert_eq!(rig.push("m", &token(2)), RESULT);
    let requests = apns.requests();
    assert_ne!(requests[0].header("apns-id"), requests[1].header("apns-id"));
    assert_eq!(apns.connections(), 1);
}

#[test]
fn what_the_settings_say_is_in_the_push() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let texts = json!({ "apns": {
        "alertTitle": "Neues", "alertBody": "Schau \"rein\" 🙂", "sound": "ping.caf", "mutableContent": false,
        "pushTtl": "0s", "collapsePushes": true, "additionalData": { "a": { "b": [1, null] }, "c": "d" },
    } });
    let hour = json!({ "apns": { "pushTtl": "1h", "alertTitle": "", "alertBody": "", "sound": "" } });
    let mut rig = Rig::start(
        &ca,
        modules([("texts", apple(&apns, texts)), ("hour", apple(&apns, hour))]),
        &[],
    );

    assert_eq!(rig.push("texts", &token(1)), RESULT);
    let request = &apns.wait_for(1, LONG)[0];
    assert_eq!(request.header("apns-expiration"), Some("0"), "now or never");
    assert_eq!(request.header("apns-collapse-id"), Some("xmpp-body-push"));
    let alert = json!({ "title": "Neues", "body": "Schau \"rein\" 🙂" });
    assert_eq!(
        request.body,
        json!({ "aps": { "alert": alert, "sound": "ping.caf" }, "a": { "b": [1, null] }, "c": "d" })
    );

    let before = now();
    assert_eq!(
        rig.push("hour", &token(1)),
        RESULT,
        "another module, another rate limit"
    );
    let request = &apns.wait_for(2, LONG)[1];
    let expiration: u64 = request.header("apns-expiration").unwrap().parse().unwrap();
    assert!(
        (before + 3_600..=before + 3_620).contains(&expiration),
        "{expiration}"
    );
    assert_eq!(request.body["aps"]["sound"], Value::Null);
}

#[test]
fn the_priority_is_the_settings_or_the_publishs() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mode = |mode: &str| {
        let more = json!({ "apns": { "pushPriority": mode, "collapsePushes": true } });
        (mode.to_owned(), apple(&apns, merged(unlimited(), more)))
    };
    let mut rig = Rig::start(&ca, modules(["high", "silent", "voip", "auto"].map(mode)), &[]);
    let high = ("alert", "10", "org.example.app", "xmpp-body-push");
    let low = ("background", "5", "org.example.app", "xmpp-nobody-push");
    let voip = ("voip", "10", "org.example.app.voip", "xmpp-voip-push");
    let token = token(1);
    let publishes = |module| {
        [
            (ejabberd_publish("e1", &token, Some(module), true), true),
            (ejabberd_publish("e0", &token, Some(module), false), false),
            (prosody_publish("p1", &token, Some(module), true), true),
            (prosody_publish("p0", &token, Some(module), false), false),
            (tigase_publish("t1", &token, Some(module), 1, true), true),
            (tigase_publish("t0", &token, Some(module), 0, false), false),
        ]
    };
    for (module, important, unimportant) in [
        ("high", high, high),
        ("silent", low, low),
        ("voip", voip, voip),
        ("auto", high, low),
    ] {
        for (publish, is_important) in publishes(module) {
            let seen = apns.count();
            rig.link.send(&publish);
            let request = &apns.wait_for(seen + 1, LONG)[seen];
            let expected = if is_important { important } else { unimportant };
            let header = |name| request.header(name).unwrap();
            assert_eq!(
                (
                    header("apns-push-type"),
                    header("apns-priority"),
                    header("apns-topic"),
                    header("apns-collapse-id")
                ),
                expected,
                "{module} {publish}"
            );
            let aps = &request.body["aps"];
            assert_eq!(aps["alert"].is_object(), expected.0 == "alert", "{aps}");
            assert_eq!(aps["content-available"] == 1, expected.0 != "alert", "{aps}");
            assert_eq!(aps["sound"].is_null(), expected.0 != "alert", "{aps}");
        }
    }
    for id in ["e1", "e0", "p1", "p0", "t1", "t0"] {
        for _ in 0..4 {
            assert_eq!(rig.verdict(id), RESULT);
        }
    }
}

/// Late, a call is worth nothing: it is sent or refused, and never acknowledged without being sent.
#[test]
fn a_call_is_never_queued() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mode = |mode: &str| {
        let more = json!({ "ratelimit": { "refusedReply": "result" }, "apns": { "pushPriority": mode } });
        (mode.to_owned(), apple(&apns, more))
    };
    let mut rig = Rig::start(&ca, modules(["voip", "auto"].map(mode)), &[]);
    for (module, push_type) in [("voip", "voip"), ("auto", "alert")] {
        let seen = apns.count();
        for (id, verdict) in [("1", RESULT), ("2", REFUSED), ("3", REFUSED)] {
            rig.link.send(tigase_call_publish(id, &token(1), Some(module)));
            assert_eq!(rig.verdict(id), verdict, "{module}");
        }
        let requests = apns.requests();
        assert_eq!(requests.len(), seen + 1);
        assert_eq!(requests[seen].header("apns-push-type"), Some(push_type));
        assert_eq!(requests[seen].header("apns-priority"), Some("10"));
    }
    assert_eq!(
        rig.push("auto", &token(1)),
        RESULT,
        "a message has a window of its own"
    );
    assert_eq!(apns.count(), 3);
}

#[test]
fn every_kind_of_certificate_file_works() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).client_auth(ClientAuth::Required).start();
    let kinds = ["aes", "3des", "rc2"];
    let module = |kind: &&'static str| {
        let file = fixture(&format!("{kind}.p12"));
        let password = if *kind == "rc2" {
            "certPasswordFile"
        } else {
            "certPassword"
        };
        let value = if *kind == "rc2" { "password" } else { "test" };
        let keys = json!({ "apns": { "certFilePath": file, "certKeyFilePath": null, password: value } });
        (*kind, apple(&apns, keys))
    };
    let mut rig = Rig::start(&ca, modules(kinds.iter().map(module)), &[("password", "test\n")]);
    for kind in kinds {
        assert_eq!(rig.push(kind, &token(1)), RESULT, "{kind}");
    }
    assert!(apns.requests().iter().all(|request| request.client_cert));
    assert_eq!(
        (apns.count(), apns.connections(), apns.failed_handshakes()),
        (3, 3, 0)
    );
    rig.assert_discreet(&tokens(0..5));
}

#[test]
fn modules_with_one_key_share_one_provider_token() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let (key, other_key) = (ApnsKey::generate(), ApnsKey::generate());
    let topic = |topic: &str| json!({ "apns": { "topic": topic } });
    let other_team = json!({ "apns": { "teamId": "OTHERTEAM1" } });
    let other = json!({ "apns": { "tokenKeyFilePath": "other.p8" } });
    let all = modules([
        ("one", by_token(&apns, topic("org.example.one"))),
        ("two", by_token(&apns, topic("org.example.two"))),
        ("team", by_token(&apns, other_team)),
        ("other", by_token(&apns, other)),
    ]);
    let files = [("key.p8", key.p8()), ("other.p8", other_key.p8())];
    let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
    let before = now();
    let mut rig = Rig::start(&ca, all, &files);
    for module in ["one", "two", "team", "other", "one"] {
        assert_eq!(rig.push(module, &token(apns.count())), RESULT);
    }
    let requests = apns.wait_for(5, LONG);
    let sent: Vec<_> = requests
        .iter()
        .map(|request| request.header("authorization").unwrap())
        .collect();
    assert_eq!(sent[0], sent[1], "one key and team, one token");
    assert_eq!(sent[0], sent[4]);
    assert!(sent[0] != sent[2] && sent[0] != sent[3]);
    let topics: Vec<_> = requests
        .iter()
        .map(|request| request.header("apns-topic").unwrap())
        .collect();
    assert_eq!(topics[..2], ["org.example.one", "org.example.two"]);
    assert!(requests.iter().all(|request| !request.client_cert));

    let jwt = key.verify(sent[0]).unwrap();
    assert_eq!(
        jwt.header,
        json!({ "alg": "ES256", "kid": "KEY1234567", "typ": jwt.header["typ"] })
    );
    assert_eq!(jwt.claims["iss"], "TEAM123456");
    let issued = jwt.claims["iat"].as_u64().unwrap();
    assert!((before - 1..=now() + 1).contains(&issued), "{issued}");
    assert_eq!(key.verify(sent[2]).unwrap().claims["iss"], "OTHERTEAM1");
    assert!(key.verify(sent[3]).is_err());
    other_key.verify(sent[3]).unwrap();
    let secrets = sent
        .iter()
        .map(|jwt| jwt.trim_start_matches("bearer ").to_owned());
    rig.assert_discreet(&secrets.collect::<Vec<_>>());
}

/// Apple calls a token expired that we made a second ago: our clock is wrong, or Apple's. A new one within 20
/// minutes would be refused as well, as `TooManyProviderTokenUpdates`.
#[test]
fn a_provider_token_is_not_renewed_within_20_minutes() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let key = ApnsKey::generate();
    let mut rig = Rig::start(
        &ca,
        modules([("m", by_token(&apns, json!({})))]),
        &[("key.p8", &key.p8())],
    );
    apns.answer_with(|_| Answer::reason(403, "ExpiredProviderToken"));
    let (verdict, took) = rig.timed("m", &token(1));
    assert_eq!(verdict, UNAVAILABLE);
    assert!(took < 5 * SECOND, "{took:?}");
    assert_eq!(rig.push("m", &token(2)), UNAVAILABLE);
    assert_eq!(apns.count(), 1, "the module pauses");
    rig.daemon.wait_for_log("403 ExpiredProviderToken", LONG);
}

/// Our clock is two hours behind Apple's, which calls the provider token invalid. When the clock is set, the next token is
/// signed at once, and then no other one, because its time cannot be what is wrong.
#[test]
fn a_provider_token_is_renewed_when_the_clock_was_set() {
    let two_hours = 2 * 3_600;
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let key = Arc::new(ApnsKey::generate());
    let verifier = Arc::clone(&key);
    apns.answer_with(move |request| {
        let jwt = verifier.verify(request.header("authorization").unwrap()).unwrap();
        let issued = jwt.claims["iat"].as_u64().unwrap();
        if (now() + two_hours).abs_diff(issued) < 3_600 {
            Answer::Normal
        } else {
            Answer::reason(403, "InvalidProviderToken")
        }
    });
    // They share the provider token; what pauses one of them does not pause the others.
    let all = ["a", "b", "c"].map(|name| (name, by_token(&apns, json!({}))));
    let mut clock = None;
    let mut rig = Rig::launch(&ca, modules(all), &[("key.p8", &key.p8())], |builder| {
        let (daemon, started) = Clock::start(builder, Moves::TimeOfDay);
        clock = Some(started);
        daemon
    });
    let tokens = || {
        let requests = apns.requests();
        let tokens = requests
            .iter()
            .map(|request| request.header("authorization").unwrap().to_owned());
        tokens.collect::<HashSet<_>>().len()
    };
    assert_eq!(rig.push("a", &token(1)), UNAVAILABLE);
    assert_eq!(tokens(), 1);
    clock.unwrap().advance(Duration::from_secs(two_hours));
    assert_eq!(rig.push("b", &token(1)), RESULT);
    assert_eq!(tokens(), 2);
    apns.answer_with(|_| Answer::reason(403, "InvalidProviderToken"));
    for module in ["b", "c"] {
        assert_eq!(rig.push(module, &token(2)), UNAVAILABLE);
    }
    assert_eq!(tokens(), 2, "a new one would not help");
}

#[test]
fn what_is_not_a_token_of_apples_reaches_no_url() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = apple(&apns, json!({ "is_default_module": true }));
    let mut rig = Rig::start(&ca, modules([("m", module)]), &[]);
    let (long, odd) = ("ab".repeat(101), "a".repeat(63));
    let mut nodes = vec![
        odd.as_str(),
        "a",
        "../../3/device/x",
        "dCXr7fTpTm2yXGVYTXJb6r:APA91bHun4MxP5egoKMwt2KZF",
        &long,
    ];
    let spaced = format!(" {}", token(1));
    nodes.push(&spaced);
    for node in nodes {
        for module in [Some("m"), Some("default"), None] {
            rig.link.send(ejabberd_publish("x", node, module, true));
            assert_eq!(
                rig.verdict("x"),
                OVERLOAD,
                "{node} at {module:?}: Apple may have a new form of tokens"
            );
        }
    }
    assert_eq!(apns.count(), 0);
    for node in [token(1).to_uppercase(), "ab".repeat(100), "ab".to_owned()] {
        assert_eq!(rig.push("m", &node), RESULT, "{node}");
    }
}

#[test]
fn part_of_a_blacklist_is_enough() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let short =
        json!({ "blacklist": { "invalidToken": { "initalBlocking": "5s" }, "blockExtension": "0s" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, short))]), &[]);
    rig.earn_trust("m", token);
    apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push("m", &token(1)), DEAD);
    assert_eq!(rig.push("m", &token(1)), DEAD);
    assert_eq!(apns.count(), TRUSTED + 1);
    std::thread::sleep(5 * SECOND + SECOND / 10);
    assert_eq!(rig.push("m", &token(1)), RESULT, "the block has ended");
}

/// What a publish after the one that met the answer comes to, when the provider is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is sent.
    Sent,
    /// It is answered so without asking the provider.
    Unasked(&'static str),
}

/// (the answers, the verdict, how many requests that took, the next publish)
type Row = (Vec<Answer>, &'static str, usize, Next);

/// All answers that Apple documents or has been seen to give, each in a module of its own because some pause it.
fn rows() -> Vec<Row> {
    use Next::{Sent, Unasked};
    let reason = |status, reason: &str| vec![Answer::reason(status, reason)];
    let later = |status, reason: &str| vec![Answer::reason(status, reason).header("retry-after", "3600")];
    let mut rows: Vec<Row> = vec![
        (vec![], RESULT, 1, Sent),
        // None of these modules has had a success yet: their first word about a token is not believed.
        (
            vec![Answer::reason_since(410, "Unregistered", 1_700_000_000_000)],
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (reason(410, "Unregistered"), UNAVAILABLE, 1, Unasked(UNAVAILABLE)),
        (reason(410, "ExpiredToken"), UNAVAILABLE, 1, Unasked(UNAVAILABLE)),
        (
            reason(400, "BadDeviceToken"),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (
            reason(400, "DeviceTokenNotForTopic"),
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
        (reason(410, "NewFangled"), UNAVAILABLE, 1, Unasked(UNAVAILABLE)),
        (reason(429, "TooManyRequests"), RESULT, 1, Unasked(REFUSED)),
        (reason(429, "NewFangled"), RESULT, 1, Unasked(REFUSED)),
        (reason(413, "PayloadTooLarge"), RESULT, 2, Sent),
        (
            vec![Answer::reason(413, "PayloadTooLarge"), Answer::raw(413, "")],
            UNAVAILABLE,
            2,
            Sent,
        ),
        (reason(400, "IdleTimeout"), RESULT, 2, Sent),
        (reason(400, "NewFangled"), UNAVAILABLE, 1, Unasked(UNAVAILABLE)),
        (vec![Answer::raw(400, "<html>")], RESULT, 2, Sent),
        (vec![Answer::raw(410, "")], RESULT, 2, Sent),
        (reason(500, "InternalServerError"), RESULT, 2, Sent),
        (reason(503, "ServiceUnavailable"), RESULT, 2, Sent),
        (reason(503, "Shutdown"), RESULT, 2, Sent),
        (
            vec![Answer::raw(502, "<html>Bad Gateway</html>")],
            RESULT,
            2,
            Sent,
        ),
        (vec![Answer::status(302)], RESULT, 2, Sent),
        (later(500, "InternalServerError"), UNAVAILABLE, 1, Sent),
        (later(503, "ServiceUnavailable"), UNAVAILABLE, 1, Sent),
        (later(503, "Shutdown"), UNAVAILABLE, 1, Sent),
        (later(599, "NewFangled"), UNAVAILABLE, 1, Sent),
        (
            vec![Answer::raw(407, "proxy")],
            UNAVAILABLE,
            1,
            Unasked(UNAVAILABLE),
        ),
    ];
    let misconfigured = [
        "BadCollapseId",
        "BadExpirationDate",
        "BadMessageId",
        "BadPriority",
        "BadTopic",
        "DuplicateHeaders",
        "InvalidPushType",
        "MissingDeviceToken",
        "MissingTopic",
        "PayloadEmpty",
        "TopicDisallowed",
    ];
    rows.extend(misconfigured.map(|name| (reason(400, name), UNAVAILABLE, 1, Sent)));
    rows.extend(
        [
            (403, "Forbidden"),
            (404, "BadPath"),
            (404, "NewFangled"),
            (405, "MethodNotAllowed"),
        ]
        .map(|(status, name)| (reason(status, name), UNAVAILABLE, 1, Sent)),
    );
    let credentials = [
        "BadCertificate",
        "BadCertificateEnvironment",
        "BadEnvironmentKeyIdInToken",
        "BadEnvironmentKeyInToken",
        "ExpiredProviderToken",
        "InvalidProviderToken",
        "MissingProviderToken",
        "UnrelatedKeyIdInToken",
        "NewFangled",
    ];
    rows.extend(credentials.map(|name| (reason(403, name), UNAVAILABLE, 1, Unasked(UNAVAILABLE))));
    rows.push((
        reason(429, "TooManyProviderTokenUpdates"),
        UNAVAILABLE,
        1,
        Unasked(UNAVAILABLE),
    ));
    rows
}

#[test]
fn every_answer_of_apples() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let rows = rows();
    let scripts = Scripts::default();
    apns.answer_with({
        let scripts = scripts.clone();
        move |request| scripts.next(&request.token)
    });
    let module = |number: usize| {
        let topic = json!({ "apns": { "additionalData": { "n": number } } });
        (format!("m{number}"), apple(&apns, merged(unlimited(), topic)))
    };
    let mut rig = Rig::start(&ca, modules((0..rows.len()).map(module)), &[]);
    let mut ids = Vec::new();
    for (number, (answers, ..)) in rows.iter().enumerate() {
        scripts.set(&token(number), answers.clone());
        ids.push(rig.publish(&format!("m{number}"), &token(number)));
    }
    let of = |number: usize| -> Vec<ApnsRequest> {
        apns.requests()
            .into_iter()
            .filter(|request| request.token == token(number))
            .collect()
    };
    for (number, (answers, verdict, requests, next)) in rows.iter().enumerate() {
        assert_eq!(rig.verdict(&ids[number]), *verdict, "{answers:?}");
        let seen = of(number);
        assert_eq!(seen.len(), *requests, "{answers:?}");
        assert!(
            seen.iter()
                .all(|r| r.header("apns-id") == seen[0].header("apns-id")),
            "{answers:?}"
        );
        if matches!(answers.first(), Some(Answer::Reply(reply)) if reply.status == 413) {
            assert_eq!(
                (&seen[0].body["n"], &seen[1].body["n"]),
                (&json!(number), &Value::Null),
                "the minimal form"
            );
        }
        let module = format!("m{number}");
        match next {
            Next::Sent => {
                assert_eq!(rig.push(&module, &token(number)), RESULT, "{answers:?}");
                assert_eq!(of(number).len(), requests + 1, "{answers:?}");
            }
            Next::Unasked(verdict) => {
                assert_eq!(rig.push(&module, &token(number)), *verdict, "{answers:?}");
                assert_eq!(of(number).len(), *requests, "{answers:?}");
            }
        }
    }
    rig.assert_discreet(&tokens(0..rows.len()));
}

/// With the wrong environment in the settings every token is a `BadDeviceToken`.
#[test]
fn a_wrong_setting_costs_no_device_its_registration() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, unlimited()))]), &[]);
    apns.answer_with(|_| Answer::reason(400, "BadDeviceToken"));
    for _ in 0..2 {
        let verdicts = rig.push_all("m", &tokens(0..50));
        assert!(
            verdicts.iter().all(|verdict| verdict == UNAVAILABLE),
            "{verdicts:?}"
        );
    }
    assert_eq!(apns.count(), 50, "each is asked for six times an hour at most");
    rig.daemon.wait_for_log("check environment, topic", LONG);
    apns.answer_normally();
    let verdicts = rig.push_all("m", &tokens(50..100));
    assert!(
        verdicts.iter().all(|verdict| verdict == RESULT),
        "all live on: {verdicts:?}"
    );
}

/// A wrong one may be so because of our settings: it is not dead at the first word.
#[test]
fn among_successes_a_gone_token_is_dead_and_neither_it_nor_a_wrong_one_is_asked_for_again() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, unlimited()))]), &[]);
    rig.earn_trust("m", token);
    for (number, status, reason, verdict) in [
        (5, 410, "Unregistered", DEAD),
        (6, 400, "BadDeviceToken", UNAVAILABLE),
        (7, 400, "DeviceTokenNotForTopic", UNAVAILABLE),
    ] {
        apns.queue([Answer::reason(status, reason)]);
        for _ in 0..5 {
            assert_eq!(rig.push("m", &token(number)), verdict, "{reason}");
        }
    }
    assert_eq!(
        apns.count(),
        TRUSTED + 3,
        "the block list answers without asking Apple"
    );
    assert_eq!(rig.push("m", &token(0)), RESULT);
}

#[test]
fn a_busy_device_gets_its_push_later() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let limit = json!({ "ratelimit": { "ratelimitTime": "100ms", "hardRatelimitTime": "3s" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, limit))]), &[]);
    apns.queue([Answer::reason(429, "TooManyRequests").header("retry-after", "3600")]);
    let began = Instant::now();
    assert_eq!(rig.push("m", &token(1)), RESULT, "it is held");
    assert_eq!(rig.push("m", &token(1)), REFUSED);
    assert_eq!(
        rig.push("m", &token(2)),
        RESULT,
        "another device is not concerned"
    );
    let requests = apns.wait_for(3, LONG);
    let pushes: Vec<_> = requests
        .iter()
        .filter(|request| request.token == token(1))
        .collect();
    let later = pushes[1].at - began;
    assert!(later >= 3 * SECOND, "{later:?}");
    assert_eq!(pushes[0].header("apns-id"), pushes[1].header("apns-id"));
}
