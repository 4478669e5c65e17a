//! The readers of what other programs have written, for the fuzz targets, and for nobody else: nothing here is part of the
//! interface.

use crate::{device::Device, former, prosody, time::Time};

/// Reads a file of `mod_push_appserver`.
///
/// # Errors
///
/// It is not a device; in words.
pub fn prosody_file(content: &[u8], name: Option<&str>) -> Result<Device, String> {
    prosody::device(content, name, Time::from_millis(0)).map_err(|error| error.to_string())
}

/// Takes back Prosody's escaping of a file's name.
#[must_use]
pub fn prosody_name(name: &str) -> Option<String> {
    prosody::unescape(name)
}

/// Reads a database's column of replaced secrets, and writes it again.
#[must_use]
pub fn former_secrets(text: &str) -> Option<String> {
    former::to_text(&former::from_text(Some(text)))
}
