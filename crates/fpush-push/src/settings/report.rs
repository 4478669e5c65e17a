//! What is wrong with the settings, and which files they name.

use std::{
    cell::RefCell,
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use siphasher::sip128::SipHasher13;

use super::spelling::{KnownSection, homes};
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
    pub(super) problems: RefCell<Vec<Problem>>,
    /// The keys that each section knows.
    pub(super) known: RefCell<Vec<KnownSection>>,
    /// Keys that their section does not know, and nothing like them: the problem, the section and the key.
    pub(super) strays: RefCell<Vec<(usize, String, String)>>,
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
    digest: Option<u128>,
}

impl NamedFile {
    /// The file as it is now.
    #[must_use]
    pub fn read_again(&self) -> Self {
        Self {
            path: self.path.clone(),
            digest: files::read(&self.path, files::LARGEST)
                .ok()
                .map(|content| digest(&content)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A digest of `start` and of paths and contents of all these files.
    #[must_use]
    pub fn digest_all(start: u128, files: &[Self]) -> u128 {
        files
            .iter()
            .fold(start, |all, file| all.rotate_left(1) ^ file.digest())
    }

    /// A digest of path and content.
    fn digest(&self) -> u128 {
        let content = self.digest.unwrap_or_default();
        digest(self.path.as_os_str().as_encoded_bytes()) ^ content.rotate_left(1)
    }
}

/// A digest of some bytes, to see whether they have changed. It is the same in every process.
#[must_use]
pub fn digest(bytes: &[u8]) -> u128 {
    SipHasher13::new().hash(bytes).as_u128()
}

impl Report {
    /// A report that reads these files in the place of those that systemd will make of them.
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

    /// The keys that each section that was read to its end knows, by its path: for tests of tables of them.
    #[must_use]
    pub fn known(&self) -> Vec<(String, Vec<&'static str>)> {
        let known = self.known.borrow();
        let keys = |section: &KnownSection| (section.path.clone(), section.keys.clone());
        known.iter().map(keys).collect()
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
            if let Some(hint) = homes(&section, &key, &known) {
                let message = &mut problems[problem].message;
                message.push_str("; ");
                message.push_str(&hint);
            }
        }
        for Problem {
            severity: _,
            path,
            message,
        } in &mut problems
        {
            keep_to_one_line(path, LONGEST_KEY);
            keep_to_one_line(message, LONGEST_MESSAGE);
        }
        problems
    }

    /// Reads a file that the settings name, such as a certificate.
    pub fn read_file(&self, path: &str, file: &Path) -> Option<Vec<u8>> {
        if is_content(&file.to_string_lossy()) {
            // Not repeated: it may be a key.
            self.error(
                path,
                "expected the path of a file, found what looks like the content of one; save it in a file, and name that",
            );
            return None;
        }
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
            digest: content.as_deref().map(digest),
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

    pub(super) fn add(&self, severity: Severity, path: &str, message: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem {
            severity,
            path: path.into(),
            message: message.to_string(),
        });
    }
}

/// Where systemd puts credentials.
const CREDENTIALS: &str = "/run/credentials";

/// Whether somebody has put the content of a file where its path belongs: a key, or the JSON of a service account.
fn is_content(path: &str) -> bool {
    path.len() > LONGEST_PATH
        || path.contains(char::is_control)
        || path.contains("-----BEGIN")
        || path.trim_start().starts_with('{')
}

/// Names and values in the settings may be anything: what is said of them is one line that can be read.
fn keep_to_one_line(text: &mut String, longest: usize) {
    if text.contains(char::is_control) {
        let escape = |c: char| -> String {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                c.into()
            }
        };
        *text = text.chars().map(escape).collect();
    }
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
}

/// What Linux takes.
const LONGEST_PATH: usize = 4_095;
/// Of a key, in bytes: one in four sections with names of a hundred letters.
const LONGEST_KEY: usize = 512;
/// Of what is said about it, in bytes: the longest path that Linux takes, and some words.
const LONGEST_MESSAGE: usize = 5_000;
