//! `fpush check`: what is wrong with the settings, and what a start would do.

use std::{path::Path, process::ExitCode};

use fpush_push::settings::Severity;

use crate::{
    backends, exit, registration, send,
    settings::{Loaded, LoadedModule, load},
};

pub(crate) fn check(file: &Path, connect: bool) -> ExitCode {
    let (loaded, problems) = load(file, &mut backends::table());
    for problem in &problems {
        match problem.severity {
            Severity::Error | Severity::UnknownKey => eprintln!("error: {problem}"),
            Severity::Warning => eprintln!("warning: {problem}"),
        }
    }
    let unknown = problems
        .iter()
        .any(|problem| problem.severity == Severity::UnknownKey);
    match loaded {
        Some(loaded) => {
            describe(&loaded);
            if unknown {
                ExitCode::from(exit::CONFIG)
            } else if connect {
                send::check(file)
            } else {
                ExitCode::SUCCESS
            }
        }
        None => ExitCode::from(exit::CONFIG),
    }
}

fn describe(loaded: &Loaded) {
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
    println!("fpush {}", env!("CARGO_PKG_VERSION"));
    println!(
        "component {} at {} port {}",
        component.hostname, component.server_host, component.server_port
    );
    for LoadedModule {
        name,
        kind,
        is_default,
        settings,
        built,
        imprint: _,
    } in modules
    {
        let default = if *is_default { ", default" } else { "" };
        println!("module {name} ({kind}{default})");
        for (what, value) in &built.facts {
            println!("  {what}: {value}");
        }
        let limit = &settings.ratelimit;
        if limit.enabled {
            println!("  rate limit: {:?} between two pushes to a token", limit.spacing);
        } else {
            println!("  rate limit: none");
        }
        println!("  at the provider at a time: {}", settings.max_in_flight);
    }
    if let Some(monitoring) = monitoring {
        let scheme = if monitoring.security.tls.is_some() {
            "https"
        } else {
            "http"
        };
        println!("metrics and status page at {scheme}://{}/", monitoring.listen);
    }
    if let Some(folder) = state_folder {
        println!(
            "state directory: {}, where block lists and held pushes survive a restart",
            folder.display()
        );
    }
    if let Some(socket) = runtime_folder.socket_by_settings() {
        println!(
            "runtime directory: fpush send and fpush check --connect ask it at {}",
            socket.display()
        );
    }
    if let Some(registration) = registration {
        println!("registered devices");
        for (what, value) in registration::facts(registration) {
            println!("  {what}: {value}");
        }
    }
}
