//! The file of held pushes: a push is in it before its publish is acknowledged.
//!
//! A thread of its own writes it. What comes while it waits for the disk is written with the next sync, so that a sync is
//! shared by as many as there are, and nobody who pushes waits for the disk.

mod orders;
mod table;
mod writer;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use fpush_driver::{Acknowledge, HeldStore, Part, Read};
use fpush_policy::{Clocks, HeldChange, HeldRecord};
use fpush_push::{metrics::WordCounters, sync::lock};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::error;

pub(crate) use self::{
    orders::Expired,
    table::{NAME, SpoolModule},
};
use self::{
    orders::{Order, Shared},
    table::{Problem, connect, is_damaged, reader, unusable},
    writer::Writer,
};
use super::folder::{StateFolder, name_aside};

/// The file in use.
pub(crate) struct Spool {
    path: PathBuf,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    /// The modules that something was ever held for.
    modules: Vec<Arc<SpoolModule>>,
}

/// Writes down what one module holds.
struct ModuleStore {
    module: Arc<SpoolModule>,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens the file, or makes it. What cannot be read is kept under another name.
    ///
    /// # Errors
    ///
    /// The file cannot be used. The text says what to do.
    pub(crate) fn open(folder: &StateFolder, writes: Arc<WordCounters>) -> anyhow::Result<Self> {
        // SQLite follows no link, and the folder may be one, as systemd makes it.
        let path = fs::canonicalize(folder.path())?.join(NAME);
        let connection = match connect(folder, &path) {
            Ok(connection) => connection,
            Err(e) if is_damaged(&e) => {
                let aside = name_aside(&path);
                fs::rename(&path, &aside)?;
                // What was written last is in the first of these.
                for suffix in ["-wal", "-shm"] {
                    drop(fs::rename(
                        with_suffix(&path, suffix),
                        with_suffix(&aside, suffix),
                    ));
                }
                error!(
                    "cannot read {}: {e}; going on without what it holds, and it is kept as {}",
                    path.display(),
                    aside.display()
                );
                connect(folder, &path).map_err(|e| unusable(&path, &e))?
            }
            Err(e) => return Err(unusable(&path, &e)),
        };
        let modules = table::read_modules(&connection).map_err(|e| unusable(&path, &Problem::Sqlite(e)))?;
        let known = modules.iter().map(|module| module.id).collect();
        let (orders, receiver) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let writer = Writer {
            connection,
            path: path.clone(),
            known,
            owed: Vec::new(),
            shared: Arc::clone(&shared),
            writes,
        };
        thread::Builder::new()
            .name("spool".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            path,
            orders,
            shared,
            modules,
        })
    }

    /// Where a module writes down what it holds.
    pub(crate) fn store(&mut self, name: &str, module_type: &str) -> Arc<dyn HeldStore> {
        Arc::new(ModuleStore {
            module: self.module(name, module_type),
            orders: self.orders.clone(),
            shared: Arc::clone(&self.shared),
        })
    }

    fn module(&mut self, name: &str, module_type: &str) -> Arc<SpoolModule> {
        let is_it = |module: &&Arc<SpoolModule>| module.name == name && module.module_type == module_type;
        if let Some(module) = self.modules.iter().find(is_it) {
            return Arc::clone(module);
        }
        let id = self
            .modules
            .iter()
            .map(|module| module.id)
            .max()
            .unwrap_or_default()
            + 1;
        let module = Arc::new(SpoolModule {
            id,
            name: name.to_owned(),
            module_type: module_type.to_owned(),
        });
        self.modules.push(Arc::clone(&module));
        module
    }

    /// All that a module holds, by number. What fpush would not have written is said, and left out from now on. Returns how
    /// many that were.
    pub(crate) fn each_held(
        &self,
        name: &str,
        module_type: &str,
        mut take: impl FnMut(u64, HeldRecord),
    ) -> usize {
        let is_it = |module: &&Arc<SpoolModule>| module.name == name && module.module_type == module_type;
        let Some(module) = self.modules.iter().find(is_it) else {
            return 0;
        };
        let path = self.path.display();
        let mut refused = Vec::new();
        let read = reader(&self.path).and_then(|connection| {
            table::read_all(&connection, module.id, |number, record| match record {
                Some(record) => take(number, record),
                None => refused.push(HeldChange::Gone(number)),
            })
        });
        if let Err(e) = read {
            error!("{path} is not all readable: {e}; going on with what is, and the rest stays where it is");
        }
        let unreadable = refused.len();
        if unreadable > 0 {
            error!(unreadable, "{path} is not all readable; going on with the rest");
            drop(self.orders.send(Order::Write(Arc::clone(module), refused, None)));
        }
        unreadable
    }

    /// A number from which on none of a module's is taken, whatever can be read: what is not read stays where it is.
    pub(crate) fn free_number(&self, name: &str, module_type: &str, clocks: Clocks) -> u64 {
        let is_it = |module: &&Arc<SpoolModule>| module.name == name && module.module_type == module_type;
        let Some(module) = self.modules.iter().find(is_it) else {
            return 0;
        };
        let next = |connection: Connection| table::next_number(&connection, module.id);
        reader(&self.path).and_then(next).unwrap_or_else(|e| {
            error!(
                "{} cannot be read: {e}; it is read again at the next start",
                self.path.display()
            );
            // Nobody counts that far.
            clocks.wall_millis() << 20
        })
    }

    /// How many pushes each module holds.
    pub(crate) fn counts(&self) -> Vec<Expired> {
        let count = || -> rusqlite::Result<Vec<_>> {
            let connection = reader(&self.path)?;
            let modules = self.modules.iter();
            modules
                .map(|module| Ok((Arc::clone(module), table::count(&connection, module.id)?)))
                .collect()
        };
        count().unwrap_or_default()
    }

    /// Takes what an older version held. Returns whether all of it is written.
    pub(crate) fn take_over(&mut self, held: Vec<super::Line<HeldRecord>>) -> bool {
        let mut by_module = HashMap::<_, (u64, Vec<HeldChange>)>::new();
        for (name, module_type, record) in held {
            let module = self.module(&name, &module_type);
            let (number, changes) = by_module.entry(module.id).or_insert_with(|| {
                let next = |connection: Connection| table::next_number(&connection, module.id);
                (reader(&self.path).and_then(next).unwrap_or_default(), Vec::new())
            });
            changes.push(HeldChange::Put(*number, Box::new(record)));
            *number += 1;
        }
        let mut parts = Vec::new();
        for module in &self.modules {
            if let Some((_, changes)) = by_module.remove(&module.id) {
                let (acknowledge, written) = oneshot::channel();
                self.shared.unwritten.fetch_add(changes.len(), Ordering::Relaxed);
                let order = Order::Write(Arc::clone(module), changes, Some(acknowledge));
                drop(self.orders.send(order));
                parts.push(written);
            }
        }
        let (written, flushed) = mpsc::channel();
        self.when_written(move |is_written| {
            // It is waited for below.
            let _ = written.send(is_written);
        });
        // Nothing else runs before the start. A part may have failed before this is written.
        let is_flushed = flushed.recv().unwrap_or(false);
        is_flushed && parts.iter_mut().all(|written| written.try_recv() == Ok(true))
    }

    /// Forgets what these modules hold that expired before then, in milliseconds since 1970; somewhere else.
    pub(crate) fn expire(&self, modules: Vec<Arc<SpoolModule>>, before: u64, done: mpsc::Sender<Expired>) {
        drop(self.orders.send(Order::Expire(modules, before, done)));
    }

    /// Hears whether all that was ordered is written.
    pub(crate) fn flush(&self) -> oneshot::Receiver<bool> {
        let (written, flushed) = oneshot::channel();
        self.when_written(move |is_written| {
            // Nobody may wait for it any more.
            let _ = written.send(is_written);
        });
        flushed
    }

    fn when_written(&self, tell: impl FnOnce(bool) + Send + 'static) {
        drop(self.orders.send(Order::Flush(Box::new(tell))));
    }

    /// Why nothing can be written.
    pub(crate) fn trouble(&self) -> Option<String> {
        let state = lock(&self.shared.state);
        if state.since.is_some_and(|since| since.elapsed() >= SLOW) {
            return Some(format!(
                "writing to {} takes longer than {} s, so that pushes that would be held are refused: does the disk, or the \
                 server that it is on, still answer?",
                self.path.display(),
                SLOW.as_secs()
            ));
        }
        state.trouble.clone().or_else(|| state.unreadable.clone())
    }
}

