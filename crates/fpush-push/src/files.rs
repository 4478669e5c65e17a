//! Reading files: regular files only, without waiting, and up to a bound. A FIFO, a device or an endless file in the place
//! of a certificate must neither hang the daemon nor fill its memory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{
    fs::{Access, OFlags, access},
    process::geteuid,
};

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
    regular(OpenOptions::new().read(true), path)
}

/// Opens a file of a folder that is our own: a regular file itself and no link to one, that belongs to our user, to root,
/// or to the owner of the folder.
///
/// # Errors
///
/// It cannot be opened with these options, it is not a regular file, or it is somebody else's.
pub fn open_own(options: &mut OpenOptions, path: &Path, folder_owner: u32) -> io::Result<File> {
    let file = open_flags(options, path, OFlags::NOFOLLOW)?;
    let owner = file.metadata()?.uid();
    if owner != folder_owner && !is_trusted(owner) {
        let error = format!("it belongs to another user (uid {owner})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
    }
    Ok(file)
}

/// What a file is to us, and so what to do about one that we may not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// We read it. It may stay somebody else's.
    Read,
    /// It is our own.
    Own,
}

/// An error at a file in words: where access is denied also to whom, whose the file is, and what mends it.
#[must_use]
pub fn describe(error: &io::Error, path: &Path, what_for: Use) -> String {
    match remedy(error, path, what_for) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// Why access is denied to a file or folder, to whom, and what to do; `None` for other errors.
#[must_use]
pub fn remedy(error: &io::Error, path: &Path, what_for: Use) -> Option<String> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => denied(path, what_for),
        io::ErrorKind::ReadOnlyFilesystem => {
            let (user, shown) = (this_user(), path.display());
            Some(format!(
                "this runs as user {user}, and {shown} is where nothing can be written; choose another place, or, if systemd \
                 runs fpush, a place below StateDirectory= of the unit file, or add ReadWritePaths={shown} to it"
            ))
        }
        _ => None,
    }
}

/// What is in the place of a folder on the way to this path, or of the path itself.
#[must_use]
pub fn not_a_folder(path: &Path) -> Option<&Path> {
    path.ancestors()
        .find(|path| fs::metadata(path).is_ok_and(|there| !there.is_dir()))
}

/// The folder that a file is in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().map_or_else(|| Path::new("."), or_here)
}

fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    }
}

fn denied(path: &Path, what_for: Use) -> Option<String> {
    let (what, metadata) = match fs::metadata(path) {
        Ok(metadata) => (path, metadata),
        // Then it is a folder on the way: the last one that can be looked at cannot be entered.
        Err(_) => path
            .ancestors()
            .skip(1)
            .map(or_here)
            .find_map(|folder| Some((folder, fs::metadata(folder).ok()?)))?,
    };
    let (uid, user, owner) = (geteuid().as_raw(), this_user(), user_name(metadata.uid()));
    let (shown, mode) = (what.display(), metadata.mode() & 0o7777);
    let whose = |user: &str| format!("this runs as {user}, and {shown} belongs to {owner} (mode {mode:o})");
    let rights = match (what_for, metadata.is_dir()) {
        (Use::Read, true) => "x",
        (Use::Read, false) => "r",
        (Use::Own, true) => "rwx",
        (Use::Own, false) => "rw",
    };
    if DYNAMIC.contains(&uid) && user == uid.to_string() {
        // Its number is another one at the next start.
        let whose = whose("a user that systemd makes at the start (DynamicUser=yes)");
        return Some(match what_for {
            Use::Read => format!(
                "{whose}; hand the file over with LoadCredential= of the unit file, or let a group read it that \
                 SupplementaryGroups= names"
            ),
            Use::Own => format!("{whose}; choose a place below StateDirectory= of the unit file"),
        });
    }
    let whose = whose(&format!("user {user}"));
    Some(match what_for {
        _ if owner == user => format!("{whose}; do: chmod u+{rights} {shown}"),
        Use::Own if metadata.uid() == 0 => format!("{whose}; do: chown {user} {shown}"),
        // It may be the one that the service runs as, who must keep it.
        Use::Own => {
            format!(
                "{whose}; run this as user {owner}, or, if it is to be {user}'s, do: chown {user} {shown}"
            )
        }
        Use::Read => format!(
            "{whose}; do: setfacl -m u:{user}:{rights} {shown}, or chown {user} {shown}, or hand the file over with \
             LoadCredential= of the unit file"
        ),
    })
}

