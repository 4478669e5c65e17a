//! From the settings file to everything that the daemon is made of.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use fpush_component::ComponentSettings;
use fpush_http::{Security, read_listen};
use fpush_push::{
    ModuleSettings, ParsedBackend, files,
    settings::{NamedFile, Problem, ProvidedFile, Report, Section, digest},
};
use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged as _, parse_to_ast};
use serde_json::{Map, Value};

use crate::{
    backends::Row,
    control::RuntimeFolder,
    logging::{Format, Level, LoggingSettings},
    registration::{self, RegistrationSettings},
};

/// Everything that the settings say, checked and ready.
pub(crate) struct Loaded {
    pub(crate) component: ComponentSettings,
    pub(crate) modules: Vec<LoadedModule>,
    pub(crate) registration: Option<RegistrationSettings>,
    pub(crate) monitoring: Option<MonitoringSettings>,
    pub(crate) logging: LoggingSettings,
    /// `stateDirectory`, or the one that systemd made for the service.
    pub(crate) state_folder: Option<PathBuf>,
    pub(crate) runtime_folder: RuntimeFolder,
    pub(crate) source: Source,
}

/// `monitoring`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MonitoringSettings {
    /// `listen`.
    pub(crate) listen: SocketAddr,
    /// TLS and proxies.
    pub(crate) security: Security,
}

/// What was read: to read the files again that it names, and not the file itself, which may be half edited.
#[derive(Clone, Default)]
pub(crate) struct Source {
    object: Map<String, Value>,
    files: Vec<NamedFile>,
}

impl Source {
    /// What stands for the files that the settings name, as they are now; `None` if they are as they were read.
    pub(crate) fn digest_of_changed_files(&self) -> Option<u128> {
        let now: Vec<_> = self.files.iter().map(NamedFile::read_again).collect();
        let all = |all: u128, file: &NamedFile| all.rotate_left(1) ^ file.digest();
        (now != self.files).then(|| now.iter().fold(0, all))
    }
}

/// One push module, ready to be built.
pub(crate) struct LoadedModule {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) is_default: bool,
    pub(crate) settings: ModuleSettings,
    pub(crate) backend: ParsedBackend,
    /// Stands for all that the settings and the files that they name say of the module.
    pub(crate) digest: u128,
}

/// What `fpush check` knows of the service that will run, and what that finds by itself.
#[derive(Default)]
pub(crate) struct Surroundings {
    /// Files that systemd makes when the service starts.
    pub(crate) provided: Vec<ProvidedFile>,
    /// The folder that systemd makes for what must survive a restart.
    pub(crate) state_folder: Option<PathBuf>,
}

/// Loads a settings file. `None` if the daemon cannot start with it; the problems say why, and what is wrong
/// besides.
pub(crate) fn load(file: &Path, backends: &[Row]) -> (Option<Loaded>, Vec<Problem>) {
    load_as(file, backends, Surroundings::default())
}

/// The same as another process would do it.
pub(crate) fn load_as(
    file: &Path,
    backends: &[Row],
    surroundings: Surroundings,
) -> (Option<Loaded>, Vec<Problem>) {
    let Surroundings {
        provided,
        state_folder,
    } = surroundings;
    let report = Report::with(provided);
    let object = read_file(file, &report);
    if let Some(object) = &object {
        warn_of_public_secrets(file, object, &report);
    }
    let (loaded, problems) = load_object(object, backends, report);
    let loaded = loaded.map(|loaded| Loaded {
        state_folder: loaded.state_folder.or(state_folder),
        ..loaded
    });
    (loaded, problems)
}

/// Loads settings once more: their text is what it was, the files that they name may be others.
pub(crate) fn load_again(source: &Source, backends: &[Row]) -> (Option<Loaded>, Vec<Problem>) {
    load_object(Some(source.object.clone()), backends, Report::default())
}

fn load_object(
    object: Option<Map<String, Value>>,
    backends: &[Row],
    report: Report,
) -> (Option<Loaded>, Vec<Problem>) {
    let loaded = object.and_then(|object| {
        let loaded = read(&object, backends, &report)?;
        let source = Source {
            object,
            files: report.files(),
        };
        Some(Loaded { source, ..loaded })
    });
    let loaded = loaded.filter(|_| !report.has_errors());
    (loaded, report.into_problems())
}

