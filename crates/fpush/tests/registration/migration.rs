//! Databases that 0.1.0 has made: their devices go on as if nothing had happened.

use std::process::Command;

use fpush_testkit::Postgres;
use serde_json::json;

use crate::rig::{ALICE, MISSING, RESULT, Rig, TROUBLE, apple, google};

/// Nodes as 0.1.0 made them, with the key of [`tables`]: of Alice's device, of one of her group chats on it, and of Tigase's
/// dialect.
const P2: &str = "e4112012c22752076e4d6f4624622c426f737bcd9c7521f2f6faf83aa288de53";
const CHAT: &str = "af8c9f30a0815e4869ff78963a84024ce761328236ec46e02fe0aaaca1f24e5f";
const TIGASE: &str = "tigase-489648942367b1da053a0aa8d83074360d6ccaecc4e86e9c86589379f77b1739";
/// `printf 'alice@a.example\0dev-1' | sha1sum`, and the same of the group chat.
const ACCOUNT: &str = "88d1ece36bcc07f55cac62aa41b53a9a0804fbbb";
const CHANNEL: &str = "ca266fb82717822aa62b14a73956e1eb2ed38ccf";

/// The tables as 0.1.0 made them, with devices of every dialect: one of an account that its server wrote in capitals, and one
/// over HTTP; one of p2's dialect with a group chat on it; one of Tigase's.
fn tables(node: &str, id: &str) -> String {
    let (mine, http, p2, tigase, calls) = (apple(1), google(2), google(3), apple(5), apple(6));
    format!(
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE devices (
            node {node} PRIMARY KEY, dialect TEXT NOT NULL, kind TEXT NOT NULL, secret TEXT NOT NULL, token TEXT NOT NULL,
            call_token TEXT, owner TEXT, account TEXT, channel TEXT, registered BIGINT NOT NULL, renewed BIGINT,
            delivered BIGINT, failed BIGINT
        );
        CREATE INDEX devices_by_owner ON devices (owner) WHERE owner IS NOT NULL;
        CREATE TABLE changes (id {id}, node TEXT NOT NULL, at BIGINT NOT NULL, source TEXT NOT NULL);
        INSERT INTO meta VALUES ('schema', '1'), ('key', '{key}');
        INSERT INTO devices VALUES
            ('mine', 'mod_push_appserver', 'apns', 'my secret', '{mine}', NULL, 'Alice@A.example', NULL, NULL,
             1700000000000, NULL, 1700000000001, NULL),
            ('http', 'mod_push_appserver', 'fcm', 'http secret', '{http}', NULL, NULL, NULL, NULL,
             1700000000000, 1700000000002, NULL, NULL),
            ('{P2}', 'p2', 'fcm', 'p2 secret', '{p2}', NULL, 'alice@a.example', '{ACCOUNT}', NULL,
             1700000000000, NULL, NULL, NULL),
            ('{CHAT}', 'p2', 'fcm', 'chat secret', '{p2}', NULL, 'alice@a.example', '{ACCOUNT}', '{CHANNEL}',
             1700000000000, NULL, NULL, NULL),
            ('{TIGASE}', 'tigase', 'tigase:messenger:apns:1', 'unused', '{tigase}', '{calls}', 'alice@a.example',
             'alice@a.example', NULL, 1700000000000, NULL, NULL, NULL);",
        key = "5e".repeat(32),
    )
}

/// Checks it with a daemon on such a database.
fn devices_go_on(rig: &mut Rig) {
    for _ in 0..2 {
        rig.start_again();
        rig.expect_apple("mine", Some("my secret"), "org.example.ios", &apple(1));
        rig.expect_google("http", Some("http secret"), &google(2));
        let data = rig.expect_google(P2, Some("p2 secret"), &google(3));
        assert_eq!(data, json!({ "account": ACCOUNT }));
        let data = rig.expect_google(CHAT, Some("chat secret"), &google(3));
        assert_eq!(data, json!({ "account": ACCOUNT, "channel": CHANNEL }));
        // Tigase's servers know no secret.
        rig.expect_apple(TIGASE, None, "org.example.siskin", &apple(5));
        for node in ["mine", P2, CHAT] {
            assert_eq!(rig.push(node, "wrong"), TROUBLE, "{node}");
        }
        assert_eq!(rig.push("nobody", "any"), TROUBLE);
        assert_eq!(rig.export().len(), 5);
        rig.stop();
    }
    rig.start_again();
    assert_eq!(rig.register(ALICE, "mine", &apple(3)), "my secret");
    rig.expect_apple("mine", Some("my secret"), "org.example.ios", &apple(3));
    let new = rig
        .post("register", &format!("type=fcm&node=http&token={}", google(4)))
        .remove(2);
    for secret in ["http secret", &new] {
        assert_eq!(rig.push("http", secret), RESULT, "its server knows the old one");
    }

    // What renews or removes a device finds it, by what its owner has or by its node, which is made anew of what the app says.
    let device = [("device-id", "dev-1"), ("token", &google(7))];
    let chat = [device[0], ("muc", "room@muc.a.example")];
    for (fields, node, secret) in [
        (&device[..], P2, "p2 secret"),
        (&[chat[0], chat[1], device[1]], CHAT, "chat secret"),
    ] {
        let form = rig.form(ALICE, "register-push-fcm", fields);
        assert_eq!((form.value("node"), form.value("secret")), (node, secret));
        rig.expect_google(node, Some(secret), &google(7));
    }
    let fields = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(5)),
    ];
    let form = rig.form(ALICE, "register-device", &fields);
    assert_eq!(form.value("node"), TIGASE);
    rig.expect_apple(TIGASE, None, "org.example.siskin", &apple(5));
    assert_eq!(rig.export().len(), 5);
    for (command, fields, node) in [
        ("unregister-push-fcm", &chat[..], CHAT),
        ("unregister-push-fcm", &device[..1], P2),
        ("unregister-device", &fields, TIGASE),
    ] {
        assert_eq!(rig.form(ALICE, command, fields).value("node"), node);
        assert_eq!(rig.push(node, "p2 secret"), MISSING);
    }
    assert_eq!(rig.export().len(), 2);
    rig.stop();
}

#[test]
fn a_file_of_sqlite() {
    let mut rig = Rig::start();
    rig.stop();
    let made = Command::new("sqlite3")
        .arg(rig.path("old.db"))
        .arg(tables("TEXT", "INTEGER PRIMARY KEY AUTOINCREMENT"))
        .status();
    assert!(made.unwrap().success());
    rig.change_settings(json!({ "store": { "path": "old.db" } }));
    devices_go_on(&mut rig);
}

#[test]
fn a_database_of_postgresql() {
    let server = Postgres::shared();
    let url = server.database();
    let identity = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
    server
        .psql(server.name(&url), &tables("TEXT COLLATE \"C\"", identity))
        .unwrap();
    let mut rig = Rig::start();
    rig.stop();
    rig.change_settings(json!({ "store": { "type": "postgres", "url": url, "path": null } }));
    devices_go_on(&mut rig);
}
