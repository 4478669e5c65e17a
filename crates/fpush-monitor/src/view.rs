//! What the status page shows, as JSON: times are Unix times in seconds, durations seconds.

use std::time::{Duration, SystemTime};

use fpush_push::{ConnectionStatus, Credential, Outcome};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Module, Severity, Status,
    concerns::concerns,
    gauges::{MAX_SENDERS, is_up, seconds_from},
    history::{Group, History},
};

/// Everything about the daemon.
pub(crate) fn view(status: &Status, history: &History, now: Instant, wall: SystemTime) -> Value {
    let concerns: Vec<_> = concerns(status, wall)
        .into_iter()
        .map(|concern| {
            json!({
                "level": level(concern.severity),
                "about": concern.about,
                "words": concern.message,
            })
        })
        .collect();
    let link = &status.link;
    let certificates: Vec<_> = status
        .certificates
        .iter()
        .map(|certificate| json!({ "name": certificate.name, "expires": unix(certificate.expires) }))
        .collect();
    let problems: Vec<_> = status
        .problems
        .iter()
        .take(MAX_PROBLEMS)
        .map(|problem| {
            json!({
                "level": level(problem.severity),
                "about": problem.about,
                "text": problem.text,
                "first": unix(problem.first),
                "last": unix(problem.last),
                "count": problem.count,
            })
        })
        .collect();
    json!({
        "wall": unix(wall),
        "link": {
            "component": link.component,
            "server": link.server,
            "for": now.saturating_duration_since(link.since).as_secs(),
            "down": link.down,
        },
        "concerns": concerns,
        "modules": status.modules.iter().map(|m| module(m, history, wall)).collect::<Vec<_>>(),
        "certificates": certificates,
        "devices": status.registered_devices,
        "reload": status.reload.as_ref().map(|reload| json!({ "at": unix(reload.at), "refused": reload.refused })),
        "state": status.state_trouble,
        "ended": status.ended.as_ref().map(|ended| json!({ "reasons": ended.reasons, "domains": ended.domains })),
        "senders": status.senders.as_ref().map(|senders| senders.iter().take(MAX_SENDERS).collect::<Vec<_>>()),
        "problems": problems,
        "hour": hour(history),
    })
}

fn module(module: &Module, history: &History, wall: SystemTime) -> Value {
    let Module { module_type, status } = module;
    let level = match &status.trouble {
        None => "ok",
        Some(_) if is_up(module) => "warning",
        Some(_) => "error",
    };
    let credentials: Vec<_> = status
        .backend
        .credentials
        .iter()
        .map(|credential| {
            let Credential {
                kind,
                age,
                expires,
                trouble,
            } = credential;
            json!({
                "kind": kind.name().replace('_', " "),
                "age": age.map(|age| age.as_secs()),
                "expires_in": expires.map(|end| seconds_from(wall, end) as i64),
                "expires": expires.map(unix),
                "trouble": trouble,
            })
        })
        .collect();
    json!({
        "name": status.name,
        "kind": module_type,
        "level": level,
        "proof": status.proof.name(),
        "trouble": status.trouble.as_ref().map(|trouble| &trouble.words),
        "clock": status.backend.clock_trouble(),
        "rate": rounded(history.rate(&status.name)),
        "in_flight": status.in_flight,
        "waiting": status.waiting,
        "held": status.held,
        "limited": status.limited_tokens,
        "blocked": status.blocked_tokens,
        "doubted": status.doubted_tokens,
        "lost": status.meters.lost(),
        "last_accepted": status.last_accepted.map(|ago| ago.as_secs()),
        "connection": status.backend.connection.map(connection),
        "credentials": credentials,
    })
}

fn connection(connection: ConnectionStatus) -> Value {
    let ConnectionStatus {
        open,
        streams,
        connects,
        failed_connects,
        ping,
    } = connection;
    json!({
        "open": open,
        "streams": streams,
        "connects": connects,
        "failed": failed_connects,
        "ping": ping.map(|ping| rounded(ping.as_secs_f64())),
    })
}

fn hour(history: &History) -> Value {
    let totals: Vec<(Outcome, u64)> = history.totals().collect();
    let groups: Vec<_> = Group::ALL
        .into_iter()
        .map(|group| {
            let (name, meaning) = group.name_and_meaning();
            let outcomes: Vec<_> = totals
                .iter()
                .filter(|(outcome, total)| Group::of(*outcome) == group && *total > 0)
                .map(|(outcome, total)| json!([outcome.name().replace('_', " "), total]))
                .collect();
            json!({ "name": name, "words": meaning, "outcomes": outcomes })
        })
        .collect();
    let points: Vec<_> = history
        .points()
        .map(|point| {
            let rates = Group::ALL.map(|group| json!(rounded(point.rate(group))));
            let mut values = vec![json!(unix(point.end)), json!(point.length.as_secs())];
            values.extend(rates);
            Value::Array(values)
        })
        .collect();
    json!({ "groups": groups, "points": points })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

/// With three decimals, so that the text stays short.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

const MAX_PROBLEMS: usize = 50;
