//! Time that a test moves: libfaketime in front of the real program's clocks, so that it lives through days in seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Daemon, daemon};

/// The clocks of one program. They run as usual, and are ahead by what [`Clock::advance`] said.
pub struct Clock {
    file: PathBuf,
    ahead: Duration,
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
        let file = builder.dir().join("clock");
        let clock = Self {
            file,
            ahead: Duration::ZERO,
        };
        clock.write();
        let mut builder = builder
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &clock.file.to_string_lossy())
            // The file is read at each look at a clock.
            .env("FAKETIME_NO_CACHE", "1");
        if moves == Moves::TimeOfDay {
            builder = builder.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        (builder.start(), clock)
    }

    /// Moves the clocks ahead by this time.
    pub fn advance(&mut self, time: Duration) {
        self.ahead += time;
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
