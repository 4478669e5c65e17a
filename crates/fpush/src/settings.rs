//! From the settings file to values that can be compared, and to what the daemon is made of.

mod component;
mod environment;
mod file;
mod modules;
mod push2;
mod schema;
pub(crate) mod table;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use fpush_component::LinkSettings;
use fpush_http::{Security, ServerCertificate, read_listen};
use fpush_push::{
    SenderNames,
    settings::{NamedFile, Problem, ProvidedFile, Report, Section, Severity},
};
use serde_json::{Map, Value};

use self::{
    component::{read_component, read_retry},
    file::{read_file, warn_of_public_secrets},
    modules::read_modules,
};
pub(crate) use self::{
    environment::Overridden,
    file::parse,
    modules::{ModuleValue, ParsedModule},
    schema::schema,
};
use crate::{
    backends::Row,
    cluster::{self, ClusterSettings},
    folders::{RuntimeFolder, made_by_systemd},
    inquiry::collide,
    logging::{Format, Level, LoggingSettings},
    registration::{self, RegistrationSettings},
};

/// What the settings say, as values.
#[derive(Clone, PartialEq)]
pub(crate) struct Settings {
    /// `component`, in its order: one at least.
    pub(crate) links: Vec<LinkSettings>,
    pub(crate) modules: Vec<ModuleValue>,
    pub(crate) registration: Option<RegistrationSettings>,
    pub(crate) monitoring: Option<MonitoringSettings>,
    /// `monitoring.senders`.
    pub(crate) sender_names: SenderNames,
    pub(crate) logging: LoggingSettings,
    /// `cluster`: where instances share what they know.
    pub(crate) cluster: Option<ClusterSettings>,
    /// `stateDirectory`, or the one that systemd made for the service.
    pub(crate) state_folder: Option<PathBuf>,
    pub(crate) runtime_folder: RuntimeFolder,
}

/// Settings that were read, and what belongs to them.
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// What each of [`Settings::modules`] is made of, in their order.
    pub(crate) modules: Vec<ParsedModule>,
    pub(crate) source: Source,
}

/// The text of settings: of the file, and of what variables of the environment say beside it.
#[derive(Clone, Default)]
pub(crate) struct Text {
    pub(crate) object: Arc<Map<String, Value>>,
    pub(crate) overridden: Arc<[Overridden]>,
}

impl Text {
    fn new(mut object: Map<String, Value>, report: &Report) -> Self {
        let overridden = environment::apply(&mut object, env::vars_os(), report);
        Self {
            object: Arc::new(object),
            overridden: overridden.into(),
        }
    }

    /// Says of mistakes which variable they come from. A key that is not known is one: no original has ever had it there.
    fn blame_variables(&self, problems: &mut [Problem]) {
        for Problem {
            severity,
            path,
            message,
        } in problems
        {
            let is_below = |overridden: &&Overridden| {
                let rest = path.strip_prefix(&overridden.path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            // The innermost is the last.
            if let Some(Overridden { variable, .. }) = self.overridden.iter().rfind(is_below) {
                message.push_str("; the environment variable ");
                message.push_str(variable);
                message.push_str(" says it");
                if *severity == Severity::UnknownKey {
                    *severity = Severity::Error;
                }
            }
        }
    }
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
    text: Text,
    files: Vec<NamedFile>,
}

/// Files that are not any more as they were when the settings were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Of all files that the settings name, as they are now.
    pub(crate) digest: u128,
    pub(crate) files: Vec<PathBuf>,
}

impl Source {
    /// What variables of the environment have set.
    pub(crate) fn overridden(&self) -> &[Overridden] {
        &self.text.overridden
    }

    /// Whether this file, from which it was read, says something else now. One that cannot be read says nothing.
    pub(crate) fn is_edited(&self, file: &Path) -> bool {
        let report = Report::default();
        let now = read_file(file, &report).map(|object| Text::new(object, &report));
        now.is_some_and(|now| now.object != self.text.object)
    }

    /// Looks at all files that the settings name; `None` if they are as they were read.
    pub(crate) fn look(&self) -> Option<Changed> {
        let now: Vec<_> = self.files.iter().map(NamedFile::read_again).collect();
        let changed = now.iter().zip(&self.files).filter(|(now, before)| now != before);
        let mut files: Vec<_> = changed.map(|(now, _)| now.path().to_owned()).collect();
        files.dedup();
        (!files.is_empty()).then(|| Changed {
            digest: NamedFile::digest_all(0, &now),
            files,
        })
    }

