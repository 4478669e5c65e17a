//! One run of the daemon, from start to end or crash: what `fpush` does with modules, component and state directory, without
//! its files.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use fpush_component::{Component, Handle, LinkSettings, LinkStep, Push2Settings};
use fpush_driver::{Acknowledge, Drain, HeldStore, Liveness, Module, Modules, Part, Read, Senders, clocks};
use fpush_policy::{
    BlockRecord, HeldChange, HeldRecord, KnownDomain, ModuleSettings, RelayLimits, VerdictPlace,
    VerdictRecord,
};
use fpush_push::{
    Devices, Outcome, TokenHasher,
    settings::{Report, Section},
};
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    books::{Millis, SECOND, Shared},
    device::Kind,
    provider::Backend,
    registry::Registry,
    server::Net,
    stanzas::COMPONENT,
};

/// A module of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModuleValue {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) app: usize,
    pub(crate) credential: u128,
    pub(crate) is_default: bool,
    pub(crate) max_in_flight: usize,
    /// In seconds.
    pub(crate) spacing: u64,
    pub(crate) acknowledges_refused: bool,
}

impl ModuleValue {
    fn settings(&self) -> ModuleSettings {
        let text = json!({
            "maxInFlight": self.max_in_flight,
            // Each credential is one for which the operator thinks differently of that.
            "holdFor": if self.credential.is_multiple_of(3) { "0s" } else { "20min" },
            "ratelimit": {
                "ratelimitTime": format!("{}s", self.spacing),
                "refusedReply": if self.acknowledges_refused { "result" } else { "wait" },
            },
        });
        let Value::Object(text) = text else {
            unreachable!("it is an object")
        };
        let report = Report::default();
        ModuleSettings::read(&mut Section::root(&text, &report))
    }
}

/// What is on disk.
#[derive(Default)]
pub(crate) struct Disk {
    /// Under which tokens are hashed; written with the blocks.
    key: Option<[u8; 16]>,
    blocks: BTreeMap<Name, Vec<String>>,
    held: Arc<Mutex<HeldFiles>>,
    verdicts: BTreeMap<Name, Vec<String>>,
    domains: Vec<KnownDomain>,
    pub(crate) blocks_at: Millis,
}

impl Disk {
    /// One that takes so long for each thing that is written or read.
    pub(crate) fn new(latency: Millis) -> Self {
        let held = HeldFiles {
            latency,
            ..HeldFiles::default()
        };
        Self {
            held: Arc::new(Mutex::new(held)),
            ..Self::default()
        }
    }

    /// The daemon has ended, however it did: nothing more is written.
    pub(crate) fn daemon_has_ended(&self) {
        let mut held = self.held.lock().expect("nobody panics with it");
        held.ended += 1;
        held.queue.clear();
    }
}

/// What a module holds, by number.
type Held = BTreeMap<u64, HeldRecord>;

/// Where all modules write down what they hold: one after the other, and each takes its time.
#[derive(Default)]
struct HeldFiles {
    by_module: BTreeMap<Name, Held>,
    /// What is to be done yet, in its order, and when it is done. A crash forgets it.
    queue: VecDeque<(Instant, Name, Work)>,
    /// How long each takes.
    latency: Millis,
    /// How many daemons have ended: what they have left over changes nothing.
    ended: u64,
}

enum Work {
    Write(Vec<HeldChange>, Option<Acknowledge>),
    ReadPart(u64, usize, oneshot::Sender<Part>),
    Read(Vec<u64>, oneshot::Sender<Read>),
}

impl HeldFiles {
    /// Does what is done by then.
    fn work(&mut self, until: Option<Instant>) {
        let is_done = |(at, ..): &(Instant, Name, Work)| until.is_none_or(|until| *at <= until);
        while self.queue.front().is_some_and(is_done)
            && let Some((_, name, work)) = self.queue.pop_front()
        {
            let held = self.by_module.entry(name).or_default();
            match work {
                Work::Write(changes, acknowledge) => {
                    for change in changes {
                        change.apply(held);
                    }
                    acknowledge.map(|acknowledge| acknowledge.send(true));
                }
                Work::ReadPart(from, most, sender) => {
                    let part = held.range(from..).take(most);
                    drop(sender.send(part.map(|(number, record)| (*number, record.clone())).collect()));
                }
                Work::Read(numbers, sender) => {
                    let read = |number: u64| (number, held.get(&number).cloned());
                    drop(sender.send(numbers.into_iter().map(read).collect()));
                }
            }
        }
    }
}

/// Where a module writes down what it holds.
struct HeldFile {
    name: Name,
    held: Arc<Mutex<HeldFiles>>,
    ended_before: u64,
}

