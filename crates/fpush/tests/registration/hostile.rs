//! What strangers send.

use fpush_testkit::{Command, Form, Reply};
use serde_json::json;

use crate::rig::{ALICE, LONG, MALLORY, MISSING, RESULT, Rig, TOO_MANY, TROUBLE, apple, google};

const INJECTIONS: [&str; 5] = [
    "'; DROP TABLE devices; --",
    "\" OR \"1\"=\"1",
    "x'), ('a', 'b'); DELETE FROM devices WHERE ('1'='1",
    "$1 ?1 :1 @1 %s {0}",
    "\\' || (SELECT value FROM meta) || \\'",
];

/// All commands, each with fields that are as they should be.
fn commands() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let text = str::to_owned;
    vec![
        (
            "v1-register-push",
            vec![("type", text("fcm")), ("node", text("n")), ("token", google(9))],
        ),
        (
            "v1-unregister-push",
            vec![("type", text("fcm")), ("node", text("n"))],
        ),
        (
            "register-push-fcm",
            vec![("token", google(9)), ("device-id", text("d"))],
        ),
        ("unregister-push-fcm", vec![("device-id", text("d"))]),
        (
            "register-push-apns",
            vec![("token", apple(9)), ("android-id", text("d"))],
        ),
        ("unregister-push-apns", vec![("android-id", text("d"))]),
        (
            "register-device",
            vec![("provider", text("fcm-xmpp-api")), ("device-token", google(9))],
        ),
        (
            "unregister-device",
            vec![("provider", text("fcm-xmpp-api")), ("device-token", google(9))],
        ),
    ]
}

#[track_caller]
fn assert_bad_payload(reply: &Reply, what: &str) {
    assert_eq!(reply.verdict(), "modify/bad-request", "{what}");
    let more: Vec<_> = reply.error_children[1..]
        .iter()
        .map(|child| (child.name.as_str(), child.namespace.as_str()))
        .collect();
    assert_eq!(
        more,
        [
            ("text", "urn:ietf:params:xml:ns:xmpp-stanzas"),
            ("bad-payload", "http://jabber.org/protocol/commands")
        ],
        "{what}"
    );
}

/// Executes a command as a stranger who has not sent too many yet.
#[track_caller]
fn execute(rig: &mut Rig, node: &str, fields: &[(&str, String)]) -> Reply {
    let from = format!("{}@a.example/x", rig.id());
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    rig.execute(&from, node, &fields)
}

#[test]
fn a_form_without_all_its_fields_is_refused() {
    let mut rig = Rig::start();
    for (node, fields) in commands() {
        let id = rig.id();
        rig.link.send(format!(
            "<iq type='set' from='{ALICE}' to='push.localhost' id='{id}'><command node='{node}' \
             xmlns='http://jabber.org/protocol/commands'/></iq>"
        ));
        assert_bad_payload(&rig.link.reply_to(&id, LONG), node);
        for missing in 0..fields.len() {
            let mut without = fields.clone();
            let (name, _) = without.remove(missing);
            let mut empty = fields.clone();
            empty[missing].1.clear();
            for (how, fields) in [("without", &without), ("with an empty", &empty)] {
                let reply = execute(&mut rig, node, fields);
                assert_bad_payload(&reply, &format!("{node} {how} {name}"));
                // Of the two names of a device's id the older one is asked for.
                let name = name.replace("device-id", "android-id");
                assert_eq!(reply.text(), Some(&*format!("field {name} is missing")), "{node}");
            }
        }
    }
    assert!(rig.export().is_empty());
}

