//! Devices that register, between a real Prosody or ejabberd with real clients and stand-ins for Apple and Google: each
//! dialect of clients from the first command to the last push, and the devices of `mod_push_appserver` as a real
//! Prosody stored them.
//!
//! Every test starts a server of its own. `cargo xtask test` installs both; without them the tests fail and say what
//! to install.

#![cfg(all(
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_fcm_support"
))]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fpush_testkit::{
    ApnsKey, Daemon, FakeApns, FakeFcm, LONG, TempDir, TestCa,
    daemon::Builder,
    run_to_end,
    servers::{Client, Kind, Prosody, Seen, Server, Tap, attribute, escape, form_value, submit_form},
};
use serde_json::{Value, json};

macro_rules! on_both_servers {
    ($($name:ident,)*) => {
        mod prosody {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Prosody);
            })*
        }
        mod ejabberd {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Ejabberd);
            })*
        }
    };
}

on_both_servers! {
    every_dialect_brings_its_pushes_until_it_unregisters,
    a_client_finds_us_and_what_is_encrypted_reaches_its_app,
    nobody_pushes_to_or_takes_the_device_of_another,
    a_user_finds_out_why_a_phone_stays_silent,
    a_client_of_others_shows_the_user_both_commands,
}

/// The whole life of a registration, for an app of each dialect and provider.
fn every_dialect_brings_its_pushes_until_it_unregisters(kind: Kind) {
    let mut stage = Stage::start(kind);
    let apps = apps();
    for app in &apps {
        stage.server.register(app.user, PASSWORD).unwrap();
    }
    let registered: Vec<_> = apps.iter().map(|app| stage.take_up(app)).collect();

    for app in &apps {
        stage.write_to(app.user);
    }
    for (app, (node, secret)) in apps.iter().zip(&registered) {
        let (publish, reply) = stage.exchange(node, 1);
        assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
        match secret {
            Some(secret) => assert_eq!(form_value(&publish.xml, "secret").as_ref(), Some(secret)),
            None => assert!(!publish.xml.contains("publish-options"), "{publish:?}"),
        }
        assert_eq!(
            stage.providers.pushes(&app.token(1)),
            [app.data()],
            "{}",
            app.user
        );
    }

    // The provider gave the app another token. What its server knows stays right.
    for (app, (node, secret)) in apps.iter().zip(&registered) {
        let mut client = stage.server.login(app.user, PASSWORD).unwrap();
        let answer = app.register(&mut client, 2);
        let told = form_value(&answer, "node").unwrap();
        if app.command == TIGASE {
            // Here the token is the device: another token is another one, and only the same token is the same.
            assert_ne!(told, *node);
            let answer = app.register(&mut client, 1);
            assert_eq!(form_value(&answer, "node").as_ref(), Some(node));
        } else {
            assert_eq!((&told, &form_value(&answer, "secret")), (node, secret));
        }
        client.logout().unwrap();
        stage.write_to(app.user);
    }
    for (app, (node, _)) in apps.iter().zip(&registered) {
        let (_, reply) = stage.exchange(node, 2);
        assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
        let counts = || [1, 2].map(|number| stage.providers.pushes(&app.token(number)).len());
        let expected = if app.command == TIGASE { [2, 0] } else { [1, 1] };
        // One that comes in the time of the rate limit goes out a little later.
        until("its pushes", || (counts() == expected).then_some(()));
    }

    let pushes = stage.providers.count();
    for (app, (node, _)) in apps.iter().zip(&registered) {
        let mut client = stage.server.login(app.user, PASSWORD).unwrap();
        let answer = app.unregister(&mut client).unwrap();
        assert_eq!(form_value(&answer, "node").as_ref(), Some(node), "{answer}");
        assert_eq!(form_value(&answer, "secret"), None, "{answer}");
        let refusal = app.unregister(&mut client).unwrap_err().to_string();
        assert!(refusal.contains("item-not-found"), "{refusal}");
        client.logout().unwrap();
        stage.write_to(app.user);
    }
    for (app, (node, _)) in apps.iter().zip(&registered) {
        let (_, reply) = stage.exchange(node, 3);
        assert_is_unknown(&reply);
        stage.expect_server_to_count_it_out(app.user, node);
    }
    assert_eq!(stage.providers.count(), pushes);
}

