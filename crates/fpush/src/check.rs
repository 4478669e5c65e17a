//! `fpush check`: what is wrong with the settings, and what a start would do.

use fpush_push::settings::{Problem, Severity};
use serde::Serialize;
use serde_json::Value;

use crate::{
    backends,
    cli::{self, Check},
    console::{Console, Exit},
    inquiry::Mistake,
    registration, send,
    settings::{Loaded, LoadedModule, load},
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
        form,
    } = check;
    let file = settings.choose(console);
    let (loaded, problems) = load(&file, &mut backends::table());
    if !form.json {
        tell(&problems, console);
    }
    let start = loaded.as_ref().map(describe).unwrap_or_default();
    if !form.json {
        for Part { what, facts } in &start {
            console.say(what);
            for Fact { name, value } in facts {
                console.say(format_args!("  {name}: {value}"));
            }
        }
    }
    let unknown = problems
        .iter()
        .any(|problem| problem.severity == Severity::UnknownKey);
    let mut exit = if unknown || loaded.is_none() {
        Exit::Config
    } else {
        Exit::Success
    };
    let mut answer = None;
    if *connect && exit == Exit::Success {
        (answer, exit) = send::check(&file, *form, console);
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

/// Says what is wrong with the settings.
pub(crate) fn tell(problems: &[Problem], console: &mut Console) {
    for problem in problems {
        match problem.severity {
            Severity::Error | Severity::UnknownKey => console.error(problem),
            Severity::Warning => console.warning(problem),
        }
    }
}

fn describe(loaded: &Loaded) -> Vec<Part> {
    let Loaded {
        component,
        modules,
        registration,
        monitoring,
        format: _,
        state_folder,
        runtime_folder,
        source: _,
    } = loaded;
    let mut parts = vec![
        Part::new(format!("fpush {}", cli::VERSION)),
        Part::new(format!(
            "component {} at {} port {}",
            component.hostname, component.server_host, component.server_port
        )),
    ];
    parts.extend(modules.iter().map(describe_module));
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
    if let Some(registration) = registration {
        parts.push(Part {
            what: "registered devices".to_owned(),
            facts: registration::facts(registration)
                .into_iter()
                .map(Fact::from)
                .collect(),
        });
    }
    parts
}

fn describe_module(module: &LoadedModule) -> Part {
    let LoadedModule {
        name,
        kind,
        is_default,
        settings,
        built,
        imprint: _,
    } = module;
    let default = if *is_default { ", default" } else { "" };
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
        what: format!("module {name} ({kind}{default})"),
        facts: built.facts.iter().cloned().chain(own).map(Fact::from).collect(),
    }
}

impl Part {
    fn new(what: String) -> Self {
        Self {
            what,
            facts: Vec::new(),
        }
    }
}

impl From<(&'static str, String)> for Fact {
    fn from((name, value): (&'static str, String)) -> Self {
        Self { name, value }
    }
}
