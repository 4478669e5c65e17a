//! The readers of what an engine says, for the fuzz targets, and for nobody else: nothing here is part of the interface.

use fpush_policy::{Claimed, News};

use crate::{lane, report::Report};

/// What is made of an answer to `INFO`: the words about it.
#[must_use]
pub fn info(text: &str) -> Vec<String> {
    match Report::read(text).usable() {
        Ok(concerns) => concerns,
        Err(trouble) => vec![trouble.to_string()],
    }
}

/// What is made of the numbers that a claim is answered with.
#[must_use]
pub fn claimed(answer: &[u64]) -> Option<Claimed> {
    lane::read_claimed(answer)
}

/// What is made of an entry of the news, at this second.
#[must_use]
pub fn news(fields: &[Vec<u8>], second: u64) -> Option<News> {
    lane::read_news(fields, "us", second)
}
