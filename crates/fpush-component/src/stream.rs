//! Cutting the byte stream into stanzas.
//!
//! No content of a stanza affects the next one: nothing is parsed here but what is needed to find
//! where a stanza ends. A stanza above the limit is dropped up to its end.
//!
//! To find the end, all markup of a stanza must be found. Its position is noted, so that a
//! [`Cursor`](crate::xml::Cursor) need not look for it again.

use std::ops::Range;

use memchr::{memchr, memchr3};

/// One thing that came over the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A whole top-level element.
    Stanza(Stanza<'a>),
    /// A top-level element that was too large; its start tag, if that was not.
    Oversized(Option<Vec<u8>>),
    /// The server closed its stream.
    End,
}

/// A whole top-level element, and its markup: tags, comments, CDATA sections and what else there is between
/// `<` and `>`, in its order. What is between two of them is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stanza<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) marks: &'a [Mark],
}

/// The position of a piece of markup in its stanza, from `<` to behind `>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    start: u32,
    end: u32,
}

#[cfg(test)]
impl Stanza<'static> {
    /// The stanza that a text begins with, if there is all of it.
    pub(crate) fn cut(text: &[u8]) -> Option<Self> {
        match Box::leak(Box::new(Cutter::new(text.len(), text))).next()? {
            Piece::Stanza(stanza) => Some(stanza),
            Piece::Oversized(_) | Piece::End => None,
        }
    }
}

impl Mark {
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Finds stanzas in what was read so far.
#[derive(Debug)]
pub(crate) struct Cutter {
    buffer: Vec<u8>,
    /// What was looked at already.
    scanned: usize,
    /// Where the current stanza begins.
    start: usize,
    /// How many elements are open, the stream's own not counted.
    depth: u32,
    /// What the next byte is part of.
    within: Within,
    /// The byte before the first one of the buffer.
    previous: u8,
    /// Where the start tag of the current stanza ends.
    head_end: Option<usize>,
    /// Where the current markup begins, counted from the stanza's beginning.
    markup: usize,
    /// The markup of the current stanza so far. Empty while one is dropped.
    marks: Vec<Mark>,
    /// The current stanza is too large; its start tag.
    dropped: Option<Option<Vec<u8>>>,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Between tags.
    Text,
    /// Behind `<`.
    Angle,
    StartTag,
    /// In an attribute's value, up to this quote.
    Value(u8),
    EndTag,
    /// Behind `<!`.
    Bang,
    /// Behind `<!-`.
    Dash,
    /// In a comment, behind this many dashes that are not the ones it begins with.
    Comment(u8),
    /// In a CDATA section, behind this many closing brackets.
    Cdata(u8),
    /// In some other declaration.
    Declaration,
    /// In a processing instruction.
    Instruction,
}

impl Cutter {
    /// A cutter that begins inside of an opened stream, with what was read behind its header.
    pub(crate) fn new(limit: usize, already_read: &[u8]) -> Self {
        Self {
            buffer: already_read.to_vec(),
            scanned: 0,
            start: 0,
            depth: 0,
            within: Within::Text,
            previous: 0,
            head_end: None,
            markup: 0,
            marks: Vec::new(),
            dropped: None,
            limit,
        }
    }

