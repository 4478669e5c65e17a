//! Links with TLS.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::SystemTime,
};

use fpush_testkit::{ClientAuth, TempDir, TestCa, TlsFront, run_to_end};
use serde_json::{Value, json};

use crate::rig::{LONG, ONE, PROGRAM, RESULT, Rig, SECOND, server};

/// A link to this port, with TLS.
fn with_tls(port: u16, tls: Value) -> Value {
    json!({
        "linkName": "tls", "componentHostname": ONE, "componentKey": format!("secret of {ONE}"),
        "serverHostname": "127.0.0.1", "serverPort": port, "tls": tls,
    })
}

#[test]
fn pushes_go_over_tls() {
    let (ca, plain) = (TestCa::new(), server(ONE));
    let front = TlsFront::start(
        ca.server_config_for(&["xmpp.example"], &[], ClientAuth::Off),
        plain.port(),
    );
    let folder = TempDir::new();
    let roots = folder.write("roots.pem", ca.pem());
    let tls = json!({ "caFilePath": roots, "serverName": "xmpp.example" });
    let mut rig = Rig::start(&[with_tls(front.port(), tls.clone())]);
    let mut up = rig.accept(&plain);
    for _ in 0..20 {
        assert_eq!(rig.push(ONE, &mut up), RESULT);
    }
    let id = rig.publish_slowly(&up, SECOND);
    assert_eq!(up.reply_to(&id, LONG).verdict(), RESULT);

    // Another authority is another link; the same one in other words is not.
    rig.reload(&[with_tls(front.port(), tls.clone())]);
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    fs::write(&roots, [ca.pem(), TestCa::new().pem()].concat()).unwrap();
    rig.reload(&[with_tls(front.port(), tls)]);
    assert!(up.expect_end(LONG).stream_closed);
    up.close();
    let mut up = rig.accept(&plain);
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    rig.expect_metrics(&["fpush_component_connects_total{link=\"tls\"} == 2"]);

    // The server's end of the stream, and one of TCP alone.
    up.close();
    let up = rig.accept(&plain);
    up.drop_tcp();
    let mut up = rig.accept(&plain);
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    rig.daemon.terminate();
    assert!(up.expect_end(LONG).stream_closed);
}

#[test]
fn a_large_burst_goes_both_ways() {
    let (ca, plain) = (TestCa::new(), server(ONE));
    let front = TlsFront::start(ca.server_config(&[], ClientAuth::Off), plain.port());
    let folder = TempDir::new();
    let tls = json!({ "caFilePath": folder.write("roots.pem", ca.pem()) });
    // As many at the provider at a time as come: none waits for a place.
    let mut rig = Rig::with(json!({
        "component": [with_tls(front.port(), tls)], "pushModules": { "ios": { "maxInFlight": 2_000 } },
    }));
    let mut up = rig.accept(&plain);
    let ids: Vec<_> = (0..2_000)
        .map(|_| {
            let (id, publish) = rig.publish(ONE);
            up.send(publish);
            id
        })
        .collect();
    for id in ids {
        assert_eq!(up.reply_to(&id, LONG).verdict(), RESULT);
    }
}

/// What `fpush check --connect` says of such a link, and what of its meaning.
#[track_caller]
fn expect_refusal(port: u16, tls: Value, parts: &[&str]) {
    let folder = TempDir::new();
    let settings = json!({
        "component": [with_tls(port, tls)], "pushModules": { "demo": { "type": "demo" } },
        "runtimeDirectory": folder.path().join("run"),
    });
    let file = folder.write("settings.json", settings.to_string());
    let said = run_to_end(
        PROGRAM,
        ["check".into(), "--connect".into(), file.into_os_string()],
        folder.path(),
    );
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert_eq!(said.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn faults_of_certificates_have_clear_words() {
    let (ca, plain, folder) = (TestCa::new(), server(ONE), TempDir::new());
    let roots = folder.write("roots.pem", ca.pem());
    let trusted = json!({ "caFilePath": roots });
    let front = |names: &[&str], not_after| {
        let identity = ca.server_cert(names, not_after);
        TlsFront::start(
            ca.server_config_with(identity, &[], ClientAuth::Off),
            plain.port(),
        )
    };
    let good = front(&["127.0.0.1"], None);
    expect_refusal(
        good.port(),
        true.into(),
        &[
            "the server's certificate is not accepted: its authority is unknown",
            "component[0].tls.caFilePath",
        ],
    );
    expect_refusal(
        good.port(),
        json!({ "caFilePath": roots, "serverName": "xmpp.example" }),
        &[
            "the server's certificate is not accepted: it is for another name",
            "it must be for xmpp.example",
            "component[0].tls.serverName",
        ],
    );
    let ended = front(&["127.0.0.1"], Some(SystemTime::now() - 60 * SECOND));
    expect_refusal(
        ended.port(),
        trusted.clone(),
        &[
            "the server's certificate is not accepted: it has expired",
            "give the server a new certificate",
        ],
    );
    // One that waits for a stream, and one that says what it wants.
    let silent = "If that port speaks no TLS, remove component[0].tls";
    expect_refusal(
        plain.port(),
        trusted.clone(),
        &["cannot connect to the server: timed out", silent],
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let speaking = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
            .write_all(b"<?xml version='1.0'?><stream:stream><stream:error/>")
            .unwrap();
    });
    let words = [
        "TLS with the server fails",
        "speak TLS from the first byte",
        "or remove component[0].tls",
    ];
    expect_refusal(port, trusted, &words);
    speaking.join().unwrap();
}

#[test]
fn a_port_that_wants_tls_is_suggested_where_there_is_none() {
    let (ca, plain) = (TestCa::new(), server(ONE));
    let front = TlsFront::start(ca.server_config(&[], ClientAuth::Off), plain.port());
    expect_refusal(front.port(), false.into(), &["set component[0].tls"]);
}

/// Nothing of the secret is said before the server is trusted.
#[test]
fn a_server_that_is_not_trusted_learns_nothing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let reading = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SECOND)).unwrap();
        let mut first = [0; 4_096];
        let length = stream.read(&mut first).unwrap();
        first[..length].to_vec()
    });
    expect_refusal(port, true.into(), &["component"]);
    let first = reading.join().unwrap();
    assert_eq!(first[0], 0x16, "a handshake of TLS");
    assert!(!first.windows(ONE.len()).any(|window| window == ONE.as_bytes()));
}

#[test]
fn mistakes_in_tls_are_told() {
    let folder = TempDir::new();
    for (tls, words) in [
        (json!("yes"), "component.tls: expected true, or an object"),
        (
            json!({ "caFilePath": "missing.pem" }),
            "component.tls.caFilePath: ",
        ),
        (
            json!({ "serverName": "not a name" }),
            "component.tls.serverName: expected the name or the address",
        ),
        (
            json!({ "servername": "a" }),
            "component.tls.servername: this key is not known; did you mean \"serverName\"?",
        ),
    ] {
        let settings = json!({
            "component": with_tls(5347, tls), "pushModules": { "demo": { "type": "demo" } },
        });
        let file = folder.write("settings.json", settings.to_string());
        let said = run_to_end(PROGRAM, ["check".into(), file.into_os_string()], folder.path());
        let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        assert_eq!(said.status.code(), Some(78), "{text}");
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}
