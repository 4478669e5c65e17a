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
use crate::{
    OpenError, RegistrySettings, StoreSettings,
    past::{Doubt, Known, Past, compare},
    strays::Strays,
    targets::Targets,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// There is no file: a start makes one.
    Missing,
    /// There are no tables: a start makes them.
    Empty,
    /// A database that a start can use.
    Usable {
        /// Registered devices.
        devices: u64,
        /// Devices of kinds that the settings do not have.
        strays: Vec<Strays>,
        /// Why a start would not believe it.
        doubt: Option<Doubt>,
    },
}

impl Probe {
    /// Why a start that knows this of its database would not believe the one that was found.
    #[must_use]
    pub fn doubt(&self, known: Option<&Known>) -> Option<Doubt> {
        match self {
            Self::Missing | Self::Empty => known.map(|known| Doubt::Other {
                devices: known.devices,
            }),
            Self::Usable { doubt, .. } => *doubt,
        }
    }
}

impl RegistrySettings {
    /// Looks what a start would find that knows this of its database. The file of SQLite is opened for reading alone and left
    /// without a trace.
    ///
    /// # Errors
    ///
    /// The database is out of reach, damaged, or of a newer version of this program, or its user may not make the tables.
    pub async fn probe(&self, known: Option<&Known>) -> Result<Probe, OpenError> {
        let store = match &self.store {
            StoreSettings::Sqlite { path } if !path.exists() => return Ok(Probe::Missing),
            StoreSettings::Sqlite { path } => Store::Sqlite(read_only(path)),
            StoreSettings::Postgres { url } => Store::postgres(url)?,
        };
        let targets = Targets::new(self.types.clone(), self.providers.clone());
        let probed = store.probe(&targets, known).await;
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

    async fn probe(&self, targets: &Targets, known: Option<&Known>) -> Result<Probe, OpenError> {
        match self.find_out(targets, known).await {
            Ok(probed) => probed,
            Err(error) => Err(OpenError::Database(self.explain(&error).await)),
        }
    }

    async fn find_out(
        &self,
        targets: &Targets,
        known: Option<&Known>,
    ) -> Result<Result<Probe, OpenError>, sqlx::Error> {
        let Some(version) = self.version().await? else {
            return Ok(if self.may_make_tables().await? {
                Ok(Probe::Empty)
            } else {
                Err(OpenError::NoRights)
            });
        };
        let (found, newest) = (version.parse().unwrap_or(i64::MAX), sql::MIGRATIONS.len() as i64);
        if found > newest {
            return Ok(Err(OpenError::Newer { found, known: newest }));
        }
        let devices = self.count().await?.unsigned_abs();
        let strays = Strays::among(self.kinds().await?, targets);
        // In older tables a start notes first what it compares.
        let doubt = if found == newest {
            self.doubt(known).await?
        } else {
            None
        };
        Ok(Ok(Probe::Usable {
            devices,
            strays,
            doubt,
        }))
    }

    async fn may_make_tables(&self) -> Result<bool, sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(pool) => {
                let may = in_time(async { only(numbers(pool, sql::MAY_CREATE, &[]).await) });
                Ok(may.await? > 0)
            }
        }
    }

    /// Why a start would not believe this database.
    async fn doubt(&self, known: Option<&Known>) -> Result<Option<Doubt>, sqlx::Error> {
        let present = match self.look().await {
            Ok(present) => present,
            // It is half made.
            Err(sqlx::Error::RowNotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mark = match known {
            Some(known) => self.mark(known.change).await?,
            None => None,
        };
        let counted = present.known.devices - self.missing().await?;
        Ok(match compare(known, &present, mark.as_deref(), Some(counted)) {
            Past::Doubted(doubt) => Some(doubt),
            Past::Known(_) | Past::Unknown => None,
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

    /// What a start finds that has this push type in its settings.
    async fn look_at(store: &StoreSettings, known: Option<&Known>) -> Result<Probe, OpenError> {
        let block = serde_json::json!({ "registration": {
            "store": { "path": "any" }, "types": { "apns": "m" },
        } });
        let report = fpush_push::settings::Report::default();
        let mut root = fpush_push::settings::Section::root(block.as_object().unwrap(), &report);
        let mut section = root.section("registration").unwrap();
        let settings = RegistrySettings {
            store: store.clone(),
            ..RegistrySettings::read(&mut section, &["m"], &[]).unwrap()
        };
        settings.probe(known).await
    }

    fn usable() -> Probe {
        Probe::Usable {
            devices: 0,
            strays: Vec::new(),
            doubt: None,
        }
    }

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
        assert_eq!(look_at(&settings, None).await.unwrap(), Probe::Missing);
        assert_eq!(names(&dir), [""; 0]);

        let store = Store::sqlite(&path).await.unwrap();
        assert_eq!(look_at(&settings, None).await.unwrap(), Probe::Empty);
        store.migrate().await.unwrap();
        assert_eq!(
            look_at(&settings, None).await.unwrap(),
            usable(),
            "while it is open"
        );
        let known = store.look().await.unwrap().known;
        assert_eq!(look_at(&settings, Some(&known)).await.unwrap(), usable());
        let other = Known {
            database: "other".to_owned(),
            devices: 3,
            ..known
        };
        let other = look_at(&settings, Some(&other)).await.unwrap().doubt(None);
        assert_eq!(other, Some(Doubt::Other { devices: 3 }));
        let mut writing = store.begin().await.unwrap();
        writing.set_meta("schema", "1000").await.unwrap();
        writing.commit().await.unwrap();
        store.close().await;
        let (before, content) = (names(&dir), fs::read(&path).unwrap());
        assert_eq!(before, ["fpush.sqlite"]);
        let newer = look_at(&settings, None).await.unwrap_err().to_string();
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
        let other = look_at(&settings, None).await.unwrap_err().to_string();
        assert!(other.starts_with("the database cannot be used: "), "{other}");
    }

    #[tokio::test]
    async fn a_server_is_asked() {
        let server = Postgres::shared();
        let url = server.database();
        let settings = StoreSettings::Postgres { url: url.clone() };
        assert_eq!(look_at(&settings, None).await.unwrap(), Probe::Empty);
        let store = Store::postgres(&url).unwrap();
        store.migrate().await.unwrap();
        assert_eq!(look_at(&settings, None).await.unwrap(), usable());
        let mut writing = store.begin().await.unwrap();
        writing.set_meta("schema", "1000").await.unwrap();
        writing.commit().await.unwrap();
        store.close().await;
        assert!(matches!(
            look_at(&settings, None).await,
            Err(OpenError::Newer { found: 1_000, .. })
        ));

        // A user who owns nothing.
        let fresh = server.database();
        let name = server.name(&fresh).to_owned();
        let role = format!("u{}", std::process::id());
        server.psql(&name, &format!("CREATE ROLE {role} LOGIN")).unwrap();
        let stranger = StoreSettings::Postgres {
            url: fresh.replace("postgres@", &format!("{role}@")),
        };
        let refused = look_at(&stranger, None).await.unwrap_err().to_string();
        assert!(refused.contains("may not make tables"), "{refused}");

        let nobody = StoreSettings::Postgres {
            url: "postgres://127.0.0.1:1/fpush".to_owned(),
        };
        let error = look_at(&nobody, None).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "the database cannot be used: no connection in time: refused at 127.0.0.1:1"
        );
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
            let probed = look_at(&StoreSettings::Postgres { url }, None).await;
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
            ("localhost", "require", &untrusted, None),
        ] {
            let expected = problem.map_or(Ok(Probe::Empty), |problem| {
                Err(format!("{not_accepted}{problem}"))
            });
            assert_eq!(probe(host, mode, file).await, expected, "{host} {mode}");
        }
        for mode in ["verify-full", "verify-ca"] {
            let error = probe("localhost", mode, &untrusted).await.unwrap_err();
            // Both authorities have one name.
            assert!(error.starts_with(not_accepted), "{mode}: {error}");
        }
        let error = probe("localhost", "verify-full", &missing).await.unwrap_err();
        assert!(error.ends_with("no such file of a certificate or key"), "{error}");
        // The socket has no TLS.
        let url = format!("{}&sslmode=require", server.url("postgres"));
        let error = look_at(&StoreSettings::Postgres { url }, None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no TLS"), "{error}");
    }
}
