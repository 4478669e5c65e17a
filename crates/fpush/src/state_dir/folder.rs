//! The folder for what must survive a restart, and its files of records.
//!
//! A file has one record a line, as JSON. Its first line is a head with the version of the format. It is written whole under
//! another name, synced and renamed, so that there is always one that is complete. Nothing in the folder is believed
//! only because it is there: others may not write to it, links and FIFOs are not followed, and lines, records and bytes
//! have a bound.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use fpush_push::files;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::{error, warn};

use crate::folders;

/// The folder in use. Nobody else uses it as long as this value lives.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    owner: u32,
    _lock: File,
}

/// One file of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateFile {
    /// Its name, which ends in `.jsonl`.
    pub(crate) name: &'static str,
    /// How many records are read; the rest is left out.
    pub(crate) most: usize,
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct Records<H, T> {
    /// What its first line holds beside the version. There is none if there is no file, or if it cannot be used.
    pub(crate) head: Option<H>,
    pub(crate) records: Vec<T>,
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head<H> {
    /// The version of the format.
    fpush: u32,
    #[serde(flatten)]
    rest: H,
}

/// Where the records of a file go that is being written.
pub(crate) struct RecordWriter(BufWriter<File>);

impl StateFolder {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, others may write to it, or another fpush uses it. The text says what to do.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        let unusable = |e: &io::Error| {
            let remedy = folders::remedy(e, folder);
            anyhow::anyhow!("cannot use stateDirectory {shown}: {e}; {remedy}")
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| unusable(&e))?;
        let owner = keep_to_ourselves(folder).map_err(|e| unusable(&e))?;
        let path = folder.join("lock");
        let lock = files::open_own(
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600),
            &path,
            owner,
        )
        .map_err(|e| {
            let (path, e) = (path.display(), files::describe(&e, &path, files::Use::Own));
            // The folder itself is right: what is wrong is in it, such as what root has left there.
            anyhow::anyhow!("cannot use stateDirectory {shown}: {path}: {e}")
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("another fpush uses stateDirectory {shown}: stop it, or choose another folder")
            }
            Err(TryLockError::Error(e)) => return Err(unusable(&e)),
        }
        Ok(Self {
            path: folder.to_owned(),
            owner,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the folder that is ours.
    ///
    /// # Errors
    ///
    /// It cannot be opened with these options, it is not a regular file, or it is somebody else's.
    pub(crate) fn open_own(&self, options: &mut OpenOptions, name: &str) -> io::Result<File> {
        files::open_own(options, &self.path.join(name), self.owner)
    }

    /// Removes a file of the folder.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub(crate) fn remove(&self, file: StateFile) -> io::Result<()> {
        remove(&self.path.join(file.name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Reads a file as far as it can be read; a file that is not there is empty. What `accept` does not take, because no
    /// fpush would have written it, is left out like a line that is not a record. That is said once, and a copy kept.
    pub(crate) fn read<H: DeserializeOwned, L: DeserializeOwned, T>(
        &self,
        file: StateFile,
        mut accept: impl FnMut(L) -> Option<T>,
    ) -> Records<H, T> {
        let path = self.path.join(file.name);
        let nothing = Records {
            head: None,
            records: Vec::new(),
        };
        let opened = match files::open_own(OpenOptions::new().read(true), &path, self.owner) {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return nothing,
            Err(e) => {
                let e = files::describe(&e, &path, files::Use::Own);
                let kept = keep_aside(&path, fs::rename);
                let path = path.display();
                error!("cannot read {path}: {e}; going on without what it holds, and {kept}");
                return nothing;
            }
        };
        let too_large = opened.metadata().map_or(0, |metadata| metadata.len()) > LARGEST;
        let content = BufReader::new(opened.take(LARGEST));
        let (records, left_out) = read_records(content, file.most, &mut accept);
        let unreadable = left_out + usize::from(too_large);
        if records.head.is_none() || unreadable > 0 {
            // Without waiting and whatever its size: the next writing leaves this name with the old content.
            let kept = keep_aside(&path, fs::hard_link);
            let path = path.display();
            error!(
                unreadable,
                "{path} is not all readable; going on with the rest, and {kept}"
            );
        }
        records
    }

    /// Writes a file whole. What there was stays if that fails.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub(crate) fn write<H: Serialize>(
        &self,
        file: StateFile,
        head: H,
        records: impl FnOnce(&mut RecordWriter) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path.join(file.name);
        let new = path.with_extension("new");
        // Somebody's link, or what was left when the disk was full.
        remove(&new)?;
        let written = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|opened| {
                let mut writer = RecordWriter(BufWriter::new(opened));
                writer.write(&Head {
                    fpush: VERSION,
                    rest: head,
                })?;
                records(&mut writer)?;
                writer
                    .0
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?
                    .sync_all()
            })
            .and_then(|()| fs::rename(&new, &path));
        if let Err(e) = written {
            // What is only half there would fill the disk.
            drop(fs::remove_file(&new));
            return Err(e);
        }
        // The new name as well must outlast a power failure.
        File::open(&self.path)?.sync_all()
    }
}

/// The head of a file in a folder that another fpush may have in use.
pub(crate) fn peek<H: DeserializeOwned>(folder: &Path, file: StateFile) -> Option<H> {
    let owner = ownership(folder).ok()?.owner;
    let opened = files::open_own(OpenOptions::new().read(true), &folder.join(file.name), owner).ok()?;
    let content = BufReader::new(opened.take(LARGEST));
    read_records::<H, serde::de::IgnoredAny, ()>(content, 0, |_| None)
        .0
        .head
}

/// Reads a file as far as it can be read. Returns also how much was left out.
pub(crate) fn read_records<H: DeserializeOwned, L: DeserializeOwned, T>(
    content: impl BufRead,
    most: usize,
    mut accept: impl FnMut(L) -> Option<T>,
) -> (Records<H, T>, usize) {
    let mut lines = files::Lines::new(content, LONGEST_LINE);
    let head = lines.next_line().ok().flatten();
    let head = head.and_then(|line| serde_json::from_slice::<Head<H>>(line).ok());
    let head = head.filter(|head| head.fpush == VERSION).map(|head| head.rest);
    let (mut records, mut left_out) = (Vec::new(), 0);
    while head.is_some() {
        match lines.next_line() {
            Ok(None) => break,
            Ok(Some(_)) if records.len() >= most => {
                left_out += 1;
                break;
            }
            Ok(Some(line)) => match serde_json::from_slice(line).ok().and_then(&mut accept) {
                Some(record) => records.push(record),
                None => left_out += 1,
            },
            Err(_) => {
                // The disk fails, and would fail again and again.
                left_out += 1;
                break;
            }
        }
    }
    (Records { head, records }, left_out)
}

impl RecordWriter {
    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, record)?;
        self.0.write_all(b"\n")
    }
}

