//! From the settings file to everything that the daemon is made of.

use std::{fs, path::Path, sync::Arc, time::Duration};

use fpush_component::ComponentSettings;
use fpush_push::{
    Background, Built, Drain, Module, ModuleSettings, Modules, TokenHasher,
    settings::{Problem, Report, Section},
};
use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged as _, parse_to_ast};
use serde_json::{Map, Value};

use crate::{
    backends::{self, Row},
    registration::{self, RegistrySettings},
};

/// Everything that the settings say, checked and ready.
pub(crate) struct Loaded {
    pub(crate) component: ComponentSettings,
    pub(crate) modules: Vec<LoadedModule>,
    pub(crate) registration: Option<RegistrySettings>,
}

/// One push module, ready to be built.
pub(crate) struct LoadedModule {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) is_default: bool,
    pub(crate) settings: ModuleSettings,
    pub(crate) built: Built,
}

/// Loads a settings file. `None` if the daemon cannot start with it; the problems say why, and what is wrong
/// besides.
pub(crate) fn load(file: &Path) -> (Option<Loaded>, Vec<Problem>) {
    let report = Report::default();
    let loaded = read_file(file, &report).and_then(|object| {
        warn_of_public_secrets(file, &object, &report);
        read(&object, &report)
    });
    let loaded = loaded.filter(|_| !report.has_errors());
    (loaded, report.into_problems())
}

/// Reads nothing but the block `registration` of a settings file: for commands that need neither the secrets nor the
/// credentials, which may be there only while the daemon runs. `Ok(None)` if there is no such block.
///
/// # Errors
///
/// What is wrong with the block or with the file.
#[cfg(feature = "enable_registration")]
pub(crate) fn load_registration(file: &Path) -> Result<Option<RegistrySettings>, Vec<Problem>> {
    let report = Report::default();
    let registration =
        read_file(file, &report).and_then(|object| read_registration(&mut Section::root(&object, &report)));
    if report.has_errors() {
        Err(report.into_problems())
    } else {
        Ok(registration)
    }
}

fn read_file(file: &Path, report: &Report) -> Option<Map<String, Value>> {
    let shown = file.display();
    let text = fs::read_to_string(file)
        .inspect_err(|e| report.error("", format_args!("cannot read the settings file {shown}: {e}")))
        .ok()?;
    // A byte order mark is no mistake that anybody sees.
    let text = text.trim_start_matches('\u{feff}');
    let parsed = parse_to_ast(
        text,
        &CollectOptions::default(),
        &strict_but_for_comments_and_commas(),
    )
    .inspect_err(|e| {
        let (line, column) = (e.line_display(), e.column_display());
        report.error(
            "",
            format_args!("{shown} is no JSON: {} in line {line}, column {column}", e.kind()),
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

fn warn_of_public_secrets(file: &Path, object: &Map<String, Value>, report: &Report) {
    let holds = |object: Option<&Value>, key: &str| object.is_some_and(|object| object.get(key).is_some());
    let modules = object
        .get("pushModules")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values);
    let store = object
        .get("registration")
        .and_then(|registration| registration.get("store"));
    let secret = holds(object.get("component"), "componentKey")
        || holds(store, "url")
        || modules
            .filter_map(Value::as_object)
            .any(|module| holds(module.get("apns"), "certPassword"));
    if secret {
        report.warn_if_public("", file);
    }
}

fn read(object: &Map<String, Value>, report: &Report) -> Option<Loaded> {
    let mut root = Section::root(object, report);
    let component = read_component(&mut root);
    let modules = read_modules(&mut root);
    let registration = read_registration(&mut root);
    let mut timeout = root.section_or_empty("timeout");
    let retry_after = timeout.duration("xmppconnectionError", Duration::from_secs(10));
    if retry_after < SHORTEST_RETRY {
        timeout.warning(
            "xmppconnectionError",
            "too short for the server's sake; \"100ms\" is used",
        );
    }
    timeout.finish();
    root.finish();
    Some(Loaded {
        component: ComponentSettings {
            retry_after,
            ..component?
        },
        modules,
        registration,
    })
}

/// `registration`, whose push modules are to be those of the file.
fn read_registration(root: &mut Section<'_>) -> Option<RegistrySettings> {
    if !root.has("registration") {
        return None;
    }
    let modules = root.value("pushModules").and_then(Value::as_object);
    let names: Vec<_> = modules
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    registration::read(root.section("registration")?, &names)
}

fn read_component(root: &mut Section<'_>) -> Option<ComponentSettings> {
    let mut component = root.section("component")?;
    let hostname = component.string("componentHostname");
    if hostname.is_some_and(|name| !is_domain(name)) {
        component.error(
            "componentHostname",
            "expected a domain name, such as \"push.example.org\"",
        );
    }
    let secret = read_secret(&mut component);
    let server_host = component.string("serverHostname").map(str::to_owned);
    let server_port = component.required_integer("serverPort", 1..=65_535);
    let max_stanza_size = component.integer("maxStanzaSize", 16 * 1_024..=64 * MEBIBYTE, MEBIBYTE) as usize;
    component.finish();
    Some(ComponentSettings {
        hostname: hostname?.to_owned(),
        secret: secret?,
        server_host: server_host?,
        server_port: u16::try_from(server_port?).ok()?,
        max_stanza_size,
        retry_after: Duration::ZERO,
    })
}

/// `componentKey` or `componentKeyFile`, exactly one of them.
fn read_secret(component: &mut Section<'_>) -> Option<String> {
    match (component.has("componentKey"), component.has("componentKeyFile")) {
        (true, false) => {
            component.optional_file("componentKeyFile");
            component.string("componentKey").map(str::to_owned)
        }
        (false, true) => {
            component.optional_string("componentKey");
            let secret = component.secret_file("componentKeyFile")?;
            let secret = String::from_utf8(secret).ok();
            let secret = secret.map(|secret| secret.trim_end_matches(['\r', '\n']).to_owned());
            let secret = secret.filter(|secret| !secret.is_empty());
            if secret.is_none() {
                component.error(
                    "componentKeyFile",
                    "expected a file that holds the secret, as text in UTF-8",
                );
            }
            secret
        }
        (both, _) => {
            let found = if both { "found both" } else { "found neither" };
            component.optional_string("componentKey");
            component.optional_string("componentKeyFile");
            component.error(
                "componentKey",
                format_args!("expected either componentKey or componentKeyFile, {found}"),
            );
            None
        }
    }
}

fn read_modules(root: &mut Section<'_>) -> Vec<LoadedModule> {
    let mut table = backends::table();
    let sections = root.sections("pushModules");
    let modules = root.value("pushModules").and_then(Value::as_object);
    if modules.is_some_and(Map::is_empty) {
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
                    format_args!("{first} is the default module already; one can be"),
                );
            }
            Some(_) => {}
            None => default = is_default.then_some(name),
        }
        modules.extend(read_module(name, is_default, module, &mut table));
    }
    modules
}

