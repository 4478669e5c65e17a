//! What `fpush check` says of links.

use std::{ffi::OsString, path::Path, process::Output};

use fpush_testkit::{FakeXmpp, Refusal, TempDir};
use serde_json::{Value, json};

use crate::rig::{LONG, ONE, OTHER, PROGRAM, Rig, link, member, server};

fn check(folder: &Path, args: &[&str]) -> Output {
    let file = folder.join("settings.json");
    let args = ["check"].iter().chain(args).map(OsString::from);
    fpush_testkit::run_to_end(PROGRAM, args.chain([file.into_os_string()]), folder)
}

fn settings(component: &Value) -> TempDir {
    let folder = TempDir::new();
    let settings = json!({
        "component": component, "pushModules": { "demo": { "type": "demo" } },
        "runtimeDirectory": folder.path().join("run"),
    });
    folder.write("settings.json", settings.to_string());
    folder
}

#[track_caller]
fn expect(output: &Output, code: i32, parts: &[&str]) {
    let text = [&*output.stdout, &*output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

fn links() -> (Value, [FakeXmpp; 3]) {
    let servers = [server(ONE), server(ONE), server(OTHER)];
    let links = json!([
        member("first", "cluster", &servers[0]),
        member("second", "cluster", &servers[1]),
        link("other", OTHER, &servers[2]),
    ]);
    (links, servers)
}

#[test]
fn each_link_is_a_line() {
    let (links, servers) = links();
    let folder = settings(&links);
    let [first, .., other] = &servers;
    expect(
        &check(folder.path(), &[]),
        0,
        &[
            &format!(
                "component {ONE} at 127.0.0.1 port {}\n  name: first\n  group: cluster\n",
                first.port()
            ),
            &format!(
                "component {OTHER} at 127.0.0.1 port {}\n  name: other\n",
                other.port()
            ),
        ],
    );
}

#[test]
fn each_link_logs_in_for_itself() {
    let (links, [first, second, other]) = links();
    let folder = settings(&links);
    std::thread::scope(|scope| {
        let checking = scope.spawn(|| check(folder.path(), &["--connect"]));
        // The two of one name come one after the other.
        scope.spawn(move || other.refuse(Refusal::Conflict, LONG));
        drop(first.accept(LONG));
        drop(second.accept(LONG));
        expect(
            &checking.join().unwrap(),
            1,
            &[
                &format!("component {ONE} (link first): the XMPP server accepted the login"),
                &format!("component {ONE} (link second): the XMPP server accepted the login"),
                &format!("component {OTHER} (link other): the server answered conflict\n  the server has"),
            ],
        );
    });
}

#[test]
fn a_daemon_that_runs_tells_of_each_link() {
    let (links, [first, second, other]) = links();
    // Before the daemon starts: a connection that the closing port still had would be closed, not refused.
    second.close_port();
    let folder = TempDir::new();
    let more = json!({ "component": links, "runtimeDirectory": folder.path().join("run") });
    let rig = Rig::with(more.clone());
    let _up = [rig.accept(&first), rig.accept(&other)];
    // One of its names is enough to be meant.
    folder.write(
        "settings.json",
        json!({
            "component": more["component"][2], "pushModules": { "demo": { "type": "demo" } },
            "runtimeDirectory": more["runtimeDirectory"],
        })
        .to_string(),
    );
    rig.expect_lines(&[("warning", "link second")]);
    expect(
        &check(folder.path(), &["--connect"]),
        1,
        &[
            &format!("component {ONE} (link first): the XMPP server accepted the login"),
            &format!("component {ONE} (link second): cannot connect to the server: Connection refused"),
            &format!("component {OTHER} (link other): the XMPP server accepted the login"),
        ],
    );
    let stranger = TempDir::new();
    stranger.write(
        "settings.json",
        json!({
            "component": link("x", "push.third.example", &other), "pushModules": { "demo": { "type": "demo" } },
            "runtimeDirectory": more["runtimeDirectory"],
        })
        .to_string(),
    );
    expect(
        &check(stranger.path(), &["--connect"]),
        78,
        &["another fpush answers at"],
    );
    let file = stranger.path().join("settings.json").into_os_string();
    let args = ["send", "--module", "demo", "--token", "t"].map(OsString::from);
    let sent = fpush_testkit::run_to_end(PROGRAM, args.into_iter().chain([file]), stranger.path());
    let words =
        format!("this is the fpush of {ONE} and {OTHER}, and the settings are those of push.third.example");
    expect(&sent, 1, &[&words]);
}

#[test]
fn mistakes_name_the_link_and_say_what_to_do() {
    let server = server(ONE);
    let good = link("a", ONE, &server);
    let with = |changes: &[(&str, Value)]| {
        let mut link = good.clone();
        for (key, value) in changes {
            match value {
                Value::Null => drop(link.as_object_mut().unwrap().remove(*key)),
                value => link[*key] = value.clone(),
            }
        }
        link
    };
    let unnamed = with(&[("linkName", Value::Null)]);
    for (component, parts) in [
        (
            json!([]),
            vec!["component: expected an object or a list of objects, found an empty list"],
        ),
        (
            json!([good, 1]),
            vec!["component[1]: expected an object, found a number"],
        ),
        (json!(7), vec!["component: expected an object"]),
        (
            json!([good, good]),
            vec!["component[1].linkName: another link is called a; give each a name of its own"],
        ),
        (
            json!([unnamed, unnamed]),
            vec![
                "component[1]: another link has this componentHostname at this server, too: remove one of the two",
            ],
        ),
        (
            json!([
                good,
                with(&[("linkName", "b".into()), ("componentKey", Value::Null)])
            ]),
            vec![
                "component[1].componentKey: expected either componentKey or componentKeyFile, found neither",
            ],
        ),
        (
            json!([
                with(&[("group", "g".into())]),
                with(&[
                    ("linkName", "b".into()),
                    ("group", "g".into()),
                    ("componentHostname", OTHER.into())
                ]),
            ]),
            vec!["component[1].group: all links of a group must have the same componentHostname"],
        ),
        (
            with(&[("linkName", "".into())]),
            vec!["component.linkName: expected a string that is not empty"],
        ),
        (
            with(&[("group", "a\nb".into())]),
            vec!["component.group: expected a name of at most 128 bytes"],
        ),
    ] {
        expect(&check(settings(&component).path(), &[]), 78, &parts);
    }
    let folder = TempDir::new();
    folder.write(
        "settings.json",
        r#"{ "component": [{ "linkName": "a", "linkName": "b" }] }"#,
    );
    expect(
        &check(folder.path(), &[]),
        78,
        &["component[0].linkName: this key occurs twice, the second time in line 1"],
    );
}
