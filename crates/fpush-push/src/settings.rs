//! Reading settings: every value is checked while it is read, and every mistake of a file is reported in one
//! run, with its place, what was expected and, for a misspelt key, the nearest known one.

use std::{
    cell::RefCell,
    fmt, fs, io,
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};
use siphasher::sip128::SipHasher13;

use crate::files;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The daemon cannot start.
    Error,
    /// A key that nobody reads: a warning when the daemon starts, because the original ignored such keys, and
    /// an error in `fpush check`.
    UnknownKey,
    /// The daemon starts, but this part of it cannot work, such as a module whose certificate has expired: a warning when
    /// the daemon starts, because the other parts work, and an error in `fpush check`.
    Unusable,
    /// The daemon starts, but the operator should know.
    Warning,
    /// Nothing is wrong: what `fpush check` finds otherwise than a start will, and why.
    Note,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The key, such as `pushModules.monalProdiOS.apns.topic`.
    pub path: String,
    /// What was expected, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Collects the problems of one file, and notes which other files were read for it.
#[derive(Debug, Default)]
pub struct Report {
    problems: RefCell<Vec<Problem>>,
    /// The keys that each section knows.
    known: RefCell<Vec<(String, Vec<&'static str>)>>,
    /// Keys that their section does not know, and nothing like them: the problem, the section and the key.
    strays: RefCell<Vec<(usize, String, String)>>,
    files: RefCell<Vec<NamedFile>>,
    provided: Vec<ProvidedFile>,
}

/// A file that is there only while the service runs, because systemd makes it for the service from another one.
#[derive(Debug)]
pub struct ProvidedFile {
    /// Where the settings expect it.
    pub path: PathBuf,
    /// The unit file's name.
    pub unit: String,
    /// Where its content comes from, if that is a file.
    pub source: Option<PathBuf>,
    /// The content, or why it is not known.
    pub content: Result<Vec<u8>, NotSeen>,
}

/// Why the content of a [`ProvidedFile`] is not known.
#[derive(Debug)]
pub enum NotSeen {
    /// Its source is not there, or not even systemd can read it.
    Missing(io::Error),
    /// Who looks may not read its source, which may well be right; or the source is encrypted.
    Hidden,
}

/// A file that the settings name, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    path: PathBuf,
    /// Of its content; `None` if it could not be read.
    imprint: Option<u128>,
}

impl NamedFile {
    /// The file as it is now.
    #[must_use]
    pub fn read_again(&self) -> Self {
        Self {
            path: self.path.clone(),
            imprint: files::read(&self.path, files::LARGEST)
                .ok()
                .map(|content| imprint(&content)),
        }
    }

    /// What stands for path and content.
    #[must_use]
    pub fn imprint(&self) -> u128 {
        let content = self.imprint.unwrap_or_default();
        imprint(self.path.as_os_str().as_encoded_bytes()) ^ content.rotate_left(1)
    }
}

/// A number that stands for some bytes, to see whether they have changed. It is the same in every process.
#[must_use]
pub fn imprint(bytes: &[u8]) -> u128 {
    SipHasher13::new().hash(bytes).as_u128()
}

impl Report {
    /// A report in which these files stand for those that systemd will make of them.
    #[must_use]
    pub fn with(provided: Vec<ProvidedFile>) -> Self {
        Self {
            provided,
            ..Self::default()
        }
    }

    /// Adds an error at a place.
    pub fn error(&self, path: &str, message: impl fmt::Display) {
        self.add(Severity::Error, path, message);
    }

    /// Adds a warning at a place.
    pub fn warning(&self, path: &str, message: impl fmt::Display) {
        self.add(Severity::Warning, path, message);
    }

    /// Adds a part that cannot work, at a place.
    pub fn unusable(&self, path: &str, message: impl fmt::Display) {
        self.add(Severity::Unusable, path, message);
    }

    /// Whether something keeps the daemon from starting.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems
            .borrow()
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Everything found, in the order in which it was found.
    #[must_use]
    pub fn into_problems(self) -> Vec<Problem> {
        let Self {
            problems,
            known,
            strays,
            files: _,
            provided: _,
        } = self;
        let (mut problems, known) = (problems.into_inner(), known.into_inner());
        for (problem, section, key) in strays.into_inner() {
            let homes = homes(&section, &key, &known);
            if !homes.is_empty() {
                let hint = format!("; it belongs into {}", homes.join(" or "));
                problems[problem].message.push_str(&hint);
            }
        }
        problems
    }

    /// Reads a file that the settings name, such as a certificate.
    pub fn read_file(&self, path: &str, file: &Path) -> Option<Vec<u8>> {
        let content = match files::read(file, files::LARGEST) {
            Ok(content) => Some(content),
            Err(e) => self.provided(path, file).unwrap_or_else(|| {
                let hint = if file.starts_with(CREDENTIALS) {
                    "; systemd makes it while the service runs: is it in LoadCredential= of the unit file, under this name?"
                } else {
                    ""
                };
                let e = files::describe(&e, file, files::Use::Read);
                self.error(path, format_args!("cannot read the file {}: {e}{hint}", file.display()));
                None
            }),
        };
        self.files.borrow_mut().push(NamedFile {
            path: file.to_owned(),
            imprint: content.as_deref().map(imprint),
        });
        content
    }

