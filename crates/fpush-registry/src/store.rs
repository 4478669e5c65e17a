//! The database: one set of tables and statements for SQLite and PostgreSQL.
//!
//! Only one writes at a time: SQLite has one writer, and on PostgreSQL a transaction begins with a lock that all
//! instances share. So what a transaction reads stays true until it commits, and the ids of changes are in the order
//! of the commits.

mod many;
mod migrate;
mod postgres;
pub(crate) mod probe;
mod run;
mod sqlite;
mod statements;
mod writing;

use std::{path::Path, time::Duration};

use sqlx::{PgPool, SqlitePool};

pub(crate) use self::{
    many::Column,
    postgres::Listener,
    run::{MigrateError, Removed, State, describe, is_outage},
    statements::{AT_ONCE, NOTED_AT_ONCE},
    writing::FORGOTTEN_AT_ONCE,
    writing::{Counted, Writing},
};
use self::{
    run::{
        Change, Result, Value, changes, devices, first, forms, in_time, kinds, nodes, numbers, on, only,
        readable, states,
    },
    statements as sql,
    writing::ACCEPTED,
};
#[cfg(test)]
pub(crate) use self::{statements::LAST_USE as LAST_USE_IN_SQL, writing::MOST_CHANGES};
use crate::{
    device::Device,
    error::OpenError,
    foreign::Form,
    past::{Accepted, Known, Look},
    time::Time,
};

/// A database, with connections for readers and for the one writer.
#[derive(Clone)]
pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A page of devices.
pub(crate) struct StoredPage {
    pub(crate) devices: Vec<Device>,
    /// Rows that cannot be read.
    pub(crate) unreadable: usize,
    /// After which node the next page begins; `None` if this is the last one.
    pub(crate) next: Option<String>,
}

