//! The way from p2 and back, with its table in a real `MariaDB`.

use std::fs;

use fpush_testkit::MariaDb;
use serde_json::json;

use crate::rig::{ALICE, MALLORY, RESULT, Rig, TROUBLE, apple, google, lines};

/// As p2 makes it.
const TABLE: &str = "create table if not exists target(service char(4), device CHAR(40) NOT NULL, channel CHAR(40) NOT NULL \
    DEFAULT '', domain varchar(253), token varchar(255), node char(12), secret char(24), primary key(device, channel), \
    index nodeDomain (node,domain));";
/// From the documents.
const QUERY: &str = "SELECT service, device, channel, domain, token, node, secret FROM target";

/// `printf 'alice@a.example\0dev-1' | sha1sum`, and of a group chat.
const ACCOUNT: &str = "88d1ece36bcc07f55cac62aa41b53a9a0804fbbb";
const CHANNEL: &str = "ca266fb82717822aa62b14a73956e1eb2ed38ccf";
const OTHER: &str = "0123456789012345678901234567890123456789";

/// A p2 with devices of one account, of its group chat, of somebody with an iPhone, and two rows that p2 itself cannot use.
fn p2() -> MariaDb {
    let database = MariaDb::start();
    database.execute("test", TABLE);
    let [one, two] = [1, 2].map(google);
    let rows = format!(
        "INSERT INTO target (service, device, channel, domain, token, node, secret) VALUES
            ('FCM', '{ACCOUNT}', '', 'a.example', '{one}', 'node/of+them', 'secret/of+them=='),
            ('FCM', '{ACCOUNT}', '{CHANNEL}', 'a.example', '{one}', 'AAAAAAAAAAAB', 'secret\\\\with\\\\2'),
            ('APNS', '{OTHER}', '', 'b.example', '{}', 'AAAAAAAAAAAC', 'secret 3'),
            (NULL, '{OTHER}', 'x', 'b.example', '{two}', 'AAAAAAAAAAAD', 'secret 4'),
            ('FCM', '{OTHER}', 'y', NULL, '{two}', 'AAAAAAAAAAAE', 'secret 5')",
        apple(3)
    );
    database.execute("test", &rows);
    database
}

fn dump(database: &MariaDb, rig: &Rig) -> Vec<u8> {
    let table = database.execute("test", QUERY);
    fs::write(rig.path("target.tsv"), &table).unwrap();
    table
}

#[track_caller]
fn import(rig: &Rig) -> String {
    let said = rig.operate(&["import", "p2", "target.tsv", "settings.json"]);
    let all = lines(&said.stdout).concat() + &lines(&said.stderr).concat();
    assert_eq!(said.status.code(), Some(1), "{all}");
    assert!(!all.contains("secret") && !all.contains(OTHER), "{all}");
    all
}

