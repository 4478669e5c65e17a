//! The database: one set of tables and statements for SQLite and PostgreSQL.
//!
//! Whoever writes is alone: SQLite has one writer, and on PostgreSQL a transaction begins with a lock that all
//! instances share. So what a transaction reads stays true until it commits, and the ids of changes are in the order
//! of the commits.

mod owners;
mod postgres;
mod probe;
mod sqlite;

use std::{io, path::Path, time::Duration};

pub use probe::Probe;
use sqlx::{
    AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, PgPool, Postgres, Row,
    Sqlite, SqlitePool, Transaction, Type, query::Query,
};

use tokio::time::timeout;

use crate::{
    device::{Device, Dialect, Time, random_hex},
    error::OpenError,
    former,
    past::{Ended, FIRST_CHANGE, Known, Look},
};

/// A database, with connections for readers and for the one writer.
#[derive(Clone)]
pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction that writes. Without [`commit`](Self::commit) nothing of it remains.
pub(crate) enum Writing {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A value for a statement.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Number(i64),
    MaybeNumber(Option<i64>),
}

/// A change that some process made.
pub(crate) struct Change {
    pub(crate) id: i64,
    pub(crate) node: String,
}

/// What the devices were after a change.
struct State {
    change: i64,
    /// Random, so that a copy of the database that went another way is known by it.
    mark: String,
    /// How many devices there were.
    devices: i64,
}

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Runs the same work on the connection of either database, for 10 s at most: a server whose machine is gone never
/// says so.
macro_rules! on {
    ($connection:expr, $name:ident => $work:expr) => {
        match $connection {
            Self::Sqlite($name) => in_time($work).await,
            Self::Postgres($name) => in_time($work).await,
        }
    };
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(LONGEST, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

impl Store {
    /// Opens the file, and makes it where there is none.
    pub(crate) async fn sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        sqlite::open(path).await.map(Self::Sqlite)
    }

    /// Prepares to connect: the server need not be there yet.
    pub(crate) fn postgres(url: &str) -> std::result::Result<Self, OpenError> {
        postgres::prepare(url).map(Self::Postgres)
    }

    /// Begins to write, alone.
    pub(crate) async fn begin(&self) -> Result<Writing> {
        let beginning = async {
            Ok(match self {
                Self::Sqlite(pool) => Writing::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
                Self::Postgres(pool) => {
                    let mut transaction = pool.begin().await?;
                    sqlx::query("SELECT pg_advisory_xact_lock($1)")
                        .bind(WRITERS)
                        .execute(&mut *transaction)
                        .await?;
                    Writing::Postgres(transaction)
                }
            })
        };
        in_time(beginning).await
    }

    /// Makes and updates the tables. Returns the server's key.
    pub(crate) async fn migrate(&self) -> std::result::Result<String, MigrateError> {
        let mut writing = self.begin().await?;
        writing.execute(CREATE_META, &[]).await?;
        let version = match writing.meta("schema").await? {
            Some(version) => version.parse::<u32>().map_or(i64::MAX, i64::from),
            None => 0,
        };
        let known = MIGRATIONS.len() as i64;
        if version > known {
            return Err(MigrateError::Newer {
                found: version,
                known,
            });
        }
        for migration in &MIGRATIONS[version as usize..] {
            for definition in *migration {
                writing.define(definition).await?;
            }
        }
        if version < known {
            writing.set_meta("schema", &known.to_string()).await?;
        }
        writing.spell_owners().await?;
        let key = match writing.meta("key").await? {
            Some(key) => key,
            None => {
                let key = random_hex()?;
                writing.set_meta("key", &key).await?;
                key
            }
        };
        if writing.meta("id").await?.is_none() {
            writing.set_meta("id", &random_hex()?[..32]).await?;
        }
        if writing.last_state().await?.is_none() {
            let devices = writing.count().await?;
            writing.add_state(FIRST_CHANGE, devices, Time::now()).await?;
        }
        writing.commit().await?;
        Ok(key)
    }

    /// What the database says of its past.
    pub(crate) async fn look(&self) -> Result<Look> {
        let last = on!(self, pool => states(pool, LAST_STATE, &[]))?;
        let last = last.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        let text = async |name: &str| {
            let values = [Value::Text(name)];
            let found = on!(self, pool => nodes(pool, META, &values))?;
            Ok::<_, sqlx::Error>(found.into_iter().next())
        };
        Ok(Look {
            known: Known {
                database: text("id").await?.ok_or(sqlx::Error::RowNotFound)?,
                change: last.change,
                mark: last.mark,
                devices: last.devices,
                seen: Time::now().millis(),
            },
            accepted: text("accepted").await?.and_then(|at| at.parse().ok()),
        })
    }

    /// The mark of a change; `None` if there was no such change, or if it is forgotten.
    pub(crate) async fn mark(&self, change: i64) -> Result<Option<String>> {
        let values = [Value::Number(change)];
        Ok(on!(self, pool => nodes(pool, MARK, &values))?.into_iter().next())
    }

    /// Whether a node with this hash has a tombstone, in a database that has this change in its past.
    pub(crate) async fn has_tombstone(&self, hash: &str, known: &Known) -> Result<bool> {
        let values = [
            Value::Text(hash),
            Value::Number(known.change),
            Value::Text(&known.mark),
        ];
        Ok(only(on!(self, pool => numbers(pool, HAS_TOMBSTONE, &values)))? > 0)
    }

    /// Writes something, to see whether that is possible again.
    pub(crate) async fn try_to_write(&self) -> Result<()> {
        let mut writing = self.begin().await?;
        writing
            .set_meta("tried", &Time::now().millis().to_string())
            .await?;
        writing.commit().await
    }

    /// The device with this node.
    pub(crate) async fn find(&self, node: &str) -> Result<Option<Device>> {
        let values = [Value::Text(node)];
        first(on!(self, pool => devices(pool, FIND, &values)))
    }

    /// Devices in the order of their nodes, after this one.
    pub(crate) async fn page(&self, after: &str, limit: i64) -> Result<Vec<Device>> {
        let values = [Value::Text(after), Value::Number(limit)];
        on!(self, pool => devices(pool, PAGE, &values))
    }

    /// A few of the devices with one of these tokens.
    pub(crate) async fn with_token(&self, token: &str, other: &str) -> Result<Vec<Device>> {
        let values = [Value::Text(token), Value::Text(other)];
        on!(self, pool => devices(pool, WITH_TOKEN, &values))
    }

    /// How many devices there are.
    pub(crate) async fn count(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, COUNT, &[])))
    }

    /// The id of the last change; 0 if there was none.
    pub(crate) async fn last_change(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, LAST_CHANGE, &[])))
    }

    /// When a device was last used: registered, or pushed to. `None` if there is none.
    pub(crate) async fn last_use(&self) -> Result<Option<Time>> {
        let last: i64 = only(on!(self, pool => numbers(pool, LAST_USE, &[])))?;
        Ok((last > 0).then_some(Time::from_millis(last)))
    }

    /// Changes that others made after this one, the earliest first.
    pub(crate) async fn changes(&self, after: i64, not_from: &str, limit: i64) -> Result<Vec<Change>> {
        let values = [Value::Number(after), Value::Text(not_from), Value::Number(limit)];
        on!(self, pool => changes(pool, CHANGES, &values))
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Writing {
    /// The device with this node.
    pub(crate) async fn find(&mut self, node: &str) -> Result<Option<Device>> {
        let values = [Value::Text(node)];
        first(on!(self, transaction => devices(&mut **transaction, FIND, &values)))
    }

    /// All devices of an owner.
    pub(crate) async fn owned_by(&mut self, owner: &str) -> Result<Vec<Device>> {
        let values = [Value::Text(owner)];
        on!(self, transaction => devices(&mut **transaction, OWNED, &values))
    }

    /// Writes a device, in the place of one with the same node.
    pub(crate) async fn put(&mut self, device: &Device) -> Result<()> {
        let former = former::to_text(&device.former);
        let values = [
            Value::Text(&device.node),
            Value::Text(device.dialect.name()),
            Value::Text(&device.kind),
            Value::Text(&device.secret),
            Value::Text(&device.token),
            Value::MaybeText(device.call_token.as_deref()),
            Value::MaybeText(device.owner.as_deref()),
            Value::MaybeText(device.account.as_deref()),
            Value::MaybeText(device.channel.as_deref()),
            Value::Number(device.registered.millis()),
            Value::MaybeNumber(device.renewed.map(Time::millis)),
            Value::MaybeNumber(device.delivered.map(Time::millis)),
            Value::MaybeNumber(device.failed.map(Time::millis)),
            Value::MaybeText(former.as_deref()),
            Value::Number(i64::from(device.imported)),
        ];
        self.execute(PUT, &values).await.map(drop)
    }

    /// Notes that the node with this hash was registered and is not any more.
    pub(crate) async fn bury(&mut self, hash: &str, ended: Ended, now: Time) -> Result<()> {
        let values = [
            Value::Text(hash),
            Value::Number(now.millis()),
            Value::Text(ended.name()),
        ];
        self.execute(BURY, &values).await.map(drop)
    }

    /// Removes a tombstone, if there is one.
    pub(crate) async fn unbury(&mut self, hash: &str) -> Result<()> {
        self.execute(UNBURY, &[Value::Text(hash)]).await.map(drop)
    }

    /// Forgets old tombstones and old states.
    pub(crate) async fn forget(&mut self, before: Time) -> Result<()> {
        self.execute(FORGET_TOMBSTONES, &[Value::Number(before.millis())])
            .await?;
        self.execute(LIMIT_TOMBSTONES, &[Value::Number(MOST_TOMBSTONES)])
            .await?;
        if let Some(last) = self.last_state().await? {
            let values = [Value::Number(last.change.saturating_sub(KEEP_STATES))];
            self.execute(FORGET_STATES, &values).await?;
        }
        Ok(())
    }

    /// Notes that the devices change, and how many more there are. Returns what is known of the database from then on, if
    /// it has the change in its past that was known `before`.
    pub(crate) async fn advance(
        &mut self,
        more: i64,
        now: Time,
        before: Option<&Known>,
    ) -> Result<Option<Known>> {
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        let (change, devices) = (last.change.saturating_add(1), last.devices.saturating_add(more));
        let mark = self.add_state(change, devices, now).await?;
        let Some(before) = before else { return Ok(None) };
        let values = [Value::Number(before.change)];
        let found = on!(self, transaction => nodes(&mut **transaction, MARK, &values))?;
        Ok((found.first() == Some(&before.mark)).then(|| Known {
            database: before.database.clone(),
            change,
            mark,
            devices,
            seen: now.millis(),
        }))
    }

    /// Notes that the operator says that this is the right database, with the devices that it has. Returns how many.
    pub(crate) async fn accept(&mut self, now: Time) -> Result<i64> {
        let devices = self.count().await?;
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        self.add_state(last.change.saturating_add(1), devices, now)
            .await?;
        self.set_meta("accepted", &now.millis().to_string()).await?;
        Ok(devices)
    }

    async fn count(&mut self) -> Result<i64> {
        only(on!(self, transaction => numbers(&mut **transaction, COUNT, &[])))
    }

    async fn last_state(&mut self) -> Result<Option<State>> {
        let last = on!(self, transaction => states(&mut **transaction, LAST_STATE, &[]))?;
        Ok(last.into_iter().next())
    }

    async fn add_state(&mut self, change: i64, devices: i64, now: Time) -> Result<String> {
        let mut mark = random_hex().map_err(|e| sqlx::Error::Io(e.into()))?;
        mark.truncate(16);
        let values = [
            Value::Number(change),
            Value::Text(&mark),
            Value::Number(devices),
            Value::Number(now.millis()),
        ];
        self.execute(ADD_STATE, &values).await?;
        Ok(mark)
    }

    /// Removes the device with this node. Returns whether there was one.
    pub(crate) async fn remove(&mut self, node: &str) -> Result<bool> {
        Ok(self.execute(REMOVE, &[Value::Text(node)]).await? > 0)
    }

    /// Removes the device with this node and token if it last registered before then. Returns whether it did.
    pub(crate) async fn remove_dead(&mut self, node: &str, token: &str, before: Time) -> Result<bool> {
        let values = [
            Value::Text(node),
            Value::Text(token),
            Value::Number(before.millis()),
        ];
        Ok(self.execute(REMOVE_DEAD, &values).await? > 0)
    }

    /// Removes at most so many devices that were neither registered nor pushed to since then. Returns their nodes.
    pub(crate) async fn remove_unused(&mut self, since: Time, limit: i64) -> Result<Vec<String>> {
        let values = [Value::Number(since.millis()), Value::Number(limit)];
        let nodes = on!(self, transaction => nodes(&mut **transaction, UNUSED, &values))?;
        for node in &nodes {
            self.remove(node).await?;
        }
        Ok(nodes)
    }

    /// Writes when pushes to a device were accepted and refused.
    pub(crate) async fn note_pushes(
        &mut self,
        node: &str,
        delivered: Option<Time>,
        failed: Option<Time>,
    ) -> Result<()> {
        let values = [
            Value::Text(node),
            Value::MaybeNumber(delivered.map(Time::millis)),
            Value::MaybeNumber(failed.map(Time::millis)),
        ];
        self.execute(NOTE_PUSHES, &values).await.map(drop)
    }

    /// Tells the other processes of this database that a device changed.
    pub(crate) async fn tell(&mut self, node: &str, now: Time, source: &str) -> Result<()> {
        let values = [
            Value::Text(node),
            Value::Number(now.millis()),
            Value::Text(source),
        ];
        self.execute(TELL, &values).await.map(drop)
    }

    /// Forgets old changes.
    pub(crate) async fn forget_changes(&mut self, before: Time) -> Result<()> {
        self.execute(FORGET_CHANGES, &[Value::Number(before.millis())])
            .await
            .map(drop)
    }

    /// Makes everything last.
    pub(crate) async fn commit(self) -> Result<()> {
        on!(self, transaction => transaction.commit())
    }

    async fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let found = self.texts(META, &[Value::Text(name)]).await?;
        Ok(found.into_iter().next())
    }

    async fn texts(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<String>> {
        on!(self, transaction => nodes(&mut **transaction, sql, values))
    }

    async fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        self.execute(SET_META, &[Value::Text(name), Value::Text(value)])
            .await
            .map(drop)
    }

    async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        on!(self, transaction => async {
            Ok(bound(sql, values).execute(&mut **transaction).await?.rows_affected())
        })
    }

    /// Executes a definition, with the words in which the two databases differ put in.
    async fn define(&mut self, sql: &str) -> Result<()> {
        let (node, id) = match self {
            Self::Sqlite(_) => ("TEXT", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            Self::Postgres(_) => (
                "TEXT COLLATE \"C\"",
                "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            ),
        };
        let sql = AssertSqlSafe(sql.replace("{node}", node).replace("{id}", id));
        on!(self, transaction => async { sqlx::query(sql).execute(&mut **transaction).await.map(drop) })
    }
}

/// Why the tables could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error("{}", describe(.0))]
    Database(#[from] sqlx::Error),
    #[error("newer tables")]
    Newer { found: i64, known: i64 },
    #[error(transparent)]
    Randomness(#[from] getrandom::Error),
}

/// Whether the same statement may succeed later: the database is away, full or busy. If not, something in the
/// statement's values is to blame.
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return true;
    };
    let Some(code) = error.code() else { return true };
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // SQLITE_ERROR, SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH; the low byte is the kind.
        return !code
            .parse::<u32>()
            .is_ok_and(|code| matches!(code & 0xff, 1 | 18 | 19 | 20));
    }
    // Data that does not fit, and violated constraints.
    !(code.starts_with("22") || code.starts_with("23"))
}

