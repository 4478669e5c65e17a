//! Makes and updates the tables.

use std::collections::HashMap;

use fpush_push::canonical_jid;
use sqlx::AssertSqlSafe;

use super::{
    Store, Writing,
    run::{MigrateError, OfDomain, Result, Value, counts, numbers, on, only},
    statements as sql,
};
use crate::{device::share_of, past::FIRST_CHANGE, text::random_hex, time::Time};

impl Store {
    /// Makes and updates the tables. Returns the server's key.
    pub(crate) async fn migrate(&self) -> std::result::Result<String, MigrateError> {
        let mut writing = self.begin().await?;
        writing.execute(sql::CREATE_META, &[]).await?;
        let version = match writing.meta("schema").await? {
            Some(version) => version.parse::<u32>().map_or(i64::MAX, i64::from),
            None => 0,
        };
        let known = sql::MIGRATIONS.len() as i64;
        if version > known {
            return Err(MigrateError::Newer {
                found: version,
                known,
            });
        }
        for migration in &sql::MIGRATIONS[version as usize..] {
            for definition in *migration {
                writing.define(definition).await?;
            }
        }
        if version < known {
            writing.set_meta("schema", &known.to_string()).await?;
        }
        writing.spell_owners().await?;
        writing.count_domains_once().await?;
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
            let counted = writing.count().await?;
            writing.add_state(FIRST_CHANGE, counted, Time::now()).await?;
        }
        writing.commit().await?;
        Ok(key)
    }
}

impl Writing {
    /// Executes a definition, with the words in which the two databases differ put in.
    async fn define(&mut self, sql: &str) -> Result<()> {
        let (node, id) = match self {
            Self::Sqlite(_) => ("TEXT", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            Self::Postgres(_) => (
                "TEXT COLLATE \"C\"",
                "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            ),
        };
        let now = Time::now().millis().to_string();
        let sql = sql.replace("{node}", node).replace("{id}", id);
        let sql = AssertSqlSafe(sql.replace("{now}", &now));
        on!(self, transaction => async { sqlx::query(sql).execute(&mut **transaction).await.map(drop) })
    }

    /// Brings all owners into the one spelling in which they are compared; does so once in the life of a database. Servers
    /// that normalise addresses have written them so anyway: then nothing changes.
    async fn spell_owners(&mut self) -> Result<()> {
        if self.meta(OWNERS_SPELT).await?.is_some() {
            return Ok(());
        }
        for owner in &self.texts(sql::OWNERS, &[]).await? {
            let canonical = canonical_jid(owner);
            if canonical != owner.as_str() {
                let values = [Value::Text(&canonical), Value::Text(owner)];
                self.execute(sql::RENAME_OWNER, &values).await?;
            }
        }
        self.set_meta(OWNERS_SPELT, "canonical").await
    }
}

impl Writing {
    /// Counts the devices of each domain if another version of this program did it: what is a registrable domain is in a
    /// list that changes.
    async fn count_domains_once(&mut self) -> Result<()> {
        if self.meta(DOMAINS_COUNTED).await?.as_deref() == Some(VERSION) {
            return Ok(());
        }
        self.count_domains().await?;
        self.set_meta(DOMAINS_COUNTED, VERSION).await
    }

    /// Counts the devices of each domain anew.
    pub(crate) async fn count_domains(&mut self) -> Result<()> {
        self.execute(sql::FORGET_DOMAINS, &[]).await?;
        let sql = match self {
            Self::Sqlite(_) => sql::COUNT_DOMAINS_IN_SQLITE,
            Self::Postgres(_) => sql::COUNT_DOMAINS_IN_POSTGRES,
        };
        let found = on!(self, transaction => counts(&mut **transaction, sql, &[]))?;
        let unowned = on!(self, transaction => numbers(&mut **transaction, sql::COUNT_WITHOUT_OWNER, &[]));
        let mut domains = HashMap::from([(share_of(None).into_owned(), only(unowned)?)]);
        for OfDomain { places, domain } in found {
            *domains.entry(share_of(Some(&domain)).into_owned()).or_default() += places;
        }
        for (domain, places) in domains {
            self.count_of(&domain, places).await?;
        }
        Ok(())
    }
}

/// The name in `meta` of the version that counted the devices of each domain.
const DOMAINS_COUNTED: &str = "domains";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name in `meta` by which it is known that this is done.
const OWNERS_SPELT: &str = "owners";

#[cfg(test)]
mod tests {
    use fpush_testkit::{Postgres, TempDir};

    use super::*;
    use crate::lines;

    /// What a version left behind that did not count.
    async fn forget_domains(store: &Store) {
        let mut writing = store.begin().await.unwrap();
        for later in [
            "DROP TABLE domains",
            "DROP TABLE foreign_nodes",
            "ALTER TABLE devices DROP COLUMN arrived",
            "ALTER TABLE devices DROP COLUMN in_second",
            "ALTER TABLE states DROP COLUMN places",
            "ALTER TABLE tombstones DROP COLUMN change",
        ] {
            writing.execute(later, &[]).await.unwrap();
        }
        writing
            .execute("DELETE FROM meta WHERE name = 'domains'", &[])
            .await
            .unwrap();
        writing.set_meta("schema", "2").await.unwrap();
        writing.commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_devices_of_an_old_database_are_counted_by_domain() {
        let (folder, server) = (TempDir::new(), Postgres::shared());
        let stores = [
            Store::sqlite(&folder.path().join("devices.db")).await.unwrap(),
            Store::postgres(&server.database()).unwrap(),
        ];
        for store in stores {
            store.migrate().await.unwrap();
            let mut writing = store.begin().await.unwrap();
            let owners = ["a@x.flood.org", "b@flood.org", "flood.org", "a@localhost"];
            for owner in owners.map(Some).into_iter().chain([None, None]) {
                let line = r#"{"dialect":"p2","type":"fcm","node":"n","secret":"s","token":"t","registered":"2026-01-01T00:00:00Z"}"#;
                let mut device = lines::from_line(line).unwrap();
                device.node = random_hex().unwrap();
                device.owner = owner.map(str::to_owned);
                writing.put_all(&[&device], None).await.unwrap();
            }
            writing.commit().await.unwrap();
            forget_domains(&store).await;
            // Twice: what was counted is not counted again.
            for _ in 0..2 {
                store.migrate().await.unwrap();
                let mut writing = store.begin().await.unwrap();
                for (domain, expected) in [("flood.org", 3), ("localhost", 1), ("", 2), ("x.flood.org", 0)] {
                    assert_eq!(writing.counted_of(domain).await.unwrap(), expected, "{domain}");
                }
            }
            store.close().await;
        }
    }
}