/// Reads where a running daemon can be asked, and its `componentHostname`, and nothing else: a file that cannot be read
/// says nothing about it.
pub(crate) fn load_whom_to_ask(file: &Path) -> (RuntimeFolder, Option<String>) {
    let report = Report::default();
    let object = read_file(file, &report).unwrap_or_default();
    let folder = RuntimeFolder::choose(Section::root(&object, &report).optional_folder("runtimeDirectory"));
    let component = object
        .get("component")
        .and_then(|component| component.get("componentHostname"));
    (folder, component.and_then(Value::as_str).map(str::to_owned))
}

/// What keeps a settings file from being read at all.
pub(crate) fn unreadable(file: &Path) -> Vec<Problem> {
    let report = Report::default();
    read_file(file, &report);
    report.into_problems()
}

/// Reads nothing but the block `registration` of a settings file: for commands that need neither the secrets nor the
/// credentials, which may be there only while the daemon runs. `Ok(None)` if there is no such block.
///
/// # Errors
///
/// What is wrong with the block or with the file.
#[cfg(feature = "enable_registration")]
pub(crate) fn load_registration(file: &Path) -> Result<Option<RegistrationSettings>, Vec<Problem>> {
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
    let unreadable =
        |e: &dyn fmt::Display| report.error("", format_args!("cannot read the settings file {shown}: {e}"));
    let content = files::read(file, files::LARGEST)
        .inspect_err(|e| unreadable(&files::describe(e, file, files::Use::Read)))
        .ok()?;
    let text = &files::text(&content).inspect_err(|e| unreadable(e)).ok()?;
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

/// The first folder that systemd made for the service, from the variable of the environment that names them
/// (systemd.exec(5)).
pub(crate) fn made_by_systemd(variable: &str) -> Option<PathBuf> {
    let folders = std::env::var(variable).ok()?;
    let first = folders.split(':').next().filter(|first| !first.is_empty());
    first.map(PathBuf::from)
}

fn read(object: &Map<String, Value>, backends: &[Row], report: &Report) -> Option<Loaded> {
    let mut root = Section::root(object, report);
    let component = read_component(&mut root);
    let modules = read_modules(&mut root, backends);
    let registration = read_registration(&mut root);
    let monitoring = read_monitoring(&mut root);
    let logging = read_logging(&mut root);
    let state_folder = root
        .optional_folder("stateDirectory")
        .or_else(|| made_by_systemd("STATE_DIRECTORY"));
    let runtime_folder = RuntimeFolder::choose(root.optional_folder("runtimeDirectory"));
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
        monitoring,
        logging,
        state_folder,
        runtime_folder,
        source: Source::default(),
    })
}

fn read_monitoring(root: &mut Section<'_>) -> Option<MonitoringSettings> {
    root.value("monitoring")?;
    let mut monitoring = root.section("monitoring")?;
    let security = Security::read(&mut monitoring);
    let listen = read_listen(&mut monitoring);
    monitoring.finish();
    Some(MonitoringSettings {
        listen: listen?,
        security,
    })
}

/// `registration`, whose push modules are to be those of the file.
fn read_registration(root: &mut Section<'_>) -> Option<RegistrationSettings> {
    root.value("registration")?;
    let modules = root.value("pushModules").and_then(Value::as_object);
    let names: Vec<_> = modules
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    registration::read(root.section("registration")?, &names)
}

