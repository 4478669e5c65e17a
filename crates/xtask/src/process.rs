//! Programs that a task runs and waits for.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::interrupt;

/// Where this program is. To be asked first at its start: cargo puts a new one in its place when a test builds
/// the workspace, and from then on the system calls this one deleted.
///
/// # Errors
///
/// If the system does not say where it is.
pub(crate) fn this_program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program);
    }
    let program = env::current_exe().context("cannot find this program")?;
    Ok(PROGRAM.get_or_init(|| program))
}

/// The cargo that runs this.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(arguments);
    command
}

/// Builds the program of a package, and returns its path.
pub(crate) fn build(package: &str, profile: &[&str]) -> Result<PathBuf> {
    println!("Building {package} {}", profile.join(" "));
    let mut command = cargo(&["build", "--message-format", "json-render-diagnostics"]);
    command.args(["--package", package]).args(profile);
    build_with(&mut command, package)
}

/// The same with a command of its own, which writes cargo's messages.
pub(crate) fn build_with(command: &mut Command, package: &str) -> Result<PathBuf> {
    let mut program = None;
    run_reading(command.stdin(Stdio::null()), &mut |line| {
        let message = serde_json::from_str::<Value>(line).unwrap_or_default();
        if message["target"]["name"] == package
            && let Some(path) = message["executable"].as_str()
        {
            program = Some(PathBuf::from(path));
        }
    })?;
    program.with_context(|| format!("cargo names no program for {package}"))
}

/// Whether there is a program of that name.
pub(crate) fn is_there(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Whether the program runs and says that all is well; what it prints is dropped.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let quote = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,^+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{word}'")
        }
    };
    let program = command.get_program();
    let program = if Some(program) == env::var_os("CARGO").as_deref() {
        "cargo".as_ref()
    } else {
        program
    };
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quote(value?))));
    variables
        .chain([quote(program)])
        .chain(command.get_args().map(quote))
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a program writes to standard output.
pub(crate) fn said_by(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(output.status.success(), "`{shown}` failed ({})", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` writes no text"))
}

/// Runs the program to its end; without success, that is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = line(command);
    run_named(command, &shown)
}

/// The same, for a command that is too long to be shown.
pub(crate) fn run_named(command: &mut Command, shown: &str) -> Result<()> {
    execute(command, shown, None)
}

/// Runs the program to its end and gives each line of its standard output to `read`.
pub(crate) fn run_reading(command: &mut Command, read: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    let shown = line(command);
    execute(command.stdout(Stdio::piped()), &shown, Some(read))
}

fn execute(command: &mut Command, shown: &str, read: Option<&mut (dyn FnMut(&str) + Send)>) -> Result<()> {
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let output = child.stdout.take();
    let status = thread::scope(|scope| {
        if let (Some(output), Some(read)) = (output, read) {
            scope.spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    read(&String::from_utf8_lossy(&line));
                }
            });
        }
        wait(&mut child)
    })?;
    if !status.success() {
        return Err(anyhow!("`{shown}` failed ({status})"));
    }
    Ok(())
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            interrupt::check()?;
            return Ok(status);
        }
        if interrupt::happened() {
            terminate(child.id());
            child.wait()?;
            bail!("a signal came");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends SIGTERM to a process and to everything below it: cargo leaves its compilers and tests running.
fn terminate(process: u32) {
    let mut doomed = vec![process];
    let mut next = 0;
    while next < doomed.len() {
        doomed.extend(children(doomed[next]));
        next += 1;
    }
    let mut kill = Command::new("/bin/sh");
    kill.args(["-c", "kill -TERM \"$@\"", "kill"])
        .args(doomed.iter().map(u32::to_string));
    succeeds(kill);
}

/// The processes that a process has started and not yet waited for.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |process: &u32| {
        fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
            // pid (name) state ppid …, where the name may hold anything.
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(1) == Some(&parent.to_string())
        })
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_started_is_terminated_with_it() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 300 & wait"])
            .spawn()
            .expect("there is a shell");
        let grandchild = loop {
            if let [child] = children(shell.id())[..] {
                break child;
            }
            thread::sleep(Duration::from_millis(5));
        };
        terminate(shell.id());
        shell.wait().expect("the shell can be waited for");
        let ended = || {
            let stat = fs::read_to_string(format!("/proc/{grandchild}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !ended() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("tool");
        command
            .args(["--all", "-D", "two words", ""])
            .env("FLAGS", "-D warnings");
        assert_eq!(line(&command), "FLAGS='-D warnings' tool --all -D 'two words' ''");
    }
}
