//! What somebody should do something about.

use std::time::{Duration, SystemTime};

use fpush_push::{Credential, CredentialKind, OutagePhase, OutageStatus, TroubleKind};

use crate::{
    RegistryStatus, Severity, Status,
    gauges::{is_up, seconds_from},
};

/// Something that is not as it should be.
#[derive(Debug, PartialEq)]
pub(crate) struct Concern {
    pub(crate) severity: Severity,
    /// The part of the program or the push module.
    pub(crate) about: String,
    /// What it is, and what to do.
    pub(crate) message: String,
}

/// Everything that is not as it should be, the worst first.
pub(crate) fn concerns(status: &Status, wall: SystemTime) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let mut add = |severity, about: &str, message: String| {
        let about = about.to_owned();
        // A credential and its module may say the same.
        if !concerns
            .iter()
            .any(|known: &Concern| known.about == about && known.message == message)
        {
            concerns.push(Concern {
                severity,
                about,
                message,
            });
        }
    };
    for (link, about, reason) in status.links_down() {
        let severity = if status.has_stand_in(link) {
            Severity::Warning
        } else {
            Severity::Error
        };
        add(severity, &about, reason.to_owned());
    }
    for module in &status.modules {
        let (name, backend) = (&*module.status.name, &module.status.backend);
        let trouble = module.status.trouble.as_ref();
        // All other credentials are renewed before they end, and of one in trouble that is what is said.
        let certificate_end = backend
            .credentials
            .iter()
            .filter(|credential| {
                credential.kind == CredentialKind::Certificate && credential.trouble.is_none()
            })
            .filter_map(|credential| credential.expires)
            .min()
            .and_then(|end| ending(end, wall));
        let end_is_said = trouble.is_some_and(|trouble| trouble.kind == TroubleKind::Expiring);
        if let Some(trouble) = trouble {
            let severity = match &certificate_end {
                Some((severity, _)) if end_is_said => *severity,
                Some(_) | None if is_up(module) => Severity::Warning,
                Some(_) | None => Severity::Error,
            };
            add(severity, name, trouble.words.clone());
        }
        if let Some(message) = held(&module.status.outage) {
            add(Severity::Warning, name, message);
        }
        if let Some(message) = backend.clock_trouble() {
            add(Severity::Warning, name, message);
        }
        for message in backend
            .credentials
            .iter()
            .filter_map(|credential| credential.trouble.as_ref())
        {
            add(Severity::Warning, name, message.clone().into_owned());
        }
        // The module itself hears of it only when pushes have waited in vain.
        let is_missing = |credential: &Credential| {
            credential.kind == CredentialKind::AccessToken && credential.expires.is_none_or(|end| end <= wall)
        };
        if trouble.is_none() && backend.credentials.iter().any(is_missing) {
            add(Severity::Warning, name, NO_ACCESS_TOKEN.to_owned());
        }
        if let Some((severity, when)) = certificate_end.filter(|_| !end_is_said) {
            add(severity, name, format!("its client certificate {when}; renew it"));
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
    if let Some(problem) = &status.registry_outage {
        let message = format!(
            "the database cannot be used: {problem}; devices that are not in memory are answered wait, and none can register \
             until it can"
        );
        add(Severity::Error, REGISTRY, message);
    }
    match &status.registry {
        Some(RegistryStatus::Doubted(message)) => add(Severity::Error, REGISTRY, message.clone()),
        Some(RegistryStatus::New) => add(Severity::Warning, REGISTRY, NO_DEVICES.to_owned()),
        Some(RegistryStatus::Loading) => add(Severity::Warning, REGISTRY, LOADING.to_owned()),
        Some(RegistryStatus::Good) | None => {}
    }
    if let Some(cluster) = &status.cluster {
        if let Some(reason) = &cluster.down {
            let message = format!(
                "the engine {} cannot be used, and this instance decides alone: {reason}",
                cluster.engine
            );
            add(Severity::Error, CLUSTER, message);
        }
        for concern in &cluster.concerns {
            add(Severity::Warning, CLUSTER, concern.clone());
        }
    }
    if let Some(message) = &status.state_trouble {
        add(Severity::Error, "state directory", message.clone());
    }
    if let Some(reason) = status.reload.as_ref().and_then(|reload| reload.refused.as_ref()) {
        let message =
            format!("the last reload was refused, and the settings from before it are in force: {reason}");
        add(Severity::Warning, "settings", message);
    }
    concerns.sort_by_key(|concern| match concern.severity {
        Severity::Error => 0,
        Severity::Warning => 1,
    });
    concerns
}

/// What is held because the provider cannot take it, and what becomes of it.
fn held(outage: &OutageStatus) -> Option<String> {
    let OutageStatus { held, .. } = *outage;
    let oldest = minutes(outage.oldest?);
    match outage.phase {
        _ if held == 0 => None,
        OutagePhase::Down => Some(format!(
            "{held} pushes are held until the provider is back, the oldest for {oldest}"
        )),
        OutagePhase::Up | OutagePhase::Recovering => {
            let out_in = minutes(outage.out_in.unwrap_or_default());
            Some(format!(
                "the provider is back: {held} held pushes go out at a rate that grows, in about {out_in}"
            ))
        }
    }
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// Why fpush does not do what it is there for, each in one line; none if it is ready. A link that is down is not a reason while
/// another one with the same address of ours is up.
pub(crate) fn unready(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    for (_, about, reason) in status
        .links_down()
        .filter(|(link, ..)| !status.has_stand_in(link))
    {
        reasons.push(format!("{about} down: {reason}"));
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

/// What there is to know of an instance that is ready.
pub(crate) fn remark(status: &Status) -> Option<&'static str> {
    matches!(status.registry, Some(RegistryStatus::Loading)).then_some(LOADING)
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
const CLUSTER: &str = "cluster";
const REGISTRY: &str = "registered devices";
const LOADING: &str =
    "not all registered devices are in memory yet: the database is asked for each until then";
const NO_DEVICES: &str =
    "no device has registered yet; if some should be in the database, correct registration.store";
const NO_ACCESS_TOKEN: &str =
    "there is no access token, which pushes wait for; if this goes on, the problems below say why";

#[cfg(test)]
mod tests {
    use fpush_push::Trouble;

    use super::*;
    use crate::tests::made_up::{good, module};

    /// The lines about a module whose certificate ends after these days, where it and its credential say this.
    fn lines(
        days: i64,
        trouble: Option<(TroubleKind, &str)>,
        of_credential: Option<&'static str>,
    ) -> Vec<(Severity, String)> {
        let wall = SystemTime::UNIX_EPOCH + DAY * 1_000;
        let mut module = module("m", "apple");
        module.status.backend.credentials = vec![Credential {
            kind: CredentialKind::Certificate,
            age: None,
            expires: Some(SystemTime::UNIX_EPOCH + DAY * u32::try_from(1_000 + days).unwrap() + DAY / 2),
            trouble: of_credential.map(Into::into),
        }];
        module.status.trouble = trouble.map(|(kind, message)| Trouble {
            kind,
            words: message.to_owned(),
        });
        let status = Status {
            modules: vec![module],
            certificates: Vec::new(),
            ..good()
        };
        let concerns = concerns(&status, wall);
        concerns
            .into_iter()
            .map(|concern| (concern.severity, concern.message))
            .collect()
    }

    #[test]
    fn a_link_that_is_down_is_amber_while_another_one_of_our_address_is_up() {
        let wall = SystemTime::now();
        let mut status = good();
        status.certificates.clear();
        let mut other = status.links[0].clone();
        other.name = "b".to_owned();
        status.links[0].name = "a".to_owned();
        status.links[0].down = Some("closed".to_owned());
        status.links.push(other);
        let seen = |status: &Status| {
            let concerns = concerns(status, wall).into_iter();
            let lines: Vec<_> = concerns
                .map(|line| (line.severity, line.about, line.message))
                .collect();
            (lines, unready(status))
        };
        let line = |severity, name: &str| (severity, format!("link {name}"), "closed".to_owned());
        assert_eq!(seen(&status), (vec![line(Severity::Warning, "a")], vec![]));
        status.links[1].down = Some("closed".to_owned());
        let both = vec![line(Severity::Error, "a"), line(Severity::Error, "b")];
        let reasons = ["link a down: closed", "link b down: closed"].map(str::to_owned);
        assert_eq!(seen(&status), (both, reasons.into()));
        status.links[1].down = None;
        status.links[1].component = "other.example.org".to_owned();
        assert_eq!(
            seen(&status),
            (
                vec![line(Severity::Error, "a")],
                vec!["link a down: closed".to_owned()]
            ),
            "another address does not help"
        );
    }

    #[test]
    fn a_certificate_has_one_line_amber_for_a_month_and_red_for_its_last_week() {
        let expiring = Some((TroubleKind::Expiring, "the certificate ends"));
        assert_eq!(lines(31, None, None), []);
        for (days, severity) in [
            (29, Severity::Warning),
            (7, Severity::Warning),
            (6, Severity::Error),
        ] {
            assert_eq!(
                lines(days, expiring, None),
                [(severity, "the certificate ends".to_owned())]
            );
        }
        let expired = "the certificate expired";
        let trouble = Some((TroubleKind::Authentication, expired));
        assert_eq!(
            lines(-3, trouble, Some(expired)),
            [(Severity::Error, expired.to_owned())]
        );
        // What is worse than the near end hides it in the module's trouble, and not here.
        let lines = lines(6, Some((TroubleKind::Provider, "down")), None);
        let message = "its client certificate ends in 6 days; renew it";
        assert_eq!(
            lines,
            [
                (Severity::Error, "down".to_owned()),
                (Severity::Error, message.to_owned())
            ]
        );
    }

    #[test]
    fn a_missing_access_token_is_said_unless_the_module_says_it() {
        let wall = SystemTime::now();
        let mut status = good();
        let lines = |status: &Status| concerns(status, wall).len();
        assert_eq!(lines(&status), 0);
        for end in [None, Some(wall - DAY)] {
            status.modules[0].status.backend.credentials[0].expires = end;
            assert_eq!(concerns(&status, wall)[0].message, NO_ACCESS_TOKEN);
        }
        status.modules[0].status.trouble = Some(Trouble {
            kind: TroubleKind::Provider,
            words: "no access token".to_owned(),
        });
        assert_eq!(lines(&status), 1);
    }

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