fn read_logging(root: &mut Section<'_>) -> LoggingSettings {
    let mut logging = root.section_or_empty("logging");
    let format = logging.choice("format", Format::CHOICES, Format::default());
    let level = logging.optional_string("level").and_then(|level| {
        let parsed = level.parse::<Level>();
        parsed
            .inspect_err(|e| {
                logging.error(
                    "level",
                    format_args!(
                        "expected a level such as \"info\", \"debug\" or \"info,fpush_apns=debug\": {e}"
                    ),
                );
            })
            .ok()
    });
    logging.finish();
    LoggingSettings { format, level }
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
    if hostname.is_some_and(|name| is_domain(name) && name.split('.').any(str::is_empty)) {
        component.unusable(
            "componentHostname",
            "expected a domain name without a dot at its start or end, such as \"push.example.org\"",
        );
    }
    let secret = read_secret(&mut component);
    let by_file = component.has("componentKeyFile");
    let server_host = read_host(&mut component);
    let server_port = component.required_integer("serverPort", 1..=65_535);
    let max_stanza_size = component.integer("maxStanzaSize", 16 * 1_024..=64 * MEBIBYTE, MEBIBYTE) as usize;
    component.finish();
    Some(ComponentSettings {
        hostname: hostname?.to_owned(),
        secret: secret?,
        secret_key: if by_file {
            "componentKeyFile"
        } else {
            "componentKey"
        },
        server_host: server_host?,
        server_port: u16::try_from(server_port?).ok()?,
        max_stanza_size,
        retry_after: Duration::ZERO,
    })
}

/// `serverHostname`: a name or an address, which may be in brackets.
fn read_host(component: &mut Section<'_>) -> Option<String> {
    let host = component.string("serverHostname")?.trim();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(host);
    let without_zone = address.split_once('%').map_or(address, |(address, _)| address);
    if without_zone.parse::<Ipv6Addr>().is_ok() {
        return Some(address.to_owned());
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = |name: &str| !name.is_empty() && name.len() <= 253 && name.chars().all(fits);
    if is_name(host) {
        return Some(host.to_owned());
    }
    if is_name(name) && port.parse::<u16>().is_ok() {
        component.error(
            "serverHostname",
            format_args!(
                "expected a name or an address without a port; the port {port} belongs into serverPort"
            ),
        );
    } else {
        component.error(
            "serverHostname",
            "expected the name or the address of the XMPP server, such as \"127.0.0.1\", \"::1\" or \"xmpp.example.org\"",
        );
    }
    None
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
            let secret = files::secret(&secret)
                .inspect_err(|e| component.error("componentKeyFile", e))
                .ok()?;
            if secret.is_empty() {
                component.error(
                    "componentKeyFile",
                    "expected a file that holds the secret, found an empty one",
                );
                return None;
            }
            Some(secret)
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

fn read_modules(root: &mut Section<'_>, backends: &[Row]) -> Vec<LoadedModule> {
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
                    format_args!("{first} is already the default module; only one module can be the default"),
                );
            }
            Some(_) => {}
            None => default = is_default.then_some(name),
        }
        let files_before = root.report().files().len();
        let text = text_of_module(root, name);
        let module = read_module(name, is_default, module, backends);
        modules.extend(module.map(|module| {
            let files = root.report().files().split_off(files_before);
            let digest = files
                .iter()
                .fold(text, |all, file| all.rotate_left(1) ^ file.digest());
            LoadedModule { digest, ..module }
        }));
    }
    modules
}

fn read_module(name: &str, is_default: bool, mut module: Section<'_>, table: &[Row]) -> Option<LoadedModule> {
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
    let row = &table[kind?];
    let Some(backend) = &row.backend else {
        let (name, feature) = (row.name, row.feature);
        module.error(
            "type",
            format_args!(
                "this fpush was built without the type \"{name}\"; build it with the Cargo feature {feature}"
            ),
        );
        return None;
    };
    let backend = backend.read(&mut module);
    module.finish();
    Some(LoadedModule {
        name: name.to_owned(),
        kind: row.name,
        is_default,
        settings,
        backend: backend?,
        digest: 0,
    })
}

/// Stands for what the settings say of a module.
fn text_of_module(root: &mut Section<'_>, name: &str) -> u128 {
    let module = root.value("pushModules").and_then(|modules| modules.get(name));
    digest(module.map(Value::to_string).unwrap_or_default().as_bytes())
}

/// Whether a text can stand in an address as its domain.
fn is_domain(name: &str) -> bool {
    name.len() <= 1_023
        && name
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !"@/<>'\"&:".contains(c))
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
        for no_domain in [
            "example.org:5347",
            "u@example.org",
            "example.org/r",
            "a b",
            "a'b",
            "<a>",
        ] {
            assert!(!is_domain(no_domain), "{no_domain}");
        }
    }
}
