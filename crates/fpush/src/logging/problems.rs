//! Sees all warnings and errors: counts them, keeps the last ones for the status page, and keeps those that
//! repeat from filling the log.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
    hash::{BuildHasher as _, Hash as _, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use fpush_monitor::Problem;
use fpush_push::{metrics::WordCounters, sync::lock};
use tokio::time::Instant;
use tracing::{
    Event, Level, Metadata, Subscriber, Value,
    field::{Field, Visit, display},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Layer};

use super::{
    gates::{Gates, Kind, Named, Summary, Words},
    level::{InForce, OURS},
};

/// Warnings and errors, whether the log shows them or not.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    hasher: RandomState,
    gates: Mutex<Gates>,
    counted: Arc<WordCounters>,
}

impl Problems {
    /// Writes a line for those that were withheld in a minute that is over. To be called once a second.
    pub(crate) fn tick(&self, now: Instant) {
        // The lock is free again before anything is written.
        let summaries = self.lock().tick(now);
        summaries.iter().for_each(write);
    }

    /// Writes a line for all that were withheld. To be called before the program ends.
    pub(crate) fn finish(&self) {
        let summaries = self.lock().finish();
        summaries.iter().for_each(write);
    }

    /// The last problems, the latest first, fifty at most.
    pub(crate) fn recent(&self) -> Vec<Problem> {
        self.lock().recent()
    }

    /// How many there were of each level, those included that were withheld.
    pub(crate) fn counted(&self) -> &Arc<WordCounters> {
        &self.counted
    }

    /// Notes one. Whether it may be written.
    fn note(&self, event: &Event<'_>, now: Instant, at: SystemTime) -> bool {
        let metadata = event.metadata();
        let is_error = *metadata.level() == Level::ERROR;
        self.counted.increment(if is_error { "error" } else { "warn" });
        let mut hasher = Identity(self.hasher.build_hasher());
        metadata.callsite().hash(&mut hasher.0);
        event.record(&mut hasher);
        let kind = Kind(hasher.0.finish());
        let passes = self.lock().note(kind, metadata, now, at);
        if passes {
            // Without the lock: what a value writes of itself is not ours.
            let words = Parts::of(event).into_words(metadata);
            self.lock().describe(kind, words);
        }
        passes
    }

    fn lock(&self) -> MutexGuard<'_, Gates> {
        lock(&self.gates)
    }
}

/// Sends a summary the way of the message that it is about, so that it has its level and its target.
fn write(summary: &Summary) {
    let Summary {
        metadata,
        words,
        withheld,
    } = summary;
    let fields = metadata.fields();
    let Some(message) = fields.field("message") else {
        return;
    };
    let line = format!(
        "… and {} more in the last minute: {}",
        Grouped(*withheld),
        words.message
    );
    let identity = IDENTITY.map(|name| {
        let named = words.identity.iter().find(|named| named.name == name)?;
        let text = named.value.as_str();
        Some((fields.field(name)?, text, display(text), named.is_text))
    });
    let [first, second, third, fourth] = identity.each_ref().map(|identity| match identity {
        Some((field, text, _, true)) => (field, Some(text as &dyn Value)),
        Some((field, _, displayed, false)) => (field, Some(displayed as &dyn Value)),
        // A field without a value is skipped.
        None => (&message, None),
    });
    let values: [(&Field, Option<&dyn Value>); 5] = [(&message, Some(&line)), first, second, third, fourth];
    SUMMING_UP.set(true);
    Event::dispatch(metadata, &fields.value_set(&values));
    SUMMING_UP.set(false);
}

thread_local! {
    /// Whether what is being logged is a summary, which no gate withholds and nobody counts.
    static SUMMING_UP: Cell<bool> = const { Cell::new(false) };
}

/// Decides what the log shows. A filter for all layers below it, because a filter of one layer would not do: it must
/// see warnings that `RUST_LOG` does not want.
pub(super) struct Watch {
    wanted: InForce,
    problems: Arc<Problems>,
}

