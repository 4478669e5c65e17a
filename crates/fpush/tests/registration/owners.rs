//! Whose device it is: renewals, strangers, and how many one may have.

use serde_json::json;

use crate::rig::{ALICE, MALLORY, MISSING, RESULT, Rig, TOO_MANY, apple, google};

const FORBIDDEN: &str = "auth/forbidden";

#[test]
fn a_renewal_keeps_node_and_secret_and_swaps_the_token() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    assert_eq!(rig.register("alice@a.example/tablet", "n", &apple(2)), secret);
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(2));

    let p2 = |rig: &mut Rig, token: &str| {
        let form = rig.form(
            ALICE,
            "register-push-fcm",
            &[("token", token), ("device-id", "d")],
        );
        [form.value("node").to_owned(), form.value("secret").to_owned()]
    };
    let first = p2(&mut rig, &google(1));
    assert_eq!(p2(&mut rig, &google(2)), first);
    rig.expect_google(&first[0], Some(&first[1]), &google(2));

    let tigase = |rig: &mut Rig, token: &str| {
        let fields = [("provider", "tigase:messenger:apns:1"), ("device-token", token)];
        rig.form(ALICE, "register-device", &fields)
            .value("node")
            .to_owned()
    };
    let node = tigase(&mut rig, &apple(3));
    assert_eq!(tigase(&mut rig, &apple(3)), node);
    assert_ne!(tigase(&mut rig, &apple(4)), node);

    let devices = rig.export();
    assert_eq!(devices.len(), 4);
    for device in devices {
        // Without the Z, which would come after the point of a time that has milliseconds.
        let text = |key: &str| {
            device[key]
                .as_str()
                .unwrap_or_default()
                .trim_end_matches('Z')
                .to_owned()
        };
        assert_eq!(text("owner"), "alice@a.example");
        let renewed = text("token") != apple(4);
        assert_eq!(device["renewed"].is_string(), renewed, "{device}");
        assert!(!renewed || text("renewed") >= text("registered"), "{device}");
    }
}

/// Servers write one address in many ways: ejabberd passes on what a foreign server wrote.
#[test]
fn an_owner_is_the_same_however_its_address_is_written() {
    let mut rig = Rig::with(json!({ "maxPerOwner": 2 }));
    let secret = rig.register("jürgen@müller.example/phone", "n", &apple(1));
    for from in [
        "JÜRGEN@MÜLLER.Example/x",
        "jürgen@müller.example.",
        "ju\u{308}rgen@mu\u{308}ller.example/x",
        "ｊürgen@ｍüller。example",
        "jürgen@xn--mller-kva.example/x",
        "jürgen@XN--MLLER-KVA.EXAMPLE./x",
    ] {
        assert_eq!(rig.register(from, "n", &apple(1)), secret, "{from}");
    }
    let devices = rig.export();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0]["owner"], "jürgen@müller.example");

    // No more devices by another spelling either.
    rig.register("JÜRGEN@müller.example", "m", &apple(2));
    let third = [("type", "apns"), ("node", "o"), ("token", &apple(3))];
    let from = "jürgen@xn--mller-kva.example";
    assert_eq!(rig.execute(from, "v1-register-push", &third).verdict(), TOO_MANY);

    // Who only looks alike is somebody else; and an app knows its account as its server writes it.
    let mine = [("type", "apns"), ("node", "n"), ("token", &apple(4))];
    for from in ["jürgen@muller.example", "jurgen@müller.example", "müller.example"] {
        assert_eq!(
            rig.execute(from, "v1-register-push", &mine).verdict(),
            FORBIDDEN,
            "{from}"
        );
    }
    let siskin = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(5)),
    ];
    let form = rig.form("Bob@A.Example/x", "register-device", &siskin);
    let devices = rig.export();
    let bob = devices
        .iter()
        .find(|device| device["node"] == form.value("node"))
        .unwrap();
    assert_eq!(
        (&bob["owner"], &bob["account"]),
        (&json!("bob@a.example"), &json!("Bob@A.Example"))
    );
}

