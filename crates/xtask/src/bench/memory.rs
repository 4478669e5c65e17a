//! What fpush holds in memory.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::{Amount, Kind};
use super::megabytes;
use super::plan::{LOADS, Plan};
use super::providers::Backend;
use super::rig::Rig;
use super::template::{NUMBER, Server, Template};
use crate::table::Table;

pub(super) struct Memory {
    /// After the start with one demo module, in bytes.
    start: u64,
    limited: Held,
    blocked: Held,
    queued: Held,
}

/// So many of something, and by how many bytes the memory has grown with them.
struct Held {
    count: u64,
    bytes: u64,
}

impl Held {
    fn per_million(&self) -> f64 {
        megabytes(self.bytes) * 1e6 / self.count as f64
    }
}

pub(super) fn measure(fpush: &Path, plan: &Plan) -> Result<Memory> {
    let (start, limited) = fill(fpush, plan.tokens, &Backend::Demo.token(), Kind::Result)?;
    // The demo declares these dead, which is not believed of a module that accepts nothing: they are blocked.
    let dead = format!("dead{NUMBER}");
    let (_, blocked) = fill(fpush, plan.tokens, &dead, Kind::Refused)
        // An older program believes it.
        .or_else(|_| fill(fpush, plan.tokens, &dead, Kind::Gone))?;
    Ok(Memory {
        start,
        limited,
        blocked,
        queued: queue(fpush, plan.queued)?,
    })
}

/// Publishes for so many tokens, each once. Returns the memory before, and by how much it grew.
fn fill(fpush: &Path, count: u64, token: &str, expected: Kind) -> Result<(u64, Held)> {
    println!("memory: {count} tokens, expecting {expected:?}");
    let mut rig = start(fpush)?;
    let before = rig.resident()?;
    publish(&mut rig, count, token, expected)?;
    let bytes = rig.resident()?.saturating_sub(before);
    Ok((before, Held { count, bytes }))
}

/// Publishes twice for so many tokens: the second push waits until the window of the first is over.
fn queue(fpush: &Path, count: u64) -> Result<Held> {
    println!("memory: {count} queued pushes");
    let mut rig = start(fpush)?;
    let token = Backend::Demo.token();
    publish(&mut rig, count, &token, Kind::Result)?;
    let before = rig.resident()?;
    rig.link.next = 0;
    publish(&mut rig, count, &token, Kind::Result)?;
    let bytes = rig.resident()?.saturating_sub(before);
    Ok(Held { count, bytes })
}

/// No token is forgotten meanwhile.
fn start(fpush: &Path) -> Result<Rig> {
    let limit = json!({ "ratelimitTime": "1h", "ratelimitCleanupInterval": "2h" });
    Rig::start(fpush, &json!({ MODULE: { "type": "demo", "ratelimit": limit } }))
}

fn publish(rig: &mut Rig, count: u64, token: &str, expected: Kind) -> Result<()> {
    let template = Template::new(Server::Prosody, MODULE, token);
    rig.run(
        &[template],
        LOADS[0].in_flight,
        Amount::Publishes(count),
        expected,
    )?;
    Ok(())
}

impl Memory {
    /// Megabytes that a million tokens in the rate limiter take.
    pub(super) fn per_million_tokens(&self) -> f64 {
        self.limited.per_million()
    }

    /// Bytes that a token on the block list takes.
    pub(super) fn per_blocked(&self) -> f64 {
        self.blocked.per_million()
    }

    pub(super) fn table(&self, under_load: Vec<Vec<String>>) -> Table {
        let mut rows: Vec<_> = self.rows().into_iter().map(Vec::from).collect();
        rows.extend(under_load);
        Table {
            title: "Memory".to_owned(),
            head: &["", "resident"],
            rows,
            notes: vec![
                "Under load the rate limiter forgets tokens after 20 s, so that from then on as many go as \
                 come: what grows after the first part would be a leak."
                    .to_owned(),
            ],
        }
    }

    /// What there is so much of, and the memory that it takes.
    pub(super) fn rows(&self) -> [[String; 2]; 4] {
        let row = |what: String, bytes: u64| [what, format!("{:.1} MB", megabytes(bytes))];
        let more = |held: &Held, what: &str| row(format!("{} {what}: above that", held.count), held.bytes);
        [
            row("after the start, one demo module".to_owned(), self.start),
            more(&self.limited, "tokens in the rate limiter"),
            more(&self.blocked, "tokens on the block list"),
            more(&self.queued, "queued pushes, their tokens not counted"),
        ]
    }

    pub(super) fn json(&self) -> Value {
        let held = |held: &Held| {
            json!({
                "count": held.count,
                "bytes": held.bytes,
                "megabytes_per_million": held.per_million(),
            })
        };
        json!({
            "start_bytes": self.start,
            "rate_limiter": held(&self.limited),
            "block_list": held(&self.blocked),
            "queued": held(&self.queued),
        })
    }
}

const MODULE: &str = "demo";
