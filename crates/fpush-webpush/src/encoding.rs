//! Base64 as apps send it: base64url or standard, with padding or without (RFC 4648 sections 4 and 5).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// Reads so many bytes in any of the usual spellings.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() > 2 * N + 4 {
        return None;
    }
    let bare = text.trim_end_matches('=');
    let url_safe: String = bare
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(url_safe).ok()?;
    bytes.try_into().ok()
}

/// The one spelling: base64url without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_base64_is_read() {
        for text in ["-_-_", "+/+/", "-/+_"] {
            assert_eq!(decode(text), Some([0xfb, 0xff, 0xbf]), "{text}");
        }
        for text in ["_w", "/w", "_w==", "/w=="] {
            assert_eq!(decode(text), Some([0xff]), "{text}");
        }
        for bad in ["", "_", "_x", "_w w", "_w==x", "____", "\u{e4}w"] {
            assert_eq!(decode::<1>(bad), None, "{bad}");
        }
        assert_eq!(encode([0xfb, 0xff, 0xbf]), "-_-_");
    }
}
