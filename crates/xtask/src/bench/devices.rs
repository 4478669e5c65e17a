//! Registered devices: what they take, and what it costs to find and to register one.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fpush_testkit::TempDir;
use fpush_testkit::publish::prosody_publish;
use serde_json::{Value, json};

use super::load::{Amount, Kind};
use super::megabytes;
use super::plan::{LOADS, Plan};
use super::rig::Rig;
use super::stats::millis;
use super::template::{NUMBER, Template};
use crate::table::Table;

pub(super) struct Devices {
    count: u64,
    /// `fpush import json` of all of them.
    import: Duration,
    /// From exec to link up with all of them, and without any.
    startup: [Duration; 2],
    /// The memory that they take.
    bytes: u64,
    /// CPU per push to a registered device, and to a token, in microseconds.
    cpu: [f64; 2],
    /// Registrations that were acknowledged, a second, with so many under way.
    registrations: Vec<(u64, f64)>,
}

pub(super) fn measure(fpush: &Path, plan: &Plan) -> Result<Devices> {
    let count = plan.devices;
    println!("registered devices: {count}");
    let folder = TempDir::new();
    let registration = json!({
        "store": { "type": "sqlite", "path": folder.path().join("devices.db") },
        "types": { TYPE: MODULE },
    });
    let modules = json!({ MODULE: { "type": "demo" } });

    let mut empty = Rig::start_with(fpush, &modules, Some(&registration))?;
    let before = empty.resident()?;
    let stateless = cpu_per_push(&mut empty, &publish("pushModule", MODULE), plan)?;
    let without = empty.startup;
    drop(empty);

    let import = import(fpush, &folder, &registration, count)?;
    let mut rig = Rig::start_with(fpush, &modules, Some(&registration))?;
    let bytes = settled(&rig)?.saturating_sub(before);
    let registered = cpu_per_push(&mut rig, &publish("secret", SECRET), plan)?;

    let mut registrations = Vec::new();
    for in_flight in [1, 64, 512] {
        // Numbers above those of the devices that are there.
        rig.link.next = rig.link.next.max(count);
        let template = register();
        let (done, _) = rig.run(
            &[template],
            in_flight,
            Amount::Time(plan.others.time),
            Kind::Result,
        )?;
        registrations.push((in_flight, done.pushes as f64 / done.elapsed.as_secs_f64()));
    }
    Ok(Devices {
        count,
        import,
        startup: [rig.startup, without],
        bytes,
        cpu: [registered, stateless],
        registrations,
    })
}

/// The memory that it has when all devices are there, which come into it beside the pushes: when it grows no more.
fn settled(rig: &Rig) -> Result<u64> {
    let mut before = rig.resident()?;
    loop {
        sleep(Duration::from_secs(1));
        let now = rig.resident()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

/// Publishes for the devices from the first on, each once, for a while: at most for half of them.
fn cpu_per_push(rig: &mut Rig, template: &Template, plan: &Plan) -> Result<f64> {
    rig.link.next = 0;
    let amount = Amount::Publishes(plan.devices / 2);
    let (done, cpu) = rig.run(
        std::slice::from_ref(template),
        LOADS[0].in_flight,
        amount,
        Kind::Result,
    )?;
    Ok(cpu.as_secs_f64() * 1e6 / done.pushes as f64)
}

fn import(fpush: &Path, folder: &TempDir, registration: &Value, count: u64) -> Result<Duration> {
    let settings = json!({ "pushModules": { MODULE: { "type": "demo" } }, "registration": registration });
    let settings = folder.write("settings.json", settings.to_string());
    let lines = folder.path().join("devices.jsonl");
    let mut out = BufWriter::new(File::create(&lines)?);
    for number in 0..count {
        let device = json!({
            "dialect": "mod_push_appserver",
            "type": TYPE,
            "node": node(number),
            "secret": SECRET,
            "token": format!("{number:064x}"),
            "owner": format!("user{number}@localhost"),
            "registered": "2026-01-01T00:00:00Z",
        });
        writeln!(out, "{device}")?;
    }
    out.flush()?;
    drop(out);
    let start = Instant::now();
    let status = Command::new(fpush)
        .args(["import", "json"])
        .args([&lines, &settings])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .context("cannot start the import")?;
    ensure!(status.success(), "the import failed");
    Ok(start.elapsed())
}

fn node(number: u64) -> String {
    format!("{number:016x}-device")
}

/// A publish with one publish option.
fn publish(option: &str, value: &str) -> Template {
    let (id, node) = (format!("{NUMBER}{}", "1".repeat(48)), format!("{NUMBER}-device"));
    let publish = prosody_publish(&id, &node, Some(value), true).from("localhost");
    Template::of(&publish.to_string().replace("pushModule", option))
}

fn register() -> Template {
    let field = |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    Template::of(&format!(
        "<iq type='set' from='user{NUMBER}@localhost/r' to='push.localhost' id='{NUMBER}'>\
         <command xmlns='http://jabber.org/protocol/commands' node='v1-register-push' action='execute'>\
         <x xmlns='jabber:x:data' type='submit'>{}{}{}</x></command></iq>",
        field("type", TYPE),
        field("node", &format!("{NUMBER}-device")),
        field("token", &format!("{NUMBER}{}", "0".repeat(48))),
    ))
}

impl Devices {
    pub(super) fn table(&self) -> Table {
        let row = |what: String, measured: String| vec![what, measured];
        let count = self.count;
        let per_second = count as f64 / self.import.as_secs_f64();
        let [with, without] = self.startup;
        let [registered, stateless] = self.cpu;
        let mut rows = vec![
            row(
                format!("fpush import json, {count} devices"),
                format!("{per_second:.0}/s"),
            ),
            row(
                format!("from exec to link up with {count} devices"),
                format!("{:.0} ms", millis(with)),
            ),
            row(
                "the same without any".to_owned(),
                format!("{:.0} ms", millis(without)),
            ),
            row(
                format!("{count} devices in memory"),
                format!("{:.0} MB", megabytes(self.bytes)),
            ),
            row(
                "CPU per push to a registered device, demo, 512 in flight".to_owned(),
                format!("{registered:.1} us"),
            ),
            row(
                "the same to a token, on an empty registry".to_owned(),
                format!("{stateless:.1} us"),
            ),
        ];
        rows.extend(self.registrations.iter().map(|(in_flight, per_second)| {
            row(
                format!("registrations by command, each on disk, {in_flight} under way"),
                format!("{per_second:.0}/s"),
            )
        }));
        Table {
            title: "Registered devices (SQLite)".to_owned(),
            head: &["", "measured"],
            rows,
            notes: vec!["Registrations that come together share one write to the disk.".to_owned()],
        }
    }

    pub(super) fn json(&self) -> Value {
        let [with, without] = self.startup;
        let [registered, stateless] = self.cpu;
        json!({
            "count": self.count,
            "import_seconds": self.import.as_secs_f64(),
            "startup_ms": millis(with),
            "startup_empty_ms": millis(without),
            "bytes": self.bytes,
            "cpu_us_registered": registered,
            "cpu_us_stateless": stateless,
            "registrations": self
                .registrations
                .iter()
                .map(|(in_flight, per_second)| json!({ "in_flight": in_flight, "per_second": per_second }))
                .collect::<Vec<_>>(),
        })
    }
}

const MODULE: &str = "demo";
/// The push type.
const TYPE: &str = "fcm";
const SECRET: &str = "7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c";