    /// Where to append what the socket gives. Pieces must have been taken until there was none.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        let keep_from = if self.depth == 0 && self.within == Within::Text || self.dropped.is_some() {
            self.scanned
        } else {
            self.start
        };
        if let Some(last) = self.buffer.drain(..keep_from).next_back() {
            self.previous = last;
        }
        self.scanned -= keep_from;
        self.head_end = self.head_end.map(|end| end.saturating_sub(keep_from));
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(READ);
            // Nothing is left of the stanza that they were for, or it is being dropped.
            self.marks.clear();
            self.marks.shrink_to(KEPT_MARKS);
        }
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// A whole stanza that is next, if this reads it, from its beginning on; it returns also how many bytes it has read. To be
    /// asked before [`next`](Self::next), which takes all others.
    pub(crate) fn take<'a, T: 'a>(
        &'a mut self,
        read: impl FnOnce(&'a [u8]) -> Option<(T, usize)>,
    ) -> Option<T> {
        if self.in_stanza() {
            return None;
        }
        let (stanza, length) = read(&self.buffer[self.scanned..])?;
        if length > self.limit {
            return None;
        }
        self.scanned += length;
        Some(stanza)
    }

    /// The next piece; `None` if more must be read first.
    pub(crate) fn next(&mut self) -> Option<Piece<'_>> {
        while self.scanned < self.buffer.len() {
            if self.dropped.is_none() && self.depth > 0 && self.scanned - self.start > self.limit {
                self.drop_stanza();
            }
            let rest = &self.buffer[self.scanned..];
            let byte = rest[0];
            match self.within {
                Within::Text => match find(b'<', rest) {
                    Some(at) => {
                        self.scanned += at + 1;
                        if self.depth == 0 {
                            self.start = self.scanned - 1;
                            self.head_end = None;
                            self.dropped = None;
                            self.marks.clear();
                        }
                        self.markup = self.scanned - 1 - self.start;
                        self.within = Within::Angle;
                    }
                    None => self.scanned = self.buffer.len(),
                },
                Within::Angle => {
                    self.within = match byte {
                        b'/' => Within::EndTag,
                        b'!' => Within::Bang,
                        b'?' => Within::Instruction,
                        _ => Within::StartTag,
                    };
                    self.scanned += 1;
                }
                Within::StartTag => match memchr3(b'"', b'\'', b'>', rest) {
                    Some(at) if rest[at] == b'>' => {
                        self.scanned += at;
                        let empty = self.previous() == b'/';
                        self.scanned += 1;
                        self.end_markup();
                        if self.depth == 0 {
                            self.head_end = Some(self.scanned);
                        }
                        if !empty {
                            self.depth += 1;
                        } else if self.depth == 0 {
                            return Some(self.finish());
                        }
                    }
                    Some(at) => {
                        self.within = Within::Value(rest[at]);
                        self.scanned += at + 1;
                    }
                    None => self.scanned = self.buffer.len(),
                },
                Within::Value(quote) => match memchr(quote, rest) {
                    Some(at) => {
                        self.within = Within::StartTag;
                        self.scanned += at + 1;
                    }
                    None => self.scanned = self.buffer.len(),
                },
                Within::EndTag => match memchr(b'>', rest) {
                    Some(at) => {
                        self.scanned += at + 1;
                        self.end_markup();
                        match self.depth {
                            0 => return Some(Piece::End),
                            1 => {
                                self.depth = 0;
                                return Some(self.finish());
                            }
                            _ => self.depth -= 1,
                        }
                    }
                    None => self.scanned = self.buffer.len(),
                },
                Within::Bang => {
                    self.scanned += 1;
                    match byte {
                        b'-' => self.within = Within::Dash,
                        b'[' => self.within = Within::Cdata(0),
                        b'>' => self.end_markup(),
                        _ => self.within = Within::Declaration,
                    }
                }
                Within::Dash => {
                    self.scanned += 1;
                    self.within = Within::Comment(0);
                }
                Within::Comment(dashes) => {
                    self.scanned += 1;
                    match byte {
                        b'>' if dashes == 2 => self.end_markup(),
                        b'-' => self.within = Within::Comment((dashes + 1).min(2)),
                        _ => self.within = Within::Comment(0),
                    }
                }
                Within::Cdata(brackets) => {
                    self.scanned += 1;
                    match byte {
                        b'>' if brackets == 2 => self.end_markup(),
                        b']' => self.within = Within::Cdata((brackets + 1).min(2)),
                        _ => self.within = Within::Cdata(0),
                    }
                }
                Within::Declaration => {
                    self.scanned += 1;
                    if byte == b'>' {
                        self.end_markup();
                    }
                }
                Within::Instruction => {
                    let ends = byte == b'>' && self.previous() == b'?';
                    self.scanned += 1;
                    if ends {
                        self.end_markup();
                    }
                }
            }
        }
        if self.dropped.is_none() && self.in_stanza() && self.scanned - self.start > self.limit {
            self.drop_stanza();
        }
        None
    }

    /// Whether it has not ended yet.
    pub(crate) fn in_stanza(&self) -> bool {
        self.depth > 0 || self.within != Within::Text
    }

    /// The byte before the one at `scanned`.
    fn previous(&self) -> u8 {
        match self.scanned {
            0 => self.previous,
            scanned => self.buffer[scanned - 1],
        }
    }

    /// Notes the markup that ends here.
    fn end_markup(&mut self) {
        self.within = Within::Text;
        if self.dropped.is_none() {
            // Stanzas are dropped long before they have 4 GiB.
            self.marks.push(Mark {
                start: self.markup as u32,
                end: (self.scanned - self.start) as u32,
            });
        }
    }

    /// Drops the current stanza up to its end.
    fn drop_stanza(&mut self) {
        self.dropped = Some(self.head());
        self.marks.clear();
    }

    fn finish(&mut self) -> Piece<'_> {
        match self.dropped.take() {
            Some(head) => Piece::Oversized(head),
            None if self.scanned - self.start > self.limit => Piece::Oversized(self.head()),
            None => Piece::Stanza(Stanza {
                bytes: &self.buffer[self.start..self.scanned],
                marks: &self.marks,
            }),
        }
    }

    /// The start tag of the current stanza, if it is complete and of a size that makes sense.
    fn head(&self) -> Option<Vec<u8>> {
        let end = self.head_end.filter(|end| end - self.start <= MAX_HEAD)?;
        Some(self.buffer[self.start..end].to_vec())
    }
}