    /// The certificates of monitoring and registration, as far as their files can be used.
    pub(crate) fn certificates(&self) -> [Option<ServerCertificate>; 2] {
        let report = Report::default();
        let mut root = Section::root(&self.text.object, &report);
        let (monitoring, _) = read_monitoring(&mut root);
        let monitoring = monitoring.and_then(|monitoring| monitoring.security.tls);
        let registration = read_registration(&mut root);
        let registration =
            registration.and_then(|mut settings| registration::security(&mut settings)?.tls.take());
        [monitoring, registration]
    }
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
pub(crate) fn load(file: &Path, types: &[Row]) -> (Option<Loaded>, Vec<Problem>) {
    load_as(file, types, Surroundings::default())
}

/// The same as another process would do it.
pub(crate) fn load_as(
    file: &Path,
    types: &[Row],
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
    let text = object.map(|object| Text::new(object, &report));
    load_text(text, types, state_folder, report)
}

/// Loads settings once more: their text is what it was, the files that they name may be others.
pub(crate) fn load_again(source: &Source, types: &[Row]) -> (Option<Loaded>, Vec<Problem>) {
    load_text(Some(source.text.clone()), types, None, Report::default())
}

pub(crate) fn load_text(
    text: Option<Text>,
    types: &[Row],
    state_folder: Option<PathBuf>,
    report: Report,
) -> (Option<Loaded>, Vec<Problem>) {
    let read = text
        .as_ref()
        .and_then(|text| read(&text.object, types, state_folder, &report));
    let files = report.files();
    let mut problems = report.into_problems();
    if let Some(text) = &text {
        text.blame_variables(&mut problems);
    }
    let starts = problems.iter().all(|problem| problem.severity != Severity::Error);
    let loaded = text.zip(read).filter(|_| starts);
    let loaded = loaded.map(|(text, (settings, modules))| Loaded {
        settings,
        modules,
        source: Source { text, files },
    });
    (loaded, problems)
}

/// Reads where a running daemon can be asked, and each `componentHostname`, and nothing else: a file that cannot be read
/// says nothing about it.
pub(crate) fn load_whom_to_ask(file: &Path) -> (RuntimeFolder, Vec<String>) {
    let report = Report::default();
    let Text { object, .. } = Text::new(read_file(file, &report).unwrap_or_default(), &report);
    let folder = RuntimeFolder::choose(Section::root(&object, &report).optional_folder("runtimeDirectory"));
    let names = component::names(object.get("component"));
    (folder, names.into_iter().map(str::to_owned).collect())
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
    let text = read_file(file, &report).map(|object| Text::new(object, &report));
    let registration = text.and_then(|text| read_registration(&mut Section::root(&text.object, &report)));
    if report.has_errors() {
        Err(report.into_problems())
    } else {
        Ok(registration)
    }
}

/// Reads everything. `state_folder` is the one to use if neither the settings nor systemd name one.
fn read(
    object: &Map<String, Value>,
    types: &[Row],
    state_folder: Option<PathBuf>,
    report: &Report,
) -> Option<(Settings, Vec<ParsedModule>)> {
    let mut root = Section::root(object, report);
    // For editors.
    root.optional_string("$schema");
    let links = read_component(&mut root, types);
    let (modules, parsed) = read_modules(&mut root, types).into_iter().unzip();
    let registration = read_registration(&mut root);
    let (monitoring, sender_names) = read_monitoring(&mut root);
    let http = registration.as_ref().and_then(registration::listen);
    if let Some((monitoring, _)) = monitoring
        .as_ref()
        .zip(http)
        .filter(|(monitoring, http)| collide(monitoring.listen, *http))
    {
        report.error(
            "registration.http.listen",
            format_args!(
                "monitoring.listen is {}, and two listeners cannot have one port; choose another one",
                monitoring.listen
            ),
        );
    }
    let logging = read_logging(&mut root);
    let cluster = read_cluster(&mut root);
    let named = root.optional_folder("stateDirectory");
    let runtime_folder = RuntimeFolder::choose(root.optional_folder("runtimeDirectory"));
    let retry_after = read_retry(&mut root);
    for Row { name, section, .. } in types {
        if let Some(section) = section {
            root.strange(
                section,
                format_args!("it belongs into a module of type \"{name}\", in pushModules"),
            );
        }
    }
    root.finish();
    let settings = Settings {
        links: links?(retry_after),
        modules,
        registration,
        monitoring,
        sender_names,
        logging,
        cluster,
        state_folder: named
            .or_else(|| made_by_systemd("STATE_DIRECTORY"))
            .or(state_folder),
        runtime_folder,
    };
    Some((settings, parsed))
}

fn read_monitoring(root: &mut Section<'_>) -> (Option<MonitoringSettings>, SenderNames) {
    let Some(value) = root.value("monitoring") else {
        return (None, SenderNames::default());
    };
    // Who only wants something left out of the log needs no listener.
    let needs_listener = value
        .as_object()
        .is_none_or(|keys| keys.is_empty() || keys.keys().any(|key| key != "senders"));
    let Some(mut monitoring) = root.section("monitoring") else {
        return (None, SenderNames::default());
    };
    let names = monitoring.choice("senders", SenderNames::CHOICES, SenderNames::default());
    if !needs_listener {
        return (None, names);
    }
    let security = Security::read(&mut monitoring);
    let listen = read_listen(&mut monitoring);
    monitoring.finish();
    let settings = listen.map(|listen| MonitoringSettings { listen, security });
    (settings, names)
}

/// `registration`, whose push modules and component are to be those of the file.
fn read_registration(root: &mut Section<'_>) -> Option<RegistrationSettings> {
    root.value("registration")?;
    let modules = root.value("pushModules").and_then(Value::as_object);
    let names: Vec<_> = modules
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    let components = component::names(root.value("component"));
    registration::read(root.section("registration")?, &names, &components)
}

fn read_cluster(root: &mut Section<'_>) -> Option<ClusterSettings> {
    root.value("cluster")?;
    cluster::read(root.section("cluster"))
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
    if let Some(unknown) = level.as_ref().and_then(Level::unknown) {
        logging.warning("level", unknown);
    }
    logging.finish();
    LoggingSettings { format, level }
}
