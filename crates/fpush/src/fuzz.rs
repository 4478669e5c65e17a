//! The readers of the program's own files, for the fuzz targets, and for nobody else: nothing here is part of the interface.

use std::{path::Path, sync::Arc};

use fpush_policy::{BlockRecord, HeldRecord, KnownDomain, VerdictRecord};
use fpush_push::settings::Report;
use serde::de::DeserializeOwned;

use crate::{
    backends,
    check::service::Service,
    inquiry::Question,
    registration::KnownChange,
    settings,
    state_dir::{self, Line},
};

/// What files of the state directory say.
pub struct State {
    /// Whether a head is good: of the block list, of what is held, of verdicts, of the registry.
    pub heads: [bool; 4],
    /// Records of the block list.
    pub blocks: Vec<BlockRecord>,
    /// Held pushes.
    pub held: Vec<HeldRecord>,
    /// What providers said.
    pub verdicts: Vec<VerdictRecord>,
    /// Known domains.
    pub domains: Vec<KnownDomain>,
}

/// Reads a file of the state directory as each of those that there are.
#[must_use]
pub fn state(content: &[u8]) -> State {
    let (blocks_head, blocks) = records::<state_dir::Hashed, _>(content, |_: &BlockRecord| true);
    let (held_head, held) = records::<state_dir::Plain, _>(content, HeldRecord::is_sane);
    let (verdicts_head, verdicts) = records::<state_dir::Plain, _>(content, |_: &VerdictRecord| true);
    let (domains, _) = state_dir::read_records::<state_dir::Plain, _, _>(content, MOST_RECORDS, Some);
    let domains = domains.records;
    let (registry_head, _) = records::<KnownChange, _>(content, |_: &serde::de::IgnoredAny| true);
    State {
        heads: [blocks_head, held_head, verdicts_head, registry_head],
        blocks,
        held,
        verdicts,
        domains,
    }
}

fn records<H: DeserializeOwned, T: DeserializeOwned>(
    content: &[u8],
    is_sane: impl Fn(&T) -> bool,
) -> (bool, Vec<T>) {
    let accept = |(_, _, record): Line<T>| is_sane(&record).then_some(record);
    let (records, _) = state_dir::read_records::<H, _, _>(content, MOST_RECORDS, accept);
    (records.head.is_some(), records.records)
}

/// Reads a settings file with this content. Returns whether the daemon would start with it, and what is wrong with it, in
/// words.
#[must_use]
pub fn settings(content: &[u8]) -> (bool, Vec<String>) {
    let report = Report::default();
    let object = settings::parse(content, Path::new("settings.json"), &report);
    let is_object = object.is_some();
    let text = object.map(|object| settings::Text {
        object: Arc::new(object),
        ..settings::Text::default()
    });
    let (loaded, problems) = settings::load_text(text, &backends::table(), None, report);
    let words = problems.iter().map(ToString::to_string).collect();
    (is_object && loaded.is_some(), words)
}

/// Reads a question of the command line to the daemon.
pub fn question(line: &[u8]) {
    drop(serde_json::from_slice::<Question>(line));
}

/// Reads a unit file of systemd.
pub fn unit(text: &str) {
    Service::default().read(text);
}

/// As many as a target's input has lines.
const MOST_RECORDS: usize = 1_000;