#[test]
fn values_without_measure_are_refused() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "mine", &apple(1));
    let long = "x".repeat(5_000);
    let values = [long.as_str(), "a\nb", "a\tb", "\u{85}", "\u{7f}", "a\u{9b}31m"];
    for value in values {
        for (node, fields) in commands() {
            for field in 0..fields.len() {
                let mut fields = fields.clone();
                value.clone_into(&mut fields[field].1);
                let what = format!(
                    "{node} {} {:?}",
                    fields[field].0,
                    value.get(..20).unwrap_or(value)
                );
                assert_bad_payload(&execute(&mut rig, node, &fields), &what);
            }
        }
        assert_eq!(rig.push(value, &secret), TROUBLE);
        assert_eq!(rig.push("mine", value), TROUBLE);
    }
    let room = vec![
        ("token", google(9)),
        ("device-id", "d".to_owned()),
        ("muc", long.clone()),
    ];
    assert_bad_payload(&execute(&mut rig, "register-push-fcm", &room), "a long room");
    // What cannot be a token of the provider, and types that nobody has.
    for (kind, token) in [
        ("fcm", apple(1)),
        ("apns", google(1)),
        ("apns", "short".to_owned()),
        ("fcm", "a/../../b".repeat(10)),
        ("webpush", google(1)),
        ("FCM", google(1)),
        ("ios", apple(1)),
    ] {
        let fields = [
            ("type", kind.to_owned()),
            ("node", "n".to_owned()),
            ("token", token),
        ];
        assert_bad_payload(&execute(&mut rig, "v1-register-push", &fields), kind);
    }
    let fields = [("provider", "apns".to_owned()), ("device-token", apple(1))];
    assert_bad_payload(
        &execute(&mut rig, "register-device", &fields),
        "no provider of ours",
    );
    let second = [
        ("provider", "tigase:messenger:apns:1".to_owned()),
        ("device-token", apple(1)),
        ("device-second-token", "no token".to_owned()),
    ];
    assert_bad_payload(
        &execute(&mut rig, "register-device", &second),
        "a second token that is none",
    );
    assert_eq!(rig.export().len(), 1);
    rig.expect_apple("mine", Some(&secret), "org.example.ios", &apple(1));
}

#[test]
fn characters_that_no_xml_has_end_nothing() {
    let mut rig = Rig::start();
    let command = |attributes: &str, value: &str| {
        format!(
            "<command xmlns='http://jabber.org/protocol/commands' {attributes}>\
             <x xmlns='jabber:x:data'><field var='type'><value>apns</value></field>\
             <field var='node'><value>{value}</value></field>\
             <field var='token'><value>{}</value></field></x></command>",
            apple(1)
        )
    };
    let usual = "node='v1-register-push'";
    // Of those that can be escaped at all, none may come back in an answer.
    for text in ["&#1;", "&#xFFFE;", "&#xFFFF;", "\u{fffe}"] {
        for content in [
            command(usual, &format!("a{text}b")),
            command(&format!("node='v1{text}'"), "n"),
            command(&format!("node='v1{text}' action='cancel'"), "n"),
        ] {
            assert_bad_payload(&rig.ask("set", &content), &content);
        }
        let session = command(&format!("{usual} action='cancel' sessionid='{text}'"), "n");
        assert_eq!(Form::of(&rig.ask("set", &session)).session, "");
    }
    for text in ["&#0;", "a&nope;b", "&#x110000;", "&#xD800;"] {
        assert_eq!(
            rig.ask("set", &command(usual, text)).verdict(),
            "wait/bad-request",
            "{text}"
        );
    }
    let secret = rig.ask("set", &command(usual, "<![CDATA[<&>]]>&#x1F514;"));
    let form = Form::of(&secret);
    assert_eq!(form.value("node"), "<&>\u{1f514}");
    rig.expect_apple(
        "<&>\u{1f514}",
        Some(form.value("secret")),
        "org.example.ios",
        &apple(1),
    );
}

