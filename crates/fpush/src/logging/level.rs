//! How much is logged: `RUST_LOG`, or else `logging.level` of the settings.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

use fpush_push::settings::nearest;
use tracing::{
    Level as TracingLevel, Metadata, callsite::rebuild_interest_cache, level_filters::LevelFilter,
};
use tracing_subscriber::filter::Targets;

/// A level, or levels by part of the program, such as `info,fpush_apns=debug`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Level {
    text: String,
    targets: Targets,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // A bare part would be everything from that part; a misspelt level would switch off all the rest.
            if !part.contains('=') && part.parse::<LevelFilter>().is_err() && !part.starts_with(OURS) {
                let hint = nearest(part, LEVELS.into_iter());
                let hint = hint.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
                return Err(format!("\"{part}\" is not a level{hint}"));
            }
        }
        let targets = text.parse::<Targets>().map_err(|e| e.to_string())?;
        let text = text.to_owned();
        Ok(Self { text, targets })
    }
}

impl Level {
    /// The first part of the program that it names and that never logs, with what may be meant.
    pub(crate) fn unknown(&self) -> Option<String> {
        let named = self
            .targets
            .iter()
            .map(|(target, _)| target.split("::").next().unwrap_or(target));
        let mut unknown = named.filter(|part| !PARTS.contains(part) && !OTHERS.contains(part));
        let part = unknown.next()?;
        let with_name = format!("{OURS}_{part}");
        let near = PARTS.into_iter().find(|known| *known == with_name);
        let near = near.or_else(|| nearest(part, PARTS.into_iter().chain(OTHERS)));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
        Some(format!("no part of fpush that logs is called \"{part}\"{hint}"))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self {
            text: "info".to_owned(),
            targets: Targets::new().with_default(LevelFilter::INFO),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The level in force, which can be changed while the log is in use.
#[derive(Clone, Debug)]
pub(super) struct InForce(Arc<RwLock<Level>>);

impl InForce {
    pub(super) fn new(level: Level) -> Self {
        Self(Arc::new(RwLock::new(level)))
    }

    /// Changes the level. Whether it is another one now.
    pub(super) fn set(&self, level: Level) -> bool {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *now == level {
            return false;
        }
        *now = level;
        // What each place of the program may log was decided by the old one. It asks us, without the lock.
        drop(now);
        rebuild_interest_cache();
        true
    }

    pub(super) fn wants(&self, target: &str, level: &TracingLevel) -> bool {
        self.read(|targets| targets.would_enable(target, level))
    }

    pub(super) fn wants_place(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata.target(), metadata.level())
    }

    /// The most that any part of the program may log.
    pub(super) fn most(&self) -> LevelFilter {
        self.read(|targets| {
            let parts = targets.iter().map(|(_, level)| level);
            parts
                .chain(targets.default_level())
                .max()
                .unwrap_or(LevelFilter::OFF)
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Targets) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner).targets)
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// What the targets of our own crates begin with.
pub(super) const OURS: &str = "fpush";
/// Our crates that log.
const PARTS: [&str; 9] = [
    "fpush",
    "fpush_apns",
    "fpush_client",
    "fpush_cluster",
    "fpush_component",
    "fpush_driver",
    "fpush_fcm",
    "fpush_http",
    "fpush_registry",
];
/// Crates of others that log.
const OTHERS: [&str; 10] = [
    "h2",
    "hyper",
    "hyper_util",
    "redis",
    "rustls",
    "sqlx",
    "sqlx_core",
    "sqlx_postgres",
    "sqlx_sqlite",
    "tracing",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_rust_log() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "info,fpush_apns=debug",
            "fpush_apns",
            "warn, h2=error",
        ] {
            assert_eq!(good.parse::<Level>().unwrap().to_string(), good);
        }
        for (bad, hint) in [
            ("debgu", "\"debgu\" is not a level; did you mean \"debug\"?"),
            ("verbose", "\"verbose\" is not a level"),
            ("info,quiet", "\"quiet\" is not a level"),
        ] {
            assert_eq!(bad.parse::<Level>().unwrap_err(), hint);
        }
        "fpush=loud".parse::<Level>().unwrap_err();
    }

    #[test]
    fn parts_that_never_log_are_named() {
        let unknown = |level: &str| level.parse::<Level>().unwrap().unknown();
        for good in [
            "info",
            "info,fpush::daemon::reload=debug,fpush_apns=trace",
            "h2=error",
        ] {
            assert_eq!(unknown(good), None);
        }
        for (bad, expected) in [
            (
                "info,fpush_apn=debug",
                "\"fpush_apn\"; did you mean \"fpush_apns\"?",
            ),
            ("info,apns=debug", "\"apns\"; did you mean \"fpush_apns\"?"),
            ("info,prosody=debug", "\"prosody\""),
        ] {
            let said = unknown(bad).unwrap();
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[test]
    fn the_parts_are_those_that_use_tracing() {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut logging: Vec<_> = std::fs::read_dir(crates)
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml")).ok()?;
                let (_, dependencies) = manifest.split_once("[dependencies]")?;
                let (dependencies, _) = dependencies.split_once("\n[").unwrap_or((dependencies, ""));
                let logs = dependencies.lines().any(|line| line.starts_with("tracing"));
                logs.then(|| entry.file_name().to_str().unwrap().replace('-', "_"))
            })
            .collect();
        logging.sort();
        assert_eq!(logging, PARTS);
    }
}
