//! What an operator may ask for: one push, or a proof that everybody accepts our login. A running daemon does it with its own
//! connections, otherwise the command does.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fpush_driver::{Module, Modules, Words};
use fpush_push::{
    Urgency,
    settings::{Problem, Severity},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

/// A question to the daemon: one line of JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Question {
    /// Each `componentHostname` in the client's settings, if any of them matters: another fpush must not answer for this one.
    #[serde(default)]
    pub(crate) components: Vec<String>,
    pub(crate) inquiry: Inquiry,
}

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Inquiry {
    /// Send one push.
    Send {
        /// The name of the push module.
        module: String,
        /// The device's token.
        token: String,
        /// How much it matters.
        priority: Priority,
    },
    /// Prove to everybody who we are.
    Check,
    /// Read the settings again.
    Reload {
        /// The absolute path of the settings file, so that nobody reloads another one than is meant.
        settings: PathBuf,
    },
    /// Say why a phone gets no push.
    Token(Wanted),
    /// Say which ports and folders are taken.
    Holding,
    /// Say whether you are ready.
    Health,
}

/// Whose pushes somebody asks for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Wanted {
    /// Those to a token of a module.
    Token {
        /// The name of the push module.
        module: String,
        /// The token.
        token: String,
    },
    /// Those to a registered device.
    Node(String),
}

/// How much a push matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Priority {
    /// A visible push.
    High,
    /// A silent one.
    #[value(alias = "silent", alias = "normal")]
    Low,
    /// A call.
    #[value(alias = "voip")]
    Call,
}

/// The answer: one line of JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Whether all is well.
    pub(crate) ok: bool,
    /// What was found, for a person: what explains the line before it is indented.
    pub(crate) lines: Vec<String>,
    /// What is wrong with settings that were to be reloaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mistakes: Vec<Mistake>,
    /// The answer to [`Inquiry::Holding`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holding: Option<Holding>,
    /// The answer to [`Inquiry::Token`], for a script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<Value>,
}

/// What a running daemon holds, so that nobody else can have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// The settings file, without links.
    pub(crate) settings: Option<PathBuf>,
    /// Each `componentHostname`.
    #[serde(default)]
    pub(crate) components: Vec<String>,
    /// Where it listens, as the settings say it.
    pub(crate) listens: Vec<SocketAddr>,
    /// The state directory, without links.
    pub(crate) state_folder: Option<PathBuf>,
}

impl Holding {
    /// Whether it is the reason why nobody else can listen there.
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        self.listens.iter().any(|ours| collide(*ours, address))
    }
}

/// Whether nobody can listen at both at a time.
pub(crate) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    // The system chooses one for each that has none.
    one.port() == other.port() && one.port() != 0 && same
}

/// Each of some names once.
pub(crate) fn one_each<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut each: Vec<String> = Vec::new();
    for name in names {
        if !each.iter().any(|known| known == name) {
            each.push(name.to_owned());
        }
    }
    each
}

/// A link in a finding: by our address there, and by its name where there are several.
pub(crate) fn about_link(component: &str, name: &str, is_only: bool) -> String {
    if is_only {
        component.to_owned()
    } else {
        format!("{component} (link {name})")
    }
}

/// What became of new settings.
pub(crate) struct Verdict {
    /// Whether they are in force.
    pub(crate) is_taken: bool,
    pub(crate) problems: Vec<Problem>,
}

/// One thing that is wrong with the settings, for the socket and for scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mistake {
    severity: Grade,
    /// Empty for the file as a whole.
    key: String,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Grade {
    Error,
    UnknownKey,
    Unusable,
    Warning,
    Note,
}

impl From<&Problem> for Mistake {
    fn from(problem: &Problem) -> Self {
        Self {
            severity: match problem.severity {
                Severity::Error => Grade::Error,
                Severity::UnknownKey => Grade::UnknownKey,
                Severity::Unusable => Grade::Unusable,
                Severity::Warning => Grade::Warning,
                Severity::Note => Grade::Note,
            },
            key: problem.path.clone(),
            message: problem.message.clone(),
        }
    }
}

