//! One object of the settings.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Report, Severity,
    span::{Span, SpanOrSeconds},
    spelling::{KnownSection, distance, nearest, nearest_within},
};

/// One object of the settings, read key by key. [`finish`](Self::finish) reports the keys that nobody asked
/// for.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    /// Keys of which it was said why they are not known.
    strange: Vec<&'static str>,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// The outermost object of a file.
    #[must_use]
    pub fn root(object: &'a Map<String, Value>, report: &'a Report) -> Self {
        Self::new(String::new(), object, report)
    }

    fn new(path: String, object: &'a Map<String, Value>, report: &'a Report) -> Self {
        Self {
            path,
            object,
            known: Vec::new(),
            strange: Vec::new(),
            report,
        }
    }

    /// Where problems go.
    #[must_use]
    pub fn report(&self) -> &'a Report {
        self.report
    }

    /// The full path of a key in this section.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Adds an error at one of this section's keys; at the section itself for an empty key.
    pub fn error(&self, key: &str, message: impl fmt::Display) {
        self.report.error(&self.path_of(key), message);
    }

    /// Adds a warning at one of this section's keys.
    pub fn warning(&self, key: &str, message: impl fmt::Display) {
        self.report.warning(&self.path_of(key), message);
    }

    /// Adds at one of this section's keys that this part cannot work.
    pub fn unusable(&self, key: &str, message: impl fmt::Display) {
        self.report.unusable(&self.path_of(key), message);
    }

    /// Whether the key is there, with any value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The value of a key, whatever it is.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.object.get(key)
    }

    /// A value of any type that serde reads; `None` if the key is missing. What cannot be read is an error, which says what
    /// was expected.
    pub fn read<T: Deserialize<'a>>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.read_if(key, expected, |_| true)
    }

    fn read_if<T: Deserialize<'a>>(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = T::deserialize(value).ok().filter(fits);
        if read.is_none() {
            self.wrong_type(key, expected, value);
        }
        read
    }

    /// A string that may be missing.
    pub fn optional_string(&mut self, key: &'static str) -> Option<&'a str> {
        self.read(key, "a string")
    }

    /// A string that must be there and not be empty.
    pub fn string(&mut self, key: &'static str) -> Option<&'a str> {
        if !self.has(key) {
            self.value(key);
            self.missing(key, "a string");
            return None;
        }
        let string = self.optional_string(key)?;
        if string.is_empty() {
            self.error(key, "expected a string that is not empty");
            return None;
        }
        Some(string)
    }

    /// A path of a file that may be missing in the settings.
    pub fn optional_file(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional_string(key).map(PathBuf::from)
    }

    /// A path of a folder that may be missing in the settings.
    pub fn optional_folder(&mut self, key: &'static str) -> Option<PathBuf> {
        if self.has(key) {
            self.string(key).map(PathBuf::from)
        } else {
            self.value(key);
            None
        }
    }

    /// The content of a file that holds a secret and whose path must be there.
    pub fn secret_file(&mut self, key: &'static str) -> Option<Vec<u8>> {
        let file = self.string(key)?;
        self.report.read_secret_file(&self.path_of(key), Path::new(file))
    }

    /// A yes or no.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, "true or false").unwrap_or(default)
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        if self.has(key) {
            self.required_integer(key, range).unwrap_or(default)
        } else {
            self.value(key);
            default
        }
    }

    /// A whole number in a range that must be there.
    pub fn required_integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        if !self.has(key) {
            self.missing(key, &expected);
        }
        self.read_if(key, &expected, |number| range.contains(number))
    }

    /// A number in a range that may be missing.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read_if(key, &expected, |number| range.contains(number))
    }

    /// A time span as a string such as `"20s"` or `"10min 30s"`.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let span = self.read(key, "a time span such as \"20s\", \"10min\" or \"1h 30min\"");
        span.map_or(default, |Span(span)| span)
    }

    /// A time span as a string, or as a number of seconds; never zero.
    pub fn duration_or_seconds(&mut self, key: &'static str, default: Duration) -> Duration {
        let span = self.read(key, "a number of seconds or a time span such as \"5s\", not zero");
        span.map_or(default, |SpanOrSeconds(span)| span)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let Some(value) = self.value(key) else {
            return default;
        };
        let chosen = value
            .as_str()
            .and_then(|word| choices.iter().find(|(name, _)| *name == word));
        if let Some((_, chosen)) = chosen {
            return *chosen;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let names_of = || choices.iter().map(|(name, _)| *name);
        let hint = value.as_str().and_then(|word| {
            let foreign = FOREIGN_WORDS
                .iter()
                .find(|(foreign, _)| word.eq_ignore_ascii_case(foreign));
            let foreign = foreign.and_then(|(_, meant)| names_of().find(|name| name == meant));
            foreign.or_else(|| nearest(word, names_of()))
        });
        let hint = hint.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
        self.error(
            key,
            format_args!("expected {}, found {}{hint}", names.join(" or "), shown(value)),
        );
        default
    }

    /// An object that must be there.
    pub fn section(&mut self, key: &'static str) -> Option<Self> {
        match self.value(key) {
            None => {
                self.missing(key, "an object");
                None
            }
            Some(Value::Object(object)) => Some(Section::new(self.path_of(key), object, self.report)),
            Some(other) => {
                self.wrong_type(key, "an object", other);
                None
            }
        }
    }

    /// An object that must be there, or several in a list.
    pub fn one_or_more(&mut self, key: &'static str) -> Vec<Self> {
        let Some(Value::Array(list)) = self.object.get(key) else {
            return self.section(key).into_iter().collect();
        };
        self.known.push(key);
        if list.is_empty() {
            self.error(
                key,
                "expected an object or a list of objects, found an empty list",
            );
        }
        let mut sections = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match value {
                Value::Object(object) => {
                    sections.push(Section::new(self.path_of(&key), object, self.report));
                }
                other => self.wrong_type(&key, "an object", other),
            }
        }
        sections
    }

    /// An object that may be missing, which is the same as an empty one.
    pub fn section_or_empty(&mut self, key: &'static str) -> Self {
        let section = if self.has(key) {
            self.section(key)
        } else {
            self.value(key);
            None
        };
        section.unwrap_or_else(|| Section::new(self.path_of(key), &EMPTY, self.report))
    }

    /// The objects of an object whose keys are the operator's own, such as module names.
    pub fn sections(&mut self, key: &'static str) -> Vec<(&'a str, Self)> {
        let Some(parent) = self.section(key) else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, value) in parent.object {
            match value {
                Value::Object(object) => {
                    sections.push((
                        name.as_str(),
                        Section::new(parent.path_of(name), object, self.report),
                    ));
                }
                other => parent.wrong_type(name, "an object", other),
            }
        }
        sections
    }

    /// A key that this section does not know, and of which there is more to say than [`finish`](Self::finish) could.
    pub fn strange(&mut self, key: &'static str, hint: impl fmt::Display) {
        if self.has(key) {
            let message = format!("this key is not known; {hint}");
            self.report.add(Severity::UnknownKey, &self.path_of(key), message);
            self.strange.push(key);
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let Self {
            path,
            object,
            known,
            strange,
            report,
        } = &self;
        let is_named = |key: &str| known.contains(&key) || strange.contains(&key);
        for key in object.keys().filter(|key| !is_named(key)) {
            let unused = known.iter().copied().filter(|known| !self.has(known));
            let used = known.iter().copied().filter(|known| self.has(known));
            let foreign = FOREIGN
                .iter()
                .find(|(foreign, meant)| foreign == key && known.contains(meant));
            let foreign = foreign.map(|(_, meant)| *meant);
            // No more mistakes than a second spelling of the same is likely to have.
            let twice = nearest_within(key, used, |used| if used.len() > 8 { 2 } else { 1 });
            let twice = foreign.filter(|meant| self.has(meant)).or(twice);
            let near = foreign
                .filter(|meant| !self.has(meant))
                .or_else(|| nearest(key, unused));
            let is_nearer = |twice: &&str| near.is_none_or(|near| distance(key, twice) < distance(key, near));
            let hint = match (near, twice.filter(is_nearer)) {
                (_, Some(near)) => format!("; \"{near}\" is there already"),
                (Some(near), None) => format!("; did you mean \"{near}\"?"),
                (None, None) => {
                    let problem = report.problems.borrow().len();
                    let stray = (problem, path.clone(), key.clone());
                    report.strays.borrow_mut().push(stray);
                    String::new()
                }
            };
            let message = format!("this key is not known{hint}");
            report.add(Severity::UnknownKey, &self.path_of(key), message);
        }
        let used = known.iter().copied().filter(|known| self.has(known)).collect();
        let Self { path, known, .. } = self;
        let section = KnownSection {
            path,
            keys: known,
            used,
        };
        self.report.known.borrow_mut().push(section);
    }

    fn missing(&self, key: &str, expected: &str) {
        self.error(key, format_args!("this key is missing; expected {expected}"));
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Value) {
        // What is in it is of another kind than the list itself.
        let within = if found.is_array() && expected.starts_with("a list") {
            " with something else in it"
        } else {
            ""
        };
        self.error(
            key,
            format_args!("expected {expected}, found {}{within}", shown(found)),
        );
    }
}

/// The type of a value, for a message: the value itself may be a secret that is at the wrong place.
fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number that does not fit",
        Value::String(_) => "a string that does not fit",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Other names by which people know a key: those of the original's README, and those of other programs.
const FOREIGN: [(&str, &str); 10] = [
    ("pushPriority", "priority"),
    ("priority", "pushPriority"),
    ("pushTtl", "ttl"),
    ("ttl", "pushTtl"),
    ("keyPath", "tokenKeyFilePath"),
    ("keyFilePath", "tokenKeyFilePath"),
    ("caFilePath", "tls"),
    ("timeoutConfig", "timeout"),
    ("port", "listen"),
    ("bind", "listen"),
];

/// The same for words that are chosen.
const FOREIGN_WORDS: [(&str, &str); 7] = [
    ("fcm", "google"),
    ("firebase", "google"),
    ("apns", "apple"),
    ("ios", "apple"),
    ("prod", "production"),
    ("dev", "sandbox"),
    ("development", "sandbox"),
];

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
