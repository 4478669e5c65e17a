//! `fpush check`: what is wrong with the settings and with what they need, and what a start would do.

mod health;
mod payloads;
mod place;
pub(crate) mod service;
mod system;
mod user;

use std::path::Path;

use anyhow::Context as _;
use fpush_component::LinkSettings;
use fpush_push::{
    Delivery, SenderNames,
    settings::{Problem, Severity},
};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime;

use crate::{
    backends,
    check::{payloads::Payload, place::Place, system::Situation, user::return_to_root},
    cli::{self, Check},
    cluster,
    console::{Console, Exit},
    inquiry::{Holding, Mistake},
    logging, registration, send,
    settings::{Loaded, ModuleValue, Overridden, ParsedModule, Settings, load_as},
};

/// What `fpush check --json` writes.
#[derive(Serialize)]
struct Report {
    /// Whether the exit status is 0.
    ok: bool,
    version: &'static str,
    settings: String,
    problems: Vec<Mistake>,
    /// What a start would do; nothing if it would not start.
    start: Vec<Part>,
    /// What `--connect` has found.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Value>,
}

/// A part of what a start would make, and what there is to know about it.
#[derive(Serialize)]
struct Part {
    what: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<Fact>,
    /// What `--show-payloads` shows of a module.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    payloads: Vec<Payload>,
}

#[derive(Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

pub(crate) fn check(check: &Check, console: &mut Console) -> Exit {
    let Check {
        settings,
        connect,
        show_payloads,
        healthcheck,
        user,
        form,
    } = check;
    if *healthcheck {
        return health::check(&settings.choose(console), *form, console);
    }
    let place = match Place::take(&settings.choose(console), user.as_deref()) {
        Ok(place) => place,
        Err(e) => {
            console.error(format_args!("{e:#}"));
            return Exit::Config;
        }
    };
    let Place {
        file,
        service,
        surroundings,
        running,
        user,
        acting,
        has_way_back,
        note,
    } = place;
    let (loaded, mut problems) = load_as(&file, &backends::table(), surroundings);
    problems.extend(note);
    problems.extend(logging::complaint().map(|message| Problem {
        severity: Severity::Warning,
        path: String::new(),
        message,
    }));
    if let Some(loaded) = &loaded {
        let running = running.filter(|running| is_of_these(running, &file, &loaded.settings));
        problems.extend(running.as_ref().and_then(|running| taken_for(running, &file)));
        let situation = Situation {
            running: running.as_ref(),
            service: service.as_ref(),
            user: &user,
            connect: *connect,
        };
        match problems_of_the_system(&situation, &loaded.settings, has_way_back) {
            Ok(more) => problems.extend(more),
            Err(e) => {
                console.error(format_args!("{e:#}"));
                return Exit::OsError;
            }
        }
    }
    if !form.json {
        console.problems(&problems);
    }
    let starts = problems.iter().all(|problem| problem.severity != Severity::Error);
    // Without the content of a credential there is no more to say.
    let mut start = match loaded.as_ref().filter(|_| starts) {
        Some(loaded) => describe(loaded, acting),
        None => Vec::new(),
    };
    let has_loaded = loaded.is_some();
    if let Some(loaded) = loaded.filter(|_| starts && *show_payloads) {
        let names = loaded.settings.modules.iter().map(|module| &*module.name);
        let built = loaded
            .modules
            .into_iter()
            .map(|module| (module.backend.build)().backend);
        start.extend(names.zip(built).map(|(name, backend)| Part {
            payloads: backend.examples().into_iter().map(Payload::from).collect(),
            ..Part::new(format!("what module {name} sends"))
        }));
    }
    if !form.json {
        for Part {
            what,
            facts,
            payloads,
        } in &start
        {
            console.say(what);
            for Fact { name, value } in facts {
                console.say(format_args!("  {name}: {value}"));
            }
            for payload in payloads {
                console.say(payload);
            }
        }
    }
    let passes = problems.iter().all(|problem| match problem.severity {
        Severity::Error | Severity::UnknownKey | Severity::Unusable => false,
        Severity::Warning | Severity::Note => true,
    });
    let mut exit = if passes { Exit::Success } else { Exit::Config };
    let mut answer = None;
    if *connect && passes && has_loaded {
        let (found, ended) = send::check(&file, *form, console);
        (answer, exit) = (Some(found), ended);
    }
    if form.json {
        console.json(&Report {
            ok: exit == Exit::Success,
            version: cli::VERSION,
            settings: file.display().to_string(),
            problems: problems.iter().map(Mistake::from).collect(),
            start,
            connect: answer,
        });
    }
    exit
}

/// Whether the fpush that runs is the one of these settings, so that what it holds is free for them. One with this file from
/// before a change of the names is, and one with another file of the same name, which may be a copy that is to be tried. With
/// another state directory that is another instance.
fn is_of_these(running: &Holding, file: &Path, settings: &Settings) -> bool {
    let is_ours = |link: &LinkSettings| running.components.contains(&link.hostname);
    let is_elsewhere = match (&running.state_folder, &settings.state_folder) {
        (Some(theirs), Some(ours)) => ours.canonicalize().ok().as_ref() != Some(theirs),
        (None, _) | (_, None) => false,
    };
    is_with(running, file) || settings.links.iter().any(is_ours) && !is_elsewhere
}

/// Whether the fpush that runs was started with this settings file.
fn is_with(running: &Holding, file: &Path) -> bool {
    running.settings.is_some() && running.settings == file.canonicalize().ok()
}

