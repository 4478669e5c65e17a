//! The settings block `registration`.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr as _,
    time::Duration,
};

use fpush_push::settings::Section;
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;

use crate::device::MAX_KIND;

/// What the block `registration` says, checked.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Where the devices are kept.
    pub store: StoreSettings,
    /// `store.cache`: whether all devices are in memory, too. What only looks once, such as the command line, may
    /// switch it off.
    pub cache: bool,
    /// `types`: push type of the first two dialects -> push module.
    pub types: BTreeMap<String, String>,
    /// `providers`: provider id of the third dialect -> push module.
    pub providers: BTreeMap<String, String>,
    /// `rateLimit`: between two pushes of one class to a device.
    pub rate_limit: Duration,
    /// `maxPerOwner`: devices of one bare JID; over HTTP new devices of one address in a day.
    pub max_per_owner: usize,
    /// `expireAfter`: devices that were neither registered nor pushed to for so long go.
    pub expire_after: Duration,
    /// `http`: `None` if there is to be no listener.
    pub http: Option<HttpSettings>,
}

/// Where the devices are kept.
#[derive(Clone)]
pub enum StoreSettings {
    /// One file of SQLite, made where there is none.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A database of a PostgreSQL server, which several instances may share.
    Postgres {
        /// It holds a password, usually.
        url: String,
    },
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => f.debug_struct("Sqlite").field("path", path).finish(),
            Self::Postgres { .. } => f.debug_struct("Postgres").finish_non_exhaustive(),
        }
    }
}

/// What `registration.http` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether the HTML forms and the settings pages are open.
    pub debugging: bool,
    /// Whether a known node can be registered again or removed only with its secret.
    pub require_secret: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// TLS, if the listener speaks it.
    pub tls: Option<TlsFiles>,
}

