//! The file of SQLite.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::Path,
};

use fpush_push::files;
use sqlx::{
    ConnectOptions as _, Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::run::{PATIENCE, describe};
use crate::error::OpenError;

/// Opens the file. A missing one is made, with its folder, for this user alone; SQLite gives its further files the
/// same permissions.
pub(super) async fn open(path: &Path) -> Result<SqlitePool, OpenError> {
    let failed = |problem: String| OpenError::File {
        path: path.display().to_string(),
        problem,
    };
    make(path).map_err(|e| failed(e.to_string()))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        // After an error of the disk SQLite has rolled back by itself, which sqlx does not notice: on such a connection no
        // transaction begins any more.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(|e| failed(describe(&e)))
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let is_new = !path.exists();
    // A FIFO or a device in its place must not hang the start.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = files::regular(&mut options, path)?;
    // An import that root does before the first start must not lock the daemon out.
    if is_new && let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok()) {
        let owner = file.metadata()?;
        if owner.uid() == ROOT && folder.uid() != ROOT {
            chown(path, Some(folder.uid()), Some(folder.gid()))?;
        }
    }
    Ok(())
}

const ROOT: u32 = 0;
/// Each has a thread of its own.
const CONNECTIONS: u32 = 4;
