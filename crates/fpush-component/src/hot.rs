//! The hot pieces one by one. For the benches, and for nobody else: nothing here is part of the interface.

use std::hint::black_box;

use fpush_push::{Outcome, metrics::LabelledCounters};

use crate::{
    addresses::Addresses,
    reply::{self, Named, Reply},
    request::{Incoming, Request},
    stream::{Cutter, Mark, Piece, Stanza},
};

/// The stream of a server.
pub struct Stream(Cutter);

impl Stream {
    /// One over which nothing has come yet.
    #[must_use]
    pub fn open() -> Self {
        Self(Cutter::new(LIMIT, b""))
    }

    /// Takes what the socket gave; returns how many stanzas ended in it.
    pub fn cut(&mut self, bytes: &[u8]) -> usize {
        self.0.space().extend_from_slice(bytes);
        let mut stanzas = 0;
        while let Some(piece) = self.0.next() {
            stanzas += usize::from(matches!(black_box(piece), Piece::Stanza(_)));
        }
        stanzas
    }
}

/// A stanza that has been cut.
pub struct Whole {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl Whole {
    /// The stanza that a text begins with, if there is all of it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        match Cutter::new(LIMIT, text.as_bytes()).next()? {
            Piece::Stanza(Stanza { bytes, marks }) => Some(Self {
                bytes: bytes.to_vec(),
                marks: marks.to_vec(),
            }),
            Piece::Oversized(_) | Piece::End => None,
        }
    }

    /// Reads it; returns whether it is a publish with a node.
    #[must_use]
    pub fn is_publish(&self) -> bool {
        black_box(self.read()).is_some_and(|incoming| matches!(incoming.request, Request::Publish(_)))
    }

    /// Whom to answer, if it wants an answer.
    #[must_use]
    pub fn sender(&self) -> Option<Sender> {
        self.read()
            .map(|incoming| Sender(incoming.addresses, reply::counters()))
    }

    fn read(&self) -> Option<Incoming<'_>> {
        Incoming::read(Stanza {
            bytes: &self.bytes,
            marks: &self.marks,
        })
    }
}

/// Whom to answer.
pub struct Sender(Addresses, LabelledCounters<2>);

impl Sender {
    /// Appends the reply to a publish.
    pub fn reply(&self, outcome: Outcome, out: &mut Vec<u8>) {
        Reply::Published(outcome, Named::Known("demo")).write(&self.0, &self.1, out);
    }
}

/// As `maxStanzaSize` is where the settings do not say anything else.
const LIMIT: usize = 1_024 * 1_024;
