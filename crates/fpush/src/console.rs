//! What the commands write for people and scripts, which is the one place that writes to standard output and standard
//! error beside the log.
//!
//! `println!` would end the program with a panic when its reader has gone or the disk is full.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use fpush_push::settings::{Problem, Severity};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{cli::Form, inquiry::Mistake};

/// How a command ended: the statuses that mean something to systemd and to scripts (sysexits.h, where there is one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for has been done.
    Success = 0,
    /// The answer is no: a provider refuses, no such device, no daemon that could be asked.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Something in the machine failed.
    OsError = 71,
    /// The settings are wrong: starting again does not help.
    Config = 78,
    /// Nobody reads the output any more: the status that shells show for a program that `SIGPIPE` ended.
    ClosedPipe = 128 + 13,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Standard output and standard error. The first failure of each is kept until [`Console::end`]: a command that changes
/// something finishes that, also when nobody reads what it says.
#[derive(Debug, Default)]
pub(crate) struct Console {
    output: Option<io::Error>,
    errors: Option<io::Error>,
}

impl Console {
    /// One line of what was asked for.
    pub(crate) fn say(&mut self, line: impl fmt::Display) {
        // What failed is kept.
        let _ = self.write(format_args!("{line}\n"));
    }

    /// One JSON value, on a line of its own.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.say(line),
            Err(e) => self.error(format_args!("cannot write JSON: {e}")),
        }
    }

    /// A part of what was asked for.
    ///
    /// # Errors
    ///
    /// Nobody can read it, so that a long output need not go on.
    pub(crate) fn write(&mut self, text: impl fmt::Display) -> io::Result<()> {
        if self.output.is_some() {
            return Err(io::ErrorKind::Other.into());
        }
        let written = write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
        written.map_err(|e| {
            let kind = e.kind();
            self.output = Some(e);
            kind.into()
        })
    }

    /// An error. What follows it is the exit status.
    pub(crate) fn error(&mut self, message: impl fmt::Display) {
        self.complain(format_args!("error: {message}"));
    }

    /// A warning.
    pub(crate) fn warning(&mut self, message: impl fmt::Display) {
        self.complain(format_args!("warning: {message}"));
    }

    /// What is wrong with the settings.
    pub(crate) fn problems(&mut self, problems: &[Problem]) {
        for problem in problems {
            match problem.severity {
                Severity::Error | Severity::UnknownKey | Severity::Unusable => self.error(problem),
                Severity::Warning => self.warning(problem),
                Severity::Note => self.complain(format_args!("note: {problem}")),
            }
        }
    }

    /// Why nothing could be found out, which a script reads as JSON, too.
    pub(crate) fn failed(&mut self, form: Form, why: impl fmt::Display) {
        if form.json {
            self.json(&as_finding(&why));
        }
        self.error(why);
    }

    /// Which settings are wrong, for people or for scripts.
    pub(crate) fn wrong_settings(&mut self, form: Form, problems: &[Problem]) {
        if form.json {
            self.json(&as_problems(problems));
        } else {
            self.problems(problems);
        }
    }

    /// One line to standard error.
    pub(crate) fn complain(&mut self, line: impl fmt::Display) {
        if let Err(e) = writeln!(io::stderr(), "{line}") {
            self.errors.get_or_insert(e);
        }
    }

    /// The status of a command that has ended with `exit`. A success is none if its output was lost; any other status
    /// stays, because it says more.
    pub(crate) fn end(mut self, exit: Exit) -> Exit {
        let lost = match self.output.take() {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                self.error(format_args!("cannot write to standard output: {e}"));
                Some(Exit::OsError)
            }
            Some(_) => Some(Exit::ClosedPipe),
            None => None,
        };
        let lost = lost.or_else(|| {
            self.errors.map(|e| match e.kind() {
                io::ErrorKind::BrokenPipe => Exit::ClosedPipe,
                _ => Exit::OsError,
            })
        });
        match exit {
            Exit::Success => lost.unwrap_or(Exit::Success),
            Exit::No | Exit::Usage | Exit::OsError | Exit::Config | Exit::ClosedPipe => exit,
        }
    }
}

/// Why nothing could be found out, for scripts.
pub(crate) fn as_finding(why: impl fmt::Display) -> Value {
    json!({ "ok": false, "findings": [{ "message": why.to_string() }] })
}

/// Which settings are wrong, for scripts.
pub(crate) fn as_problems(problems: &[Problem]) -> Value {
    let problems: Vec<_> = problems.iter().map(Mistake::from).collect();
    json!({ "ok": false, "problems": problems })
}