/// As Siskin and Snikket for iOS look for a push service, and how encrypted notifications reach them.
///
/// The servers here do not encrypt: Prosody's `mod_cloud_notify` has that in a module that Debian does not package, and
/// ejabberd drops the children of `<enable/>`. So a client sends the publishes, as every user may.
fn a_client_finds_us_and_what_is_encrypted_reaches_its_app(kind: Kind) {
    let stage = Stage::start(kind);
    let apps = apps();
    let app = apps.iter().find(|app| app.user == "siskin").unwrap();
    stage.server.register(app.user, PASSWORD).unwrap();
    let mut client = stage.server.login(app.user, PASSWORD).unwrap();
    let mut ask = |jid: &str, query: &str| {
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#{query}/>");
        client.request("get", jid, &query).unwrap()
    };
    let items = ask("localhost", "items'");
    assert!(has(&items, "<item", &[("jid", COMPONENT)]), "{items}");
    let info = ask(COMPONENT, "info'");
    assert!(
        has(&info, "<identity", &[("category", "pubsub"), ("type", "push")]),
        "{info}"
    );
    for feature in [
        "urn:xmpp:push:0",
        COMMANDS,
        "tigase:messenger:apns:1",
        "fcm-xmpp-api",
    ] {
        assert!(has(&info, "<feature", &[("var", feature)]), "{feature} in {info}");
    }
    let list = ask(COMPONENT, &format!("items' node='{COMMANDS}'"));
    for app in &apps {
        for command in [app.command, &app.command.replace("register", "unregister")] {
            assert!(
                has(&list, "<item", &[("jid", COMPONENT), ("node", command)]),
                "{command} in {list}"
            );
        }
    }

    let answer = app.register(&mut client, 1);
    assert_eq!(
        form_value(&answer, "features").as_deref(),
        Some("tigase:push:encrypt:0")
    );
    assert_eq!(form_value(&answer, "max-payload-size").as_deref(), Some("3000"));
    let node = form_value(&answer, "node").unwrap();
    let high = "<priority xmlns='tigase:push:priority:0'>high</priority>";
    for (more, sign) in [("", high), (" type='voip'", "")] {
        let notification =
            format!("<encrypted xmlns='tigase:push:encrypt:0' iv='SVY='{more}>c2VhbGVk</encrypted>{sign}");
        client
            .request("set", COMPONENT, &publish(&node, None, &notification))
            .unwrap();
    }
    let requests = stage.providers.apns.requests();
    let [message, call] = &requests[..] else {
        panic!("{requests:?}");
    };
    for request in [message, call] {
        assert_eq!(request.body["encrypted"], "c2VhbGVk", "{request:?}");
        assert_eq!(request.body["iv"], "SVY=", "{request:?}");
        assert_eq!(request.body["account"], "siskin@localhost", "{request:?}");
    }
    assert_eq!(message.token, app.token(1));
    assert_eq!(message.header("apns-push-type"), Some("alert"));
    assert_eq!(call.token, PUSHKIT_TOKEN);
    assert_eq!(call.header("apns-push-type"), Some("voip"));
    assert_eq!(call.header("apns-topic"), Some("org.example.app.voip"));
}

/// Nodes of the first dialect can be guessed, for clients choose them; everything that follows from that is refused.
fn nobody_pushes_to_or_takes_the_device_of_another(kind: Kind) {
    let mut stage = Stage::start(kind);
    let apps = apps();
    let app = apps.iter().find(|app| app.command == SEED).unwrap();
    stage.server.register(app.user, PASSWORD).unwrap();
    let (node, secret) = stage.take_up(app);
    let secret = secret.unwrap();

    for (user, stolen) in [("mallory", Some("a guess")), ("trudy", None)] {
        stage.server.register(user, PASSWORD).unwrap();
        let mut client = stage.server.login(user, PASSWORD).unwrap();
        let fields = [
            ("type", app.kind),
            ("node", node.as_str()),
            ("token", &app.token(2)),
        ];
        let refusal = client
            .execute(COMPONENT, SEED, Some("execute"), &fields)
            .unwrap_err();
        assert!(refusal.to_string().contains("forbidden"), "{refusal}");
        let refusal = app.unregister(&mut client).unwrap_err();
        assert!(refusal.to_string().contains("item-not-found"), "{refusal}");
        // A device of their own may have the same name; the node is another.
        let fields = [("token", app.token(3)), ("device-id", node.clone())];
        let fields = fields.each_ref().map(|(var, value)| (*var, value.as_str()));
        let answer = client.execute(COMPONENT, P2_FCM, None, &fields).unwrap();
        assert_ne!(form_value(&answer, "node").as_ref(), Some(&node));
        client.send_presence().unwrap();
        let options = stolen.map_or_else(String::new, options);
        client.enable_push_with(COMPONENT, &node, &options).unwrap();
        client.logout().unwrap();
    }
    for (number, user) in (1..).zip(["mallory", "trudy"]) {
        stage.write_to(user);
        let (_, reply) = stage.exchange(&node, number);
        assert_is_not_believed(&reply);
    }
    assert_eq!(stage.providers.count(), 0);

    stage.write_to(app.user);
    let (publish, reply) = stage.exchange(&node, 3);
    assert_eq!(form_value(&publish.xml, "secret"), Some(secret));
    assert_eq!(reply.attribute("type"), Some("result"), "{reply:?}");
    assert_eq!(stage.providers.pushes(&app.token(1)).len(), 1);
}

