//! The file of held pushes: a push is in it before its publish is acknowledged.
//!
//! A thread of its own writes it. What comes while it waits for the disk is written with the next sync, so that a sync is
//! shared by as many as there are, and nobody who pushes waits for the disk.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use fpush_driver::{Acknowledge, HeldStore, Read};
use fpush_policy::{HeldChange, HeldRecord};
use fpush_push::{Choice, Class, metrics::WordCounters, sync::lock};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::folder::StateFolder;

/// The file in use.
pub(crate) struct Spool {
    path: PathBuf,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    /// The modules that something was ever held for.
    modules: Vec<Arc<SpoolModule>>,
}

/// A module in the file.
#[derive(Debug)]
pub(crate) struct SpoolModule {
    id: i64,
    pub(crate) name: String,
    pub(crate) module_type: String,
}

/// What the thread and the others share.
#[derive(Debug, Default)]
struct Shared {
    /// Pushes that are not written yet.
    unwritten: AtomicUsize,
    state: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    /// Since when it has been writing.
    since: Option<Instant>,
    /// Why the last attempt failed.
    trouble: Option<String>,
}

/// Writes down what one module holds.
struct ModuleStore {
    module: Arc<SpoolModule>,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

enum Order {
    Write(Arc<SpoolModule>, Vec<HeldChange>, Option<Acknowledge>),
    Read(Arc<SpoolModule>, Vec<u64>, oneshot::Sender<Read>),
    /// Forgets what modules hold that expired before then, in milliseconds since 1970.
    Expire(Vec<Arc<SpoolModule>>, u64, mpsc::Sender<Expired>),
    /// Says whether all that was ordered before is written.
    Flush(Box<dyn FnOnce(bool) + Send>),
}

/// How many pushes of a module have expired.
pub(crate) type Expired = (Arc<SpoolModule>, usize);

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
                let aside = path.with_extension("unreadable");
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
        let modules = read_modules(&connection).map_err(|e| unusable(&path, &Problem::Sqlite(e)))?;
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

    /// All that a module holds, by number. What fpush would not have written is said, and left out from now on.
    pub(crate) fn each_held(&self, name: &str, module_type: &str, mut take: impl FnMut(u64, HeldRecord)) {
        let is_it = |module: &&Arc<SpoolModule>| module.name == name && module.module_type == module_type;
        let Some(module) = self.modules.iter().find(is_it) else {
            return;
        };
        let path = self.path.display();
        let mut refused = Vec::new();
        let read = self.read_all(module, |number, record| match record {
            Some(record) => take(number, record),
            None => refused.push(HeldChange::Gone(number)),
        });
        if let Err(e) = read {
            error!("{path} is not all readable: {e}; going on with the rest");
        }
        if !refused.is_empty() {
            let unreadable = refused.len();
            error!(unreadable, "{path} is not all readable; going on with the rest");
            drop(self.orders.send(Order::Write(Arc::clone(module), refused, None)));
        }
    }

    fn read_all(
        &self,
        module: &SpoolModule,
        mut take: impl FnMut(u64, Option<HeldRecord>),
    ) -> rusqlite::Result<()> {
        let connection = reader(&self.path)?;
        let mut statement = connection.prepare(READ_ALL)?;
        let mut rows = statement.query(params![module.id])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            take(number.cast_unsigned(), record(row)?);
        }
        Ok(())
    }

    /// How many pushes each module holds.
    pub(crate) fn counts(&self) -> Vec<(Arc<SpoolModule>, usize)> {
        let count = || -> rusqlite::Result<Vec<_>> {
            let connection = reader(&self.path)?;
            let mut statement = connection.prepare("SELECT count(*) FROM held WHERE module = ?1")?;
            let modules = self.modules.iter();
            modules
                .map(|module| {
                    let count: i64 = statement.query_row(params![module.id], |row| row.get(0))?;
                    Ok((Arc::clone(module), usize::try_from(count).unwrap_or_default()))
                })
                .collect()
        };
        count().unwrap_or_default()
    }

    /// Takes what an older version held.
    pub(crate) fn take_over(&mut self, held: Vec<super::Line<HeldRecord>>) -> bool {
        let mut numbers = std::collections::HashMap::<i64, u64>::new();
        for (name, module_type, record) in held {
            let module = self.module(&name, &module_type);
            let number = numbers
                .entry(module.id)
                .or_insert_with(|| self.next_number(&module));
            let change = HeldChange::Put(*number, Box::new(record));
            *number += 1;
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
            drop(self.orders.send(Order::Write(module, vec![change], None)));
        }
        let (written, flushed) = mpsc::channel();
        self.when_written(move |is_written| {
            // It is waited for below.
            let _ = written.send(is_written);
        });
        // Nothing else runs before the start.
        flushed.recv().unwrap_or(false)
    }

    fn next_number(&self, module: &SpoolModule) -> u64 {
        let last = reader(&self.path).and_then(|connection| {
            connection.query_row(
                "SELECT max(number) FROM held WHERE module = ?1",
                params![module.id],
                |row| row.get::<_, Option<i64>>(0),
            )
        });
        last.ok().flatten().map_or(0, |last| last.cast_unsigned() + 1)
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
        state.trouble.clone()
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

    fn read(&self, numbers: Vec<u64>) -> oneshot::Receiver<Read> {
        let (sender, reading) = oneshot::channel();
        drop(
            self.orders
                .send(Order::Read(Arc::clone(&self.module), numbers, sender)),
        );
        reading
    }
}

