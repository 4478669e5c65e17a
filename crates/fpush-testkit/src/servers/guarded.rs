//! Programs that do not outlive this one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A program that ends with this process, even if this process is killed.
///
/// It runs below a small shell that reads a pipe from here: when the pipe closes, for whatever reason, the shell sends
/// SIGTERM, and SIGKILL where that does not help.
#[derive(Debug)]
pub struct Guarded {
    shell: Command,
}

impl Guarded {
    /// The program with this name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .stdin(Stdio::piped());
        Self { shell }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.shell.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.shell.args(arguments);
        self
    }

    /// Sets the folder that the program starts in.
    pub fn current_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.shell.current_dir(folder);
        self
    }

    /// Adds environment variables.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.shell.envs(variables);
        self
    }

    /// Starts the program; what it prints goes to `output`.
    pub fn spawn(&mut self, output: File) -> io::Result<Running> {
        let child = self.shell.stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Running { child })
    }
}

/// A running [`Guarded`] program. Dropping it stops the program and waits for its end.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// The processes that it consists of, without those that they have started.
    pub fn processes(&self) -> Vec<u32> {
        let shell = self.child.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_ascii_whitespace();
        children.filter_map(|child| child.parse().ok()).collect()
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        drop(self.child.stdin.take());
        // The shell ends when its program has, and sees to it that this happens.
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs its arguments, and ends them when standard input closes. Ctrl-C and a closed terminal are left to the process
/// that holds the other end.
const GUARD: &str = r#"
trap '' INT HUP
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
(
    read -r _
    kill -TERM $program
    tries=0
    while [ $tries -lt 75 ] && kill -0 $program; do
        sleep 0.2
        tries=$((tries + 1))
    done
    kill -KILL $program
) <&3 >/dev/null 2>&1 &
watcher=$!
wait $program
status=$?
kill $watcher 2>/dev/null
exit $status
"#;