impl From<Mistake> for Problem {
    fn from(mistake: Mistake) -> Self {
        Self {
            severity: match mistake.severity {
                Grade::Error => Severity::Error,
                // A daemon ignores such a key, and goes on with the parts that work.
                Grade::UnknownKey | Grade::Unusable | Grade::Warning => Severity::Warning,
                Grade::Note => Severity::Note,
            },
            path: mistake.key,
            message: mistake.message,
        }
    }
}

/// One thing that was found, for a script.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding<'a> {
    pub(crate) message: &'a str,
    /// What it means, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meaning: Option<&'a str>,
}

impl Findings {
    /// Nothing found yet.
    pub(crate) fn new() -> Self {
        Self {
            ok: true,
            lines: Vec::new(),
            mistakes: Vec::new(),
            holding: None,
            tokens: Vec::new(),
        }
    }

    /// Each line with what explains it.
    pub(crate) fn each(&self) -> Vec<Finding<'_>> {
        let mut findings: Vec<Finding<'_>> = Vec::new();
        for line in &self.lines {
            match (line.strip_prefix(INDENT), findings.last_mut()) {
                (Some(meaning), Some(last)) => last.meaning = Some(meaning),
                (_, _) => findings.push(Finding {
                    message: line,
                    meaning: None,
                }),
            }
        }
        findings
    }

    pub(crate) fn good(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Something is not well.
    pub(crate) fn bad(&mut self, line: String) {
        self.ok = false;
        self.lines.push(line);
    }

    /// The settings file is not any more what the daemon has read.
    pub(crate) fn edited(&mut self, file: &str) {
        self.good(format!(
            "warning: {file} was edited, and the running fpush has not read it again"
        ));
        self.explain(
            "What follows is about the settings in force. fpush reload puts the new ones into force.",
        );
    }

    /// The question was meant for another daemon.
    pub(crate) fn not_meant(&mut self, components: &[String], meant: &[String]) {
        let (component, meant) = (components.join(" and "), meant.join(" and "));
        self.bad(format!(
            "this is the fpush of {component}, and the settings are those of {meant}"
        ));
        self.explain(
            "Give each fpush a runtimeDirectory of its own. If the settings of this one have changed, reload it first.",
        );
    }

    /// What became of a reload of the settings in `file`.
    pub(crate) fn reload(&mut self, file: &str, verdict: &Verdict) {
        let Verdict { is_taken, problems } = verdict;
        self.mistakes = problems.iter().map(Mistake::from).collect();
        if *is_taken {
            self.good(format!("settings reloaded from {file}"));
        } else {
            self.bad("reload rejected, keeping the old settings".to_owned());
        }
    }

    /// What there is to say about a link.
    pub(crate) fn link(&mut self, component: &str, problem: Option<String>) {
        match problem {
            None => self.good(format!(
                "component {component}: the XMPP server accepted the login"
            )),
            Some(problem) => {
                // What happened, and what to do about it.
                let (problem, advice) = problem.split_once("; ").unwrap_or((&problem, ""));
                self.bad(format!("component {component}: {problem}"));
                self.explain(advice);
            }
        }
    }

    /// Proves to the providers of all modules who we are.
    pub(crate) async fn providers(&mut self, modules: &[Arc<Module>]) {
        let deadline = Instant::now() + PATIENCE;
        let proofs: Vec<_> = modules
            .iter()
            .map(|module| {
                let module = Arc::clone(module);
                tokio::spawn(async move { module.verify(deadline).await })
            })
            .collect();
        for (module, proof) in modules.iter().zip(proofs) {
            let name = module.name();
            let Ok(proof) = proof.await else {
                self.bad(format!("module {name}: could not be asked"));
                continue;
            };
            match proof {
                Ok(said) => self.good(format!("module {name}: {said}")),
                Err(failure) => {
                    self.bad(format!(
                        "module {name}: the provider did not accept the credentials: {}",
                        failure.answer
                    ));
                    self.explain(failure.meaning);
                }
            }
        }
    }

    /// Sends one push.
    pub(crate) async fn push(&mut self, modules: &Modules, name: &str, token: &str, priority: Priority) {
        let Some(module) = modules.named(name) else {
            let names: Vec<_> = modules
                .all()
                .iter()
                .map(|module| module.name().to_owned())
                .collect();
            let names = names.join(", ");
            return self.bad(format!(
                "there is no push module {name} in the settings; there are: {names}"
            ));
        };
        let urgency = match priority {
            Priority::High => Urgency::High,
            Priority::Low => Urgency::Low,
            Priority::Call => Urgency::Voip,
        };
        let result = module.try_out(token, urgency).await;
        let Words {
            said,
            meaning,
            advice,
            ..
        } = Words::of(&result);
        let line = format!("module {name}: {said}");
        match result {
            Ok(_) => self.good(line),
            Err(_) => self.bad(line),
        }
        self.explain(&format!("{meaning} {advice}"));
    }

    /// Whether a daemon is ready, which these reasons keep it from.
    pub(crate) fn health(&mut self, reasons: Vec<String>) {
        if reasons.is_empty() {
            self.good("ready".to_owned());
        }
        for reason in reasons {
            self.bad(format!("not ready: {reason}"));
        }
    }

    /// What the last line means, and what to do.
    pub(crate) fn explain(&mut self, meaning: &str) {
        if !meaning.is_empty() {
            self.lines.push(format!("{INDENT}{meaning}"));
        }
    }
}