/// The thread that writes.
struct Writer {
    connection: Connection,
    path: PathBuf,
    /// The modules that are in the file.
    known: HashSet<i64>,
    /// What is to be changed in the file, and could not be: all but what is new.
    owed: Vec<(i64, HeldChange)>,
    shared: Arc<Shared>,
    writes: Arc<WordCounters>,
}

impl Writer {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            let first = if self.owed.is_empty() && !self.has_trouble() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(AGAIN)
            };
            let mut group = match first {
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while group.len() < LARGEST_GROUP
                && let Ok(order) = orders.try_recv()
            {
                group.push(order);
            }
            self.carry_out(group);
        }
    }

    fn carry_out(&mut self, group: Vec<Order>) {
        lock(&self.shared.state).since = Some(Instant::now());
        let written = self.write(&group);
        let result = written.as_ref().map(|_| ());
        self.note(result);
        let is_written = result.is_ok();
        let (expired, known) = written.unwrap_or_default();
        self.known.extend(known);
        let mut expired = expired.into_iter();
        if is_written {
            self.owed.clear();
        }
        for order in group {
            match order {
                Order::Write(module, changes, acknowledge) => {
                    let mut puts = 0;
                    for change in changes {
                        match change {
                            HeldChange::Put(..) => puts += 1,
                            HeldChange::Gone(_) | HeldChange::Jumped(_) if !is_written => {
                                self.owed.push((module.id, change));
                            }
                            HeldChange::Gone(_) | HeldChange::Jumped(_) => {}
                        }
                    }
                    self.shared.unwritten.fetch_sub(puts, Ordering::Relaxed);
                    // Who does not wait any more has answered already.
                    acknowledge.map(|acknowledge| acknowledge.send(is_written));
                }
                Order::Read(module, numbers, sender) => {
                    drop(sender.send(self.read(&module, &numbers).ok()));
                }
                Order::Expire(modules, _, done) => {
                    for (module, count) in modules.into_iter().zip(expired.by_ref()) {
                        drop(done.send((module, count)));
                    }
                }
                Order::Flush(tell) => tell(is_written),
            }
        }
    }

    /// Writes a group, and returns how many pushes have expired for each module that was asked for, and which modules are
    /// new.
    fn write(&mut self, group: &[Order]) -> rusqlite::Result<(Vec<usize>, Vec<i64>)> {
        let is_write = |order: &Order| !matches!(order, Order::Read(..) | Order::Flush(_));
        let has_trouble = self.has_trouble();
        if self.owed.is_empty() && !has_trouble && !group.iter().any(is_write) {
            return Ok(Default::default());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut expired, mut known) = (Vec::new(), Vec::new());
        if has_trouble {
            // Whether anything can be written at all.
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        for (module, change) in &self.owed {
            apply(&transaction, *module, change)?;
        }
        for order in group {
            match order {
                Order::Write(module, changes, _) => {
                    if !self.known.contains(&module.id) && !known.contains(&module.id) && !changes.is_empty()
                    {
                        let row = params![module.id, module.name, module.module_type];
                        transaction.execute("INSERT OR REPLACE INTO modules VALUES (?1, ?2, ?3)", row)?;
                        known.push(module.id);
                    }
                    for change in changes {
                        apply(&transaction, module.id, change)?;
                    }
                }
                Order::Expire(modules, before, _) => {
                    for module in modules {
                        let row = params![module.id, before.cast_signed()];
                        let count = transaction
                            .execute("DELETE FROM held WHERE module = ?1 AND expires < ?2", row)?;
                        expired.push(count);
                    }
                }
                Order::Read(..) | Order::Flush(_) => {}
            }
        }
        transaction.commit()?;
        Ok((expired, known))
    }

    fn has_trouble(&self) -> bool {
        lock(&self.shared.state).trouble.is_some()
    }

    /// Takes note of how it went.
    fn note(&self, result: Result<(), &rusqlite::Error>) {
        let mut state = lock(&self.shared.state);
        state.since = None;
        match result {
            Ok(()) => {
                if state.trouble.take().is_some() {
                    self.writes.increment("ok");
                    info!("stateDirectory: held pushes can be written down again");
                }
            }
            Err(e) => {
                self.writes.increment("failed");
                let trouble = format!(
                    "cannot write to {}: {e}; pushes that would be held are refused meanwhile: is the disk full, does the \
                     file belong to fpush's user?",
                    self.path.display()
                );
                if state.trouble.is_none() {
                    error!("{trouble}");
                }
                state.trouble = Some(trouble);
            }
        }
    }

    fn read(
        &self,
        module: &SpoolModule,
        numbers: &[u64],
    ) -> rusqlite::Result<Vec<(u64, Option<HeldRecord>)>> {
        let mut statement = self.connection.prepare_cached(READ_ONE)?;
        let read = |number: &u64| {
            let mut rows = statement.query(params![module.id, number.cast_signed()])?;
            let row = rows.next()?.map(record).transpose()?.flatten();
            Ok((*number, row))
        };
        numbers.iter().map(read).collect()
    }
}

