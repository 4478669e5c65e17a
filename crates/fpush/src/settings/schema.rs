//! The settings as a JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::table::{Key, Kind, ROOT};

/// The whole schema.
pub(crate) fn schema() -> Value {
    let mut schema = section(&ROOT);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Settings of fpush".into();
    schema["required"] = json!(["component", "pushModules"]);
    let required = json!(["componentHostname", "serverHostname", "serverPort"]);
    let component = &mut schema["properties"]["component"];
    component["else"]["required"] = required.clone();
    component["then"]["items"]["required"] = required;
    schema["properties"]["pushModules"]["minProperties"] = 1.into();
    schema["properties"]["pushModules"]["additionalProperties"]["required"] = json!(["type"]);
    schema
}

fn section(keys: &[Key]) -> Value {
    let properties: Map<_, _> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn property(key: &Key) -> Value {
    let Key {
        name: _,
        kind,
        default,
        meaning,
    } = key;
    let mut property = of_kind(kind);
    property["description"] = (*meaning).into();
    if let Ok(default) = serde_json::from_str(default) {
        property["default"] = default;
    }
    property
}

fn of_kind(kind: &Kind) -> Value {
    let texts = json!({ "type": "string" });
    match kind {
        Kind::Text | Kind::Path => texts,
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Span => json!({ "type": "string", "pattern": SPAN }),
        Kind::SpanOrSeconds => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 }, { "type": "string", "pattern": SPAN },
        ] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::WordOrWhole(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 0 }] })
        }
        Kind::Texts => json!({ "type": "array", "items": texts }),
        Kind::Wholes(least, most) => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": least, "maximum": most } })
        }
        Kind::Pairs => json!({ "type": "object", "additionalProperties": texts }),
        Kind::Anything => json!({ "type": "object" }),
        Kind::Section(keys) => section(keys),
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
