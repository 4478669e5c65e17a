//! The settings block `registration`.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr as _, time::Duration};

use fpush_push::settings::Section;
use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;

use crate::device::MAX_KIND;

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
    /// New devices of one address in a day, over HTTP. That is said in the block of the HTTP listener, which is not
    /// read here.
    pub new_per_address: u32,
    /// `expireAfter`: devices that were neither registered nor pushed to for so long go.
    pub expire_after: Duration,
    /// Whether a known node can be registered again or removed over HTTP only with its secret. That is said in the
    /// block of the HTTP listener, which is not read here.
    pub require_secret: bool,
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
    /// Reads the keys of the registry from the block, given the names of all push modules. Every mistake goes into the
    /// settings' report; `None` if nothing can be made of the block. Other keys, and the end of the block, are the
    /// caller's.
    pub fn read(section: &mut Section<'_>, modules: &[&str]) -> Option<Self> {
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
            new_per_address: 0,
            expire_after,
            require_secret: false,
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
        let settings = RegistrySettings::read(&mut section, &["monal", "android"]);
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
        assert!(settings.cache && !settings.require_secret && settings.providers.is_empty());
        assert_eq!(settings.rate_limit, Duration::from_secs(5));
        assert_eq!(settings.max_per_owner, 32);
        assert_eq!(settings.expire_after, Duration::from_secs(400 * 86_400));
    }

    #[test]
    fn everything_can_be_set() {
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "postgres://fpush:secret@localhost/fpush", "cache": true },
            "types": { "apns": "monal", "fcm": "android" },
            "providers": { "tigase:messenger:apns:1": "monal" },
            "rateLimit": "2s", "maxPerOwner": 5, "expireAfter": "30days",
        }));
        assert_eq!(problems, [""; 0]);
        let settings = settings.unwrap();
        assert!(settings.cache && !format!("{settings:?}").contains("secret@"));
        assert_eq!((settings.rate_limit.as_secs(), settings.max_per_owner), (2, 5));
    }

    #[test]
    fn every_mistake_is_named() {
        let (settings, problems) = read(&json!({
            "store": { "type": "postgres", "url": "mysql://s3cret", "path": "x" },
            "types": { "apns": "monall", "": "android", "fcm": 1 },
            "providers": {},
            "expireAfter": "1s",
            "storage": {},
        }));
        assert!(settings.is_none());
        let modules = "expected the name of one of the pushModules: \"monal\" or \"android\"";
        let expected = [
            "registration.store.url: expected a URL such as \"postgres://USER:PASSWORD@HOST/DATABASE\""
                .to_owned(),
            "registration.store.path: this key is not known".to_owned(),
            format!("registration.types.apns: {modules}"),
            "registration.types.: expected a key of 1 to 128 characters".to_owned(),
            format!("registration.types.fcm: {modules}"),
            "registration.providers: expected at least one entry, with the name of a push module".to_owned(),
            "registration.expireAfter: expected at least \"1day\": an app registers when it starts"
                .to_owned(),
            "registration.storage: this key is not known".to_owned(),
        ];
        assert_eq!(problems, expected);
    }
}
