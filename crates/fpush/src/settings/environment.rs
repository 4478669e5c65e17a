//! Settings in variables of the environment: `FPUSH__component__serverHostname` comes after the file.

use std::{ffi::OsString, fmt};

use fpush_push::settings::{Report, nearest};
use serde_json::{Map, Value};

use super::table::{Key, Kind, ROOT};

/// A setting that a variable has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overridden {
    /// Its path in the settings.
    pub(crate) path: String,
    /// The variable's name.
    pub(crate) variable: String,
}

/// What a name in a variable leads to.
enum Place {
    /// A key of the table.
    Known(&'static Kind),
    /// Something of the operator's, below it.
    Free(Below),
}

/// What may be in an object whose names are the operator's.
#[derive(Clone, Copy)]
enum Below {
    Sections(&'static [Key]),
    Texts,
    Anything,
}

/// Why a variable says nothing. It holds no value: that may be a secret.
enum Wrong {
    Unknown {
        name: String,
        hint: Option<&'static str>,
    },
    Ambiguous {
        name: String,
        names: Vec<String>,
    },
    NoObject(String),
    NotText,
    NotJson(&'static str),
}

/// Sets what the variables say. What is wrong with one is an error.
pub(super) fn apply(
    object: &mut Map<String, Value>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    report: &Report,
) -> Vec<Overridden> {
    let ours = variables.filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        let Some(parts) = name.strip_prefix(PREFIX) else {
            if let Some(meant) = meant(&name) {
                report.warning(
                    "",
                    format_args!("the environment variable {name} sets nothing; did you mean {meant}?"),
                );
            }
            return None;
        };
        let parts: Vec<_> = parts.split(SEPARATOR).map(str::to_owned).collect();
        Some((parts, name, value))
    });
    let mut ours: Vec<_> = ours.collect();
    // A whole section comes before a key of it.
    ours.sort_by(|(one, ..), (other, ..)| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    let mut overridden = Vec::new();
    for (parts, variable, value) in ours {
        let value = value.into_string().map_err(|_| Wrong::NotText);
        match value.and_then(|value| set(object, &parts, &value)) {
            Ok(path) => overridden.push(Overridden { path, variable }),
            Err(wrong) => report.error("", format_args!("the environment variable {variable}: {wrong}")),
        }
    }
    overridden
}

/// Sets one value. Returns its path.
fn set(root: &mut Map<String, Value>, parts: &[String], value: &str) -> Result<String, Wrong> {
    let mut object = root;
    let mut below = Below::Sections(&[]);
    let mut keys: Option<&'static [Key]> = Some(&ROOT);
    let mut path = String::new();
    for (number, part) in parts.iter().enumerate() {
        let (name, place) = match keys {
            Some(keys) => known(keys, part)?,
            None => (own(object, part)?, Place::Free(below)),
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&name);
        if number + 1 == parts.len() {
            let value = match place {
                Place::Known(kind) => read(kind, value)?,
                Place::Free(Below::Texts) => text(value),
                Place::Free(Below::Anything) => serde_json::from_str(value).unwrap_or_else(|_| value.into()),
                Place::Free(Below::Sections(_)) => json(value, "an object")?,
            };
            object.insert(name, value);
            return Ok(path);
        }
        (keys, below) = match place {
            Place::Known(
                &(Kind::Section(keys)
                | Kind::Overrides(keys)
                | Kind::Sections(keys)
                | Kind::FlagOrSection(keys)),
            )
            | Place::Free(Below::Sections(keys)) => (Some(keys), below),
            Place::Known(&Kind::Named(keys)) => (None, Below::Sections(keys)),
            Place::Known(Kind::Pairs) => (None, Below::Texts),
            Place::Known(Kind::Anything) | Place::Free(Below::Anything) => (None, Below::Anything),
            Place::Known(_) | Place::Free(Below::Texts) => return Err(Wrong::NoObject(path)),
        };
        let next = object.entry(name).or_insert_with(|| Map::new().into());
        object = next
            .as_object_mut()
            .ok_or_else(|| Wrong::NoObject(path.clone()))?;
    }
    Err(Wrong::NotText)
}

/// What a variable was to be called that looks like one of ours: with one underscore where there have to be two, or in capital
/// letters. Others begin with the same word, such as those that Kubernetes makes for a service of that name.
fn meant(name: &str) -> Option<String> {
    let (start, rest) = name.split_at_checked(SHORT_PREFIX.len())?;
    if !start.eq_ignore_ascii_case(SHORT_PREFIX) {
        return None;
    }
    let parts: Vec<_> = rest.split('_').filter(|part| !part.is_empty()).collect();
    let (first, more) = parts.split_first()?;
    let key = ROOT.iter().find(|key| key.name.eq_ignore_ascii_case(first))?;
    let more: String = more.iter().map(|part| format!("{SEPARATOR}{part}")).collect();
    Some(format!("{PREFIX}{}{more}", key.name))
}

/// The key of the table that a part of a variable's name means.
fn known(keys: &'static [Key], part: &str) -> Result<(String, Place), Wrong> {
    let found = keys.iter().find(|key| masked(key.name) == part);
    let hint = || nearest(part, keys.iter().map(|key| key.name));
    let key = found.ok_or_else(|| Wrong::Unknown {
        name: part.to_owned(),
        hint: hint(),
    })?;
    Ok((key.name.to_owned(), Place::Known(&key.kind)))
}

/// The name of the operator's that a part of a variable's name means: one that is there, or else a new one.
fn own(object: &Map<String, Value>, part: &str) -> Result<String, Wrong> {
    let mut names: Vec<_> = object
        .keys()
        .filter(|name| masked(name) == part)
        .cloned()
        .collect();
    match (names.pop(), names.is_empty()) {
        _ if part.is_empty() => Err(Wrong::Unknown {
            name: String::new(),
            hint: None,
        }),
        (None, _) => Ok(part.to_owned()),
        (Some(name), true) => Ok(name),
        (Some(name), false) => {
            names.push(name);
            names.sort();
            Err(Wrong::Ambiguous {
                name: part.to_owned(),
                names,
            })
        }
    }
}

/// A name as it is in a variable: other characters than letters and digits are `_`.
fn masked(name: &str) -> String {
    let mask = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(mask).collect()
}

/// A value of this kind: JSON, and where a text may be, the text itself.
fn read(kind: &Kind, value: &str) -> Result<Value, Wrong> {
    match kind {
        Kind::Text(_) | Kind::Path | Kind::Span(_) | Kind::Word(_) => Ok(text(value)),
        Kind::SpanOrSeconds | Kind::WordOrWhole(_) => {
            Ok(serde_json::from_str(value).unwrap_or_else(|_| value.into()))
        }
        Kind::Flag => json(value, "true or false"),
        Kind::Whole(..) | Kind::Number(..) => json(value, "a number"),
        Kind::Texts(_) | Kind::Wholes(..) => json(value, "a list such as [\"a\", \"b\"]"),
        Kind::Sections(_) => json(value, "an object such as { \"a\": 1 }, or a list of objects"),
        Kind::FlagOrSection(_) => json(value, "true, false or an object such as { \"a\": 1 }"),
        Kind::Pairs | Kind::Anything | Kind::Section(_) | Kind::Overrides(_) | Kind::Named(_) => {
            json(value, "an object such as { \"a\": 1 }")
        }
    }
}

/// A text as it is, or as JSON has it: in quotation marks.
fn text(value: &str) -> Value {
    let quoted = serde_json::from_str(value).ok().filter(Value::is_string);
    quoted.unwrap_or_else(|| value.into())
}

fn json(value: &str, expected: &'static str) -> Result<Value, Wrong> {
    serde_json::from_str(value).map_err(|_| Wrong::NotJson(expected))
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, hint } => {
                write!(f, "there is no setting {name:?} there")?;
                hint.map_or(Ok(()), |near| write!(f, "; did you mean \"{near}\"?"))
            }
            Self::Ambiguous { name, names } => write!(
                f,
                "{name} may mean {}; set the whole object above them, or rename one",
                names.join(" or ")
            ),
            Self::NoObject(path) => write!(
                f,
                "{path} is not an object, so that nothing can be set in it; set all of it, as JSON"
            ),
            Self::NotText => f.write_str("its value is not UTF-8"),
            Self::NotJson(expected) => write!(f, "expected {expected}, as JSON"),
        }
    }
}

const PREFIX: &str = "FPUSH__";
const SEPARATOR: &str = "__";
const SHORT_PREFIX: &str = "FPUSH_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_looks_like_a_setting_is_told_from_others() {
        for (name, expected) in [
            (
                "FPUSH_component_serverHostname",
                Some("FPUSH__component__serverHostname"),
            ),
            (
                "FPUSH_component__serverPort",
                Some("FPUSH__component__serverPort"),
            ),
            ("FPUSH_LOGGING_level", Some("FPUSH__logging__level")),
            ("fpush__stateDirectory", Some("FPUSH__stateDirectory")),
            ("FPUSH_SETTINGS", None),
            ("FPUSH_VERIFY", None),
            ("FPUSH_SERVICE_HOST", None),
            ("FPUSH_PORT_9090_TCP", None),
            ("FPUSH_", None),
            ("FPUSH", None),
            ("component_serverHostname", None),
        ] {
            assert_eq!(meant(name).as_deref(), expected, "{name}");
        }
    }
}