/// From the store that a real Prosody wrote to a push that a real Prosody publishes, beside a daemon that runs all the
/// time.
#[test]
fn devices_are_taken_over_from_prosodys_store() {
    let folder = TempDir::new();
    fs::create_dir(folder.path().join("modules")).unwrap();
    folder.write("modules/mod_push_appserver.lua", STORING_MODULE);
    let (records, refused) = records();
    let mut stored = json!([records, [refused]]).to_string();
    stored.push('\n');
    let records_file = folder.write("records.json", stored);
    let config = format!(
        "plugin_paths = {{ \"{}\" }}\nrecords_file = \"{}\"\n{}",
        folder.path().join("modules").display(),
        records_file.display(),
        HOSTS
            .iter()
            .zip(1..)
            .map(|(host, number)| {
                format!("Component \"{host}\" \"push_appserver\"\n\trecords_number = {number}\n")
            })
            .collect::<String>()
    );
    let prosody = Prosody::start(&[(COMPONENT, SECRET)], &config).unwrap();
    let data = prosody.data();
    let mut stage = Stage::start_with(Kind::Prosody, Box::new(prosody));
    for host in HOSTS {
        let line = format!("all records of {host} are stored");
        stage.server.wait_for_log(&line, LONG).unwrap();
    }
    stage.server.stop();

    let settings = stage.daemon.dir().join("settings.json");
    let fpush = |args: &[&OsStr]| {
        let args = [args, &[settings.as_os_str()]].concat();
        let output = run_to_end(env!("CARGO_BIN_EXE_fpush"), args, folder.path());
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), texts)
    };
    let import = |folder: &Path| {
        let command = ["import", "mod_push_appserver"].map(OsStr::new);
        fpush(&[command[0], command[1], folder.as_os_str()])
    };
    let export = || {
        let (status, [lines, errors]) = fpush(&[OsStr::new("export")]);
        assert_eq!((status, errors.as_str()), (Some(0), ""));
        let devices = lines.lines().map(|line| {
            let device: Value = serde_json::from_str(line).unwrap();
            (device["node"].as_str().unwrap().to_owned(), device)
        });
        devices.collect::<BTreeMap<_, _>>()
    };
    let expected: BTreeMap<_, _> = records
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (record["node"].as_str().unwrap().to_owned(), exported(record)))
        .collect();

    let (status, [summary, errors]) = import(&data);
    let count = expected.len();
    assert_eq!(
        summary,
        format!("{count} devices added, 0 changed, 0 there already, 1 not imported\n"),
        "{errors}"
    );
    assert_eq!(status, Some(1));
    let [line] = errors.lines().collect::<Vec<_>>()[..] else {
        panic!("{errors}");
    };
    let name = "/b%c3%bccher%2eexample/push_appserver/a%0anode.dat: has a field that is ";
    assert!(
        line.starts_with("not imported: ") && line.contains(name),
        "{line}"
    );
    assert_eq!(export(), expected);

    // Once more changes nothing. So does the folder of a host; all that is in it can be imported.
    let (_, [summary, _]) = import(&data);
    let unchanged = format!("0 devices added, 0 changed, {count} there already, 1 not imported\n");
    assert_eq!(summary, unchanged);
    let (status, [summary, errors]) = import(&data.join("push%2eexample%2eorg"));
    let unchanged = format!("0 devices added, 0 changed, {count} there already, 0 not imported\n");
    assert_eq!((summary, errors, status), (unchanged, String::new(), Some(0)));
    assert_eq!(export(), expected);

    stage.server.restart().unwrap();
    stage.server.wait_for_component(2, LONG).unwrap();
    stage.bob = stage.server.login("bob", PASSWORD).unwrap();
    let get = |device: &Value, key: &str| device[key].as_str().unwrap().to_owned();
    // The daemon was there before the devices were.
    let (node, device) = expected.first_key_value().unwrap();
    let wakeup = publish(node, Some(&get(device, "secret")), "");
    until("the running daemon to know the devices", || {
        stage.bob.request("set", COMPONENT, &wakeup).ok()
    });
    for (number, (node, device)) in (1..).zip(&expected) {
        let user = format!("user-{number}");
        stage.server.register(&user, PASSWORD).unwrap();
        let mut client = stage.server.login(&user, PASSWORD).unwrap();
        client.send_presence().unwrap();
        let options = options(&get(device, "secret"));
        client.enable_push_with(COMPONENT, node, &options).unwrap();
        client.logout().unwrap();
        let token = get(device, "token");
        let before = stage.providers.pushes(&token).len();
        stage.write_to(&user);
        until("the push", || {
            (stage.providers.pushes(&token).len() == before + 1).then_some(())
        });
    }
    let wrong = publish(node, Some("a guess"), "");
    let refusal = stage.bob.request("set", COMPONENT, &wrong).unwrap_err();
    assert!(refusal.to_string().contains("internal-server-error"), "{refusal}");
}

