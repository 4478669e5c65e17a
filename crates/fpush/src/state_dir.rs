//! What must survive a restart, in `stateDirectory`: block lists, acknowledged pushes that are held (`spool.rs`), what
//! providers said against tokens, the domains of which pushes were accepted, and what is known of the database of registered
//! devices.
//!
//! The head of the block list holds the key under which tokens are hashed; the tokens of held pushes are in their file as
//! they are, because they have to be sent. All can be read by fpush alone.

mod folder;
mod remembered;
mod schedule;
mod spool;

use std::{io, path::Path, sync::Arc, time::Duration};

use fpush_driver::{Module, Senders, clocks};
use fpush_policy::{BlockRecord, HeldRecord, HomeRecord, KnownDomain, VerdictPlace, VerdictRecord};
use fpush_push::{Delivery, TokenHasher, metrics::WordCounters};
use serde::{Deserialize, Serialize};
use tokio::{
    task::{JoinHandle, spawn_blocking, yield_now},
    time::{Instant, timeout},
};
use tracing::{error, info};

use self::{
    folder::{StateFile, StateFolder},
    schedule::SaveSchedule,
    spool::Spool,
};
pub(crate) use self::{
    folder::{examine, read_records},
    remembered::Remembered,
    spool::NAME as SPOOL,
};
use crate::registration::{self, KnownChange};

/// A module and its type in the settings.
#[derive(Clone)]
pub(crate) struct TypedModule {
    pub(crate) module: Arc<Module>,
    pub(crate) module_type: &'static str,
}

/// `stateDirectory` in use.
pub(crate) struct StateDir {
    folder: Arc<StateFolder>,
    senders: Senders,
    blocks: SaveSchedule,
    verdicts: SaveSchedule,
    homes: SaveSchedule,
    domains: SaveSchedule,
    registry: SaveSchedule,
    /// What is known of the database of registered devices.
    known: Option<KnownChange>,
    /// Writes of files by result.
    writes: Arc<WordCounters>,
    /// What writes, and since when.
    writing: Option<(JoinHandle<Vec<Written>>, Instant)>,
    /// That it does not end, in words.
    stuck: Option<String>,
    /// Why held pushes cannot be written down.
    spool_trouble: Option<String>,
}

/// A file to write, with the records of all modules.
enum Snapshot {
    /// The block lists, and the key under which their tokens are hashed.
    Blocks(Hashed, Vec<Of<BlockRecord>>),
    /// What providers said against tokens.
    Verdicts(Vec<Of<VerdictRecord>>),
    /// Where tokens are at home.
    Homes(Vec<Of<HomeRecord>>),
    /// The known domains, in parts.
    Domains(Vec<Vec<KnownDomain>>),
    /// What is known of the database of registered devices.
    Registry(KnownChange),
}

/// The records of one module in parts, with its name and its type.
type Of<T> = (String, String, Vec<Vec<T>>);

/// What became of a [`Snapshot`].
type Written = (StateFile, io::Result<()>);

/// The head of the block list.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Hashed {
    /// Under which the tokens are hashed.
    key: [u8; 16],
    /// Under which the domains are; the same if it is not there.
    #[serde(default)]
    domains: Option<[u8; 16]>,
}

impl Hashed {
    fn of(hasher: &TokenHasher) -> Self {
        Self {
            key: hasher.key(),
            domains: Some(hasher.domain_key()),
        }
    }

    fn hasher(&self) -> TokenHasher {
        TokenHasher::with_keys(self.key, self.domains.unwrap_or(self.key))
    }
}

/// The head of a file that needs none.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plain {}

/// A line: the module, its type, and the record.
pub(crate) type Line<T> = (String, String, T);

/// What is known of the database of registered devices, as far as that can be read while the folder is not ours.
pub(crate) fn peek_known(folder: &Path) -> Option<KnownChange> {
    if cfg!(feature = "enable_registration") {
        folder::peek(folder, REGISTRY)
    } else {
        None
    }
}

