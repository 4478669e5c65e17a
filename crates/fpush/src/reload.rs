//! `fpush reload`: asks the running daemon to read its settings again, and waits for the verdict.

use std::path::{Path, absolute};

use anyhow::Context as _;
use fpush_push::settings::Problem;
use serde_json::json;
use tokio::runtime;

use crate::{
    cli::Reload,
    console::{Console, Exit},
    control,
    inquiry::{Findings, Inquiry, Question},
    settings::{load_whom_to_ask, unreadable},
};

pub(crate) fn reload(reload: &Reload, console: &mut Console) -> Exit {
    let Reload { settings, form } = reload;
    let file = settings.choose(console);
    let folder = load_whom_to_ask(&file).0;
    let socket = folder.socket();
    let findings = match ask(&file) {
        Ok(Some(findings)) => findings,
        Ok(None) => {
            // A file that cannot be read does not say where the daemon is.
            let problems = unreadable(&file);
            if !problems.is_empty() {
                console.wrong_settings(*form, &problems);
                return Exit::Config;
            }
            let nobody = format_args!(
                "no fpush runs with these settings ({}), so there is nothing to reload; a new runtimeDirectory takes effect \
                 with the next start",
                folder.nobody()
            );
            console.failed(*form, nobody);
            return Exit::No;
        }
        Err(e) => {
            console.failed(*form, format_args!("{e:#}"));
            return Exit::OsError;
        }
    };
    let Findings {
        ok, lines, mistakes, ..
    } = &findings;
    if form.json {
        console.json(&json!({
            "ok": ok, "asked": socket, "findings": findings.each(), "problems": mistakes,
        }));
    } else {
        let problems: Vec<_> = mistakes.iter().cloned().map(Problem::from).collect();
        console.problems(&problems);
        for line in lines {
            if *ok {
                console.say(line);
            } else {
                console.error(line);
            }
        }
    }
    match (ok, mistakes.is_empty()) {
        (true, _) => Exit::Success,
        (false, true) => Exit::No,
        (false, false) => Exit::Config,
    }
}

/// `None` if no daemon runs.
fn ask(file: &Path) -> anyhow::Result<Option<Findings>> {
    let (folder, _) = load_whom_to_ask(file);
    let settings = absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
    // A reload may change componentHostname: which daemon is meant says its settings file.
    let question = Question {
        components: Vec::new(),
        inquiry: Inquiry::Reload { settings },
    };
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(control::ask(&folder, &question))
}
