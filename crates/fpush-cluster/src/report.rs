//! What the engine says of itself, and whether it can keep what is entrusted to it.

use redis::FromRedisValue as _;

use crate::{connection::Connection, trouble::Trouble};

/// What there is to say about how an engine is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// What is wrong with how it is set up, with what to do.
    concerns: Vec<String>,
    /// Why it cannot be used at all.
    trouble: Option<Trouble>,
}

impl Report {
    pub(crate) async fn of(connection: &mut Connection) -> redis::RedisResult<Self> {
        let answer = connection.ask_any(redis::cmd("INFO")).await?;
        Ok(Self::read(&String::from_redis_value(answer)?))
    }

    /// What is wrong with how it is set up, if it can be used.
    pub(crate) fn usable(self) -> Result<Vec<String>, Trouble> {
        self.trouble.map_or(Ok(self.concerns), Err)
    }

    /// Reads the answer to `INFO`.
    pub(crate) fn read(info: &str) -> Self {
        let value = |key: &str| {
            let mut lines = info.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            Some(if is_word(value) { value } else { "unknown" })
        };
        let (name, version, least) = match value("valkey_version") {
            Some(version) => ("Valkey", version, [7, 2]),
            None => ("Redis", value("redis_version").unwrap_or("unknown"), [7, 0]),
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let number: [u32; 2] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        let trouble = if number < least {
            Some(Trouble::Version(format!("{name} {version}")))
        } else if value("role").is_some_and(|role| role != "master") {
            Some(Trouble::Replica)
        } else {
            None
        };
        let mut concerns = Vec::new();
        if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            concerns.push(format!(
                "its maxmemory-policy is {policy}: it may forget blocks and limits when its memory is full; \
                 set it to noeviction"
            ));
        }
        if value("aof_enabled") == Some("0") {
            concerns.push(
                "it keeps no append-only file: what it knows is lost when it stops; set appendonly to yes"
                    .to_owned(),
            );
        }
        Self { concerns, trouble }
    }
}

/// Whether it can be repeated.
fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (1..=40).contains(&text.len()) && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_engines_and_replicas_are_refused_and_forgetful_ones_are_a_concern() {
        let of = |version: &str, role: &str| {
            Report::read(&format!(
                "# Server\r\n{version}\r\nrole:{role}\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"
            ))
        };
        for version in ["redis_version:7.0.15", "redis_version:8.2.1"] {
            let report = of(version, "master");
            assert_eq!((report.trouble, report.concerns.len()), (None, 0), "{version}");
        }
        let old = of("redis_version:6.2.1", "master");
        assert_eq!(old.trouble, Some(Trouble::Version("Redis 6.2.1".to_owned())));
        let valkey = of("redis_version:7.2.4\r\nvalkey_version:8.1.0", "master");
        assert_eq!(valkey.trouble, None);
        assert_eq!(of("redis_version:7.0.0", "slave").trouble, Some(Trouble::Replica));
        let forgetful =
            Report::read("redis_version:7.4.0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n");
        assert_eq!(forgetful.concerns.len(), 2);
    }
}