    /// The files that were read so far, in their order.
    #[must_use]
    pub fn files(&self) -> Vec<NamedFile> {
        self.files.borrow().clone()
    }

    /// Reads a file of one line that holds a secret, such as a password.
    pub fn read_secret_line(&self, path: &str, file: &Path) -> Option<String> {
        let content = self.read_secret_file(path, file)?;
        files::secret(&content).inspect_err(|e| self.error(path, e)).ok()
    }

    /// Reads a file that holds a secret; warns if everybody on the machine can read it.
    pub fn read_secret_file(&self, path: &str, file: &Path) -> Option<Vec<u8>> {
        let content = self.read_file(path, file)?;
        self.warn_if_public(path, file);
        Some(content)
    }

    /// Warns if everybody on the machine can read a file.
    pub fn warn_if_public(&self, path: &str, file: &Path) {
        let provided = self.provided.iter().find(|provided| provided.path == file);
        let file = provided
            .and_then(|provided| provided.source.as_deref())
            .unwrap_or(file);
        if fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
            let file = file.display();
            self.warning(
                path,
                format_args!("everybody on this machine can read {file}; do: chmod o= {file}"),
            );
        }
    }

    /// The content that a file will have which is not there yet; says so. `None` if nobody is known who makes it.
    fn provided(&self, path: &str, file: &Path) -> Option<Option<Vec<u8>>> {
        let provided = self.provided.iter().find(|provided| provided.path == file)?;
        let ProvidedFile {
            unit,
            source,
            content,
            ..
        } = provided;
        let source = source
            .as_deref()
            .map_or_else(|| "the unit file".into(), Path::to_string_lossy);
        let file = file.display();
        let normal =
            format!("{file} is not there until systemd makes it for {unit} from {source}, which is normal");
        match content {
            Ok(content) => {
                self.add(
                    Severity::Note,
                    path,
                    format_args!("{normal}; {source} was read instead"),
                );
                Some(Some(content.clone()))
            }
            Err(NotSeen::Hidden) => {
                self.add(
                    Severity::Note,
                    path,
                    format_args!("{normal}; its content was not checked, which only root could do"),
                );
                Some(None)
            }
            Err(NotSeen::Missing(e)) => {
                self.error(
                    path,
                    format_args!(
                        "systemd makes {file} for {unit} from {source}, which cannot be read: {e}; make it, or correct \
                         LoadCredential= in the unit file"
                    ),
                );
                Some(None)
            }
        }
    }

    fn add(&self, severity: Severity, path: &str, message: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem {
            severity,
            path: path.into(),
            message: message.to_string(),
        });
    }
}

/// One object of the settings, read key by key. [`finish`](Self::finish) reports the keys that nobody asked
/// for.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
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

    /// A string that may be missing.
    pub fn optional_string(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.value(key)?;
        if value.as_str().is_none() {
            self.wrong_type(key, "a string", value);
        }
        value.as_str()
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
        match self.value(key) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.wrong_type(key, "true or false", other);
                default
            }
        }
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
        let Some(value) = self.value(key) else {
            self.missing(key, &expected);
            return None;
        };
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong_type(key, &expected, value);
        }
        number
    }

    /// A time span as a string such as `"20s"` or `"10min 30s"`.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        match self.value(key) {
            None => default,
            Some(value) => match value.as_str().and_then(parse_duration) {
                Some(duration) => duration,
                None => {
                    self.wrong_type(
                        key,
                        "a time span such as \"20s\", \"10min\" or \"1h 30min\"",
                        value,
                    );
                    default
                }
            },
        }
    }

    /// A time span as a string, or as a number of seconds; never zero.
    pub fn duration_or_seconds(&mut self, key: &'static str, default: Duration) -> Duration {
        match self.value(key) {
            None => default,
            Some(value) => {
                let seconds = value
                    .as_u64()
                    .filter(|seconds| *seconds <= MAX_DURATION.as_secs());
                let duration = seconds
                    .map(Duration::from_secs)
                    .or_else(|| value.as_str().and_then(parse_duration));
                match duration.filter(|duration| !duration.is_zero()) {
                    Some(duration) => duration,
                    None => {
                        self.wrong_type(
                            key,
                            "a number of seconds or a time span such as \"5s\", not zero",
                            value,
                        );
                        default
                    }
                }
            }
        }
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
        let hint = value
            .as_str()
            .and_then(|word| nearest(word, choices.iter().map(|(name, _)| *name)));
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

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let Self {
            path,
            object,
            known,
            report,
        } = &self;
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let unused = known.iter().copied().filter(|known| !self.has(known));
            let used = known.iter().copied().filter(|known| self.has(known));
            let hint = match (nearest(key, unused), nearest_within(key, used, |_| 1)) {
                (Some(near), _) => format!("; did you mean \"{near}\"?"),
                (None, Some(near)) => format!("; \"{near}\" is there already"),
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
        let Self { path, known, .. } = self;
        self.report.known.borrow_mut().push((path, known));
    }
    fn missing(&self, key: &str, expected: &str) {
        self.error(key, format_args!("this key is missing; expected {expected}"));
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Value) {
        self.error(key, format_args!("expected {expected}, found {}", shown(found)));
    }
}