/// An error in words that hold no values.
pub(crate) fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if is_outage(error) {
                format!("{} (code {code})", database.message())
            } else {
                format!("code {code}")
            }
        }
        sqlx::Error::Io(io) => format!("{}", io.kind()),
        sqlx::Error::Tls(_) => "TLS failed".to_owned(),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::PoolClosed => "the connections are closed".to_owned(),
        sqlx::Error::Protocol(_) => "the server does not speak the protocol".to_owned(),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnNotFound(_) | sqlx::Error::ColumnDecode { .. } => {
            "a row cannot be read".to_owned()
        }
        _ => "the connection failed".to_owned(),
    }
}

fn bound<'q, DB>(sql: &'static str, values: &[Value<'_>]) -> Query<'q, DB, DB::Arguments>
where
    DB: Database,
    for<'t> &'t str: Encode<'t, DB> + Type<DB>,
    for<'t> Option<&'t str>: Encode<'t, DB> + Type<DB>,
    for<'t> i64: Encode<'t, DB> + Type<DB>,
    for<'t> Option<i64>: Encode<'t, DB> + Type<DB>,
{
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Text(text) => query.bind(text),
        Value::MaybeText(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
        Value::MaybeNumber(number) => query.bind(number),
    })
}

macro_rules! reading {
    ($(#[$doc:meta])* $name:ident -> $what:ty, $read:expr) => {
        $(#[$doc])*
        async fn $name<'c, DB, E>(executor: E, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<$what>>
        where
            DB: Database,
            E: Executor<'c, Database = DB>,
            DB::Arguments: IntoArguments<DB>,
            for<'t> &'t str: Encode<'t, DB> + Type<DB>,
            for<'t> Option<&'t str>: Encode<'t, DB> + Type<DB>,
            for<'t> i64: Encode<'t, DB> + Decode<'t, DB> + Type<DB>,
            for<'t> Option<i64>: Encode<'t, DB> + Type<DB>,
            for<'t> String: Decode<'t, DB> + Type<DB>,
            usize: ColumnIndex<DB::Row>,
        {
            let rows = bound(sql, values).fetch_all(executor).await?;
            let read: fn(&DB::Row) -> Result<$what> = $read;
            rows.iter().map(read).collect()
        }
    };
}

reading!(
    /// The devices that a statement finds.
    devices -> Device,
    |row| {
        let dialect: String = row.try_get(1)?;
        Ok(Device {
            node: row.try_get(0)?,
            dialect: Dialect::from_name(&dialect).ok_or(sqlx::Error::RowNotFound)?,
            kind: row.try_get(2)?,
            secret: row.try_get(3)?,
            token: row.try_get(4)?,
            call_token: row.try_get(5)?,
            owner: row.try_get(6)?,
            account: row.try_get(7)?,
            channel: row.try_get(8)?,
            registered: Time(row.try_get(9)?),
            renewed: row.try_get::<Option<i64>, _>(10)?.map(Time),
            delivered: row.try_get::<Option<i64>, _>(11)?.map(Time),
            failed: row.try_get::<Option<i64>, _>(12)?.map(Time),
            former: former::from_text(row.try_get::<Option<String>, _>(13)?.as_deref()),
            imported: row.try_get::<i64, _>(14)? != 0,
        })
    }
);

reading!(
    /// The states that a statement finds.
    states -> State,
    |row| Ok(State { change: row.try_get(0)?, mark: row.try_get(1)?, devices: row.try_get(2)? })
);

reading!(
    /// The changes that a statement finds.
    changes -> Change,
    |row| Ok(Change { id: row.try_get(0)?, node: row.try_get(1)? })
);

reading!(
    /// The texts in the first column of what a statement finds.
    nodes -> String,
    |row| row.try_get(0)
);

reading!(
    /// The numbers in the first column of what a statement finds.
    numbers -> i64,
    |row| row.try_get(0)
);

fn first(devices: Result<Vec<Device>>) -> Result<Option<Device>> {
    Ok(devices?.into_iter().next())
}

fn only(numbers: Result<Vec<i64>>) -> Result<i64> {
    numbers?.first().copied().ok_or(sqlx::Error::RowNotFound)
}

/// How long to wait for a connection, or for another process that writes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one statement may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Of these a year holds at most: a stranger can end registrations as fast as commands are taken.
const MOST_TOMBSTONES: i64 = 2_000_000;
/// So many changes back a copy that went another way is known by its marks.
const KEEP_STATES: i64 = 50_000;
/// The lock that a writer on PostgreSQL holds: any number that nobody else takes in this database.
const WRITERS: i64 = 0x6670_7573_6801;

const CREATE_META: &str = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)";
const META: &str = "SELECT value FROM meta WHERE name = $1";
const SET_META: &str =
    "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// One entry for each version of the tables; what is published is never changed. `{node}` is the type of a node,
/// `{id}` a number that counts up. Times are milliseconds since 1970.
const MIGRATIONS: &[&[&str]] = &[
    &[
        "CREATE TABLE devices (
        node {node} PRIMARY KEY,
        dialect TEXT NOT NULL,
        kind TEXT NOT NULL,
        secret TEXT NOT NULL,
        token TEXT NOT NULL,
        call_token TEXT,
        owner TEXT,
        account TEXT,
        channel TEXT,
        registered BIGINT NOT NULL,
        renewed BIGINT,
        delivered BIGINT,
        failed BIGINT
    )",
        "CREATE INDEX devices_by_owner ON devices (owner) WHERE owner IS NOT NULL",
        "CREATE TABLE changes (id {id}, node TEXT NOT NULL, at BIGINT NOT NULL, source TEXT NOT NULL)",
    ],
    &[
        "ALTER TABLE devices ADD COLUMN former TEXT",
        // Before that nobody noted it.
        "ALTER TABLE devices ADD COLUMN imported BIGINT NOT NULL DEFAULT 1",
        "CREATE TABLE tombstones (hash TEXT PRIMARY KEY, at BIGINT NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX tombstones_by_time ON tombstones (at)",
        "CREATE TABLE states (
            change BIGINT PRIMARY KEY, mark TEXT NOT NULL, devices BIGINT NOT NULL, at BIGINT NOT NULL
        )",
    ],
];

