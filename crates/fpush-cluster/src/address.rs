//! Where the engine is, from a URL.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;

/// Where the engine is, and who we are there. It holds a password, usually.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// The password of the sentinels, which have one of their own.
    pub(crate) sentinel_password: Option<String>,
    pub(crate) database: i64,
}

/// What kind of engine it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    One(Host),
    Socket(PathBuf),
    Sentinel { sentinels: Vec<Host>, service: String },
    Cluster(Vec<Host>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// What is wrong with a URL, as what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(
        "expected a URL such as \"redis://USER:PASSWORD@HOST:6379\", \"rediss://…\" for TLS, \
         \"redis-sentinel://PASSWORD@HOST:26379,HOST:26379/SERVICE\", \"redis-cluster://HOST,HOST\" or \"unix:///PATH\""
    )]
    Form,
    #[error("expected a host and a port from 1 to 65535, such as \"redis.example.org:6379\"")]
    Host,
    #[error("expected one host; several are for \"redis-sentinel://\" and \"redis-cluster://\"")]
    OneHost,
    #[error(
        "expected the name of the service after the hosts, such as \"redis-sentinel://HOST:26379/mymaster\""
    )]
    Service,
    #[error(
        "expected no \"@\" in the name of the service; if there is a slash in the password, encode it as %2F"
    )]
    ServicePassword,
    #[error("expected a number of a database after the host, such as \"/0\", or nothing")]
    Database,
    #[error("expected no database: a cluster has one")]
    ClusterDatabase,
    #[error(
        "expected no \"?\" but \"?sentinelPassword=…\" of a \"redis-sentinel://\" URL; encode one in a password as %3F"
    )]
    Query,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Form)?;
        let (engine, shape) = scheme.split_once('-').unwrap_or((scheme, ""));
        let tls = match engine {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" if shape.is_empty() => false,
            _ => return Err(AddressError::Form),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        // A password may hold anything but a slash.
        let (before, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        let (credentials, hosts) = match before.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, before),
        };
        let (user, password) = match credentials.map(|both| both.split_once(':').unwrap_or(("", both))) {
            Some((user, password)) => (decoded(user), decoded(password)),
            None => (None, None),
        };
        let after = path.map_or("", |path| &path[1..]);
        let sentinel_password = match query {
            None => None,
            Some(query) if shape == "sentinel" => match query.split_once('=') {
                Some(("sentinelPassword", password)) => decoded(password),
                _ => return Err(AddressError::Query),
            },
            Some(_) => return Err(AddressError::Query),
        };
        let (kind, database) = match (engine, shape) {
            ("unix", _) => match path {
                Some(path) if hosts.is_empty() && path.len() > 1 => (Kind::Socket(path.into()), 0),
                _ => return Err(AddressError::Form),
            },
            (_, "") => {
                let mut hosts = parse_hosts(hosts, 6379)?;
                let host = hosts.pop().filter(|_| hosts.is_empty());
                (Kind::One(host.ok_or(AddressError::OneHost)?), number(after)?)
            }
            (_, "sentinel") => {
                let sentinels = parse_hosts(hosts, 26379)?;
                let (service, database) = after.split_once('/').unwrap_or((after, ""));
                if service.contains('@') {
                    return Err(AddressError::ServicePassword);
                }
                let service = decoded(service).ok_or(AddressError::Service)?;
                (Kind::Sentinel { sentinels, service }, number(database)?)
            }
            (_, "cluster") if after.is_empty() => (Kind::Cluster(parse_hosts(hosts, 6379)?), 0),
            (_, "cluster") => return Err(AddressError::ClusterDatabase),
            _ => return Err(AddressError::Form),
        };
        Ok(Self {
            kind,
            tls,
            user,
            password,
            sentinel_password,
            database,
        })
    }
}

/// Without who we are there.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[Host]| {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            hosts.join(", ")
        };
        match &self.kind {
            Kind::One(host) => write!(f, "{host}"),
            Kind::Socket(path) => write!(f, "{}", path.display()),
            Kind::Sentinel { sentinels, service } => {
                write!(f, "{service} of the sentinels {}", list(sentinels))
            }
            Kind::Cluster(hosts) => write!(f, "the cluster of {}", list(hosts)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') {
            write!(f, "[{name}]:{port}")
        } else {
            write!(f, "{name}:{port}")
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

fn number(text: &str) -> Result<i64, AddressError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .ok()
        .filter(|number| *number >= 0)
        .ok_or(AddressError::Database)
}

fn parse_hosts(text: &str, port: u16) -> Result<Vec<Host>, AddressError> {
    text.split(',')
        .map(|host| parse_host(host.trim(), port).ok_or(AddressError::Host))
        .collect()
}

fn parse_host(text: &str, usual: u16) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (
                name,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':')?)
                },
            )
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => usual,
    };
    let is_name = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
    is_name.then(|| Host {
        name: name.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    #[test]
    fn a_url_names_one_engine_sentinels_or_a_cluster() {
        let kind = |url: &str| Address::parse(url).unwrap().kind;
        assert_eq!(kind("redis://a"), Kind::One(host("a", 6379)));
        assert_eq!(kind("valkeys://u:p@[::1]:7000/3"), Kind::One(host("::1", 7000)));
        assert_eq!(
            kind("unix:///run/redis.sock"),
            Kind::Socket("/run/redis.sock".into())
        );
        assert_eq!(
            kind("rediss-sentinel://p@a,b:1/main/2?sentinelPassword=s"),
            Kind::Sentinel {
                sentinels: vec![host("a", 26379), host("b", 1)],
                service: "main".to_owned(),
            }
        );
        assert_eq!(
            kind("valkey-cluster://u:p@a:1,b"),
            Kind::Cluster(vec![host("a", 1), host("b", 6379)])
        );
    }

    #[test]
    fn who_we_are_there_is_never_shown() {
        let address = Address::parse("rediss://us%40er:p%2Fw:@host:1/2").unwrap();
        assert_eq!(address.user.as_deref(), Some("us@er"));
        assert_eq!(address.password.as_deref(), Some("p/w:"));
        assert_eq!((address.tls, address.database), (true, 2));
        assert_eq!(address.to_string(), "host:1");
        assert!(!format!("{address:?}").contains("p/w"));
        let only = Address::parse("redis://secret@host").unwrap();
        assert_eq!((only.user, only.password.as_deref()), (None, Some("secret")));
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_what_was_expected() {
        for (url, error) in [
            ("host:6379", AddressError::Form),
            ("http://host", AddressError::Form),
            ("unix-cluster:///a", AddressError::Form),
            ("unix://host/a", AddressError::Form),
            ("redis-ring://a", AddressError::Form),
            ("redis://", AddressError::Host),
            ("redis://a:0", AddressError::Host),
            ("redis://a:b", AddressError::Host),
            ("redis://[::1", AddressError::Host),
            ("redis://a,b", AddressError::OneHost),
            ("redis://a/x", AddressError::Database),
            ("redis-sentinel://a", AddressError::Service),
            ("redis-cluster://a/1", AddressError::ClusterDatabase),
            // A slash in a password, of which nothing is to be shown.
            ("redis-sentinel://pw/x@h", AddressError::ServicePassword),
            ("redis-sentinel://u:p/x@h:1/main", AddressError::Host),
            ("redis-sentinel://p/x@h:1/main", AddressError::ServicePassword),
            ("redis://a?x=1", AddressError::Query),
        ] {
            assert_eq!(Address::parse(url), Err(error), "{url}");
        }
    }
}
