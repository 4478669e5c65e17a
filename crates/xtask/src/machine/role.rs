//! The Ansible role in `contrib`: what it sets up in the machine, with the Prosody there, and that it changes nothing twice.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::{Value, json};

use super::checks::Checks;
use crate::package::stage;
use crate::process;

impl Checks {
    pub(super) fn role(&mut self) -> Result<()> {
        if !self.path("usr/bin/ansible-playbook").exists() {
            println!("  skipped: there is no ansible-core for this Debian");
            return Ok(());
        }
        stage::copy_folder(Path::new(ROLE), &self.path("root/ansible"))?;
        self.sh("cp /etc/fpush/key.p8 /etc/fpush/ca.pem /root/ansible && rm -r /etc/fpush")?;

        let settings = self.some_settings(5347, "phones");
        let first = self.play(&settings)?;
        self.tally.that("a first run", changes(&first) > 0);
        self.same_state("the service runs", "ActiveState", "active")?;
        let line = self.until("StatusText", "link up")?;
        self.tally.that(
            &format!("Prosody knows the component: {line}"),
            line.contains("link up"),
        );
        let enabled = self.sh("systemctl is-enabled fpush")?;
        self.tally.same("it starts at boot", enabled.trim(), "enabled");

        let second = self.play(&settings)?;
        self.tally
            .same("changes of a second run", &changes(&second).to_string(), "0");

        let process = self.state("MainPID")?;
        self.play(&self.some_settings(5347, "tablets"))?;
        let check = self.sh("fpush check /etc/fpush/settings.json")?;
        self.tally
            .that("other settings are written", check.contains("tablets"));
        self.same_state("and read by the same process", "MainPID", &process)?;

        let refused = self.play(&json!({}));
        self.tally
            .that("a run with wrong settings fails", refused.is_err());
        let check = self.sh("fpush check /etc/fpush/settings.json")?;
        self.tally.that("they are not written", check.contains("tablets"));
        self.same_state("fpush runs on", "ActiveState", "active")
    }

    /// Runs the example with these settings. What it wrote.
    fn play(&self, settings: &Value) -> Result<String> {
        let variables = json!({
            "fpush_package": "/root/fpush.deb",
            "fpush_files": ["key.p8", "ca.pem"],
            "fpush_settings": settings,
        });
        self.write("root/ansible/variables.json", &variables.to_string(), 0o600)?;
        self.sh(
            "cd /root/ansible && ansible-playbook --inventory localhost, --connection local \
             --extra-vars @variables.json playbook.yml",
        )
    }
}

/// Lets ansible-lint read the role, if it is there.
pub(super) fn lint() -> Result<()> {
    if !process::is_there("ansible-lint") {
        println!("There is no ansible-lint here, which would read {ROLE}, too.");
        return Ok(());
    }
    let mut lint = Command::new("ansible-lint");
    lint.args(["--offline", "--profile", "production"])
        .current_dir(ROLE)
        .stdin(Stdio::null());
    println!("{}", process::line(&lint));
    process::run(&mut lint)
}

const ROLE: &str = "contrib/ansible";

/// How many tasks changed something, by the last line of a run: 2^64 - 1 if there is no such line.
fn changes(said: &str) -> u64 {
    let count = said.rsplit_once("changed=").map(|(_, rest)| rest);
    let count = count.and_then(|rest| rest.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).unwrap_or(u64::MAX)
}
