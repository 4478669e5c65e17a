//! Reading BER, as far as PKCS#12 files have it. Some tools (NSS, Bouncy Castle) write lengths that are not known at the
//! start and texts in pieces, and some do not sort their sets, which readers of DER refuse.

use std::borrow::Cow;

/// It is not BER, or it is nested too deeply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A value with its tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With tag and length.
    pub(super) whole: &'a [u8],
}

/// Values one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

pub(super) const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// `[0]` with a value in it.
pub(super) const CONTEXT: u8 = 0xa0;
/// `[0]` in the place of the tag of a text.
const CONTEXT_OCTETS: u8 = 0x80;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, whatever it is.
    pub(super) fn any(&mut self) -> Result<Value<'a>, Malformed> {
        let (value, rest) = value(self.0, DEEPEST)?;
        self.0 = rest;
        Ok(value)
    }

    /// The content of the next value, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let value = self.any()?;
        if value.tag == tag {
            Ok(value.content)
        } else {
            Err(Malformed)
        }
    }

    /// The values in the next one, which must have this tag.
    pub(super) fn inside(&mut self, tag: u8) -> Result<Self, Malformed> {
        self.expect(tag).map(Self)
    }

    /// A text of bytes, in one piece or in several.
    pub(super) fn octets(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        joined(self.any()?, DEEPEST)
    }

    /// A number that is not negative.
    pub(super) fn integer(&mut self) -> Result<u64, Malformed> {
        let bytes = self.expect(INTEGER)?;
        match bytes {
            [] => Err(Malformed),
            [first, ..] if *first >= 0x80 => Err(Malformed),
            _ => Ok(bytes
                .iter()
                .try_fold(0u64, |number, byte| {
                    Some(number.checked_mul(256)? | u64::from(*byte))
                })
                .unwrap_or(u64::MAX)),
        }
    }
}

fn value(bytes: &[u8], depth: u8) -> Result<(Value<'_>, &[u8]), Malformed> {
    let (&tag, after_tag) = bytes.split_first().ok_or(Malformed)?;
    let (&length, body) = after_tag.split_first().ok_or(Malformed)?;
    // Tags of several bytes do not occur.
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    let (length, body) = match length {
        0x80 => return until_end(tag, bytes, body, depth),
        0..=0x7f => (usize::from(length), body),
        0x81..=0x84 => {
            let (digits, body) = body
                .split_at_checked(usize::from(length & 0x7f))
                .ok_or(Malformed)?;
            let length = digits
                .iter()
                .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
            (length, body)
        }
        0x85.. => return Err(Malformed),
    };
    let (content, rest) = body.split_at_checked(length).ok_or(Malformed)?;
    let whole = &bytes[..bytes.len() - rest.len()];
    Ok((Value { tag, content, whole }, rest))
}

/// A value whose end is marked by two zeros.
fn until_end<'a>(
    tag: u8,
    bytes: &'a [u8],
    body: &'a [u8],
    depth: u8,
) -> Result<(Value<'a>, &'a [u8]), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    if tag & 0x20 == 0 {
        return Err(Malformed);
    }
    let mut rest = body;
    loop {
        if let Some(after) = rest.strip_prefix(&[0, 0]) {
            let content = &body[..body.len() - rest.len()];
            let whole = &bytes[..bytes.len() - after.len()];
            return Ok((Value { tag, content, whole }, after));
        }
        (_, rest) = value(rest, depth)?;
    }
}

fn joined(value: Value<'_>, depth: u8) -> Result<Cow<'_, [u8]>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    match value.tag {
        OCTETS | CONTEXT_OCTETS => Ok(Cow::Borrowed(value.content)),
        0x24 | CONTEXT => {
            let mut pieces = Reader(value.content);
            let mut all = Vec::new();
            while !pieces.is_empty() {
                all.extend_from_slice(&joined(pieces.any()?, depth)?);
            }
            Ok(Cow::Owned(all))
        }
        _ => Err(Malformed),
    }
}

/// Files of other tools have four levels.
const DEEPEST: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_pieces_and_lengths_that_come_at_the_end_are_read() {
        let bytes = [
            0x30, 0x80, 0x24, 0x80, 0x04, 0x01, 1, 0x24, 0x03, 0x04, 0x01, 2, 0, 0, 0x02, 0x02, 0x08, 0x00,
            0, 0, 9,
        ];
        let mut outer = Reader::new(&bytes);
        let mut inner = outer.inside(SEQUENCE).unwrap();
        assert_eq!(*inner.octets().unwrap(), [1, 2]);
        assert_eq!(inner.integer(), Ok(2_048));
        assert!(inner.is_empty());
        assert_eq!(outer.0, [9]);
    }

    #[test]
    fn nonsense_ends() {
        let deep = [0x30, 0x80].repeat(100_000);
        let long = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
        let primitive = [0x04, 0x80, 0, 0];
        for bytes in [
            &deep[..],
            &long,
            &primitive,
            &[],
            &[0x30],
            &[0x1f, 0],
            &[0x30, 0x85],
        ] {
            assert_eq!(Reader::new(bytes).any().map(drop), Err(Malformed));
        }
        let pieces = [0x24, 0x82, 0xff, 0xff].repeat(20);
        assert_eq!(Reader::new(&pieces).octets().map(drop), Err(Malformed));
    }
}
