//! What a flood of one registrable domain, under a hundred thousand names, costs another domain: the times of its requests
//! with the flood and without, in one run.
//!
//! The provider is at its limit: it takes as many pushes at a time as the module may send, and the flood has many more. The
//! quiet domain sends little, and each of its requests is of another kind: a publish, a look-up that has to ask the database,
//! a command that is not executed, a registration.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use fpush_testkit::TempDir;
use fpush_testkit::publish::{field, prosody_publish};
use serde_json::{Value, json};

use super::helper::StandIn;
use super::load::{Kind, Link};
use super::plan::{FloodPlan, Plan};
use super::providers::Backend;
use super::rig::Rig;
use super::stats::{Spread, millis};
use super::template::{NUMBER, Template};
use crate::interrupt;
use crate::table::Table;

pub(super) struct Flood {
    rows: Vec<Row>,
    /// Stanzas of the flood that were sent and answered.
    stanzas: u64,
    per_second: u64,
}

struct Row {
    what: &'static str,
    without: Spread,
    with: Spread,
    /// How many of the quiet domain's were answered in another way than without the flood.
    refused: usize,
}

/// What the quiet domain asks for, and how that is answered.
const KINDS: [(&str, Kind); 4] = [
    ("publish", Kind::Result),
    ("look-up", Kind::Refused),
    ("command", Kind::Gone),
    ("registration", Kind::Result),
];

pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<Flood> {
    let FloodPlan {
        permits,
        per_second,
        time,
    } = plan.flood;
    println!("flood: {per_second} stanzas a second for {time:?}, {permits} pushes at the provider");
    let folder = TempDir::new();
    let mut module = stand_in.endpoints.slow_module();
    module["maxInFlight"] = permits.into();
    let registration = json!({
        "store": { "type": "sqlite", "path": folder.path().join("devices.db") },
        "types": { TYPE: MODULE },
    });
    let mut rig = Rig::start_with(fpush, &json!({ MODULE: module }), Some(&registration))?;
    let quiet = stanzas("quiet.org");
    let flood = stanzas(&format!("d{NUMBER}.flood.org"));
    let mut seen = Seen::default();
    // The quiet domain is one of which pushes were accepted.
    let mut run = |flood, time| seen.run(&mut rig.link, &quiet, flood, time);
    run(None, plan.warm_up)?;
    let without = run(None, time)?;
    let with = run(Some((&flood, per_second)), time)?;
    let rows = KINDS.iter().zip(without.times.into_iter().zip(with.times));
    let rows = rows.map(|((what, expected), (without, with))| Row {
        what,
        refused: with.iter().filter(|(kind, _)| kind != expected).count(),
        without: spread(&without),
        with: spread(&with),
    });
    let flood = Flood {
        rows: rows.collect(),
        stanzas: with.flooded,
        per_second,
    };
    for row in &flood.rows {
        println!(
            "{}: p99 {:.2?} without, {:.2?} with the flood, {} refused",
            row.what, row.without.p99, row.with.p99, row.refused
        );
    }
    Ok(flood)
}

impl Flood {
    /// The time that 99 of 100 of the quiet domain's requests of a kind take at most, without the flood and with it, in
    /// milliseconds.
    pub(super) fn p99(&self) -> impl Iterator<Item = (&'static str, [f64; 2])> {
        let rows = self.rows.iter();
        rows.map(|row| (row.what, [row.without.p99, row.with.p99].map(millis)))
    }
}

fn spread(times: &[(Kind, Duration)]) -> Spread {
    Spread::of(times.iter().map(|(_, time)| *time).collect())
}

/// The stanzas of a domain, one of each of [`KINDS`].
fn stanzas(domain: &str) -> [Template; 4] {
    let id = format!("{NUMBER}{}", "1".repeat(48));
    let publish = |node: &str, option: &str, value: &str| {
        let publish = prosody_publish(&id, node, Some(value), true).from(domain);
        Template::of(&publish.to_string().replace("pushModule", option))
    };
    let command = |name: &str, fields: &[(&str, &str)]| {
        let fields = fields.iter().map(|(name, value)| field(name, value));
        Template::of(&format!(
            "<iq type='set' from='u{NUMBER}@{domain}/r' to='push.localhost' id='{NUMBER}'>\
             <command xmlns='http://jabber.org/protocol/commands' node='{name}' action='execute'>\
             <x xmlns='jabber:x:data' type='submit'>{}</x></command></iq>",
            fields.collect::<String>(),
        ))
    };
    let node = format!("{NUMBER}-device");
    let token = Backend::Certificate.token();
    [
        publish(&token, "pushModule", MODULE),
        publish(&node, "secret", "a secret of nobody's"),
        command("v1-unregister-push", &[("type", TYPE), ("node", &node)]),
        command(
            "v1-register-push",
            &[("type", TYPE), ("node", &node), ("token", &token)],
        ),
    ]
}

/// Numbers that were used.
#[derive(Default)]
struct Seen {
    quiet: u64,
    flood: u64,
}

/// What came of a run.
#[derive(Default)]
struct Done {
    /// By [`KINDS`].
    times: [Vec<(Kind, Duration)>; 4],
    flooded: u64,
}

/// What the thread that writes and the one that reads share.
struct Run {
    start: Instant,
    /// When each stanza of the quiet domain left, in nanoseconds since the start.
    left: Vec<AtomicU64>,
    flooded: AtomicU64,
    written: AtomicBool,
    given_up: AtomicBool,
}

