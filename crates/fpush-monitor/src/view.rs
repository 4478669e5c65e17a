//! What the status page shows, as JSON: times are Unix times in seconds, durations seconds.

use std::time::{Duration, SystemTime};

use fpush_push::{BackendStatus, ConnectionStatus, Credential, LaneStatus, OutageStatus, Outcome};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    ClusterStatus, Link, Module, Severity, Status,
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
    let links: Vec<_> = status
        .links
        .iter()
        .map(|link| view_link(status, link, now))
        .collect();
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
        "links": links,
        "concerns": concerns,
        "modules": status.modules.iter().map(|m| module(m, history, wall)).collect::<Vec<_>>(),
        "certificates": certificates,
        "cluster": status.cluster.as_ref().map(|cluster| cluster_view(cluster, now)),
        "devices": status.registered_devices,
        "reload": status.reload.as_ref().map(|reload| json!({ "at": unix(reload.at), "refused": reload.refused })),
        "state": status.state_trouble,
        "ended": status.ended.as_ref().map(|ended| json!({ "reasons": ended.reasons, "domains": ended.domains })),
        "senders": status.senders.as_ref().map(|senders| senders.iter().take(MAX_SENDERS).collect::<Vec<_>>()),
        "problems": problems,
        "hour": hour(history),
    })
}

fn cluster_view(cluster: &ClusterStatus, now: Instant) -> Value {
    json!({
        "engine": cluster.engine,
        "up": cluster.up,
        "for": now.saturating_duration_since(cluster.since).as_secs(),
        "instances": cluster.instances,
    })
}

fn view_link(status: &Status, link: &Link, now: Instant) -> Value {
    let Link {
        name,
        component,
        server,
        since,
        down,
    } = link;
    let level = match down {
        None => "ok",
        Some(_) if status.has_stand_in(link) => "warning",
        Some(_) => "error",
    };
    json!({
        "name": name,
        "component": component,
        "server": server,
        "level": level,
        "for": now.saturating_duration_since(*since).as_secs(),
        "down": down,
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
        "outage": outage(&status.outage),
        "limited": status.limited_tokens,
        "blocked": status.blocked_tokens,
        "doubted": status.doubted_tokens,
        "lost": status.meters.lost(),
        "last_accepted": status.last_accepted.map(|ago| ago.as_secs()),
        "connection": status.backend.connection.map(connection),
        "second": status.second.as_ref().map(|lane| second(lane, &status.backend)),
        "credentials": credentials,
    })
}

/// The second of two lanes.
fn second(lane: &LaneStatus, backend: &BackendStatus) -> Value {
    let LaneStatus {
        name,
        last_accepted,
        trouble,
    } = lane;
    json!({
        "name": name,
        "last_accepted": last_accepted.map(|ago| ago.as_secs()),
        "trouble": trouble.as_ref().map(|trouble| &trouble.words),
        "connection": backend.second.map(|(_, status)| connection(status)),
    })
}

fn outage(outage: &OutageStatus) -> Value {
    let OutageStatus {
        phase,
        lasts,
        held,
        oldest,
        out_in,
    } = outage;
    json!({
        "phase": phase.name(),
        "lasts": lasts.map(|lasts| lasts.as_secs()),
        "held": held,
        "oldest": oldest.map(|oldest| oldest.as_secs()),
        "out_in": out_in.map(|out_in| out_in.as_secs()),
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
