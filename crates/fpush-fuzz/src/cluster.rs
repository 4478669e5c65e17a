//! What the engine says by which instances share what they know.

use std::time::{Duration, Instant, SystemTime};

use fpush_cluster::fuzz::{claimed, held, info, news};
use fpush_policy::{Claimed, Clocks, News};

use crate::{check_words, split_line};

/// An answer of the engine. The first line says what it is: `info`, `claim` (numbers in decimals, with spaces), `news` (one
/// field in each line), or `held` (a record).
pub(crate) fn engine_answer(input: &[u8]) {
    let (kind, answer) = split_line(input);
    let text = String::from_utf8_lossy(answer);
    match kind {
        b"info" => info(&text).iter().for_each(|words| check_words(words)),
        b"claim" => {
            let numbers: Vec<u64> = text
                .split(' ')
                .filter_map(|number| number.trim().parse().ok())
                .collect();
            if let Some(Claimed::Held(left) | Claimed::Blocked(_, left) | Claimed::Paused(left)) =
                claimed(&numbers)
            {
                assert!(left <= YEAR, "{left:?}");
            }
        }
        b"news" => {
            let fields: Vec<_> = answer.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if let Some(News::Word(_, word)) = news(&fields, NOW) {
                assert!(word.last <= word.age && word.days <= 3, "{word:?}");
            }
        }
        b"held" => {
            let clocks = Clocks {
                now: Instant::now(),
                wall: SystemTime::now(),
            };
            for due in [-1, 0, 5_000, i64::MAX] {
                if let Some(push) = held(due, answer) {
                    assert!(push.record.is_sane() && push.due.is_none_or(|due| due <= YEAR));
                    assert_eq!(push.into_record(clocks).due == 0, due < 0, "{due}");
                }
            }
        }
        _ => {}
    }
}

/// No length of time is longer: times are added to it.
const YEAR: Duration = Duration::from_secs(366 * 86_400);
const NOW: u64 = 1_800_000_000;