/// Most often what is looked for is just there: tags follow on one another.
fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&byte) {
        Some(0)
    } else {
        memchr(byte, bytes)
    }
}

/// How much to read at a time.
const READ: usize = 64 * 1_024;
const MAX_HEAD: usize = 64 * 1_024;
/// How many marks to keep room for; a publish has about forty.
const KEPT_MARKS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Owned {
        Stanza(String),
        Oversized(Option<String>),
        End,
    }

    fn cut(limit: usize, chunks: &[&[u8]]) -> Vec<Owned> {
        let mut cutter = Cutter::new(limit, b"");
        let mut pieces = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for chunk in chunks {
            cutter.space().extend_from_slice(chunk);
            while let Some(piece) = cutter.next() {
                pieces.push(match piece {
                    Piece::Stanza(stanza) => Owned::Stanza(text(stanza.bytes)),
                    Piece::Oversized(head) => Owned::Oversized(head.as_deref().map(text)),
                    Piece::End => Owned::End,
                });
            }
        }
        pieces
    }

    const STREAM: &str = concat!(
        " <iq id='1'><a b='>'/><c>&lt;</c></iq>\n\n<message/>",
        "<iq id=\"it's > you\"><x><!-- </iq> - -- --><!--->--><![CDATA[</x>]]]></x></iq>",
        "<?pi </iq> ?><presence\n/></stream:stream>",
    );

    fn expected() -> Vec<Owned> {
        [
            "<iq id='1'><a b='>'/><c>&lt;</c></iq>",
            "<message/>",
            "<iq id=\"it's > you\"><x><!-- </iq> - -- --><!--->--><![CDATA[</x>]]]></x></iq>",
            "<presence\n/>",
        ]
        .map(|stanza| Owned::Stanza(stanza.to_owned()))
        .into_iter()
        .chain([Owned::End])
        .collect()
    }

    #[test]
    fn stanzas_come_out_whole_however_they_were_split() {
        assert_eq!(cut(1_000, &[STREAM.as_bytes()]), expected());
        for at in 0..STREAM.len() {
            let (first, second) = STREAM.as_bytes().split_at(at);
            assert_eq!(cut(1_000, &[first, second]), expected(), "split at {at}");
        }
        let bytes: Vec<_> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(cut(1_000, &bytes), expected());
    }

    #[test]
    fn what_was_read_with_the_header_is_not_lost() {
        let mut cutter = Cutter::new(100, b"<iq id='1'/><iq");
        assert_eq!(cutter.next(), Stanza::cut(b"<iq id='1'/>").map(Piece::Stanza));
        assert_eq!(cutter.next(), None);
        cutter.space().extend_from_slice(b" id='2'/>");
        assert_eq!(cutter.next(), Stanza::cut(b"<iq id='2'/>").map(Piece::Stanza));
    }

    #[test]
    fn a_stanza_above_the_limit_is_dropped_up_to_its_end_and_the_next_is_read() {
        let large = format!(
            "<iq id='1'><a>{}</a><b/><?c?></iq><iq id='2'/>",
            "x".repeat(5_000)
        );
        let expected = [
            Owned::Oversized(Some("<iq id='1'>".into())),
            Owned::Stanza("<iq id='2'/>".into()),
        ];
        assert_eq!(cut(100, &[large.as_bytes()]), expected);
        for size in [1, 7, 64, 4_096] {
            let chunks: Vec<_> = large.as_bytes().chunks(size).collect();
            assert_eq!(cut(100, &chunks), expected, "in chunks of {size}");
        }
    }

    #[test]
    fn dropping_keeps_no_more_than_one_read_in_memory() {
        let mut cutter = Cutter::new(1_000, b"");
        cutter.space().extend_from_slice(b"<iq id='1'><a b='");
        for _ in 0..1_000 {
            assert_eq!(cutter.next(), None);
            cutter.space().extend_from_slice(&[b'x'; 10_000]);
        }
        assert!(
            cutter.buffer.capacity() < 4 * READ,
            "{}",
            cutter.buffer.capacity()
        );
        cutter.space().extend_from_slice(b"'/></iq>");
        assert_eq!(
            cutter.next(),
            Some(Piece::Oversized(Some(b"<iq id='1'>".to_vec())))
        );
    }

    #[test]
    fn markup_is_noted_and_the_room_for_it_given_back() {
        let mut cutter = Cutter::new(1 << 20, b"<!-- --><iq>x<a b='>'/><!--y--></iq>");
        let Some(Piece::Stanza(Stanza { bytes, marks })) = cutter.next() else {
            panic!()
        };
        let marks: Vec<_> = marks.iter().map(|mark| &bytes[mark.range()]).collect();
        assert_eq!(marks, [&b"<iq>"[..], b"<a b='>'/>", b"<!--y-->", b"</iq>"]);

        cutter.space().extend_from_slice("<iq>".as_bytes());
        cutter
            .space()
            .extend_from_slice("<a/>".repeat(100_000).as_bytes());
        assert_eq!(cutter.next(), None);
        assert!(cutter.marks.len() == 100_001 && cutter.marks.capacity() > KEPT_MARKS);
        cutter.space().extend_from_slice(b"</iq>");
        assert!(matches!(cutter.next(), Some(Piece::Stanza(_))));
        cutter.space().extend_from_slice(b"<iq>");
        assert_eq!(cutter.marks.capacity(), KEPT_MARKS);
    }

    #[test]
    fn no_markup_is_noted_of_a_stanza_that_is_dropped() {
        let mut cutter = Cutter::new(1_000, b"<iq>");
        for _ in 0..100 {
            assert_eq!(cutter.next(), None);
            cutter.space().extend_from_slice("<a/>".repeat(1_000).as_bytes());
        }
        assert_eq!(cutter.next(), None);
        assert!(cutter.marks.is_empty() && cutter.marks.capacity() <= KEPT_MARKS);
    }

    #[test]
    fn a_start_tag_above_the_limit_is_dropped_without_a_head() {
        let large = format!("<iq id='{}'/><iq id='2'/>", "x".repeat(5_000));
        let chunks: Vec<_> = large.as_bytes().chunks(100).collect();
        assert_eq!(
            cut(1_000, &chunks),
            [Owned::Oversized(None), Owned::Stanza("<iq id='2'/>".into())]
        );
    }

    #[test]
    fn a_large_comment_between_stanzas_costs_none_of_them() {
        let stream = format!("<!--{}--><iq id='1'/>", "x".repeat(5_000));
        let chunks: Vec<_> = stream.as_bytes().chunks(100).collect();
        assert_eq!(cut(1_000, &chunks), [Owned::Stanza("<iq id='1'/>".into())]);
    }

    #[test]
    fn depth_and_breadth_do_not_matter() {
        let deep = format!("<iq>{}{}</iq>", "<a>".repeat(50_000), "</a>".repeat(50_000));
        let broad = format!("<iq>{}</iq>", "<a/>".repeat(20_000));
        let stream = format!("{deep}{broad}");
        assert_eq!(
            cut(1 << 20, &[stream.as_bytes()]),
            [Owned::Stanza(deep), Owned::Stanza(broad)]
        );
    }
}