/// With two commands, in any client.
fn a_user_finds_out_why_a_phone_stays_silent(kind: Kind) {
    let mut stage = Stage::start(kind);
    let apps = apps();
    let app = apps.iter().find(|app| app.command == TIGASE).unwrap();
    stage.server.register(app.user, PASSWORD).unwrap();
    let (node, _) = stage.take_up(app);
    stage.write_to(app.user);
    stage.exchange(&node, 1);
    let pushes = || stage.providers.pushes(&app.token(1)).len();
    until("the push of the message", || (pushes() == 1).then_some(()));

    let mut client = stage.server.login(app.user, PASSWORD).unwrap();
    let query = format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>");
    let list = client.request("get", COMPONENT, &query).unwrap();
    for command in [TEST_PUSH, PUSH_STATUS] {
        assert!(
            has(&list, "<item", &[("jid", COMPONENT), ("node", command)]),
            "{list}"
        );
    }
    let empty = |command: &str| format!("<command xmlns='{COMMANDS}' node='{command}' action='execute'/>");
    let form = client.request("set", COMPONENT, &empty(TEST_PUSH)).unwrap();
    assert!(has(&form, "<command", &[("status", "executing")]), "{form}");
    let session = attribute(&form[form.find("<command").unwrap()..], "sessionid").unwrap();
    let (_, option) = form.split_once("<option").unwrap();
    let (_, option) = option.split_once("<value>").unwrap();
    let (device, _) = option.split_once("</value>").unwrap();
    let submit = format!(
        "<command xmlns='{COMMANDS}' node='{TEST_PUSH}' action='complete' sessionid='{session}'>{}</command>",
        submit_form(&[("device", device)])
    );
    // Nobody else has this session.
    let refusal = stage
        .bob
        .request("set", COMPONENT, &submit)
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("bad-sessionid"), "{refusal}");
    let mut answer = client.request("set", COMPONENT, &submit).unwrap();
    assert!(has(&answer, "<command", &[("sessionid", session)]), "{answer}");
    until("the window of the message's push to end", || {
        if form_value(&answer, "outcome").as_deref() == Some("refused") {
            let filled = format!(
                "<command xmlns='{COMMANDS}' node='{TEST_PUSH}' action='execute'>{}</command>",
                submit_form(&[("device", device)])
            );
            answer = client.request("set", COMPONENT, &filled).unwrap();
        }
        (form_value(&answer, "outcome").as_deref() == Some("accepted")).then_some(())
    });
    assert!(answer.contains("the provider accepted the push"), "{answer}");
    assert_eq!(stage.providers.pushes(&app.token(1)).len(), 2);

    let status = client.request("set", COMPONENT, &empty(PUSH_STATUS)).unwrap();
    assert_eq!(form_value(&status, "accepted").as_deref(), Some("1"), "{status}");
    assert_eq!(status.matches("<item>").count(), 1, "{status}");
    for private in [&node, &app.token(1)] {
        assert!(
            !status.contains(private.as_str()) && !answer.contains(private.as_str()),
            "{status}"
        );
    }
}

/// slixmpp's own plugins for commands and forms, with nothing of ours but the order in which a person does it.
fn a_client_of_others_shows_the_user_both_commands(kind: Kind) {
    let stage = Stage::start(kind);
    let apps = apps();
    let app = apps.iter().find(|app| app.command == TIGASE).unwrap();
    stage.server.register(app.user, PASSWORD).unwrap();
    let (node, _) = stage.take_up(app);
    let port = stage.server.c2s_port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/slixmpp_commands.py");
    let said = run_to_end(
        python_with_slixmpp(),
        [script, &port, app.user, PASSWORD, COMPONENT],
        Path::new("."),
    );
    assert!(said.status.success(), "{said:?}");
    let out = String::from_utf8(said.stdout).unwrap();
    let seen: Value = serde_json::from_str(&out).unwrap();
    for command in [TEST_PUSH, PUSH_STATUS] {
        assert!(seen["commands"][command].is_string(), "{seen}");
    }

    let field = |answer: &Value, name: &str| {
        let fields = answer["fields"].as_array().unwrap();
        let found = fields.iter().find(|field| field["var"] == name);
        found.map_or(Value::Null, |field| field["value"].clone())
    };
    let [form, result] = seen["test"].as_array().unwrap().as_slice() else {
        panic!("a form and its answer: {seen}");
    };
    assert_eq!(form["status"], "executing");
    assert_eq!(form["actions"], json!(["complete"]));
    assert!(
        !form["title"].as_str().unwrap().is_empty() && !form["instructions"].as_str().unwrap().is_empty(),
        "{form}"
    );
    let labels = form["fields"].as_array().unwrap().iter();
    for label in labels.map(|field| field["label"].as_str()) {
        assert!(label.is_some_and(|label| !label.is_empty()), "{form}");
    }
    assert_eq!(
        (&result["status"], field(result, "outcome")),
        (&json!("completed"), json!("accepted"))
    );
    let words = result["notes"][0].as_str().unwrap();
    assert!(words.contains("the provider accepted the push"), "{result}");
    assert_eq!(stage.providers.pushes(&app.token(1)).len(), 1);

    let [status] = seen["status"].as_array().unwrap().as_slice() else {
        panic!("one answer: {seen}");
    };
    assert_eq!(status["status"], "completed");
    assert_eq!(status["items"].as_array().unwrap().len(), 1, "{status}");
    assert!(!status["notes"][0].as_str().unwrap().is_empty(), "{status}");
    assert!(!out.contains(&node) && !out.contains(&app.token(1)), "{seen}");
}