/// A time span in the notation of the humantime crate, at most ten years.
fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
}

/// The type of a value, for a message: the value itself may be a secret that stands at the wrong place.
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

/// The candidate that a misspelt word most likely means.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest_within(word, candidates, |candidate| 1 + candidate.len() / 4)
}

/// The same, with this many mistakes at most.
fn nearest_within<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
    most: impl Fn(&str) -> usize,
) -> Option<&'a str> {
    let word = folded(word);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= most(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A word without what people write differently: `isDefaultModule` is `is_default_module`.
fn folded(word: &str) -> String {
    word.to_lowercase().replace(['_', '-'], "")
}

/// The other sections that know a key: those that are nearest to where it is.
fn homes<'a>(section: &str, key: &str, known: &'a [(String, Vec<&'static str>)]) -> Vec<&'a str> {
    let key = folded(key);
    let in_common = |other: &str| {
        let parts = section.split('.').zip(other.split('.'));
        parts.take_while(|(one, other)| one == other).count()
    };
    let homes = known
        .iter()
        .filter(|(path, keys)| path != section && keys.iter().any(|known| folded(known) == key))
        .map(|(path, _)| match path.as_str() {
            "" => "the outermost object",
            path => path,
        });
    let homes: Vec<_> = homes.collect();
    let nearest = homes.iter().map(|home| in_common(home)).max();
    let mut homes: Vec<_> = homes
        .into_iter()
        .filter(|home| Some(in_common(home)) == nearest)
        .collect();
    homes.truncate(MAX_HOMES);
    homes
}

/// Of the places where a key belongs no more are named.
const MAX_HOMES: usize = 3;
/// Where systemd puts credentials.
const CREDENTIALS: &str = "/run/credentials";
static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T>(json: &Value, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Vec<String>) {
        let report = Report::default();
        let mut section = Section::root(json.as_object().unwrap(), &report);
        let result = read(&mut section);
        section.finish();
        (
            result,
            report.into_problems().iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let json = json!({ "a": 1, "nested": { "tpoic": "x" }, "word": "hihg", "span": "20", "n": 70_000 });
        let ((), problems) = read(&json, |section| {
            section.string("a");
            let mut nested = section.section("nested").unwrap();
            nested.string("topic");
            nested.finish();
            section.choice("word", &[("high", 1), ("silent", 2)], 1);
            section.duration("span", Duration::ZERO);
            section.integer("n", 1..=65_535, 1);
        });
        assert_eq!(
            problems,
            [
                "a: expected a string, found a number that does not fit",
                "nested.topic: this key is missing; expected a string",
                "nested.tpoic: this key is not known; did you mean \"topic\"?",
                "word: expected \"high\" or \"silent\", found a string that does not fit; did you mean \"high\"?",
                "span: expected a time span such as \"20s\", \"10min\" or \"1h 30min\", found a string that does \
                 not fit",
                "n: expected a whole number from 1 to 65535, found a number that does not fit",
            ]
        );
    }

    #[test]
    fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
        let json = json!({
            "a": { "topic": 1, "apns": {} }, "b": { "apns": { "isDefault": true } },
            "listen": 1, "c": { "listen": 1 }, "d": { "logging": {} },
        });
        let ((), problems) = read(&json, |root| {
            for module in ["a", "b"] {
                let mut module = root.section(module).unwrap();
                module.boolean("is_default", false);
                let mut apns = module.section("apns").unwrap();
                apns.value("topic");
                apns.finish();
                module.finish();
            }
            let mut c = root.section("c").unwrap();
            c.value("listen");
            c.finish();
            root.section("d").unwrap().finish();
            root.value("logging");
        });
        assert_eq!(
            problems,
            [
                "a.topic: this key is not known; it belongs into a.apns",
                "b.apns.isDefault: this key is not known; it belongs into b",
                "d.logging: this key is not known; it belongs into the outermost object",
                "listen: this key is not known; it belongs into c",
            ]
        );
    }

    #[test]
    fn time_spans_are_strings_or_seconds() {
        let json = json!({ "a": "10min", "b": 5, "c": "2s", "d": 0 });
        let (spans, problems) = read(&json, |section| {
            let a = section.duration("a", Duration::ZERO);
            let or_seconds =
                ["b", "c", "d"].map(|key| section.duration_or_seconds(key, Duration::from_secs(9)));
            (a, or_seconds)
        });
        assert_eq!(
            spans,
            (Duration::from_secs(600), [5, 2, 9].map(Duration::from_secs))
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_value_at_the_wrong_place_is_not_shown() {
        let (_, problems) = read(&json!({ "n": "s3cret" }), |section| {
            section.integer("n", 0..=1, 0)
        });
        assert!(!problems[0].contains("s3cret"));
    }
}
