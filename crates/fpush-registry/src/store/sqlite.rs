//! The file of SQLite.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};

use fpush_push::files;
use sqlx::{
    ConnectOptions as _, Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::run::{PATIENCE, describe};
use crate::error::OpenError;

/// Opens the file. A missing one is made, with its folder, for this user alone; SQLite gives its further files the
/// same permissions. If another program has it locked, or the disk is full, it is opened when it is first used.
pub(super) async fn open(path: &Path) -> Result<SqlitePool, OpenError> {
    make(path).map_err(|e| cannot_be_opened(path, &e))?;
    connect(path).await
}

/// Opens the file if it is there.
pub(super) async fn open_existing(path: &Path) -> Result<SqlitePool, OpenError> {
    match files::regular(OpenOptions::new().read(true).write(true), path) {
        Ok(_) => connect(path).await,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(OpenError::NoFile(path.display().to_string())),
        Err(e) => Err(cannot_be_opened(path, &e)),
    }
}

fn cannot_be_opened(path: &Path, error: &io::Error) -> OpenError {
    failed(path, cannot_be_had(path, error))
}

fn failed(path: &Path, problem: String) -> OpenError {
    OpenError::File {
        path: path.display().to_string(),
        problem,
    }
}

async fn connect(path: &Path) -> Result<SqlitePool, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .row_buffer_size(ROWS)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        // After an error of the disk SQLite has rolled back by itself, which sqlx does not notice: on such a connection no
        // transaction begins any more.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
    match pool.clone().connect_with(options.clone()).await {
        Err(e) if may_pass(&e) => Ok(pool.connect_lazy_with(options)),
        opened => opened.map_err(|e| failed(path, explain(path, &e))),
    }
}

/// Whether the file may be of use later although nobody changes the settings or the file.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut) || matches!(kind(error), Some(BUSY | LOCKED | FULL | IO))
}

/// SQLite's kind of error: the low byte of its code.
fn kind(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// An error of the file in words: what it means, who was refused, and what to do.
pub(super) fn explain(path: &Path, error: &sqlx::Error) -> String {
    let (said, shown, user) = (describe(error), path.display(), files::this_user());
    match kind(error) {
        Some(BUSY | LOCKED) => format!(
            "{said}: another program has had {shown} locked for {} s; end it (fuser -v {shown} shows which it is: this runs as \
             user {user})",
            PATIENCE.as_secs()
        ),
        None if matches!(error, sqlx::Error::PoolTimedOut) => format!(
            "{said}: another program may have {shown} locked (fuser -v {shown} shows which it is: this runs as user {user}), or \
             its disk is very slow"
        ),
        Some(PERM | READ_ONLY | CANNOT_OPEN) => match refused(path) {
            Some((what, e)) => format!("{said}: {}: {}", what.display(), cannot_be_had(&what, &e)),
            None => format!(
                "{said}; make sure that {shown} and its folder belong to user {user}, as which this runs"
            ),
        },
        Some(NOT_A_DATABASE) => format!(
            "{said}; {shown} is not an SQLite file: name another one in registration.store.path, or put a backup in its \
             place; this runs as user {user}"
        ),
        Some(CORRUPT) => format!(
            "{said}; {shown} is damaged: stop fpush, and put a backup in its place, or what can be saved: sqlite3 {shown} .recover \
             | sqlite3 new.db; it must belong to user {user}, as which this runs"
        ),
        Some(FULL) => format!("{said}; make room for {shown}, or for user {user} if that one has a quota"),
        Some(IO) => {
            format!("{said}; the disk of {shown} fails, or is full: see what the kernel says (dmesg)")
        }
        Some(_) | None => format!("{said}, at {shown}"),
    }
}

/// What keeps SQLite from a file that it needs: it makes further ones beside its own.
fn refused(path: &Path) -> Option<(PathBuf, io::Error)> {
    let folder = files::folder_of(path);
    let beside = ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    });
    let files = [path.to_owned()]
        .into_iter()
        .chain(beside)
        .filter(|path| path.exists());
    [folder.to_owned()]
        .into_iter()
        .chain(files)
        .find_map(|path| files::try_as_own(&path).err().map(|e| (path, e)))
}

/// Why a file or a folder is of no use, and what to do.
fn cannot_be_had(path: &Path, error: &io::Error) -> String {
    if let Some(remedy) = files::remedy(error, path, files::Use::Own) {
        return format!("{error}; {remedy}");
    }
    let user = files::this_user();
    let rule = format!(
        "registration.store.path must name a file, in a folder that belongs to user {user}, as which this runs"
    );
    match files::not_a_folder(files::folder_of(path)) {
        Some(obstacle) => format!("{} is not a folder; {rule}", obstacle.display()),
        None => format!("{error}; {rule}"),
    }
}

fn make(path: &Path) -> io::Result<()> {
    let folder = files::folder_of(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
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
    if is_new {
        let (folder, owner) = (fs::metadata(folder)?, file.metadata()?);
        if owner.uid() == ROOT && folder.uid() != ROOT {
            chown(path, Some(folder.uid()), Some(folder.gid()))?;
        }
    }
    Ok(())
}

const ROOT: u32 = 0;
/// SQLite's kinds of errors, see sqlite.org/rescode.html.
const PERM: u32 = 3;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READ_ONLY: u32 = 8;
const IO: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;
/// Each has a thread of its own.
const CONNECTIONS: u32 = 4;
/// Rows that a connection's thread is ahead of who reads them: with all of what is read at once neither waits for the other.
const ROWS: usize = 512;
