//! Contents that are spoilt in thousands of ways, always the same ones: as an editor, a copy, a disk or a stranger does it.

use std::ops::Range;

/// What somebody may have put into a file.
const PIECES: [&str; 46] = [
    "\u{feff}",
    "\r",
    "\r\n",
    "\n",
    "\0",
    "\t",
    " ",
    "\u{2028}",
    "é",
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----BEGIN -----",
    "-----",
    "MIIB",
    "====",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\ud800",
    "\\u0000",
    ":",
    ",",
    "null",
    "-1e999",
    "18446744073709551616",
    "/*",
    "//",
    "<",
    "</",
    "/>",
    "<!--",
    "<![CDATA[",
    "]]>",
    "<?",
    "'",
    "&lt;",
    "&#x10ffff;",
    "xmlns='jabber:x:data'",
    "%00",
];

/// Spoils contents, in the same way in each run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those with this seed, which is not 0.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one; 0 below 0.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most.max(1) as u64) as usize
    }

    /// A part of a content.
    fn part(&mut self, length: usize) -> Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(200) + 1)
    }

    /// Changes a content somewhere: bits, bytes, parts of it and of another content, and what somebody may have put there.
    pub fn spoil(&mut self, content: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(content.len() + 1);
        match self.below(8) {
            0 if !content.is_empty() => {
                let at = at.min(content.len() - 1);
                content[at] ^= 1 << self.below(8);
            }
            1 => drop(content.drain(self.part(content.len()))),
            2 => {
                let part = content[self.part(content.len())].to_vec();
                content.splice(at..at, part);
            }
            3 => content.truncate(at),
            4 => {
                let part = other[self.part(other.len())].to_vec();
                content.splice(at..at, part);
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())].bytes();
                content.splice(at..at, piece);
            }
        }
    }
}
