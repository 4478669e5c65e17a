//! Statuses that were made up.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fpush_push::{
    BackendStatus, ConnectionStatus, Credential, CredentialKind, Ended, LinkMeters, ModuleStatus, Outcome,
    Proof, Trouble, TroubleKind,
    metrics::{Histogram, LabelledCounters, REPLY_SECONDS},
};
use tokio::time::Instant;

use crate::{
    Certificate, ClusterStatus, Counted, Link, Module, Monitor, Problem, RegistryStatus, Reload, Severity,
    Status,
};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A daemon with which all is well.
pub(crate) fn good() -> Status {
    let wall = SystemTime::now();
    let connection = |connects, ping| ConnectionStatus {
        open: 1,
        streams: 3,
        connects,
        failed_connects: 0,
        ping: Some(Duration::from_millis(ping)),
    };
    let mut ios = module("example-ios", "apple");
    ios.status.backend.connection = Some(connection(4, 23));
    ios.status.backend.credentials = vec![Credential {
        kind: CredentialKind::ProviderToken,
        age: Some(MINUTE * 31),
        expires: Some(wall + MINUTE * 29),
        trouble: None,
    }];
    let mut android = module("example-android", "google");
    android.status.backend.connection = Some(connection(2, 14));
    android.status.in_flight = 7;
    android.status.last_accepted = Some(Duration::from_secs(0));
    android.status.backend.credentials = vec![Credential {
        kind: CredentialKind::AccessToken,
        age: Some(MINUTE * 12),
        expires: Some(wall + MINUTE * 47),
        trouble: None,
    }];
    let mut mac = module("example-mac", "apple");
    mac.status.in_flight = 0;
    mac.status.held = 3;
    mac.status.limited_tokens = 412;
    mac.status.blocked_tokens = 0;
    mac.status.doubted_tokens = 0;
    mac.status.last_accepted = Some(Duration::from_secs(52));
    mac.status.backend.connection = Some(connection(9, 24));
    mac.status.backend.credentials = vec![Credential {
        kind: CredentialKind::Certificate,
        age: None,
        expires: Some(wall + DAY * 212 + MINUTE),
        trouble: None,
    }];
    Status {
        links: vec![Link {
            name: "push.example.org@127.0.0.1:5347".to_owned(),
            component: "push.example.org".to_owned(),
            server: "127.0.0.1:5347".to_owned(),
            since: Instant::now() - DAY * 12,
            down: None,
        }],
        link_meters: vec![(
            "push.example.org@127.0.0.1:5347".to_owned(),
            Arc::new(LinkMeters::new(LabelledCounters::new([
                ["wait", "service-unavailable"],
                ["result", ""],
            ]))),
        )],
        modules: vec![android, ios, mac],
        retired: Vec::new(),
        certificates: vec![Certificate {
            name: "registration.http".to_owned(),
            expires: wall + DAY * 63 + MINUTE,
        }],
        registered_devices: Some(18_204),
        cluster: Some(ClusterStatus {
            engine: "127.0.0.1:6379".to_owned(),
            since: Instant::now() - DAY * 12,
            up: true,
            down: None,
            instances: 2,
            concerns: Vec::new(),
            unread: 0,
            requests: vec![("ok", 48_210), ("timeout", 2)],
        }),
        registry: Some(RegistryStatus::Good),
        registry_outage: None,
        ended: Some(Ended {
            reasons: vec![("dead", 41), ("unregistered", 17)],
            domains: Some(vec![
                ("example.org".to_owned(), "dead", 30),
                ("example.net".to_owned(), "unregistered", 12),
            ]),
        }),
        reload: Some(Reload {
            at: wall - DAY * 3 - HOUR,
            refused: None,
        }),
        state_trouble: None,
        senders: Some(
            [
                ("chat.example.org", 2_412),
                ("jabber.example.org", 1_630),
                ("im.example.org", 866),
                ("xmpp.students.example.org", 508),
                ("talk.example.org", 211),
                ("a-server-with-a-rather-long-name.example.org", 64),
                ("home.example.org", 9),
            ]
            .map(|(domain, count)| (domain.to_owned(), count))
            .into(),
        ),
        problems: vec![
            problem(
                Severity::Warning,
                "example-android",
                "the provider did not take a push; trying again: 503 UNAVAILABLE",
                (HOUR * 3, MINUTE * 41),
                17,
            ),
            problem(
                Severity::Warning,
                "component",
                "a publish names the push module oldapp, which is not in the settings; put it back, devices are kept \
                 meanwhile",
                (DAY * 2, HOUR * 5),
                240,
            ),
            problem(
                Severity::Error,
                "link",
                "link down: the server closed it: system-shutdown",
                (DAY * 12, DAY * 12),
                1,
            ),
        ],
    }
}

