//! Every dialect, from the registration to the push and to its end.

use std::collections::HashSet;

use fpush_testkit::{
    Command, Form,
    publish::{metronome_publish, tigase_publish},
};
use serde_json::json;

use crate::rig::{ALICE, LONG, MALLORY, MISSING, RESULT, Rig, apple, google, is_random};

/// Nothing, and all that goes forward: each executes a command.
const ACTIONS: [Option<&str>; 4] = [None, Some("execute"), Some("complete"), Some("next")];

fn command(node: &str, fields: &[(&str, &str)], action: Option<&str>) -> impl FnOnce(&str) -> Command {
    move |id| {
        let command = Command::new(id, node, fields);
        match action {
            Some(action) => command.action(action),
            None => command,
        }
    }
}

/// Checks everything of an answer but the values of its fields, which are returned.
#[track_caller]
fn check(form: &Form, node: &str, status: &str, kind: &str, fields: &[(&str, &str)]) -> Vec<String> {
    assert_eq!(
        (form.node.as_str(), form.status.as_str(), form.kind.as_str()),
        (node, status, kind)
    );
    assert_eq!(form.session.len(), 36, "{form:?}");
    let found: Vec<_> = form
        .fields
        .iter()
        .map(|(name, kind, _)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(found, fields);
    fields
        .iter()
        .map(|(name, _)| form.value(name).to_owned())
        .collect()
}

const JID: (&str, &str) = ("jid", "jid-single");
const NODE: (&str, &str) = ("node", "text-single");
const SECRET: (&str, &str) = ("secret", "text-single");

#[test]
fn the_first_dialect_answers_as_its_clients_expect() {
    let mut rig = Rig::start();
    for (number, action) in ACTIONS.into_iter().enumerate() {
        let (node, token) = (format!("node {number} of 'mine'"), apple(number));
        let fields = [("type", "apns"), ("node", &node), ("token", &token)];
        let reply = rig.send(command("v1-register-push", &fields, action));
        let form = Form::of(&reply);
        let values = check(
            &form,
            "v1-register-push",
            "complete",
            "form",
            &[JID, NODE, SECRET],
        );
        assert_eq!(values[..2], ["push.localhost", &node]);
        assert!(is_random(&values[2]));
        rig.expect_apple(&node, Some(&values[2]), "org.example.ios", &token);

        let reply = rig.send(command("v1-unregister-push", &fields[..2], action));
        let form = Form::of(&reply);
        let gone = check(&form, "v1-unregister-push", "complete", "form", &[JID, NODE]);
        assert_eq!(gone, values[..2]);
        assert_eq!(rig.push(&node, &values[2]), MISSING);
        let again = rig.send(command("v1-unregister-push", &fields[..2], action));
        assert_eq!(again.verdict(), MISSING);
        rig.assert_discreet(&[&node, "node 0", &token, &values[2], "alice"]);
    }
    assert_eq!(rig.apns.count(), ACTIONS.len());
    let secret = rig.register(ALICE, "an android", &google(1));
    let data = rig.expect_google("an android", Some(&secret), &google(1));
    assert_eq!(data, json!({}));
}

#[test]
fn the_second_dialect_tells_the_app_which_account_is_meant() {
    let mut rig = Rig::start();
    // `printf 'alice@a.example\0dev-1' | sha1sum`, and so on.
    let (account, channel, other) = (
        "88d1ece36bcc07f55cac62aa41b53a9a0804fbbb",
        "ca266fb82717822aa62b14a73956e1eb2ed38ccf",
        "a13e82bc3cfc51230e4e340d08574ec7a3cd0490",
    );
    let token = google(1);
    let mut nodes = HashSet::new();
    for action in ACTIONS {
        for (id, muc, data) in [
            (("device-id", "dev-1"), None, json!({ "account": account })),
            (("android-id", "and-2"), None, json!({ "account": other })),
            (
                ("device-id", "dev-1"),
                Some("room@muc.a.example"),
                json!({ "account": account, "channel": channel }),
            ),
        ] {
            let muc = muc.map(|muc| ("muc", muc));
            let fields: Vec<_> = [("token", token.as_str()), id].into_iter().chain(muc).collect();
            let form = Form::of(&rig.send(command("register-push-fcm", &fields, action)));
            let values = check(
                &form,
                "register-push-fcm",
                "completed",
                "result",
                &[JID, NODE, SECRET],
            );
            assert_eq!(values[0], "push.localhost");
            assert!(is_random(&values[1]) && is_random(&values[2]) && values[1] != values[2]);
            nodes.insert(values[1].clone());
            assert_eq!(rig.expect_google(&values[1], Some(&values[2]), &token), data);
        }
    }
    assert_eq!(
        nodes.len(),
        3,
        "one for each device and each room, whatever the action"
    );

    let register = |rig: &mut Rig, fields: &[(&str, &str)]| {
        let form = rig.form(ALICE, "register-push-fcm", fields);
        [form.value("node").to_owned(), form.value("secret").to_owned()]
    };
    let device = [("token", token.as_str()), ("device-id", "dev-1")];
    let room = [device[0], device[1], ("muc", "room@muc.a.example")];
    let ([node, secret], [room_node, room_secret]) = (register(&mut rig, &device), register(&mut rig, &room));
    let form = rig.form(ALICE, "unregister-push-fcm", &room[1..]);
    let gone = check(&form, "unregister-push-fcm", "completed", "result", &[JID, NODE]);
    assert_eq!(gone, ["push.localhost", &room_node]);
    assert_eq!(rig.push(&room_node, &room_secret), MISSING);
    assert_eq!(
        rig.push(&node, &secret),
        RESULT,
        "the account itself is still there"
    );
    let older = [("android-id", "dev-1")];
    assert_eq!(rig.form(ALICE, "unregister-push-fcm", &older).value("node"), node);
    assert_eq!(rig.push(&node, &secret), MISSING);
    let again = rig.execute(ALICE, "unregister-push-fcm", &older);
    assert_eq!(again.verdict(), MISSING);
    rig.assert_discreet(&[
        &token, &node, &secret, &room_node, account, channel, "alice", "room@muc", "dev-1", "and-2",
    ]);
}

/// What Conversations sends: it registers an account, then a room of it, and unregisters the room.
#[test]
fn what_conversations_sends_for_a_room_ends_the_room_alone() {
    const SENT: &str = include_str!("../fixtures/unregister-channel.xml");
    let mut rig = Rig::start();
    let stanza = |id: &str| {
        let begin = SENT.match_indices("<iq ").map(|(at, _)| &SENT[at..]);
        let mut stanzas = begin.map(|rest| &rest[..rest.find("</iq>").unwrap() + 5]);
        let found = stanzas.find(|stanza| stanza.contains(&format!("id='{id}'")));
        found.unwrap().replace("push.example.org", "push.localhost")
    };
    let (account, token) = (stanza("q1"), stanza("q1"));
    let token = token.split("<value>").nth(1).unwrap().split('<').next().unwrap();
    let muc = SENT
        .split("<!-- ")
        .find(|part| part.starts_with("<field var='muc'"))
        .unwrap();
    let muc = muc.split(" -->").next().unwrap();
    let room = account
        .replace("id='q1'", "id='q2'")
        .replace("</x>", &format!("{muc}</x>"));
    let mut send = |stanza: String, id: &str| {
        rig.link.send(stanza);
        let reply = rig.link.reply_to(id, LONG);
        assert!(reply.is_result(), "{}", reply.raw);
        Form::of(&reply)
    };
    let [account, room] = [(account, "q1"), (room, "q2")].map(|(stanza, id)| {
        let form = send(stanza, id);
        (form.value("node").to_owned(), form.value("secret").to_owned())
    });
    let data = rig.expect_google(&room.0, Some(&room.1), token);
    let channel = data["channel"].as_str().unwrap();
    rig.link.send(stanza("q3").replace("CHANNEL", channel));
    assert!(rig.link.reply_to("q3", LONG).is_result());
    assert_eq!(rig.push(&room.0, &room.1), MISSING);
    rig.expect_google(&account.0, Some(&account.1), token);
}

/// Conversations names a room by what its pushes hold, because that is all that it knows of it.
#[test]
fn a_room_is_unregistered_by_its_channel() {
    let mut rig = Rig::start();
    let device = [
        ("token", google(1)),
        ("android-id", "92afd7a91cdba9a0".to_owned()),
    ];
    let device = device.each_ref().map(|(name, value)| (*name, value.as_str()));
    let rooms = ["one@muc.a.example", "two@muc.a.example"].map(|room| ("muc", room));
    let mut register = |more: Option<(&'static str, &'static str)>| {
        let fields: Vec<_> = device.into_iter().chain(more).collect();
        let form = rig.form(ALICE, "register-push-fcm", &fields);
        let (node, secret) = (form.value("node").to_owned(), form.value("secret").to_owned());
        let data = rig.expect_google(&node, Some(&secret), &google(1));
        (
            node,
            secret,
            data["channel"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let account = register(None);
    let [one, two] = rooms.map(|room| register(Some(room)));
    assert!(account.2.is_empty() && one.2.len() == 40 && one.2 != two.2);

    // Of a channel that nobody has, or somebody else, nothing goes.
    let unknown = "0".repeat(40);
    for (from, channel) in [(ALICE, &*unknown), (MALLORY, &*one.2)] {
        let fields = [("channel", channel), device[1]];
        let reply = rig.execute(from, "unregister-push-fcm", &fields);
        assert!(!reply.is_result(), "{channel:?}: {}", reply.raw);
    }
    for (node, secret, _) in [&account, &one, &two] {
        assert_eq!(rig.push(node, secret), RESULT);
    }
    let fields = [("channel", &*one.2), device[1]];
    let form = rig.form(ALICE, "unregister-push-fcm", &fields);
    let gone = check(&form, "unregister-push-fcm", "completed", "result", &[JID, NODE]);
    assert_eq!(gone, ["push.localhost", &one.0]);
    assert_eq!(rig.push(&one.0, &one.1), MISSING);
    for (node, secret, _) in [&account, &two] {
        assert_eq!(rig.push(node, secret), RESULT, "only the one room is left");
    }
    let again = rig.execute(ALICE, "unregister-push-fcm", &fields);
    assert_eq!(again.verdict(), MISSING);
}

#[test]
fn the_second_dialect_registers_at_apple_too() {
    let mut rig = Rig::start();
    let fields = [("token", apple(1)), ("device-id", "dev-1".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let form = rig.form(ALICE, "register-push-apns", &fields);
    let values = check(
        &form,
        "register-push-apns",
        "completed",
        "result",
        &[JID, NODE, SECRET],
    );
    rig.expect_apple(&values[1], Some(&values[2]), "org.example.ios", &apple(1));
    let account = &rig.apns.requests()[0].body["account"];
    assert_eq!(*account, "88d1ece36bcc07f55cac62aa41b53a9a0804fbbb");
    let google = rig.form(ALICE, "register-push-fcm", &[("token", &google(1)), fields[1]]);
    assert_ne!(google.value("node"), values[1]);
    assert_eq!(
        rig.form(ALICE, "unregister-push-apns", &fields[1..])
            .value("node"),
        values[1]
    );
    assert_eq!(rig.push(&values[1], &values[2]), MISSING);
    let (node, secret) = (google.value("node"), google.value("secret"));
    assert_eq!(
        rig.push(node, secret),
        RESULT,
        "the other service's device is another one"
    );
}

#[test]
fn the_third_dialect_needs_no_secret() {
    let mut rig = Rig::start();
    for (number, action) in ACTIONS.into_iter().enumerate() {
        let (token, second) = (apple(number), apple(100 + number));
        let fields = [
            ("provider", "tigase:messenger:apns:1"),
            ("device-token", token.as_str()),
            ("device-second-token", second.as_str()),
        ];
        // With the second token, and without.
        let fields = &fields[..if number % 2 == 0 { 3 } else { 2 }];
        let form = Form::of(&rig.send(command("register-device", fields, action)));
        let kinds = [
            NODE,
            ("features", "text-multi"),
            ("max-payload-size", "text-single"),
        ];
        let values = check(&form, "register-device", "completed", "result", &kinds);
        let random = values[0].strip_prefix("tigase-").unwrap();
        assert!(is_random(random), "{random}");
        assert_eq!(values[1..], ["tigase:push:encrypt:0", "3000"]);
        let node = &values[0];
        rig.expect_apple(node, None, "org.example.siskin", &token);
        rig.expect_apple(node, Some("a wrong secret"), "org.example.siskin", &token);
        let request = &rig.apns.requests()[2 * number];
        assert_eq!(request.body["account"], "alice@a.example");

        let form = Form::of(&rig.send(command("unregister-device", &fields[..2], action)));
        let gone = check(&form, "unregister-device", "completed", "result", &[NODE]);
        assert_eq!(gone[0], *node);
        assert_eq!(rig.push(node, "any"), MISSING);
        assert_eq!(
            rig.push_plain(node),
            MISSING,
            "it is not taken for a token of the default module"
        );
        let again = rig.send(command("unregister-device", &fields[..2], action));
        assert_eq!(again.verdict(), MISSING);
        rig.assert_discreet(&[node, &token, &second, "alice"]);
    }
    assert_eq!(rig.apns.count(), 2 * ACTIONS.len());

    // Stork.
    let fields = [("provider", "fcm-xmpp-api"), ("device-token", &google(1))];
    let form = rig.form(ALICE, "register-device", &fields);
    let data = rig.expect_google(form.value("node"), None, &google(1));
    assert_eq!(data, json!({ "account": "alice@a.example" }));
}

#[test]
fn the_publishes_of_real_servers_find_their_devices() {
    let mut rig = Rig::start();
    let fields = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(1)),
    ];
    let node = rig
        .form(ALICE, "register-device", &fields)
        .value("node")
        .to_owned();
    rig.link.send(tigase_publish("tigase", &node, None, 1, true));
    assert_eq!(rig.link.reply_to("tigase", LONG).verdict(), RESULT);
    assert_eq!(rig.apns.wait_for(1, LONG)[0].token, apple(1));

    let secret = rig.register(ALICE, "n", &google(1));
    rig.link.send(metronome_publish("metronome", "n", Some(&secret)));
    assert_eq!(rig.link.reply_to("metronome", LONG).verdict(), RESULT);
    assert_eq!(rig.fcm.wait_for(1, LONG)[0].token(), google(1));
}

#[test]
fn commands_can_be_canceled_and_have_no_way_back() {
    let mut rig = Rig::start();
    let fields = [("type", "apns"), ("node", "n"), ("token", &apple(1))];
    let canceled = rig.send(|id| {
        let command = Command::new(id, "v1-register-push", &fields);
        command.action("cancel").session("it's <mine>")
    });
    let form = Form::of(&canceled);
    // A session is not repeated: nobody has one, and it may be of any size.
    assert_eq!((form.status.as_str(), form.session.as_str()), ("canceled", ""));
    assert_eq!(form.node, "v1-register-push");
    assert_eq!((form.kind.as_str(), form.fields.len()), ("", 0));
    for action in ["prev", "dance", "EXECUTE", ""] {
        let reply = rig.send(command("v1-register-push", &fields, Some(action)));
        assert_eq!(reply.verdict(), "modify/bad-request", "{action}");
        let more = &reply.error_children[2];
        assert_eq!(
            (more.name.as_str(), more.namespace.as_str()),
            ("bad-action", "http://jabber.org/protocol/commands")
        );
    }
    assert!(rig.export().is_empty(), "none of that registers anything");
}

#[test]
fn secrets_and_nodes_are_random() {
    let (mut one, mut other) = (Rig::start(), Rig::start());
    let fields = [("token", google(1)), ("device-id", "d".to_owned())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut seen = HashSet::new();
    for rig in [&mut one, &mut other] {
        for number in 0..5 {
            let from = format!("user{number}@a.example");
            seen.insert(rig.register(&from, &format!("n-{number}"), &google(1)));
            let form = rig.form(&from, "register-push-fcm", &fields);
            seen.insert(form.value("node").to_owned());
            seen.insert(form.value("secret").to_owned());
        }
    }
    assert_eq!(
        seen.len(),
        30,
        "no two alike, not even of the same device on two servers"
    );
}

#[test]
fn the_address_in_the_answer_is_the_one_that_was_asked() {
    let mut rig = Rig::start();
    let fields = [("type", "apns"), ("node", "n"), ("token", &apple(1))];
    for (to, jid) in [
        ("push.localhost/resource", "push.localhost"),
        ("x@push.localhost", "x@push.localhost"),
    ] {
        let reply = rig.send(|id| Command::new(id, "v1-register-push", &fields).to(to));
        assert_eq!(reply.from.as_deref(), Some(to));
        assert_eq!(reply.to.as_deref(), Some(ALICE));
        assert_eq!(Form::of(&reply).value("jid"), jid);
    }
}
