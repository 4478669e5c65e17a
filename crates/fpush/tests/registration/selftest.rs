//! The two commands with which a user finds out why a phone stays silent, by all rules of XEP-0050, and for clients that do not
//! keep to them.

use fpush_testkit::{Answer, Command, Form, Reply};
use serde_json::json;

use crate::rig::{ALICE, LONG, MALLORY, RESULT, Rig, TOO_MANY, apple};

const PUSH: &str = "test-push";
const STATUS: &str = "push-status";
const BAD: &str = "modify/bad-request";
const COMMANDS: &str = "http://jabber.org/protocol/commands";

/// Sends a command without a form, as clients do first.
#[track_caller]
fn first(rig: &mut Rig, from: &str, node: &str) -> Form {
    Form::of(&request(rig, from, node, ""))
}

#[track_caller]
fn request(rig: &mut Rig, from: &str, node: &str, attributes: &str) -> Reply {
    let id = rig.id();
    rig.link.send(format!(
        "<iq type='set' from='{from}' to='push.localhost' id='{id}'><command xmlns='{COMMANDS}' node='{node}' \
         {attributes}/></iq>"
    ));
    rig.link.reply_to(&id, LONG)
}

/// Sends the form of a session.
#[track_caller]
fn submit(rig: &mut Rig, from: &str, session: &str, action: &str, fields: &[(&str, &str)]) -> Reply {
    rig.send(|id| {
        Command::new(id, PUSH, fields)
            .from(from)
            .session(session)
            .action(action)
    })
}

/// One test push, in one step. Returns how it ended.
#[track_caller]
fn test_push(rig: &mut Rig, from: &str, fields: &[(&str, &str)]) -> String {
    rig.form(from, PUSH, fields).value("outcome").to_owned()
}

/// What stands between the tags of `note`.
#[track_caller]
fn note(reply: &Reply) -> &str {
    let (_, rest) = reply.raw.split_once("<note").expect("a note");
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once("</note>").unwrap().0
}

/// The condition of XEP-0050 in an error.
#[track_caller]
fn more(reply: &Reply) -> &str {
    let last = reply.error_children.last().unwrap();
    assert_eq!(last.namespace, COMMANDS, "{}", reply.raw);
    &last.name
}

/// The device that somebody may choose in the form.
fn choices(raw: &str) -> Vec<String> {
    let options = raw.split("<option").skip(1);
    options
        .map(|option| {
            let (_, rest) = option.split_once("<value>").unwrap();
            rest.split_once("</value>").unwrap().0.to_owned()
        })
        .collect()
}

#[test]
fn a_user_sees_a_test_push_arrive() {
    let mut rig = Rig::with(json!({ "rateLimit": "1h" }));
    let secret = rig.register(ALICE, "the node", &apple(1));
    let reply = request(&mut rig, ALICE, PUSH, "action='execute'");
    let form = Form::of(&reply);
    assert_eq!((form.status.as_str(), form.kind.as_str()), ("executing", "form"));
    assert_eq!(
        form.names(),
        ["FORM_TYPE", "device", "node", "secret", "pushModule", "token"]
    );
    assert!(
        reply
            .raw
            .contains("<actions execute='complete'><complete/></actions>"),
        "{}",
        reply.raw
    );
    let [device] = choices(&reply.raw).try_into().unwrap();
    for private in ["the node", &secret, &apple(1)] {
        assert!(!reply.raw.contains(private), "{private}");
    }

    let reply = submit(&mut rig, ALICE, &form.session, "complete", &[("device", &device)]);
    let answer = Form::of(&reply);
    assert_eq!(
        (answer.status.as_str(), answer.kind.as_str()),
        ("completed", "result")
    );
    assert_eq!(
        (answer.value("outcome"), answer.value("module")),
        ("accepted", "ios")
    );
    assert!(answer.value("next").contains("battery saving"), "{answer:?}");
    assert!(
        note(&reply).contains("the provider accepted the push (a visible push)"),
        "{}",
        note(&reply)
    );
    let request = &rig.apns.wait_for(1, LONG)[0];
    assert_eq!(
        (request.token.as_str(), request.header("apns-push-type")),
        (&*apple(1), Some("alert"))
    );

    // It has taken the slot of its device, and is not repeated when the time of that has come.
    assert_eq!(test_push(&mut rig, ALICE, &[("device", &device)]), "refused");
    assert_eq!(rig.push("the node", &secret), RESULT, "held");
    assert_eq!(rig.apns.count(), 1);
    for private in ["the node", &secret, &apple(1)] {
        assert!(!reply.raw.contains(private), "{private}");
    }
    rig.assert_discreet(&["the node", &secret, &apple(1), "alice"]);
}

