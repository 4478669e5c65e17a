//! The readers of what an engine says, for the fuzz targets, and for nobody else: nothing here is part of the interface.

use fpush_policy::{Claimed, News, SharedPush};

use crate::{report::Report, wire};

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
    wire::read_claimed(answer)
}

/// What is made of an entry of the news, at this second.
#[must_use]
pub fn news(fields: &[Vec<u8>], second: u64) -> Option<News> {
    wire::read_news(fields, "us", second)
}

/// What is made of a held push that was taken over, due in so many milliseconds.
#[must_use]
pub fn held(due: i64, record: &[u8]) -> Option<SharedPush> {
    wire::read_found(&(
        Vec::new(),
        vec![0; 16],
        false,
        due,
        due,
        due.unsigned_abs(),
        record.to_vec(),
    ))
}