fn read_module(
    name: &str,
    is_default: bool,
    mut module: Section<'_>,
    table: &mut [Row],
) -> Option<LoadedModule> {
    let kinds: Vec<_> = table
        .iter()
        .enumerate()
        .map(|(index, row)| (row.name, Some(index)))
        .collect();
    let names: Vec<_> = kinds.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let kind = if module.has("type") {
        module.choice("type", &kinds, None)
    } else {
        module.error(
            "type",
            format_args!("this key is missing; expected {}", names.join(" or ")),
        );
        None
    };
    let settings = ModuleSettings::read(&mut module);
    // Without a known type there is no telling which of the other keys are known.
    let row = &mut table[kind?];
    let Some(backend) = &mut row.backend else {
        let (name, feature) = (row.name, row.feature);
        module.error(
            "type",
            format_args!(
                "this fpush was built without the type \"{name}\"; build it with the Cargo feature {feature}"
            ),
        );
        return None;
    };
    let built = backend.build(&mut module);
    module.finish();
    Some(LoadedModule {
        name: name.to_owned(),
        kind: row.name,
        is_default,
        settings,
        built: built?,
    })
}

/// Whether a text can stand in an address as its domain.
fn is_domain(name: &str) -> bool {
    name.len() <= 1_023
        && name
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !"@/<>'\"&:".contains(c))
}

impl Loaded {
    /// Builds the modules, and what has to be spawned with them.
    pub(crate) fn build(
        modules: Vec<LoadedModule>,
        hasher: &TokenHasher,
        drain: &Drain,
    ) -> (Modules, Vec<Arc<Module>>, Vec<Background>) {
        let (mut all, mut default, mut background) = (Vec::new(), None, Vec::new());
        for LoadedModule {
            name,
            kind: _,
            is_default,
            settings,
            built,
        } in modules
        {
            let Built {
                backend,
                facts: _,
                background: tasks,
            } = built;
            let module = Module::new(&name, backend, settings, hasher.clone(), drain.clone());
            if is_default {
                default = Some(Arc::clone(&module));
            }
            all.push(module);
            background.extend(tasks);
        }
        (Modules::new(all.clone(), default), all, background)
    }
}

/// Shorter would be an attack on the server.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const MEBIBYTE: u64 = 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_from_addresses() {
        assert!(is_domain("push.example.org") && is_domain("localhost") && is_domain("müller.example"));
        for no_domain in ["u@example.org", "example.org/r", "a b", "a'b", "<a>"] {
            assert!(!is_domain(no_domain), "{no_domain}");
        }
    }
}
