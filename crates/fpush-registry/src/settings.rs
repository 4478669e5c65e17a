//! The settings block `registration`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr as _,
    time::Duration,
};

use fpush_push::{registrable, settings::Section};
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;

use crate::text::{MAX_KIND, is_sane};

/// What the block `registration` says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// `maxPerOwner`: devices of one bare JID.
    pub max_per_owner: usize,
    /// `maxDevices`: devices in all.
    pub max_devices: i64,
    /// `maxDevicesPerDomain`: devices of one registrable domain, and devices without an owner.
    pub max_devices_per_domain: i64,
    /// `trustedDomains`, and the domains of the XMPP servers that we are a component of: of these there may be as many
    /// devices as in all. Registrable domains.
    pub trusted_domains: BTreeSet<String>,
    /// `expireAfter`: devices that were neither registered nor pushed to for so long go.
    pub expire_after: Duration,
}

/// Where the devices are kept.
#[derive(Clone, PartialEq, Eq)]
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

impl RegistrySettings {
    /// Reads the keys of the registry from the block, given the names of all push modules and the component's own. Every mistake goes into the
    /// settings' report; `None` if nothing can be made of the block. Other keys, and the end of the block, are the
    /// caller's.
    pub fn read(section: &mut Section<'_>, modules: &[&str], components: &[&str]) -> Option<Self> {
        let store = read_store(section);
        let types = read_targets(section, "types", modules);
        let providers = read_targets(section, "providers", modules);
        if types.is_empty() && providers.is_empty() && !section.has("types") && !section.has("providers") {
            section.error(
                "types",
                "expected this key or providers, such as { \"fcm\": \"NAME\" } with the name of a push module: \
                 without them nothing can register",
            );
        }
        let rate_limit = section.duration_or_seconds("rateLimit", Duration::from_secs(5));
        let max_per_owner = section.integer("maxPerOwner", 1..=10_000, 32) as usize;
        let max_devices = section.integer("maxDevices", 1..=MOST_DEVICES, 2_000_000);
        let half = max_devices.div_ceil(2);
        let max_devices_per_domain = section.integer("maxDevicesPerDomain", 1..=MOST_DEVICES, half);
        let mut trusted_domains = read_domains(section, "trustedDomains");
        trusted_domains.extend(components.iter().flat_map(|name| own_domains(name)));
        let expire_after = section.duration("expireAfter", Duration::from_secs(400 * 86_400));
        if expire_after < SHORTEST_EXPIRY {
            section.error(
                "expireAfter",
                "expected at least \"1day\": an app registers when it starts",
            );
        }
        let (store, cache) = store?;
        Some(Self {
            store,
            cache,
            types,
            providers,
            rate_limit,
            max_per_owner,
            max_devices: max_devices as i64,
            max_devices_per_domain: max_devices_per_domain as i64,
            trusted_domains,
            expire_after,
        })
    }
}

/// A list of domains.
fn read_domains(section: &mut Section<'_>, key: &'static str) -> BTreeSet<String> {
    let list = match section.value(key) {
        None => return BTreeSet::new(),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let domains: Option<Vec<_>> = list;
    let domains = domains.filter(|domains| domains.iter().all(|name| is_sane(name, MAX_DOMAIN)));
    let Some(domains) = domains else {
        section.error(key, "expected a list of domains, such as [\"example.org\"]");
        return BTreeSet::new();
    };
    domains
        .into_iter()
        .map(|name| registrable(name).into_owned())
        .collect()
}

/// The registrable domains of the users of the server that has a component with this name: it is one of the server's own
/// names, or lies below it.
fn own_domains(component: &str) -> impl Iterator<Item = String> {
    let above = component.split_once('.').map(|(_, above)| above);
    [Some(component), above]
        .into_iter()
        .flatten()
        .map(|name| registrable(name).into_owned())
}

#[derive(Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres,
}

fn read_store(section: &mut Section<'_>) -> Option<(StoreSettings, bool)> {
    let mut store = section.section("store")?;
    let kind = if store.has("type") {
        let kinds = [("sqlite", Some(Kind::Sqlite)), ("postgres", Some(Kind::Postgres))];
        // Without a known type there is no telling which of the other keys are known.
        store.choice("type", &kinds, None)?
    } else {
        store.value("type");
        Kind::Sqlite
    };
    let read = match kind {
        Kind::Sqlite => {
            let path = store.string("path").map(PathBuf::from);
            let cache = store.boolean("cache", true);
            path.map(|path| (StoreSettings::Sqlite { path }, cache))
        }
        Kind::Postgres => {
            let url = read_url(&mut store);
            let cache = store.boolean("cache", false);
            url.map(|url| (StoreSettings::Postgres { url }, cache))
        }
    };
    store.finish();
    read
}

/// `url` or `urlFile`, exactly one of them.
fn read_url(store: &mut Section<'_>) -> Option<String> {
    let (key, url) = match (store.has("url"), store.has("urlFile")) {
        (true, true) => {
            store.optional_string("url");
            store.optional_string("urlFile");
            store.error("url", "expected either url or urlFile, found both");
            return None;
        }
        (false, true) => {
            store.optional_string("url");
            let file = store.string("urlFile")?;
            let path = store.path_of("urlFile");
            let line = store.report().read_secret_line(&path, file.as_ref())?;
            ("urlFile", line)
        }
        (_, false) => {
            store.optional_file("urlFile");
            ("url", store.string("url")?.to_owned())
        }
    };
    let good = is_postgres_url(&url);
    if !good {
        store.error(
            key,
            "expected a URL such as \"postgres://USER:PASSWORD@HOST/DATABASE\"; in the password percent-encode everything but \
             letters and digits, such as %23 for # and %2F for /",
        );
    }
    good.then_some(url)
}