#[test]
fn devices_of_p2_go_on_and_their_apps_find_them_again() {
    let database = p2();
    let mut rig = Rig::start();
    rig.stop();
    dump(&database, &rig);
    let said = import(&rig);
    for part in [
        "3 devices added, 0 changed, 0 there already, 2 not imported",
        "target.tsv, line 3: the column \"service\" is empty",
        "target.tsv, line 4: the column \"domain\" is empty",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let twice = "0 devices added, 0 changed, 3 there already, 2 not imported";
    // A later dump of the same is nothing new either.
    dump(&database, &rig);
    assert!(import(&rig).contains(twice));
    let shown = rig.operate(&["devices", "show", "node/of+them", "settings.json"]);
    assert!(
        lines(&shown.stdout)
            .concat()
            .contains("owner: an account of a.example (imported)"),
        "{shown:?}"
    );

    rig.start_again();
    let data = rig.expect_google("node/of+them", Some("secret/of+them=="), &google(1));
    assert_eq!(data, json!({ "account": ACCOUNT }));
    let data = rig.expect_google("AAAAAAAAAAAB", Some("secret\\with\\2"), &google(1));
    assert_eq!(data, json!({ "account": ACCOUNT, "channel": CHANNEL }));
    rig.expect_apple("AAAAAAAAAAAC", Some("secret 3"), "org.example.ios", &apple(3));
    assert_eq!(rig.push("node/of+them", "another"), TROUBLE);

    // Who is not the account, or not the device, gets a registration of its own.
    let register = |rig: &mut Rig, from: &str, device: &str, more: Option<(&str, &str)>, token: &str| {
        let fields: Vec<_> = [("device-id", device), ("token", token)]
            .into_iter()
            .chain(more)
            .collect();
        let form = rig.form(from, "register-push-fcm", &fields);
        (form.value("node").to_owned(), form.value("secret").to_owned())
    };
    for (from, device) in [
        (MALLORY, "dev-1"),
        (ALICE, "dev-2"),
        ("alice@b.example/phone", "dev-1"),
    ] {
        let (node, _) = register(&mut rig, from, device, None, &google(9));
        assert_ne!(node, "node/of+them");
    }
    let chat = ("muc", "room@muc.a.example");
    let known = register(&mut rig, ALICE, "dev-1", Some(chat), &google(7));
    assert_eq!(known, ("AAAAAAAAAAAB".to_owned(), "secret\\with\\2".to_owned()));
    let known = register(&mut rig, ALICE, "dev-1", None, &google(6));
    assert_eq!(known, ("node/of+them".to_owned(), "secret/of+them==".to_owned()));
    rig.expect_google("node/of+them", Some("secret/of+them=="), &google(6));
    // An older table, and a later one of a p2 that nobody asks any more, bring the old token back to none that registered here.
    dump(&database, &rig);
    assert!(import(&rig).contains(twice));
    // What p2 learnt before the change is taken over.
    database.execute(
        "test",
        &format!(
            "UPDATE target SET token = '{}' WHERE node = 'AAAAAAAAAAAC'",
            apple(8)
        ),
    );
    std::thread::sleep(std::time::Duration::from_millis(5));
    dump(&database, &rig);
    assert!(import(&rig).contains("0 devices added, 1 changed, 2 there already, 2 not imported"));
    let removed = rig.form(ALICE, "unregister-push-fcm", &[("device-id", "dev-1")]);
    assert_eq!(removed.value("node"), "node/of+them");
    assert_eq!(rig.export().len(), 5);
}

#[test]
fn an_app_takes_its_device_with_it_although_nobody_knew_whose_it_was() {
    let database = p2();
    let mut rig = Rig::start();
    rig.stop();
    dump(&database, &rig);
    import(&rig);
    rig.start_again();
    let removed = rig.form(
        ALICE,
        "unregister-push-fcm",
        &[("device-id", "dev-1"), ("channel", CHANNEL)],
    );
    assert_eq!(removed.value("node"), "AAAAAAAAAAAB");
    let stranger = rig.execute(MALLORY, "unregister-push-fcm", &[("device-id", "dev-1")]);
    assert!(!stranger.is_result());
    assert_eq!(rig.push("node/of+them", "secret/of+them=="), RESULT);
    assert_eq!(rig.export().len(), 2);
}

#[test]
fn what_was_registered_here_goes_back_to_p2() {
    let database = p2();
    let mut rig = Rig::start();
    let form = rig.form(
        ALICE,
        "register-push-fcm",
        &[("device-id", "new"), ("token", &google(4))],
    );
    let node = form.value("node").to_owned();
    rig.register(ALICE, "not p2's", &apple(5));
    rig.stop();
    let table = dump(&database, &rig);
    import(&rig);
    let exported = rig.operate(&["export", "--format", "p2", "settings.json"]);
    assert_eq!(exported.status.code(), Some(1));
    assert!(
        lines(&exported.stderr).concat().contains("left out: 1 devices"),
        "{exported:?}"
    );
    fs::write(rig.path("back.tsv"), &exported.stdout).unwrap();

    // From the documents; p2 compares node and secret as texts.
    database.execute("test", "RENAME TABLE target TO kept");
    database.execute("test", TABLE);
    database.execute(
        "test",
        "ALTER TABLE target MODIFY node varchar(512), MODIFY secret varchar(256), MODIFY token varchar(4096)",
    );
    database.execute(
        "test",
        &format!(
            "LOAD DATA LOCAL INFILE '{}' REPLACE INTO TABLE target CHARACTER SET utf8mb4 IGNORE 1 LINES \
             (service, device, channel, domain, token, node, secret)",
            rig.path("back.tsv").display()
        ),
    );
    let same = "SELECT count(*) AS n FROM target t JOIN kept k USING (service, device, channel, domain, token, node, secret)";
    assert_eq!(database.execute("test", same), b"n\n3\n");
    let new = format!("SELECT service, domain, token FROM target WHERE node = '{node}'");
    assert_eq!(
        database.execute("test", &new),
        format!("service\tdomain\ttoken\nFCM\ta.example\t{}\n", google(4)).into_bytes()
    );
    // What comes back is what went away.
    let again = dump(&database, &rig);
    assert_eq!(lines(&again).len(), 5);
    assert_ne!(again, table);
    let said = rig.operate(&["import", "p2", "target.tsv", "settings.json"]);
    assert!(
        lines(&said.stdout)
            .concat()
            .contains("0 devices added, 0 changed, 4 there already, 0 not imported"),
        "{said:?}"
    );
}

#[test]
fn a_file_that_is_not_a_table_is_told_so() {
    let mut rig = Rig::start();
    rig.stop();
    for (text, problem) in [
        (
            "",
            "there is nothing in the file; of an empty table mysql writes nothing",
        ),
        ("FCM\tx\n", "line 1: the first line has no column \"service\""),
    ] {
        fs::write(rig.path("target.tsv"), text).unwrap();
        let said = rig.operate(&["import", "p2", "target.tsv", "settings.json"]);
        assert_eq!(said.status.code(), Some(71), "{said:?}");
        assert!(lines(&said.stderr).concat().contains(problem), "{said:?}");
    }
}