/// A daemon with every kind of trouble.
pub(crate) fn bad() -> Status {
    let wall = SystemTime::now();
    let mut status = good();
    status.links[0].since = Instant::now() - MINUTE * 7;
    status.links[0].down = Some(
        "cannot connect to the server at 127.0.0.1:5347: connection refused. It does not run, or does not listen for \
         components there"
            .to_owned(),
    );
    let trouble = |name, module_type, trouble, words: &str| {
        let mut module = module(name, module_type);
        let words = words.to_owned();
        module.status.trouble = Some(Trouble { kind: trouble, words });
        module
    };
    status.modules = vec![
        trouble(
            "authentication",
            "apple",
            TroubleKind::Authentication,
            "Apple refuses the provider token: InvalidProviderToken. Check keyId and teamId, and that the key was not \
             revoked",
        ),
        trouble(
            "settings",
            "apple",
            TroubleKind::Settings,
            "TopicDisallowed: topic does not belong to the key",
        ),
        trouble(
            "wrong-tokens",
            "apple",
            TroubleKind::WrongTokens,
            "Apple rejects too many tokens: environment or topic does not fit the app",
        ),
        trouble(
            "provider",
            "google",
            TroubleKind::Provider,
            "Google does not answer; if it lasts, look at the network",
        ),
        trouble(
            "paused",
            "google",
            TroubleKind::Paused,
            "Google wants less: the project's quota is used up",
        ),
        trouble(
            "expiring",
            "apple",
            TroubleKind::Expiring,
            "The client certificate ends in 9 days; renew it",
        ),
        module("fine", "demo"),
    ];
    status.modules[5].status.backend.credentials = vec![Credential {
        kind: CredentialKind::Certificate,
        age: None,
        expires: Some(wall + DAY * 9 + MINUTE),
        trouble: None,
    }];
    status.modules[3].status.backend = BackendStatus {
        connection: Some(ConnectionStatus {
            failed_connects: 31,
            ..ConnectionStatus::default()
        }),
        credentials: vec![Credential {
            kind: CredentialKind::AccessToken,
            age: None,
            expires: Some(wall - MINUTE),
            trouble: Some(
                "no access token: invalid_grant; the key was deleted, or the clock is wrong".into(),
            ),
        }],
        ..BackendStatus::default()
    };
    for _ in 0..12 {
        status.modules[3].status.meters.held_lost();
    }
    status.modules[3].status.held = 4_120;
    status.certificates[0].expires = wall + DAY * 5 + MINUTE;
    status.certificates.push(Certificate {
        name: "monitor".to_owned(),
        expires: wall - DAY * 2 - MINUTE,
    });
    status.reload = Some(Reload {
        at: wall - MINUTE * 2,
        refused: Some("pushModules.provider.fcm: this key is not known: fcmSecretPaht".to_owned()),
    });
    status.state_trouble = Some("/var/lib/fpush: no space left on the device; make room".to_owned());
    let hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";
    status.problems.insert(
        0,
        problem(
            Severity::Warning,
            hostile,
            &hostile.repeat(2),
            (MINUTE, Duration::ZERO),
            1_234_567,
        ),
    );
    status
        .senders
        .get_or_insert_default()
        .insert(0, (hostile.to_owned(), 9_999));
    status
}

pub(crate) fn module(name: &str, module_type: &'static str) -> Module {
    let status = ModuleStatus {
        name: name.to_owned(),
        in_flight: 4,
        waiting: 0,
        held: 26,
        outage: fpush_push::OutageStatus::default(),
        limited_tokens: 3_118,
        blocked_tokens: 14,
        doubted_tokens: 5,
        meters: Arc::default(),
        last_accepted: Some(Duration::from_secs(1)),
        proof: Proof::Proven,
        trouble: None,
        backend: BackendStatus::default(),
        second: None,
        vendors: Vec::new(),
    };
    Module { module_type, status }
}

fn problem(severity: Severity, about: &str, text: &str, ago: (Duration, Duration), count: u64) -> Problem {
    let wall = SystemTime::now();
    Problem {
        severity,
        about: about.to_owned(),
        text: text.to_owned(),
        first: wall - ago.0,
        last: wall - ago.1,
        count,
    }
}

/// Counters that have counted nothing.
pub(crate) fn counted() -> Counted {
    Counted {
        outcomes: Arc::default(),
        notifications: Arc::default(),
        lost: Arc::default(),
        reply_durations: Arc::new(Histogram::new(REPLY_SECONDS)),
        reloads: Arc::default(),
        state_writes: Arc::default(),
        problems: Arc::default(),
    }
}

/// A monitor that has seen nothing.
pub(crate) fn monitor() -> Arc<Monitor> {
    Monitor::new("1.2.3", counted())
}

/// An hour of pushes, as counters and ticks.
pub(crate) fn spend_an_hour(monitor: &Monitor, status: &Status) {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    for step in (0..=360_u32).rev() {
        let hour = 1.0 - f64::from(step) / 360.0;
        let wave = 90.0 + 25.0 * (hour * 5.0).sin() + 12.0 * random() + 8.0 * (hour * 31.0).sin();
        let outage = if (0.3..0.33).contains(&hour) { 0.35 } else { 0.0 };
        for Module { status, .. } in &status.modules {
            let (share, outage) = match &*status.name {
                "example-android" => (0.55, outage),
                "example-ios" => (0.41, 0.0),
                "example-mac" => (0.04, 0.0),
                _ => continue,
            };
            for (outcome, part) in [
                (Outcome::Accepted, 0.81 - outage),
                (Outcome::Queued, 0.13),
                (Outcome::Coalesced, 0.04),
                (Outcome::Refused, 0.01 * random() * 2.0),
                (Outcome::TokenDead, 0.005 * random() * 2.0),
                (Outcome::ProviderUnavailable, outage),
            ] {
                let pushes = (wave * share * part * 10.0 / 3.0 + random() * 0.9) as u64;
                (0..pushes).for_each(|_| status.meters.outcome(outcome));
            }
        }
        let ago = Duration::from_secs(10) * step;
        monitor.tick(status.clone(), now - ago, wall - ago);
    }
}
