//! What a line of the log looks like.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Full, Json, Writer},
    },
    registry::LookupSpan,
};

/// The setting `logging.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people.
    #[default]
    Human,
    /// A JSON object in each line.
    Json,
}

impl Format {
    /// As they are written in the settings.
    pub(crate) const CHOICES: &[(&str, Self)] = &[("human", Self::Human), ("json", Self::Json)];
}

/// A [`Format`] that can be changed while the log is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen(Arc<AtomicBool>);

impl Chosen {
    pub(super) fn set(&self, format: Format) {
        self.0.store(format == Format::Json, Ordering::Relaxed);
    }

    fn is_json(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// A terminal that shows colours.
    Terminal,
    /// A file, a pipe, or a terminal without colours.
    Plain,
    /// systemd's journal, which takes the level from the beginning of a line and knows the time by itself.
    Journal,
}

impl Output {
    /// What standard error is.
    pub(super) fn detect() -> Self {
        let stream = env::var("JOURNAL_STREAM").ok();
        if stream.is_some_and(|stream| standard_error().is_ok_and(|file| is_stream(&file, &stream))) {
            Self::Journal
        } else if io::stderr().is_terminal() && shows_colours(env::var_os("NO_COLOR"), env::var_os("TERM")) {
            Self::Terminal
        } else {
            Self::Plain
        }
    }
}

/// Whether a terminal shows colours, and its user wants them (<https://no-color.org>).
fn shows_colours(no_color: Option<OsString>, terminal: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && terminal.is_none_or(|terminal| terminal != "dumb")
}

fn standard_error() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Whether a file is the one that `JOURNAL_STREAM` names. It need not be: a redirection of standard error leaves
/// the variable as it was.
fn is_stream(file: &File, stream: &str) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    file.metadata()
        .is_ok_and(|file| device.parse() == Ok(file.dev()) && inode.parse() == Ok(file.ino()))
}

/// Writes the lines.
pub(super) struct Lines {
    chosen: Chosen,
    output: Output,
    human: format::Format,
    journal: format::Format<Full, ()>,
    json: format::Format<Json>,
}

impl Lines {
    pub(super) fn new(chosen: Chosen, output: Output) -> Self {
        Self {
            chosen,
            output,
            human: format::format(),
            journal: format::format().without_time().with_level(false),
            json: format::json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let is_json = self.chosen.is_json();
        match self.output {
            Output::Terminal | Output::Plain if is_json => self.json.format_event(context, writer, event),
            Output::Terminal | Output::Plain => self.human.format_event(context, writer, event),
            Output::Journal => {
                let priority = priority(*event.metadata().level());
                if is_json {
                    write!(writer, "<{priority}>")?;
                    return self.json.format_event(context, writer, event);
                }
                let mut text = String::new();
                self.journal
                    .format_event(context, Writer::new(&mut text), event)?;
                text.trim_end()
                    .lines()
                    .try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
            }
        }
    }
}

/// As in `sd-daemon(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, trace, warn};

    use super::*;
    use crate::logging::{
        Log,
        tests::{Memory, as_format},
    };

    fn written(output: Output, format: Format, log: impl FnOnce(&Log)) -> String {
        let memory = Memory::default();
        let (subscriber, control) = Log::new(Some("trace"), output, memory.clone());
        control.set(&as_format(format));
        tracing::subscriber::with_default(subscriber, || log(&control));
        memory.text()
    }

    #[test]
    fn people_get_time_level_target_message_and_fields() {
        let text = written(Output::Plain, Format::Human, |_| {
            warn!(module = "ios", "too slow");
        });
        let (time, rest) = text.split_once("  WARN ").unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, "fpush::logging::lines::tests: too slow module=\"ios\"\n");
    }

    #[test]
    fn a_terminal_gets_colours() {
        let text = written(Output::Terminal, Format::Human, |_| {
            info!("red");
        });
        assert!(text.contains("\u{1b}["), "{text}");
    }

    #[test]
    fn machines_get_an_object_in_each_line() {
        for (output, prefix) in [
            (Output::Plain, ""),
            (Output::Terminal, ""),
            (Output::Journal, "<6>"),
        ] {
            let text = written(output, Format::Json, |_| {
                info!(module = %"ios", held = 3, "one\ntwo");
            });
            let line = text.strip_prefix(prefix).unwrap().strip_suffix('\n').unwrap();
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut object = object.as_object().unwrap().clone();
            assert!(object.remove("timestamp").unwrap().is_string());
            let expected = serde_json::json!({
                "level": "INFO", "target": "fpush::logging::lines::tests", "message": "one\ntwo",
                "module": "ios", "held": 3,
            });
            assert_eq!(serde_json::Value::from(object), expected);
        }
    }

    #[test]
    fn the_journal_gets_a_priority_in_each_line_and_nothing_that_it_knows() {
        let text = written(Output::Journal, Format::Human, |_| {
            error!("one\n<7>two\n");
            warn!(held = 3, "x");
            info!("x");
            debug!("x");
            trace!("x");
        });
        let target = "fpush::logging::lines::tests";
        let expected = format!(
            "<3>{target}: one\n<3><7>two\n<4>{target}: x held=3\n<6>{target}: x\n<7>{target}: x\n<7>{target}: x\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_format_changes_while_the_log_is_in_use() {
        let text = written(Output::Plain, Format::Human, |log| {
            info!("first");
            log.set(&as_format(Format::Json));
            info!("second");
            log.set(&as_format(Format::Human));
            info!("third");
        });
        let starts: Vec<_> = text.lines().map(|line| &line[..1]).collect();
        assert_eq!(starts, ["2", "{", "2"]);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = File::open("/dev/null").unwrap();
        let (device, inode) = (file.metadata().unwrap().dev(), file.metadata().unwrap().ino());
        assert!(is_stream(&file, &format!("{device}:{inode}")));
        assert!(!is_stream(&file, &format!("{device}:{}", inode + 1)));
        assert!(!is_stream(&file, &format!("{}:{inode}", device + 1)));
        for nonsense in ["", ":", "7", "a:b"] {
            assert!(!is_stream(&file, nonsense));
        }
        assert!(standard_error().is_ok());
    }

    #[test]
    fn the_settings_name_both_formats() {
        assert_eq!(
            Format::CHOICES,
            [("human", Format::Human), ("json", Format::Json)]
        );
    }
}
