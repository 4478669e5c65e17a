//! The log: to standard error, in the original's way governed by `RUST_LOG`.

mod gates;
mod lines;
mod problems;

use std::{
    env, io,
    sync::{Arc, Mutex},
};

use tracing::{Subscriber, level_filters::LevelFilter, warn};
use tracing_subscriber::{
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub(crate) use self::{lines::Format, problems::Problems};
use self::{
    lines::{Chosen, Lines, Output},
    problems::Watch,
};

/// The log in use.
#[derive(Debug)]
pub(crate) struct Log {
    format: Chosen,
    problems: Arc<Problems>,
    /// What is wrong with `RUST_LOG`, until it is said.
    complaint: Mutex<Option<String>>,
}

/// Starts the log. `RUST_LOG` says how much of it there is, such as `debug` or
/// `info,fpush_apns=debug`; info if it says nothing.
pub(crate) fn start() -> Log {
    let wanted = env::var("RUST_LOG").ok();
    let (subscriber, log) = Log::new(wanted.as_deref(), Output::detect(), io::stderr);
    subscriber.init();
    log
}

impl Log {
    fn new<W>(wanted: Option<&str>, output: Output, writer: W) -> (impl Subscriber + use<W>, Self)
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let wanted = wanted.filter(|wanted| !wanted.trim().is_empty());
        let usual = || Targets::new().with_default(LevelFilter::INFO);
        let (wanted, complaint) = match wanted.map(str::parse::<Targets>) {
            Some(Ok(wanted)) => (wanted, None),
            Some(Err(e)) => (usual(), Some(e.to_string())),
            None => (usual(), None),
        };
        let log = Self {
            format: Chosen::default(),
            problems: Arc::default(),
            complaint: Mutex::new(complaint),
        };
        let lines = fmt::layer()
            .event_format(Lines::new(log.format.clone(), output))
            .with_ansi(output == Output::Terminal)
            // It would tell of a pipe that is broken by writing to it, and end the program with that.
            .log_internal_errors(false)
            .with_writer(writer);
        let watch = Watch::new(wanted, Arc::clone(&log.problems));
        // The filter is the last one, because tracing asks the first one alone for the level that it needs.
        (tracing_subscriber::registry().with(lines).with(watch), log)
    }

    /// Changes the format. To be called as soon as the settings are read, even if they are the usual ones: what there
    /// is to say of `RUST_LOG` waits for it.
    pub(crate) fn set_format(&self, format: Format) {
        self.format.set(format);
        let complaint = self
            .complaint
            .lock()
            .expect("nobody panics with this lock")
            .take();
        if let Some(complaint) = complaint {
            warn!("RUST_LOG cannot be read, so the level is info: {complaint}");
        }
    }

    /// Warnings and errors.
    pub(crate) fn problems(&self) -> &Arc<Problems> {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error, info, subscriber::with_default};

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

    #[test]
    fn a_level_that_cannot_be_read_is_told_in_the_format_of_the_settings() {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(Some("fpush=loud"), Output::Plain, memory.clone());
        with_default(subscriber, || {
            info!("info is the level");
            assert_eq!(memory.text().lines().count(), 1);
            log.set_format(Format::Json);
            log.set_format(Format::Json);
        });
        let text = memory.text();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].contains("RUST_LOG cannot be read"), "{text}");
    }

    #[test]
    fn an_empty_level_is_none() {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(Some(" "), Output::Plain, memory.clone());
        with_default(subscriber, || {
            log.set_format(Format::Human);
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