/// A Python that has slixmpp: that of the machine, or the first one of the path.
fn python_with_slixmpp() -> &'static str {
    let has = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", "import slixmpp"]);
        import.output().is_ok_and(|said| said.status.success())
    };
    let python = ["/usr/bin/python3", "python3"].into_iter().find(has);
    python.expect("this test needs slixmpp: apt-get install python3-slixmpp")
}

/// Devices as the module stores them, whose nodes a file's name cannot hold as they are; and one that cannot be a
/// device. What the module does not know is passed over, however it looks.
fn records() -> (Value, Value) {
    let records = json!([
        {
            "node": "E0FF1D8C-EB96-4E10-A912-F68B03FD8D3E",
            "type": "apns",
            "token": Provider::Apple.token(1),
            "secret": "384e51b4b2d5e475b1b56e75a7a5d2f5",
            "registered": "2017-03-17T02:10:21Z",
            "renewed": "2017-03-18T02:54:51Z",
            "last_successful_push": "2017-03-18T03:54:24Z",
            "last_push_error": "2017-03-18T04:07:44Z",
        },
        {
            "node": "../../etc/passwd.dat",
            "type": "fcm",
            "token": Provider::Google.token(2),
            "secret": "0123",
            "registered": "2020-02-29T23:59:59Z",
        },
        {
            "node": "100%25 %2e %zz a_b~c+d;e=f\\g",
            "type": "fcm",
            "token": Provider::Google.token(3),
            "secret": "\"quoted\" 'twice' \\\"\\ ]] -- };\u{1f600}",
            "registered": "1999-12-31T23:59:59Z",
            "renewed": "2038-01-19T03:14:08Z",
            "remark": "one line\nand \"another\"\r\n\t\u{7f}\u{0}1\u{85}",
            "pushes": 17,
            "share": -2.5e-30,
            "many": 1e300,
            "alive": true,
            "more": { "nested": { "secret": "not this one", "1": [1, "}", { "a": false }] } },
        },
        {
            "node": "größe-设备-📱'\"<&>",
            "type": "apns",
            "token": Provider::Apple.token(4),
            "secret": "geheim-ß",
            "registered": "2026-01-01T00:00:00Z",
            "last_push_error": "2026-01-02T00:00:00Z",
        },
        {
            "node": "return { node = os.exit() }",
            "type": "fcm",
            "token": Provider::Google.token(5),
            "secret": "return",
            "registered": "2026-01-01T00:00:00Z",
        },
    ]);
    let refused = json!({
        "node": "a\nnode",
        "type": "fcm",
        "token": Provider::Google.token(6),
        "secret": "0123",
        "registered": "2026-01-01T00:00:00Z",
    });
    (records, refused)
}

/// The line of an export for such a record.
fn exported(record: &Value) -> Value {
    let keys = [
        "type",
        "node",
        "secret",
        "token",
        "registered",
        "renewed",
        "last_successful_push",
        "last_push_error",
    ];
    // Nothing says whether such a device registered over HTTP.
    let mut device = json!({ "dialect": "mod_push_appserver", "imported": true });
    for key in keys {
        if let Some(value) = record.get(key) {
            device[key] = value.clone();
        }
    }
    device
}

/// An app and the dialect that it speaks.
struct App {
    /// Its user, by whose name the test knows it.
    user: &'static str,
    provider: Provider,
    /// The command that registers it.
    command: &'static str,
    action: Option<&'static str>,
    /// The first dialect's push type.
    kind: &'static str,
    /// The fields of both of its commands, without the token.
    fields: Vec<(&'static str, &'static str)>,
    /// What the push has to carry.
    data: Vec<(&'static str, &'static str)>,
    /// Makes its tokens its own.
    number: u32,
}

