//! What operators do with registered devices: import, export, and a look at them.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use fpush_registry::{Device, Hooks, Imported, Registry, Time, lines, prosody};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime;

use crate::{
    cli::{Devices, Import},
    exit,
    settings::load_registration,
};

pub(crate) fn import(import: &Import) -> ExitCode {
    match import {
        Import::ModPushAppserver { folder, settings } => finish(with_registry(settings, async |registry| {
            let files = prosody::find(folder).with_context(|| format!("cannot read {}", folder.display()))?;
            if files.is_empty() {
                bail!(
                    "there is no file HOST/push_appserver/NODE.dat below {}: expected Prosody's data folder, such as \
                     /var/lib/prosody",
                    folder.display()
                );
            }
            let devices = files
                .iter()
                .map(|file| prosody::read(file).map_err(|error| anyhow!("{}: {error}", file.display())));
            take_over(&registry, devices, files.len()).await
        })),
        Import::Json { file, settings } => finish(with_registry(settings, async |registry| {
            let name = file.display();
            let reader: Box<dyn BufRead> = if file.as_os_str() == "-" {
                Box::new(io::stdin().lock())
            } else {
                let file = File::open(file).with_context(|| format!("cannot read {name}"))?;
                Box::new(BufReader::new(file))
            };
            let devices = (1..).zip(reader.lines()).map(|(number, line)| {
                let line = line.with_context(|| format!("{name}, line {number}"))?;
                lines::from_line(&line).map_err(|error| anyhow!("{name}, line {number}: {error}"))
            });
            take_over(&registry, devices, 0).await
        })),
    }
}

pub(crate) fn export(settings: &Path) -> ExitCode {
    finish(with_registry(settings, async |registry| {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for_each(&registry, |device| writeln!(out, "{}", lines::to_line(device))).await?;
        out.flush().context("cannot write to standard output")?;
        Ok(ExitCode::SUCCESS)
    }))
}

pub(crate) fn devices(devices: &Devices) -> ExitCode {
    match devices {
        Devices::List { settings } => finish(with_registry(settings, async |registry| {
            let mut out = io::BufWriter::new(io::stdout().lock());
            for_each(&registry, |device| {
                let renewed = device.renewed.unwrap_or(device.registered);
                writeln!(
                    out,
                    "{}\t{}\tregistered {}\trenewed {renewed}",
                    device.node, device.kind, device.registered
                )
            })
            .await?;
            out.flush().context("cannot write to standard output")?;
            Ok(ExitCode::SUCCESS)
        })),
        Devices::Show { node, settings } => finish(with_registry(settings, async |registry| {
            let Some(device) = registry.show(node).await? else {
                eprintln!("no device is registered under this node");
                return Ok(ExitCode::FAILURE);
            };
            let time = |time: Option<Time>| time.map_or_else(|| "never".to_owned(), |time| time.to_string());
            println!("node: {}", device.node);
            println!("dialect: {}", device.dialect.name());
            println!("type: {}", device.kind);
            println!(
                "owner: {}",
                device.owner.as_deref().unwrap_or("none (registered over HTTP)")
            );
            println!("registered: {}", device.registered);
            println!("renewed: {}", time(device.renewed));
            println!("last_successful_push: {}", time(device.delivered));
            println!("last_push_error: {}", time(device.failed));
            Ok(ExitCode::SUCCESS)
        })),
        Devices::Remove { node, settings } => finish(with_registry(settings, async |registry| {
            if registry.remove(node).await? {
                println!("removed");
                Ok(ExitCode::SUCCESS)
            } else {
                eprintln!("no device is registered under this node");
                Ok(ExitCode::FAILURE)
            }
        })),
    }
}

/// Imports devices in batches, with a progress bar where there is somebody to see it, and says what was not read.
async fn take_over(
    registry: &Registry,
    devices: impl Iterator<Item = anyhow::Result<Device>>,
    count: usize,
) -> anyhow::Result<ExitCode> {
    let style = if count > 0 {
        "{bar:40} {human_pos} of {human_len}"
    } else {
        "{spinner} {human_pos}"
    };
    let bar = ProgressBar::new(count as u64).with_style(ProgressStyle::with_template(style)?);
    let (mut total, mut unread) = (Imported::default(), Vec::new());
    let (mut batch, mut nodes) = (Vec::with_capacity(BATCH), HashSet::new());
    let mut devices = devices.peekable();
    while let Some(device) = devices.next() {
        match device {
            Ok(device) => {
                if !nodes.insert(device.node.clone()) {
                    unread.push(anyhow!("a node occurs twice; the first one counts"));
                } else {
                    batch.push(device);
                }
            }
            Err(error) => unread.push(error),
        }
        bar.inc(1);
        if batch.len() == BATCH || devices.peek().is_none() {
            let Imported {
                added,
                changed,
                unchanged,
            } = registry.import(std::mem::take(&mut batch)).await?;
            total.added += added;
            total.changed += changed;
            total.unchanged += unchanged;
        }
    }
    bar.finish_and_clear();
    for error in &unread {
        eprintln!("not imported: {error:#}");
    }
    println!(
        "{} devices added, {} changed, {} there already, {} not imported",
        total.added,
        total.changed,
        total.unchanged,
        unread.len()
    );
    Ok(if unread.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Calls back with every device, a page at a time.
async fn for_each(registry: &Registry, mut act: impl FnMut(&Device) -> io::Result<()>) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = registry.page(after.as_deref(), BATCH).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.node.clone());
        for device in &page {
            act(device).context("cannot write to standard output")?;
        }
    }
}

/// Opens the registry of the settings without loading all of it, and closes it in the end.
fn with_registry<T>(
    settings: &Path,
    act: impl AsyncFnOnce(Arc<Registry>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let registration = load_registration(settings).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow!("{}", problems.join("\nerror: "))
    })?;
    let registration = registration.with_context(|| {
        format!(
            "{} has no block \"registration\", so there are no registered devices",
            settings.display()
        )
    })?;
    let mut registry = registration.registry;
    registry.cache = false;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (registry, background) = Registry::open(registry, Hooks::default()).await?;
        let background = tokio::spawn(background);
        let result = act(Arc::clone(&registry)).await;
        registry.close().await;
        background.abort();
        result
    })
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(exit::OS_ERROR)
    })
}

/// Devices at a time.
const BATCH: usize = 1_000;
