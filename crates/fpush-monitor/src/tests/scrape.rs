//! A scrape, of a daemon that has had a lot to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use fpush_push::{ConnectionStatus, Credential, CredentialKind, Outcome, Trouble, TroubleKind};
use fpush_testkit::Scrape;
use tokio::{task::yield_now, time::Instant};

use super::{
    made_up::{DAY, counted, good, module, monitor},
    request, serve,
};
use crate::{METRICS, Monitor, Status};

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
        module.status.vendors = vec![(
            "Google",
            Trouble {
                kind: TroubleKind::Provider,
                words: "words".to_owned(),
            },
        )];
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
    let senders = (0..25).map(|at| (format!("server-{at}.example.org"), 1_000 - at));
    status.senders = Some(senders.collect());
    status
}

fn name(module: usize) -> String {
    format!("push-module-{module}")
}

/// A monitor after a million pushes.
fn after_many_pushes() -> Arc<Monitor> {
    let monitor = monitor();
    let status = full();
    let reasons: Vec<_> = (0..REASONS)
        .map(|at| &*format!("BadDeviceReason{at}").leak())
        .collect();
    for module in &status.modules {
        let meters = &module.status.meters;
        for push in 0..PUSHES / MODULES {
            let took = Duration::from_millis(push as u64 % 2_000);
            meters.outcome(Outcome::ALL[push % Outcome::ALL.len()]);
            let refused = reasons.get(push % (REASONS + 1)).copied();
            meters.attempt(took, refused, Some(["Google", "other"][push % 2]));
            monitor.counted.reply_durations.record(took);
        }
    }
    let counted = &monitor.counted;
    Outcome::ALL
        .iter()
        .for_each(|outcome| counted.outcomes.increment(*outcome));
    let (_, link) = &status.link_meters[0];
    link.replies.increment(0);
    link.dropped_replies.add(3);
    link.connects.increment();
    link.disconnects.increment("closed");
    link.login_failures.increment("conflict");
    counted.reloads.increment("ok");
    counted.state_writes.increment("ok");
    counted.problems.increment("warn");
    monitor.tick(status, Instant::now(), SystemTime::now());
    monitor
}

#[tokio::test]
async fn a_scrape_is_small_and_quick_and_says_what_each_number_is() {
    let monitor = after_many_pushes();
    // A busy machine takes the processor away from some of them.
    let (took, scrape) = (0..5)
        .map(|_| {
            let start = Instant::now();
            let scrape = monitor.metrics(SystemTime::now());
            (start.elapsed(), scrape)
        })
        .min_by_key(|(took, _)| *took)
        .expect("it was asked");
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
            let before_values: Vec<_> = labels.match_indices("=\"").map(|(at, _)| &labels[..at]).collect();
            let labels = before_values
                .iter()
                .map(|text| text.rsplit(['{', ',']).next().unwrap());
            let labels: Vec<_> = labels.filter(|label| *label != "le").collect();
            assert_eq!(labels, metric.labels, "{line}");
        }
    }
    for metric in METRICS {
        assert!(names.contains(metric.name), "{} does not come", metric.name);
        assert_eq!(help[metric.name], metric.help);
        assert_eq!(types[metric.name], metric.metric_type.name());
    }
    let count = format!("fpush_reply_duration_seconds_count {PUSHES}\n");
    assert!(scrape.contains(&count), "{scrape}");
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
    let counted = counted();
    let lost_without_module = Arc::clone(&counted.lost);
    let monitor = Monitor::new("1.2.3", counted);
    let tick = |status: &Status| monitor.tick(status.clone(), Instant::now(), SystemTime::now());
    let scrape = || Scrape::parse(&monitor.metrics(SystemTime::now())).unwrap();
    let mut status = full();
    tick(&status);
    let gone = status.modules.remove(0).status;
    status.retired = vec![(gone.name, Arc::clone(&gone.meters))];
    status.modules[0].status.trouble = None;
    status.senders = None;
    tick(&status);
    gone.meters.held_lost();
    let lost = [("module", "push-module-0")];
    assert_eq!(
        scrape().value("fpush_pushes_lost_total", &lost),
        Some(1.0),
        "it still sends what it holds"
    );
    assert_eq!(scrape().value("fpush_pushes_queued", &lost), None);
    let new = module("push-module-0", "google");
    new.status.meters.outcome(Outcome::Accepted);
    status.modules.push(new);
    tick(&status);
    let one = scrape();
    assert_eq!(
        one.value("fpush_pushes_lost_total", &lost),
        Some(0.0),
        "the name is another one's now"
    );
    assert_eq!(one.value("fpush_pushes_total", &lost), Some(1.0));
    status.modules.pop();
    status.retired.clear();
    status.modules[0].status.meters.held_lost();
    tick(&status);
    status.modules[0].status.meters.held_lost();
    let scrape = scrape().text;
    assert!(!scrape.contains("push-module-0"), "{scrape}");
    assert!(!scrape.contains("fpush_sender_publishes"), "{scrape}");
    assert!(
        scrape.contains("fpush_pushes_lost_total{module=\"push-module-1\"} 2\n"),
        "{scrape}"
    );
    let of_nobody = "fpush_pushes_lost_total{module=\"\"}";
    assert!(!scrape.contains(of_nobody), "{scrape}");
    lost_without_module.add(3);
    let scrape = monitor.metrics(SystemTime::now());
    assert!(scrape.contains(&format!("{of_nobody} 3\n")), "{scrape}");
    assert!(
        scrape.contains("fpush_module_up{module=\"push-module-1\"} 1\n"),
        "{scrape}"
    );
}

#[tokio::test]
async fn other_tasks_go_on_while_the_text_is_written() {
    let monitor = after_many_pushes();
    // Nobody can write the text before this lets go.
    let (locked, is_locked) = mpsc::channel();
    let (let_go, wait) = mpsc::channel::<()>();
    let holder = Arc::clone(&monitor);
    let holding = thread::spawn(move || {
        let _seen = holder.seen();
        locked.send(()).unwrap();
        wait.recv_timeout(Duration::from_secs(60))
    });
    is_locked.recv().unwrap();
    let scraping =
        tokio::spawn(Arc::clone(&monitor).written(|monitor| Some(monitor.metrics(SystemTime::now()))));
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!scraping.is_finished());
    let_go.send(()).unwrap();
    assert!(
        holding.join().unwrap().is_ok(),
        "the text was written on this thread"
    );
    let text = scraping.await.unwrap().unwrap();
    assert!(text.contains("fpush_pushes_total"), "{text}");
}

/// What the listener gives is what `promtool check metrics` takes, where there is one.
#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let monitor = after_many_pushes();
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