/// That what the fpush holds that runs with another file counts as free, if that is so.
fn taken_for(running: &Holding, file: &Path) -> Option<Problem> {
    let other = running.settings.as_ref().filter(|_| !is_with(running, file))?;
    Some(Problem {
        severity: Severity::Note,
        path: "runtimeDirectory".to_owned(),
        message: format!(
            "these are taken for new settings of the fpush that runs with {}; another instance needs a runtimeDirectory and \
             ports of its own",
            other.display()
        ),
    })
}

/// What would keep a start with good settings from its ports, folders and database.
fn problems_of_the_system(
    situation: &Situation<'_>,
    settings: &Settings,
    has_way_back: bool,
) -> anyhow::Result<Vec<Problem>> {
    let mut problems = run(situation.problems(settings))?;
    if has_way_back {
        return_to_root()?;
    }
    problems.extend(run(situation.problems_of_handed_over(settings))?);
    Ok(problems)
}

/// Runs something in this thread.
fn run<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(work))
}

fn describe(loaded: &Loaded, acting: Option<String>) -> Vec<Part> {
    let Settings {
        links,
        modules,
        registration,
        monitoring,
        sender_names,
        logging,
        cluster,
        state_folder,
        runtime_folder,
    } = &loaded.settings;
    let mut parts = vec![Part::new(format!("fpush {}", cli::VERSION))];
    parts.extend(acting.map(Part::new));
    for Overridden { path, variable } in loaded.source.overridden() {
        parts.push(Part::new(format!(
            "{path} is what the environment variable {variable} says"
        )));
    }
    parts.extend(links.iter().map(describe_link));
    parts.extend(modules.iter().zip(&loaded.modules).map(describe_module));
    if let Some(monitoring) = monitoring {
        let scheme = if monitoring.security.tls.is_some() {
            "https"
        } else {
            "http"
        };
        parts.push(Part::new(format!(
            "metrics and status page at {scheme}://{}/",
            monitoring.listen
        )));
    }
    match sender_names {
        SenderNames::Top => {}
        SenderNames::Off => parts.push(Part::new(
            "domains of senders are in no metric, on no page and in no line of the log".to_owned(),
        )),
    }
    if let Some(level) = &logging.level {
        parts.push(Part::new(format!("log level: {level}, unless RUST_LOG is set")));
    }
    if let Some(folder) = state_folder {
        parts.push(Part::new(format!(
            "state directory: {}, where block lists and held pushes survive a restart",
            folder.display()
        )));
    }
    if let Some(socket) = runtime_folder.socket_by_settings() {
        parts.push(Part::new(format!(
            "runtime directory: fpush send, check --connect and reload ask it at {}",
            socket.display()
        )));
    }
    if let Some(cluster) = cluster {
        parts.push(Part {
            facts: cluster::facts(cluster).into_iter().map(Fact::from).collect(),
            ..Part::new("shared with other instances".to_owned())
        });
    }
    if let Some(registration) = registration {
        parts.push(Part {
            facts: registration::facts(registration)
                .into_iter()
                .map(Fact::from)
                .collect(),
            ..Part::new("registered devices".to_owned())
        });
    }
    parts
}

fn describe_link(link: &LinkSettings) -> Part {
    let LinkSettings {
        name,
        hostname,
        server_host,
        server_port,
        tls,
        group,
        scope,
        push2,
        ..
    } = link;
    let usual = LinkSettings::usual_name(hostname, server_host, *server_port);
    let own = (*name != usual).then(|| ("name", name.clone()));
    let tls = tls
        .iter()
        .map(|tls| ("TLS", format!("certificate for {}", tls.server_name())));
    let group = group.iter().map(|group| ("group", group.clone()));
    let modules = scope
        .modules()
        .into_iter()
        .flatten()
        .map(|name| ("module", name.clone()));
    let default = scope
        .default_module()
        .map(|name| ("default module", name.to_owned()));
    let push2 = push2.iter().map(|push2| {
        let modules = push2.modules.join(", ");
        ("Push 2.0", format!("passed on through {modules}"))
    });
    Part {
        what: format!("component {hostname} at {server_host} port {server_port}"),
        facts: own
            .into_iter()
            .chain(tls)
            .chain(group)
            .chain(modules)
            .chain(default)
            .chain(push2)
            .map(Fact::from)
            .collect(),
        payloads: Vec::new(),
    }
}

fn describe_module((value, parsed): (&ModuleValue, &ParsedModule)) -> Part {
    let ModuleValue {
        name,
        module_type,
        is_default,
        delivery,
        digest: _,
    } = value;
    let ParsedModule { settings, backend } = parsed;
    let default = if *is_default { ", default" } else { "" };
    let shadow = match delivery {
        Delivery::Real => "",
        Delivery::Shadow => ", shadow",
    };
    let limit = &settings.ratelimit;
    let limit = if limit.enabled {
        format!("{:?} between two pushes to a token", limit.spacing)
    } else {
        "none".to_owned()
    };
    let own = [
        ("rate limit", limit),
        ("at the provider at a time", settings.max_in_flight.to_string()),
    ];
    Part {
        facts: backend.facts.iter().cloned().chain(own).map(Fact::from).collect(),
        ..Part::new(format!("module {name} ({module_type}{default}{shadow})"))
    }
}

impl Part {
    fn new(what: String) -> Self {
        Self {
            what,
            facts: Vec::new(),
            payloads: Vec::new(),
        }
    }
}

impl From<(&'static str, String)> for Fact {
    fn from((name, value): (&'static str, String)) -> Self {
        Self { name, value }
    }
}