#[test]
fn a_device_is_named_by_node_and_secret_or_by_module_and_token() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    // Any sender that knows the secret may push: servers do nothing else.
    for from in [ALICE, MALLORY] {
        assert_eq!(
            test_push(&mut rig, from, &[("node", "n"), ("secret", &secret)]),
            "accepted"
        );
    }
    let token = apple(2);
    let by_token = [("pushModule", "siskin"), ("token", token.as_str())];
    assert_eq!(test_push(&mut rig, MALLORY, &by_token), "accepted");
    let requests = rig.apns.wait_for(3, LONG);
    assert_eq!(requests[2].header("apns-topic"), Some("org.example.siskin"));
    for (fields, outcome) in [
        (
            [("pushModule", "nobody"), ("token", token.as_str())],
            "unknown_module",
        ),
        ([("pushModule", "ios"), ("token", "no token")], "token_invalid"),
    ] {
        assert_eq!(test_push(&mut rig, ALICE, &fields), outcome);
    }
    assert_eq!(rig.apns.count(), 3);
    rig.assert_discreet(&[&token, "no token"]);
}

/// Nobody learns whether a device is there, and nobody's phone rings.
#[test]
fn another_ones_device_is_like_none() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let reply = request(&mut rig, ALICE, PUSH, "");
    let [device] = choices(&reply.raw).try_into().unwrap();
    assert!(choices(&request(&mut rig, MALLORY, PUSH, "").raw).is_empty());
    let mut told = Vec::new();
    for fields in [
        vec![("device", device.as_str())],
        vec![("device", "00000000")],
        vec![("node", "n")],
        vec![("node", "n"), ("secret", "a guess")],
        vec![("node", "nothing"), ("secret", "a guess")],
    ] {
        let reply = rig.execute(MALLORY, PUSH, &fields);
        let form = Form::of(&reply);
        assert_eq!(form.value("outcome"), "unknown_device", "{fields:?}");
        told.push((form.fields.clone(), note(&reply).to_owned()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(rig.apns.count(), 0);
    let status = request(&mut rig, MALLORY, STATUS, "");
    assert!(!status.raw.contains("<item"), "{}", status.raw);
    assert_eq!(rig.push("n", &secret), RESULT);
}

/// Users try again and again what does not work: it must not be held against anybody.
#[test]
fn what_the_provider_says_of_test_pushes_counts_for_nobody() {
    let mut rig = Rig::start();
    rig.earn_trust("ios", apple);
    let before = rig.apns.count();
    let secret = rig.register(ALICE, "n", &apple(1));
    rig.apns
        .answer_with(|_| Answer::json(410, &json!({ "reason": "Unregistered" })));
    for number in 0..10 {
        let reply = rig.execute(
            &format!("user{number}@a.example/x"),
            PUSH,
            &[("pushModule", "ios"), ("token", &apple(100 + number))],
        );
        let form = Form::of(&reply);
        assert_eq!(
            (form.value("outcome"), form.value("reason")),
            ("not_accepted", "Unregistered")
        );
        assert!(reply.raw.contains("<note type='warn'>"), "{}", reply.raw);
        assert!(form.value("next").contains("register again"), "{form:?}");
    }
    for _ in 0..3 {
        let tried = test_push(&mut rig, ALICE, &[("node", "n"), ("secret", &secret)]);
        assert_eq!(tried, "not_accepted");
    }
    assert_eq!(rig.apns.count(), before + 13, "none was blocked");
    rig.apns.answer_normally();
    assert_eq!(rig.push("n", &secret), RESULT);
    assert_eq!(rig.export().len(), 1);
    let log = rig.daemon.log();
    assert!(!log.contains("rejects too many"), "{log}");
}

#[test]
fn a_session_is_one_senders_and_ends() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let fields = [("node", "n"), ("secret", secret.as_str())];
    let form = first(&mut rig, ALICE, PUSH);
    let session = form.session.as_str();
    for (from, session) in [
        (MALLORY, session),
        ("alice@a.example/tablet", session),
        (ALICE, "another"),
        (ALICE, "' or 1=1"),
    ] {
        for action in ["complete", "next", "execute", "cancel"] {
            let reply = submit(&mut rig, from, session, action, &fields);
            assert_eq!(
                (reply.verdict().as_str(), more(&reply)),
                (BAD, "bad-sessionid"),
                "{from} {session}"
            );
        }
    }
    let reply = submit(&mut rig, ALICE, session, "prev", &fields);
    assert_eq!((reply.verdict().as_str(), more(&reply)), (BAD, "bad-action"));
    assert_eq!(rig.apns.count(), 0);
    // A mistake ends nothing.
    for (wrong, text) in [
        (vec![], "name a device"),
        (vec![("node", "")], "name a device"),
        (vec![("secret", "s")], "field node is missing"),
        (vec![("pushModule", "ios")], "field token is missing"),
        (vec![("node", "n"), ("token", "t")], "name a device"),
        (vec![("device", "d"), ("node", "n")], "name a device"),
    ] {
        let reply = submit(&mut rig, ALICE, session, "complete", &wrong);
        assert_eq!((reply.verdict().as_str(), more(&reply)), (BAD, "bad-payload"));
        assert!(reply.text().unwrap().contains(text), "{}", reply.raw);
    }
    let done = submit(&mut rig, "alice@a.example/phone", session, "complete", &fields);
    assert_eq!(Form::of(&done).value("outcome"), "accepted");
    let again = submit(&mut rig, ALICE, session, "complete", &fields);
    assert_eq!(more(&again), "bad-sessionid");
}

#[test]
fn commands_are_canceled_and_what_nobody_knows_is_refused() {
    let mut rig = Rig::start();
    for (node, open) in [(PUSH, true), (STATUS, false)] {
        let canceled = Form::of(&request(&mut rig, ALICE, node, "action='cancel'"));
        assert_eq!(
            (canceled.status.as_str(), canceled.session.as_str()),
            ("canceled", "")
        );
        for (action, condition) in [
            ("prev", "bad-action"),
            ("dance", "malformed-action"),
            ("", "malformed-action"),
        ] {
            let reply = request(&mut rig, ALICE, node, &format!("action='{action}'"));
            assert_eq!((reply.verdict().as_str(), more(&reply)), (BAD, condition));
        }
        let form = first(&mut rig, ALICE, node);
        let attributes = format!("action='cancel' sessionid='{}'", form.session);
        let reply = request(&mut rig, ALICE, node, &attributes);
        if open {
            let canceled = Form::of(&reply);
            assert_eq!(
                (canceled.status.as_str(), canceled.session),
                ("canceled", form.session)
            );
            assert_eq!(
                more(&request(&mut rig, ALICE, node, &attributes)),
                "bad-sessionid"
            );
        } else {
            assert_eq!(
                (form.status.as_str(), more(&reply)),
                ("completed", "bad-sessionid")
            );
        }
    }
    // A session is one command's.
    let form = first(&mut rig, ALICE, PUSH);
    let other = request(&mut rig, ALICE, STATUS, &format!("sessionid='{}'", form.session));
    assert_eq!(more(&other), "bad-sessionid");
    let long = "t".repeat(5_000);
    let reply = rig.execute(ALICE, PUSH, &[("token", &long)]);
    assert_eq!((reply.verdict().as_str(), more(&reply)), (BAD, "bad-payload"));
    assert_eq!(rig.apns.count(), 0);
}

#[test]
fn a_user_sees_what_became_of_the_pushes() {
    let mut rig = Rig::start();
    let reply = request(&mut rig, ALICE, STATUS, "action='execute'");
    let form = Form::of(&reply);
    assert_eq!(
        (form.status.as_str(), form.kind.as_str()),
        ("completed", "result")
    );
    assert_eq!(form.names(), ["FORM_TYPE"]);
    assert!(
        note(&reply).contains("No push of your server has come here"),
        "{}",
        note(&reply)
    );
    assert!(
        note(&reply).contains("No device of yours is registered here"),
        "{}",
        note(&reply)
    );

    let secret = rig.register(ALICE, "the node", &apple(1));
    let others = rig.register(MALLORY, "another node", &apple(2));
    let fields = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &*apple(3)),
    ];
    let tigase = rig
        .form(ALICE, "register-device", &fields)
        .value("node")
        .to_owned();
    for _ in 0..3 {
        assert_eq!(rig.push("the node", &secret), RESULT);
    }
    assert_ne!(rig.push("the node", "a guess"), RESULT);
    rig.apns
        .queue([Answer::json(400, &json!({ "reason": "BadDeviceToken" }))]);
    assert_ne!(rig.push("another node", &others), RESULT);

    let reply = request(&mut rig, "alice@a.example/tablet", STATUS, "");
    let form = Form::of(&reply);
    assert_eq!(
        (
            form.value("accepted"),
            form.value("unknown_device"),
            form.value("token_blocked")
        ),
        ("3", "1", "1")
    );
    assert!(note(&reply).contains("accepted 3"), "{}", note(&reply));
    let items: Vec<_> = reply.raw.split("<item>").skip(1).collect();
    assert_eq!(items.len(), 2, "{}", reply.raw);
    let of = |module: &str| {
        let value = format!("<field var='module'><value>{module}</value>");
        *items.iter().find(|item| item.contains(&value)).unwrap()
    };
    for column in [
        "last-push",
        "last-error",
        "registered",
        "renewed",
        "last-answer",
        "state",
    ] {
        assert!(of("ios").contains(&format!("var='{column}'")), "{}", reply.raw);
    }
    assert!(of("ios").contains(" accepted</value>"), "{}", of("ios"));
    assert!(
        of("siskin").contains("<field var='last-push'><value>never</value>"),
        "{}",
        of("siskin")
    );
    for private in [
        "the node",
        "another node",
        &tigase,
        &secret,
        &others,
        &apple(1),
        &apple(2),
        &apple(3),
    ] {
        assert!(!reply.raw.contains(private), "{private}");
    }

    let reply = request(&mut rig, MALLORY, STATUS, "");
    assert!(
        reply.raw.contains("BadDeviceToken"),
        "the reason of the own device: {}",
        reply.raw
    );
    assert!(reply.raw.contains("nothing is sent for"), "{}", reply.raw);
    // Also after a push that was not sent for it, and in the answer to a test push.
    assert_ne!(rig.push("another node", &others), RESULT);
    let reply = request(&mut rig, MALLORY, STATUS, "");
    assert!(
        reply.raw.contains("token_blocked (BadDeviceToken)"),
        "{}",
        reply.raw
    );
    let session = first(&mut rig, MALLORY, PUSH).session;
    let fields = [("node", "another node"), ("secret", others.as_str())];
    let reply = submit(&mut rig, MALLORY, &session, "complete", &fields);
    let form = Form::of(&reply);
    assert_eq!(
        (form.value("outcome"), form.value("reason")),
        ("token_blocked", "BadDeviceToken")
    );
    assert!(
        note(&reply).contains("The provider's reason: BadDeviceToken. Open the app"),
        "{}",
        note(&reply)
    );
    let reply = request(&mut rig, "alice@b.example/phone", STATUS, "");
    assert!(
        note(&reply).contains("No push of your server"),
        "{}",
        note(&reply)
    );
    rig.assert_discreet(&["the node", "another node", &tigase, &secret]);
}