impl StateDir {
    /// Opens the folder, makes it if it is not there, and reads what was written before. Returns what knows the
    /// domains, with the hasher of tokens whose fingerprints are in the files.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, or another fpush uses it. The text says what to do.
    pub(crate) fn open(folder: &Path, now: Instant) -> anyhow::Result<(Self, Senders, Remembered)> {
        let dir = Arc::new(StateFolder::open(folder)?);
        let blocks = dir.read::<Hashed, _, _>(BLOCKS, Some::<Line<BlockRecord>>);
        let sane = |line: Line<HeldRecord>| line.2.is_sane().then_some(line);
        let held = dir.read::<Plain, _, _>(HELD, sane).records;
        let writes = Arc::<WordCounters>::default();
        let mut spool = Spool::open(&dir, Arc::clone(&writes))?;
        if !held.is_empty() {
            anyhow::ensure!(
                spool.take_over(held),
                "cannot write what is held to stateDirectory {}: is its disk full?",
                folder.display()
            );
        }
        if let Err(e) = dir.remove(HELD) {
            error!("cannot remove {} from stateDirectory: {e}", HELD.name);
        }
        let verdicts = dir.read::<Plain, _, _>(VERDICTS, Some::<Line<VerdictRecord>>);
        let homes = dir.read::<Plain, _, _>(HOMES, Some::<Line<HomeRecord>>);
        let known = if cfg!(feature = "enable_registration") {
            dir.read::<KnownChange, Plain, Plain>(REGISTRY, Some).head
        } else {
            None
        };
        let domains = dir.read::<Plain, _, _>(DOMAINS, Some::<KnownDomain>);
        let (senders, verdicts, homes) = match blocks.head {
            Some(hashed) => {
                let senders = Senders::new(hashed.hasher());
                senders.remember(domains.records);
                (senders, verdicts.records, homes.records)
            }
            // Under another key nothing is found again.
            None => (Senders::new(TokenHasher::new()?), Vec::new(), Vec::new()),
        };
        let remembered = Remembered::new(blocks.records, verdicts, homes, spool);
        let state = Self {
            folder: dir,
            senders: senders.clone(),
            blocks: SaveSchedule::new(BLOCKS, BLOCKS_INTERVAL, now),
            verdicts: SaveSchedule::new(VERDICTS, VERDICTS_INTERVAL, now),
            homes: SaveSchedule::new(HOMES, HOMES_INTERVAL, now),
            domains: SaveSchedule::new(DOMAINS, DOMAINS_INTERVAL, now),
            registry: SaveSchedule::new(REGISTRY, REGISTRY_INTERVAL, now),
            known,
            writes,
            writing: None,
            stuck: None,
            spool_trouble: None,
        };
        Ok((state, senders, remembered))
    }

    /// Why nothing can be written, in words.
    pub(crate) fn trouble(&self) -> Option<&str> {
        let all = [
            &self.blocks,
            &self.verdicts,
            &self.homes,
            &self.domains,
            &self.registry,
        ];
        let first = all.iter().find_map(|schedule| schedule.trouble.as_deref());
        let spool = self.spool_trouble.as_deref();
        spool.or(self.stuck.as_deref()).or(first)
    }

    /// Writes of files by result.
    pub(crate) fn writes(&self) -> &Arc<WordCounters> {
        &self.writes
    }

    /// What is known of the database of registered devices.
    pub(crate) fn known(&self) -> Option<&KnownChange> {
        self.known.as_ref()
    }

    /// This is known of it now.
    pub(crate) fn set_known(&mut self, known: Option<KnownChange>) {
        self.known = known;
    }

