//! What many tests need and no fake is.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Whether this process may do to files what root may.
#[must_use]
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Puts what `more` says over what `base` says; `null` takes a key away.
#[must_use]
pub fn merged(mut base: Value, more: Value) -> Value {
    let Value::Object(more) = more else { return more };
    for (key, value) in more {
        let old = base[&key].take();
        if value.is_null() {
            base.as_object_mut().unwrap().remove(&key);
        } else if old.is_object() && value.is_object() {
            base[key] = merged(old, value);
        } else {
            base[key] = value;
        }
    }
    base
}

/// Push modules that answer an outage with an error, unless they say something else: what becomes of a publish that fails is
/// seen in its answer.
#[must_use]
pub fn without_holding(mut modules: Value) -> Value {
    for module in modules.as_object_mut().into_iter().flatten() {
        if let Value::Object(module) = module.1 {
            module.entry("holdFor").or_insert_with(|| "0s".into());
        }
    }
    modules
}

/// How long a test waits for what surely comes: a test that hangs ends, and none fails because its machine is busy.
pub const LONG: Duration = Duration::from_secs(180);

/// Waits until something holds that no event tells of. `what` says it in words.
///
/// # Panics
///
/// It does not hold in time.
#[track_caller]
pub fn until(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Keeps what is written to it; its clones share that.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
