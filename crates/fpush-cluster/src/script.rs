//! The scripts, each of which the engine runs as one step.

use std::fmt::Write as _;

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use sha1::{Digest as _, Sha1};

use crate::connection::Connection;

/// A script, and the hash under which the engine keeps it.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

/// All of them.
pub(crate) struct Scripts {
    pub(crate) claim: Script,
    pub(crate) tell: Script,
    pub(crate) look: Script,
    pub(crate) die: Script,
    pub(crate) hold: Script,
    pub(crate) find: Script,
    pub(crate) take: Script,
    pub(crate) greet: Script,
    pub(crate) agree: Script,
    pub(crate) trial: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            claim: Script::new(include_str!("scripts/claim.lua")),
            tell: Script::new(include_str!("scripts/tell.lua")),
            look: Script::new(include_str!("scripts/look.lua")),
            die: Script::new(include_str!("scripts/die.lua")),
            hold: Script::new(concat!(
                include_str!("scripts/held.lua"),
                include_str!("scripts/hold.lua")
            )),
            find: Script::new(concat!(
                include_str!("scripts/held.lua"),
                include_str!("scripts/find.lua")
            )),
            take: Script::new(concat!(
                include_str!("scripts/held.lua"),
                include_str!("scripts/take.lua")
            )),
            greet: Script::new(include_str!("scripts/greet.lua")),
            agree: Script::new(include_str!("scripts/agree.lua")),
            trial: Script::new(include_str!("scripts/trial.lua")),
        }
    }
}

impl Script {
    fn new(text: &'static str) -> Self {
        let mut hash = String::new();
        for byte in Sha1::digest(text.as_bytes()) {
            write!(hash, "{byte:02x}").expect("a string takes all");
        }
        Self { text, hash }
    }

    /// Runs it at an engine of a test, in words. Returns what that answers.
    #[cfg(test)]
    pub(crate) fn run_at(&self, engine: &fpush_testkit::Redis, keys: &[&[u8]], arguments: &[&str]) -> String {
        let keys: Vec<_> = keys.iter().map(|key| std::str::from_utf8(key).unwrap()).collect();
        let number = keys.len().to_string();
        engine.ask(&[&["EVAL", self.text, &number], &*keys, arguments].concat())
    }

    /// Runs it. An engine that does not have it gets its text.
    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        keys: &[&[u8]],
        arguments: impl Fn(&mut Cmd),
    ) -> redis::RedisResult<Value> {
        let command = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len());
            for key in keys {
                command.arg(*key);
            }
            arguments(&mut command);
            command
        };
        let answer = connection.ask(&command("EVALSHA", &self.hash)).await;
        match answer {
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.ask(&command("EVAL", self.text)).await
            }
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_runs_each_command_that_a_script_runs() {
        let Scripts {
            claim,
            tell,
            look,
            die,
            hold,
            find,
            take,
            greet,
            agree,
            trial,
        } = Scripts::new();
        for script in [claim, tell, look, die, hold, find, take, greet, agree] {
            for call in script.text.split("redis.call('").skip(1) {
                let command = call.split('\'').next().unwrap();
                assert!(trial.text.contains(&format!("try('{command}'")), "{command}");
            }
        }
    }
}