    /// Writes what has changed, if it is time; somewhere else, without waiting for it. To be called once a second.
    pub(crate) async fn tick(&mut self, modules: &[TypedModule], remembered: &Remembered, now: Instant) {
        self.spool_trouble = remembered.spool().and_then(Spool::trouble);
        if let Some((writing, _)) = self.writing.take_if(|(writing, _)| writing.is_finished()) {
            self.record_result(writing.await.unwrap_or_default(), now);
            if self.stuck.take().is_some() {
                info!("stateDirectory: writing has ended");
            }
        }
        if let Some((_, began)) = &self.writing {
            if self.stuck.is_none() && now.duration_since(*began) >= STUCK {
                let folder = self.folder.path().display();
                let trouble = format!(
                    "writing in stateDirectory {folder} does not end; pushes go on, but what is held would not survive a \
                     restart: does the disk, or the server that it is on, still answer?"
                );
                error!("{trouble}");
                self.stuck = Some(trouble);
            }
            return;
        }
        let snapshots = self.snapshots(modules, Some(now)).await;
        if !snapshots.is_empty() {
            let dir = Arc::clone(&self.folder);
            self.writing = Some((spawn_blocking(move || write_all(&dir, &snapshots)), now));
        }
    }

    /// Writes everything before the daemon ends. Returns whether what is held is on disk.
    pub(crate) async fn close(mut self, modules: &[TypedModule], remembered: &Remembered) -> bool {
        let flushed = remembered.spool().map(Spool::flush);
        let closing = async {
            if let Some((writing, _)) = self.writing.take() {
                self.record_result(writing.await.unwrap_or_default(), Instant::now());
            }
            // What was being gathered when the end began is not written.
            for schedule in [
                &mut self.blocks,
                &mut self.verdicts,
                &mut self.homes,
                &mut self.domains,
                &mut self.registry,
            ] {
                schedule.written.clear();
            }
            let (snapshots, dir) = (self.snapshots(modules, None).await, Arc::clone(&self.folder));
            let written = spawn_blocking(move || write_all(&dir, &snapshots)).await;
            self.record_result(written.unwrap_or_default(), Instant::now());
        };
        let flushing = async {
            match flushed {
                Some(flushed) => flushed.await.unwrap_or(false),
                None => false,
            }
        };
        let (closed, kept) = tokio::join!(timeout(CLOSING, closing), timeout(CLOSING, flushing));
        if closed.is_err() || kept.is_err() {
            error!("stateDirectory: writing does not end; what changed last is lost");
        }
        kept.unwrap_or(false)
    }

    /// The files whose content has changed, those only whose time has come if there is a `now`.
    async fn snapshots(&mut self, modules: &[TypedModule], now: Option<Instant>) -> Vec<Snapshot> {
        let is_due = |schedule: &SaveSchedule| now.is_none_or(|now| schedule.next <= now);
        let clocks = clocks();
        let mut snapshots = Vec::new();
        // What a shadow holds must not be sent by the daemon that comes after it.
        let is_real = |typed: &&TypedModule| typed.module.delivery() == Delivery::Real;
        let modules: Vec<_> = modules.iter().filter(is_real).cloned().collect();
        let modules = &*modules;
        let changes = |which: usize| {
            modules
                .iter()
                .map(|typed| typed.module.changes()[which])
                .collect::<Vec<_>>()
        };
        // Under another key what was written is not found again.
        let key = u128::from_le_bytes(self.senders.hasher().key());
        let block_changes = [changes(0), vec![key as u64, (key >> 64) as u64]].concat();
        if is_due(&self.blocks) && self.blocks.has_changed(block_changes, now) {
            let blocks = records(modules, 0, |module, from| module.blocks(from, clocks)).await;
            snapshots.push(Snapshot::Blocks(Hashed::of(self.senders.hasher()), blocks));
        }
        if is_due(&self.verdicts) && self.verdicts.has_changed(changes(1), now) {
            let start = VerdictPlace::default();
            let verdicts = records(modules, start, |module, from| module.verdicts(from, clocks)).await;
            snapshots.push(Snapshot::Verdicts(verdicts));
        }
        if is_due(&self.homes) && self.homes.has_changed(changes(2), now) {
            let homes = records(modules, 0, Module::homes).await;
            snapshots.push(Snapshot::Homes(homes));
        }
        if is_due(&self.domains) && self.domains.has_changed(vec![self.senders.changes()], now) {
            let domains = parts(0, |from| self.senders.known(from)).await;
            snapshots.push(Snapshot::Domains(domains));
        }
        if let Some(known) = &self.known
            && is_due(&self.registry)
            && self.registry.has_changed(registration::version(known), now)
        {
            snapshots.push(Snapshot::Registry(known.clone()));
        }
        snapshots
    }

