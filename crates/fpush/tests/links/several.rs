//! Several names, and one name at several servers.

use fpush_testkit::{Command, Form, TempDir, publish::metronome_publish};
use serde_json::json;

use crate::rig::{LONG, ONE, OTHER, RESULT, Rig, SECOND, link, server};

#[test]
fn each_request_is_answered_where_it_came_from() {
    let (first, second, other) = (server(ONE), server(ONE), server(OTHER));
    let mut rig = Rig::start(&[
        link("first", ONE, &first),
        link("second", ONE, &second),
        link("other", OTHER, &other),
    ]);
    let mut links = [&first, &second, &other].map(|server| rig.accept(server));
    for (component, link) in [ONE, ONE, OTHER].into_iter().zip(&mut links) {
        assert_eq!(rig.push(component, link), RESULT);
        link.send(format!(
            "<iq type='get' from='a.example' to='{component}' id='disco'>\
             <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        ));
        let disco = link.reply_to("disco", LONG);
        assert!(
            disco.is_result() && disco.from.as_deref() == Some(component),
            "{disco:?}"
        );
    }
    for link in &mut links {
        link.expect_silence(SECOND / 5);
    }
    rig.expect_metrics(&[
        "fpush_component_up{link=\"first\"} == 1",
        "fpush_component_up{link=\"second\"} == 1",
        "fpush_component_up{link=\"other\"} == 1",
        "fpush_component_connects_total{link=\"other\"} == 1",
        "fpush_replies_total{link=\"first\",type=\"result\"} == 2",
        "fpush_replies_total{link=\"other\",type=\"result\"} == 2",
    ]);
    let status = rig.monitoring.status();
    let seen: Vec<_> = status["links"].as_array().unwrap().iter().collect();
    let names: Vec<_> = seen.iter().map(|link| link["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "second", "other"], "{status:#}");
    assert_eq!(seen[2]["component"], OTHER);
    assert!(seen.iter().all(|link| link["level"] == "ok"), "{status:#}");
}

#[test]
fn one_link_that_is_down_is_amber_while_another_of_its_name_is_up() {
    let (first, second, other) = (server(ONE), server(ONE), server(OTHER));
    let mut rig = Rig::start(&[
        link("first", ONE, &first),
        link("second", ONE, &second),
        link("other", OTHER, &other),
    ]);
    let [one, mut two, three] = [&first, &second, &other].map(|server| rig.accept(server));
    rig.expect_lines(&[]);
    first.close_port();
    one.drop_tcp();
    rig.expect_lines(&[("warning", "link first")]);
    assert_eq!(rig.monitoring.readiness().0, 200);
    rig.expect_metrics(&[
        "fpush_component_up{link=\"first\"} == 0",
        "fpush_component_up{link=\"second\"} == 1",
        "fpush_component_disconnects_total{link=\"first\"} == 1",
        "fpush_component_login_failures_total{link=\"first\",reason=\"connect\"} >= 1",
    ]);
    assert_eq!(rig.push(ONE, &mut two), RESULT);

    other.close_port();
    three.drop_tcp();
    rig.expect_lines(&[("error", "link other"), ("warning", "link first")]);
    let (code, text) = rig.monitoring.readiness();
    assert!(code == 503 && text.starts_with("link other down: "), "{text}");
    assert!(!text.contains("first"), "{text}");

    for server in [&first, &other] {
        server.open_port();
    }
    let mut again = [rig.accept(&first), rig.accept(&other)];
    rig.expect_lines(&[]);
    assert_eq!(rig.push(ONE, &mut again[0]), RESULT);
    assert_eq!(rig.push(OTHER, &mut again[1]), RESULT);
}

/// A link without a name has one that says where it goes.
#[test]
fn one_link_alone_is_one_in_a_list() {
    let server = server(ONE);
    let mut alone = link("x", ONE, &server);
    alone.as_object_mut().unwrap().remove("linkName");
    let mut rig = Rig::with(json!({ "component": alone }));
    let mut up = rig.accept(&server);
    let name = format!("{ONE}@127.0.0.1:{}", server.port());
    rig.expect_metrics(&[&format!("fpush_component_up{{link=\"{name}\"}} == 1")]);
    rig.reload(&[alone]);
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    rig.expect_metrics(&[&format!("fpush_component_connects_total{{link=\"{name}\"}} == 1")]);
    server.close_port();
    up.drop_tcp();
    rig.expect_lines(&[("error", "link")]);
}

#[test]
fn devices_register_and_are_woken_over_each_link_and_each_servers_own_users_are_trusted() {
    let folder = TempDir::new();
    let (first, other) = (server(ONE), server(OTHER));
    let mut rig = Rig::with(json!({
        "component": [link("first", ONE, &first), link("other", OTHER, &other)],
        "registration": {
            "store": { "type": "sqlite", "path": folder.path().join("devices.db") },
            "types": { "apns": "ios" }, "maxDevicesPerDomain": 1,
        },
    }));
    let mut links = [rig.accept(&first), rig.accept(&other)];
    for (link, (component, domain)) in links
        .iter_mut()
        .zip([(ONE, "one.example"), (OTHER, "other.example")])
    {
        for user in 0..3 {
            let token = format!("{:064x}", 100 + user);
            let fields = [
                ("type", "apns"),
                ("node", &*format!("{component} {user}")),
                ("token", &token),
            ];
            let id = format!("register-{user}");
            let from = format!("user{user}@{domain}/phone");
            link.send(
                Command::new(&id, "v1-register-push", &fields)
                    .from(&from)
                    .to(component),
            );
            let reply = link.reply_to(&id, LONG);
            assert!(reply.is_result(), "{}", reply.raw);
            let registered = Form::of(&reply);
            let secret = registered.value("secret");
            link.send(metronome_publish("wake", fields[1].1, Some(secret)).to(component));
            assert_eq!(link.reply_to("wake", LONG).verdict(), RESULT);
        }
    }
    // A stranger has what the settings allow.
    let stranger = |user: usize| {
        let token = format!("{:064x}", 200 + user);
        let fields = [
            ("type", "apns"),
            ("node", &*format!("stranger {user}")),
            ("token", &token),
        ];
        let command = Command::new(&format!("stranger-{user}"), "v1-register-push", &fields);
        command
            .from(&format!("user{user}@stranger.example/phone"))
            .to(OTHER)
            .to_string()
    };
    links[1].send(stranger(0));
    assert!(links[1].reply_to("stranger-0", LONG).is_result());
    links[1].send(stranger(1));
    assert_eq!(
        links[1].reply_to("stranger-1", LONG).verdict(),
        "wait/resource-constraint"
    );
    let (id, publish) = rig.publish(ONE);
    links[0].send(publish);
    assert_eq!(links[0].reply_to(&id, LONG).verdict(), RESULT);
}