#[test]
fn a_flood_of_one_domain_is_refused_and_keeps_nobody_else_waiting() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let session = first(&mut rig, ALICE, PUSH).session;
    let flood: String = (0..3_000)
        .map(|number| {
            let from = format!("u{number}@x{}.evil.org/r", number % 7);
            let fields = [("pushModule", "ios"), ("token", &*apple(number))];
            Command::new(&format!("flood-{number}"), PUSH, &fields)
                .from(&from)
                .to_string()
        })
        .collect();
    rig.link.send(flood);
    let reply = submit(
        &mut rig,
        ALICE,
        &session,
        "complete",
        &[("node", "n"), ("secret", &secret)],
    );
    assert_eq!(Form::of(&reply).value("outcome"), "accepted");
    let refused = (0..3_000).filter(|number| {
        let reply = rig.link.reply_to(&format!("flood-{number}"), LONG);
        reply.verdict() == TOO_MANY
    });
    assert!(refused.count() >= 2_800);
    assert!(rig.apns.count() <= 201, "{}", rig.apns.count());
    // One user as well, whose domain has sent little.
    let verdicts: Vec<_> = (0..40)
        .map(|_| request(&mut rig, "one@c.example/r", STATUS, "").verdict())
        .collect();
    assert!(verdicts.contains(&TOO_MANY.to_owned()), "{verdicts:?}");
    assert!(request(&mut rig, "two@c.example/r", STATUS, "").is_result());
}

