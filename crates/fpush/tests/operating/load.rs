//! A scrape after many pushes.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use fpush_testkit::{FakeApns, TestCa, publish::ejabberd_publish};
use serde_json::json;

use crate::rig::{LONG, Rig, apple, apple_token};

/// A scrape has a fixed number of counters and of histograms with a fixed number of ranges; only their digits grow. So what
/// tells is the number of modules, answers and outcomes, not that of pushes; a scrape after a million is a test of
/// fpush-monitor (`tests::scrape`), too.
#[test]
fn a_scrape_stays_small_and_quick() {
    let ca = TestCa::new();
    let apns = FakeApns::builder(&ca).recording(false).start();
    let unlimited = json!({ "ratelimit": { "enabled": false } });
    let demo = json!({ "type": "demo", "ratelimit": { "enabled": false } });
    let mut rig = Rig::with(
        json!({ "pushModules": { "m": demo, "apple": apple(&apns.url(), unlimited) } }),
        |builder| builder.file("ca.pem", ca.pem()),
    );
    let few = rig.scrape_when(&["fpush_component_up == 1"]).text.len();
    let pushes: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let start = Instant::now();
    for batch in 0..pushes / BATCH {
        let mut text = String::new();
        for number in 0..BATCH {
            let (module, token) = if number % 2 == 0 {
                ("m", format!("token-{batch}-{number}"))
            } else {
                ("apple", apple_token(batch * BATCH + number))
            };
            let publish = ejabberd_publish(&number.to_string(), &token, Some(module), true);
            let domain = format!("d{}.example", number % 50);
            write!(text, "{}", publish.from(&domain)).unwrap();
        }
        rig.link().send(text);
        for _ in 0..BATCH {
            rig.link().next_stanza(LONG);
        }
    }
    let took = start.elapsed();
    let all = format!("fpush_pushes_total{{outcome=\"accepted\"}} == {pushes}");
    rig.scrape_when(&[&all, &format!("fpush_reply_duration_seconds_count == {pushes}")]);
    let times = (0..20).map(|_| {
        let start = Instant::now();
        let page = rig.monitoring.get("/metrics");
        (start.elapsed(), page.body.len())
    });
    let times: Vec<_> = times.collect();
    let (slowest, size) = times.iter().max().unwrap();
    let (quickest, _) = times.iter().min().unwrap();
    println!(
        "{pushes} pushes in {took:?}; a scrape has {size} bytes (before: {few}) and takes {quickest:?} to {slowest:?}"
    );
    assert!(times.iter().all(|(_, size)| *size < 200_000), "{times:?}");
    assert!(*size < 2 * few, "{size} bytes, {few} before the first push");
    // Of twenty the quickest, for a machine that has other things to do.
    assert!(*quickest < Duration::from_millis(200), "{times:?}");
}

/// So many publishes are under way at a time: fewer than a module takes.
const BATCH: usize = 500;