impl HeldFile {
    fn order(&self, work: Work) {
        let mut held = self.held.lock().expect("nobody panics with it");
        if held.ended != self.ended_before {
            return;
        }
        let now = Instant::now();
        let done = now + Duration::from_millis(held.latency);
        held.queue.push_back((done, self.name, work));
        if done == now {
            return held.work(Some(now));
        }
        drop(held);
        let held = Arc::clone(&self.held);
        tokio::spawn(async move {
            sleep_until(done).await;
            held.lock().expect("nobody panics with it").work(Some(done));
        });
    }
}

impl HeldStore for HeldFile {
    fn write(&self, changes: Vec<HeldChange>, acknowledge: Option<Acknowledge>) {
        self.order(Work::Write(changes, acknowledge));
    }

    fn has_unwritten(&self) -> bool {
        let held = self.held.lock().expect("nobody panics with it");
        held.queue.iter().any(|(_, name, _)| *name == self.name)
    }

    fn read_part(&self, from: u64, most: usize) -> oneshot::Receiver<Part> {
        let (sender, reading) = oneshot::channel();
        self.order(Work::ReadPart(from, most, sender));
        reading
    }

    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<Read> {
        let (sender, reading) = oneshot::channel();
        self.order(Work::Read(numbers, sender));
        reading
    }
}

/// A module, and its type.
type Name = (&'static str, &'static str);

struct Running {
    module: Arc<Module>,
    value: ModuleValue,
    /// What it held when it began.
    remembered: u64,
}

pub(crate) struct Daemon {
    books: Shared,
    table: Arc<Modules>,
    active: Vec<Running>,
    retired: Vec<Running>,
    senders: Senders,
    drain: Drain,
    liveness: Arc<Liveness>,
    handle: Handle,
    component: JoinHandle<()>,
    instances: u64,
    asked: Millis,
    asks_every: Millis,
    /// With which changes files were written.
    written_blocks: Vec<[u64; 3]>,
    held: Arc<Mutex<HeldFiles>>,
}

impl Daemon {
    pub(crate) fn start(books: &Shared, net: &Net, settings: &[ModuleValue], disk: &Disk) -> Self {
        let senders = Senders::new(match disk.key {
            Some(key) => TokenHasher::with_key(key),
            None => TokenHasher::new().expect("chance is at hand"),
        });
        senders.remember(disk.domains.iter().copied());
        let (drain, liveness, table) = (
            Drain::default(),
            Arc::new(Liveness::new()),
            Arc::new(Modules::default()),
        );
        let devices: Arc<dyn Devices> = Arc::new(Registry(books.clone()));
        let (component, handle) = Component::new(
            Arc::clone(&table),
            Some(devices),
            senders.clone(),
            drain.clone(),
            Arc::clone(&liveness),
        );
        handle.set_links(&[], vec![(link_settings(), LinkStep::Open)]);
        let (now, asks_every) = {
            let books = books.lock();
            (books.now(), books.asks_every)
        };
        let mut daemon = Self {
            books: books.clone(),
            table,
            active: Vec::new(),
            retired: Vec::new(),
            senders,
            drain,
            liveness,
            handle,
            component: tokio::task::spawn_local(component.run_over(net.clone())),
            instances: now << 8,
            asked: now,
            asks_every,
            written_blocks: Vec::new(),
            held: Arc::clone(&disk.held),
        };
        daemon.apply(settings, Some(disk));
        // What is held for modules that are not in the settings any more is lost, and the log says so.
        let is_there = |name: &Name| {
            let mut names = settings.iter().map(|value| (value.name, value.kind.name()));
            names.any(|value| value == *name)
        };
        let mut held = disk.held.lock().expect("nobody panics with it");
        let held = &mut held.by_module;
        for record in held
            .iter()
            .filter(|(name, _)| !is_there(name))
            .flat_map(|(_, held)| held.values())
        {
            books.lock().counted_as_lost_of(record.token());
        }
        held.retain(|name, _| is_there(name));
        daemon
    }

    /// Goes on with other settings.
    pub(crate) fn reload(&mut self, settings: &[ModuleValue]) {
        self.apply(settings, None);
    }

    fn apply(&mut self, settings: &[ModuleValue], disk: Option<&Disk>) {
        let mut active = Vec::new();
        let mut default = None;
        for value in settings {
            let known = take(&mut self.active, value);
            let running = match known {
                Some(same) if same.value == *value => same,
                known => self.with_new_backend(value, known, disk),
            };
            if value.is_default {
                default = Some(Arc::clone(&running.module));
            }
            active.push(running);
        }
        let modules = active.iter().map(|running| Arc::clone(&running.module)).collect();
        self.table.set(modules, default);
        for running in mem::replace(&mut self.active, active) {
            running.module.retire();
            self.retired.push(running);
        }
    }