    fn record_result(&mut self, written: Vec<Written>, now: Instant) {
        for (file, result) in written {
            let Some(schedule) = [
                &mut self.blocks,
                &mut self.verdicts,
                &mut self.homes,
                &mut self.domains,
                &mut self.registry,
            ]
            .into_iter()
            .find(|schedule| schedule.file == file) else {
                continue;
            };
            let before = schedule.trouble.take();
            match result {
                Ok(()) => {
                    self.writes.increment("ok");
                    // A short file may find room where a long one does not.
                    if before.is_some() && self.trouble().is_none() {
                        info!("stateDirectory can be written to again");
                    }
                }
                Err(e) => {
                    self.writes.increment("failed");
                    let folder = self.folder.path().display();
                    let trouble = format!(
                        "cannot write {} in stateDirectory {folder}: {e}; pushes go on, but what is held would not \
                         survive a restart: is the disk full, does the folder belong to fpush's user?",
                        file.name
                    );
                    error!("{trouble}");
                    schedule.trouble = Some(trouble);
                    schedule.written.clear();
                    schedule.next = schedule.next.min(now + RETRY_INTERVAL);
                }
            }
        }
    }
}

impl Snapshot {
    fn write(&self, dir: &StateFolder) -> Written {
        match self {
            Self::Blocks(hashed, blocks) => {
                let in_order = |parts: &[Vec<BlockRecord>]| {
                    let mut blocks: Vec<_> = parts.iter().flatten().copied().collect();
                    blocks.sort_unstable_by_key(BlockRecord::start);
                    blocks
                };
                (BLOCKS, write(dir, BLOCKS, *hashed, blocks, in_order))
            }
            Self::Verdicts(verdicts) => {
                let all = |parts: &[Vec<VerdictRecord>]| parts.concat();
                (VERDICTS, write(dir, VERDICTS, Plain {}, verdicts, all))
            }
            Self::Homes(homes) => {
                let all = |parts: &[Vec<HomeRecord>]| parts.concat();
                (HOMES, write(dir, HOMES, Plain {}, homes, all))
            }
            Self::Domains(domains) => {
                let write = dir.write(DOMAINS, Plain {}, |lines| {
                    domains
                        .iter()
                        .flatten()
                        .try_for_each(|domain| lines.write(domain))
                });
                (DOMAINS, write)
            }
            Self::Registry(known) => (REGISTRY, dir.write(REGISTRY, known, |_| Ok(()))),
        }
    }
}

/// The records of all modules.
async fn records<T, P: Copy>(
    modules: &[TypedModule],
    start: P,
    part: impl Fn(&Module, P) -> (Vec<T>, Option<P>),
) -> Vec<Of<T>> {
    let mut all = Vec::with_capacity(modules.len());
    for TypedModule { module, module_type } in modules {
        let parts = parts(start, |from| part(module, from)).await;
        all.push((module.name().to_owned(), (*module_type).to_owned(), parts));
    }
    all
}

/// Records part by part. Between two parts pushes go on: to copy a hundred thousand records at a time would hold them up.
async fn parts<T, P>(start: P, part: impl Fn(P) -> (Vec<T>, Option<P>)) -> Vec<Vec<T>> {
    let (mut parts, mut from) = (Vec::new(), Some(start));
    while let Some(place) = from {
        let records;
        (records, from) = part(place);
        parts.push(records);
        yield_now().await;
    }
    parts
}

fn write_all(dir: &StateFolder, snapshots: &[Snapshot]) -> Vec<Written> {
    snapshots.iter().map(|snapshot| snapshot.write(dir)).collect()
}

fn write<T, R: Serialize>(
    dir: &StateFolder,
    file: StateFile,
    head: impl Serialize,
    records: &[Of<T>],
    ready: impl Fn(&[Vec<T>]) -> Vec<R>,
) -> io::Result<()> {
    dir.write(file, head, |lines| {
        for (module, module_type, parts) in records {
            for record in ready(parts) {
                lines.write(&(module, module_type, record))?;
            }
        }
        Ok(())
    })
}

