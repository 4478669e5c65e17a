//! Cuts the bytes of an XML stream into its header, its stanzas and its end, without changing a byte of them.

/// One piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The start tag of `<stream:stream>`.
    Header(String),
    /// A child of the stream, whole.
    Stanza(String),
    /// `</stream:stream>`
    End,
    /// Something that must not be there; nothing follows.
    Broken(String),
}

/// Takes bytes as they come and keeps what is not complete. Every byte is looked at once.
#[derive(Default)]
pub(crate) struct Cutter {
    bytes: Vec<u8>,
    /// Up to where `bytes` has been looked at.
    seen: usize,
    depth: usize,
    state: State,
    broken: bool,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    /// In a tag that began at this index, inside of quotes or not.
    Tag { start: usize, quote: Option<u8> },
    /// In a CDATA section, a comment or a processing instruction that began at this index.
    Until { start: usize, end: &'static [u8] },
}

impl Cutter {
    /// Adds bytes and returns the pieces that are complete now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.broken {
            return pieces;
        }
        self.bytes.extend_from_slice(bytes);
        // Where the first byte is that belongs to no piece yet.
        let mut kept = 0;
        while self.seen < self.bytes.len() {
            let at = self.seen;
            let byte = self.bytes[at];
            self.seen += 1;
            match self.state {
                State::Text if byte == b'<' => {
                    self.state = State::Tag {
                        start: at,
                        quote: None,
                    }
                }
                State::Text => {
                    if self.depth < 2 && !byte.is_ascii_whitespace() {
                        self.broken = true;
                        pieces.push(Piece::Broken(self.text(at, self.bytes.len())));
                        return pieces;
                    }
                    if self.depth < 2 {
                        kept = self.seen;
                    }
                }
                State::Tag {
                    start,
                    quote: Some(quote),
                } if byte == quote => {
                    self.state = State::Tag { start, quote: None };
                }
                State::Tag { quote: Some(_), .. } => {}
                State::Tag { start, quote: None } => match byte {
                    b'\'' | b'"' => {
                        self.state = State::Tag {
                            start,
                            quote: Some(byte),
                        }
                    }
                    b'?' if at == start + 1 => self.state = State::Until { start, end: b"?>" },
                    b'-' if self.bytes[start..=at] == *b"<!-" => {
                        self.state = State::Until { start, end: b"-->" };
                    }
                    b'[' if self.bytes[start..=at] == *b"<![" => {
                        self.state = State::Until { start, end: b"]]>" };
                    }
                    b'>' => {
                        self.state = State::Text;
                        let piece = self.tag(kept, start);
                        if piece.is_some() || self.depth < 2 {
                            kept = self.seen;
                        }
                        pieces.extend(piece);
                    }
                    _ => {}
                },
                State::Until { start, end } => {
                    if self.bytes[start..self.seen].ends_with(end) && self.seen >= start + 2 + end.len() {
                        self.state = State::Text;
                        if self.depth < 2 {
                            kept = self.seen;
                        }
                    }
                }
            }
        }
        self.bytes.drain(..kept);
        self.seen -= kept;
        match &mut self.state {
            State::Text => {}
            State::Tag { start, .. } | State::Until { start, .. } => *start -= kept,
        }
        pieces
    }

    /// A tag from `start` to what has been seen is complete.
    fn tag(&mut self, kept: usize, start: usize) -> Option<Piece> {
        let tag = &self.bytes[start..self.seen];
        if tag.starts_with(b"</") {
            self.depth = self.depth.saturating_sub(1);
            return match self.depth {
                0 => Some(Piece::End),
                1 => Some(Piece::Stanza(self.text(kept, self.seen))),
                _ => None,
            };
        }
        if self.depth == 0 {
            self.depth = 1;
            return Some(Piece::Header(self.text(start, self.seen)));
        }
        if !tag.ends_with(b"/>") {
            self.depth += 1;
            return None;
        }
        (self.depth == 1).then(|| Piece::Stanza(self.text(kept, self.seen)))
    }

    fn text(&self, from: usize, to: usize) -> String {
        String::from_utf8_lossy(&self.bytes[from..to]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cutter, Piece};

    const STREAM: &str = "<?xml version='1.0'?>\n<stream:stream to='a>b' xmlns:stream='s'>\
        <iq id='1'><a b=\"/>\"/><![CDATA[</iq><]]>text<!-- </iq> --><c>&lt;</c></iq> \n \
        <message/><iq xmlns='x' id='>'></iq></stream:stream>";

    fn expected() -> Vec<Piece> {
        vec![
            Piece::Header("<stream:stream to='a>b' xmlns:stream='s'>".to_owned()),
            Piece::Stanza(
                "<iq id='1'><a b=\"/>\"/><![CDATA[</iq><]]>text<!-- </iq> --><c>&lt;</c></iq>".to_owned(),
            ),
            Piece::Stanza("<message/>".to_owned()),
            Piece::Stanza("<iq xmlns='x' id='>'></iq>".to_owned()),
            Piece::End,
        ]
    }

    #[test]
    fn cuts_the_same_pieces_whatever_the_chunks() {
        for size in 1..=STREAM.len() {
            let mut cutter = Cutter::default();
            let pieces: Vec<_> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| cutter.push(chunk))
                .collect();
            assert_eq!(pieces, expected(), "chunks of {size}");
            assert!(cutter.bytes.is_empty());
        }
    }

    #[test]
    fn text_between_stanzas_is_broken() {
        let mut cutter = Cutter::default();
        cutter.push(b"<stream:stream>");
        assert_eq!(
            cutter.push(b" \n<iq/>x<iq/>"),
            [
                Piece::Stanza("<iq/>".to_owned()),
                Piece::Broken("x<iq/>".to_owned())
            ]
        );
        assert_eq!(cutter.push(b"<iq/>"), []);
    }
}
