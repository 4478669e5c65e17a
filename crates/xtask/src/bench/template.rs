//! Stanzas that are written fast: copies of one, each with a number of its own.

use fpush_testkit::publish::{ejabberd_publish, prosody_publish};

/// The server whose way of writing publishes is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Prosody,
    Ejabberd,
}

impl Server {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prosody => "Prosody",
            Self::Ejabberd => "ejabberd",
        }
    }
}

/// A stanza, and where its number goes.
pub(super) struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    /// `token` holds [`NUMBER`] where its number goes.
    pub(super) fn new(server: Server, module: &str, token: &str) -> Self {
        Self::sent_by("localhost", server, module, token)
    }

    /// The same from another sender.
    pub(super) fn sent_by(sender: &str, server: Server, module: &str, token: &str) -> Self {
        // As long as those of the server.
        let id = |length: usize| NUMBER.to_owned() + &"1".repeat(length - DIGITS);
        let publish = match server {
            Server::Prosody => prosody_publish(&id(64), token, Some(module), true),
            Server::Ejabberd => ejabberd_publish(&id(20), token, Some(module), true),
        };
        Self::of(&publish.from(sender).to_string())
    }

    /// A stanza that holds [`NUMBER`] wherever its number goes: in its id at least.
    pub(super) fn of(stanza: &str) -> Self {
        Self {
            places: stanza.match_indices(NUMBER).map(|(at, _)| at).collect(),
            bytes: stanza.as_bytes().to_vec(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn write(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for place in &self.places {
            write_number(number, &mut out[start + place..]);
        }
    }
}

/// Writes a number over the first [`DIGITS`] bytes.
pub(super) fn write_number(number: u64, bytes: &mut [u8]) {
    for (index, digit) in bytes[..DIGITS].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 15];
    }
}

/// Reads the number with which the text begins.
pub(super) fn read_number(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text.get(..DIGITS)?).ok()?, 16).ok()
}

/// Stands for the number.
pub(super) const NUMBER: &str = "2222222222222222";

const DIGITS: usize = NUMBER.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publish_has_its_own_id_and_token() {
        for server in [Server::Prosody, Server::Ejabberd] {
            let template = Template::new(server, "demo", &format!("dead{NUMBER}beef"));
            let mut publishes = Vec::new();
            template.write(0xabc, &mut publishes);
            template.write(0xdef, &mut publishes);
            assert_eq!(publishes.len(), 2 * template.len());
            let text = String::from_utf8(publishes).expect("a publish is text");
            for number in ["0000000000000abc", "0000000000000def"] {
                assert_eq!(text.matches(number).count(), 2, "{text}");
                assert!(text.contains(&format!("dead{number}beef")), "{text}");
            }
        }
    }

    #[test]
    fn a_number_is_read_as_it_was_written() {
        let mut bytes = *b"2222222222222222 and more";
        write_number(0x0123_4567_89ab_cdef, &mut bytes);
        assert_eq!(&bytes, b"0123456789abcdef and more");
        assert_eq!(read_number(&bytes), Some(0x0123_4567_89ab_cdef));
        assert_eq!(read_number(b"0123"), None);
    }
}