fn is_postgres_url(url: &str) -> bool {
    (url.starts_with("postgres://") || url.starts_with("postgresql://"))
        && !is_cut_short(url)
        && PgConnectOptions::from_str(url).is_ok()
}

/// Whether a character of the password ends what is before the path: then the user would be taken for the host.
fn is_cut_short(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    let (host, behind) = rest.split_at(rest.find(['/', '#']).unwrap_or(rest.len()));
    !host.contains('@') && behind.contains('@')
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
            // Without any module the mistake is elsewhere, and said there.
            Some(module) if modules.contains(&module) || modules.is_empty() => {
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

/// More than fit into memory.
const MOST_DEVICES: u64 = 1_000_000_000;
/// Bytes of the domain of an address.
const MAX_DOMAIN: usize = 1_023;
const SHORTEST_EXPIRY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use serde_json::json;

    use super::*;

    fn read(block: &Value) -> (Option<RegistrySettings>, Vec<String>) {
        let report = Report::default();
        let all = json!({ "registration": block });
        let mut root = Section::root(all.as_object().unwrap(), &report);
        let mut section = root.section("registration").unwrap();
        let settings = RegistrySettings::read(&mut section, &["monal", "android"], &["push.example.co.uk"]);
        section.finish();
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
        assert!(settings.cache && settings.providers.is_empty());
        assert_eq!(settings.rate_limit, Duration::from_secs(5));
        assert_eq!(settings.max_per_owner, 32);
        assert_eq!(
            (settings.max_devices, settings.max_devices_per_domain),
            (2_000_000, 1_000_000)
        );
        assert_eq!(settings.trusted_domains, ["example.co.uk".to_owned()].into());
        assert_eq!(settings.expire_after, Duration::from_secs(400 * 86_400));
    }

    #[test]
    fn a_password_that_is_not_percent_encoded_is_not_taken_for_the_host() {
        for good in [
            "postgres://fpush:a%23b%2Fc@db.example/fpush",
            "postgresql://fpush:p@ss@db.example:5432/fpush",
            "postgres:///fpush?host=/run/postgresql&user=a@b",
        ] {
            assert!(is_postgres_url(good), "{good}");
        }
        for wrong in [
            "postgres://fpush:12/3@db.example/fpush",
            "postgres://fpush:12#3@db.example/fpush",
            "postgres://fpush:a?b@db.example/fpush",
        ] {
            assert!(!is_postgres_url(wrong), "{wrong}");
        }
    }

    #[test]
    fn everything_can_be_set() {
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "postgres://fpush:secret@localhost/fpush", "cache": true },
            "types": { "apns": "monal", "fcm": "android" },
            "providers": { "tigase:messenger:apns:1": "monal" },
            "rateLimit": "2s", "maxPerOwner": 5, "expireAfter": "30days",
            "maxDevices": 7, "trustedDomains": ["XMPP.Example.net", "localhost"],
        }));
        assert_eq!(problems, [""; 0]);
        let settings = settings.unwrap();
        assert!(settings.cache && !format!("{settings:?}").contains("secret@"));
        assert_eq!((settings.rate_limit.as_secs(), settings.max_per_owner), (2, 5));
        assert_eq!((settings.max_devices, settings.max_devices_per_domain), (7, 4));
        assert!(
            ["example.net", "localhost"]
                .iter()
                .all(|name| settings.trusted_domains.contains(*name))
        );
    }

    #[test]
    fn every_mistake_is_named() {
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "mysql://s3cret", "path": "x" },
            "types": { "apns": "monall", "": "android", "fcm": 1 },
            "providers": {},
            "maxDevices": 0, "trustedDomains": ["example.org", ""],
            "expireAfter": "1s",
            "storage": {},
        }));
        assert!(settings.is_none());
        let modules = "expected the name of one of the pushModules: \"monal\" or \"android\"";
        let expected = [
            "registration.store.url: expected a URL such as \"postgres://USER:PASSWORD@HOST/DATABASE\"; in the password \
             percent-encode everything but letters and digits, such as %23 for # and %2F for /"
                .to_owned(),
            "registration.store.path: this key is not known".to_owned(),
            format!("registration.types.apns: {modules}"),
            "registration.types.: expected a key of 1 to 128 characters".to_owned(),
            format!("registration.types.fcm: {modules}"),
            "registration.providers: expected at least one entry, with the name of a push module".to_owned(),
            "registration.maxDevices: expected a whole number from 1 to 1000000000, found a number that does not fit"
                .to_owned(),
            "registration.trustedDomains: expected a list of domains, such as [\"example.org\"]".to_owned(),
            "registration.expireAfter: expected at least \"1day\": an app registers when it starts"
                .to_owned(),
            "registration.storage: this key is not known".to_owned(),
        ];
        assert_eq!(problems, expected);
    }
}