impl Store {
    /// Opens the file, and makes it where there is none.
    pub(crate) async fn sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        sqlite::open(path).await.map(Self::Sqlite)
    }

    /// Opens the file if it is there.
    pub(crate) async fn existing_sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        sqlite::open_existing(path).await.map(Self::Sqlite)
    }

    /// Prepares to connect: the server need not be there yet.
    pub(crate) fn postgres(url: &str) -> std::result::Result<Self, OpenError> {
        postgres::prepare(url).map(Self::Postgres)
    }

    /// An error in words that hold no values; of a file also what to do.
    pub(crate) fn describe(&self, error: &sqlx::Error) -> String {
        match self {
            Self::Sqlite(pool) => sqlite::explain(pool.connect_options().get_filename(), error),
            Self::Postgres(_) => describe(error),
        }
    }

    /// The same, and if no connection came about why not.
    pub(crate) async fn explain(&self, error: &sqlx::Error) -> String {
        let described = self.describe(error);
        match self {
            Self::Postgres(pool) if matches!(error, sqlx::Error::PoolTimedOut) => {
                match postgres::obstacle(pool).await {
                    Some(obstacle) => format!("{described}: {obstacle}"),
                    None => described,
                }
            }
            Self::Sqlite(_) | Self::Postgres(_) => described,
        }
    }

    /// Whether a start goes on without the database because it may be there later.
    pub(crate) fn may_come_later(&self, error: &sqlx::Error) -> bool {
        match self {
            Self::Sqlite(_) => sqlite::may_pass(error),
            Self::Postgres(_) => true,
        }
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

    /// What the database says of its past.
    pub(crate) async fn look(&self) -> Result<Look> {
        let last = self.last_state().await?;
        let accepted = self
            .meta(ACCEPTED)
            .await?
            .and_then(|text| Accepted::from_text(&text));
        let now = Time::now().millis();
        Ok(Look {
            known: Known {
                database: self.meta("id").await?.ok_or(sqlx::Error::RowNotFound)?,
                change: last.change,
                mark: last.mark,
                devices: last.devices,
                seen: now,
                accepted: accepted.map_or(0, |accepted| accepted.at),
                since: last.change,
            },
            accepted,
        })
    }

    /// What the devices were after the last change.
    pub(crate) async fn last_state(&self) -> Result<State> {
        let last = on!(self, pool => states(pool, sql::LAST_STATE, &[]))?;
        last.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// The mark of a change; `None` if there was no such change, or if it is forgotten.
    pub(crate) async fn mark(&self, change: i64) -> Result<Option<String>> {
        let values = [Value::Number(change)];
        Ok(on!(self, pool => nodes(pool, sql::MARK, &values))?
            .into_iter()
            .next())
    }

    /// Whether a node with this hash has a tombstone that counts, in a database that has this change in its past.
    pub(crate) async fn has_tombstone(&self, hash: &str, known: &Known) -> Result<bool> {
        let values = [
            Value::Text(hash),
            Value::Number(known.change),
            Value::Text(&known.mark),
            Value::Number(known.since),
        ];
        Ok(only(on!(self, pool => numbers(pool, sql::HAS_TOMBSTONE, &values)))? > 0)
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
        first(on!(self, pool => devices(pool, sql::FIND, &values)))
    }

    /// Devices in the order of their nodes, after this one.
    pub(crate) async fn page(&self, after: &str, limit: usize) -> Result<StoredPage> {
        let values = [Value::Text(after), Value::Number(limit as i64)];
        let rows = on!(self, pool => devices(pool, sql::PAGE, &values))?;
        let number = rows.len();
        let next = match rows.last() {
            Some(Ok(device)) if number >= limit => Some(device.node.clone()),
            Some(Err(row)) if number >= limit => row.node.clone(),
            Some(_) | None => None,
        };
        let devices: Vec<_> = rows.into_iter().flatten().collect();
        Ok(StoredPage {
            unreadable: number - devices.len(),
            devices,
            next,
        })
    }

    /// A few of the devices with one of these tokens that can be read.
    pub(crate) async fn with_token(&self, token: &str, other: &str) -> Result<Vec<Device>> {
        let values = [Value::Text(token), Value::Text(other)];
        readable(on!(self, pool => devices(pool, sql::WITH_TOKEN, &values)))
    }

    /// So many of the devices of an owner that can be read, those that registered last.
    pub(crate) async fn newest_owned(&self, owner: &str, most: i64) -> Result<Vec<Device>> {
        let values = [Value::Text(owner), Value::Number(most)];
        readable(on!(self, pool => devices(pool, sql::NEWEST_OWNED, &values)))
    }

    /// How many devices there are.
    pub(crate) async fn count(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::COUNT, &[])))
    }

    /// The devices by dialect and kind: of the kinds that most have.
    pub(crate) async fn kinds(&self) -> Result<Vec<(String, String, i64)>> {
        on!(self, pool => kinds(pool, sql::KINDS, &[]))
    }

    /// Whether there is a device.
    pub(crate) async fn has_devices(&self) -> Result<bool> {
        Ok(only(on!(self, pool => numbers(pool, sql::HAS_DEVICES, &[])))? > 0)
    }

    /// How many devices are missing of those that were counted along. In one statement, between whose parts nobody writes.
    pub(crate) async fn missing(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::MISSING, &[])))
    }

    /// As how many the devices count.
    pub(crate) async fn count_places(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::COUNT_PLACES, &[])))
    }

    /// As how many the devices without an owner count.
    pub(crate) async fn count_without_owner(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::COUNT_WITHOUT_OWNER, &[])))
    }

    /// The id of the last change; 0 if there was none.
    pub(crate) async fn last_change(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::LAST_CHANGE, &[])))
    }

    /// The id of the oldest change that is not forgotten; 0 if there is none.
    pub(crate) async fn oldest_change(&self) -> Result<i64> {
        only(on!(self, pool => numbers(pool, sql::OLDEST_CHANGE, &[])))
    }

    /// When a device was last used: registered, or pushed to. `None` if there is none.
    pub(crate) async fn last_use(&self) -> Result<Option<Time>> {
        let last: i64 = only(on!(self, pool => numbers(pool, sql::LAST_USE, &[])))?;
        Ok((last > 0).then_some(Time::from_millis(last)))
    }

    /// The latest time of a clock that may have been ahead.
    pub(crate) async fn doubted_clock(&self) -> Result<Option<Time>> {
        let text = self.meta(DOUBTED_CLOCK).await?;
        Ok(text.and_then(|text| text.parse().ok()).map(Time::from_millis))
    }

    /// Notes the latest time of a clock that may have been ahead.
    pub(crate) async fn set_doubted_clock(&self, at: Time) -> Result<()> {
        let mut writing = self.begin().await?;
        writing.set_meta(DOUBTED_CLOCK, &at.millis().to_string()).await?;
        writing.commit().await
    }

    async fn meta(&self, name: &str) -> Result<Option<String>> {
        let found = on!(self, pool => nodes(pool, sql::META, &[Value::Text(name)]))?;
        Ok(found.into_iter().next())
    }

    /// Changes that others made after this one, the earliest first.
    pub(crate) async fn changes(&self, after: i64, not_from: &str, limit: i64) -> Result<Vec<Change>> {
        let values = [Value::Number(after), Value::Text(not_from), Value::Number(limit)];
        on!(self, pool => changes(pool, sql::CHANGES, &values))
    }

    /// What nodes look like that other push services made, as far as devices were imported.
    pub(crate) async fn foreign(&self) -> Result<Vec<Form>> {
        let forms = on!(self, pool => forms(pool, sql::FOREIGN, &[]))?;
        Ok(forms.into_iter().flatten().collect())
    }

    /// Begins to hear at once of what others change, beside this one; `None` if the database cannot do that. After so long
    /// without a word it is tried whether it is still there.
    pub(crate) async fn listen(&self, own: &str, quiet: Duration) -> Result<Option<Listener>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(pool) => Listener::begin(pool, own.to_owned(), quiet).await.map(Some),
        }
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// The name in `meta` of the latest time of a clock that may have been ahead.
const DOUBTED_CLOCK: &str = "doubted_clock";
/// The lock that a writer on PostgreSQL holds: any number that nobody else takes in this database.
const WRITERS: i64 = 0x6670_7573_6801;