#[test]
fn another_type_is_another_registration() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let new = rig.register(ALICE, "n", &google(1));
    assert_ne!(new, secret, "who knew the old one knows nothing of the new one");
    for secret in [&new, &secret] {
        // Its server learns of the new one when the app tells it.
        rig.expect_google("n", Some(secret), &google(1));
    }
    assert_eq!(rig.apns.count(), 0);
}

#[test]
fn nobody_else_renews_or_removes_a_device() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let fields = [("type", "apns"), ("node", "n"), ("token", &apple(666))];
    for from in [
        MALLORY,
        "a.example",
        "alice@b.example/phone",
        "alice@a.example.b/phone",
        "lice@a.example",
    ] {
        let reply = rig.execute(from, "v1-register-push", &fields);
        assert_eq!(reply.verdict(), FORBIDDEN, "{from}");
        assert!(!reply.raw.contains(&secret));
        assert_eq!(
            rig.execute(from, "v1-unregister-push", &fields[..2]).verdict(),
            MISSING,
            "{from}"
        );
    }
    // Not even with the secret: it is the server's of the account, too.
    let proof = [fields[0], fields[1], fields[2], ("secret", &secret)];
    assert_eq!(
        rig.execute(MALLORY, "v1-register-push", &proof).verdict(),
        FORBIDDEN
    );

    let p2 = [("token", google(1)), ("device-id", "d".to_owned())];
    let p2 = p2.each_ref().map(|(name, value)| (*name, value.as_str()));
    let device = rig.form(ALICE, "register-push-fcm", &p2);
    assert_eq!(
        rig.execute(MALLORY, "unregister-push-fcm", &p2[1..]).verdict(),
        MISSING
    );
    let other = rig.form(MALLORY, "register-push-fcm", &p2);
    assert_ne!(
        other.value("node"),
        device.value("node"),
        "another account, another device"
    );
    // By another dialect the node is somebody's all the same.
    let fields = [
        ("type", "fcm"),
        ("node", device.value("node")),
        ("token", &google(666)),
    ];
    for from in [MALLORY, ALICE] {
        assert_eq!(
            rig.execute(from, "v1-register-push", &fields).verdict(),
            FORBIDDEN,
            "{from}"
        );
        assert_eq!(
            rig.execute(from, "v1-unregister-push", &fields[..2]).verdict(),
            MISSING,
            "{from}"
        );
    }
    rig.expect_google(device.value("node"), Some(device.value("secret")), &google(1));

    let tigase = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(2)),
    ];
    let device = rig.form(ALICE, "register-device", &tigase);
    assert_eq!(
        rig.execute(MALLORY, "unregister-device", &tigase).verdict(),
        MISSING
    );
    assert_ne!(
        rig.form(MALLORY, "register-device", &tigase).value("node"),
        device.value("node")
    );
    rig.expect_apple(device.value("node"), None, "org.example.siskin", &apple(2));
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));
}

/// A node that a dialect has generated is nobody's to choose, not even when its owner has left.
#[test]
fn a_generated_node_belongs_to_its_dialect_for_ever() {
    let mut rig = Rig::start();
    let p2 = [("token", google(1)), ("device-id", "d".to_owned())];
    let p2 = p2.each_ref().map(|(name, value)| (*name, value.as_str()));
    let tigase = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(2)),
    ];
    for (register, unregister, fields, named) in [
        ("register-push-fcm", "unregister-push-fcm", &p2, 1),
        ("register-device", "unregister-device", &tigase, 0),
    ] {
        let node = rig.form(ALICE, register, fields).value("node").to_owned();
        rig.form(ALICE, unregister, &fields[named..]);
        for kind in ["apns", "fcm"] {
            let token = if kind == "apns" { apple(666) } else { google(666) };
            let seed = [("type", kind), ("node", &*node), ("token", &*token)];
            for from in [MALLORY, ALICE] {
                let reply = rig.execute(from, "v1-register-push", &seed);
                assert!(!reply.is_result(), "{register}: {}", reply.raw);
            }
            let form = format!("type={kind}&node={node}&token={token}");
            assert_eq!(rig.post("register", &form)[0], "ERROR", "{register}");
        }
        assert!(rig.export().is_empty());
        // The owner comes back, and is not in anybody's way.
        let again = rig.form(ALICE, register, fields);
        if register == "register-push-fcm" {
            assert_eq!(again.value("node"), node);
            rig.expect_google(&node, Some(again.value("secret")), &google(1));
        } else {
            rig.expect_apple(again.value("node"), None, "org.example.siskin", &apple(2));
        }
        rig.form(ALICE, unregister, &fields[named..]);
    }
}

