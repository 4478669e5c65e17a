//! The settings as a JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::table::{Key, Kind, ROOT, Without, plain};

/// The whole schema.
pub(crate) fn schema() -> Value {
    let mut schema = section(&ROOT);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Settings of fpush".into();
    schema["properties"]["pushModules"]["minProperties"] = 1.into();
    schema
}

fn section(keys: &[Key]) -> Value {
    let properties: Map<_, _> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required = keys.iter().filter(|key| matches!(key.without, Without::Required));
    let required: Vec<_> = required.map(|key| key.name).collect();
    let mut section = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        section["required"] = required.into();
    }
    section
}

fn property(key: &Key) -> Value {
    let mut property = of_kind(&key.kind);
    property["description"] = description(key).into();
    if let Without::Default(default) = key.without
        && let Ok(default) = serde_json::from_str(default)
    {
        property["default"] = default;
    }
    property
}

/// What a key means, what is wanted, and what holds without it.
fn description(key: &Key) -> String {
    let mut text = key.meaning.to_owned();
    if let Kind::Text(wanted) | Kind::Texts(wanted) | Kind::Span(wanted) = key.kind
        && !wanted.is_empty()
    {
        text += &format!(". Wanted: {wanted}");
    }
    if let Without::Words(words) = key.without {
        text += &format!(". Without it: {words}");
    }
    plain(&text)
}

fn of_kind(kind: &Kind) -> Value {
    let texts = json!({ "type": "string" });
    match kind {
        Kind::Text(_) | Kind::Path => texts,
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Span(_) => json!({ "type": "string", "pattern": SPAN }),
        Kind::SpanOrSeconds => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 }, { "type": "string", "pattern": SPAN },
        ] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::WordOrWhole(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 0 }] })
        }
        Kind::Texts(_) => json!({ "type": "array", "items": texts }),
        Kind::Wholes(least, most) => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": least, "maximum": most } })
        }
        Kind::Pairs => json!({ "type": "object", "additionalProperties": texts }),
        Kind::Anything => json!({ "type": "object" }),
        Kind::Section(keys) | Kind::Overrides(keys) => section(keys),
        // Of alternatives in anyOf, a mistake would be shown at the whole section instead of its place.
        Kind::Sections(keys) => json!({
            "if": { "type": "array" },
            "then": { "items": section(keys), "minItems": 1 },
            "else": section(keys),
        }),
        Kind::FlagOrSection(keys) => json!({ "if": { "type": "boolean" }, "else": section(keys) }),
        Kind::Named(keys) => json!({ "type": "object", "additionalProperties": section(keys) }),
    }
}

/// A time span: numbers, each with its unit.
const SPAN: &str = "^\\s*([0-9]+\\s*[a-zA-Zµ]+\\s*)+$";
