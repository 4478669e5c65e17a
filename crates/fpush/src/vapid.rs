//! `fpush vapid new`: makes the key that a Web Push module signs with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::{
    cli::Vapid,
    console::{Console, Exit},
};

/// `fpush vapid`.
pub(crate) fn vapid(command: &Vapid, console: &mut Console) -> Exit {
    let Vapid::New { file } = command;
    let Ok(key) = fpush_webpush::new_key() else {
        console.error("the operating system has no random numbers to give");
        return Exit::OsError;
    };
    match write(file, &key.pem) {
        Ok(()) => {
            console.say(&key.public);
            console.complain(format_args!(
                "note: this is the public key, with which apps subscribe; the private one is in {} for vapidKeyFilePath, and \
                 fpush's user must be able to read it. Keep it: with another key all apps have to subscribe again",
                file.display()
            ));
            Exit::Success
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            console.error(format_args!(
                "{} is there already, and stays as it is: apps may have subscribed with that key; name another file",
                file.display()
            ));
            Exit::No
        }
        Err(e) => {
            console.error(format_args!("cannot write {}: {e}", file.display()));
            Exit::OsError
        }
    }
}

/// Writes a new file that only its owner can read. One that cannot be written to its end is not left there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(path)))
}