#[test]
fn what_has_an_owner_is_closed_to_http() {
    let mut rig = Rig::start();
    let secret = rig.register(ALICE, "n", &apple(1));
    let refused = ["ERROR", "Node or secret not found!"];
    for proof in ["", &format!("&secret={secret}")] {
        let token = apple(666);
        assert_eq!(
            rig.post("register", &format!("type=apns&node=n&token={token}{proof}")),
            refused
        );
        assert_eq!(
            rig.post("unregister", &format!("type=apns&node=n{proof}")),
            ["ERROR", "Node not found!"]
        );
    }
    rig.expect_apple("n", Some(&secret), "org.example.ios", &apple(1));

    // A node that came over HTTP becomes that of the account that knows its secret, and of no other one.
    let answer = rig.post("register", &format!("type=apns&node=h&token={}", apple(2)));
    let token = apple(3);
    let fields = [
        ("type", "apns"),
        ("node", "h"),
        ("token", &token),
        ("secret", &*answer[2]),
    ];
    let wrong = [fields[0], fields[1], fields[2], ("secret", "wrong")];
    for fields in [&fields[..3], &wrong] {
        let reply = rig.execute(MALLORY, "v1-register-push", fields);
        assert_eq!(reply.verdict(), FORBIDDEN);
        assert!(!reply.raw.contains(&answer[2]));
        let reply = rig.execute(MALLORY, "v1-unregister-push", &fields[..2]);
        assert_eq!(reply.verdict(), MISSING);
    }
    rig.expect_apple("h", Some(&answer[2]), "org.example.ios", &apple(2));
    assert_eq!(
        rig.form(ALICE, "v1-register-push", &fields).value("secret"),
        answer[2]
    );
    assert_eq!(
        rig.post("register", &format!("type=apns&node=h&token={}", apple(2))),
        refused
    );
    rig.expect_apple("h", Some(&answer[2]), "org.example.ios", &apple(3));
}

#[test]
fn one_has_so_many_devices_and_no_more() {
    let mut rig = Rig::with(json!({ "maxPerOwner": 3 }));
    let secret = rig.register(ALICE, "n", &apple(1));
    let p2 = [("token", google(1)), ("device-id", "d".to_owned())];
    let p2 = p2.each_ref().map(|(name, value)| (*name, value.as_str()));
    rig.form(ALICE, "register-push-fcm", &p2);
    let tigase = [
        ("provider", "tigase:messenger:apns:1"),
        ("device-token", &apple(2)),
    ];
    rig.form(ALICE, "register-device", &tigase);

    let fourth = [("type", "apns"), ("node", "m"), ("token", &apple(3))];
    let with_room = [p2[0], p2[1], ("muc", "room@muc.a.example")];
    for (node, fields) in [("v1-register-push", &fourth), ("register-push-fcm", &with_room)] {
        for from in [ALICE, "alice@a.example/other", "alice@a.example"] {
            assert_eq!(rig.execute(from, node, fields).verdict(), TOO_MANY, "{node}");
        }
    }
    assert_eq!(
        rig.register(ALICE, "n", &apple(4)),
        secret,
        "a renewal adds no device"
    );
    rig.form(ALICE, "register-push-fcm", &p2);
    rig.form(ALICE, "register-device", &tigase);
    rig.register(MALLORY, "m", &apple(3));
    rig.form(ALICE, "unregister-device", &tigase);
    rig.register(ALICE, "o", &apple(5));
    assert_eq!(rig.push("n", &secret), RESULT);
    assert_eq!(rig.export().len(), 4);
}
