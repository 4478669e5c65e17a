//! Why the engine cannot be used, in words with what to do.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why the engine cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection to it can be had.
    Unreachable(&'static str),
    /// It does not answer in time.
    Slow,
    /// It refuses the password, or wants one.
    Password,
    /// Its user may not do what is needed.
    Permission(Missing),
    /// It takes no more, because its memory is full.
    Full,
    /// It is a replica.
    Replica,
    /// It is starting, or failing over.
    Busy,
    /// Too old.
    Version(String),
    /// The sentinels know no such service.
    Service,
    /// What answers there is something else than this.
    NotEngine(&'static str),
    /// It gave an answer that nobody knows: its code, such as `ERR`.
    Other(String),
}

/// What a user may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Run these commands.
    Commands(Vec<String>),
    /// Use our keys.
    Keys,
    /// The engine does not say it.
    Unknown,
}

impl Trouble {
    /// In place of a code.
    pub(crate) const UNKNOWN: &str = "no answer that is known";

    pub(crate) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Password,
            ErrorKind::MasterNameNotFoundBySentinel => Self::Service,
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::NoPerm => Self::Permission(Missing::of(error.detail())),
                ServerErrorKind::ReadOnly => Self::Replica,
                ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask => Self::Busy,
                _ => Self::of_code(error),
            },
            ErrorKind::Extension => Self::of_code(error),
            _ if error.is_timeout() => Self::Slow,
            _ if error.is_connection_refusal() => Self::Unreachable("it refuses the connection"),
            ErrorKind::Io if error.is_connection_dropped() => {
                Self::Unreachable("it has closed the connection")
            }
            ErrorKind::Io => Self::Unreachable("no connection can be had"),
            ErrorKind::ClusterConnectionNotFound => Self::Unreachable("no node of the cluster answers"),
            _ => Self::Other(Self::UNKNOWN.to_owned()),
        }
    }

    /// By the code that the engine itself gave. The rest of what it said may hold keys.
    fn of_code(error: &RedisError) -> Self {
        match error.code() {
            Some("WRONGPASS" | "NOAUTH") => Self::Password,
            Some("OOM" | "MISCONF") => Self::Full,
            Some("NOREPLICAS" | "BUSY" | "UNBLOCKED") => Self::Busy,
            // Within a script a missing right has no code of its own, and other words in each version.
            Some("ERR")
                if error
                    .detail()
                    .is_some_and(|detail| RIGHTS.iter().any(|words| detail.contains(words))) =>
            {
                Self::Permission(Missing::of(error.detail()))
            }
            // A password where none is wanted.
            Some("ERR") if error.detail().is_some_and(|detail| detail.contains("AUTH")) => Self::Password,
            Some(code) if code.len() <= 20 && code.chars().all(|c| c.is_ascii_uppercase()) => {
                Self::Other(code.to_owned())
            }
            Some(_) | None => Self::Other(Self::UNKNOWN.to_owned()),
        }
    }

    /// A word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Slow => "slow",
            Self::Password => "password",
            Self::Permission(_) => "permission",
            Self::Full => "full",
            Self::Replica => "replica",
            Self::Busy => "busy",
            Self::Version(_) => "version",
            Self::Service => "service",
            Self::NotEngine(_) | Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(
                f,
                "it cannot be reached ({why}): does it run, is cluster.url right?"
            ),
            Self::Slow => write!(
                f,
                "it does not answer within cluster.timeout: is it overloaded, or the network to it?"
            ),
            Self::Password => write!(f, "it refuses the password, or wants one: correct cluster.url"),
            Self::Permission(missing) => missing.fmt(f),
            Self::Full => write!(
                f,
                "it takes no more, because its memory or disk is full: give it more, or look who else uses it"
            ),
            Self::Replica => write!(
                f,
                "it is a replica: name the primary, or its sentinels, in cluster.url"
            ),
            Self::Busy => write!(f, "it is starting or failing over"),
            Self::Version(version) => {
                write!(
                    f,
                    "it is version {version}; expected Valkey 7.2 or Redis 7, or later ones"
                )
            }
            Self::Service => write!(
                f,
                "the sentinels know no service of this name: correct the end of cluster.url"
            ),
            Self::NotEngine(expected) => write!(
                f,
                "what answers is not {expected}: is cluster.url right, its kind and its port?"
            ),
            Self::Other(code) => write!(f, "it answered {code}; its log may say more"),
        }
    }
}

impl Missing {
    /// By what the engine says. It names no key, and a command between quotes.
    fn of(detail: Option<&str>) -> Self {
        let detail = detail.unwrap_or_default();
        let is_command = |word: &&str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '|' | '-');
            (1..=30).contains(&word.len()) && word.chars().all(fits)
        };
        if detail.contains(" key") {
            return Self::Keys;
        }
        match detail.split('\'').nth(1).filter(is_command) {
            Some(command) => Self::Commands(vec![command.to_owned()]),
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commands(commands) => {
                let commands: Vec<_> = commands.iter().map(|command| command.to_lowercase()).collect();
                write!(
                    f,
                    "its user may not run {}: add +{}, or the categories of these commands, to its ACL",
                    commands.join(", "),
                    commands.join(" +")
                )
            }
            Self::Keys => write!(
                f,
                "its user may not use keys that begin with cluster.prefix: add ~PREFIX:* to its ACL"
            ),
            Self::Unknown => write!(
                f,
                "its user may not do what is needed: allow all commands on keys that begin with cluster.prefix"
            ),
        }
    }
}

/// What an engine says within a script of a right that is missing.
const RIGHTS: [&str; 2] = ["The user executing the script", "ACL failure in script"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_not_do_is_named_whatever_the_version() {
        let commands = |name: &str| Missing::Commands(vec![name.to_owned()]);
        for (detail, missing) in [
            (
                "this user has no permissions to run the 'zadd' command",
                commands("zadd"),
            ),
            (
                "User fpush has no permissions to run the 'evalsha' command",
                commands("evalsha"),
            ),
            (
                "ACL failure in script: User fpush has no permissions to run the 'config|get' command",
                commands("config|get"),
            ),
            (
                "this user has no permissions to access one of the keys used as arguments",
                Missing::Keys,
            ),
            ("No permissions to access a key", Missing::Keys),
            (
                "The user executing the script can't run this command or subcommand",
                Missing::Unknown,
            ),
            ("run 'what nobody knows' ", Missing::Unknown),
        ] {
            assert_eq!(Missing::of(Some(detail)), missing, "{detail}");
        }
        let both = Missing::Commands(vec!["ZADD".to_owned(), "DEL".to_owned()]);
        assert!(both.to_string().contains("may not run zadd, del: add +zadd +del"));
    }
}