/// Apps of every dialect, each with what it sends in the wild.
fn apps() -> Vec<App> {
    let app = |user, provider, command, action, kind| App {
        user,
        provider,
        command,
        action,
        kind,
        fields: Vec::new(),
        data: Vec::new(),
        number: 0,
    };
    let (apple, google) = (Provider::Apple, Provider::Google);
    let execute = Some("execute");
    let mut apps = vec![
        App {
            fields: vec![
                (
                    "FORM_TYPE",
                    "https://github.com/tmolitor-stud-tu/mod_push_appserver/#v1-register-push",
                ),
                ("type", "fcm"),
                ("node", "an ANDROID_ID/1.2%3"),
            ],
            ..app("seed-android", google, SEED, execute, "fcm")
        },
        App {
            fields: vec![("type", "apns"), ("node", "E0FF1D8C-EB96-4E10-A912-F68B03FD8D3E")],
            ..app("seed-ios", apple, SEED, execute, "apns")
        },
        // The newest Conversations wants to complete what it has not begun.
        App {
            fields: vec![("android-id", "device-1")],
            data: vec![("account", "ecb0eae529983ee9af8efc4387ee66f619cd6d62")],
            ..app("conversations", google, P2_FCM, Some("complete"), "")
        },
        App {
            fields: vec![("android-id", "device-2"), ("muc", "room@conference.localhost")],
            data: vec![
                ("account", "2f38c3c341f5250a7168edabb013b4503cdd756c"),
                ("channel", "912b43b892a6e6879a2b3851d388a6ddcdad68a0"),
            ],
            ..app("cheogram", google, P2_FCM, execute, "")
        },
        App {
            fields: vec![("device-id", "device-3")],
            data: vec![("account", "3d53a3fd33929fcc452f88ef4c4f9bb91be57e2b")],
            ..app("fluux", apple, "register-push-apns", execute, "")
        },
        App {
            fields: vec![
                ("provider", "tigase:messenger:apns:1"),
                ("device-second-token", PUSHKIT_TOKEN),
            ],
            data: vec![("account", "siskin@localhost")],
            ..app("siskin", apple, TIGASE, None, "")
        },
        App {
            fields: vec![("provider", "fcm-xmpp-api")],
            data: vec![("account", "stork@localhost")],
            ..app("stork", google, TIGASE, None, "")
        },
    ];
    for (number, app) in (1..).zip(&mut apps) {
        app.number = number;
    }
    apps
}

impl App {
    /// The token that the provider gave first, second, …
    fn token(&self, number: u32) -> String {
        self.provider.token(self.number * 100 + number)
    }

