//! Time that a test moves: libfaketime in front of the real program's clocks, so that it lives through days in seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Daemon, daemon};

/// The clocks of one program, or of several that are on one machine. They run as usual, and are ahead by what [`Clock::advance`] said.
pub struct Clock {
    file: PathBuf,
    ahead: Duration,
    moves: Moves,
}

/// Which clocks are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// All of them, as if the time had passed.
    Time,
    /// The time of day alone, as if somebody had set it.
    TimeOfDay,
}

impl Clock {
    /// Starts the daemon of this builder under a clock of its own.
    pub fn start(builder: daemon::Builder, moves: Moves) -> (Daemon, Self) {
        let clock = Self::new(builder.dir(), moves);
        (clock.run(builder), clock)
    }

    /// One that is kept in a file in this folder.
    pub fn new(folder: &Path, moves: Moves) -> Self {
        let clock = Self {
            file: folder.join("clock"),
            ahead: Duration::ZERO,
            moves,
        };
        clock.write();
        clock
    }

    /// Starts the daemon of this builder under this clock.
    pub fn run(&self, builder: daemon::Builder) -> Daemon {
        self.over(builder).start()
    }

    /// The builder of a daemon under this clock.
    #[must_use]
    pub fn over(&self, builder: daemon::Builder) -> daemon::Builder {
        let environment = self.environment().into_iter();
        environment.fold(builder, |builder, (name, value)| builder.env(name, &value))
    }

    /// The same for a program with a memory allocator of its own, which asks for the time before libfaketime can tell it.
    pub(crate) fn environment_with_usual_allocator(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.environment();
        environment[0].1 += " libc.so.6";
        environment
    }

    /// What a program finds in its environment that runs under this clock.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("LD_PRELOAD", library().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // The file is read at each look at a clock.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ];
        if self.moves == Moves::TimeOfDay {
            environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        }
        environment
    }

    /// Moves the clocks ahead by this time.
    pub fn advance(&mut self, time: Duration) {
        self.ahead += time;
        self.write();
    }

    /// Sets the clocks right.
    pub fn set_right(&mut self) {
        self.ahead = Duration::ZERO;
        self.write();
    }

    /// How far the clocks are ahead.
    pub fn ahead(&self) -> Duration {
        self.ahead
    }

    fn write(&self) {
        // Renamed, so that a half-written offset is never read.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("+{}", self.ahead.as_secs())).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }
}

/// libfaketime for programs with threads, as Debian's package `faketime` has it.
fn library() -> &'static str {
    LIBRARIES
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .expect("libfaketime is installed (Debian's package faketime)")
}

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
