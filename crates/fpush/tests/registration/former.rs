//! Secrets that were replaced: an app that does not say its secret gets a new one each time that it registers.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::json;

use crate::rig::{Rig, TROUBLE, apple};

fn rig() -> Rig {
    Rig::with(json!({ "http": { "trustedProxies": ["127.0.0.1"] } }))
}

/// Registers without the secret from so many addresses, each of them ten times. Returns the secrets.
fn register(rig: &Rig, addresses: std::ops::Range<usize>) -> Vec<String> {
    addresses
        .flat_map(|number| [number; 10])
        .map(|number| from(rig, number))
        .collect()
}

/// Registers from this address, which must succeed.
#[track_caller]
fn from(rig: &Rig, number: usize) -> String {
    let form = format!("type=apns&node=n&token={}", apple(1));
    let mut stream = TcpStream::connect(rig.http_address()).unwrap();
    write!(
        stream,
        "POST /push_appserver/v1/register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         X-Forwarded-For: 192.0.2.{number}\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let secret = answer.split("\r\n\r\nOK\nn\n").nth(1);
    secret.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// As often as an app registers, and whatever else registers it, its server's secret stays good and nobody is refused.
#[test]
fn a_device_registers_as_often_as_it_likes() {
    let mut rig = rig();
    let used = from(&rig, 1);
    rig.expect_apple("n", Some(&used), "org.example.ios", &apple(1));
    let secrets = register(&rig, 2..10);
    assert_eq!(secrets.len(), 80);
    for good in [&used, &secrets[16], &secrets[79]] {
        rig.expect_apple("n", Some(good), "org.example.ios", &apple(1));
    }
    assert_eq!(
        rig.push("n", &secrets[0]),
        TROUBLE,
        "the oldest of 64 that nobody used"
    );
    // One that a push came with after it was replaced is known to be used, also after a restart.
    rig.stop();
    rig.start_again();
    let more = register(&rig, 2..10);
    for good in [&used, &secrets[16], &secrets[79], &more[79]] {
        rig.expect_apple("n", Some(good), "org.example.ios", &apple(1));
    }
    assert_eq!(rig.push("n", &secrets[17]), TROUBLE);
    assert_eq!(rig.push("n", &secrets[78]), TROUBLE);
}

/// One address cannot keep another one from renewing a device.
#[test]
fn requests_about_a_node_are_counted_for_each_address() {
    let rig = rig();
    for _ in 0..12 {
        from(&rig, 1);
    }
    let form = format!("type=apns&node=n&token={}", apple(1));
    for _ in 0..12 {
        assert_eq!(rig.post("register", &form)[0], "OK");
    }
    assert_eq!(rig.post("register", &form), ["ERROR", "Ratelimit reached!"]);
    from(&rig, 2);
}
