//! `fpush send` and `fpush check --connect`: a running daemon is asked, because a second login would take publishes
//! away from it (ejabberd) or throw it out (Prosody with `kick_old`), and a second provider token breaks Apple's rule.
//! Only where none runs the command does it itself.

use std::{
    io::{self, BufRead as _, Read as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use fpush_push::{Built, Drain, Module, Modules, TokenHasher, settings::Severity};
use tokio::runtime;

use crate::{
    backends,
    cli::Send,
    control, exit,
    inquiry::{Findings, Inquiry, Question},
    settings::{Loaded, LoadedModule, load, load_whom_to_ask},
};

/// `fpush send`.
pub(crate) fn send(send: &Send) -> ExitCode {
    let token = match read_token(&send.token) {
        Ok(token) if token.is_empty() && send.token == STDIN => {
            eprintln!("error: there is no token on standard input");
            return ExitCode::FAILURE;
        }
        Ok(token) => token,
        Err(e) => {
            eprintln!("error: cannot read the token from standard input: {e}");
            return ExitCode::from(exit::OS_ERROR);
        }
    };
    let inquiry = Inquiry::Send {
        module: send.module.clone(),
        token,
        priority: send.priority,
    };
    ask(&send.settings, inquiry)
}

/// `fpush check --connect`, after the settings have been checked.
pub(crate) fn check(file: &Path) -> ExitCode {
    ask(file, Inquiry::Check)
}

fn ask(file: &Path, inquiry: Inquiry) -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let findings = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(find(file, inquiry)));
    match findings {
        Ok(Some(findings)) => {
            for line in &findings.lines {
                println!("{line}");
            }
            if findings.ok {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(None) => ExitCode::from(exit::CONFIG),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(exit::OS_ERROR)
        }
    }
}

/// `None` if the settings are wrong, which was said.
async fn find(file: &Path, inquiry: Inquiry) -> anyhow::Result<Option<Findings>> {
    let (folder, component) = load_whom_to_ask(file);
    let socket = folder.socket();
    let socket = socket.display();
    let question = Question { component, inquiry };
    if let Some(findings) = control::ask(&folder, &question).await? {
        println!("asked the fpush that runs (at {socket}), with the settings that it has in force");
        return Ok(Some(findings));
    }
    let (loaded, problems) = load(file, &mut backends::table());
    for problem in problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
    {
        eprintln!("error: {problem}");
    }
    let Some(Loaded {
        component, modules, ..
    }) = loaded
    else {
        return Ok(None);
    };
    println!("no fpush runs (none answers at {socket}), so this command connects by itself");
    let inquiry = question.inquiry;
    let only = match &inquiry {
        Inquiry::Send { module, .. } => Some(module.as_str()),
        Inquiry::Check => None,
    };
    let modules = Modules::new(build(modules, only)?, None);
    let mut findings = Findings::new();
    match inquiry {
        Inquiry::Send {
            module,
            token,
            priority,
        } => findings.push(&modules, &module, &token, priority).await,
        Inquiry::Check => {
            findings.link(&component.hostname, component.try_login().await.err());
            findings.providers(&modules.all()).await;
        }
    }
    Ok(Some(findings))
}

/// If only one is to be used, the others ask nobody for credentials.
fn build(loaded: Vec<LoadedModule>, only: Option<&str>) -> anyhow::Result<Vec<Arc<Module>>> {
    let (hasher, drain) = (TokenHasher::new()?, Drain::default());
    let module = |loaded: LoadedModule| {
        let Built {
            backend,
            facts: _,
            background,
        } = loaded.built;
        if only.is_none_or(|only| only == loaded.name) {
            background.into_iter().for_each(|task| drop(tokio::spawn(task)));
        }
        Module::new(
            &loaded.name,
            backend,
            loaded.settings,
            hasher.clone(),
            drain.clone(),
        )
    };
    Ok(loaded.into_iter().map(module).collect())
}

/// The token, from standard input if it is `-`: what stands on the command line is in the list of processes.
fn read_token(token: &str) -> io::Result<String> {
    if token != STDIN {
        return Ok(token.to_owned());
    }
    let mut line = String::new();
    io::stdin().lock().take(LONGEST_LINE).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

const STDIN: &str = "-";
/// As long as an argument may be.
const LONGEST_LINE: u64 = 128 * 1_024;
