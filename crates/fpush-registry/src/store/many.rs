//! What a transaction does with many rows in one statement: each statement costs a way to another thread or machine and back.

use std::iter::repeat_n;

use super::{
    run::{Result, Value, devices, on},
    statements as sql,
    writing::{Writing, columns},
};
use crate::{device::Device, former, time::Time};

/// By what devices are looked for.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    Node,
    Owner,
    Account,
}

impl Writing {
    /// Those of the devices that have one of these texts, of at most [`AT_ONCE`](sql::AT_ONCE), in a column; `None` if one
    /// cannot be read.
    pub(crate) async fn find_all(&mut self, column: Column, texts: &[&str]) -> Result<Option<Vec<Device>>> {
        let statement = match column {
            Column::Node => &sql::WITH_NODES,
            Column::Owner => &sql::WITH_OWNERS,
            Column::Account => &sql::WITH_ACCOUNTS,
        };
        let (places, statement) = statement.around(texts.len());
        let nobody = repeat_n(Value::MaybeText(None), places.saturating_sub(texts.len()));
        let values: Vec<_> = texts.iter().map(|text| Value::Text(text)).chain(nobody).collect();
        let sql = self.words(statement);
        let rows = on!(self, transaction => devices(&mut **transaction, sql, &values))?;
        Ok(rows.into_iter().collect::<std::result::Result<_, _>>().ok())
    }

    /// Writes devices, each in the place of one with the same node; no two of them have the same one. Those that are imported
    /// `arrived` now.
    pub(crate) async fn put_all(&mut self, devices: &[&Device], arrived: Option<Time>) -> Result<()> {
        let former: Vec<_> = devices
            .iter()
            .map(|device| former::to_text(&device.former))
            .collect();
        let rows: Vec<_> = devices.iter().zip(&former).collect();
        self.for_all(&sql::PUT, &rows, |(device, former)| {
            columns(device, former.as_deref(), arrived)
        })
        .await
    }

    /// Removes the tombstones with these hashes that are there.
    pub(crate) async fn unbury_all(&mut self, hashes: &[String]) -> Result<()> {
        self.for_all(&sql::UNBURY, hashes, |hash| [Value::Text(hash)])
            .await
    }

    /// Tells the other processes of this database that devices changed.
    pub(crate) async fn tell_all(&mut self, nodes: &[&str], now: Time, source: &str) -> Result<()> {
        self.for_all(&sql::TELL, nodes, |node| {
            [
                Value::Text(node),
                Value::Number(now.millis()),
                Value::Text(source),
            ]
        })
        .await
    }

    /// Executes a statement for each of these, of which there may be any number, with the values of each.
    async fn for_all<'v, T, const WIDTH: usize>(
        &mut self,
        statement: &'static sql::Many,
        mut all: &'v [T],
        values: impl Fn(&'v T) -> [Value<'v>; WIDTH],
    ) -> Result<()> {
        while !all.is_empty() {
            let (number, statement) = statement.within(all.len());
            let (some, rest) = all.split_at(number);
            let values: Vec<_> = some.iter().flat_map(&values).collect();
            self.execute(self.words(statement), &values).await?;
            all = rest;
        }
        Ok(())
    }

    /// A statement in the words of this database.
    pub(super) fn words(&self, statement: &'static sql::Both) -> &'static str {
        match self {
            Self::Sqlite(_) => &statement.sqlite,
            Self::Postgres(_) => &statement.postgres,
        }
    }

    /// Once this transaction is committed, other processes hear at once that there is something that they were told, where the
    /// database can do that. Without it they look every few seconds.
    pub(crate) async fn notify(&mut self, source: &str) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(_) => self.execute(sql::NOTIFY, &[Value::Text(source)]).await.map(drop),
        }
    }
}
