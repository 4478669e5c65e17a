//! Reading files: regular files only, without waiting, and up to a bound. A FIFO, a device or an endless file in the place
//! of a certificate must neither hang the daemon nor fill its memory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// The largest file that the settings may name. Bundles of certificates have a few hundred KiB.
pub const LARGEST: u64 = 4 << 20;

/// The content of a regular file.
///
/// # Errors
///
/// There is none, it cannot be read, it is not a regular file, or it is larger than `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let error = format!("it is larger than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(content)
}

/// Opens a regular file for reading.
///
/// # Errors
///
/// There is none, it cannot be read, or it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true), path, OFlags::empty())
}

/// Opens a file of a folder that is our own: a regular file itself and no link to one, that belongs to our user, to root,
/// or to the owner of the folder.
///
/// # Errors
///
/// It cannot be opened with these options, it is not a regular file, or it is somebody else's.
pub fn open_own(options: &mut OpenOptions, path: &Path, folder_owner: u32) -> io::Result<File> {
    let file = regular(options, path, OFlags::NOFOLLOW)?;
    let owner = file.metadata()?.uid();
    if owner != folder_owner && !is_trusted(owner) {
        let error = format!("it belongs to another user (uid {owner})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
    }
    Ok(file)
}

/// Whether what this user owns is changed by nobody but us and root.
#[must_use]
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Opening a FIFO would wait for its other end without `NONBLOCK`, which changes nothing for a regular file.
fn regular(options: &mut OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => not_regular(),
            Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => not_regular(),
            _ => e,
        })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use fpush_testkit::TempDir;

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_up_to_the_bound() {
        let dir = TempDir::new();
        let path = |name: &str| dir.path().join(name);
        dir.write("file", "12345");
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(path("fifo"))
                .status()
                .unwrap()
                .success()
        );
        fs::create_dir(path("folder")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&path(name), 5).unwrap(), b"12345", "{name}");
        }
        let error = |name: &str| read(&path(name), 4).unwrap_err().to_string();
        assert_eq!(error("file"), "it is larger than 4 bytes");
        for name in ["fifo", "folder", "zero"] {
            assert_eq!(error(name), "it is not a regular file", "{name}");
        }
        let own = |name: &str| open_own(OpenOptions::new().read(true), &path(name), 0).map(drop);
        assert!(own("file").is_ok());
        for name in ["link", "fifo", "folder", "zero"] {
            assert_eq!(
                own(name).unwrap_err().to_string(),
                "it is not a regular file",
                "{name}"
            );
        }
    }
}