const INDENT: &str = "  ";
/// For the answer of one provider.
const PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// The program on disk and the daemon that runs may be of different versions.
    #[test]
    fn questions_and_answers_stay_as_they_are() {
        let send = Inquiry::Send {
            module: "ios".to_owned(),
            token: "a\"b\n".to_owned(),
            priority: Priority::Low,
        };
        let text = serde_json::to_string(&send).unwrap();
        assert_eq!(
            text,
            r#"{"send":{"module":"ios","token":"a\"b\n","priority":"low"}}"#
        );
        assert!(!text.contains('\n'), "a question is one line");
        assert_eq!(serde_json::to_string(&Inquiry::Check).unwrap(), r#""check""#);
        assert!(matches!(serde_json::from_str(r#""check""#), Ok(Inquiry::Check)));
        assert_eq!(serde_json::to_string(&Inquiry::Holding).unwrap(), r#""holding""#);
        let question = Question {
            components: vec!["push.example.org".to_owned()],
            inquiry: Inquiry::Check,
        };
        let text = r#"{"components":["push.example.org"],"inquiry":"check"}"#;
        assert_eq!(serde_json::to_string(&question).unwrap(), text);
        let nobody = serde_json::from_str(r#"{"inquiry":"check"}"#);
        assert!(matches!(
            nobody,
            Ok(Question { components, inquiry: Inquiry::Check }) if components.is_empty()
        ));
        let findings: Findings = serde_json::from_str(r#"{"ok":false,"lines":["no"]}"#).unwrap();
        assert_eq!((findings.ok, findings.lines.len()), (false, 1));
    }

    #[test]
    fn one_bad_thing_is_enough() {
        let mut findings = Findings::new();
        findings.link("push.example.org", None);
        assert!(findings.ok);
        findings.link(
            "push.example.org",
            Some("host-unknown; do this; or that".to_owned()),
        );
        findings.link("push.example.org", Some("no link yet".to_owned()));
        findings.link("push.example.org", None);
        assert!(!findings.ok);
        assert_eq!(
            findings.lines[1..],
            [
                "component push.example.org: host-unknown",
                "  do this; or that",
                "component push.example.org: no link yet",
                "component push.example.org: the XMPP server accepted the login",
            ]
        );
    }

    #[tokio::test]
    async fn who_names_no_module_is_told_which_there_are() {
        let mut findings = Findings::new();
        findings
            .push(&Modules::default(), "ios", "t", Priority::High)
            .await;
        assert!(!findings.ok);
        assert!(findings.lines[0].starts_with("there is no push module ios"));
    }
}
