//! The real program, started as an operator starts it, and watched from outside.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionread, retry_on_intr};
use serde_json::Value;

use crate::LONG;
use crate::temp_dir::TempDir;

/// A running program; it is killed on drop.
pub struct Daemon {
    child: Mutex<Child>,
    log: Arc<Log>,
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
        let (child, log) = start(&bin, &args, &env, dir.path());
        Daemon {
            child: Mutex::new(child),
            log,
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
        self.child.lock().unwrap().id()
    }

    /// Everything written to stdout and stderr until now: what was written before an answer is in it when the answer
    /// is here.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.read()).trim_end().to_owned()
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
        let (mut read, mut hits) = (0, 0);
        loop {
            // Asked for first: what it has written before its end is in the log then.
            let ended = !self.is_running();
            let late = Instant::now() >= deadline;
            let lines = if ended {
                self.log.read()[read..].to_owned()
            } else {
                self.log.lines_after(read)
            };
            read += lines.len();
            for line in String::from_utf8_lossy(&lines).lines() {
                hits += usize::from(line.contains(needle));
                if hits == n {
                    return line.to_owned();
                }
            }
            if ended || late {
                let log = self.log();
                let why = if ended {
                    "the program ended".to_owned()
                } else {
                    format!("{timeout:?} passed")
                };
                panic!("{why} without log line {n} with {needle:?}; the log:\n{log}");
            }
            thread::sleep(POLL);
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
        self.child.get_mut().unwrap().kill().unwrap();
        self.wait(LONG);
    }

    /// Starts the program once more, in the same folder and with the same arguments, after it has ended. Its log begins
    /// anew.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "the program still runs");
        let (child, log) = start(&self.bin, &self.args, &self.env, self.dir.path());
        self.child = Mutex::new(child);
        self.log = log;
    }

    /// Blocks until the program has ended. Panics when `timeout` is over.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let status = wait_until(self.child.get_mut().unwrap(), timeout);
        status.unwrap_or_else(|| {
            panic!(
                "the program still runs after {timeout:?}; the log:\n{}",
                self.log()
            )
        })
    }

    /// Whether the program has not ended.
    pub fn is_running(&self) -> bool {
        wait_until(&mut self.child.lock().unwrap(), Duration::ZERO).is_none()
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
        // The second field is the name in parentheses, in which anything may be.
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
        // A test that failed while it waited must not fail again. Both fail if it has ended, which is as good.
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
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
    let status = wait_until(&mut child, LONG);
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

fn start(bin: &Path, args: &[OsString], env: &[(String, String)], dir: &Path) -> (Child, Arc<Log>) {
    let (log, writer) = Log::new();
    let child = command(bin, args, dir)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {}: {error}", bin.display()));
    (child, log)
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

fn wait_until(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || Instant::now() >= deadline {
            return status;
        }
        thread::sleep(POLL);
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// What a program writes to stdout and stderr.
struct Log {
    pipe: PipeReader,
    read: Mutex<Vec<u8>>,
}

impl Log {
    /// A log, and what writes to it. It is read until all that could write to it has ended.
    fn new() -> (Arc<Self>, PipeWriter) {
        let (pipe, writer) = io::pipe().unwrap();
        let read = Mutex::default();
        let log = Arc::new(Self { pipe, read });
        let reader = Arc::clone(&log);
        // So that it can write more than a pipe holds.
        thread::spawn(move || while reader.wait_for_more() {});
        (log, writer)
    }

    /// Reads what is there once there is something. Returns `false` at the end.
    fn wait_for_more(&self) -> bool {
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::IN)];
        // A signal for this process must not end the reading.
        retry_on_intr(|| poll(&mut pipe, None)).unwrap();
        let has_ended = !pipe[0].revents().contains(PollFlags::IN);
        drop(self.read());
        !has_ended
    }

    /// All that has been written until now. That the thread has read all of it cannot be relied on: on a busy machine it
    /// is late, and a test would miss what was written before the answer that it has.
    fn read(&self) -> MutexGuard<'_, Vec<u8>> {
        let mut read = self.read.lock().unwrap();
        let more: usize = ioctl_fionread(&self.pipe).unwrap().try_into().unwrap();
        let start = read.len();
        read.resize(start + more, 0);
        (&self.pipe).read_exact(&mut read[start..]).unwrap();
        read
    }

    /// What was written behind the first `start` bytes, in whole lines.
    fn lines_after(&self, start: usize) -> Vec<u8> {
        let read = self.read();
        let end = read
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        read[start..end].to_owned()
    }
}

/// How long to wait before a program or its log is looked at again.
const POLL: Duration = Duration::from_millis(2);

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
    fn what_was_written_before_an_answer_is_in_the_log() {
        let script = "i=0; while [ $i -lt 5000 ]; do echo line; i=$((i+1)); done; : > answer; exec sleep 30";
        let daemon = shell(script);
        let answer = daemon.dir().join("answer");
        while !answer.exists() {
            assert!(daemon.is_running());
        }
        assert_eq!(daemon.log().lines().count(), 5_000);
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
