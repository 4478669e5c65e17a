//! A scrape, of a daemon that has had a lot to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, SystemTime},
};

use fpush_push::{ConnectionStatus, Credential, CredentialKind, Outcome, Trouble, TroubleKind};
use metrics::{counter, histogram};
use tokio::time::Instant;

use super::{
    made_up::{DAY, good, module},
    request, serve,
};
use crate::{Kind, METRICS, Monitor, Status, exposition::sample, histograms::Recording};

const MODULES: usize = 10;
/// More than any provider has.
const REASONS: usize = 45;
const PUSHES: usize = 1_000_000;

/// A status with everything there can be.
fn full() -> Status {
    let wall = SystemTime::now();
    let mut status = good();
    status.modules = (0..MODULES).map(|at| module(&name(at), "apple")).collect();
    for module in &mut status.modules {
        module.status.backend.connection = Some(ConnectionStatus {
            ping: Some(Duration::from_millis(20)),
            ..ConnectionStatus::default()
        });
        module.status.trouble = Some(Trouble {
            kind: TroubleKind::WrongTokens,
            words: "words".to_owned(),
        });
        // Two of one kind must not make two samples of the same labels.
        for days in [50, 20, 90] {
            module.status.backend.credentials.push(Credential {
                kind: CredentialKind::Certificate,
                age: Some(DAY * days),
                expires: Some(wall + DAY * days),
                trouble: None,
            });
        }
    }
    status.senders = (0..25)
        .map(|at| (format!("server-{at}.example.org"), 1_000 - at))
        .collect();
    status
}

fn name(module: usize) -> String {
    format!("push-module-{module}")
}

/// What a million pushes leave behind.
fn push(recorder: &Recording) {
    metrics::with_local_recorder(recorder, || {
        for at in 0..MODULES {
            let provider = histogram!("fpush_provider_duration_seconds", "module" => name(at));
            let reply = histogram!("fpush_reply_duration_seconds");
            for push in 0..PUSHES / MODULES {
                let seconds = (push % 2_000) as f64 / 1_000.0;
                provider.record(seconds);
                reply.record(seconds);
            }
            for outcome in Outcome::ALL {
                let labels = [("module", name(at)), ("outcome", outcome.name().to_owned())];
                counter!("fpush_pushes_total", &labels)
                    .increment((PUSHES / MODULES / Outcome::ALL.len()) as u64);
                counter!("fpush_held_pushes_total", &labels).increment(1);
            }
            for verdict in ["believed", "doubted"] {
                counter!("fpush_rejected_tokens_total", "module" => name(at), "verdict" => verdict)
                    .increment(1);
            }
            counter!("fpush_rejection_bursts_total", "module" => name(at)).increment(1);
            for reason in 0..REASONS {
                let labels = [
                    ("module", name(at)),
                    ("reason", format!("BadDeviceReason{reason}")),
                ];
                counter!("fpush_provider_answers_total", &labels).increment(1_000_000_007);
            }
        }
        counter!("fpush_replies_total", "type" => "result", "condition" => "").increment(1);
        counter!("fpush_component_connects_total").increment(1);
        counter!("fpush_component_disconnects_total", "reason" => "closed").increment(1);
        counter!("fpush_component_login_failures_total", "reason" => "conflict").increment(1);
        counter!("fpush_reloads_total", "result" => "ok").increment(1);
        counter!("fpush_state_writes_total", "result" => "ok").increment(1);
        counter!("fpush_problems_total", "level" => "warn").increment(1);
    });
}

