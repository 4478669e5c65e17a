//! Texts that all instances use alike.

use std::{sync::Arc, time::Duration};

use fpush_push::{Agreed, Agreeing, Agreement, Confirming, Offer};
use redis::{Cmd, FromRedisValue as _, Value};
use tokio::time::timeout;

use crate::{connection::Connection, link::Link, script::Scripts};

/// Where they agree.
pub(crate) struct Agreements {
    pub(crate) prefix: String,
    pub(crate) link: Arc<Link>,
    pub(crate) scripts: Arc<Scripts>,
}

impl Agreements {
    fn key(&self, name: &str) -> Vec<u8> {
        format!("{}:{{{name}}}", self.prefix).into_bytes()
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        name: &str,
        offer: Option<Offer<'_>>,
    ) -> redis::RedisResult<Option<Agreed>> {
        let key = self.key(name);
        let arguments = |command: &mut Cmd| {
            let Offer {
                text,
                age,
                replaces,
                early,
            } = offer.unwrap_or(NONE);
            let early = if early { "1" } else { "0" };
            command.arg(text).arg(age.as_millis() as u64);
            command.arg(replaces.as_millis() as u64).arg(early).arg(KEPT);
        };
        let answer = self.scripts.agree.run(connection, &[&key], arguments).await?;
        Ok(match answer {
            Value::Array(answer) if answer.is_empty() => None,
            answer => {
                let (text, age) = <(String, u64)>::from_redis_value(answer)?;
                let age = Duration::from_millis(age);
                Some(Agreed { text, age })
            }
        })
    }
}

impl Agreement for Agreements {
    fn agree<'a>(&'a self, name: &'a str, offer: Option<Offer<'a>>) -> Agreeing<'a> {
        Box::pin(async move {
            let mut connection = self.link.connection()?;
            // Longer than a push waits: this is rare, and alone each instance would use another one.
            match timeout(PATIENCE, self.ask(&mut connection, name, offer)).await {
                Ok(Ok(agreed)) => Some(agreed),
                Ok(Err(e)) => {
                    self.link.fail(&e);
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn confirm<'a>(&'a self, name: &'a str, text: &'a str) -> Confirming<'a> {
        Box::pin(async move {
            let Some(mut connection) = self.link.connection() else {
                return;
            };
            let mut command = redis::cmd("HSET");
            command.arg(self.key(name)).arg("confirmed").arg(text);
            // Without it an early offer is taken once more than it should.
            let _told = timeout(PATIENCE, connection.ask(&command)).await;
        })
    }
}

const NONE: Offer<'static> = Offer {
    text: "",
    age: Duration::ZERO,
    replaces: Duration::ZERO,
    early: false,
};
const PATIENCE: Duration = Duration::from_millis(500);
/// Milliseconds: a provider token is good for an hour.
const KEPT: u64 = 2 * 3_600_000;
