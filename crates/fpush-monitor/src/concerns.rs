//! What somebody should do something about.

use std::time::{Duration, SystemTime};

use fpush_push::{CredentialKind, TroubleKind};

use crate::{
    Severity, Status,
    gauges::{is_up, seconds_from},
};

/// Something that is not as it should be.
#[derive(Debug, PartialEq)]
pub(crate) struct Concern {
    pub(crate) severity: Severity,
    /// The part of the program or the push module.
    pub(crate) about: String,
    /// What it is, and what to do.
    pub(crate) words: String,
}

/// Everything that is not as it should be, the worst first.
pub(crate) fn concerns(status: &Status, wall: SystemTime) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let mut add = |severity, about: &str, words: String| {
        let about = about.to_owned();
        // A credential and its module may say the same.
        if !concerns
            .iter()
            .any(|known: &Concern| known.about == about && known.words == words)
        {
            concerns.push(Concern {
                severity,
                about,
                words,
            });
        }
    };
    if let Some(reason) = &status.link.down {
        add(Severity::Error, "link", reason.clone());
    }
    for module in &status.modules {
        let (name, backend) = (&*module.status.name, &module.status.backend);
        if let Some(trouble) = &module.status.trouble {
            let severity = if is_up(module) {
                Severity::Warning
            } else {
                Severity::Error
            };
            add(severity, name, trouble.words.clone());
        }
        if let Some(words) = backend.clock_trouble() {
            add(Severity::Warning, name, words);
        }
        for credential in &backend.credentials {
            if let Some(words) = &credential.trouble {
                add(Severity::Warning, name, words.clone().into_owned());
            }
            // The others are renewed before they end, and that an end is near may already have been said.
            let said =
                module.status.trouble.as_ref().map(|trouble| trouble.kind) == Some(TroubleKind::Expiring);
            let end = credential
                .expires
                .filter(|_| !said && credential.kind == CredentialKind::Certificate);
            if let Some((severity, when)) = end.and_then(|end| ending(end, wall)) {
                add(severity, name, format!("its client certificate {when}; renew it"));
            }
        }
    }
    for certificate in &status.certificates {
        if let Some((severity, when)) = ending(certificate.expires, wall) {
            add(
                severity,
                &certificate.name,
                format!("the certificate {when}; renew it"),
            );
        }
    }
    if let Some(words) = &status.state_trouble {
        add(Severity::Error, "state directory", words.clone());
    }
    if let Some(reason) = status.reload.as_ref().and_then(|reload| reload.refused.as_ref()) {
        let words =
            format!("the last reload was refused, and the settings from before it are in force: {reason}");
        add(Severity::Warning, "settings", words);
    }
    concerns.sort_by_key(|concern| match concern.severity {
        Severity::Error => 0,
        Severity::Warning => 1,
    });
    concerns
}

/// Why fpush does not do what it is there for, each in one line; none if it is ready.
pub(crate) fn unready(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(reason) = &status.link.down {
        reasons.push(format!("link down: {reason}"));
    }
    for module in &status.modules {
        let trouble = module.status.trouble.as_ref();
        if let Some(trouble) = trouble.filter(|trouble| trouble.kind == TroubleKind::Authentication) {
            reasons.push(format!("module {}: {}", module.status.name, trouble.words));
        }
    }
    for reason in &mut reasons {
        *reason = reason.replace(['\n', '\r'], " ");
    }
    reasons
}

/// How bad the end of a certificate is, if it is near enough to be said.
fn ending(end: SystemTime, wall: SystemTime) -> Option<(Severity, String)> {
    let seconds = seconds_from(wall, end);
    let days = (seconds.abs() / DAY.as_secs_f64()) as u64;
    let unit = if days == 1 { "day" } else { "days" };
    let limit = |days: u32| (DAY * days).as_secs_f64();
    if seconds <= 0.0 {
        Some((Severity::Error, format!("ended {days} {unit} ago")))
    } else if seconds < limit(SOON) {
        let severity = if seconds < limit(VERY_SOON) {
            Severity::Error
        } else {
            Severity::Warning
        };
        Some((severity, format!("ends in {days} {unit}")))
    } else {
        None
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Days before an end at which it is said, and at which it is an error.
const SOON: u32 = 30;
const VERY_SOON: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_a_month_before() {
        let wall = SystemTime::UNIX_EPOCH + DAY * 1_000;
        assert_eq!(ending(wall + DAY * 30, wall), None);
        let soon = ending(wall + DAY * 29, wall).unwrap();
        assert_eq!(soon, (Severity::Warning, "ends in 29 days".to_owned()));
        let very_soon = ending(wall + DAY * 3 / 2, wall).unwrap();
        assert_eq!(very_soon, (Severity::Error, "ends in 1 day".to_owned()));
        assert_eq!(ending(wall - DAY * 4, wall).unwrap().1, "ended 4 days ago");
    }
}
