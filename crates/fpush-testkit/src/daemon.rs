//! The real program, started as an operator starts it, and watched from outside.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::LONG;
use crate::temp_dir::TempDir;

/// A running program; it is killed on drop.
pub struct Daemon {
    child: Child,
    status: Option<ExitStatus>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    dir: TempDir,
    bin: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
}

/// How a [`Daemon`] is started.
pub struct Builder {
    bin: PathBuf,
    dir: TempDir,
    settings: String,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// The settings, written to `settings.json` in the daemon's own folder.
    #[must_use]
    pub fn settings(self, settings: &Value) -> Self {
        self.settings_text(&settings.to_string())
    }

    /// The same as text, which need not be JSON.
    #[must_use]
    pub fn settings_text(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.settings);
        self
    }

    /// Writes another file into the daemon's folder, which is also its working directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.dir.write(name, content);
        self
    }

    /// The daemon's folder, for paths in the settings.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts another program, such as a shell that prepares something and then becomes the one under test.
    #[must_use]
    pub fn program(mut self, bin: impl Into<PathBuf>) -> Self {
        self.bin = bin.into();
        self
    }

    /// Replaces the arguments, which otherwise are the path of the settings.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets `RUST_LOG`.
    #[must_use]
    pub fn rust_log(self, filter: &str) -> Self {
        self.env("RUST_LOG", filter)
    }

    /// Starts the program.
    pub fn start(self) -> Daemon {
        let Self {
            bin,
            dir,
            settings,
            args,
            env,
        } = self;
        let settings = dir.write("settings.json", settings);
        let args = if args.is_empty() {
            vec![settings.into()]
        } else {
            args
        };
        let (child, log, readers) = start(&bin, &args, &env, dir.path());
        Daemon {
            child,
            status: None,
            log,
            readers,
            dir,
            bin,
            args,
            env,
        }
    }
}

