//! A look into a database that changes nothing in it.

use std::path::{Path, PathBuf};

use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{
    Store,
    run::{PATIENCE, Value, in_time, nodes, numbers, only},
    statements as sql,
};
use crate::{OpenError, StoreSettings};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// There is no file: a start makes one.
    Missing,
    /// There are no tables: a start makes them.
    Empty,
    /// A database that a start can use, with so many devices.
    Usable {
        /// Registered devices.
        devices: u64,
    },
}

impl StoreSettings {
    /// Looks what a start would find. The file of SQLite is opened for reading alone and left without a trace.
    ///
    /// # Errors
    ///
    /// The database is out of reach, damaged, or of a newer version of this program.
    pub async fn probe(&self) -> Result<Probe, OpenError> {
        let store = match self {
            Self::Sqlite { path } if !path.exists() => return Ok(Probe::Missing),
            Self::Sqlite { path } => Store::Sqlite(read_only(path)),
            Self::Postgres { url } => Store::postgres(url)?,
        };
        let probed = store.probe().await;
        store.close().await;
        probed
    }
}

impl Store {
    /// The version of the tables, as it is noted; `None` if there are none.
    pub(crate) async fn version(&self) -> Result<Option<String>, sqlx::Error> {
        let schema = [Value::Text("schema")];
        let version = in_time(async {
            match self {
                Self::Sqlite(pool) => nodes(pool, sql::META, &schema).await,
                Self::Postgres(pool) => nodes(pool, sql::META, &schema).await,
            }
        });
        match version.await {
            Ok(version) => Ok(version.into_iter().next()),
            Err(error) if is_missing_table(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn probe(&self) -> Result<Probe, OpenError> {
        let version = self.version().await;
        let version = version.map_err(|error| OpenError::Database(self.describe(&error)))?;
        let Some(version) = version else {
            return Ok(Probe::Empty);
        };
        let (found, known) = (version.parse().unwrap_or(i64::MAX), sql::MIGRATIONS.len() as i64);
        if found > known {
            return Err(OpenError::Newer { found, known });
        }
        let devices = in_time(async {
            match self {
                Self::Sqlite(pool) => only(numbers(pool, sql::COUNT, &[]).await),
                Self::Postgres(pool) => only(numbers(pool, sql::COUNT, &[]).await),
            }
        });
        let devices = devices
            .await
            .map_err(|error| OpenError::Database(self.describe(&error)))?;
        Ok(Probe::Usable {
            devices: devices.unsigned_abs(),
        })
    }
}

fn read_only(path: &Path) -> SqlitePool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // Without it SQLite makes two files beside one that nobody has open, and leaves them there.
        .immutable(!PathBuf::from(log).exists())
        .busy_timeout(PATIENCE)
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options)
}

fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.message().starts_with("no such table") || error.code().as_deref() == Some(UNDEFINED_TABLE)
    })
}

/// What PostgreSQL says of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

#[cfg(test)]
mod tests {
    use std::fs;

    use fpush_testkit::{Postgres, TempDir, TestCa};

    use super::*;

    fn names(dir: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_look_leaves_no_trace() {
        let dir = TempDir::new();
        let path = dir.path().join("fpush.sqlite");
        let settings = StoreSettings::Sqlite { path: path.clone() };
        assert_eq!(settings.probe().await.unwrap(), Probe::Missing);
        assert_eq!(names(&dir), [""; 0]);

        let store = Store::sqlite(&path).await.unwrap();
        assert_eq!(settings.probe().await.unwrap(), Probe::Empty);
        store.migrate().await.unwrap();
        assert_eq!(
            settings.probe().await.unwrap(),
            Probe::Usable { devices: 0 },
            "while it is open"
        );
        let mut writing = store.begin().await.unwrap();
        writing.set_meta("schema", "1000").await.unwrap();
        writing.commit().await.unwrap();
        store.close().await;
        let (before, content) = (names(&dir), fs::read(&path).unwrap());
        assert_eq!(before, ["fpush.sqlite"]);
        let newer = settings.probe().await.unwrap_err().to_string();
        assert!(
            newer.contains("newer version") && newer.contains("1000"),
            "{newer}"
        );
        assert_eq!((names(&dir), fs::read(&path).unwrap()), (before, content));

        fs::write(
            &path,
            "no database, and long enough to have a head of one".repeat(20),
        )
        .unwrap();
        let other = settings.probe().await.unwrap_err().to_string();
        assert!(other.starts_with("the database cannot be used: "), "{other}");
    }

    #[tokio::test]
    async fn a_server_is_asked() {
        let server = Postgres::shared();
        let url = server.database();
        let settings = StoreSettings::Postgres { url: url.clone() };
        assert_eq!(settings.probe().await.unwrap(), Probe::Empty);
        let store = Store::postgres(&url).unwrap();
        store.migrate().await.unwrap();
        assert_eq!(settings.probe().await.unwrap(), Probe::Usable { devices: 0 });
        let mut writing = store.begin().await.unwrap();
        writing.set_meta("schema", "1000").await.unwrap();
        writing.commit().await.unwrap();
        store.close().await;
        assert!(matches!(
            settings.probe().await,
            Err(OpenError::Newer { found: 1_000, .. })
        ));

        let nobody = StoreSettings::Postgres {
            url: "postgres://127.0.0.1:1/fpush".to_owned(),
        };
        let error = nobody.probe().await.unwrap_err().to_string();
        assert!(error.starts_with("the database cannot be used: "), "{error}");
    }

    #[tokio::test]
    async fn a_server_is_asked_over_tls_if_its_certificate_is_right() {
        let (ca, other) = (TestCa::new(), TestCa::new());
        let server = Postgres::with_tls(&ca.server_cert(&["localhost"], None));
        let dir = TempDir::new();
        let trusted = dir.write("ca.pem", ca.pem());
        let untrusted = dir.write("other.pem", other.pem());
        let missing = dir.path().join("missing.pem");
        let probe = async |host: &str, mode: &str, file: &Path| {
            let (port, file) = (server.port(), file.display());
            let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}&sslrootcert={file}");
            let probed = StoreSettings::Postgres { url }.probe().await;
            probed.map_err(|error| error.to_string())
        };
        for mode in ["verify-full", "verify-ca", "require", "prefer"] {
            assert_eq!(
                probe("localhost", mode, &trusted).await,
                Ok(Probe::Empty),
                "{mode}"
            );
        }
        let not_accepted = "the database cannot be used: the server's certificate is not accepted: ";
        for (host, mode, file, problem) in [
            (
                "127.0.0.1",
                "verify-full",
                &trusted,
                Some("it is for another name"),
            ),
            ("127.0.0.1", "verify-ca", &trusted, None),
            (
                "localhost",
                "verify-full",
                &untrusted,
                Some("its authority is unknown"),
            ),
            (
                "localhost",
                "verify-ca",
                &untrusted,
                Some("its authority is unknown"),
            ),
            ("localhost", "require", &untrusted, None),
        ] {
            let expected = problem.map_or(Ok(Probe::Empty), |problem| {
                Err(format!("{not_accepted}{problem}"))
            });
            assert_eq!(probe(host, mode, file).await, expected, "{host} {mode}");
        }
        let error = probe("localhost", "verify-full", &missing).await.unwrap_err();
        assert!(error.ends_with("no such file of a certificate or key"), "{error}");
        // The socket has no TLS.
        let url = format!("{}&sslmode=require", server.url("postgres"));
        let error = StoreSettings::Postgres { url }
            .probe()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no TLS"), "{error}");
    }
}
