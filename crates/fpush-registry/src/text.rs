//! Texts of strangers: how long they may be and what they may hold; and texts that we make.

use std::fmt::Write as _;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Whether a text that a stranger chose has 1 to `max` bytes and no control characters.
pub(crate) fn is_sane(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a secret is the right one. The time that it takes says nothing about where two secrets differ.
pub(crate) fn secret_matches(right: &[u8], given: Option<&str>) -> bool {
    given.is_some_and(|given| verify_slices_are_equal(right, given.as_bytes()).is_ok())
}

/// 256 random bits, in hex.
///
/// # Errors
///
/// The operating system has no randomness to give.
pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(hex(&bits))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes of a push type or a provider id.
pub(crate) const MAX_KIND: usize = 128;
/// Bytes of a node.
pub(crate) const MAX_NODE: usize = 512;
/// Bytes of a secret; ours have 64.
pub(crate) const MAX_SECRET: usize = 256;
/// Bytes of a token.
pub(crate) const MAX_TOKEN: usize = 4_096;
/// Bytes of a key in base64: of 65 bytes at most, with its padding.
pub(crate) const MAX_KEY: usize = 88;
/// Bytes of a bare JID: two parts of 1,023 bytes and an at sign.
pub(crate) const MAX_JID: usize = 2_047;
/// Bytes of a device id.
pub(crate) const MAX_DEVICE_ID: usize = 512;