fn put(transaction: &Transaction<'_>, module: i64, number: u64, held: &HeldRecord) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(PUT)?;
    statement.execute(params![
        module,
        number.cast_signed(),
        held.due.cast_signed(),
        held.give_up.map(u64::cast_signed),
        held.token,
        held.class as u8,
        number_of(held.choice),
        held.domain,
        held.spacing.cast_signed(),
        held.account,
        held.channel,
        held.registered,
        held.node,
        held.attempts,
        held.id.map(|id| id.to_be_bytes().to_vec()),
        held.count,
    ])?;
    Ok(())
}

fn apply(transaction: &Transaction<'_>, module: i64, change: &HeldChange) -> rusqlite::Result<()> {
    match change {
        HeldChange::Put(number, record) => put(transaction, module, *number, record)?,
        HeldChange::Gone(number) => {
            let mut statement = transaction.prepare_cached(TAKE_OUT)?;
            statement.execute(params![module, number.cast_signed()])?;
        }
        HeldChange::Jumped(jump) => {
            transaction.execute(JUMP, params![module, jump])?;
        }
    }
    Ok(())
}

/// A row, if fpush may have written it.
fn record(row: &Row<'_>) -> rusqlite::Result<Option<HeldRecord>> {
    let class = match row.get::<_, i64>(4)? {
        1 => Class::High,
        2 => Class::Low,
        3 => Class::Voip,
        _ => return Ok(None),
    };
    let choice = match row.get::<_, i64>(5)? {
        1 => Choice::Named,
        2 => Choice::Registered,
        3 => Choice::Only,
        4 => Choice::Default,
        _ => return Ok(None),
    };
    let id: Option<Vec<u8>> = row.get(13)?;
    let record = HeldRecord {
        due: row.get::<_, i64>(1)?.cast_unsigned(),
        give_up: row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
        token: row.get(3)?,
        class,
        choice,
        domain: row.get(6)?,
        spacing: row.get::<_, i64>(7)?.cast_unsigned(),
        account: row.get(8)?,
        channel: row.get(9)?,
        count: row.get(14)?,
        registered: row.get(10)?,
        node: row.get(11)?,
        attempts: row.get(12)?,
        id: id.and_then(|id| Some(u128::from_be_bytes(id.try_into().ok()?))),
    };
    Ok(record.is_sane().then_some(record))
}

fn number_of(choice: Choice) -> u8 {
    match choice {
        Choice::Named => 1,
        Choice::Registered => 2,
        Choice::Only => 3,
        Choice::Default => 4,
    }
}

/// Why the file cannot be used.
#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Sqlite(rusqlite::Error),
    /// Another version has written it.
    Version(i64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Sqlite(e) => e.fmt(f),
            Self::Version(version) => write!(f, "its format {version} is that of a newer fpush"),
        }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn is_damaged(problem: &Problem) -> bool {
    match problem {
        Problem::Sqlite(e) => matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        ),
        // A link, a FIFO or somebody else's file.
        Problem::Io(e) => e.kind() != io::ErrorKind::NotFound,
        Problem::Version(_) => false,
    }
}

