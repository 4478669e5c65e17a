//! What strangers can have the daemon keep, in bytes: each flood sends many times as much as is kept of it.
//!
//! The ceilings are of the resident memory of the built program, above what it had before; an allocator keeps some of what it
//! freed, and a database has its own.

#![expect(
    clippy::disallowed_macros,
    reason = "the figures of a test that passes are read with --nocapture"
)]

use std::{fmt::Write as _, fs, io::Write as _, net::TcpStream};

use fpush_testkit::{Answer, Command, publish::Publish};
use serde_json::{Value, json};

use crate::{
    bounds::Locked,
    rig::{ALICE, Rig, apple, google, important, notification},
};

/// A daemon that says little, whose memory has settled.
fn start(more: Value, modules: Value) -> Flooded {
    let mut rig = Rig::run(more, modules, |builder| builder.rust_log("info"));
    rig.register(ALICE, "before", &apple(1));
    let before = rig.daemon.rss_kib();
    Flooded { rig, before, sent: 0 }
}

struct Flooded {
    rig: Rig,
    before: u64,
    /// In bytes.
    sent: u64,
}

impl Flooded {
    /// Sends these stanzas, and returns once all have been read.
    fn send(&mut self, stanzas: impl Iterator<Item = String>) {
        let mut batch = String::new();
        for stanza in stanzas {
            batch += &stanza;
            if batch.len() > BATCH {
                self.flush(&mut batch);
            }
        }
        self.flush(&mut batch);
    }

    fn flush(&mut self, batch: &mut String) {
        self.sent += batch.len() as u64;
        self.rig.link.send_bytes(&*batch);
        batch.clear();
        self.rig.ask("get", "<ping xmlns='urn:xmpp:ping'/>");
    }

    /// Checks that the memory has grown by less than so many MiB, which are less than half of what was sent.
    #[track_caller]
    fn has_grown_by_less_than(&self, mebibytes: u64) {
        let grown = self.rig.daemon.peak_rss_kib().saturating_sub(self.before) / 1_024;
        let sent = self.sent / 1_024 / 1_024;
        println!("{grown} MiB more of {sent} MiB that were sent");
        assert!(grown < mebibytes, "{grown} MiB more of {sent} MiB");
        assert!(2 * mebibytes <= sent, "{sent} MiB are not a flood");
    }

    /// The daemon still serves everybody, and nothing waits any more.
    #[track_caller]
    fn ends_well(mut self) {
        let secret = self.rig.register(ALICE, "after", &apple(2));
        assert_eq!(self.rig.push("after", &secret), crate::rig::RESULT);
    }
}

/// A name below a domain that somebody owns.
fn stranger(number: usize) -> String {
    format!("d{number}.flood.org")
}

/// What is read of a publish has bounds, whatever it carries; those that wait for a silent provider have one in number.
#[test]
fn publishes_with_long_payloads() {
    const PERMITS: usize = 100;
    // As many wait as ten times the permits.
    const KEPT: usize = 11 * PERMITS;
    let mut flooded = start(json!({}), json!({ "android": { "maxInFlight": PERMITS } }));
    flooded.rig.fcm.answer_with(|_| Answer::Silence);
    let body = format!(
        "<x xmlns='jabber:x:data'><field var='last-message-body'><value>{}</value></field></x>",
        "x".repeat(20_000)
    );
    let token = |number: usize| format!("{}{}", google(number), "x".repeat(3_900));
    flooded.send((0..2_500).map(|number| {
        let id = format!("p{number}{}", "x".repeat(4_000));
        notification(&id, &token(number), None, Some("android"), &body)
            .from(&stranger(number))
            .to_string()
    }));
    let refused = flooded.rig.link.pending().len();
    assert!(refused >= 2_500 - KEPT, "{refused} of 2500 are refused");
    flooded.has_grown_by_less_than(24);
}

/// Pushes that are acknowledged and wait for their time: of a domain that is known, with the longest tokens.
#[test]
fn held_pushes() {
    let limit = json!({ "ratelimit": { "enabled": true, "ratelimitTime": "1h" } });
    let mut flooded = start(json!({}), json!({ "flooded": merged_demo(limit) }));
    let token = |number: usize| format!("{number:08}{}", "x".repeat(4_000));
    for round in 0..2 {
        flooded.send((0..20_000).map(|number| {
            important(
                &format!("h{round}-{number}"),
                &token(number),
                None,
                Some("flooded"),
            )
            .from(&stranger(number % 1_000))
            .to_string()
        }));
    }
    flooded.has_grown_by_less_than(70);
}

fn merged_demo(limit: Value) -> Value {
    fpush_testkit::merged(json!({ "type": "demo" }), limit)
}

/// Look-ups wait for the database, with nodes and secrets as long as they may be.
#[test]
fn look_ups() {
    let mut flooded = start(json!({ "store": { "cache": false } }), json!({}));
    for size in [1_500, 4_000, 20_000] {
        let (node, secret) = ("n".repeat(size), "s".repeat(size));
        flooded.send((0..10_000_000 / size).map(|number| {
            important(
                &format!("l{size}-{number}"),
                &format!("{number}{node}"),
                Some(&secret),
                None,
            )
            .from(&stranger(number))
            .to_string()
        }));
    }
    flooded.has_grown_by_less_than(20);
    flooded.ends_well();
}

