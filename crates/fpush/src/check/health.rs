//! `fpush check --healthcheck`: for those who start containers. The running daemon is asked and nothing else is looked at.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tokio::runtime;

use crate::{
    cli::Form,
    console::{Console, Exit},
    control,
    inquiry::Findings,
    settings::{load_whom_to_ask, unreadable},
};

pub(super) fn check(file: &Path, form: Form, console: &mut Console) -> Exit {
    let (folder, components) = load_whom_to_ask(file);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(control::ask_for_health(&folder, components)));
    let findings = match answer {
        Ok(Some(findings)) => findings,
        Ok(None) => {
            // A file that cannot be read does not say where the daemon is.
            let problems = unreadable(file);
            if !problems.is_empty() {
                console.problems(&problems);
                return Exit::Config;
            }
            let mut findings = Findings::new();
            findings.bad(format!("not ready: no fpush runs ({})", folder.nobody()));
            findings
        }
        Err(e) => {
            console.error(format_args!("{e:#}"));
            return Exit::OsError;
        }
    };
    let Findings { ok, lines, .. } = &findings;
    if form.json {
        console.json(&json!({ "ok": ok, "findings": findings.each() }));
    } else {
        lines.iter().for_each(|line| console.say(line));
    }
    if *ok { Exit::Success } else { Exit::No }
}
