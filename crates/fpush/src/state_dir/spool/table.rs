//! The file of held pushes as SQLite sees it.

use std::{
    fmt, fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration,
};

use fpush_policy::{HeldChange, HeldRecord};
use fpush_push::{Choice, Class};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, params};
use rustix::io::Errno;

use crate::state_dir::folder::StateFolder;

/// A module in the file.
#[derive(Debug)]
pub(crate) struct SpoolModule {
    pub(super) id: i64,
    pub(crate) name: String,
    pub(crate) module_type: String,
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
        held.arrived.map(u64::cast_signed),
    ])?;
    Ok(())
}

/// Changes a row, or all of a module.
pub(super) fn apply(transaction: &Transaction<'_>, module: i64, change: &HeldChange) -> rusqlite::Result<()> {
    match change {
        HeldChange::Put(number, record) => put(transaction, module, *number, record)?,
        HeldChange::Gone(number) => {
            let mut statement = transaction.prepare_cached(TAKE_OUT)?;
            statement.execute(params![module, number.cast_signed()])?;
        }
        HeldChange::Extended(number, until) => {
            let mut statement = transaction.prepare_cached(EXTEND)?;
            statement.execute(params![module, number.cast_signed(), until.cast_signed()])?;
        }
        HeldChange::Jumped(jump) => {
            transaction.execute(JUMP, params![module, jump])?;
        }
    }
    Ok(())
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
pub(super) enum Problem {
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

/// Whether it is not a file of SQLite's, or not one that can be used.
pub(super) fn is_damaged(problem: &Problem) -> bool {
    match problem {
        Problem::Sqlite(e) => matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        ),
        // A link, a FIFO, a folder or somebody else's file. What has only not been opened this time stays where it is.
        Problem::Io(e) => match Errno::from_io_error(e) {
            Some(errno) => [Errno::LOOP, Errno::NXIO, Errno::ISDIR].contains(&errno),
            None => true,
        },
        Problem::Version(_) => false,
    }
}

/// What to say of it.
pub(super) fn unusable(path: &Path, problem: &Problem) -> anyhow::Error {
    let path = path.display();
    anyhow::anyhow!("cannot use {path} in stateDirectory: {problem}")
}

/// Opens the file to write to it, or makes it.
pub(super) fn connect(folder: &StateFolder, path: &Path) -> Result<Connection, Problem> {
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
        1 => connection.execute_batch(ADD_ARRIVED)?,
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

/// Opens the file to read it.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// The modules that something was ever held for.
pub(super) fn read_modules(connection: &Connection) -> rusqlite::Result<Vec<Arc<SpoolModule>>> {
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

/// A row, if fpush may have written it.
fn record(row: &Row<'_>) -> Option<HeldRecord> {
    let class = match row.get::<_, i64>(4).ok()? {
        1 => Class::High,
        2 => Class::Low,
        3 => Class::Voip,
        _ => return None,
    };
    let choice = match row.get::<_, i64>(5).ok()? {
        1 => Choice::Named,
        2 => Choice::Registered,
        3 => Choice::Only,
        4 => Choice::Default,
        _ => return None,
    };
    let id: Option<Vec<u8>> = row.get(13).ok()?;
    let record = HeldRecord {
        due: row.get::<_, i64>(1).ok()?.cast_unsigned(),
        give_up: row.get::<_, Option<i64>>(2).ok()?.map(i64::cast_unsigned),
        token: row.get(3).ok()?,
        class,
        choice,
        domain: row.get(6).ok()?,
        spacing: row.get::<_, i64>(7).ok()?.cast_unsigned(),
        account: row.get(8).ok()?,
        channel: row.get(9).ok()?,
        registered: row.get(10).ok()?,
        node: row.get(11).ok()?,
        attempts: row.get(12).ok()?,
        id: id.and_then(|id| Some(u128::from_be_bytes(id.try_into().ok()?))),
        count: row.get(14).ok()?,
        arrived: row.get::<_, Option<i64>>(15).ok()?.map(i64::cast_unsigned),
    };
    record.is_sane().then_some(record)
}

/// Takes note of a module.
pub(super) fn add_module(transaction: &Transaction<'_>, module: &SpoolModule) -> rusqlite::Result<()> {
    let row = params![module.id, module.name, module.module_type];
    transaction.execute("INSERT OR REPLACE INTO modules VALUES (?1, ?2, ?3)", row)?;
    Ok(())
}

/// Forgets what a module holds that expired before then. Returns how much that was.
pub(super) fn expire(transaction: &Transaction<'_>, module: i64, before: u64) -> rusqlite::Result<usize> {
    let row = params![module, before.cast_signed()];
    transaction.execute("DELETE FROM held WHERE module = ?1 AND expires < ?2", row)
}

/// Fails where nothing can be written.
pub(super) fn try_to_write(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.pragma_update(None, "user_version", VERSION)
}

/// What a module holds under a number; nothing if there is nothing, or nothing that could be sent.
pub(super) fn read_one(
    connection: &Connection,
    module: i64,
    number: u64,
) -> rusqlite::Result<Option<HeldRecord>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM held WHERE module = ?1 AND number = ?2"
    ))?;
    let mut rows = statement.query(params![module, number.cast_signed()])?;
    Ok(rows.next()?.and_then(record))
}

