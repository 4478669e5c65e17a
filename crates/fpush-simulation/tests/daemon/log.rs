//! The log of the daemon, every level of it: looked through for secrets, and part of the trace.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    panic,
    sync::{Arc, Mutex, Once, PoisonError},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{books::Shared, stanzas::MARK};

/// What was logged since it was last taken.
#[derive(Clone)]
pub(crate) struct Log {
    books: Shared,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    pub(crate) fn new(books: Shared) -> Self {
        Self {
            books,
            lines: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a text shows a secret.
pub(crate) fn shows_secret(text: &str) -> bool {
    text.contains(MARK) || text.contains(&MARK.to_ascii_uppercase())
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fpush")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!(
            "{} {}:",
            event.metadata().level(),
            event.metadata().target()
        ));
        event.record(&mut line);
        self.books.lock().tell(&line.0);
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Keeps what panics on this thread: tokio would catch it in a task, and the daemon would be aborted by it.
pub(crate) fn keep_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let kept = PANICS.try_with(|panics| {
                let mut panics = panics.borrow_mut();
                panics.as_mut().map(|panics| panics.push(info.to_string()))
            });
            if !matches!(kept, Ok(Some(()))) {
                others(info);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// The first panic on this thread.
pub(crate) fn panicked() -> Option<String> {
    PANICS.with_borrow(|panics| panics.as_ref()?.first().cloned())
}

/// Only for a run that asked for it.
#[expect(clippy::disallowed_macros, reason = "it is a test's")]
pub(crate) fn say(text: fmt::Arguments<'_>) {
    eprintln!("{text}");
}
