//! What operators do with registered devices: import, export, and a look at them.

use std::{
    collections::HashSet,
    env,
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use fpush_push::files;
use fpush_registry::{Device, IfMissing, Imported, Registry, Time, lines, prosody};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::runtime;

use crate::{
    cli::{Devices, Import, SettingsFile},
    console::{Console, Exit},
    logging,
    settings::load_registration,
};

pub(crate) fn import(import: &Import, console: &mut Console) -> Exit {
    match import {
        Import::ModPushAppserver { folder, settings } => {
            with_registry(settings, IfMissing::Make, console, async |registry, console| {
                let files =
                    prosody::find(folder).with_context(|| format!("cannot read {}", folder.display()))?;
                if files.is_empty() {
                    bail!(
                        "there is no file HOST/push_appserver/NODE.dat below {}: expected Prosody's data folder, such \
                         as /var/lib/prosody",
                        folder.display()
                    );
                }
                let devices = files
                    .iter()
                    .map(|file| prosody::read(file).map_err(|error| anyhow!("{}: {error}", file.display())));
                take_over(&registry, devices, files.len(), console).await
            })
        }
        Import::Json { file, settings } => {
            with_registry(settings, IfMissing::Make, console, async |registry, console| {
                let name = file.display();
                let reader: Box<dyn BufRead> = if file.as_os_str() == "-" {
                    Box::new(io::stdin().lock())
                } else {
                    let file = File::open(file).with_context(|| format!("cannot read {name}"))?;
                    Box::new(BufReader::new(file))
                };
                let mut text = files::Lines::new(reader, LONGEST_LINE);
                let mut next = || {
                    let line = text.next_line().transpose()?;
                    Some(line.and_then(|line| {
                        let line = str::from_utf8(line)
                            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                        Ok(line.to_owned())
                    }))
                };
                let devices = (1..).zip(std::iter::from_fn(&mut next)).map(|(number, line)| {
                    let line = line.with_context(|| format!("{name}, line {number}"))?;
                    lines::from_line(&line).map_err(|error| anyhow!("{name}, line {number}: {error}"))
                });
                take_over(&registry, devices, 0, console).await
            })
        }
    }
}

pub(crate) fn export(settings: &SettingsFile, console: &mut Console) -> Exit {
    with_registry(settings, IfMissing::Fail, console, async |registry, console| {
        write_all(&registry, console, lines::to_line).await
    })
}

pub(crate) fn devices(devices: &Devices, console: &mut Console) -> Exit {
    match devices {
        Devices::List { settings, form } => {
            with_registry(settings, IfMissing::Fail, console, async |registry, console| {
                let line = |device: &Device| {
                    if form.json {
                        return as_json(device).to_string();
                    }
                    let renewed = device.renewed.unwrap_or(device.registered);
                    format!(
                        "{}\t{}\tregistered {}\trenewed {renewed}",
                        device.node, device.kind, device.registered
                    )
                };
                write_all(&registry, console, line).await
            })
        }
        Devices::Show { node, settings, form } => {
            with_registry(settings, IfMissing::Fail, console, async |registry, console| {
                let Some(device) = registry.show(node).await? else {
                    return Ok(unknown(console));
                };
                if form.json {
                    console.json(&as_json(&device));
                    return Ok(Exit::Success);
                }
                let time =
                    |time: Option<Time>| time.map_or_else(|| "never".to_owned(), |time| time.to_string());
                let owner = device.owner.as_deref().unwrap_or("none (registered over HTTP)");
                for (name, value) in [
                    ("node", device.node.as_str()),
                    ("dialect", device.dialect.name()),
                    ("type", device.kind.as_ref()),
                    ("owner", owner),
                    ("registered", &device.registered.to_string()),
                    ("renewed", &time(device.renewed)),
                    ("last_successful_push", &time(device.delivered)),
                    ("last_push_error", &time(device.failed)),
                ] {
                    console.say(format_args!("{name}: {value}"));
                }
                Ok(Exit::Success)
            })
        }
        Devices::Accept { settings, form } => {
            with_registry(settings, IfMissing::Fail, console, async |registry, console| {
                let count = registry.accept().await?;
                if form.json {
                    console.json(&json!({ "accepted": true, "devices": count }));
                    return Ok(Exit::Success);
                }
                console.say(format_args!(
                "accepted: of registrations that end from now on this database is believed that they are gone; registered \
                 devices: {count}"
            ));
                if count == 0 {
                    console.say("There is none in it. If some should be, correct registration.store, and accept that one.");
                }
                Ok(Exit::Success)
            })
        }
        Devices::Remove { node, settings, form } => {
            with_registry(settings, IfMissing::Fail, console, async |registry, console| {
                if !registry.remove(node).await? {
                    return Ok(unknown(console));
                }
                if form.json {
                    console.json(&json!({ "removed": node }));
                } else {
                    console.say("removed");
                }
                Ok(Exit::Success)
            })
        }
    }
}

fn unknown(console: &mut Console) -> Exit {
    console.complain("no device is registered under this node");
    Exit::No
}

/// What is known of a device but its secret and its token.
fn as_json(device: &Device) -> serde_json::Value {
    let time = |time: Option<Time>| time.map(|time| time.to_string());
    json!({
        "node": device.node,
        "dialect": device.dialect.name(),
        "type": device.kind,
        "owner": device.owner,
        "registered": device.registered.to_string(),
        "renewed": time(device.renewed),
        "last_successful_push": time(device.delivered),
        "last_push_error": time(device.failed),
    })
}

/// Imports devices in batches, with a progress bar where there is somebody to see it, and says what was not read.
async fn take_over(
    registry: &Registry,
    devices: impl Iterator<Item = anyhow::Result<Device>>,
    count: usize,
    console: &mut Console,
) -> anyhow::Result<Exit> {
    let bar = progress(count)?;
    let (mut total, mut unread, mut first) = (Imported::default(), 0_u64, Vec::new());
    let mut skip = |error: anyhow::Error| {
        unread += 1;
        if first.len() < NAMED {
            first.push(error);
        }
    };
    let (mut batch, mut nodes) = (Vec::with_capacity(BATCH), HashSet::new());
    let mut devices = devices.peekable();
    while let Some(device) = devices.next() {
        match device {
            Ok(device) => {
                if nodes.insert(device.node.clone()) {
                    batch.push(device);
                } else {
                    skip(anyhow!("a node occurs twice; the first one counts"));
                }
            }
            Err(error) => skip(error),
        }
        bar.inc(1);
        if batch.len() == BATCH || devices.peek().is_none() {
            total += registry
                .import(std::mem::take(&mut batch))
                .await
                .with_context(|| {
                    format!(
                        "{} devices were imported or there already; run it again for the others",
                        total.total()
                    )
                })?;
        }
    }
    bar.finish_and_clear();
    for error in &first {
        console.complain(format_args!("not imported: {error:#}"));
    }
    let more = unread - first.len() as u64;
    if more > 0 {
        console.complain(format_args!("not imported: {more} more"));
    }
    for full in registry.full().await? {
        console.complain(format_args!("warning: {full}"));
    }
    console.say(format_args!(
        "{} devices added, {} changed, {} there already, {unread} not imported",
        total.added, total.changed, total.unchanged,
    ));
    Ok(if unread == 0 { Exit::Success } else { Exit::No })
}

/// A bar, or what turns if nobody knows how much there is; nothing where a terminal cannot show it.
fn progress(count: usize) -> anyhow::Result<ProgressBar> {
    let style = if count > 0 {
        "{bar:40} {human_pos} of {human_len}"
    } else {
        "{spinner} {human_pos}"
    };
    let bar = ProgressBar::new(count as u64).with_style(ProgressStyle::with_template(style)?);
    if env::var_os("TERM").is_some_and(|terminal| terminal == "dumb") {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    Ok(bar)
}

/// Writes a line for each device, a page at a time, until nobody reads it any more.
async fn write_all(
    registry: &Registry,
    console: &mut Console,
    line: impl Fn(&Device) -> String,
) -> anyhow::Result<Exit> {
    let (mut after, mut exit) = (None, Exit::Success);
    loop {
        let page = registry.page(after.as_deref(), BATCH).await?;
        if let Some(unreadable) = page.unreadable {
            console.error(format_args!("left out: {unreadable}"));
            exit = Exit::No;
        }
        let mut text = String::new();
        for device in &page.devices {
            writeln!(text, "{}", line(device))?;
        }
        let is_last = page.devices.len() < BATCH;
        if console.write(text).is_err() || is_last {
            break;
        }
        after = page.devices.into_iter().last().map(|last| last.node);
    }
    Ok(exit)
}

/// Opens the registry of the settings for a command, and closes it in the end. Says what goes wrong.
fn with_registry(
    settings: &SettingsFile,
    if_missing: IfMissing,
    console: &mut Console,
    act: impl AsyncFnOnce(Arc<Registry>, &mut Console) -> anyhow::Result<Exit>,
) -> Exit {
    let file = settings.choose(console);
    let registry = match load_registration(&file) {
        Ok(Some(registration)) => registration.registry,
        Ok(None) => {
            console.error(format_args!(
                "{} has no block \"registration\", so there are no registered devices",
                file.display()
            ));
            return Exit::Config;
        }
        Err(problems) => {
            console.problems(&problems);
            return Exit::Config;
        }
    };
    logging::start_for_command();
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            let (registry, background) = Registry::open_for_command(registry, if_missing).await?;
            let background = tokio::spawn(background);
            let result = act(Arc::clone(&registry), console).await;
            registry.close().await;
            background.abort();
            result
        })
    });
    result.unwrap_or_else(|error| {
        console.error(format_args!("{error:#}"));
        Exit::OsError
    })
}

/// Devices at a time.
const BATCH: usize = 1_000;
/// Mistakes that are named in full.
const NAMED: usize = 10;
/// A device has a dozen fields, the longest of 4 KiB.
const LONGEST_LINE: usize = 64 << 10;