/// Reads all that a module holds, by number; nothing where it could not be sent. If something in the middle cannot be read,
/// what is behind it is.
///
/// # Errors
///
/// Not all could be read.
pub(super) fn read_all(
    connection: &Connection,
    module: i64,
    mut take: impl FnMut(u64, Option<HeldRecord>),
) -> rusqlite::Result<()> {
    let mut last = None;
    let forward = each(connection, module, "ASC", |number, record| {
        last = Some(number);
        take(number, record);
        true
    });
    if forward.is_err() {
        let mut behind = Vec::new();
        // It ends with an error, too.
        drop(each(connection, module, "DESC", |number, record| {
            let is_new = last.is_none_or(|last| number > last);
            if is_new {
                behind.push((number, record));
            }
            is_new
        }));
        for (number, record) in behind.into_iter().rev() {
            take(number, record);
        }
    }
    forward
}

/// In this order of the numbers, as long as more are wanted.
fn each(
    connection: &Connection,
    module: i64,
    order: &str,
    mut take: impl FnMut(u64, Option<HeldRecord>) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM held WHERE module = ?1 ORDER BY number {order}"
    ))?;
    let mut rows = statement.query(params![module])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        if !take(number.cast_unsigned(), record(row)) {
            break;
        }
    }
    Ok(())
}

/// Reads so many pushes of a module at most, from this number on, by number. What could not be sent is left out, so that
/// another part begins behind it.
pub(super) fn read_part(
    connection: &Connection,
    module: i64,
    from: u64,
    most: usize,
) -> rusqlite::Result<Vec<(u64, HeldRecord)>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM held WHERE module = ?1 AND number >= ?2 ORDER BY number"
    ))?;
    let mut rows = statement.query(params![module, from.cast_signed()])?;
    let mut part = Vec::new();
    while part.len() < most
        && let Some(row) = rows.next()?
    {
        let number: i64 = row.get(0)?;
        part.extend(record(row).map(|record| (number.cast_unsigned(), record)));
    }
    Ok(part)
}

/// How many pushes a module holds.
pub(super) fn count(connection: &Connection, module: i64) -> rusqlite::Result<usize> {
    let count: i64 = connection.query_row(
        "SELECT count(*) FROM held WHERE module = ?1",
        params![module],
        |row| row.get(0),
    )?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The number after the last one of a module.
pub(super) fn next_number(connection: &Connection, module: i64) -> rusqlite::Result<u64> {
    let last: Option<i64> = connection.query_row(
        "SELECT max(number) FROM held WHERE module = ?1",
        params![module],
        |row| row.get(0),
    )?;
    Ok(last.map_or(0, |last| last.cast_unsigned() + 1))
}

/// The file of held pushes.
pub(crate) const NAME: &str = "spool.db";
const VERSION: i64 = 2;
/// Times are milliseconds since 1970. `due` is 0 for a push that waits until its provider is back.
const SCHEMA: &str = "BEGIN;
    CREATE TABLE modules (id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL) STRICT;
    CREATE TABLE held (module INTEGER NOT NULL, number INTEGER NOT NULL, due INTEGER NOT NULL, expires INTEGER,
        token TEXT NOT NULL, class INTEGER NOT NULL, choice INTEGER NOT NULL, domain TEXT NOT NULL, spacing INTEGER NOT NULL,
        account TEXT, channel TEXT, registered INTEGER NOT NULL, node TEXT, attempts INTEGER NOT NULL, id BLOB, count INTEGER,
        arrived INTEGER, PRIMARY KEY (module, number)) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;
    COMMIT;";
const ADD_ARRIVED: &str = "BEGIN;
    ALTER TABLE held ADD COLUMN arrived INTEGER;
    PRAGMA user_version = 2;
    COMMIT;";
const PUT: &str = "INSERT OR REPLACE INTO held (module, number, due, expires, token, class, choice, domain, spacing, account, \
    channel, registered, node, attempts, id, count, arrived) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
const COLUMNS: &str = "number, due, expires, token, class, choice, domain, spacing, account, channel, registered, node, \
    attempts, id, count, arrived";
const TAKE_OUT: &str = "DELETE FROM held WHERE module = ?1 AND number = ?2";
/// As `HeldRecord::extended`.
const EXTEND: &str = "UPDATE held SET expires = max(expires, ?3) WHERE module = ?1 AND number = ?2";
/// As `HeldRecord::jumped`.
const JUMP: &str = "UPDATE held SET due = CASE due WHEN 0 THEN 0 ELSE max(1, due + ?2) END, expires = max(0, expires + ?2), \
    arrived = max(0, arrived + ?2) WHERE module = ?1";
/// For another program that looks at the file.
const BUSY: Duration = Duration::from_secs(2);
/// Bytes of SQLite's log when nothing happens.
const LARGEST_WAL: i64 = 16 << 20;
