//! Writes registered devices for programs that read them elsewhere.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use fpush_registry::{Device, Registry, lines, p2, prosody};

use crate::{
    cli::ExportFormat,
    console::{Console, Exit},
};

/// Writes all devices that the format has a place for.
pub(super) async fn write(
    registry: &Registry,
    format: ExportFormat,
    folder: Option<&Path>,
    console: &mut Console,
) -> anyhow::Result<Exit> {
    match format {
        ExportFormat::Json => {
            let line = |device: &Device| Some(lines::to_line(device));
            write_lines(registry, console, line).await
        }
        ExportFormat::ModPushAppserver => {
            let folder = folder.context("no folder is named")?;
            write_files(registry, folder, console).await
        }
        ExportFormat::P2 => {
            // If nobody reads it, nobody reads the rest either.
            let _ = console.write(p2::first_line() + "\n");
            write_lines(registry, console, p2::to_line).await
        }
    }
}

/// Writes a line for each device, until nobody reads it any more.
pub(super) async fn write_lines(
    registry: &Registry,
    console: &mut Console,
    line: impl Fn(&Device) -> Option<String>,
) -> anyhow::Result<Exit> {
    write_pages(registry, console, |devices, console| {
        let (mut text, mut without) = (String::new(), 0);
        for device in devices {
            match line(device) {
                Some(line) => writeln!(text, "{line}")?,
                None => without += 1,
            }
        }
        let is_read = console.write(text).is_ok();
        Ok(Written { without, is_read })
    })
    .await
}

/// Writes a file for each device into a folder of their own.
async fn write_files(registry: &Registry, folder: &Path, console: &mut Console) -> anyhow::Result<Exit> {
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("cannot make {shown}"))?;
    let mut inside = fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))?;
    if inside.next().is_some() {
        bail!("{shown} is not empty: name a folder that is not there yet");
    }
    write_pages(registry, console, |devices, _| {
        let mut without = 0;
        for device in devices {
            let Some((name, content)) = prosody::to_file(device) else {
                without += 1;
                continue;
            };
            // The file's name is a node, which is not said.
            fs::write(folder.join(name), content).with_context(|| format!("cannot write into {shown}"))?;
        }
        let is_read = true;
        Ok(Written { without, is_read })
    })
    .await
}

/// What became of a page of devices.
struct Written {
    /// How many the format has no place for.
    without: u64,
    /// Whether somebody wants more.
    is_read: bool,
}

/// Has all devices written, a page at a time. What the format has no place for is counted and said.
async fn write_pages(
    registry: &Registry,
    console: &mut Console,
    write: impl Fn(&[Device], &mut Console) -> anyhow::Result<Written>,
) -> anyhow::Result<Exit> {
    let (mut after, mut exit, mut left_out) = (None, Exit::Success, 0);
    loop {
        let page = registry.page(after.as_deref(), PAGE).await?;
        if let Some(unreadable) = page.unreadable {
            console.error(format_args!("left out: {unreadable}"));
            exit = Exit::No;
        }
        let Written { without, is_read } = write(&page.devices, console)?;
        left_out += without;
        let is_last = page.devices.len() < PAGE;
        if !is_read || is_last {
            break;
        }
        after = page.devices.into_iter().last().map(|last| last.node);
    }
    if left_out > 0 {
        console.complain(format_args!(
            "left out: {left_out} devices that this format has no place for: they registered in another way, or their nodes are too \
             long for it"
        ));
        exit = Exit::No;
    }
    Ok(exit)
}

/// Devices at a time.
const PAGE: usize = 1_000;
