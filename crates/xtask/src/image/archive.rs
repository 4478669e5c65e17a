//! The image as a file: an OCI image layout in a tar archive, which `docker load` of any age reads, too.
//!
//! The same files make the same bytes: the order, the owners and the times in the archives are fixed.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::tree::Tree;
use super::{STATE, USER, empty};
use crate::process;

/// Writes the image with a time in seconds since 1970, and returns the file.
pub(super) fn make(tree: &Tree, folder: &Path, time: &str) -> Result<PathBuf> {
    let work = folder.join("work");
    let layer = work.join("layer.tar");
    pack(&tree.root, &layer, time, &[&format!("--exclude=.{STATE}"), "."])?;
    // The one folder that is not root's.
    let owner = USER.to_string();
    let mut add = tar(&tree.root, &layer, time, &owner);
    process::run(add.args(["--append", "--no-recursion", "--mode=0700", &format!(".{STATE}")]))?;

    let layout = work.join("layout");
    empty(&layout.join("blobs/sha256"))?;
    let uncompressed = sha256(&layer)?;
    process::run(Command::new("gzip").args(["-9", "--no-name"]).arg(&layer))?;
    let layer = Blob::add(&layout, &fs::read(work.join("layer.tar.gz"))?)?;
    let created = process::said_by(Command::new("date").args(["-u", "-d", &format!("@{time}"), "+%FT%TZ"]))?;
    let config = Blob::add_json(&layout, &config(tree, created.trim(), &uncompressed))?;
    let manifest = Blob::add_json(
        &layout,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        }),
    )?;
    let mut described = manifest.descriptor(MANIFEST);
    described["annotations"] = json!({
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": NAME,
    });
    write_json(
        &layout.join("oci-layout"),
        &json!({ "imageLayoutVersion": "1.0.0" }),
    )?;
    write_json(
        &layout.join("index.json"),
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        }),
    )?;
    // What docker wrote before it knew the layout above.
    write_json(
        &layout.join("manifest.json"),
        &json!([{ "Config": config.path(), "RepoTags": [NAME], "Layers": [layer.path()] }]),
    )?;
    let image = folder.join(format!("fpush-{}-amd64.oci.tar", env!("CARGO_PKG_VERSION")));
    pack(
        &layout,
        &image,
        time,
        &["blobs", "index.json", "manifest.json", "oci-layout"],
    )?;
    Ok(image)
}

/// What a runtime has to know.
fn config(tree: &Tree, created: &str, layer: &str) -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "User": format!("{USER}:{USER}"),
            // The socket is beside the state, so that the image needs one folder to write to and no more.
            "Env": [
                "PATH=/usr/bin",
                format!("STATE_DIRECTORY={STATE}"),
                format!("RUNTIME_DIRECTORY={STATE}"),
                format!("TMPDIR={STATE}"),
                "FPUSH_SETTINGS=/etc/fpush/settings.json",
            ],
            "Entrypoint": ["/usr/bin/fpush"],
            "WorkingDir": "/etc/fpush",
            "Volumes": { STATE: {} },
            "StopSignal": "SIGTERM",
            // Spans are in nanoseconds. This is docker's; with other runtimes the command line says it.
            "Healthcheck": {
                "Test": ["CMD", "/usr/bin/fpush", "check", "--healthcheck"],
                "Interval": 30_000_000_000_u64,
                "Timeout": 10_000_000_000_u64,
                "StartPeriod": 60_000_000_000_u64,
                "Retries": 3,
            },
            "Labels": {
                "org.opencontainers.image.title": "fpush",
                "org.opencontainers.image.description": "Push server for XMPP: XEP-0357 publishes in, APNs, FCM and Web Push out",
                "org.opencontainers.image.version": tree.version,
                "org.opencontainers.image.licenses": "MIT",
                "org.opencontainers.image.created": created,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "cargo xtask image", "comment": tree.packages.join(", ") }],
    })
}

/// A part of the image, which is called by its hash.
struct Blob {
    sha256: String,
    size: usize,
}

impl Blob {
    fn add(layout: &Path, bytes: &[u8]) -> Result<Self> {
        let new = layout.join("blobs/sha256/new");
        fs::write(&new, bytes).context("cannot write a part of the image")?;
        let blob = Self {
            sha256: sha256(&new)?,
            size: bytes.len(),
        };
        fs::rename(new, layout.join(blob.path()))?;
        Ok(blob)
    }

    fn add_json(layout: &Path, value: &Value) -> Result<Self> {
        Self::add(layout, value.to_string().as_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.sha256)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.sha256), "size": self.size })
    }
}

/// Writes an archive of some of a folder.
fn pack(folder: &Path, archive: &Path, time: &str, what: &[&str]) -> Result<()> {
    process::run(tar(folder, archive, time, "0").arg("--create").args(what))
}

/// GNU tar, with everything fixed that is the machine's or the moment's.
fn tar(folder: &Path, archive: &Path, time: &str, owner: &str) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--sort=name", "--numeric-owner"])
        .args([format!("--owner={owner}"), format!("--group={owner}")])
        .args([format!("--mtime=@{time}"), "--mode=u=rwX,go=rX".to_owned()])
        .arg("--directory")
        .arg(folder)
        .arg("--file")
        .arg(archive)
        .stdin(Stdio::null());
    tar
}

/// The hash of a file.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let said = process::said_by(Command::new("sha256sum").arg("--").arg(file))?;
    let hash = said.split_ascii_whitespace().next();
    Ok(hash.context("sha256sum says nothing")?.to_owned())
}

fn write_json(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The name that the image has once it is loaded.
const NAME: &str = concat!("fpush:", env!("CARGO_PKG_VERSION"));
