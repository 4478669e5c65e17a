//! What a container's runtime does with the image, as far as fpush can notice it: the image is unpacked, its root is read-only,
//! and the program runs there as the image's user with the image's environment, beside a stand-in for an XMPP server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fpush_testkit::FakeXmpp;
use fpush_testkit::publish::prosody_publish;
use serde_json::Value;

use super::archive::sha256;
use super::{STATE, USER};
use crate::interrupt;
use crate::place::mount;
use crate::process;
use crate::tally::Tally;

/// Says by its success whether there can be such a place.
pub(crate) fn probe(place: &Path) -> Result<()> {
    mount(&["-t", "tmpfs", "tmpfs"], place)?;
    let file = place.join("file");
    fs::write(&file, "")?;
    process::run(Command::new("chown").arg(USER.to_string()).arg(&file))
}

/// Tries an image in the namespaces of this process.
pub(crate) fn check(place: &Path, archive: &Path) -> Result<()> {
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"], place)?;
    // Processes have other numbers here than outside.
    fs::create_dir(place.join("proc"))?;
    mount(&["-t", "proc", "proc"], &place.join("proc"))?;
    let mut tally = Tally::default();
    let image = Image::unpack(place, archive, &mut tally)?;
    println!("\nthe image");
    image.description(&mut tally)?;
    image.files(&mut tally)?;
    image.protect()?;
    println!("\nsettings from variables alone");
    image.with_variables(&mut tally)?;
    println!("\nsettings from a file");
    image.with_file(&mut tally)?;
    tally.conclude("the image", || {
        fs::read_to_string(image.log()).unwrap_or_default()
    })
}

/// An unpacked image.
struct Image {
    place: PathBuf,
    /// What the image says of its program.
    config: Value,
}