/// The name of the user that this runs as.
#[must_use]
pub fn this_user() -> String {
    user_name(geteuid().as_raw())
}

/// The name of a user, or its number if it has none.
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// Whether a file can be read and written to, or whether files can be made in a folder; changes nothing.
///
/// # Errors
///
/// It cannot.
pub fn try_as_own(path: &Path) -> io::Result<()> {
    let search = if path.is_dir() {
        Access::EXEC_OK
    } else {
        Access::empty()
    };
    Ok(access(path, Access::READ_OK | Access::WRITE_OK | search)?)
}

/// Whether what this user owns is changed by nobody but us and root.
#[must_use]
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Opens a regular file with these options.
///
/// # Errors
///
/// It cannot be opened so, or it is not a regular file.
pub fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open_flags(options, path, OFlags::empty())
}

/// Opening a FIFO would wait for its other end without `NONBLOCK`, which changes nothing for a regular file.
fn open_flags(options: &mut OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => not_regular(),
            Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => not_regular(),
            _ => e,
        })?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Why the content of a file is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// As some editors on Windows write it.
    #[error("the file is in UTF-16; save it as UTF-8")]
    Utf16,
    /// Another encoding, or no text at all.
    #[error("the file is not text in UTF-8")]
    NotUtf8,
}

/// The text in a file: without a byte order mark, and with line feeds at the ends of lines, whatever editor wrote it.
///
/// # Errors
///
/// It is not text in UTF-8.
pub fn text(content: &[u8]) -> Result<String, NotText> {
    let content = without_mark(content)?;
    let text = str::from_utf8(content).map_err(|_| NotText::NotUtf8)?;
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// The text of a file with certificates or keys in PEM form: lines without blanks around them. What is around the PEM may
/// be in any encoding.
///
/// # Errors
///
/// It is in UTF-16.
pub fn pem(content: &[u8]) -> Result<String, NotText> {
    let content = without_mark(content)?;
    let text = String::from_utf8_lossy(content);
    let lines = text.split(['\n', '\r']);
    // Files that were put together have a mark before each part.
    let lines = lines.map(|line| line.trim_matches(|c: char| c == MARK || c.is_whitespace()));
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

/// The secret in a file of one line, such as a password: without the line ends behind it. A blank may belong to it.
///
/// # Errors
///
/// It is not text in UTF-8.
pub fn secret(content: &[u8]) -> Result<String, NotText> {
    text(content).map(|text| text.trim_end_matches('\n').to_owned())
}

/// The content of a file without a byte order mark.
///
/// # Errors
///
/// The file is in UTF-16.
pub fn without_mark(content: &[u8]) -> Result<&[u8], NotText> {
    let mut rest = content;
    while let Some(after) = rest.strip_prefix(MARK_IN_UTF8) {
        rest = after;
    }
    // Text has no zeros; the first character of a text in UTF-16 that anybody puts here has one.
    match rest {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(NotText::Utf16),
        [0, other, ..] | [other, 0, ..] if *other != 0 => Err(NotText::Utf16),
        _ => Ok(rest),
    }
}

/// The lines of a text that comes in pieces, as bytes: what is not UTF-8 costs its own line alone. A line ends as in
/// [`text`], and a byte order mark before the first one is left out.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    longest: usize,
    line: Vec<u8>,
    is_first: bool,
    /// The last line ended with a carriage return, so that a line feed belongs to it.
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines that a reader has. A line of more than `longest` bytes is cut there.
    pub fn new(reader: R, longest: usize) -> Self {
        Self {
            reader,
            longest,
            line: Vec::new(),
            is_first: true,
            after_return: false,
        }
    }

    /// The next line without its end.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the text is in UTF-16.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut is_there = false;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            if std::mem::take(&mut self.after_return) && buffer[0] == b'\n' {
                self.reader.consume(1);
                continue;
            }
            is_there = true;
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let piece = &buffer[..end.unwrap_or(buffer.len())];
            let room = self.longest - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            self.after_return = end.is_some_and(|end| buffer[end] == b'\r');
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !is_there {
            return Ok(None);
        }
        if std::mem::take(&mut self.is_first) {
            let without =
                without_mark(&self.line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let mark = self.line.len() - without.len();
            self.line.drain(..mark);
        }
        Ok(Some(&self.line))
    }
}