/// What a server makes of a reply must stay below what it takes: of that the fake one makes sure.
#[test]
fn nothing_large_comes_back_from_a_command() {
    let mut rig = Rig::start();
    let (quotes, brackets) = ("'".repeat(200_000), ">".repeat(200_000));
    for large in [&quotes, &brackets] {
        for (node, fields) in commands() {
            let of = |attributes: &str, fields: &[(&str, String)]| {
                let fields: String = fields
                    .iter()
                    .map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"))
                    .collect();
                format!(
                    "<command xmlns='http://jabber.org/protocol/commands' {attributes}>\
                     <x xmlns='jabber:x:data' type='submit'>{fields}</x></command>"
                )
            };
            let canceled = of(
                &format!("node='{node}' action='cancel' sessionid=\"{large}\""),
                &fields,
            );
            assert_eq!(Form::of(&rig.ask("set", &canceled)).status, "canceled");
            for field in 0..fields.len() {
                let mut fields = fields.clone();
                fields[field].1.clone_from(large);
                let reply = rig.ask("set", &of(&format!("node='{node}'"), &fields));
                assert_bad_payload(&reply, &format!("{node} {}", fields[field].0));
            }
        }
        let unknown = format!("<command xmlns='http://jabber.org/protocol/commands' node=\"{large}\"/>");
        assert_eq!(rig.ask("set", &unknown).verdict(), MISSING);
        for query in ["info", "items"] {
            let reply = rig.ask(
                "get",
                &format!("<query xmlns='http://jabber.org/protocol/disco#{query}' node=\"{large}\"/>"),
            );
            assert!(reply.raw.len() < 1_000, "{query}");
        }
    }
    assert!(rig.export().is_empty());
}

#[test]
fn commands_that_nobody_has_are_not_found() {
    let mut rig = Rig::start();
    for node in [
        "",
        "nothing",
        "register-push-webpush",
        "v1-register-push ",
        "V1-REGISTER-PUSH",
        "v1-push",
        INJECTIONS[0],
    ] {
        let reply = rig.execute(
            ALICE,
            node,
            &[("type", "apns"), ("node", "n"), ("token", &apple(1))],
        );
        assert_eq!(reply.verdict(), MISSING, "{node}");
        assert_eq!(reply.text(), Some("no such command"));
        assert_eq!(reply.error_children.len(), 2);
    }
    let get = rig.ask(
        "get",
        "<command xmlns='http://jabber.org/protocol/commands' node='v1-register-push'/>",
    );
    assert_eq!(get.verdict(), "cancel/service-unavailable");
}

#[test]
fn sql_is_text_like_any_other() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "mine", &apple(1));
    for text in INJECTIONS {
        // As a node, as a device id and as a room it is one; elsewhere it is none.
        let node = rig.register(MALLORY, text, &apple(2));
        rig.expect_apple(text, Some(&node), "org.example.ios", &apple(2));
        assert_eq!(rig.push(text, text), TROUBLE);
        assert_eq!(rig.push("mine", text), TROUBLE);
        let fields = [
            ("token", google(1)),
            ("device-id", text.to_owned()),
            ("muc", text.to_owned()),
        ];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        let form = rig.form(MALLORY, "register-push-fcm", &fields);
        rig.expect_google(form.value("node"), Some(form.value("secret")), &google(1));
        let from = format!("{text}@a.example");
        let form = Form::of(&rig.send(|id| Command::new(id, "register-push-fcm", &fields).from(&from)));
        assert_eq!(rig.push(form.value("node"), form.value("secret")), RESULT);
        for (command, fields) in commands() {
            for (index, (name, _)) in fields.iter().enumerate() {
                let mut fields = fields.clone();
                text.clone_into(&mut fields[index].1);
                let verdict = execute(&mut rig, command, &fields).verdict();
                let expected: &[_] = match (command, *name) {
                    (_, "type" | "provider" | "token") => &["modify/bad-request", MISSING],
                    ("register-device", "device-token") => &["modify/bad-request"],
                    (command, _) if command.starts_with("un") || command.contains("-un") => &[MISSING],
                    ("v1-register-push", "node") => &["auth/forbidden"],
                    _ => &[RESULT],
                };
                assert!(expected.contains(&verdict.as_str()), "{command} {name} {verdict}");
            }
        }
        let gone = rig.form(MALLORY, "v1-unregister-push", &[("type", "apns"), ("node", text)]);
        assert_eq!(gone.value("node"), text);
    }
    rig.expect_apple("mine", Some(&secret), "org.example.ios", &apple(1));
    assert!(!rig.daemon.log().contains("DROP TABLE"));
}