/// Commands wait for a database that writes nothing, with fields of every length.
#[test]
fn registrations() {
    let mut flooded = start(json!({}), json!({}));
    let lock = Locked::new(&flooded.rig.path("devices.db"));
    for (size, count) in [(3_000, 3_000), (4_096, 1_500), (300_000, 20)] {
        let value = "v".repeat(size);
        flooded.send((0..count).map(|number| {
            let fields = ["type", "node", "token", "secret", "device-id", "muc", "x"]
                .map(|name| (name, value.as_str()));
            let fields = if size == 3_000 { &fields[..1] } else { &fields[..] };
            Command::new(&format!("c{size}-{number}"), "v1-register-push", fields)
                .from(&format!("u{number}@{}/x", stranger(number)))
                .to_string()
        }));
    }
    flooded.has_grown_by_less_than(32);
    lock.release();
    flooded.ends_well();
}

/// What wants no answer, or one that is known at once.
#[test]
fn everything_else() {
    let mut flooded = start(json!({}), json!({}));
    let long = "x".repeat(7_000);
    let text = "y".repeat(400_000);
    let stanza = |kind: usize, number: usize| {
        let (from, to) = (
            format!("u@{}/{}", stranger(number), "r".repeat(900)),
            "push.localhost",
        );
        let iq = |kind: &str, content: &str| {
            format!("<iq type='{kind}' from='{from}' to='{to}' id='{long}{number}'>{content}</iq>")
        };
        match kind {
            0 => iq("set", &format!("<unknown xmlns='urn:x'>{text}</unknown>")),
            1 => iq(
                "get",
                &format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{text}'/>"),
            ),
            2 => iq(
                "get",
                &format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{text}'/>"),
            ),
            3 => format!("<message from='{from}' to='{to}' id='{long}'><body>{text}</body></message>"),
            4 => format!(
                "<presence type='subscribe' from='{from}' to='{to}' id='{long}'><status>{text}</status></presence>"
            ),
            5 => format!("<presence from='{from}' to='{to}'><status>{text}</status></presence>"),
            6 => iq(
                "set",
                &format!(
                    "<command xmlns='http://jabber.org/protocol/commands' node='{text}' action='cancel' sessionid='{text}'/>"
                ),
            ),
            _ => Publish::new(&long, "", &format!("<item>{text}</item>"), "")
                .from(&from)
                .to_string(),
        }
    };
    for kind in 0..8 {
        flooded.send((0..20).map(|number| stanza(kind, number)));
        // The fake server keeps what nobody asks for; ours does not.
        drop(flooded.rig.link.pending());
    }
    flooded.has_grown_by_less_than(24);
    flooded.ends_well();
}

/// Clients of the HTTP API that register, and clients that send a part of a form and no more.
#[test]
fn http_registrations() {
    let mut flooded = start(json!({}), json!({}));
    let address = flooded.rig.http_address();
    let lock = Locked::new(&flooded.rig.path("devices.db"));
    let head = "POST /push_appserver/v1/register HTTP/1.1\r\nHost: x\r\n";
    let mut connections = Vec::new();
    // Who is one too many is hung up on.
    let mut open = |request: &str| {
        if let Ok(mut socket) = TcpStream::connect(address)
            && socket.write_all(request.as_bytes()).is_ok()
        {
            connections.push(socket);
        }
    };
    let mut sent = 0;
    for number in 0..1_500 {
        let mut form = String::new();
        let _ = write!(
            form,
            "type=apns&node=h{number}&token={}&x={}",
            apple(number),
            "x".repeat(3_900)
        );
        let header = format!("X-Long: {}\r\n", "h".repeat(6_000));
        let part = if number % 2 == 0 {
            form.len()
        } else {
            form.len() / 2
        };
        let request = format!(
            "{head}{header}Content-Length: {}\r\n\r\n{}",
            form.len(),
            &form[..part]
        );
        sent += request.len();
        open(&request);
        // Of one that is much too large nothing is kept.
        if number % 10 == 0 {
            let large = format!("{head}Content-Length: 60000\r\n\r\n{}", "y".repeat(60_000));
            sent += large.len();
            open(&large);
        }
    }
    flooded.sent += sent as u64;
    let grown = flooded.rig.daemon.peak_rss_kib().saturating_sub(flooded.before) / 1_024;
    println!("{grown} MiB more of {} MiB that were sent", sent / 1_024 / 1_024);
    assert!(grown < 24, "{grown} MiB");
    drop(connections);
    lock.release();
    let size = fs::metadata(flooded.rig.path("devices.db")).unwrap().len();
    assert!(size < 4 << 20, "{size} bytes on disk");
    flooded.ends_well();
}

const BATCH: usize = 4 << 20;