const MARK: char = '\u{feff}';
const MARK_IN_UTF8: &[u8] = b"\xef\xbb\xbf";

/// The users that systemd makes for services, see systemd.exec(5).
const DYNAMIC: std::ops::RangeInclusive<u32> = 61_184..=65_519;

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
        assert_eq!(error("folder"), "is a directory");
        for name in ["fifo", "zero"] {
            assert_eq!(error(name), "it is not a regular file", "{name}");
        }
        let own = |name: &str| open_own(OpenOptions::new().read(true), &path(name), 0).map(drop);
        assert!(own("file").is_ok());
        for name in ["link", "fifo", "zero"] {
            assert_eq!(
                own(name).unwrap_err().to_string(),
                "it is not a regular file",
                "{name}"
            );
        }
    }

    #[test]
    fn where_nothing_can_be_written_both_ways_out_are_named() {
        let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let text = describe(&error, Path::new("/srv/fpush"), Use::Own);
        let user = this_user();
        for part in [
            &*format!("user {user}"),
            "/srv/fpush",
            "StateDirectory=",
            "ReadWritePaths=/srv/fpush",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let other = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(remedy(&other, Path::new("/srv"), Use::Own), None);
    }

    #[test]
    fn text_is_read_whatever_editor_wrote_it() {
        for content in ["a\nb\n", "\u{feff}a\nb\n", "\u{feff}\u{feff}a\r\nb\r\n", "a\rb\r"] {
            assert_eq!(text(content.as_bytes()).unwrap(), "a\nb\n", "{content:?}");
            let mut lines = Lines::new(content.as_bytes(), 9);
            for expected in [b"a", b"b"] {
                assert_eq!(lines.next_line().unwrap().unwrap(), expected, "{content:?}");
            }
            assert!(lines.next_line().unwrap().is_none(), "{content:?}");
        }
        assert_eq!(secret(b"\xef\xbb\xbfs3 cret \r\n\r\n").unwrap(), "s3 cret ");
        let lines = "\u{feff}\t-----BEGIN X-----  \r\n\u{feff}  YQ==\r-----END X-----";
        assert_eq!(
            pem(lines.as_bytes()).unwrap(),
            "-----BEGIN X-----\n\nYQ==\n-----END X-----\n"
        );
        assert!(pem(b"Subject: M\xfcller\nx").is_ok());
    }

    #[test]
    fn utf_16_and_other_encodings_are_named() {
        let utf16 = |mark: &[u16], swap: bool| {
            let units = mark.iter().copied().chain("{ }".encode_utf16());
            units
                .flat_map(|unit| {
                    if swap {
                        unit.to_be_bytes()
                    } else {
                        unit.to_le_bytes()
                    }
                })
                .collect::<Vec<_>>()
        };
        for content in [
            utf16(&[0xfeff], true),
            utf16(&[0xfeff], false),
            utf16(&[], true),
            utf16(&[], false),
        ] {
            assert_eq!(text(&content), Err(NotText::Utf16));
            assert_eq!(pem(&content), Err(NotText::Utf16));
            assert!(Lines::new(content.as_slice(), 9).next_line().is_err());
        }
        assert_eq!(text(b"M\xfcller"), Err(NotText::NotUtf8));
    }

    #[test]
    fn lines_are_cut_and_cost_no_memory() {
        let content = ["x".repeat(100_000).as_str(), "ok"].join("\n");
        let mut lines = Lines::new(content.as_bytes(), 10);
        assert_eq!(lines.next_line().unwrap().unwrap().len(), 10);
        assert_eq!(lines.next_line().unwrap().unwrap(), b"ok");
    }
}
