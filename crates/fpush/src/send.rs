//! `fpush send` and `fpush check --connect`: a running daemon is asked, because a second login would take publishes
//! away from it (ejabberd) or throw it out (Prosody with `kick_old`), and a second provider token breaks Apple's rule.
//! Only where none runs the command does it itself.

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use fpush_component::LinkSettings;
use fpush_driver::{Drain, Module, Modules, Senders};
use fpush_push::{
    Built, TokenHasher, files,
    settings::{Problem, Severity},
};
use serde_json::{Value, json};
use tokio::runtime;

use crate::{
    backends,
    cli::{Form, Send},
    console::{Console, Exit, as_finding, as_problems},
    control,
    inquiry::{Findings, Inquiry, Question, about_link, one_each},
    settings::{Loaded, ParsedModule, load, load_whom_to_ask},
};

/// `fpush send`.
pub(crate) fn send(send: &Send, console: &mut Console) -> Exit {
    let Send {
        settings,
        module,
        token,
        priority,
        form,
    } = send;
    let token = match read_token(token, *form, console) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    let file = settings.choose(console);
    let inquiry = Inquiry::Send {
        module: module.clone(),
        token,
        priority: *priority,
    };
    let (answer, exit) = ask(&file, inquiry, *form, console);
    if form.json {
        console.json(&answer);
    }
    exit
}

/// `fpush check --connect`, after the settings have been checked. With `--json` it says nothing but what keeps it from an
/// answer.
pub(crate) fn check(file: &Path, form: Form, console: &mut Console) -> (Value, Exit) {
    ask(file, Inquiry::Check, form, console)
}

/// The answer as JSON, and the exit status. The answer is said unless it is wanted as JSON.
fn ask(file: &Path, inquiry: Inquiry, form: Form, console: &mut Console) -> (Value, Exit) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(find(file, inquiry, form, console)));
    match answer {
        Ok(Answer::Found { asked, findings }) => {
            let Findings { ok, lines, .. } = &findings;
            if !form.json {
                lines.iter().for_each(|line| console.say(line));
            }
            let answer = json!({ "ok": ok, "asked": asked, "findings": findings.each() });
            (answer, if *ok { Exit::Success } else { Exit::No })
        }
        Ok(Answer::WrongSettings(problems)) => {
            let problems: Vec<_> = problems
                .into_iter()
                .filter(|problem| problem.severity == Severity::Error)
                .collect();
            if !form.json {
                console.problems(&problems);
            }
            (as_problems(&problems), Exit::Config)
        }
        Err(e) => {
            let why = format!("{e:#}");
            console.error(&why);
            (as_finding(why), Exit::OsError)
        }
    }
}

enum Answer {
    /// What was found, by the daemon that was asked at this socket, or by the command itself.
    Found {
        asked: Option<String>,
        findings: Findings,
    },
    /// Nobody runs, and the command cannot use the settings.
    WrongSettings(Vec<Problem>),
}

async fn find(file: &Path, inquiry: Inquiry, form: Form, console: &mut Console) -> anyhow::Result<Answer> {
    let (folder, components) = load_whom_to_ask(file);
    let socket = folder.socket().display().to_string();
    let question = Question { components, inquiry };
    if let Some(findings) = control::ask(&folder, &question).await? {
        if !form.json {
            console.say(format_args!(
                "asked the running fpush (at {socket}), with the settings that it has in force"
            ));
        }
        let asked = Some(socket);
        return Ok(Answer::Found { asked, findings });
    }
    let (loaded, problems) = load(file, &backends::table());
    let Some(loaded) = loaded else {
        return Ok(Answer::WrongSettings(problems));
    };
    let links = loaded.settings.links.clone();
    if !form.json {
        console.say(format_args!(
            "no fpush runs ({}), so this command connects by itself",
            folder.nobody()
        ));
    }
    let inquiry = question.inquiry;
    let only = match &inquiry {
        Inquiry::Send { module, .. } => Some(module.as_str()),
        Inquiry::Check | Inquiry::Reload { .. } | Inquiry::Token(_) | Inquiry::Holding | Inquiry::Health => {
            None
        }
    };
    let modules = Modules::new(build(loaded, only)?, None);
    let mut findings = Findings::new();
    match inquiry {
        Inquiry::Send {
            module,
            token,
            priority,
        } => findings.push(&modules, &module, &token, priority).await,
        Inquiry::Check => {
            for (link, tried) in links.iter().zip(log_in_everywhere(&links).await) {
                let about = about_link(&link.hostname, &link.name, links.len() == 1);
                findings.link(&about, tried);
            }
            findings.providers(&modules.all()).await;
        }
        Inquiry::Reload { .. } => findings.bad("only a running fpush can reload its settings".to_owned()),
        // Nothing runs that could hold or know anything.
        Inquiry::Token(_) | Inquiry::Holding | Inquiry::Health => {}
    }
    Ok(Answer::Found {
        asked: None,
        findings,
    })
}

