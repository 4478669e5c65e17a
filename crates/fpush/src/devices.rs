//! What operators do with registered devices: import, export, and a look at them.

mod export;

use std::{
    collections::HashSet,
    env, fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use fpush_push::files;
use fpush_registry::{Device, IfMissing, Imported, Registry, Time, lines, p2, prosody};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::{runtime, sync::mpsc};

use crate::{
    cli::{Devices, Export, Form, Import, SettingsFile},
    console::{Console, Exit, as_finding},
    logging,
    settings::load_registration,
};

pub(crate) fn import(import: &Import, console: &mut Console) -> Exit {
    match import {
        Import::ModPushAppserver { folder, settings } => with_registry(
            settings,
            FOR_PEOPLE,
            IfMissing::Make,
            console,
            async |registry, console| {
                let files =
                    prosody::find(folder).with_context(|| format!("cannot read {}", folder.display()))?;
                if files.is_empty() {
                    bail!(
                        "there is no file HOST/push_appserver/NODE.dat below {}: expected Prosody's data folder, such \
                         as /var/lib/prosody",
                        folder.display()
                    );
                }
                let count = files.len();
                let devices = files.into_iter().map(|file| {
                    prosody::read(&file).map_err(|error| Unread {
                        place: file.display().to_string(),
                        reason: error.to_string(),
                    })
                });
                take_over(&registry, devices, count, console).await
            },
        ),
        Import::Json { file, settings } => with_registry(
            settings,
            FOR_PEOPLE,
            IfMissing::Make,
            console,
            async |registry, console| {
                let lines = Lines::open(file)?;
                let devices = lines.map(|line| line.read(lines::from_line));
                take_over(&registry, devices, 0, console).await
            },
        ),
        Import::P2 { file, settings } => with_registry(
            settings,
            FOR_PEOPLE,
            IfMissing::Make,
            console,
            async |registry, console| {
                let mut lines = Lines::open(file)?;
                let written = lines.written;
                let first = lines
                    .next()
                    .context("there is nothing in the file; of an empty table mysql writes nothing at all")?;
                let rows = first.read(|line| p2::Rows::new(line, written));
                let rows = rows.map_err(|Unread { place, reason }| anyhow!("{place}: {reason}"))?;
                let devices = lines.map(move |line| line.read(|line| rows.device(line)));
                take_over(&registry, devices, 0, console).await
            },
        ),
    }
}

/// Something that is not a device, and why.
struct Unread {
    place: String,
    reason: String,
}

/// The lines of a file.
struct Lines {
    name: String,
    text: files::Lines<Box<dyn BufRead + Send>>,
    number: u64,
    /// When the file was written.
    written: Time,
}

/// A line, or why it cannot be read.
struct Line {
    place: String,
    text: io::Result<String>,
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    fn open(file: &Path) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let (reader, written): (Box<dyn BufRead + Send>, _) = if file.as_os_str() == "-" {
            (Box::new(BufReader::new(io::stdin())), Time::now())
        } else {
            let opened = File::open(file).with_context(|| format!("cannot read {name}"))?;
            let written = opened.metadata().and_then(|metadata| metadata.modified());
            let written = written.with_context(|| format!("cannot read {name}"))?;
            (Box::new(BufReader::new(opened)), written.into())
        };
        Ok(Self {
            name,
            text: files::Lines::new(reader, LONGEST_LINE),
            number: 0,
            written,
        })
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let line = self.text.next_line().transpose()?;
        self.number += 1;
        let text = line.and_then(|line| {
            let line = str::from_utf8(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            Ok(line.to_owned())
        });
        Some(Line {
            place: format!("{}, line {}", self.name, self.number),
            text,
        })
    }
}

impl Line {
    fn read<T, E: fmt::Display>(self, read: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Unread> {
        let read = match self.text {
            Ok(text) => read(&text).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let place = self.place;
        read.map_err(|reason| Unread { place, reason })
    }
}

pub(crate) fn export(export: &Export, console: &mut Console) -> Exit {
    let Export {
        format,
        folder,
        settings,
    } = export;
    with_registry(
        settings,
        FOR_PEOPLE,
        IfMissing::Fail,
        console,
        async |registry, console| export::write(&registry, *format, folder.as_deref(), console).await,
    )
}

pub(crate) fn devices(devices: &Devices, console: &mut Console) -> Exit {
    match devices {
        Devices::List { settings, form } => with_registry(
            settings,
            *form,
            IfMissing::Fail,
            console,
            async |registry, console| {
                let line = |device: &Device| {
                    if form.json {
                        return Some(as_json(device).to_string());
                    }
                    let renewed = time(device.renewed);
                    Some(format!(
                        "{}\t{}\tregistered {}\trenewed {renewed}",
                        device.node, device.kind, device.registered
                    ))
                };
                export::write_lines(&registry, console, line).await
            },
        ),
        Devices::Show { node, settings, form } => with_registry(
            settings,
            *form,
            IfMissing::Fail,
            console,
            async |registry, console| {
                let Some(device) = registry.show(node).await? else {
                    return Ok(unknown(*form, console));
                };
                if form.json {
                    console.json(&as_json(&device));
                    return Ok(Exit::Success);
                }
                let owner = match device.owner.as_deref() {
                    Some(owner) if p2::is_somebody(owner) => {
                        &format!("an account of {} (imported)", &owner[1..])
                    }
                    Some(owner) => owner,
                    None => "none (registered over HTTP)",
                };
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
            },
        ),
        Devices::Accept { settings, form } => with_registry(
            settings,
            *form,
            IfMissing::Fail,
            console,
            async |registry, console| {
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
            },
        ),
        Devices::Remove { node, settings, form } => with_registry(
            settings,
            *form,
            IfMissing::Fail,
            console,
            async |registry, console| {
                if !registry.remove(node).await? {
                    return Ok(unknown(*form, console));
                }
                if form.json {
                    console.json(&json!({ "removed": node }));
                } else {
                    console.say("removed");
                }
                Ok(Exit::Success)
            },
        ),
    }
}

/// When something was last done, as a person reads it.
fn time(time: Option<Time>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| time.to_string())
}

fn unknown(form: Form, console: &mut Console) -> Exit {
    let unknown = "no device is registered under this node";
    if form.json {
        console.json(&as_finding(unknown));
    } else {
        console.complain(unknown);
    }
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

/// Reads devices in batches, in a thread of its own, and counts them: it goes on while those before are written.
fn read(
    devices: impl Iterator<Item = Result<Device, Unread>> + Send + 'static,
    bar: ProgressBar,
) -> (mpsc::Receiver<Vec<Result<Device, Unread>>>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(1);
    let reading = thread::spawn(move || {
        let mut devices = devices.inspect(|_| bar.inc(1));
        loop {
            let batch: Vec<_> = devices.by_ref().take(BATCH).collect();
            // Nobody listens any more if they cannot be written.
            if batch.is_empty() || sender.blocking_send(batch).is_err() {
                break;
            }
        }
    });
    (receiver, reading)
}

/// Imports devices in batches, with a progress bar where there is somebody to see it, and says what was not read: each kind
/// of mistake once.
async fn take_over(
    registry: &Registry,
    devices: impl Iterator<Item = Result<Device, Unread>> + Send + 'static,
    count: usize,
    console: &mut Console,
) -> anyhow::Result<Exit> {
    let bar = progress(count)?;
    let (mut total, mut unread, mut kinds) = (Imported::default(), 0_u64, Vec::<(Unread, u64)>::new());
    let mut skip = |more: Unread| {
        unread += 1;
        let known = kinds.iter().position(|(known, _)| known.reason == more.reason);
        match known {
            Some(known) => kinds[known].1 += 1,
            None if kinds.len() < NAMED => kinds.push((more, 1)),
            None => {}
        }
    };
    let (mut batches, reading) = read(devices, bar.clone());
    let mut nodes = HashSet::new();
    while let Some(read) = batches.recv().await {
        let mut batch = Vec::with_capacity(read.len());
        for device in read {
            match device {
                Ok(device) => {
                    if nodes.insert(device.node.clone()) {
                        batch.push(device);
                    } else {
                        skip(Unread {
                            place: "a node".to_owned(),
                            reason: "it occurs twice; the first one counts".to_owned(),
                        });
                    }
                }
                Err(error) => skip(error),
            }
        }
        total += registry.import(batch).await.with_context(|| {
            format!(
                "{} devices were imported or there already; run it again for the others",
                total.total()
            )
        })?;
    }
    // Without this an end in the middle would look like the end.
    if reading.join().is_err() {
        bail!(
            "the reading broke off after {} devices; that is a mistake in fpush",
            total.total()
        );
    }
    bar.finish_and_clear();
    let mut unnamed = unread;
    for (Unread { place, reason }, times) in &kinds {
        unnamed -= times;
        let more = match times - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        console.complain(format_args!("not imported: {place}{more}: {reason}"));
    }
    if unnamed > 0 {
        console.complain(format_args!("not imported: {unnamed} for other reasons"));
    }
    for strays in registry.strays().await? {
        console.complain(format_args!("warning: {strays}"));
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
        "{bar:40} {human_pos} of {human_len} devices read"
    } else {
        "{spinner} {human_pos} devices read"
    };
    let bar = ProgressBar::new(count as u64).with_style(ProgressStyle::with_template(style)?);
    if env::var_os("TERM").is_some_and(|terminal| terminal == "dumb") {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    // It also turns while the file or the database is slow.
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// Opens the registry of the settings for a command, and closes it in the end. Says what goes wrong.
fn with_registry(
    settings: &SettingsFile,
    form: Form,
    if_missing: IfMissing,
    console: &mut Console,
    act: impl AsyncFnOnce(Arc<Registry>, &mut Console) -> anyhow::Result<Exit>,
) -> Exit {
    let file = settings.choose(console);
    let registry = match load_registration(&file) {
        Ok(Some(registration)) => registration.registry,
        Ok(None) => {
            let none = format_args!(
                "{} has no block \"registration\", so there are no registered devices",
                file.display()
            );
            console.failed(form, none);
            return Exit::Config;
        }
        Err(problems) => {
            console.wrong_settings(form, &problems);
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
        console.failed(form, format_args!("{error:#}"));
        Exit::OsError
    })
}

/// How the commands speak that have no JSON of their own.
const FOR_PEOPLE: Form = Form { json: false };
/// Kinds of mistakes that are named.
const NAMED: usize = 10;
/// Devices at a time: about as many as are written in one transaction.
const BATCH: usize = 5_000;
/// A device has a dozen fields, the longest of 4 KiB.
const LONGEST_LINE: usize = 64 << 10;