macro_rules! columns {
    () => {
        "node, dialect, kind, secret, token, call_token, owner, account, channel, registered, renewed, delivered, failed, former, imported"
    };
}

const FIND: &str = concat!("SELECT ", columns!(), " FROM devices WHERE node = $1");
const PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE node > $1 ORDER BY node LIMIT $2"
);
const OWNED: &str = concat!("SELECT ", columns!(), " FROM devices WHERE owner = $1");
/// Without an index: somebody asks once in a while.
const WITH_TOKEN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE token = $1 OR token = $2 OR call_token = $1 OR call_token = $2 ORDER BY node LIMIT 20"
);
const COUNT: &str = "SELECT count(*) FROM devices";
const PUT: &str = concat!(
    "INSERT INTO devices (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (node) DO UPDATE SET \
     dialect = excluded.dialect, kind = excluded.kind, secret = excluded.secret, token = excluded.token, \
     call_token = excluded.call_token, owner = excluded.owner, account = excluded.account, \
     channel = excluded.channel, registered = excluded.registered, renewed = excluded.renewed, \
     delivered = excluded.delivered, failed = excluded.failed, former = excluded.former, imported = excluded.imported"
);
const REMOVE: &str = "DELETE FROM devices WHERE node = $1";
const REMOVE_DEAD: &str =
    "DELETE FROM devices WHERE node = $1 AND token = $2 AND coalesce(renewed, registered) < $3";
