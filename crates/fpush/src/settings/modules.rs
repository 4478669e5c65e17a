//! `pushModules`.

use fpush_policy::ModuleSettings;
use fpush_push::{
    Delivery, ParsedBackend,
    settings::{NamedFile, Section, digest},
};
use serde_json::{Map, Value};

use crate::backends::Row;

/// What the settings say of a push module, as a value: two are the same if their texts and the files that they name are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModuleValue {
    pub(crate) name: String,
    /// `type`.
    pub(crate) module_type: &'static str,
    pub(crate) is_default: bool,
    pub(crate) delivery: Delivery,
    /// Of its text and of all files that it names.
    pub(crate) digest: u128,
}

impl ModuleValue {
    /// Whether another one goes on with what this one knows and holds. What was acknowledged to be sent must not end with a
    /// shadow, and what a shadow holds must not be sent.
    pub(crate) fn is_same_module(&self, other: &Self) -> bool {
        self.name == other.name && self.module_type == other.module_type && self.delivery == other.delivery
    }
}

/// What a module is made of.
pub(crate) struct ParsedModule {
    pub(crate) settings: ModuleSettings,
    pub(crate) backend: ParsedBackend,
}

/// Reads all modules.
pub(super) fn read_modules(root: &mut Section<'_>, types: &[Row]) -> Vec<(ModuleValue, ParsedModule)> {
    let sections = root.sections("pushModules");
    let texts = root.value("pushModules").and_then(Value::as_object);
    if texts.is_some_and(Map::is_empty) {
        root.error("pushModules", "expected at least one push module");
    }
    let mut default: Option<&str> = None;
    let mut modules = Vec::new();
    for (name, mut module) in sections {
        let is_default = module.boolean("is_default_module", false);
        match default {
            Some(first) if is_default => {
                module.error(
                    "is_default_module",
                    format_args!("{first} is already the default module; only one module can be the default"),
                );
            }
            Some(_) => {}
            None => default = is_default.then_some(name),
        }
        let files_before = root.report().files().len();
        let Some((module_type, parsed)) = read_module(module, types) else {
            continue;
        };
        let text = texts.and_then(|texts| texts.get(name)).map(Value::to_string);
        let text = digest(text.unwrap_or_default().as_bytes());
        let files = root.report().files().split_off(files_before);
        let value = ModuleValue {
            name: name.to_owned(),
            module_type,
            is_default,
            delivery: parsed.settings.delivery,
            digest: NamedFile::digest_all(text, &files),
        };
        modules.push((value, parsed));
    }
    modules
}

/// The module's type and what it is made of.
fn read_module(mut module: Section<'_>, types: &[Row]) -> Option<(&'static str, ParsedModule)> {
    let choices: Vec<_> = types.iter().map(|row| (row.name, Some(row))).collect();
    let row = if module.has("type") {
        module.choice("type", &choices, None)
    } else {
        let names: Vec<_> = types.iter().map(|row| format!("\"{}\"", row.name)).collect();
        module.error(
            "type",
            format_args!("this key is missing; expected {}", names.join(" or ")),
        );
        None
    };
    let settings = ModuleSettings::read(&mut module);
    // Without a known type there is no telling which of the other keys are known.
    let Row {
        name,
        feature,
        section: _,
        backend,
    } = row?;
    let Some(backend) = backend else {
        module.error(
            "type",
            format_args!(
                "this fpush was built without the type \"{name}\"; build it with the Cargo feature {feature}"
            ),
        );
        return None;
    };
    let backend = backend.read(&mut module);
    for other in types.iter().filter(|other| other.name != *name) {
        if let Some(section) = other.section {
            let hint = format_args!(
                "modules of type \"{}\" have it, and this one is of type \"{name}\"",
                other.name
            );
            module.strange(section, hint);
        }
    }
    module.finish();
    let backend = backend?;
    Some((name, ParsedModule { settings, backend }))
}
