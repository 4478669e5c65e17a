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

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        let mut hash = String::new();
        for byte in Sha1::digest(text.as_bytes()) {
            write!(hash, "{byte:02x}").expect("a string takes all");
        }
        Self { text, hash }
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
