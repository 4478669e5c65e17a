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
    Permission,
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
    /// It gave an answer that nobody knows: its code, such as `ERR`.
    Other(String),
}

impl Trouble {
    pub(crate) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Password,
            ErrorKind::MasterNameNotFoundBySentinel => Self::Service,
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::NoPerm => Self::Permission,
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
            _ => Self::Other("no answer that is known".to_owned()),
        }
    }

    /// By the code that the engine itself gave. The rest of what it said may hold keys.
    fn of_code(error: &RedisError) -> Self {
        match error.code() {
            Some("WRONGPASS" | "NOAUTH") => Self::Password,
            Some("OOM" | "MISCONF") => Self::Full,
            Some("NOREPLICAS" | "BUSY" | "UNBLOCKED") => Self::Busy,
            // A password where none is wanted.
            Some("ERR") if error.detail().is_some_and(|detail| detail.contains("AUTH")) => Self::Password,
            Some(code) if code.len() <= 20 && code.chars().all(|c| c.is_ascii_uppercase()) => {
                Self::Other(code.to_owned())
            }
            Some(_) | None => Self::Other("no answer that is known".to_owned()),
        }
    }

    /// A word for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Slow => "slow",
            Self::Password => "password",
            Self::Permission => "permission",
            Self::Full => "full",
            Self::Replica => "replica",
            Self::Busy => "busy",
            Self::Version(_) => "version",
            Self::Service => "service",
            Self::Other(_) => "other",
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
            Self::Password => write!(f, "it refuses our password, or wants one: correct cluster.url"),
            Self::Permission => write!(
                f,
                "its user may not do what is needed: allow all commands on keys that begin with cluster.prefix"
            ),
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
            Self::Other(code) => write!(f, "it answered {code}; its log may say more"),
        }
    }
}