impl Watch {
    pub(super) fn new(wanted: InForce, problems: Arc<Problems>) -> Self {
        Self { wanted, problems }
    }

    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_problem(metadata) || is_ours(metadata) && self.wanted.wants_place(metadata)
    }

    fn is_wanted(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if metadata.target() != LOG_CRATE {
            return self.wanted.wants_place(metadata);
        }
        // A message of the crate `log`: its target is a field.
        let mut target = TargetField(None);
        event.record(&mut target);
        let target = target.0.as_deref().unwrap_or(LOG_CRATE);
        self.wanted.wants(target, metadata.level())
    }
}

impl<S: Subscriber> Layer<S> for Watch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.wanted.most().max(LevelFilter::WARN))
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !is_problem(event.metadata()) {
            return true;
        }
        let passes = SUMMING_UP.get() || self.problems.note(event, Instant::now(), SystemTime::now());
        passes && self.is_wanted(event)
    }
}

/// Whatever `RUST_LOG` says, other people's crates are heard from warn on: those that speak HTTP write headers with
/// tokens at debug.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OURS)
}

fn is_problem(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= LevelFilter::WARN
}

/// Hashes what makes a problem a kind of its own, without keeping it.
struct Identity<H>(H);

impl<H: Hasher> Visit for Identity<H> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if IDENTITY.contains(&field.name()) {
            self.0.write_usize(field.index());
            // A value that cannot be written is as good as an empty one.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl<H: Hasher> fmt::Write for Identity<H> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.write(part.as_bytes());
        Ok(())
    }
}

/// The parts of a problem that its words are made of.
#[derive(Default)]
struct Parts {
    message: String,
    identity: [Option<Named>; IDENTITY.len()],
    reasons: [Option<String>; REASONS.len()],
}

impl Parts {
    fn of(event: &Event<'_>) -> Self {
        let mut parts = Self::default();
        event.record(&mut parts);
        parts
    }

    fn into_words(self, metadata: &Metadata<'_>) -> Words {
        let Self {
            message,
            identity,
            reasons,
        } = self;
        let mut text = message.clone();
        for reason in reasons.into_iter().flatten().filter(|reason| !reason.is_empty()) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&reason);
        }
        if text.is_empty() {
            metadata.name().clone_into(&mut text);
        }
        let about = match &identity {
            [Some(module), ..] => module.value.clone(),
            [None, Some(settings), ..] => settings.value.clone(),
            [None, None, Some(link), _] => format!("link {}", link.value),
            [None, None, None, Some(target)] => part_of(&target.value),
            [None, None, None, None] => part_of(metadata.target()),
        };
        Words {
            message: cut(message),
            text: cut(text),
            about: cut(about),
            identity: identity.into_iter().flatten().collect(),
        }
    }

    fn keep(&mut self, field: &Field, value: &dyn fmt::Debug, is_text: bool) {
        let is_field = |name: &&str| *name == field.name();
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if let Some(nth) = IDENTITY.iter().position(is_field) {
            self.identity[nth] = Some(Named {
                name: IDENTITY[nth],
                value: format!("{value:?}"),
                is_text,
            });
        } else if let Some(nth) = REASONS.iter().position(is_field) {
            self.reasons[nth] = Some(format!("{value:?}"));
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, &format_args!("{value}"), true);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, value, false);
    }
}

/// The target of a message of the crate `log`.
struct TargetField(Option<String>);

impl Visit for TargetField {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == LOG_TARGET {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The part of the program that a target is in: `http` of `fpush_http::listener`.
fn part_of(target: &str) -> String {
    let part = target.split("::").next().unwrap_or_default();
    part.strip_prefix("fpush_").unwrap_or(part).to_owned()
}

/// Not more of it than fits on a page, because an answer may be long.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A number with its digits in groups of three.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number < 1_000 {
            write!(f, "{number}")
        } else {
            write!(f, "{},{:03}", Self(number / 1_000), number % 1_000)
        }
    }
}