impl HeldStore for ModuleStore {
    fn write(&self, changes: Vec<HeldChange>, acknowledge: Option<Acknowledge>) {
        let puts = changes
            .iter()
            .filter(|change| matches!(change, HeldChange::Put(..)))
            .count();
        if self.shared.unwritten.load(Ordering::Relaxed) + puts > MOST_UNWRITTEN && acknowledge.is_some() {
            // Dropping it says so.
            drop(acknowledge);
            let changes = changes
                .into_iter()
                .filter(|change| !matches!(change, HeldChange::Put(..)));
            let order = Order::Write(Arc::clone(&self.module), changes.collect(), None);
            drop(self.orders.send(order));
            return;
        }
        self.shared.unwritten.fetch_add(puts, Ordering::Relaxed);
        let order = Order::Write(Arc::clone(&self.module), changes, acknowledge);
        drop(self.orders.send(order));
    }

    fn has_unwritten(&self) -> bool {
        self.shared.unwritten.load(Ordering::Relaxed) > 0
    }

    fn read_part(&self, from: u64, most: usize) -> oneshot::Receiver<Part> {
        let (sender, reading) = oneshot::channel();
        let order = Order::ReadPart(Arc::clone(&self.module), from, most, sender);
        drop(self.orders.send(order));
        reading
    }

    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<Read> {
        let (sender, reading) = oneshot::channel();
        drop(
            self.orders
                .send(Order::Read(Arc::clone(&self.module), numbers, sender)),
        );
        reading
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Beyond it the disk is too slow, and pushes that would be held are refused.
const MOST_UNWRITTEN: usize = 50_000;
/// A disk that takes longer for one group is a problem.
const SLOW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fpush_push::{Choice, Class};
    use fpush_testkit::TempDir;

    use super::*;

    fn full_record(number: u64) -> HeldRecord {
        HeldRecord {
            token: format!("token-{number}"),
            class: Class::Low,
            choice: Choice::Registered,
            domain: "a.example".to_owned(),
            spacing: 5_000,
            account: Some("account".to_owned()),
            channel: Some("channel".to_owned()),
            count: Some(7),
            registered: true,
            node: Some("node".to_owned()),
            due: 0,
            give_up: Some(u64::MAX >> 1),
            attempts: 3,
            id: Some(u128::from(number) << 90),
            arrived: Some(1_000_000),
        }
    }

    fn open(dir: &TempDir) -> (Spool, StateFolder) {
        let folder = StateFolder::open(&dir.path().join("state")).unwrap();
        let spool = Spool::open(&folder, Arc::default()).unwrap();
        (spool, folder)
    }

    fn put(store: &dyn HeldStore, number: u64) -> bool {
        let (acknowledge, written) = oneshot::channel();
        let change = HeldChange::Put(number, Box::new(full_record(number)));
        store.write(vec![change], Some(acknowledge));
        written.blocking_recv().unwrap_or(false)
    }

    fn all(spool: &Spool, name: &str) -> Vec<(u64, HeldRecord)> {
        let mut all = Vec::new();
        spool.each_held(name, "apple", |number, record| all.push((number, record)));
        all
    }

    #[test]
    fn what_is_written_is_read_again_by_its_module_alone() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        let store = spool.store("m", "apple");
        assert!((0..3).all(|number| put(&*store, number)));
        assert!(put(&*spool.store("other", "apple"), 0));
        store.write(vec![HeldChange::Gone(1)], None);
        let read = store.read(vec![0, 1, 7]).blocking_recv().unwrap();
        assert_eq!(read, [(0, Some(full_record(0))), (1, None), (7, None)]);
        let part = |from| store.read_part(from, 1).blocking_recv().unwrap();
        assert_eq!([part(0), part(1)], [[(0, full_record(0))], [(2, full_record(2))]]);
        assert_eq!(part(3), []);
        drop((spool, store, folder));
        let (spool, _folder) = open(&dir);
        assert_eq!(all(&spool, "m"), [(0, full_record(0)), (2, full_record(2))]);
        let counts: Vec<_> = spool.counts().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1]);
        assert!(all(&spool, "nobody").is_empty());
    }

    /// A disk has forgotten a part of the file: the rest goes out, and what is there twice is not.
    #[test]
    fn what_is_around_a_damaged_part_is_read_in_its_order() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        let store = spool.store("m", "apple");
        let puts = (0..2_000).map(|number| HeldChange::Put(number, Box::new(full_record(number))));
        store.write(puts.collect(), None);
        assert!(spool.flush().blocking_recv().unwrap());
        let path = folder.path().join(NAME);
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        drop((connection, store, spool, folder));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4_096 * 4_096;
        bytes[middle..middle + 4_096].fill(0xff);
        fs::write(&path, bytes).unwrap();

        let (mut spool, _folder) = open(&dir);
        let held: Vec<_> = all(&spool, "m").into_iter().map(|(number, _)| number).collect();
        assert!(
            held.is_sorted() && held.len() > 1_900 && held.len() < 2_000,
            "{}",
            held.len()
        );
        assert_eq!((held.first(), held.last()), (Some(&0), Some(&1_999)));
        assert_eq!(spool.free_number("m", "apple", fpush_driver::clocks()), 2_000);
        assert_eq!(spool.free_number("other", "apple", fpush_driver::clocks()), 0);
        let gap = (0..2_000)
            .find(|number| held.binary_search(number).is_err())
            .unwrap();
        let store = spool.store("m", "apple");
        let read = store.read(vec![0, gap, 1_999]).blocking_recv().unwrap();
        let numbers: Vec<_> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1_999], "the others do not wait for it");
        let trouble = spool.trouble().unwrap();
        assert!(trouble.contains("cannot read some of what is held"), "{trouble}");
        assert_eq!(store.read(vec![0]).blocking_recv().unwrap().len(), 1);
        assert_eq!(spool.trouble(), None);

        // Nobody can read it: what is held from now on takes no place of what is there.
        fs::remove_file(&path).unwrap();
        let free = spool.free_number("m", "apple", fpush_driver::clocks());
        assert!(free > 1_u64 << 50 && free < 1_u64 << 62, "{free}");
    }

    /// Nothing that fpush writes: it is counted, and keeps nobody else from his push.
    #[test]
    fn a_row_that_is_not_a_push_is_left_out_and_counted() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        let store = spool.store("m", "apple");
        assert!((0..5).all(|number| put(&*store, number)));
        let connection = Connection::open(folder.path().join(NAME)).unwrap();
        connection
            .execute_batch(
                "UPDATE held SET token = CAST(x'ff' AS TEXT) WHERE number = 1; UPDATE held SET class = 9 WHERE number = 2;
                UPDATE held SET attempts = -1 WHERE number = 3",
            )
            .unwrap();
        let read = store.read(vec![0, 1, 2, 3]).blocking_recv().unwrap();
        assert_eq!(read, [(0, Some(full_record(0))), (1, None), (2, None), (3, None)]);
        let mut held = Vec::new();
        assert_eq!(spool.each_held("m", "apple", |number, _| held.push(number)), 3);
        assert_eq!(held, [0, 4]);
        assert!(spool.flush().blocking_recv().unwrap());
        assert_eq!(spool.counts()[0].1, 2, "it is not read again");
    }

    #[test]
    fn times_move_with_the_wall_clock() {
        let dir = TempDir::new();
        let (mut spool, _folder) = open(&dir);
        let times = [(0, None), (0, Some(5_000)), (2_000, Some(9_000)), (50, Some(60))];
        let jumps = [100_000, -90_000, -50_000];
        let records = times.map(|(due, give_up)| HeldRecord {
            due,
            give_up,
            ..full_record(1)
        });
        for name in ["m", "other"] {
            let puts = (0..).zip(records.clone());
            let puts = puts.map(|(number, record)| HeldChange::Put(number, Box::new(record)));
            spool.store(name, "apple").write(puts.collect(), None);
        }
        let store = spool.store("m", "apple");
        for jump in jumps {
            store.write(vec![HeldChange::Jumped(jump)], None);
        }
        assert!(spool.flush().blocking_recv().unwrap());
        let read =
            |name: &str| -> Vec<_> { all(&spool, name).into_iter().map(|(_, record)| record).collect() };
        assert_eq!(read("other"), records);
        let moved = records.map(|mut record| {
            jumps.into_iter().for_each(|jump| record.jumped(jump));
            record
        });
        assert_eq!(read("m"), moved);
    }

    #[test]
    fn what_is_worth_something_for_longer_is_given_up_later() {
        let dir = TempDir::new();
        let (mut spool, _folder) = open(&dir);
        let given_up_at = |time| HeldRecord {
            give_up: Some(time),
            ..full_record(1)
        };
        for name in ["m", "other"] {
            let puts = (0..2).map(|number| HeldChange::Put(number, Box::new(given_up_at(1_000_000))));
            spool.store(name, "apple").write(puts.collect(), None);
        }
        for until in [999_999, 1_000_005, 1_000_002] {
            let change = HeldChange::Extended(1, until);
            spool.store("m", "apple").write(vec![change], None);
        }
        assert!(spool.flush().blocking_recv().unwrap());
        let read = |name: &str| -> Vec<_> {
            let all = all(&spool, name).into_iter();
            all.map(|(_, record)| record.give_up).collect()
        };
        assert_eq!(read("m"), [Some(1_000_000), Some(1_000_005)]);
        assert_eq!(read("other"), [Some(1_000_000); 2]);
    }

    /// As where the disk is full: what cannot be written is not acknowledged, and what was sent is taken out later.
    #[test]
    fn what_cannot_be_written_is_said_and_what_is_done_with_goes_when_it_can() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        let store = spool.store("m", "apple");
        assert!(put(&*store, 0));
        let other = Connection::open(folder.path().join(NAME)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(!put(&*store, 1));
        store.write(vec![HeldChange::Gone(0)], None);
        assert!(!put(&*store, 2));
        let trouble = spool.trouble().unwrap();
        assert!(
            trouble.contains("cannot write to") && trouble.contains("refused meanwhile"),
            "{trouble}"
        );
        other.execute_batch("ROLLBACK").unwrap();
        fpush_testkit::until(Duration::from_secs(20), "it is written", || {
            spool.trouble().is_none() && all(&spool, "m").is_empty()
        });
        assert!(put(&*store, 3));
        assert_eq!(all(&spool, "m"), [(3, full_record(3))]);
    }

    #[test]
    fn what_has_expired_goes_for_the_modules_that_are_named() {
        let dir = TempDir::new();
        let (mut spool, _folder) = open(&dir);
        let (gone, stays) = (spool.module("gone", "apple"), spool.module("stays", "apple"));
        assert!(put(&*spool.store("gone", "apple"), 0) && put(&*spool.store("stays", "apple"), 0));
        let (done, expired) = mpsc::channel();
        spool.expire(vec![Arc::clone(&gone)], 1_000, done.clone());
        spool.expire(vec![Arc::clone(&gone)], u64::MAX >> 1, done.clone());
        let late = |number: u64| {
            let record = HeldRecord {
                give_up: Some(5),
                ..full_record(number)
            };
            HeldChange::Put(number, Box::new(record))
        };
        spool
            .store("gone", "apple")
            .write((1..4).map(late).collect(), None);
        spool.expire(vec![gone], 1_000, done);
        let counts: Vec<_> = expired
            .iter()
            .map(|(module, count)| (module.name.clone(), count))
            .collect();
        assert_eq!(
            counts,
            [
                ("gone".to_owned(), 0),
                ("gone".to_owned(), 0),
                ("gone".to_owned(), 3)
            ]
        );
        assert_eq!(all(&spool, &stays.name).len(), 1);
    }

    #[test]
    fn a_file_of_a_newer_version_is_left_alone() {
        let dir = TempDir::new();
        let (spool, folder) = open(&dir);
        drop(spool);
        let path = folder.path().join(NAME);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 3).unwrap();
        drop(connection);
        let refused = Spool::open(&folder, Arc::default()).err().unwrap().to_string();
        assert!(refused.contains("newer fpush"), "{refused}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_does_not_say_when_pushes_came_is_read() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        assert!(put(&*spool.store("m", "apple"), 0));
        assert!(spool.flush().blocking_recv().unwrap());
        drop(spool);
        let connection = Connection::open(folder.path().join(NAME)).unwrap();
        connection
            .execute_batch("ALTER TABLE held DROP COLUMN arrived; PRAGMA user_version = 1")
            .unwrap();
        drop(connection);
        let spool = Spool::open(&folder, Arc::default()).unwrap();
        let expected = HeldRecord {
            arrived: None,
            ..full_record(0)
        };
        assert_eq!(all(&spool, "m"), [(0, expected)]);
    }

    /// What the operator reads in docs/performance.md: `cargo test --release -- --ignored a_held_push_costs`.
    #[test]
    #[ignore = "it measures"]
    #[expect(clippy::disallowed_macros, reason = "a person has asked for it")]
    fn a_held_push_costs_little() {
        let dir = TempDir::new();
        let (mut spool, folder) = open(&dir);
        let store = spool.store("m", "apple");
        let (many, start) = (1_000_000_u64, Instant::now());
        for number in 0..many {
            let record = HeldRecord {
                token: format!("{number:064}"),
                account: None,
                channel: None,
                node: None,
                registered: false,
                ..full_record(number)
            };
            store.write(vec![HeldChange::Put(number, Box::new(record))], None);
        }
        assert!(spool.flush().blocking_recv().unwrap());
        let wrote = start.elapsed();
        let bytes = fs::metadata(folder.path().join(NAME)).unwrap().len();
        let start = Instant::now();
        let read = all(&spool, "m").len();
        eprintln!(
            "{} us each, {} bytes each; {read} read in {:?}",
            wrote.as_micros() / u128::from(many),
            bytes / many,
            start.elapsed()
        );
    }
}