/// What is dated before 2000 was written by a clock that did not know the time yet.
const UNUSED: &str = "SELECT node FROM devices WHERE coalesce(renewed, registered) < $1 AND coalesce(delivered, 0) < $1 \
                      AND coalesce(renewed, registered) >= 946684800000 LIMIT $2";
const LAST_USE: &str = "SELECT coalesce(max(at), 0) FROM (SELECT max(coalesce(renewed, registered)) AS at FROM devices \
                        UNION ALL SELECT max(delivered) AS at FROM devices) AS used";
const NOTE_PUSHES: &str =
    "UPDATE devices SET delivered = coalesce($2, delivered), failed = coalesce($3, failed) WHERE node = $1";
const TELL: &str = "INSERT INTO changes (node, at, source) VALUES ($1, $2, $3)";
const LAST_CHANGE: &str = "SELECT coalesce(max(id), 0) FROM changes";
const CHANGES: &str = "SELECT id, node FROM changes WHERE id > $1 AND source <> $2 ORDER BY id LIMIT $3";
const BURY: &str = "INSERT INTO tombstones (hash, at, reason) VALUES ($1, $2, $3) \
                    ON CONFLICT (hash) DO UPDATE SET at = excluded.at, reason = excluded.reason";
const UNBURY: &str = "DELETE FROM tombstones WHERE hash = $1";
const HAS_TOMBSTONE: &str = "SELECT count(*) FROM tombstones WHERE hash = $1 \
                             AND EXISTS (SELECT 1 FROM states WHERE change = $2 AND mark = $3)";
const FORGET_TOMBSTONES: &str = "DELETE FROM tombstones WHERE at < $1";
/// The oldest go first: without its tombstone a node is answered `wait`.
const LIMIT_TOMBSTONES: &str =
    "DELETE FROM tombstones WHERE at < (SELECT at FROM tombstones ORDER BY at DESC LIMIT 1 OFFSET $1)";
const LAST_STATE: &str = "SELECT change, mark, devices FROM states ORDER BY change DESC LIMIT 1";
const ADD_STATE: &str = "INSERT INTO states (change, mark, devices, at) VALUES ($1, $2, $3, $4)";
const MARK: &str = "SELECT mark FROM states WHERE change = $1";
const FORGET_STATES: &str = "DELETE FROM states WHERE change < $1";
const FORGET_CHANGES: &str = "DELETE FROM changes WHERE at < $1";
