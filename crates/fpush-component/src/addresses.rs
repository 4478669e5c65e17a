//! The addresses and the id of a request, as its reply repeats them.

use std::fmt;

use quick_xml::escape::unescape;

/// The addresses of a reply, as attributes ready to be written: the request's own bytes, because Prosody
/// compares them with what the client once registered.
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Addresses {
    pub(crate) attributes: Box<[u8]>,
    pub(crate) has_id: bool,
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Addresses")
    }
}

impl Addresses {
    /// The addresses for the reply to a stanza with these, as they were sent; `None` if one of them could
    /// break our stream, or is longer than real ones are.
    pub(crate) fn of_reply(from: &str, to: &str, id: Option<&str>) -> Option<Self> {
        let around = " from='' to='' id=''".len();
        let mut attributes = Vec::with_capacity(from.len() + to.len() + id.map_or(0, str::len) + around);
        for (name, value, longest) in [
            (" from=", Some(to), MAX_JID),
            (" to=", Some(from), MAX_JID),
            (" id=", id, MAX_WRITTEN),
        ] {
            if let Some(value) = value {
                if !is_echoable(value, longest) {
                    return None;
                }
                // In what quotes it came is not known, but it cannot hold both kinds.
                let quote = if value.contains('\'') { b'"' } else { b'\'' };
                attributes.extend_from_slice(name.as_bytes());
                attributes.push(quote);
                attributes.extend_from_slice(value.as_bytes());
                attributes.push(quote);
            }
        }
        Some(Self {
            attributes: attributes.into_boxed_slice(),
            has_id: id.is_some(),
        })
    }

    /// How many bytes they take.
    pub(crate) fn size(&self) -> usize {
        self.attributes.len()
    }

    /// Whether they are short enough to be kept until a provider has answered. Ids of real servers have a hundred bytes.
    pub(crate) fn can_be_kept(&self) -> bool {
        self.attributes.len() <= MAX_KEPT
    }
}

/// Whether a raw attribute value may be repeated: every XML parser takes it back, it has at most this many bytes, and no
/// server makes more of it than it may have. A server sends no other; but if one did, repeating it would end our stream.
fn is_echoable(value: &str, longest: usize) -> bool {
    if value.bytes().all(is_plain) {
        return value.len() <= longest.min(MAX_WRITTEN);
    }
    is_echoable_markup(value, longest)
}

/// Whether a byte means itself, and is written by every server as itself: of such bytes are nearly all addresses and ids.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'<' | b'>' | b'&' | b'\'' | b'"')
}

fn is_echoable_markup(value: &str, longest: usize) -> bool {
    if value.len() > MAX_WRITTEN || value.contains('<') {
        return false;
    }
    let Ok(meant) = unescape(value) else {
        return false;
    };
    meant.len() <= longest && written(&meant) <= MAX_WRITTEN && is_sayable(&meant)
}

/// How many bytes a text has when a peer writes every character as a reference that may be one. Prosody writes each
/// quote as `&apos;`: then a reply that repeats a large text is larger than a server takes, and the stream ends.
fn written(text: &str) -> usize {
    let references = text
        .bytes()
        .filter(|byte| matches!(byte, b'&' | b'<' | b'>' | b'\'' | b'"' | b'\t' | b'\n' | b'\r'))
        .count();
    text.len() + references * ("&quot;".len() - 1)
}

/// Whether XML has all these characters, escaped or not (XML 1.0 section 2.2).
pub(crate) fn is_sayable(text: &str) -> bool {
    let legal = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().all(legal)
}

/// Bytes of an address (RFC 7622 section 3.1).
const MAX_JID: usize = 3_071;
/// Bytes of an id or an address in what any peer makes of a reply: the longest address there can be has no more, nor has
/// any id. With three of them and what is ours a reply stays far below the 64 KiB that every server takes.
const MAX_WRITTEN: usize = 8 * 1_024;
const MAX_KEPT: usize = 8 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_break_our_stream_is_not_repeated() {
        for id in ["a<b", "&nope;", "a\u{1}", "&#1;", "a\u{ffff}"] {
            assert!(!is_echoable(id, MAX_WRITTEN), "{id:?}");
        }
    }

    #[test]
    fn what_is_plain_is_judged_as_all_else_is() {
        for byte in 0..=127_u8 {
            for length in [1, 10, 11] {
                let value = char::from(byte).to_string().repeat(length);
                assert_eq!(
                    is_echoable(&value, 10),
                    is_echoable_markup(&value, 10),
                    "{value:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_longer_than_real_ones_is_not_repeated() {
        let (most, quotes) = ("x".repeat(MAX_WRITTEN), "&apos;".repeat(MAX_WRITTEN / 6));
        assert!(is_echoable(&most, MAX_WRITTEN) && is_echoable(&quotes, MAX_WRITTEN));
        for id in [
            most + "x",
            quotes.clone() + "&apos;",
            // Short as it came, long as others write it.
            "'".repeat(MAX_WRITTEN / 6 + 1),
            "\"&gt;".repeat(MAX_WRITTEN / 12 + 1),
            // Long as it came.
            format!("&#x{}41;", "0".repeat(MAX_WRITTEN)),
        ] {
            assert!(!is_echoable(&id, MAX_WRITTEN), "{id:.20}");
        }
        let longest = format!(
            "{}@{}/{}",
            "l".repeat(1_023),
            "d".repeat(1_023),
            "'".repeat(1_023)
        );
        assert!(is_echoable(&longest, MAX_JID) && !is_echoable(&"x".repeat(MAX_JID + 1), MAX_JID));
    }
}
