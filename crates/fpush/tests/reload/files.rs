//! Certificates and keys that change on disk, without a word to the daemon.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use fpush_testkit::{ClientAuth, FakeApns, Scrape, TempDir, certs::Identity, fixture};
use serde_json::json;

use crate::rig::{LONG, RESULT, SECOND, World, apple, google, until};

const DAY: Duration = Duration::from_secs(86_400);
/// What the documents promise.
const MINUTE: Duration = Duration::from_secs(60);

/// The metrics of a listener with TLS, whose certificate is not looked at.
#[track_caller]
fn scrape(address: SocketAddr) -> Scrape {
    let url = format!("https://{address}/metrics");
    let output = Command::new("curl")
        .args(["-sSkf", "--noproxy", "*", &url])
        .output()
        .expect("this test needs curl: apt-get install curl");
    assert!(output.status.success(), "{output:?}");
    Scrape::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[track_caller]
fn days(scrape: &Scrape, metric: &str) -> f64 {
    scrape.value(metric, &[]).unwrap_or_default() / DAY.as_secs_f64()
}

/// A FIFO, and a device without an end, in the place of a running daemon's certificate.
#[test]
fn whatever_takes_the_place_of_a_certificate_a_daemon_goes_on() {
    let world = World::new();
    let ios =
        world.apple(json!({ "apns": { "certFilePath": "client.pem", "certKeyFilePath": "client.key.pem" } }));
    let mut settings = world.settings(json!({ "ios": ios, "android": world.google(json!({})) }));
    settings["monitoring"]["certFilePath"] = "tls.pem".into();
    settings["monitoring"]["keyFilePath"] = "tls.key.pem".into();
    let text = |name: &str| fs::read_to_string(fixture(name)).unwrap();
    let (certificate, key) = (text("aps.pem"), text("aps.key.pem"));
    let [tls, new_tls] = [100, 200].map(|days| world.ca().client_cert("tls", SystemTime::now() + days * DAY));
    let files = [
        ("client.pem", &*certificate),
        ("client.key.pem", &*key),
        ("tls.pem", &tls.cert_pem),
        ("tls.key.pem", &tls.key_pem),
    ];
    let mut rig = world.start(settings, &files);
    let path = rig.conductor.daemon.dir().join("client.pem");
    fs::remove_file(&path).unwrap();
    let fifo = Command::new("mkfifo").arg(&path).status();
    assert!(fifo.unwrap().success());
    rig.conductor
        .daemon
        .wait_for_log("cannot be used; looking again soon", MINUTE);
    assert_eq!(rig.push("ios", &apple(1)), RESULT);
    // The listener's certificate has nothing to do with it.
    rig.conductor.put("tls.pem", &new_tls.cert_pem);
    rig.conductor.put("tls.key.pem", &new_tls.key_pem);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    rig.conductor
        .daemon
        .wait_for_log("it is not a regular file", MINUTE);
    rig.conductor
        .daemon
        .wait_for_log("the certificate has changed and was read again", MINUTE);
    assert_eq!(rig.push("ios", &apple(2)), RESULT);
    assert!(rig.conductor.daemon.peak_rss_kib() < 100 * 1_024);
}

/// Two authorities that vouch for each other, in the place of a running daemon's identity.
#[test]
fn a_chain_without_an_end_ends_no_daemon() {
    let world = World::new();
    // Whose certificate it is does not matter here.
    let apns = FakeApns::builder(world.ca()).client_auth(ClientAuth::Off).start();
    let folder = TempDir::new();
    let path = folder.path().join("client.p12");
    let copy = |name: &str| assert!(fs::copy(fixture(name), &path).is_ok());
    copy("apple/unlabelled.p12");
    let ios = world.apple(json!({ "apns": {
        "certFilePath": path, "certPassword": "test12", "certKeyFilePath": null, "endpoint": apns.url(),
    } }));
    let settings = world.settings(json!({ "ios": ios, "android": world.google(json!({})) }));
    let mut rig = world.start(settings, &[]);
    assert_eq!(rig.push("ios", &apple(1)), RESULT);
    copy("apple/ring.p12");
    rig.conductor.daemon.wait_for_log("files reloaded", MINUTE);
    assert_eq!(rig.push("ios", &apple(2)), RESULT);
    let requests = apns.wait_for(2, LONG);
    assert_ne!(requests[0].connection, requests[1].connection, "with the new one");
    assert!(rig.conductor.daemon.peak_rss_kib() < 100 * 1_024);
}

#[test]
fn certificates_and_keys_that_change_are_taken_up_within_a_minute() {
    let world = World::new();
    let lasting = |days: u32| -> Identity { world.ca().client_cert("one", SystemTime::now() + days * DAY) };
    let [old, new, old_tls, new_tls] = [100, 200, 110, 210].map(lasting);
    let ios = world.apple(json!({ "apns": {
        "certFilePath": "client.pem", "certKeyFilePath": "client.key.pem", "alertTitle": "Old",
    } }));
    let mut settings = world.settings(json!({ "ios": ios, "android": world.google(json!({})) }));
    settings["monitoring"]["certFilePath"] = "tls.pem".into();
    settings["monitoring"]["keyFilePath"] = "tls.key.pem".into();
    let files = [
        ("client.pem", &*old.cert_pem),
        ("client.key.pem", &old.key_pem),
        ("tls.pem", &old_tls.cert_pem),
        ("tls.key.pem", &old_tls.key_pem),
    ];
    let second_project = world.fcm.service_account("project-2");
    let mut rig = world.start(settings, &files);
    assert_eq!(rig.push("ios", &apple(1)), RESULT);
    assert_eq!(rig.push("android", &google(1)), RESULT);
    let address = rig.conductor.monitoring().address();
    until(LONG, "the first status", || {
        days(&scrape(address), "fpush_credential_expires_in_seconds") > 0.0
    });
    let now = scrape(address);
    assert!((99.0..101.0).contains(&days(&now, "fpush_credential_expires_in_seconds")));
    assert!((109.0..111.0).contains(&days(&now, "fpush_certificate_expires_in_seconds")));

    // What the operator wants is refused, and the file with the mistake stays where it is …
    let wrong = rig.conductor.changed(json!({ "pushModules": {
        "ios": { "apns": { "alertTitle": "New" } }, "fresh": { "type": "unknown" },
    } }));
    rig.conductor.refuse(&wrong.to_string());
    let errors = |log: String| log.lines().filter(|line| line.contains("ERROR")).count();
    let before = errors(rig.conductor.daemon.log());

    // … while certificates change, before their keys.
    let start = Instant::now();
    rig.conductor.put("client.pem", &new.cert_pem);
    rig.conductor.put("tls.pem", &new_tls.cert_pem);
    rig.conductor.put("fcm.json", &second_project);
    rig.conductor
        .daemon
        .wait_for_log("cannot be used; looking again soon", MINUTE);
    assert_eq!(rig.title("ios", &apple(2)), "Old");
    assert_eq!(rig.push("android", &google(2)), RESULT);
    assert_eq!(rig.world.apns.requests()[1].connection, 1, "the old one goes on");
    assert_eq!(rig.world.fcm.sends()[1].project, "project-1");
    let keys = Instant::now();
    rig.conductor.put("client.key.pem", &new.key_pem);
    rig.conductor.put("tls.key.pem", &new_tls.key_pem);
    rig.conductor.daemon.wait_for_log("files reloaded", MINUTE);
    rig.conductor
        .daemon
        .wait_for_log("the certificate has changed and was read again", MINUTE);
    until(LONG, "the certificates are new ones", || {
        let now = scrape(address);
        days(&now, "fpush_credential_expires_in_seconds") > 199.0
            && days(&now, "fpush_certificate_expires_in_seconds") > 209.0
    });
    println!(
        "{:.1?} after the keys, {:.1?} after the first change",
        keys.elapsed(),
        start.elapsed()
    );
    assert!(keys.elapsed() < MINUTE + 5 * SECOND);

    assert_eq!(
        rig.title("ios", &apple(3)),
        "Old",
        "nobody asked for the new settings"
    );
    let requests = rig.world.apns.requests();
    assert!(requests.iter().all(|request| request.client_cert));
    assert_eq!(requests[2].connection, 2, "with the new certificate");
    assert_eq!(rig.push("android", &google(3)), RESULT);
    assert_eq!(rig.world.fcm.wait_for(3, LONG)[2].project, "project-2");
    let log = rig.conductor.daemon.log();
    assert_eq!(errors(log.clone()), before, "{log}");
    let value = |name: &str, labels: &[(&str, &str)]| scrape(address).value(name, labels);
    let reloads = |result: &str| value("fpush_reloads_total", &[("result", result)]);
    assert_eq!((reloads("ok"), reloads("refused")), (Some(1.0), Some(1.0)));
    assert_eq!(value("fpush_component_connects_total", &[]), Some(1.0));
    assert_eq!(
        value("fpush_last_reload_successful", &[]),
        Some(0.0),
        "what the operator wanted is still not in force"
    );
    rig.reload(json!({ "pushModules": { "ios": { "apns": { "alertTitle": "New" } } } }));
    until(LONG, "now it is", || {
        value("fpush_last_reload_successful", &[]) == Some(1.0)
    });
    assert_eq!(rig.title("ios", &apple(4)), "New");
}