#[tokio::test]
async fn a_scrape_is_small_and_quick_and_says_what_each_number_is() {
    let (recorder, monitor) = Monitor::build("1.2.3");
    push(&recorder);
    monitor.tick(full(), Instant::now(), SystemTime::now());
    let start = Instant::now();
    let scrape = monitor.metrics(SystemTime::now());
    let took = start.elapsed();
    println!("a scrape has {} bytes and took {took:?}", scrape.len());
    assert!(scrape.len() < 200_000, "{} bytes", scrape.len());
    let limit = if cfg!(debug_assertions) { 400 } else { 20 };
    assert!(took < Duration::from_millis(limit), "{took:?}");

    let mut help = BTreeMap::new();
    let mut types = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("# HELP ") {
            let (name, text) = text.split_once(' ').unwrap();
            assert!(help.insert(name, text).is_none(), "{name} is described twice");
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, kind) = text.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} has two types");
        } else {
            let (labels, _) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(labels), "{line} is there twice");
            let full = line.split(['{', ' ']).next().unwrap();
            let short = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| full.strip_suffix(suffix));
            let name = short
                .filter(|name| types.get(name) == Some(&"histogram"))
                .unwrap_or(full);
            assert!(
                help.contains_key(name) && types.contains_key(name),
                "{line} has no HELP or TYPE"
            );
            names.insert(name);
            let metric = METRICS.iter().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
            let (labels, _) = sample(line, full).unwrap();
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, _)| &**name)
                .filter(|name| *name != "le")
                .collect();
            assert_eq!(labels, metric.labels, "{line}");
        }
    }
    for metric in METRICS {
        assert!(names.contains(metric.name), "{} does not come", metric.name);
        assert_eq!(help[metric.name], metric.help);
        assert_eq!(types[metric.name], metric.kind.name());
    }
    let count = format!("fpush_reply_duration_seconds_count {PUSHES}\n");
    assert!(scrape.contains(&count), "upkeep has taken the samples in");
    assert_eq!(scrape.matches("\nfpush_sender_publishes{").count(), 20);
    let value = |name: &str| {
        let line = scrape.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let first_end = value("fpush_credential_expires_in_seconds{") / DAY.as_secs_f64();
    assert!((19.9..20.1).contains(&first_end), "{first_end}");
    assert_eq!(value("fpush_credential_age_seconds{"), (DAY * 90).as_secs_f64());
    assert_eq!(value("fpush_module_up{"), 0.0);
}

#[tokio::test]
async fn what_is_gone_is_gone_at_once_and_counters_go_on() {
    let (_, monitor) = Monitor::build("1.2.3");
    let tick = |status: &Status| monitor.tick(status.clone(), Instant::now(), SystemTime::now());
    let mut status = full();
    status.modules[1].status.lost = 5;
    tick(&status);
    status.modules[1].status.lost = 2;
    status.modules.remove(0);
    status.modules[0].status.trouble = None;
    status.senders.clear();
    tick(&status);
    let scrape = monitor.metrics(SystemTime::now());
    assert!(!scrape.contains("push-module-0"), "{scrape}");
    assert!(!scrape.contains("fpush_sender_publishes"), "{scrape}");
    assert!(
        scrape.contains("fpush_pushes_lost_total{module=\"push-module-1\"} 7\n"),
        "{scrape}"
    );
    assert!(
        scrape.contains("fpush_module_up{module=\"push-module-1\"} 1\n"),
        "{scrape}"
    );
}

/// What the listener gives is what `promtool check metrics` takes, where there is one.
#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let (recorder, monitor) = Monitor::build("1.2.3");
    push(&recorder);
    monitor.tick(full(), Instant::now(), SystemTime::now());
    let (address, _serving) = serve(&monitor).await;
    let answer = request(address, "GET", "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let file = fpush_testkit::temp_dir::TempDir::new();
    let path = file.path().join("scrape");
    fs::write(&path, body).unwrap();
    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(&path).unwrap())
        .output();
    let Ok(output) = promtool else {
        println!("there is no promtool: apt-get install prometheus");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn buckets_tell_the_time_limits_apart() {
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(buckets.len() < 20, "{}", metric.name);
            // A place in the line, the two values of requestTimeout, a publish, and what is later than that.
            for limit in [5.0, 10.0, 25.0, 30.0] {
                assert!(
                    buckets.contains(&limit),
                    "{} has no bucket to {limit} s",
                    metric.name
                );
            }
        }
    }
}
