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

use super::group::Subject;
use super::load::{Amount, Kind};
use super::plan::{LOADS, Plan};
use super::rig::Rig;
use super::stats::millis;
use super::target::Target;
use super::template::{NUMBER, Template};
use super::throughput::per_push;

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let (fpush, plan) = (subject.fpush, subject.plan);
    let count = plan.devices;
    println!("registered devices: {count}");
    let folder = TempDir::new();
    let registration = json!({
        "store": { "type": "sqlite", "path": folder.path().join("devices.db"), "cache": true },
        "types": { TYPE: MODULE },
        // Room for those that register beside them.
        "maxDevices": 2 * count,
    });
    let modules = json!({ MODULE: { "type": "demo" } });

    let mut empty = Rig::start_with(fpush, &modules, Some(&registration))?;
    let before = empty.resident()?;
    let stateless = cpu_per_push(&mut empty, &publish("pushModule", MODULE), plan)?;
    let without = empty.startup;
    drop(empty);

    let import = import(fpush, &folder, &registration, count)?.as_secs_f64();
    let mut rig = Rig::start_with(fpush, &modules, Some(&registration))?;
    let linked = Instant::now();
    first_answered(&mut rig, count)?;
    let answered = rig.startup + linked.elapsed();
    let bytes = settled(&rig)?.saturating_sub(before);

    let mut targets = vec![
        Target::at_least(
            format!("fpush import json, {count} devices"),
            count as f64 / import,
            60_000.0,
            "/s",
        ),
        Target::none(
            format!("from exec to link up with {count} devices"),
            millis(rig.startup),
            " ms",
        ),
        Target::at_most(
            "from exec to the first answered publish for one of them",
            millis(answered),
            500.0,
            " ms",
        ),
        Target::none("from exec to link up without any", millis(without), " ms"),
        Target::at_most(
            "memory of a registered device",
            bytes as f64 / count as f64,
            160.0,
            " bytes",
        ),
    ];
    for in_flight in plan.registering {
        // Numbers above those of the devices that are there.
        rig.link.next = rig.link.next.max(count);
        let (done, cpu) = rig.run(
            &[register()],
            in_flight,
            Amount::Time(plan.others.time),
            Kind::Result,
        )?;
        let what = format!("registrations by command, each on disk, {in_flight} under way");
        let per_second = done.pushes as f64 / done.elapsed.as_secs_f64();
        targets.push(if plan.registering.ends_with(&[in_flight]) {
            Target::at_least(what, per_second, 25_000.0, "/s")
        } else {
            Target::none(what, per_second, "/s")
        });
        targets.push(Target::none("CPU of each", per_push(cpu, done.pushes), " us"));
    }
    // Last, because the times of a million pushes are written down for a while afterwards.
    let registered = cpu_per_push(&mut rig, &publish("secret", SECRET), plan)?;
    targets.extend([
        Target::none(
            "CPU per push to a registered device, demo, 512 in flight",
            registered,
            " us",
        ),
        Target::none("the same to a token, on an empty registry", stateless, " us"),
    ]);
    Ok(targets)
}

/// Publishes for a device, again and again until that is answered with a result. While devices come into memory nobody may be
/// told that it is gone.
fn first_answered(rig: &mut Rig, count: u64) -> Result<()> {
    let publish = [publish("secret", SECRET)];
    let start = Instant::now();
    loop {
        rig.link.next = count - 1;
        let mut kind = None;
        rig.link.run_with(&publish, 1, Amount::Publishes(1), |reply| {
            kind = Some(reply.kind);
            Ok(())
        })?;
        ensure!(kind != Some(Kind::Gone), "a registered device was called gone");
        if kind == Some(Kind::Result) {
            return Ok(());
        }
        ensure!(start.elapsed() < LONGEST_LOAD, "a registered device is not found");
    }
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
    Ok(per_push(cpu, done.pushes))
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

const MODULE: &str = "demo";
/// The push type.
const TYPE: &str = "fcm";
const SECRET: &str = "7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c7c1f0f2a9d3e4b5c";
/// Devices come into memory at some hundred thousand a second.
const LONGEST_LOAD: Duration = Duration::from_secs(120);