/// Where messages of the crate `log` come from, as far as tracing knows.
const LOG_CRATE: &str = "log";
const LOG_TARGET: &str = "log.target";
/// The fields that make a problem a kind of its own. No others, because strangers may choose those.
const IDENTITY: [&str; 4] = ["module", "settings", "link", LOG_TARGET];
/// The fields that say why.
const REASONS: [&str; 4] = ["answer", "meaning", "problem", "error"];
/// In characters.
const MAX_TEXT: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use fpush_monitor::Severity;
    use tracing::{debug, error, info, subscriber::with_default, warn};

    use super::*;
    use crate::logging::{
        Format, Log,
        lines::Output,
        tests::{Memory, as_format},
    };

    /// What was written, without times.
    fn run(wanted: Option<&str>, work: impl FnOnce(&Log)) -> Vec<String> {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(wanted, Output::Journal, memory.clone());
        with_default(subscriber, || work(&log));
        let lines = memory.text();
        let own = concat!(module_path!(), ": ");
        lines.lines().map(|line| line.replace(own, "")).collect()
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn repeats_are_withheld_and_summed_up() {
        let lines = run(None, |log| {
            for sender in 0..4_817 {
                warn!(sender, module = "ios", "a bad token");
            }
            log.problems().tick(Instant::now());
            log.problems().tick(in_a_minute());
            log.problems().tick(in_a_minute());
        });
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[4], "<4>a bad token sender=4 module=\"ios\"");
        assert_eq!(
            lines[5],
            "<4>… and 4,812 more in the last minute: a bad token module=\"ios\""
        );
    }

    #[test]
    fn a_summary_is_an_object_too() {
        let memory = Memory::default();
        let (subscriber, log) = Log::new(None, Output::Plain, memory.clone());
        log.set(&as_format(Format::Json));
        with_default(subscriber, || {
            for number in 0..7 {
                error!(settings = %"a.b", number, "no token");
            }
            log.problems().finish();
        });
        let text = memory.text();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["message"], "… and 2 more in the last minute: no token");
        assert_eq!(
            (&last["level"], &last["settings"]),
            (&"ERROR".into(), &"a.b".into())
        );
        assert_eq!(last["target"], module_path!());
        assert_eq!(last.get("number"), None);
    }

    #[test]
    fn place_module_settings_and_link_make_a_kind_and_nothing_else_does() {
        let recent = recent_of(|| {
            for number in 0..20 {
                warn!(module = %format!("m{}", number % 2), number, "first");
                warn!(module = "m0", number, "second");
                warn!(settings = number % 3, "third {number}");
                warn!(link = %format!("l{}", number % 2), number, "fourth");
            }
        });
        let mut counts: Vec<_> = recent
            .iter()
            .map(|problem| (&*problem.about, problem.count))
            .collect();
        counts.sort_unstable();
        assert_eq!(
            counts,
            [
                ("0", 7),
                ("1", 7),
                ("2", 6),
                ("link l0", 10),
                ("link l1", 10),
                ("m0", 10),
                ("m0", 20),
                ("m1", 10)
            ]
        );
    }

    fn recent_of(work: impl FnOnce()) -> Vec<Problem> {
        let mut recent = Vec::new();
        run(None, |log| {
            work();
            recent = log.problems().recent();
        });
        recent
    }

    #[test]
    fn problems_are_told_in_words() {
        let before = SystemTime::now();
        let recent = recent_of(|| {
            warn!("alone");
            error!(module = "ios", answer = %"410 Gone", seconds = 3, meaning = "it is gone", "refused");
            error!(target: "fpush_http::listener", problem = %"no file descriptors", "cannot accept");
            warn!(target: "h2::proto", secret = "no", "slow");
            error!(settings = %"pushModules.a", "{}", "x".repeat(2_000));
        });
        let words: Vec<_> = recent.iter().map(|p| (p.severity, &*p.about, &*p.text)).collect();
        let long = format!("{}…", "x".repeat(1_000));
        assert_eq!(
            words,
            [
                (Severity::Error, "pushModules.a", &*long),
                (Severity::Warning, "h2", "slow"),
                (Severity::Error, "http", "cannot accept: no file descriptors"),
                (Severity::Error, "ios", "refused: 410 Gone: it is gone"),
                (Severity::Warning, "fpush", "alone"),
            ]
        );
        assert!(
            recent
                .iter()
                .all(|p| p.first >= before && p.first <= p.last && p.count == 1)
        );
    }

    #[test]
    fn the_last_one_that_was_written_is_shown() {
        let recent = recent_of(|| {
            for number in 0..20 {
                warn!("number {number}");
            }
        });
        assert_eq!((&*recent[0].text, recent[0].count), ("number 4", 20));
    }

    #[test]
    fn what_the_log_does_not_show_is_noted_nevertheless() {
        for (wanted, shown) in [("error", 1), ("off", 0), ("fpush_apns=debug", 0)] {
            let mut noted = 0;
            let lines = run(Some(wanted), |log| {
                warn!("a warning");
                error!("an error");
                info!("no problem");
                for _ in 0..10 {
                    warn!("many");
                }
                noted = log.problems().recent().len();
                log.problems().finish();
            });
            assert_eq!((lines.len(), noted), (shown, 3), "{wanted}: {lines:?}");
        }
    }

    #[test]
    fn nothing_below_the_level_costs_anything() {
        for (wanted, most) in [
            (None, LevelFilter::INFO),
            (Some("error"), LevelFilter::WARN),
            (Some("off"), LevelFilter::WARN),
            (Some("info,fpush_apns=debug"), LevelFilter::DEBUG),
        ] {
            let (subscriber, _log) = Log::new(wanted, Output::Plain, Memory::default());
            assert_eq!(subscriber.max_level_hint(), Some(most), "{wanted:?}");
        }
        run(None, |_| {
            assert!(!tracing::enabled!(Level::DEBUG));
            assert!(tracing::enabled!(Level::INFO));
            debug!("{}", panics());
        });
        run(Some("error"), |_| {
            assert!(!tracing::enabled!(Level::INFO));
            assert!(tracing::enabled!(Level::WARN));
        });
    }

    fn panics() -> &'static str {
        panic!("nobody formats what is not wanted")
    }

    #[test]
    fn other_peoples_crates_are_heard_from_warn_on() {
        let lines = run(Some("trace"), |_| {
            debug!(target: "h2", "a token");
            info!(target: "h2", "a frame");
            warn!(target: "h2", "slow");
            debug!(target: "fpush_apns", "ours");
        });
        assert_eq!(lines, ["<4>h2: slow", "<7>fpush_apns: ours"]);
    }

    /// Their target is a field, and tracing's own one is the same for all of them.
    #[test]
    fn messages_of_the_crate_log_have_targets_too() {
        let mut recent = Vec::new();
        let lines = run(Some("info,rustls=off"), |log| {
            for _ in 0..7 {
                warn!(target: "log", { log.target = "rustls::conn" }, "hidden");
            }
            warn!(target: "log", { log.target = "h2" }, "shown");
            log.problems().finish();
            recent = log.problems().recent();
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let about: Vec<_> = recent.iter().map(|p| (&*p.about, p.count)).collect();
        assert_eq!(about, [("h2", 1), ("rustls", 7)]);
    }

    #[test]
    fn nothing_is_formatted_for_what_is_withheld() {
        struct Counting(AtomicUsize);
        impl fmt::Display for Counting {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fetch_add(1, Ordering::Relaxed);
                f.write_str("x")
            }
        }
        let (message, answer) = (Counting(0.into()), Counting(0.into()));
        run(None, |_| {
            for _ in 0..100 {
                warn!(%answer, "{message}");
            }
        });
        // For the line and for the status page.
        assert_eq!(message.0.into_inner(), 10);
        assert_eq!(answer.0.into_inner(), 10);
    }

    #[test]
    fn a_value_that_logs_while_it_is_formatted_blocks_nothing() {
        struct Logging;
        impl fmt::Display for Logging {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                warn!("from within");
                f.write_str("x")
            }
        }
        let lines = run(None, |_| warn!(module = %Logging, answer = %Logging, "outer"));
        assert!(lines.iter().any(|line| line.contains("outer")), "{lines:?}");
    }

    #[test]
    fn digits_are_in_groups() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_034_567, "12,034,567"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
