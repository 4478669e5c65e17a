//! The text of the settings file.

use std::{fmt, path::Path};

use fpush_push::{files, settings::Report};
use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged as _, parse_to_ast};
use serde_json::{Map, Value};

/// Reads the file as far as it is JSON. What is wrong with it goes into the report.
pub(super) fn read_file(file: &Path, report: &Report) -> Option<Map<String, Value>> {
    let shown = file.display();
    let unreadable =
        |e: &dyn fmt::Display| report.error("", format_args!("cannot read the settings file {shown}: {e}"));
    let content = files::read(file, files::LARGEST)
        .inspect_err(|e| unreadable(&files::describe(e, file, files::Use::Read)))
        .ok()?;
    parse(&content, file, report)
}

/// Reads the content of a settings file.
pub(crate) fn parse(content: &[u8], file: &Path, report: &Report) -> Option<Map<String, Value>> {
    let shown = file.display();
    let text = &files::text(content)
        .inspect_err(|e| report.error("", format_args!("cannot read the settings file {shown}: {e}")))
        .ok()?;
    let parsed = parse_to_ast(
        text,
        &CollectOptions::default(),
        &strict_but_for_comments_and_commas(),
    )
    .inspect_err(|e| {
        let (line, column) = (e.line_display(), e.column_display());
        report.error(
            "",
            format_args!(
                "{shown} is not valid JSON: {} in line {line}, column {column}",
                e.kind()
            ),
        );
    })
    .ok()?;
    let root = parsed.value.map_or(Value::Null, |root| {
        report_duplicates(text, &root, "", report);
        Value::from(root)
    });
    match root {
        Value::Object(object) => Some(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            report.error(
                "",
                format_args!("expected an object in {shown}: {{ \"component\": … }}"),
            );
            None
        }
    }
}

fn strict_but_for_comments_and_commas() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Of two keys with one name only the last would count, which nobody wants.
fn report_duplicates(text: &str, value: &ast::Value<'_>, path: &str, report: &Report) {
    if let ast::Value::Array(list) = value {
        for (index, element) in list.elements.iter().enumerate() {
            report_duplicates(text, element, &format!("{path}[{index}]"), report);
        }
    }
    let ast::Value::Object(object) = value else { return };
    for (index, property) in object.properties.iter().enumerate() {
        let name = property.name.as_str();
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        if object.properties[..index]
            .iter()
            .any(|earlier| earlier.name.as_str() == name)
        {
            let line = text[..property.start()].matches('\n').count() + 1;
            report.error(
                &path,
                format_args!("this key occurs twice, the second time in line {line}"),
            );
        }
        report_duplicates(text, &property.value, &path, report);
    }
}

/// Warns if everybody on the machine can read a file that holds a secret.
pub(super) fn warn_of_public_secrets(file: &Path, object: &Map<String, Value>, report: &Report) {
    let holds = |object: Option<&Value>, key: &str| object.is_some_and(|object| object.get(key).is_some());
    let modules = object
        .get("pushModules")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values);
    let store = object
        .get("registration")
        .and_then(|registration| registration.get("store"));
    let links = super::component::objects(object.get("component"));
    let secret = links.iter().any(|link| link.contains_key("componentKey"))
        || holds(store, "url")
        || holds(object.get("cluster"), "url")
        || modules
            .filter_map(Value::as_object)
            .any(|module| holds(module.get("apns"), "certPassword"));
    if secret {
        report.warn_if_public("", file);
    }
}