#[test]
fn a_flood_of_forms_is_answered_and_costs_little() {
    let mut rig = Rig::start();
    let mine = rig.register(ALICE, "mine", &apple(1));
    let mut flood = String::new();
    for number in 0..3_000 {
        let (node, token) = (format!("n-{}", number % 7), apple(2));
        let fields = [
            ("type", "apns"),
            ("node", node.as_str()),
            ("token", token.as_str()),
        ];
        let command = Command::new(&format!("flood-{number}"), "v1-register-push", &fields).from(MALLORY);
        flood += &command.to_string();
    }
    rig.link.send(flood);
    // Who comes behind the flood waits for no more than what it takes to answer it.
    let id = rig.id();
    let fields = [("type", "apns"), ("node", "behind"), ("token", &apple(3))];
    rig.link
        .send(Command::new(&id, "v1-register-push", &fields).from("bob@a.example/x"));
    let behind = rig.link.reply_to(&id, LONG).verdict();
    let verdicts: Vec<_> = (0..3_000)
        .map(|number| rig.link.reply_to(&format!("flood-{number}"), LONG).verdict())
        .collect();
    let count = |wanted: &str| verdicts.iter().filter(|verdict| *verdict == wanted).count();
    // On a slow machine some may have to come again.
    let late = count(TROUBLE);
    assert!(
        behind == RESULT || late > 0 && behind == TROUBLE,
        "another one's flood is not his: {behind}"
    );
    assert_eq!(
        (count(RESULT) + late, count(TOO_MANY)),
        (40, 2_960),
        "as many as one may send in a minute"
    );
    assert_eq!(rig.push("mine", &mine), RESULT);
    let devices = rig.export().len();
    assert!(
        devices == 9 || late > 0 && devices < 9,
        "{devices} instead of 9, {late} late"
    );
}

#[test]
fn a_crowd_is_answered_to_the_last() {
    let mut rig = Rig::with(json!({ "maxPerOwner": 2 }));
    let mut crowd = String::new();
    for number in 0..1_500 {
        let (node, from) = (format!("n-{number}"), format!("user{number}@a.example/x"));
        let token = apple(number);
        let fields = [
            ("type", "apns"),
            ("node", node.as_str()),
            ("token", token.as_str()),
        ];
        let command = Command::new(&format!("crowd-{number}"), "v1-register-push", &fields).from(&from);
        crowd += &command.to_string();
    }
    rig.link.send(crowd);
    let mut registered = 0;
    for number in 0..1_500 {
        let reply = rig.link.reply_to(&format!("crowd-{number}"), LONG);
        // On a slow machine some may have to come again.
        assert!(
            reply.is_result() || reply.verdict() == "wait/internal-server-error",
            "{}",
            reply.raw
        );
        registered += usize::from(reply.is_result());
    }
    assert!(registered > 0 && rig.export().len() >= registered);
    assert!(rig.daemon.is_running());
}

#[test]
fn a_form_of_any_size_is_answered() {
    let mut rig = Rig::start();
    let many: String = (0..5_000)
        .map(|n| format!("<field var='f{n}'><value>{n}</value></field>"))
        .collect();
    let deep = "<a>".repeat(2_000) + &"</a>".repeat(2_000);
    let large = format!("<field var='node'><value>{}</value></field>", "x".repeat(200_000));
    for content in [many, deep, large] {
        let reply = rig.ask(
            "set",
            &format!(
                "<command xmlns='http://jabber.org/protocol/commands' node='v1-register-push'>\
                 <x xmlns='jabber:x:data'>{content}</x></command>"
            ),
        );
        let verdict = reply.verdict();
        assert!(
            ["wait/bad-request", "modify/bad-request"].contains(&verdict.as_str()),
            "{verdict} {:?}",
            content.get(..40)
        );
    }
    rig.register(ALICE, "n", &apple(1));
}