/// Who owns the folder, and which rights of others to write to it have to be taken away.
struct Ownership {
    owner: u32,
    mode: u32,
    excess: u32,
}

/// Looks whether the folder can be kept to ourselves; changes nothing.
///
/// # Errors
///
/// It cannot. The text says what to do.
pub(crate) fn examine(folder: &Path) -> io::Result<()> {
    let refused = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    let Ownership { owner, mode, excess } = ownership(folder)?;
    let me = rustix::process::geteuid().as_raw();
    if !files::is_trusted(owner) && me != 0 {
        return refused(format!("it belongs to another user (uid {owner})"));
    }
    if excess != 0 && owner != me && me != 0 {
        return refused(format!(
            "others may write to it (mode {mode:o}); do: chmod go-w {}",
            folder.display()
        ));
    }
    Ok(())
}

fn ownership(folder: &Path) -> io::Result<Ownership> {
    let metadata = fs::metadata(folder)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let excess = mode
        & if is_our_group(metadata.gid()) {
            0o002
        } else {
            0o022
        };
    Ok(Ownership { owner, mode, excess })
}

/// Takes care that nobody else may write to the folder, as far as that can be done: a service does not stay down for it,
/// because files of others are not read. Returns whose files are, beside ours and root's.
fn keep_to_ourselves(folder: &Path) -> io::Result<u32> {
    let Ownership { owner, mode, excess } = ownership(folder)?;
    let shown = folder.display();
    if !files::is_trusted(owner) {
        warn!(
            "stateDirectory {shown} belongs to another user (uid {owner}), who can change what fpush does; start fpush as \
             that user, or do: chown root {shown}"
        );
    }
    if excess != 0 {
        match fs::set_permissions(folder, fs::Permissions::from_mode(mode & !excess)) {
            Ok(()) => {
                warn!(
                    "others could write to stateDirectory {shown} (mode {mode:o}); fpush has taken that right away"
                );
            }
            Err(e) => warn!(
                "others may write to stateDirectory {shown} (mode {mode:o}), and fpush cannot take that right away: {e}; \
                 do: chmod go-w {shown}"
            ),
        }
    }
    Ok(if files::is_trusted(owner) {
        owner
    } else {
        rustix::process::geteuid().as_raw()
    })
}