    fn with_new_backend(
        &mut self,
        value: &ModuleValue,
        known: Option<Running>,
        disk: Option<&Disk>,
    ) -> Running {
        let settings = value.settings();
        self.instances += 1;
        self.books.lock().replaced(value, self.instances);
        let backend = Box::new(Backend {
            books: self.books.clone(),
            module: value.name,
            app: value.app,
            kind: value.kind,
            credential: value.credential,
            instance: self.instances,
        });
        let known = known.or_else(|| {
            let place = self
                .retired
                .iter()
                .position(|running| is_of(running, value) && running.module.resume())?;
            Some(self.retired.swap_remove(place))
        });
        if let Some(running) = known {
            running.module.replace(backend, settings);
            return Running {
                value: value.clone(),
                ..running
            };
        }
        self.books.lock().ledger.forget_windows();
        let module = Module::new(
            value.name,
            backend,
            settings,
            self.senders.clone(),
            self.drain.clone(),
        );
        let name = (value.name, value.kind.name());
        let mut files = self.held.lock().expect("nobody panics with it");
        let store = HeldFile {
            name,
            held: Arc::clone(&self.held),
            ended_before: files.ended,
        };
        let mut held = Held::new();
        if let Some(disk) = disk {
            held = files.by_module.get(&name).cloned().unwrap_or_default();
            let mut blocks: Vec<BlockRecord> = read(&disk.blocks, name);
            blocks.sort_unstable_by_key(BlockRecord::start);
            let verdicts: Vec<VerdictRecord> = if disk.key.is_some() {
                read(&disk.verdicts, name)
            } else {
                Vec::new()
            };
            module.remember(blocks, verdicts, clocks());
        } else {
            // What a module of this name held has been sent, or counted as lost.
            files.work(None);
            files.by_module.remove(&name);
        }
        drop(files);
        let remembered = held.len() as u64;
        module.keep_in(Arc::new(store), 0);
        let mut gone = Vec::new();
        for (number, record) in held {
            if !module.remember_held(number, record, clocks()) {
                gone.push(number);
            }
        }
        let mut files = self.held.lock().expect("nobody panics with it");
        if let Some(held) = files.by_module.get_mut(&name) {
            held.retain(|number, _| !gone.contains(number));
        }
        drop(files);
        module.has_remembered();
        let probe = self.liveness.probe(value.name);
        self.drain.spawn(Arc::clone(&module).run(probe));
        tokio::spawn(module.prove(Duration::from_secs(2)));
        Running {
            module,
            value: value.clone(),
            remembered,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Running> {
        self.active.iter().chain(&self.retired)
    }

    /// What happens every second, or less often while nothing else does.
    pub(crate) fn tick(&mut self, disk: &mut Disk) {
        self.retired.retain(|running| !running.module.has_ended());
        let now = self.books.lock().now();
        for running in self.all() {
            running.module.follow_clock(clocks());
        }
        self.senders.follow_clock(clocks());
        let changes: Vec<_> = self.all().map(|running| running.module.changes()).collect();
        if now >= disk.blocks_at + BLOCKS_INTERVAL {
            self.write_blocks(disk, now, &changes);
        }
        if now >= self.asked + self.asks_every {
            if !self.liveness.all_answered() {
                let silent = self.liveness.silent();
                self.books.lock().fail(format!("{silent:?} do not answer"));
            }
            self.liveness.ask();
            self.asked = now;
        }
    }

    fn write_blocks(&mut self, disk: &mut Disk, now: Millis, changes: &[[u64; 3]]) {
        disk.blocks_at = now;
        let changes = changes.to_vec();
        if mem::replace(&mut self.written_blocks, changes) == self.written_blocks {
            return;
        }
        disk.key = Some(self.senders.hasher().key());
        disk.domains = self.senders.known(0).0;
        disk.blocks = self
            .records(0, |module, from| module.blocks(from, clocks()))
            .map(|(name, records)| (name, records.iter().map(text).collect()))
            .collect();
        disk.verdicts = self
            .records(VerdictPlace::default(), |module, from| {
                module.verdicts(from, clocks())
            })
            .map(|(name, records)| (name, records.iter().map(text).collect()))
            .collect();
    }

    fn records<T, P: Copy>(
        &self,
        start: P,
        part: impl Fn(&Module, P) -> (Vec<T>, Option<P>),
    ) -> impl Iterator<Item = (Name, Vec<T>)> {
        self.all().map(move |running| {
            let (mut records, mut from) = (Vec::new(), Some(start));
            while let Some(at) = from {
                let (more, next) = part(&running.module, at);
                records.extend(more);
                from = next;
            }
            ((running.value.name, running.value.kind.name()), records)
        })
    }

    /// Nothing is lost uncounted: what was acknowledged was delivered, dropped, covered or lost, or is held.
    pub(crate) fn check(&self) {
        for running in self.all() {
            let (module, meters) = (&running.module, running.module.meters());
            let acknowledged = running.remembered + meters.outcomes().get()[Outcome::Queued as usize];
            let ended: u64 = meters.held().iter().map(|(_, count)| count).sum();
            let held = module.held() as u64;
            // One that is being written down is held, and not acknowledged yet, whether its link is lost or not.
            let unanswered = self.books.lock().ledger.unanswered() + self.being_written();
            let unanswered = unanswered as u64;
            if acknowledged > ended + held || ended + held > acknowledged + unanswered {
                let counts = meters.held();
                self.books.lock().fail(format!(
                    "module {}: {acknowledged} were acknowledged, {counts:?} have ended, {held} are held",
                    module.name()
                ));
            }
        }
    }

    /// How much is being written down.
    fn being_written(&self) -> usize {
        self.held.lock().expect("nobody panics with it").queue.len()
    }

    pub(crate) fn held(&self) -> usize {
        self.all().map(|running| running.module.held()).sum()
    }

    /// That nothing is left over when nothing is under way.
    pub(crate) fn check_idle(&self) {
        for running in &self.active {
            let now = Instant::now();
            let status = running.module.status(now, std::time::SystemTime::now());
            let left = (status.in_flight, status.waiting, status.held);
            if left != (0, 0, 0) {
                let name = &status.name;
                self.books
                    .lock()
                    .fail(format!("module {name} is not idle: {left:?}"));
            }
        }
    }

    /// Which token, by app and place, the log means.
    pub(crate) fn fingerprint(&self, token: &str) -> String {
        self.senders.hasher().fingerprint(token).to_string()
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.handle.links().iter().all(|link| link.down.is_none())
    }

    /// Ends as a signal has it.
    pub(crate) async fn stop(&mut self, disk: &mut Disk) {
        self.drain.begin();
        let drain = self.drain.clone();
        let component = &mut self.component;
        let finished = async {
            let (_, ended) = tokio::join!(drain.until_idle(), component);
            drop(ended);
        };
        let mut finished = Box::pin(finished);
        if timeout(Duration::from_secs(6), &mut finished).await.is_err() {
            self.drain.expire();
            drop(timeout(Duration::from_millis(1_500), &mut finished).await);
        }
        drop(finished);
        self.held.lock().expect("nobody panics with it").work(None);
        let now = self.books.lock().now();
        let changes: Vec<_> = self.all().map(|running| running.module.changes()).collect();
        self.write_blocks(disk, now, &changes);
    }
}

fn take(running: &mut Vec<Running>, value: &ModuleValue) -> Option<Running> {
    let place = running.iter().position(|running| is_of(running, value))?;
    Some(running.swap_remove(place))
}

fn is_of(running: &Running, value: &ModuleValue) -> bool {
    (running.value.name, running.value.kind) == (value.name, value.kind)
}

fn link_settings() -> LinkSettings {
    LinkSettings {
        name: "link".to_owned(),
        hostname: COMPONENT.to_owned(),
        secret: format!("{}component", crate::stanzas::MARK),
        path: "component".to_owned(),
        secret_key: "componentKey",
        server_host: "localhost".to_owned(),
        server_port: 5347,
        tls: None,
        max_stanza_size: 1_024 * 1_024,
        group: None,
        scope: Arc::default(),
        push2: Some(Push2Settings {
            modules: ["apple", "google", "second"].map(str::to_owned).into(),
            limits: RelayLimits {
                per_domain: 600,
                per_receiver: 30,
            },
        }),
        retry_after: Duration::from_secs(2),
    }
}

fn text(record: &impl serde::Serialize) -> String {
    serde_json::to_string(record).expect("it can be written")
}

fn read<T: serde::de::DeserializeOwned>(lines: &BTreeMap<Name, Vec<String>>, name: Name) -> Vec<T> {
    let lines = lines.get(&name).into_iter().flatten();
    lines
        .map(|line| serde_json::from_str(line).expect("we wrote it"))
        .collect()
}

const BLOCKS_INTERVAL: Millis = 60 * SECOND;