impl Image {
    fn unpack(place: &Path, archive: &Path, tally: &mut Tally) -> Result<Self> {
        println!("\nthe archive");
        let layout = place.join("layout");
        fs::create_dir(&layout)?;
        process::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout))?;
        let index = read_json(&layout.join("index.json"))?;
        let manifest = read_json(&blob(&layout, &index["manifests"][0], tally)?)?;
        let config = read_json(&blob(&layout, &manifest["config"], tally)?)?;
        let layer = blob(&layout, &manifest["layers"][0], tally)?;
        let docker = read_json(&layout.join("manifest.json"))?;
        for (what, older, newer) in [
            ("settings", &docker[0]["Config"], &manifest["config"]["digest"]),
            ("files", &docker[0]["Layers"][0], &manifest["layers"][0]["digest"]),
        ] {
            let (older, newer) = (
                older.as_str().unwrap_or_default(),
                newer.as_str().unwrap_or("none"),
            );
            let newer = newer.replace(':', "/");
            tally.same(
                &format!("both forms name the same {what}"),
                older,
                &format!("blobs/{newer}"),
            );
        }
        let root = place.join("root");
        fs::create_dir(&root)?;
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--same-owner", "-xpzf"]);
        process::run(tar.arg(layer).arg("-C").arg(&root))?;
        Ok(Self {
            place: place.to_owned(),
            config: config["config"].clone(),
        })
    }

    fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// Where a file of the image is for this process.
    fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    fn log(&self) -> PathBuf {
        self.place.join("log")
    }

    fn description(&self, tally: &mut Tally) -> Result<()> {
        let of = |key: &str| self.config[key].to_string();
        tally.same("its user", &of("User"), &format!("\"{USER}:{USER}\""));
        tally.same("its program", &of("Entrypoint"), "[\"/usr/bin/fpush\"]");
        tally.same("its signal to stop", &of("StopSignal"), "\"SIGTERM\"");
        tally.same("its volume", &of("Volumes"), &format!("{{\"{STATE}\":{{}}}}"));
        let version = self.run(&["/usr/bin/fpush", "--version"], &[])?;
        let label = self.config["Labels"]["org.opencontainers.image.version"].as_str();
        tally.same(
            "its label has the program's version",
            String::from_utf8_lossy(&version.stdout).trim(),
            &format!("fpush {}", label.unwrap_or_default()),
        );
        Ok(())
    }

    fn files(&self, tally: &mut Tally) -> Result<()> {
        let others = process::said_by(Command::new("find").arg(self.root()).args([
            "!", "-user", "0", "-o", "!", "-group", "0", "-o", "!", "-type", "l", "-perm", "/6022",
        ]))?;
        let state = self.path(STATE);
        tally.same(
            "all of it belongs to root and can be written by root alone, but for one folder",
            others.trim(),
            &state.display().to_string(),
        );
        let folder = fs::metadata(state)?;
        tally.same(
            "that folder",
            &format!("{:o} {}", folder.permissions().mode() & 0o7777, folder.uid()),
            &format!("700 {USER}"),
        );
        let bundle = fs::read_to_string(self.path("/etc/ssl/certs/ca-certificates.crt"))?;
        tally.that(
            "the authorities' certificates are there",
            bundle.matches("BEGIN CERTIFICATE").count() > 100,
        );
        for file in [
            "fpush/copyright",
            "fpush/THIRD-PARTY",
            "libc6/copyright",
            "ca-certificates/copyright",
        ] {
            let file = format!("/usr/share/doc/{file}");
            tally.that(&file, self.path(&file).is_file());
        }
        Ok(())
    }

    /// Makes the root read-only, with an empty volume.
    fn protect(&self) -> Result<()> {
        let root = self.root();
        mount(&["--bind", &root.display().to_string()], &root)?;
        mount(
            &["-t", "tmpfs", "-o", "mode=755", "tmpfs"],
            &self.path("/run/secrets"),
        )?;
        let volume = format!("mode=700,uid={USER},gid={USER}");
        mount(&["-t", "tmpfs", "-o", &volume, "tmpfs"], &self.path(STATE))?;
        let secret = self.path("/run/secrets/component-key");
        fs::write(&secret, SECRET)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o400))?;
        std::os::unix::fs::chown(secret, Some(USER), Some(USER))?;
        // Runtimes put a file of the host in the place of one of the image.
        let settings = self.place.join("settings.json");
        fs::write(&settings, "{}")?;
        mount(
            &["--bind", &settings.display().to_string()],
            &self.path("/etc/fpush/settings.json"),
        )?;
        mount(&["-o", "remount,bind,ro"], &root)
    }

    fn with_variables(&self, tally: &mut Tally) -> Result<()> {
        let xmpp = FakeXmpp::start(HOSTNAME, SECRET);
        let variables = [
            ("FPUSH__component__componentHostname", HOSTNAME.to_owned()),
            (
                "FPUSH__component__componentKeyFile",
                "/run/secrets/component-key".to_owned(),
            ),
            ("FPUSH__component__serverHostname", "127.0.0.1".to_owned()),
            ("FPUSH__component__serverPort", xmpp.port().to_string()),
            ("FPUSH__pushModules__demo", MODULE.to_owned()),
        ];
        let health = self.health(&variables)?;
        tally.same("health before the start", &status(&health), "Some(1)");
        let mut fpush = self.start(&variables)?;
        let mut link = xmpp.accept(PATIENCE);
        link.send(prosody_publish("one", "a-token", None, true));
        tally.same("a publish", &link.reply_to("one", PATIENCE).verdict(), "result");
        let uids = fs::read_to_string(self.place.join(format!("proc/{}/status", fpush.id())))?;
        let uid = format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}");
        tally.that("the program is not root", uids.contains(&uid));
        let health = self.until_status(&variables, "Some(0)")?;
        tally.same("health while it runs", &health, "Some(0)");
        tally.that(
            "its state is in the volume",
            fs::read_dir(self.path(STATE))?.count() > 1,
        );
        xmpp.close_port();
        link.close();
        let health = self.until_status(&variables, "Some(1)")?;
        tally.same("health without a link", &health, "Some(1)");
        tally.same("exit status after SIGTERM", &stop(&mut fpush)?, "Some(0)");
        Ok(())
    }

    fn with_file(&self, tally: &mut Tally) -> Result<()> {
        let xmpp = FakeXmpp::start(HOSTNAME, SECRET);
        let settings = |module: &str| {
            format!(
                r#"{{ "component": {{ "componentHostname": "{HOSTNAME}", "componentKeyFile": "/run/secrets/component-key",
                "serverHostname": "127.0.0.1", "serverPort": {} }}, "pushModules": {{ "{module}": {MODULE} }} }}"#,
                xmpp.port()
            )
        };
        fs::write(self.place.join("settings.json"), settings("first"))?;
        let mut fpush = self.start(&[])?;
        let mut link = xmpp.accept(PATIENCE);
        fs::write(self.place.join("settings.json"), settings("second"))?;
        let reload = self.run(&["/usr/bin/fpush", "reload"], &[])?;
        tally.same("fpush reload", &status(&reload), "Some(0)");
        link.send(prosody_publish("two", "a-token", Some("second"), true));
        tally.same(
            "a publish for a module that is new",
            &link.reply_to("two", PATIENCE).verdict(),
            "result",
        );
        tally.same("exit status after SIGTERM", &stop(&mut fpush)?, "Some(0)");
        Ok(())
    }

    /// The image's health check.
    fn health(&self, variables: &[(&str, String)]) -> Result<Output> {
        let test = self.config["Healthcheck"]["Test"].as_array();
        let words: Vec<_> = test.into_iter().flatten().filter_map(Value::as_str).collect();
        let words = words
            .strip_prefix(&["CMD"])
            .context("the health check is not a command")?;
        self.run(words, variables)
    }

    /// Waits until the health check says so, and returns what it says at last.
    fn until_status(&self, variables: &[(&str, String)], wanted: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = status(&self.health(variables)?);
            if said == wanted || Instant::now() >= end {
                return Ok(said);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start(&self, variables: &[(&str, String)]) -> Result<Child> {
        let program = self.config["Entrypoint"][0].as_str().context("no program")?;
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        self.command(program, variables)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the image's program")
    }

    fn run(&self, words: &[&str], variables: &[(&str, String)]) -> Result<Output> {
        interrupt::check()?;
        let (program, arguments) = words.split_first().context("no program")?;
        self.command(program, variables)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {program} in the image"))
    }

    /// A program of the image, with the image's user, folder and environment.
    fn command(&self, program: &str, variables: &[(&str, String)]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        let environment = self.config["Env"].as_array().into_iter().flatten();
        command
            .arg(format!("--userspec={USER}:{USER}"))
            .arg("--groups=")
            .arg(self.root())
            .arg(program)
            .env_clear()
            .envs(environment.filter_map(|one| one.as_str()?.split_once('=')))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }
}

/// A part of the image that something names, once its size and hash are checked.
fn blob(layout: &Path, descriptor: &Value, tally: &mut Tally) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let hash = digest.strip_prefix("sha256:").context("a part without a hash")?;
    let file = layout.join("blobs/sha256").join(hash);
    let media_type = &descriptor["mediaType"];
    tally.same(&format!("the hash of {media_type}"), &sha256(&file)?, hash);
    let size = fs::metadata(&file)?.len();
    tally.that(&format!("the size of {media_type}"), descriptor["size"] == size);
    Ok(file)
}

fn read_json(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))
}

fn status(output: &Output) -> String {
    format!("{:?}", output.status.code())
}

/// Sends SIGTERM, and waits as long as the book says that a runtime should.
fn stop(fpush: &mut Child) -> Result<String> {
    ensure!(
        process::succeeds({
            let mut kill = Command::new("kill");
            kill.args(["-TERM", &fpush.id().to_string()]);
            kill
        }),
        "fpush has ended before SIGTERM"
    );
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(status) = fpush.try_wait()? {
            return Ok(format!("{:?}", status.code()));
        }
        if Instant::now() >= end {
            fpush.kill()?;
            return Ok("it had to be killed".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

const HOSTNAME: &str = "push.localhost";
const SECRET: &str = "made-up-secret";
const MODULE: &str = r#"{ "type": "demo", "is_default_module": true }"#;
const PATIENCE: Duration = Duration::from_secs(30);
