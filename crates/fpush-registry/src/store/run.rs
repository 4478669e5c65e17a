//! How a statement is executed on either database, and what its errors mean.

use std::{io, time::Duration};

use fpush_tls::{certificate_fault, fault_of};
use sqlx::{ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Row, Type, query::Query};
use tokio::time::timeout;

use crate::{
    device::{Device, Dialect},
    foreign::Form,
    former,
    time::Time,
};

/// A value for a statement.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
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

/// A device that was removed.
pub(crate) struct Removed {
    pub(crate) node: String,
    pub(crate) owner: Option<String>,
    /// As how many it counted.
    pub(crate) places: i64,
}

/// A row of the table of devices.
pub(super) type Read = std::result::Result<Device, UnreadableRow>;

/// A row that holds no device that this version can read: its dialect is that of a later version, or it is damaged.
pub(super) struct UnreadableRow {
    /// Its node, if that can be read.
    pub(super) node: Option<String>,
    problem: sqlx::Error,
}

/// As how many the devices count whose owners have this domain.
pub(super) struct OfDomain {
    pub(super) places: i64,
    pub(super) domain: String,
}

/// What the devices were after a change.
pub(crate) struct State {
    pub(crate) change: i64,
    /// Random, so that a copy of the database that went another way is known by it.
    pub(crate) mark: String,
    /// How many devices there were.
    pub(crate) devices: i64,
    /// As how many they counted.
    pub(super) places: i64,
}

impl State {
    /// Whether all devices can be counted and read while somebody waits.
    pub(crate) fn is_small(&self) -> bool {
        self.devices <= FEW
    }
}

pub(super) type Result<T> = std::result::Result<T, sqlx::Error>;

/// Runs the same work on the connection of either database, for 10 s at most: a server whose machine is gone never
/// says so.
macro_rules! on {
    ($connection:expr, $name:ident => $work:expr) => {
        match $connection {
            Self::Sqlite($name) => $crate::store::run::in_time($work).await,
            Self::Postgres($name) => $crate::store::run::in_time($work).await,
        }
    };
}

pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(LONGEST, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
    }
}
pub(super) use on;

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
/// statement's values, or in a row that it finds, is to blame.
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) {
        return false;
    }
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
        sqlx::Error::Io(io) => describe_io(io),
        sqlx::Error::Tls(_) => {
            "no TLS: the server does not offer it, or a certificate in a file cannot be read".to_owned()
        }
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::PoolClosed => "the connections are closed".to_owned(),
        sqlx::Error::Protocol(_) => "the server does not speak the protocol".to_owned(),
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_) => "a row cannot be read".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

fn describe_io(error: &io::Error) -> String {
    match (fault_of(error), error.kind()) {
        (Some(rustls::Error::InvalidCertificate(reason)), _) => {
            format!(
                "the server's certificate is not accepted: {}",
                certificate_fault(reason)
            )
        }
        (Some(fault), _) => format!("TLS with the server fails: {fault}"),
        (None, io::ErrorKind::NotFound) => {
            "there is no such socket, or no such file of a certificate or key".to_owned()
        }
        // The resolver's errors have no kind.
        (None, kind) if format!("{kind}") == "uncategorized error" => {
            "the host of the URL is not known; in its password \
             everything but letters and digits has to be percent-encoded, such as %23 for # and %2F for /"
                .to_owned()
        }
        (None, kind) => kind.to_string(),
    }
}

pub(super) fn bound<'q, DB>(sql: &'static str, values: &[Value<'_>]) -> Query<'q, DB, DB::Arguments>
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
        pub(super) async fn $name<'c, DB, E>(executor: E, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<$what>>
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
    /// The devices that a statement finds, and the rows that hold none that this version can read.
    devices -> Read,
    |row| {
        let read = || {
            let owner: Option<String> = row.try_get(6)?;
            let device = Device {
                node: row.try_get(0)?,
                dialect: Dialect::from_name(&row.try_get::<String, _>(1)?).ok_or_else(|| sqlx::Error::Decode("a dialect".into()))?,
                kind: row.try_get(2)?,
                secret: row.try_get(3)?,
                token: row.try_get(4)?,
                voip_token: row.try_get(5)?,
                account: row.try_get(7)?,
                channel: row.try_get(8)?,
                registered: Time(row.try_get(9)?),
                renewed: row.try_get::<Option<i64>, _>(10)?.map(Time),
                delivered: row.try_get::<Option<i64>, _>(11)?.map(Time),
                failed: row.try_get::<Option<i64>, _>(12)?.map(Time),
                former: former::from_text(row.try_get::<Option<String>, _>(13)?.as_deref()),
                // Old versions noted it of those with an owner, too.
                imported: owner.is_none() && row.try_get::<i64, _>(14)? != 0,
                owner,
                in_second: row.try_get::<i64, _>(15)? != 0,
            };
            // What others have written may be longer than anything that fpush takes.
            device.is_sane().then_some(device).ok_or_else(|| sqlx::Error::Decode("a text that is too long, or no text".into()))
        };
        Ok(read().map_err(|problem| UnreadableRow { node: row.try_get(0).ok(), problem }))
    }
);

reading!(
    /// The states that a statement finds.
    states -> State,
    |row| Ok(State {
        change: row.try_get(0)?,
        mark: row.try_get(1)?,
        devices: row.try_get(2)?,
        places: row.try_get(3)?,
    })
);

reading!(
    /// The changes that a statement finds.
    changes -> Change,
    |row| Ok(Change { id: row.try_get(0)?, node: row.try_get(1)? })
);

reading!(
    /// The devices that a statement removes.
    removed -> Removed,
    |row| Ok(Removed { node: row.try_get(0)?, owner: row.try_get(1)?, places: row.try_get(2)? })
);

reading!(
    /// The counts that a statement finds.
    counts -> OfDomain,
    |row| Ok(OfDomain { places: row.try_get(0)?, domain: row.try_get(1)? })
);

reading!(
    /// The kinds of devices that a statement counts: dialect, kind, how many.
    kinds -> (String, String, i64),
    |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
);

reading!(
    /// The forms of nodes that a statement finds; `None` for one of a dialect of a later version.
    forms -> Option<Form>,
    |row| {
        let length = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        let dialect = Dialect::from_name(&row.try_get::<String, _>(1)?);
        Ok(dialect.map(|dialect| Form { dialect, length }))
    }
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

/// The first device; an error if it cannot be read.
pub(super) fn first(rows: Result<Vec<Read>>) -> Result<Option<Device>> {
    let first = rows?.into_iter().next();
    first.transpose().map_err(|row| row.problem)
}

/// The devices that can be read.
pub(super) fn readable(rows: Result<Vec<Read>>) -> Result<Vec<Device>> {
    Ok(rows?.into_iter().flatten().collect())
}

pub(super) fn only(numbers: Result<Vec<i64>>) -> Result<i64> {
    numbers?.first().copied().ok_or(sqlx::Error::RowNotFound)
}

/// How long to wait for a connection, or for another process that writes.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// They are read in a tenth of a second.
const FEW: i64 = 20_000;
/// How long one statement may take.
const LONGEST: Duration = Duration::from_secs(10);