#[test]
fn what_is_not_kept_is_not_shown() {
    let mut rig = Rig::start();
    rig.change_all_settings(|settings| settings["monitoring"]["senders"] = json!("off"));
    rig.stop();
    rig.start_again();
    let secret = rig.register(ALICE, "n", &apple(1));
    assert_eq!(rig.push("n", &secret), RESULT);
    let reply = request(&mut rig, ALICE, STATUS, "");
    assert!(note(&reply).contains("is not kept here"), "{}", note(&reply));
    assert!(!reply.raw.contains("var='accepted'"), "{}", reply.raw);
    assert_eq!(reply.raw.matches("<item>").count(), 1);
}

#[test]
fn what_a_module_or_the_database_cannot_do_is_said() {
    let shadow = json!({ "ios": { "shadow": true } });
    let mut rig = Rig::of(json!({}), shadow);
    let fields = [("pushModule", "ios"), ("token", &*apple(1))];
    assert_eq!(test_push(&mut rig, ALICE, &fields), "unwanted");
    assert_eq!(rig.apns.count(), 0);
    rig.apns
        .queue([Answer::json(503, &json!({ "reason": "ServiceUnavailable" }))]);
    let reply = rig.execute(ALICE, PUSH, &[("pushModule", "siskin"), ("token", &apple(1))]);
    let form = Form::of(&reply);
    assert_eq!(
        (form.value("outcome"), form.value("reason")),
        ("not_accepted", "ServiceUnavailable")
    );
    assert!(form.value("next").contains("try again"), "{form:?}");
}
