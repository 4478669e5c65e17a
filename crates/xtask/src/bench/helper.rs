//! The parts of the bench that run as programs of their own.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use fpush_testkit::{FakeApns, TempDir, TestCa};

use super::load::Done;
use super::{FLOOR, STAND_IN, floor, proc};
use crate::interrupt;

/// A program that answers lines with lines. It is killed on drop.
struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(task: &str, argument: &Path) -> Result<Self> {
        // This very program, even if the file has been built anew meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg(task)
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {task}"))?;
        let (input, output) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .context("it has pipes")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        interrupt::check()?;
        if line.is_empty() {
            bail!("a part of the bench ended ({})", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stand-in for APNs. Its folder holds what a client needs: `ca.pem`, `client.pem` and `client.key.pem`.
pub(super) struct StandIn {
    _helper: Helper,
    pub(super) folder: TempDir,
    pub(super) port: u16,
    pub(super) process: u32,
}

impl StandIn {
    pub(super) fn start() -> Result<Self> {
        let folder = TempDir::new();
        let mut helper = Helper::start(STAND_IN, folder.path())?;
        let port = helper.line()?.parse().context("the stand-in names no port")?;
        Ok(Self {
            process: helper.child.id(),
            _helper: helper,
            folder,
            port,
        })
    }
}

/// What [`StandIn`] starts. It ends with its standard input.
pub(crate) fn stand_in(folder: &Path) -> Result<()> {
    let ca = TestCa::new();
    write_client_files(&ca, folder)?;
    let apns = FakeApns::builder(&ca).recording(false).start();
    println!("{}", apns.port());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Writes the authority and a client certificate.
pub(super) fn write_client_files(ca: &TestCa, folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    let identity = ca.client_cert("org.example.app", tomorrow);
    fs::write(folder.join("ca.pem"), ca.pem())?;
    fs::write(folder.join("client.pem"), identity.cert_pem)?;
    let key = folder.join("client.key.pem");
    fs::write(&key, identity.key_pem)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// The bare client, connected to the stand-in.
pub(super) struct Floor {
    helper: Helper,
}

impl Floor {
    pub(super) fn start(stand_in: &StandIn, headers: &http::HeaderMap, body: &str) -> Result<Self> {
        let ca = stand_in.folder.path().join("ca.pem");
        let config = floor::config(stand_in.port, &ca, headers, body);
        let file = stand_in.folder.write("floor.json", config.to_string());
        let mut helper = Helper::start(FLOOR, &file)?;
        helper.line()?;
        Ok(Self { helper })
    }

    /// Sends requests for so long; returns what it did and what CPU time it took.
    pub(super) fn run(&mut self, in_flight: u64, time: Duration) -> Result<(Done, Duration)> {
        let process = self.helper.child.id();
        let before = proc::cpu_time(process)?;
        writeln!(self.helper.input, "{in_flight} {}", time.as_millis())?;
        let line = self.helper.line()?;
        let cpu = proc::cpu_time(process)? - before;
        let (requests, micros) = line.split_once(' ').context("the bare client counts")?;
        let done = Done {
            pushes: requests.parse()?,
            elapsed: Duration::from_micros(micros.parse()?),
        };
        Ok((done, cpu))
    }
}
