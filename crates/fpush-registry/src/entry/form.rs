//! How a text of an entry is written.

use super::{push_number, read_number};

/// By which letters it has. None is the form 0, of a text that is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Any.
    AsItIs = 1,
    /// Small hexadecimal digits, two in each byte.
    Hexadecimal = 2,
    /// Those of base64 for URLs, four in three bytes, and a colon at most: tokens of FCM. Before them is a number: half of it
    /// is 0, or says after which byte the colon comes; the lowest bit, whether there are three letters in the last three bytes.
    Base64 = 3,
}

impl Form {
    /// The form with a number, of which the two lowest bits count.
    pub(super) fn of(number: u16) -> Option<Self> {
        match number & 3 {
            0 => None,
            1 => Some(Self::AsItIs),
            2 => Some(Self::Hexadecimal),
            _ => Some(Self::Base64),
        }
    }

    /// Appends a text in the shortest form.
    pub(super) fn pack(text: &str, bytes: &mut Vec<u8>) -> Self {
        let start = bytes.len();
        for form in [Self::Hexadecimal, Self::Base64] {
            let packed = match form {
                Self::AsItIs => None,
                Self::Hexadecimal => pack_hexadecimal(text.as_bytes(), bytes),
                Self::Base64 => pack_base64(text.as_bytes(), bytes),
            };
            if packed.is_some() && bytes.len() - start < text.len() {
                return form;
            }
            bytes.truncate(start);
        }
        bytes.extend(text.as_bytes());
        Self::AsItIs
    }

    /// How long the text is.
    pub(super) fn length(self, bytes: &[u8]) -> usize {
        match self {
            Self::AsItIs => bytes.len(),
            Self::Hexadecimal => 2 * bytes.len(),
            Self::Base64 => {
                let (number, letters) = read_number(bytes);
                letters.len() / 3 * 4 + letters.len() % 3 - (number & 1) + usize::from(number > 1)
            }
        }
    }

    /// Writes the text, for which there is as much room as it is long.
    pub(super) fn unpack(self, bytes: &[u8], text: &mut [u8]) {
        match self {
            Self::AsItIs => text.copy_from_slice(bytes),
            Self::Hexadecimal => {
                let (pairs, _) = text.as_chunks_mut::<2>();
                for (pair, byte) in pairs.iter_mut().zip(bytes) {
                    *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
                }
            }
            Self::Base64 => {
                let (number, letters) = read_number(bytes);
                let mut rest = text;
                if number > 1 {
                    let (before, after) = rest.split_at_mut(number / 2 - 1);
                    let (colon, after) = after.split_at_mut(1);
                    colon.copy_from_slice(b":");
                    let skipped = unpack_base64(letters, 0, before);
                    unpack_base64(letters, skipped, after);
                    rest = &mut [];
                }
                unpack_base64(letters, 0, rest);
            }
        }
    }
}

fn pack_hexadecimal(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    for &[high, low] in pairs {
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    rest.is_empty().then_some(())
}

fn pack_base64(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let colon = text.iter().position(|byte| *byte == b':');
    let number = colon.map_or(0, |place| 2 * (place + 1));
    let letters = text.len() - usize::from(colon.is_some());
    push_number(number | usize::from(letters % 4 == 3), bytes);
    let (before, after) = text.split_at(colon.unwrap_or(0));
    let after = &after[usize::from(colon.is_some())..];
    let (mut four, mut number) = (0_u32, 0);
    for byte in before.iter().chain(after) {
        four = four << 6 | u32::from(letter(*byte)?);
        number += 1;
        if number == 4 {
            bytes.extend(&four.to_be_bytes()[1..]);
            (four, number) = (0, 0);
        }
    }
    four <<= 6 * (4 - number) as u32;
    bytes.extend(&four.to_be_bytes()[1..][..number]);
    Some(())
}

/// Writes letters from one of them on. Returns up to which.
fn unpack_base64(letters: &[u8], from: usize, text: &mut [u8]) -> usize {
    let end = from + text.len();
    for (place, byte) in (from..end).zip(text) {
        let three = &letters[place / 4 * 3..];
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let four = at(0) << 16 | at(1) << 8 | at(2);
        *byte = LETTERS[(four >> (18 - 6 * (place % 4)) & 63) as usize];
    }
    end
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