/// The PEM files for TLS. They could be read when the settings were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what it was issued by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A network of addresses: `10.0.0.0/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads an address, or an address and the number of its leading bits that count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok()?,
            Some(_) => return None,
            None => longest,
        };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// Whether an address is in the network. An IPv4 address in IPv6's clothes is an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl RegistrySettings {
    /// Reads the block, given the names of all push modules. Every mistake goes into the settings' report; `None` if
    /// nothing can be made of the block.
    pub fn read(mut section: Section<'_>, modules: &[&str]) -> Option<Self> {
        let store = read_store(&mut section);
        let types = read_targets(&mut section, "types", modules);
        let providers = read_targets(&mut section, "providers", modules);
        if types.is_empty() && providers.is_empty() && !section.has("types") && !section.has("providers") {
            section.error(
                "types",
                "expected this key or providers, such as { \"fcm\": \"NAME\" } with the name of a push module: \
                 without them nothing can register",
            );
        }
        let rate_limit = section.duration_or_seconds("rateLimit", Duration::from_secs(5));
        let max_per_owner = section.integer("maxPerOwner", 1..=10_000, 32) as usize;
        let expire_after = section.duration("expireAfter", Duration::from_secs(400 * 86_400));
        if expire_after < SHORTEST_EXPIRY {
            section.error(
                "expireAfter",
                "expected at least \"1day\": an app registers when it starts",
            );
        }
        let http = if section.has("http") {
            section.section("http").and_then(read_http)
        } else {
            section.value("http");
            None
        };
        section.finish();
        let (store, cache) = store?;
        Some(Self {
            store,
            cache,
            types,
            providers,
            rate_limit,
            max_per_owner,
            expire_after,
            http,
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres,
}

fn read_store(section: &mut Section<'_>) -> Option<(StoreSettings, bool)> {
    let mut store = section.section("store")?;
    let kind = store.choice(
        "type",
        &[("sqlite", Kind::Sqlite), ("postgres", Kind::Postgres)],
        Kind::Sqlite,
    );
    let read = match kind {
        Kind::Sqlite => {
            let path = store.string("path").map(PathBuf::from);
            let cache = store.boolean("cache", true);
            path.map(|path| (StoreSettings::Sqlite { path }, cache))
        }
        Kind::Postgres => {
            let url = store.string("url").filter(|url| {
                let good = is_postgres_url(url);
                if !good {
                    store.error(
                        "url",
                        "expected a URL such as \"postgres://USER:PASSWORD@HOST/DATABASE\"",
                    );
                }
                good
            });
            let cache = store.boolean("cache", false);
            url.map(|url| (StoreSettings::Postgres { url: url.to_owned() }, cache))
        }
    };
    store.finish();
    read
}

fn is_postgres_url(url: &str) -> bool {
    (url.starts_with("postgres://") || url.starts_with("postgresql://"))
        && PgConnectOptions::from_str(url).is_ok()
}

/// An object from what clients say to the name of a push module.
fn read_targets(section: &mut Section<'_>, key: &'static str, modules: &[&str]) -> BTreeMap<String, String> {
    let object = match section.value(key) {
        None => return BTreeMap::new(),
        Some(Value::Object(object)) => object,
        Some(_) => {
            section.error(
                key,
                "expected an object, such as { \"fcm\": \"NAME\" } with the name of a push module",
            );
            return BTreeMap::new();
        }
    };
    if object.is_empty() {
        section.error(key, "expected at least one entry, with the name of a push module");
    }
    targets(section, key, object, modules)
}

fn targets(
    section: &Section<'_>,
    key: &str,
    object: &Map<String, Value>,
    modules: &[&str],
) -> BTreeMap<String, String> {
    let mut targets = BTreeMap::new();
    for (name, module) in object {
        let place = format!("{key}.{name}");
        if name.is_empty() || name.len() > MAX_KIND || name.chars().any(char::is_control) {
            section.error(
                &place,
                format_args!("expected a key of 1 to {MAX_KIND} characters"),
            );
        }
        match module.as_str() {
            Some(module) if modules.contains(&module) => {
                targets.insert(name.clone(), module.to_owned());
            }
            _ => {
                let names: Vec<_> = modules.iter().map(|name| format!("\"{name}\"")).collect();
                section.error(
                    &place,
                    format_args!(
                        "expected the name of one of the pushModules: {}",
                        names.join(" or ")
                    ),
                );
            }
        }
    }
    targets
}

fn read_http(mut http: Section<'_>) -> Option<HttpSettings> {
    let listen = http.string("listen").and_then(|listen| {
        let parsed = listen.parse().ok();
        if parsed.is_none() {
            http.error(
                "listen",
                "expected an address and a port, such as \"127.0.0.1:8280\" or \"[::1]:8280\"",
            );
        }
        parsed
    });
    let debugging = http.boolean("debugging", false);
    let require_secret = http.boolean("requireSecret", false);
    let trusted_proxies = read_proxies(&mut http);
    let tls = match (http.has("certFilePath"), http.has("keyFilePath")) {
        (true, true) => read_tls(&mut http),
        (false, false) => {
            http.optional_file("certFilePath");
            http.optional_file("keyFilePath");
            None
        }
        (certificate, _) => {
            http.optional_file("certFilePath");
            http.optional_file("keyFilePath");
            let (found, missing) = if certificate {
                ("certFilePath", "keyFilePath")
            } else {
                ("keyFilePath", "certFilePath")
            };
            http.error(missing, format_args!("this key is missing; {found} needs it"));
            None
        }
    };
    http.finish();
    Some(HttpSettings {
        listen: listen?,
        debugging,
        require_secret,
        trusted_proxies,
        tls,
    })
}

fn read_tls(http: &mut Section<'_>) -> Option<TlsFiles> {
    let certificate = http.string("certFilePath").map(PathBuf::from);
    let readable = certificate
        .as_ref()
        .and_then(|file| http.report().read_file(&http.path_of("certFilePath"), file));
    let key = http.secret_file("keyFilePath");
    let path = http.optional_file("keyFilePath");
    (readable.is_some() && key.is_some()).then_some(())?;
    Some(TlsFiles {
        certificate: certificate?,
        key: path?,
    })
}

fn read_proxies(http: &mut Section<'_>) -> Vec<Network> {
    let list = match http.value("trustedProxies") {
        None => return Vec::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| entry.as_str().and_then(Network::parse))
            .collect(),
        Some(_) => None,
    };
    list.unwrap_or_else(|| {
        http.error(
            "trustedProxies",
            "expected a list of addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\"]",
        );
        Vec::new()
    })
}

const SHORTEST_EXPIRY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use fpush_testkit::TempDir;
    use serde_json::json;

    use super::*;

    fn read(block: &Value) -> (Option<RegistrySettings>, Vec<String>) {
        let report = Report::default();
        let all = json!({ "registration": block });
        let mut root = Section::root(all.as_object().unwrap(), &report);
        let section = root.section("registration").unwrap();
        let settings = RegistrySettings::read(section, &["monal", "android"]);
        let problems = report.into_problems().iter().map(ToString::to_string).collect();
        (settings, problems)
    }

    #[test]
    fn the_least_block_has_the_seeds_defaults() {
        let (settings, problems) =
            read(&json!({ "store": { "path": "d.db" }, "types": { "fcm": "android" } }));
        assert_eq!(problems, [""; 0]);
        let settings = settings.unwrap();
        assert!(matches!(&settings.store, StoreSettings::Sqlite { path } if path.as_os_str() == "d.db"));
        assert!(settings.cache && settings.http.is_none() && settings.providers.is_empty());
        assert_eq!(settings.rate_limit, Duration::from_secs(5));
        assert_eq!(settings.max_per_owner, 32);
        assert_eq!(settings.expire_after, Duration::from_secs(400 * 86_400));
    }

    #[test]
    fn everything_can_be_set() {
        let folder = TempDir::new();
        let (certificate, key) = (folder.write("cert.pem", ""), folder.write("key.pem", ""));
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "postgres://fpush:secret@localhost/fpush", "cache": true },
            "types": { "apns": "monal", "fcm": "android" },
            "providers": { "tigase:messenger:apns:1": "monal" },
            "rateLimit": "2s", "maxPerOwner": 5, "expireAfter": "30days",
            "http": {
                "listen": "[::1]:8280", "debugging": true, "requireSecret": true,
                "trustedProxies": ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"],
                "certFilePath": certificate, "keyFilePath": key,
            },
        }));
        let problems: Vec<_> = problems
            .iter()
            .filter(|problem| !problem.contains("chmod"))
            .collect();
        assert!(problems.is_empty(), "{problems:?}");
        let settings = settings.unwrap();
        assert!(settings.cache && !format!("{settings:?}").contains("secret@"));
        let http = settings.http.unwrap();
        assert_eq!(http.tls, Some(TlsFiles { certificate, key }));
        assert!(http.debugging && http.require_secret && http.trusted_proxies.len() == 3);
    }

    #[test]
    fn every_mistake_is_named() {
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "mysql://s3cret", "path": "x" },
            "types": { "apns": "monall", "": "android", "fcm": 1 },
            "providers": {},
            "expireAfter": "1s",
            "http": { "listen": "localhost", "trustedProxies": ["10.0.0.0/33"], "certFilePath": "c.pem" },
        }));
        assert!(settings.is_none());
        let modules = "expected the name of one of the pushModules: \"monal\" or \"android\"";
        let expected = [
            "registration.store.url: expected a URL such as \"postgres://USER:PASSWORD@HOST/DATABASE\"".to_owned(),
            "registration.store.path: this key is not known".to_owned(),
            format!("registration.types.apns: {modules}"),
            "registration.types.: expected a key of 1 to 128 characters".to_owned(),
            format!("registration.types.fcm: {modules}"),
            "registration.providers: expected at least one entry, with the name of a push module".to_owned(),
            "registration.expireAfter: expected at least \"1day\": an app registers when it starts".to_owned(),
            "registration.http.listen: expected an address and a port, such as \"127.0.0.1:8280\" or \"[::1]:8280\""
                .to_owned(),
            "registration.http.trustedProxies: expected a list of addresses and networks, such as [\"127.0.0.1\", \
             \"10.0.0.0/8\"]"
                .to_owned(),
            "registration.http.keyFilePath: this key is missing; certFilePath needs it".to_owned(),
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn networks_contain_addresses() {
        let contains = |network: &str, address: &str| {
            Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.200.3.4") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("::/0", "2001:db9::1"));
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "host",
            "10.0.0.0/8/8",
        ] {
            assert!(Network::parse(wrong).is_none(), "{wrong}");
        }
    }
}
