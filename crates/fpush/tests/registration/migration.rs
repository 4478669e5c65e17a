//! Databases that 0.1.0 has made: their devices go on as if nothing had happened.

use std::process::Command;

use fpush_testkit::Postgres;
use serde_json::json;

use crate::rig::{ALICE, RESULT, Rig, TROUBLE, apple, google};

/// The tables as 0.1.0 made them, with two devices: one of an account that its server wrote in capitals, and one over HTTP.
fn tables(node: &str, id: &str) -> String {
    let (mine, http) = (apple(1), google(2));
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
             1700000000000, 1700000000002, NULL, NULL);",
        key = "5e".repeat(32),
    )
}

/// Checks it with a daemon on such a database.
fn devices_go_on(rig: &mut Rig) {
    for _ in 0..2 {
        rig.start_again();
        rig.expect_apple("mine", Some("my secret"), "org.example.ios", &apple(1));
        rig.expect_google("http", Some("http secret"), &google(2));
        assert_eq!(rig.push("mine", "wrong"), TROUBLE);
        assert_eq!(rig.push("nobody", "any"), TROUBLE);
        assert_eq!(rig.export().len(), 2);
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
