//! Devices of kinds that the settings do not have: their publishes are answered `wait`, because the devices live.

use std::fmt;

use crate::{device::Dialect, targets::Targets};

/// Registered devices of a push type, or a provider id, that the settings do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strays {
    dialect: Dialect,
    kind: String,
    devices: u64,
}

/// What is wrong and what to do.
impl fmt::Display for Strays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            dialect,
            kind,
            devices,
        } = self;
        let (what, key) = match dialect {
            Dialect::Seed | Dialect::P2 => ("push type", "types"),
            Dialect::Tigase => ("provider id", "providers"),
        };
        write!(
            f,
            "registered devices have the {what} {kind:?}, which registration.{key} does not have ({devices} devices): their \
             publishes are answered wait; add it there, with the push module that sends to them"
        )
    }
}

impl Strays {
    /// Those of some kinds that the settings do not have, each once; `counted` are the devices by dialect and kind.
    pub(crate) fn among(counted: Vec<(String, String, i64)>, targets: &Targets) -> Vec<Self> {
        let mut all = Vec::<Self>::new();
        for (dialect, kind, devices) in counted {
            let Some(dialect) = Dialect::from_name(&dialect) else {
                continue;
            };
            if targets.module(dialect, &kind).is_some() {
                continue;
            }
            let devices = devices.unsigned_abs();
            let is_same = |known: &&mut Self| {
                known.kind == kind && (known.dialect == Dialect::Tigase) == (dialect == Dialect::Tigase)
            };
            match all.iter_mut().find(is_same) {
                Some(known) => known.devices += devices,
                None => all.push(Self {
                    dialect,
                    kind,
                    devices,
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_the_settings_do_not_have_are_counted_over_dialects() {
        let entry = |kind: &str| [(kind.to_owned(), "m".to_owned())].into();
        let targets = Targets::new(entry("apns"), entry("tigase:1"));
        let row =
            |dialect: Dialect, kind: &str, devices| (dialect.name().to_owned(), kind.to_owned(), devices);
        let strays = Strays::among(
            vec![
                row(Dialect::Seed, "apns", 7),
                row(Dialect::Seed, "fcm", 3),
                row(Dialect::P2, "fcm", 1),
                row(Dialect::Tigase, "tigase:1", 7),
                row(Dialect::Tigase, "apns", 2),
                ("of a later version".to_owned(), "x".to_owned(), 1),
            ],
            &targets,
        );
        let said: Vec<_> = strays.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("push type \"fcm\", which registration.types does not have (4 devices)"),
            "{said:?}"
        );
        assert!(
            said[1].contains("provider id \"apns\", which registration.providers does not have (2 devices)"),
            "{said:?}"
        );
    }
}