/// Whether only root and users who share our own groups on purpose are in this group.
fn is_our_group(gid: u32) -> bool {
    let ours = rustix::process::getgroups().unwrap_or_default();
    gid == 0 || gid == rustix::process::getegid().as_raw() || ours.iter().any(|ours| ours.as_raw() == gid)
}

/// Gives a file another name, because the next writing takes its own. Returns that in words.
fn keep_aside(path: &Path, give: impl FnOnce(PathBuf, PathBuf) -> io::Result<()>) -> String {
    let aside = name_aside(path);
    match remove(&aside).and_then(|()| give(path.to_owned(), aside.clone())) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(e) => format!("it cannot be kept as {}: {e}", aside.display()),
    }
}

/// A name beside a file for what could not be read of it. The first ones are kept, and the last one is taken again, because a
/// disk that fails at each start would be filled otherwise.
pub(super) fn name_aside(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let number = if number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        path.with_extension(format!("unreadable{number}"))
    };
    let is_kept = |name: &PathBuf| fs::symlink_metadata(name).is_ok_and(|metadata| metadata.is_file());
    let mut names = (1..MOST_ASIDE).map(named);
    names
        .find(|name| !is_kept(name))
        .unwrap_or_else(|| named(MOST_ASIDE))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

const VERSION: u32 = 1;
/// So many files are kept that could not be read.
const MOST_ASIDE: u32 = 9;
/// A token has up to 4 KiB, which JSON may double, and is the longest part of a record.
const LONGEST_LINE: usize = 64 << 10;
/// A hundred thousand of the longest records.
const LARGEST: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use fpush_testkit::TempDir;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing {}

    const FILE: StateFile = StateFile {
        name: "some.jsonl",
        most: 3,
    };

    fn write(dir: &StateFolder, records: &[&str]) -> io::Result<()> {
        dir.write(FILE, Nothing {}, |lines| {
            records.iter().try_for_each(|record| lines.write(record))
        })
    }

    fn read(dir: &StateFolder) -> Records<Nothing, String> {
        dir.read(FILE, |record: String| (record != "refused").then_some(record))
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_read_again_by_us_alone() {
        let temp = TempDir::new();
        let dir = StateFolder::open(&temp.path().join("state")).unwrap();
        assert_eq!(read(&dir).head, None);
        write(&dir, &["a", "b"]).unwrap();
        let records = read(&dir);
        assert_eq!((records.head, records.records.len()), (Some(Nothing {}), 2));
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join(FILE.name)), 0o600);
    }

    #[test]
    fn records_that_are_refused_or_too_many_are_left_out() {
        let temp = TempDir::new();
        let dir = StateFolder::open(temp.path()).unwrap();
        write(
            &dir,
            &["a", "refused", "b", &"x".repeat(LONGEST_LINE), "c", "d", "e"],
        )
        .unwrap();
        assert_eq!(read(&dir).records, ["a", "b", "c"]);
        assert!(temp.path().join("some.unreadable").exists());
    }

    #[test]
    fn what_could_not_be_read_does_not_replace_what_could_not_be_read_before() {
        let temp = TempDir::new();
        let dir = StateFolder::open(temp.path()).unwrap();
        let content = |number: u32| format!("{{\"fpush\":1}}\nnothing {number}\n");
        for number in 1..=20 {
            // What is kept is the same file under another name.
            remove(&temp.path().join(FILE.name)).unwrap();
            temp.write(FILE.name, content(number));
            assert!(read(&dir).records.is_empty());
        }
        let kept =
            |suffix: &str| fs::read_to_string(temp.path().join(format!("some.unreadable{suffix}"))).unwrap();
        assert_eq!(
            [kept(""), kept("-2"), kept("-9")],
            [content(1), content(2), content(20)]
        );
        assert_eq!(
            fs::read_dir(temp.path()).unwrap().count(),
            11,
            "with the lock and the file itself"
        );
    }

    /// A link or FIFO in the place of a file is neither followed nor waited for, and the target of a link stays as it is.
    #[test]
    fn links_fifos_and_devices_are_not_files() {
        let temp = TempDir::new();
        let dir = StateFolder::open(&temp.path().join("state")).unwrap();
        let victim = temp.path().join("victim");
        let names = ["some.jsonl", "some.new", "some.unreadable"].map(|name| dir.path().join(name));
        let to_victim = |path: &Path| symlink(&victim, path).unwrap();
        let to_device = |path: &Path| symlink("/dev/zero", path).unwrap();
        let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        let plants: [&dyn Fn(&Path); 3] = [&to_victim, &to_device, &fifo];
        for plant in plants {
            fs::write(&victim, "{\"fpush\":1}\n\"planted\"\n").unwrap();
            for path in &names {
                remove(path).unwrap();
                plant(path);
            }
            let records = read(&dir);
            assert!(records.head.is_none() && records.records.is_empty());
            write(&dir, &["a", "refused"]).unwrap();
            assert_eq!(read(&dir).records, ["a"]);
            let aside = fs::symlink_metadata(&names[2]).unwrap();
            assert!(aside.is_file() && aside.len() > 0);
            assert_eq!(
                fs::read_to_string(&victim).unwrap(),
                "{\"fpush\":1}\n\"planted\"\n"
            );
        }
        let lock = dir.path().join("lock");
        drop(dir);
        for plant in plants {
            remove(&lock).unwrap();
            plant(&lock);
            let error = StateFolder::open(lock.parent().unwrap()).unwrap_err().to_string();
            assert!(error.contains("lock: it is not a regular file"), "{error}");
        }
    }

    #[test]
    fn a_file_without_an_end_is_read_up_to_a_bound() {
        let temp = TempDir::new();
        let dir = StateFolder::open(temp.path()).unwrap();
        for start in ["", "{\"fpush\":1}\n\"a\"\n"] {
            temp.write(FILE.name, start);
            let file = OpenOptions::new()
                .append(true)
                .open(temp.path().join(FILE.name))
                .unwrap();
            // Sparse: it takes no room.
            file.set_len(64 << 20).unwrap();
            let records = read(&dir);
            assert_eq!(records.records.len(), usize::from(!start.is_empty()));
        }
    }

    /// Truncated anywhere, and with each byte changed: never an end of the program, and never more than was written.
    #[test]
    fn whatever_is_there_is_read_or_left_out() {
        let temp = TempDir::new();
        let dir = StateFolder::open(temp.path()).unwrap();
        write(&dir, &["a", "b"]).unwrap();
        let path = temp.path().join(FILE.name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut changed = good.clone();
            for bytes in [&good[..at], {
                changed[at] ^= 0x80 | at as u8;
                &changed
            }] {
                fs::write(&path, bytes).unwrap();
                assert!(read(&dir).records.len() <= 3);
            }
        }
    }

    #[test]
    fn nobody_else_may_write_to_the_folder() {
        let temp = TempDir::new();
        let set = |mode| fs::set_permissions(temp.path(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o777);
        drop(StateFolder::open(temp.path()).unwrap());
        assert_eq!(mode(temp.path()) & 0o002, 0);
        set(0o1777);
        drop(StateFolder::open(temp.path()).unwrap());
        assert_eq!(mode(temp.path()) & 0o002, 0);
    }
}
