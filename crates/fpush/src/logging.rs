//! The log: to standard error, as much of it as `RUST_LOG` says, or else the settings.

mod gates;
mod level;
mod lines;
mod problems;

use std::{
    env, io,
    sync::{Arc, Mutex},
};

use fpush_push::{
    settings::{Problem, Severity},
    sync::lock,
};
use tracing::{Subscriber, error, field::display, info, warn};
use tracing_subscriber::{
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::{
    level::InForce,
    lines::{Chosen, Lines, Output},
    problems::Watch,
};
pub(crate) use self::{level::Level, lines::Format, problems::Problems};

/// `logging` of the settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LoggingSettings {
    /// `format`.
    pub(crate) format: Format,
    /// `level`, if it is there.
    pub(crate) level: Option<Level>,
}

/// The log in use.
#[derive(Debug)]
pub(crate) struct Log {
    format: Chosen,
    level: InForce,
    /// Whether `RUST_LOG` says how much is logged, and not the settings.
    by_environment: bool,
    problems: Arc<Problems>,
    /// What is wrong with `RUST_LOG`, until it is said.
    complaint: Mutex<Option<String>>,
}

/// Starts the log. `RUST_LOG` says how much of it there is, such as `debug` or
/// `info,fpush_apns=debug`. If it says nothing the settings do; until they are read it is info.
pub(crate) fn start() -> Log {
    let wanted = env::var("RUST_LOG").ok();
    let (subscriber, log) = Log::new(wanted.as_deref(), Output::detect(), io::stderr);
    subscriber.init();
    log
}

/// Starts the log of a command that uses the database: warnings and errors, unless `RUST_LOG` says otherwise.
#[cfg(feature = "enable_registration")]
pub(crate) fn start_for_command() {
    let wanted = env::var("RUST_LOG").ok();
    let wanted = wanted.as_deref().filter(|wanted| !wanted.trim().is_empty());
    let (subscriber, log) = Log::new(Some(wanted.unwrap_or("warn")), Output::detect(), io::stderr);
    subscriber.init();
    log.set(&LoggingSettings::default());
}

/// What is wrong with `RUST_LOG`, as far as this process sees it.
pub(crate) fn complaint() -> Option<String> {
    let wanted = env::var("RUST_LOG").ok()?;
    read(Some(&wanted)).1
}

/// Reads `RUST_LOG`: the level, and what is wrong with it.
fn read(wanted: Option<&str>) -> (Option<Level>, Option<String>) {
    let wanted = wanted.filter(|wanted| !wanted.trim().is_empty());
    match wanted.map(str::parse::<Level>) {
        Some(Ok(level)) => {
            let unknown = level.unknown().map(|unknown| format!("RUST_LOG: {unknown}"));
            (Some(level), unknown)
        }
        Some(Err(e)) => (None, Some(format!("RUST_LOG cannot be read and is ignored: {e}"))),
        None => (None, None),
    }
}

impl Log {
    fn new<W>(wanted: Option<&str>, output: Output, writer: W) -> (impl Subscriber + use<W>, Self)
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let (wanted, complaint) = read(wanted);
        let log = Self {
            format: Chosen::default(),
            by_environment: wanted.is_some(),
            level: InForce::new(wanted.unwrap_or_default()),
            problems: Arc::default(),
            complaint: Mutex::new(complaint),
        };
        let lines = fmt::layer()
            .event_format(Lines::new(log.format.clone(), output))
            .with_ansi(output == Output::Terminal)
            // It would tell of a pipe that is broken by writing to it, and end the program with that.
            .log_internal_errors(false)
            .with_writer(writer);
        let watch = Watch::new(log.level.clone(), Arc::clone(&log.problems));
        // The filter is the last one, because tracing asks the first one alone for the level that it needs.
        (tracing_subscriber::registry().with(lines).with(watch), log)
    }

    /// Does what the settings say. To be called as soon as they are read, even if they are the usual ones: what there
    /// is to say of `RUST_LOG` waits for it.
    pub(crate) fn set(&self, settings: &LoggingSettings) {
        let LoggingSettings { format, level } = settings;
        self.format.set(*format);
        let complaint = lock(&self.complaint).take();
        if let Some(complaint) = complaint {
            warn!("{complaint}");
        }
        if self.by_environment {
            if let Some(level) = level {
                info!("RUST_LOG is set, so logging.level ({level}) is ignored");
            }
        } else {
            let level = level.clone().unwrap_or_default();
            let shown = level.to_string();
            if self.level.set(level) {
                info!("the log's level is {shown} now");
            }
        }
    }

    /// Warnings and errors.
    pub(crate) fn problems(&self) -> &Arc<Problems> {
        &self.problems
    }
}

/// Writes what is wrong with the settings to the log.
pub(crate) fn log_problems(problems: &[Problem]) {
    for problem in problems {
        let settings = Some(&problem.path).filter(|path| !path.is_empty());
        let settings = settings.map(display);
        let message = &problem.message;
        match problem.severity {
            Severity::Error => error!(settings, "{message}"),
            Severity::UnknownKey | Severity::Unusable | Severity::Warning => warn!(settings, "{message}"),
            Severity::Note => info!(settings, "{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, subscriber::with_default};

    use super::*;

    /// A log that can be read.
    #[derive(Clone, Default)]
    pub(super) struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Memory {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    pub(super) fn as_format(format: Format) -> LoggingSettings {
        LoggingSettings { format, level: None }
    }

    #[test]
    fn a_level_that_cannot_be_read_is_told_in_the_format_of_the_settings() {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(Some("fpush=loud"), Output::Plain, memory.clone());
        with_default(subscriber, || {
            info!("info is the level");
            assert_eq!(memory.text().lines().count(), 1);
            log.set(&as_format(Format::Json));
            log.set(&as_format(Format::Json));
        });
        let text = memory.text();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].contains("RUST_LOG cannot be read"), "{text}");
    }

    #[test]
    fn the_level_of_the_settings_may_change_and_rust_log_wins() {
        let settings = |level: &str| LoggingSettings {
            format: Format::Human,
            level: Some(level.parse().unwrap()),
        };
        for (variable, lines) in [(None, 3), (Some("warn"), 0)] {
            let memory = Memory::default();
            let (subscriber, log) = Log::new(variable, Output::Plain, memory.clone());
            with_default(subscriber, || {
                let say = || debug!("a detail");
                say();
                log.set(&settings("debug"));
                say();
                log.set(&settings("info"));
                say();
            });
            assert_eq!(memory.text().lines().count(), lines, "{}", memory.text());
        }
    }

    #[test]
    fn an_empty_level_is_none() {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(Some(" "), Output::Plain, memory.clone());
        with_default(subscriber, || {
            log.set(&LoggingSettings::default());
            info!("info is the level");
        });
        assert_eq!(memory.text().lines().count(), 1);
    }

    #[test]
    fn a_log_that_cannot_be_written_ends_nothing() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (subscriber, log) = Log::new(None, Output::Plain, || Broken);
        with_default(subscriber, || error!("nobody hears it"));
        assert_eq!(log.problems().recent().len(), 1);
    }
}