    fn data(&self) -> BTreeMap<String, String> {
        let pairs = self.data.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Registers with this token and returns the answer, which has the form that the app knows.
    fn register(&self, client: &mut Client, number: u32) -> String {
        let token = self.token(number);
        let name = if self.command == TIGASE {
            "device-token"
        } else {
            "token"
        };
        let fields = [&[(name, token.as_str())], &self.fields[..]].concat();
        let answer = client
            .execute(COMPONENT, self.command, self.action, &fields)
            .unwrap();
        let (status, form) = if self.command == SEED {
            ("complete", "form")
        } else {
            ("completed", "result")
        };
        assert!(
            has(&answer, "<command", &[("node", self.command), ("status", status)])
                && has(&answer, "<x", &[("type", form)])
                && !answer.contains("sessionid=''"),
            "{answer}"
        );
        let (jid, secret) = (form_value(&answer, "jid"), form_value(&answer, "secret"));
        if self.command == TIGASE {
            assert_eq!((jid, secret), (None, None), "{answer}");
        } else {
            assert_eq!(jid.as_deref(), Some(COMPONENT), "{answer}");
            let is_good = |secret: &String| {
                let digits = |byte: u8| byte.is_ascii_hexdigit();
                secret.len() == 64 && secret.bytes().all(digits)
            };
            assert!(secret.as_ref().is_some_and(is_good), "{answer}");
        }
        answer
    }

    /// Unregisters what was registered, Tigase's dialect with the first token.
    fn unregister(&self, client: &mut Client) -> std::io::Result<String> {
        let token = self.token(1);
        let mut fields = self.fields.clone();
        fields.retain(|(var, _)| *var != "device-second-token");
        if self.command == TIGASE {
            fields.push(("device-token", &token));
        }
        let command = self.command.replace("register", "unregister");
        client.execute(COMPONENT, &command, self.action, &fields)
    }

    /// Turns push on as the app does.
    fn enable(&self, client: &mut Client, node: &str, secret: Option<&str>) {
        // Without a form. Neither server here knows Tigase's extensions; both take the element with them.
        let extensions = "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3000'>AAAAAAAAAAAAAAAAAAAAAA==\
                          </encrypt><priority xmlns='tigase:push:priority:0'/><jingle xmlns='tigase:push:jingle:0'/>";
        let children = secret.map_or_else(|| extensions.to_owned(), options);
        client.enable_push_with(COMPONENT, node, &children).unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    Apple,
    Google,
}

impl Provider {
    /// The token of a device, as the provider makes them.
    fn token(self, number: u32) -> String {
        match self {
            Self::Apple => format!("{number:064x}"),
            Self::Google => format!("{number:022}:APA91b{}", "0".repeat(134)),
        }
    }
}

struct Providers {
    ca: TestCa,
    apns: FakeApns,
    fcm: FakeFcm,
}

impl Providers {
    fn start() -> Self {
        let ca = TestCa::new();
        Self {
            apns: FakeApns::start(&ca),
            fcm: FakeFcm::start(&ca),
            ca,
        }
    }

    /// A module for each.
    fn settings(&self, builder: &Builder) -> Value {
        let write = |name: &str, content: &str| {
            let path = builder.dir().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let ca_file = write("ca.pem", &self.ca.pem());
        json!({
            "apple": {
                "type": "apple",
                "apns": {
                    "tokenKeyFilePath": write("apns.p8", &ApnsKey::generate().p8()),
                    "keyId": "ABCDE12345",
                    "teamId": "TEAM123456",
                    "topic": "org.example.app",
                    "endpoint": self.apns.url(),
                    "caFilePath": ca_file,
                },
            },
            "google": {
                "type": "google",
                "fcm": {
                    "fcmSecretPath": write("fcm.json", &self.fcm.service_account("example-app")),
                    "endpoint": self.fcm.url(),
                    "caFilePath": ca_file,
                },
            },
        })
    }

    /// What the pushes to a token carried for the app.
    fn pushes(&self, token: &str) -> Vec<BTreeMap<String, String>> {
        let requests = self.apns.requests();
        let to_apple = requests
            .iter()
            .filter(|request| request.token == token)
            .map(|request| &request.body);
        let sends = self.fcm.sends();
        let to_google = sends
            .iter()
            .filter(|send| send.token() == token)
            .map(|send| &send.message["data"]);
        let texts = |data: &Value| {
            let pairs = data.as_object().into_iter().flatten();
            pairs
                .filter(|(key, _)| *key != "aps")
                .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
                .collect()
        };
        to_apple.chain(to_google).map(texts).collect()
    }

    fn count(&self) -> usize {
        self.apns.count() + self.fcm.count()
    }
}

/// Everything that a test needs. The fields end in this order.
struct Stage {
    kind: Kind,
    daemon: Daemon,
    tap: Tap,
    bob: Client,
    server: Box<dyn Server>,
    providers: Providers,
}

impl Stage {
    /// With a relay between the server and fpush that sees every stanza.
    fn start(kind: Kind) -> Self {
        Self::start_with(kind, kind.start(&[(COMPONENT, SECRET)]))
    }

    fn start_with(kind: Kind, server: Box<dyn Server>) -> Self {
        let providers = Providers::start();
        let tap = Tap::start(server.component_port()).unwrap();
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_fpush")).rust_log("info,fpush_driver=debug");
        let settings = json!({
            "component": {
                "componentHostname": COMPONENT,
                "componentKey": SECRET,
                "serverHostname": "127.0.0.1",
                "serverPort": tap.port(),
            },
            "pushModules": fpush_testkit::without_holding(providers.settings(&builder)),
            "registration": {
                "store": { "type": "sqlite", "path": builder.dir().join("devices.db") },
                "types": { "apns": "apple", "fcm": "google" },
                "providers": { "tigase:messenger:apns:1": "apple", "fcm-xmpp-api": "google" },
                "rateLimit": "10ms",
            },
            "timeout": { "xmppconnectionError": "500ms" },
        });
        let daemon = builder.settings(&settings).start();
        server
            .wait_for_component(1, LONG)
            .unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
        server.register("bob", PASSWORD).unwrap();
        let bob = server.login("bob", PASSWORD).unwrap();
        Self {
            kind,
            daemon,
            tap,
            bob,
            server,
            providers,
        }
    }

    /// The app registers, turns push on with what it was told, and goes offline. Returns node and secret.
    fn take_up(&self, app: &App) -> (String, Option<String>) {
        let mut client = self.server.login(app.user, PASSWORD).unwrap();
        client.send_presence().unwrap();
        let answer = app.register(&mut client, 1);
        let node = form_value(&answer, "node").unwrap();
        let secret = form_value(&answer, "secret");
        app.enable(&mut client, &node, secret.as_deref());
        client.logout().unwrap();
        (node, secret)
    }

    fn write_to(&mut self, user: &str) {
        self.bob
            .send_message(&format!("{user}@localhost"), "Are you there?")
            .unwrap();
    }

    /// The publishes of the server for a node, with the replies that went by.
    fn exchanges(&self, node: &str) -> Vec<(Seen, Option<Seen>)> {
        let seen = self.tap.seen();
        let publishes = seen
            .iter()
            .filter(|stanza| stanza.from_server && has(&stanza.xml, "<publish", &[("node", &escape(node))]));
        let exchanges = publishes.map(|publish| {
            let id = publish.attribute("id");
            let reply = seen
                .iter()
                .find(|stanza| !stanza.from_server && stanza.attribute("id") == id);
            (publish.clone(), reply.cloned())
        });
        exchanges.collect()
    }

    /// Waits for the publish with this number for a node and for its reply.
    #[track_caller]
    fn exchange(&self, node: &str, number: usize) -> (Seen, Seen) {
        let found = until_some(LONG, || {
            let (publish, reply) = self.exchanges(node).into_iter().nth(number - 1)?;
            Some((publish, reply?))
        });
        found.unwrap_or_else(|| {
            panic!(
                "no reply {number} for {node}; exchanges {:#?}\nthe log:\n{}",
                self.exchanges(node),
                self.daemon.log()
            )
        })
    }

    /// Waits until the server has taken note that a node is gone: ejabberd unregisters it, Prosody begins to count.
    fn expect_server_to_count_it_out(&self, user: &str, node: &str) {
        let line = match self.kind {
            Kind::Prosody => {
                format!("for identifier '{COMPONENT}<{node}': error count for this identifier is now at 1")
            }
            Kind::Ejabberd => {
                format!("{COMPONENT} rejected notification for {user}@localhost")
            }
        };
        let more = match self.kind {
            Kind::Prosody => "Got error <cancel:item-not-found:",
            Kind::Ejabberd => "disabling push",
        };
        until("the server's note", || {
            let log = self.server.log();
            log.lines()
                .any(|logged| logged.contains(&line) && logged.contains(more))
                .then_some(())
        });
    }
}

#[track_caller]
fn assert_is_unknown(reply: &Seen) {
    assert_eq!(reply.attribute("type"), Some("error"), "{reply:?}");
    assert!(
        reply.xml.contains("type='cancel'") && reply.xml.contains("<item-not-found"),
        "{reply:?}"
    );
}

/// A wrong secret is not a reason for a server to forget a device.
#[track_caller]
fn assert_is_not_believed(reply: &Seen) {
    assert!(
        reply.xml.contains("<error type='wait'><internal-server-error"),
        "{reply:?}"
    );
}

/// Whether an element with this start and these attributes is anywhere in the stanza.
fn has(stanza: &str, start: &str, attributes: &[(&str, &str)]) -> bool {
    stanza.match_indices(start).any(|(at, _)| {
        attributes
            .iter()
            .all(|(name, value)| attribute(&stanza[at..], name) == Some(value))
    })
}

/// The form for `<enable/>` that gives the server the secret to publish with.
fn options(secret: &str) -> String {
    submit_form(&[
        ("FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options"),
        ("secret", secret),
    ])
}

/// A publish as a server makes it.
fn publish(node: &str, secret: Option<&str>, notification: &str) -> String {
    let options = secret.map_or_else(String::new, |secret| {
        format!("<publish-options>{}</publish-options>", options(secret))
    });
    format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{}'><item>\
         <notification xmlns='urn:xmpp:push:0'>{notification}</notification></item></publish>{options}</pubsub>",
        escape(node)
    )
}

#[track_caller]
fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_some(LONG, ask).unwrap_or_else(|| panic!("waited {LONG:?} for {what}, in vain"))
}

fn until_some<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the host's part of the records as `mod_push_appserver` does: with the storage API, into the store that is
/// named after the module.
const STORING_MODULE: &str = r#"
local json = require "util.json";
local store = module:open_store();
local file = assert(io.open(module:get_option_string("records_file"), "rb"));
local records = assert(json.decode(file:read("*a")));
file:close();
for _, record in ipairs(records[module:get_option_number("records_number")]) do
	assert(store:set(record.node, record));
end
module:log("info", "all records of %s are stored", module.host);
"#;

/// The push services that the old Prosody had: one with the records, one with what is refused.
const HOSTS: [&str; 2] = ["push.example.org", "bücher.example"];

const SEED: &str = "v1-register-push";
const P2_FCM: &str = "register-push-fcm";
const TIGASE: &str = "register-device";
const TEST_PUSH: &str = "test-push";
const PUSH_STATUS: &str = "push-status";

const COMMANDS: &str = "http://jabber.org/protocol/commands";

const PUSHKIT_TOKEN: &str = "ca11000000000000000000000000000000000000000000000000000000000000";

const COMPONENT: &str = "push.localhost";

const SECRET: &str = "made-up-component-secret";

const PASSWORD: &str = "made-up-password";