impl Seen {
    fn run(
        &mut self,
        link: &mut Link,
        quiet: &[Template; 4],
        flood: Option<(&[Template; 4], u64)>,
        time: Duration,
    ) -> Result<Done> {
        let count = (time.as_millis() as u64 * QUIET_PER_SECOND / 1_000).max(4) / 4 * 4;
        let run = Run {
            start: Instant::now(),
            left: (0..count).map(|_| AtomicU64::new(0)).collect(),
            flooded: AtomicU64::new(0),
            written: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        };
        let (first, first_of_flood) = (QUIET + self.quiet, self.flood);
        let done = thread::scope(|scope| {
            let (socket, run) = (&link.socket, &run);
            let writing = scope.spawn(move || {
                let written = run.write(socket, quiet, first, flood, first_of_flood);
                run.written.store(true, Ordering::Release);
                written
            });
            let mut done = Done::default();
            let (mut answered, mut flooded) = (0, 0);
            let mut read = Ok(());
            while read.is_ok()
                && !(run.written.load(Ordering::Acquire)
                    && answered == count
                    && flooded == run.flooded.load(Ordering::Acquire))
            {
                read = interrupt::check().and_then(|()| {
                    link.replies.read(socket, |reply| {
                        let Some(index) = reply.index_from(first) else {
                            flooded += 1;
                            return Ok(());
                        };
                        let left = run.left.get(index).context("nobody asked for a reply")?;
                        let left = Duration::from_nanos(left.load(Ordering::Acquire));
                        let taken = reply.at.duration_since(run.start).saturating_sub(left);
                        done.times[index % 4].push((reply.kind, taken));
                        answered += 1;
                        Ok(())
                    })?;
                    Ok(())
                });
            }
            run.given_up.store(read.is_err(), Ordering::Relaxed);
            writing
                .join()
                .map_err(|_| anyhow!("the sending thread panicked"))??;
            read?;
            done.flooded = flooded;
            anyhow::Ok(done)
        })?;
        self.quiet += count;
        self.flood += done.flooded;
        ensure!(
            done.times.iter().all(|times| times.len() as u64 == count / 4),
            "replies are missing"
        );
        Ok(done)
    }
}

impl Run {
    /// Sends what is due, each millisecond.
    fn write(
        &self,
        mut socket: &std::net::TcpStream,
        quiet: &[Template; 4],
        first: u64,
        flood: Option<(&[Template; 4], u64)>,
        first_of_flood: u64,
    ) -> Result<()> {
        let (mut sent, mut flooded, mut out) = (0, 0, Vec::new());
        while sent < self.left.len() && !self.given_up.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            let elapsed = self.start.elapsed();
            out.clear();
            if let Some((templates, per_second)) = flood {
                let due = elapsed.as_micros() as u64 * per_second / 1_000_000;
                for number in flooded..due {
                    // Most of a flood is publishes, which cost it nothing.
                    let kind = if number % 4 == 0 {
                        (number / 4 % 4) as usize
                    } else {
                        0
                    };
                    templates[kind].write(first_of_flood + number, &mut out);
                }
                flooded = flooded.max(due);
                self.flooded.store(flooded, Ordering::Release);
            }
            let due = elapsed.as_millis() as u64 * QUIET_PER_SECOND / 1_000;
            while (sent as u64) < due && sent < self.left.len() {
                quiet[sent % 4].write(first + sent as u64, &mut out);
                self.left[sent].store(self.start.elapsed().as_nanos() as u64, Ordering::Release);
                sent += 1;
            }
            socket.write_all(&out).context("fpush takes nothing any more")?;
        }
        Ok(())
    }
}

impl Flood {
    /// How much of what a flood may cost it costs, for the kind of request that it costs most.
    pub(super) fn worst(&self) -> f64 {
        let share = |row: &Row| {
            let allowed = 2.0 * millis(row.without.p99) + 5.0;
            // Where some are refused the others' times say little.
            if row.refused > 0 {
                f64::INFINITY
            } else {
                millis(row.with.p99) / allowed
            }
        };
        self.rows.iter().map(share).fold(0.0, f64::max)
    }

    pub(super) fn table(&self) -> Table {
        let ms = |time: Duration| format!("{:.2}", millis(time));
        let row = |row: &Row| {
            vec![
                row.what.to_owned(),
                ms(row.without.p50),
                ms(row.without.p99),
                ms(row.with.p50),
                ms(row.with.p99),
                ms(2 * row.without.p99 + Duration::from_millis(5)),
                row.refused.to_string(),
            ]
        };
        Table {
            title: format!(
                "Times of another domain under a flood of {} stanzas a second from one domain with {} names (in ms)",
                self.per_second, self.stanzas
            ),
            head: &["", "p50 without", "p99 without", "p50 with", "p99 with", "at most", "refused"],
            rows: self.rows.iter().map(row).collect(),
            notes: vec![
                "Of the flood three in four are publishes for a provider at its limit, and the others look-ups, commands \
                 and registrations. The provider takes 50 ms."
                    .to_owned(),
            ],
        }
    }

    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "what": row.what,
                "without": row.without.json(),
                "with": row.with.json(),
                "refused": row.refused,
            })
        };
        json!({
            "per_second": self.per_second,
            "stanzas": self.stanzas,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

const MODULE: &str = "m";
const TYPE: &str = "apns";
/// Stanzas of the quiet domain, of all kinds.
const QUIET_PER_SECOND: u64 = 80;
/// The number of its first stanza: those of the flood are all below.
const QUIET: u64 = 1 << 40;