const BLOCKS: StateFile = StateFile {
    name: "blocklist.jsonl",
    most: 4_000_000,
};
const HELD: StateFile = StateFile {
    name: "held.jsonl",
    most: 20_000_000,
};
const REGISTRY: StateFile = StateFile {
    name: "registry.jsonl",
    most: 0,
};
/// What is forgotten of the database of registered devices is a restored backup that nobody notices.
const REGISTRY_INTERVAL: Duration = Duration::from_secs(1);
const VERDICTS: StateFile = StateFile {
    name: "verdicts.jsonl",
    most: 20_000_000,
};
const HOMES: StateFile = StateFile {
    name: "environments.jsonl",
    most: 4_000_000,
};
/// What is forgotten of it costs a request more.
const HOMES_INTERVAL: Duration = Duration::from_secs(60);
const DOMAINS: StateFile = StateFile {
    name: "domains.jsonl",
    most: 100_000,
};
/// A domain that is forgotten is known again when the next push of it is accepted.
const DOMAINS_INTERVAL: Duration = Duration::from_secs(600);
/// What is forgotten of the block list is asked of the provider once more.
const BLOCKS_INTERVAL: Duration = Duration::from_secs(60);
/// What is forgotten of a word against a token is said once more.
const VERDICTS_INTERVAL: Duration = Duration::from_secs(60);
/// A file system that does not answer for so long is a problem.
const STUCK: Duration = Duration::from_secs(30);
/// That long the end of the daemon waits for it; the drain has taken up to seven and a half seconds of ten.
pub(crate) const CLOSING: Duration = Duration::from_secs(2);
/// After a failure, however long the usual interval is.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, fs, os::unix::fs::PermissionsExt as _};

    use fpush_driver::{Admission, Drain};
    use fpush_policy::{LastAccepted, ModuleSettings};
    use fpush_push::{
        BackendStatus, Choice, Class, Failure, Outcome, Push, PushError, PushTrait, Request, Sending,
        Urgency, Verifying,
        settings::{Report, Section},
    };
    use fpush_testkit::TempDir;

    use super::*;

    #[test]
    fn one_folder_serves_one_daemon() {
        let dir = TempDir::new();
        let folder = dir.path().join("state");
        let now = Instant::now();
        let (state, senders, _) = StateDir::open(&folder, now).unwrap();
        let refused = StateDir::open(&folder, now).err().unwrap().to_string();
        assert!(refused.contains("another fpush uses"), "{refused}");
        drop(state);
        let (_, other, _) = StateDir::open(&folder, now).unwrap();
        assert_ne!(
            senders.hasher().key(),
            other.hasher().key(),
            "nothing was written"
        );
    }

    #[tokio::test]
    async fn the_key_survives_and_nobody_else_reads_the_files() {
        let dir = TempDir::new();
        let now = Instant::now();
        let (state, senders, _) = StateDir::open(dir.path(), now).unwrap();
        state
            .close(&[typed(module(&senders))], &Remembered::default())
            .await;
        for file in [BLOCKS.name, spool::NAME, "lock"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let (_, again, _) = StateDir::open(dir.path(), now).unwrap();
        assert_eq!(senders.hasher().key(), again.hasher().key());
    }

    #[tokio::test]
    async fn domains_stay_known_under_another_key_of_tokens() {
        let dir = TempDir::new();
        let now = Instant::now();
        let (state, senders, _) = StateDir::open(dir.path(), now).unwrap();
        senders.note_accepted(&senders.domain("example.org"));
        senders.hasher().set_key([9; 16]);
        state
            .close(&[typed(module(&senders))], &Remembered::default())
            .await;
        let (_, again, _) = StateDir::open(dir.path(), now).unwrap();
        assert_eq!(again.hasher().key(), [9; 16]);
        assert_eq!(again.domain("example.org").last_accepted, LastAccepted::Today);
        // As it was written before domains had a key of their own.
        let before: Hashed = serde_json::from_str(&format!("{{\"key\":{:?}}}", [7; 16])).unwrap();
        assert_eq!(
            before.hasher().domain("a"),
            TokenHasher::with_key([7; 16]).domain("a")
        );
    }

    #[tokio::test]
    async fn a_module_of_the_same_name_and_type_gets_everything_back() {
        let dir = TempDir::new();
        let now = Instant::now();
        let (state, senders, mut remembered) = StateDir::open(dir.path(), now).unwrap();
        let known = module(&senders);
        remembered.tell(&known, "demo");
        // A provider is believed that has accepted pushes for others.
        for other in 0..10 {
            publish(&known, &format!("other-{other}")).await;
        }
        publish(&known, "dead").await;
        for _ in 0..2 {
            publish(&known, "alive").await;
        }
        assert!(state.close(&[typed(known)], &remembered).await);
        drop(remembered);
        for (kind, held, dead) in [("demo", 1, true), ("apple", 0, false)] {
            let (_memory, senders, mut remembered) = StateDir::open(dir.path(), now).unwrap();
            let module = module(&senders);
            remembered.tell(&module, kind);
            assert_eq!(module.held(), held, "{kind}");
            let verdict = module.admit(request("dead"), now);
            let blocked = matches!(verdict, Admission::Answered(Outcome::TokenDead));
            assert_eq!(blocked, dead, "{kind}: {verdict:?}");
            assert_eq!(remembered.held(), 1 - held, "the rest waits for its module");
        }
    }

    #[tokio::test]
    async fn a_domain_is_known_after_a_restart() {
        let dir = TempDir::new();
        let start = Instant::now();
        let (mut state, senders, _) = StateDir::open(dir.path(), start).unwrap();
        let modules = [typed(module(&senders))];
        publish(&modules[0].module, "t").await;
        assert_eq!(senders.domain("a.example").last_accepted, LastAccepted::Today);
        let mut due = async |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            state.tick(&modules, &Remembered::default(), now).await;
            if let Some((writing, _)) = state.writing.take() {
                state.record_result(writing.await.unwrap(), now);
            }
            let file = dir.path().join(DOMAINS.name);
            (file.exists(), fs::rename(file, dir.path().join("kept")).is_ok())
        };
        assert_eq!(due(599).await, (false, false));
        assert_eq!(due(600).await, (true, true));
        publish(&modules[0].module, "other").await;
        assert_eq!(due(1_200).await, (false, false), "it was noted today");
        state.close(&modules, &Remembered::default()).await;
        let known = |name: &str| {
            let (_state, senders, _) = StateDir::open(dir.path(), start).unwrap();
            senders.domain(name).last_accepted
        };
        let (today, never) = (LastAccepted::Today, LastAccepted::Never);
        assert_eq!((known("a.example"), known("b.example")), (today, never));
        fs::remove_file(dir.path().join(BLOCKS.name)).unwrap();
        assert_eq!(
            known("a.example"),
            never,
            "without the key nothing is found again"
        );
    }

    /// A crash costs a minute of blocks.
    #[tokio::test]
    async fn each_file_is_written_when_it_is_due_and_only_if_there_is_news() {
        let dir = TempDir::new();
        let start = Instant::now();
        let (mut state, senders, _) = StateDir::open(dir.path(), start).unwrap();
        let modules = [typed(module(&senders))];
        publish(&modules[0].module, "dead").await;
        let mut due = async |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            state.tick(&modules, &Remembered::default(), now).await;
            if let Some((writing, _)) = state.writing.take() {
                state.record_result(writing.await.unwrap(), now);
            }
            publish(&modules[0].module, &format!("token-{seconds}")).await;
            fs::remove_file(dir.path().join(BLOCKS.name)).is_ok()
        };
        assert!(!due(59).await);
        assert!(due(60).await);
        assert!(!due(120).await, "nothing was blocked since");
    }

    /// A full disk leaves what there was, and the next attempt makes up for it.
    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let dir = TempDir::new();
        let start = Instant::now();
        let (mut state, senders, _) = StateDir::open(dir.path(), start).unwrap();
        let modules = [typed(module(&senders))];
        // In the place of the file that is to be renamed.
        fs::create_dir(dir.path().join("blocklist.new")).unwrap();
        let mut due = async |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            state.tick(&modules, &Remembered::default(), now).await;
            let (writing, _) = state.writing.take().unwrap();
            state.record_result(writing.await.unwrap(), now);
            state.trouble().map(str::to_owned)
        };
        let trouble = due(60).await.unwrap();
        assert!(
            trouble.starts_with("cannot write blocklist.jsonl in stateDirectory"),
            "{trouble}"
        );
        assert!(!dir.path().join(BLOCKS.name).exists());
        fs::remove_dir(dir.path().join("blocklist.new")).unwrap();
        assert_eq!(due(65).await, None);
        assert!(dir.path().join(BLOCKS.name).exists());
    }

    #[test]
    fn trouble_lasts_until_the_file_that_failed_is_written_and_that_is_tried_soon() {
        let dir = TempDir::new();
        let now = Instant::now();
        let (mut state, _, _) = StateDir::open(dir.path(), now).unwrap();
        let full = || Err(io::ErrorKind::StorageFull.into());
        state.record_result(vec![(BLOCKS, full()), (VERDICTS, Ok(()))], now);
        assert!(state.trouble().unwrap().contains(BLOCKS.name));
        assert!(state.blocks.next <= now + RETRY_INTERVAL);
        state.record_result(vec![(VERDICTS, full())], now);
        state.record_result(vec![(BLOCKS, Ok(()))], now);
        assert!(state.trouble().unwrap().contains(VERDICTS.name));
        state.record_result(vec![(VERDICTS, Ok(()))], now);
        assert_eq!(state.trouble(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_put_aside_and_costs_nothing_else() {
        let dir = TempDir::new();
        let now = Instant::now();
        let (state, senders, _) = StateDir::open(dir.path(), now).unwrap();
        state
            .close(&[typed(module(&senders))], &Remembered::default())
            .await;
        dir.write(BLOCKS.name, "nonsense");
        let (_memory, other, _) = StateDir::open(dir.path(), now).unwrap();
        assert_ne!(
            senders.hasher().key(),
            other.hasher().key(),
            "the key was not readable either"
        );
        assert_eq!(
            fs::read(dir.path().join("blocklist.unreadable")).unwrap(),
            b"nonsense"
        );
    }

    fn typed(module: Arc<Module>) -> TypedModule {
        TypedModule {
            module,
            module_type: "demo",
        }
    }

    fn module(senders: &Senders) -> Arc<Module> {
        let (report, empty) = (Report::default(), serde_json::Map::new());
        let settings = ModuleSettings::read(&mut Section::root(&empty, &report));
        Module::new(
            "m",
            Box::new(Provider),
            settings,
            senders.clone(),
            Drain::default(),
        )
    }

    fn request(token: &str) -> Request<'_> {
        Request {
            token,
            choice: Choice::Named,
            urgency: Urgency::High,
            count: None,
            domain: "a.example",
            registered: None,
        }
    }

    async fn publish(module: &Arc<Module>, token: &str) {
        match module.admit(request(token), Instant::now()) {
            Admission::Answered(_) => {}
            Admission::Admitted(admitted) => drop(admitted.deliver().await),
        }
    }

    /// Knows one dead token.
    struct Provider;

    impl PushTrait for Provider {
        fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
            Some(token.into())
        }

        fn class(&self, _urgency: Urgency) -> Class {
            Class::High
        }

        fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
            Box::pin(async {
                if push.token.as_str() == "dead" {
                    let gone = PushError::TokenGone { since: None };
                    Err(Failure::new(gone, "gone", "it is gone", ""))
                } else {
                    Ok(())
                }
            })
        }

        fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
            Box::pin(async { Ok(Cow::Borrowed("nobody asks")) })
        }

        fn status(&self) -> BackendStatus {
            BackendStatus::default()
        }
    }
}