impl Daemon {
    /// The program to start, usually `env!("CARGO_BIN_EXE_fpush")`.
    pub fn builder(bin: impl Into<PathBuf>) -> Builder {
        Builder {
            bin: bin.into(),
            dir: TempDir::new(),
            settings: "{}".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The daemon's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written to stdout and stderr until now, line by line.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// Blocks until a line that holds `needle` has been logged since the start, and returns the first one. Panics when
    /// `timeout` is over or when the program ends without it.
    #[track_caller]
    pub fn wait_for_log(&self, needle: &str, timeout: Duration) -> String {
        self.wait_for_nth_log(needle, 1, timeout)
    }

    /// As [`Self::wait_for_log`], but for the `n`th such line.
    #[track_caller]
    pub fn wait_for_nth_log(&self, needle: &str, n: usize, timeout: Duration) -> String {
        let deadline = Instant::now() + timeout;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            let mut hits = lines.0.iter().filter(|line| line.contains(needle));
            if let Some(line) = hits.nth(n - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = lines.1 == 2;
            if left.is_zero() || ended {
                let log = lines.0.join("\n");
                drop(lines);
                let why = if ended {
                    "the program ended".to_owned()
                } else {
                    format!("{timeout:?} passed")
                };
                panic!("{why} without log line {n} with {needle:?}; the log:\n{log}");
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Sends SIGTERM, as systemd does to stop a service.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name: `INT`, `HUP`, `STOP`, …
    pub fn signal(&self, name: &str) {
        // The shell has `kill` built in; the program of that name is not installed everywhere.
        let kill = format!("kill -s {name} {}", self.pid());
        let status = Command::new("sh")
            .args(["-c", &kill])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "`{kill}` failed; the log:\n{}", self.log());
    }

    /// Ends the program as a power cut does: without a word.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait(LONG);
    }

    /// Starts the program once more, in the same folder and with the same arguments, after it has ended. Its log begins
    /// anew.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "the program still runs");
        let (child, log, readers) = start(&self.bin, &self.args, &self.env, self.dir.path());
        self.child = child;
        self.status = None;
        self.log = log;
        self.readers = readers;
    }

    /// Blocks until the program has ended and its log is complete. Panics when `timeout` is over.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let Some(status) = wait_until(&mut self.child, &mut self.status, timeout) else {
            panic!(
                "the program still runs after {timeout:?}; the log:\n{}",
                self.log()
            );
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// Whether the program has not ended.
    pub fn is_running(&mut self) -> bool {
        wait_until(&mut self.child, &mut self.status, Duration::ZERO).is_none()
    }

    /// The memory it holds now (`VmRSS`), in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most memory it ever held (`VmHWM`), in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The processor time it has used, in user mode and in the kernel, to 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the program runs");
        // The second field is the name in parentheses, in which anything may stand.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = |n: usize| {
            fields
                .split_ascii_whitespace()
                .nth(n)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        Duration::from_millis((ticks(11) + ticks(12)) * MILLIS_PER_TICK)
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the program runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("the program runs");
        line.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end in the folder `dir`, and returns what it wrote. Panics after [`LONG`].
#[track_caller]
pub fn run_to_end<A: Into<OsString>>(
    bin: impl AsRef<Path>,
    args: impl IntoIterator<Item = A>,
    dir: &Path,
) -> Output {
    let bin = bin.as_ref();
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut child = command(bin, &args, dir)
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {}: {error}", bin.display()));
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    let status = wait_until(&mut child, &mut None, LONG);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    match status {
        Some(status) => Output {
            status,
            stdout,
            stderr,
        },
        None => {
            panic!(
                "{} {args:?} did not end; it wrote {}",
                bin.display(),
                String::from_utf8_lossy(&stderr)
            )
        }
    }
}

fn start(
    bin: &Path,
    args: &[OsString],
    env: &[(String, String)],
    dir: &Path,
) -> (Child, Arc<Log>, Vec<JoinHandle<()>>) {
    let mut child = command(bin, args, dir)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {}: {error}", bin.display()));
    let log = Arc::new(Log::default());
    let readers = vec![
        Log::read(&log, child.stdout.take().unwrap()),
        Log::read(&log, child.stderr.take().unwrap()),
    ];
    (child, log, readers)
}

fn command(bin: &Path, args: &[OsString], dir: &Path) -> Command {
    let mut command = Command::new(bin);
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Nothing is asked of a provider but what the test is about, and no installed service is a part of it.
        .env("FPUSH_VERIFY", "off")
        .env("SYSTEMD_UNIT_PATH", "/nonexistent")
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE");
    // What the machine that runs the test goes through must not be what the program goes through.
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    // Nor is it a service of systemd's, if the test should be a part of one.
    for name in [
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
    ] {
        command.env_remove(name);
    }
    command
}

fn wait_until(child: &mut Child, status: &mut Option<ExitStatus>, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    while status.is_none() {
        *status = child.try_wait().unwrap();
        if status.is_none() {
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
    *status
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[derive(Default)]
struct Log {
    /// The lines, and how many of the two streams have ended.
    lines: Mutex<(Vec<String>, usize)>,
    grown: Condvar,
}

impl Log {
    fn read(log: &Arc<Self>, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = Arc::clone(log);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                line.clear();
                log.lines.lock().unwrap().0.push(text);
                log.grown.notify_all();
            }
            log.lines.lock().unwrap().1 += 1;
            log.grown.notify_all();
        })
    }
}

/// Linux counts processor time for `/proc` in hundredths of a second on every architecture (`USER_HZ`).
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::{Daemon, run_to_end};
    use crate::temp_dir::TempDir;

    const SECOND: Duration = Duration::from_secs(1);

    fn shell(script: &str) -> Daemon {
        Daemon::builder("/bin/sh")
            .args(["-c", script])
            .settings(&json!({ "a": 1 }))
            .rust_log("trace")
            .start()
    }

    #[test]
    fn logs_settings_and_sigterm() {
        let script = "trap 'echo stopping; exit 3' TERM; cat settings.json; echo; echo $RUST_LOG; \
                      echo ready >&2; while :; do sleep 0.01; done";
        let mut daemon = shell(script);
        assert_eq!(daemon.wait_for_log("read", 10 * SECOND), "ready");
        assert_eq!(daemon.wait_for_log("tra", 10 * SECOND), "trace");
        assert!(daemon.is_running() && daemon.rss_kib() > 100 && daemon.peak_rss_kib() >= daemon.rss_kib());
        daemon.terminate();
        assert_eq!(daemon.wait(10 * SECOND).code(), Some(3));
        assert!(
            daemon.log().contains("{\"a\":1}") && daemon.log().ends_with("stopping"),
            "{}",
            daemon.log()
        );
        assert!(!daemon.is_running());
    }

    #[test]
    fn a_missing_line_panics_with_the_log() {
        let daemon = shell("echo one; sleep 30");
        daemon.wait_for_log("one", 10 * SECOND);
        let wait = || daemon.wait_for_log("two", Duration::from_millis(20));
        let panic = catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("\"two\"") && message.ends_with("one"),
            "{message}"
        );
    }

    #[test]
    fn waiting_ends_with_the_program() {
        let daemon = shell("echo one");
        let start = Instant::now();
        let wait = || daemon.wait_for_log("two", 30 * SECOND);
        catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
        assert!(start.elapsed() < 20 * SECOND);
    }

    #[test]
    fn a_second_such_line_is_not_the_first() {
        let daemon = shell("echo up 1; sleep 0.1; echo up 2; sleep 30");
        assert_eq!(daemon.wait_for_nth_log("up", 2, 10 * SECOND), "up 2");
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let daemon = shell("while :; do :; done");
        let start = Instant::now();
        while daemon.cpu_time() < Duration::from_millis(50) {
            assert!(start.elapsed() < 20 * SECOND);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(daemon.cpu_time() <= start.elapsed() + Duration::from_millis(50));
    }

    #[test]
    fn what_was_killed_starts_again_in_its_folder() {
        let mut daemon = shell("cat file 2>/dev/null; echo $RUST_LOG > file; echo up; exec sleep 30");
        daemon.wait_for_log("up", 10 * SECOND);
        assert!(!daemon.log().contains("trace"));
        daemon.kill();
        assert!(!daemon.is_running());
        daemon.start_again();
        daemon.wait_for_log("up", 10 * SECOND);
        assert_eq!(daemon.log(), "trace\nup");
        assert!(daemon.is_running());
    }

    #[test]
    fn drop_kills() {
        let daemon = shell("sleep 30");
        let proc = format!("/proc/{}", daemon.pid());
        assert!(std::path::Path::new(&proc).exists());
        drop(daemon);
        assert!(!std::path::Path::new(&proc).exists());
    }

    #[test]
    fn runs_to_the_end() {
        let dir = TempDir::new();
        let output = run_to_end("/bin/sh", ["-c", "pwd; echo err >&2; exit 5"], dir.path());
        assert_eq!(output.status.code(), Some(5));
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().trim_end(),
            dir.path().to_str().unwrap()
        );
        assert_eq!(output.stderr, b"err\n");
    }
}