/// Logs in over all links, and out again; returns why that is not possible for each. Those of one name come one after the
/// other, because a server may allow only one connection of it.
async fn log_in_everywhere(links: &[LinkSettings]) -> Vec<Option<String>> {
    let names = one_each(links.iter().map(|link| &*link.hostname));
    let tries: Vec<_> = names
        .into_iter()
        .map(|name| {
            let links = links.to_vec();
            tokio::spawn(async move {
                let mut tried = Vec::new();
                for (place, link) in links.iter().enumerate() {
                    if link.hostname == name {
                        tried.push((place, link.try_login().await.err()));
                    }
                }
                tried
            })
        })
        .collect();
    let mut all = vec![None; links.len()];
    for tries in tries {
        match tries.await {
            Ok(tried) => tried.into_iter().for_each(|(place, why)| all[place] = why),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    all
}

/// If only one is to be used, the others ask nobody for credentials.
fn build(loaded: Loaded, only: Option<&str>) -> anyhow::Result<Vec<Arc<Module>>> {
    let (hasher, drain) = (TokenHasher::new()?, Drain::default());
    let Loaded {
        settings, modules, ..
    } = loaded;
    let modules = settings.modules.iter().zip(modules).map(|(value, parsed)| {
        let ParsedModule { settings, backend } = parsed;
        let Built { backend, background } = (backend.build)();
        if only.is_none_or(|only| only == value.name) {
            background.into_iter().for_each(|task| drop(tokio::spawn(task)));
        }
        Module::new(
            &value.name,
            backend,
            settings,
            Senders::new(hasher.clone()),
            drain.clone(),
        )
    });
    Ok(modules.collect())
}

/// The token, from standard input if it is `-`: the command line is visible in the list of processes. Whatever wrote it, the
/// first line is the token, without a byte order mark and blanks around it. Says why there is none.
pub(crate) fn read_token(token: &str, form: Form, console: &mut Console) -> Result<String, Exit> {
    match first_line(token) {
        Ok(read) if read.is_empty() && token == STDIN => {
            console.failed(form, "there is no token on standard input");
            Err(Exit::No)
        }
        Ok(read) => Ok(read),
        Err(e) => {
            let why = format_args!("cannot read the token from standard input: {e}");
            console.failed(form, why);
            Err(Exit::OsError)
        }
    }
}

fn first_line(token: &str) -> io::Result<String> {
    let not_text = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let clean = |text: &str| {
        let text = files::text(text.as_bytes()).map_err(not_text)?;
        Ok(text.trim().to_owned())
    };
    if token != STDIN {
        return clean(token);
    }
    let mut lines = files::Lines::new(io::stdin().lock().take(LONGEST_LINE), LONGEST_LINE as usize);
    let line = lines.next_line()?.unwrap_or_default();
    clean(str::from_utf8(line).map_err(|_| not_text(files::NotText::NotUtf8))?)
}

const STDIN: &str = "-";
/// As long as an argument may be.
const LONGEST_LINE: u64 = 128 * 1_024;
