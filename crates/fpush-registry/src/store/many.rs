//! What a transaction does with many rows in one statement: each statement costs a way to another thread or machine and back.

use super::{
    run::{Result, Value, devices, on},
    statements as sql,
    writing::{Writing, columns, padded},
};
use crate::{device::Device, former, time::Time};

impl Writing {
    /// Those of the devices with these nodes that are there, of at most [`NOTED_AT_ONCE`](sql::NOTED_AT_ONCE); `None` if one
    /// cannot be read.
    pub(crate) async fn find_all(&mut self, nodes: &[&str]) -> Result<Option<Vec<Device>>> {
        let nodes = nodes.iter().map(|node| Value::MaybeText(Some(node)));
        let values = padded(nodes, [Value::MaybeText(None)]);
        let sql = sql::FIND_NOTED.as_str();
        let rows = on!(self, transaction => devices(&mut **transaction, sql, &values))?;
        Ok(rows.into_iter().collect::<std::result::Result<_, _>>().ok())
    }

    /// Writes devices, each in the place of one with the same node; no two of them have the same one. Those that are imported
    /// `arrived` now.
    pub(crate) async fn put_all(&mut self, devices: &[Device], arrived: Option<Time>) -> Result<()> {
        let (chunks, rest) = devices.as_chunks::<{ sql::AT_ONCE }>();
        for chunk in chunks {
            let former: Vec<_> = chunk
                .iter()
                .map(|device| former::to_text(&device.former))
                .collect();
            let rows = chunk.iter().zip(&former);
            let values: Vec<_> = rows
                .flat_map(|(device, former)| columns(device, former.as_deref(), arrived))
                .collect();
            self.execute(sql::PUT_MANY.as_str(), &values).await?;
        }
        for device in rest {
            self.put(device, arrived).await?;
        }
        Ok(())
    }

    /// Removes the tombstones with these hashes that are there.
    pub(crate) async fn unbury_all(&mut self, hashes: &[String]) -> Result<()> {
        let (chunks, rest) = hashes.as_chunks::<{ sql::AT_ONCE }>();
        for chunk in chunks {
            let values: Vec<_> = chunk.iter().map(|hash| Value::Text(hash)).collect();
            self.execute(sql::UNBURY_MANY.as_str(), &values).await?;
        }
        for hash in rest {
            self.unbury(hash).await?;
        }
        Ok(())
    }

    /// Tells the other processes of this database that devices changed.
    pub(crate) async fn tell_all(&mut self, nodes: &[&str], now: Time, source: &str) -> Result<()> {
        let (chunks, rest) = nodes.as_chunks::<{ sql::AT_ONCE }>();
        let row = |node| {
            [
                Value::Text(node),
                Value::Number(now.millis()),
                Value::Text(source),
            ]
        };
        for chunk in chunks {
            let values: Vec<_> = chunk.iter().flat_map(|node| row(node)).collect();
            self.execute(sql::TELL_MANY.as_str(), &values).await?;
        }
        for node in rest {
            self.execute(sql::TELL, &row(node)).await?;
        }
        Ok(())
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