fn unusable(path: &Path, problem: &Problem) -> anyhow::Error {
    let path = path.display();
    anyhow::anyhow!("cannot use {path} in stateDirectory: {problem}")
}

fn connect(folder: &StateFolder, path: &Path) -> Result<Connection, Problem> {
    // SQLite gives its further files the same mode.
    folder
        .open_own(
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600),
            NAME,
        )
        .map_err(Problem::Io)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", LARGEST_WAL)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    match version {
        0 => connection.execute_batch(SCHEMA)?,
        VERSION => {}
        newer => return Err(Problem::Version(newer)),
    }
    // Notices a damaged head of the table.
    connection.query_row(
        "SELECT count(*) FROM (SELECT 1 FROM held LIMIT 1)",
        [],
        |_| Ok(()),
    )?;
    Ok(connection)
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn read_modules(connection: &Connection) -> rusqlite::Result<Vec<Arc<SpoolModule>>> {
    let mut statement = connection.prepare("SELECT id, name, type FROM modules")?;
    let modules = statement.query_map([], |row| {
        Ok(Arc::new(SpoolModule {
            id: row.get(0)?,
            name: row.get(1)?,
            module_type: row.get(2)?,
        }))
    })?;
    modules.collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

pub(crate) const NAME: &str = "spool.db";
const VERSION: i64 = 1;
/// Times are milliseconds since 1970. `due` is 0 for a push that waits until its provider is back.
const SCHEMA: &str = "BEGIN;
    CREATE TABLE modules (id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL) STRICT;
    CREATE TABLE held (module INTEGER NOT NULL, number INTEGER NOT NULL, due INTEGER NOT NULL, expires INTEGER,
        token TEXT NOT NULL, class INTEGER NOT NULL, choice INTEGER NOT NULL, domain TEXT NOT NULL, spacing INTEGER NOT NULL,
        account TEXT, channel TEXT, registered INTEGER NOT NULL, node TEXT, attempts INTEGER NOT NULL, id BLOB, count INTEGER,
        PRIMARY KEY (module, number)) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
    COMMIT;";
const PUT: &str = "INSERT OR REPLACE INTO held (module, number, due, expires, token, class, choice, domain, spacing, account, \
    channel, registered, node, attempts, id, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
const READ_ALL: &str = "SELECT number, due, expires, token, class, choice, domain, spacing, account, channel, registered, \
    node, attempts, id, count FROM held WHERE module = ?1 ORDER BY number";
const READ_ONE: &str = "SELECT number, due, expires, token, class, choice, domain, spacing, account, channel, registered, \
    node, attempts, id, count FROM held WHERE module = ?1 AND number = ?2";
const TAKE_OUT: &str = "DELETE FROM held WHERE module = ?1 AND number = ?2";
/// As `HeldRecord::jumped`.
const JUMP: &str = "UPDATE held SET due = CASE due WHEN 0 THEN 0 ELSE max(1, due + ?2) END, expires = max(0, expires + ?2) \
    WHERE module = ?1";
/// In one sync.
const LARGEST_GROUP: usize = 2_000;
/// Beyond it the disk is too slow, and pushes that would be held are refused.
const MOST_UNWRITTEN: usize = 50_000;
/// Between two attempts to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// A disk that takes longer for one group is a problem.
const SLOW: Duration = Duration::from_secs(5);
/// For another program that looks at the file.
const BUSY: Duration = Duration::from_secs(2);
/// Bytes of SQLite's log when nothing happens.
const LARGEST_WAL: i64 = 16 << 20;

#[cfg(test)]
mod tests {
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
        let read = store.read(vec![0, 1, 7]).blocking_recv().unwrap().unwrap();
        assert_eq!(read, [(0, Some(full_record(0))), (1, None), (7, None)]);
        drop((spool, store, folder));
        let (spool, _folder) = open(&dir);
        assert_eq!(all(&spool, "m"), [(0, full_record(0)), (2, full_record(2))]);
        let counts: Vec<_> = spool.counts().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1]);
        assert!(all(&spool, "nobody").is_empty());
    }

    #[test]
    fn times_move_with_the_clock_on_the_wall() {
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
        connection.pragma_update(None, "user_version", 2).unwrap();
        drop(connection);
        let refused = Spool::open(&folder, Arc::default()).err().unwrap().to_string();
        assert!(refused.contains("newer fpush"), "{refused}");
        assert!(path.exists());
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
