//! What is said to the engine and what it says: the one translation of both.

use std::time::Duration;

use fpush_policy::{BlockReason, Change, Claimed, News, OwnDeaths, SharedHeld, SharedSlot, SharedWord};
use fpush_push::Fingerprint;
use redis::{Cmd, FromRedisValue as _, Value};

/// What the engine says to a claim; `None` for what no version of the script says.
pub(crate) fn read_claimed(answer: &[u64]) -> Option<Claimed> {
    let time = |millis: &u64| Duration::from_millis(*millis).min(LONGEST);
    Some(match answer {
        [0, end, covers] => Claimed::Free {
            slot: (*end > 0).then_some(SharedSlot(*end)),
            covers: (*covers > 0).then_some(SharedHeld(*covers)),
        },
        [5] => Claimed::Taken,
        [1, left] => Claimed::Held(time(left)),
        [2] => Claimed::Queued,
        [3, left, reason] => Claimed::Blocked(reason_of(*reason)?, time(left)),
        [4, left] => Claimed::Paused(time(left)),
        _ => return None,
    })
}

pub(crate) fn read_news(fields: &[Vec<u8>], us: &str, second: u64) -> Option<News> {
    match fields {
        [_, from, ..] if from == us.as_bytes() => None,
        [_, _, _, token] => Some(News::Unblock(fingerprint(token)?)),
        [_, _, _, token, _, score] => {
            let score = std::str::from_utf8(score).ok()?.parse().ok()?;
            Some(News::Word(fingerprint(token)?, unpack(score, second)))
        }
        _ => None,
    }
}

/// As the script packs a word.
pub(crate) fn unpack(score: u64, second: u64) -> SharedWord {
    let (beyond_doubt, score) = (score % 2 == 1, score / 2);
    let (days, score) = (score % 4, score / 4);
    let (at, day) = (score & 0xffff_ffff, score >> 32);
    let ago = |then: u64| u32::try_from(second.saturating_sub(then)).unwrap_or(u32::MAX);
    SharedWord {
        age: ago(at),
        last: ago((day + 1) * 86_400 - 1).min(ago(at)),
        days: days as u16,
        beyond_doubt,
    }
}

/// What the script reads for one change: what, of which token or key, three numbers.
pub(crate) fn write(command: &mut Cmd, change: &Change) {
    let (what, member, [a, b, c]) = match *change {
        Change::GiveBack(key, SharedSlot(end)) => ("g", Some(key), [end, 0, 0]),
        Change::Cover(key, SharedHeld(count)) => ("c", Some(key), [count, 0, 0]),
        Change::Window(key, left) => ("w", Some(key), [millis(left), 0, 0]),
        Change::Queue(key, left) => ("q", Some(key), [millis(left), 0, 0]),
        Change::Unqueue(key) => ("u", Some(key), [0; 3]),
        Change::Block(token, reason, left) => ("b", Some(token), [millis(left), number_of(reason), 0]),
        Change::Unblock(token) => ("x", Some(token), [0; 3]),
        Change::Word(token, word) => {
            let SharedWord {
                age,
                last,
                days,
                beyond_doubt,
            } = word;
            let packed = u64::from(days.min(3)) * 2 + u64::from(beyond_doubt);
            ("v", Some(token), [age.into(), last.into(), packed])
        }
        Change::Deaths(deaths) => {
            let OwnDeaths {
                lane,
                count,
                version,
                calm,
            } = deaths;
            let packed = u64::from(lane) * 2 + u64::from(calm);
            ("d", None, [count.into(), version, packed])
        }
        Change::Silence(token, left) => ("s", Some(token), [millis(left), 0, 0]),
        Change::Pause(left) => ("p", None, [millis(left).max(1), 0, 0]),
        Change::Resume => ("r", None, [0; 3]),
    };
    command
        .arg(what)
        .arg(member.map_or_else(Vec::new, |key| bytes(key).to_vec()));
    command.arg(a).arg(b).arg(c);
}

pub(crate) fn number_of(reason: BlockReason) -> u64 {
    match reason {
        BlockReason::Dead => 0,
        BlockReason::Unexplained => 1,
        BlockReason::Doubted => 2,
    }
}

pub(crate) fn reason_of(number: u64) -> Option<BlockReason> {
    [BlockReason::Dead, BlockReason::Unexplained, BlockReason::Doubted]
        .into_iter()
        .find(|reason| number_of(*reason) == number)
}

pub(crate) fn bytes(fingerprint: Fingerprint) -> [u8; 16] {
    let [first, second] = fingerprint.to_parts().map(u64::to_be_bytes);
    std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
}

pub(crate) fn fingerprint(bytes: &[u8]) -> Option<Fingerprint> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    Some(Fingerprint::from_parts([(number >> 64) as u64, number as u64]))
}

pub(crate) fn millis(time: Duration) -> u64 {
    time.min(LONGEST).as_millis() as u64
}

/// Members and scores, however the protocol brings them.
pub(crate) fn pairs(value: Value) -> redis::RedisResult<Vec<(Vec<u8>, u64)>> {
    let pairs = Vec::<(Vec<u8>, f64)>::from_redis_value(value)?;
    Ok(pairs
        .into_iter()
        .map(|(member, score)| (member, score as u64))
        .collect())
}

/// No time in the engine is longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_comes_back_from_its_bytes() {
        let before = Fingerprint::from_parts([1 << 63 | 5, 77]);
        assert_eq!(fingerprint(&bytes(before)), Some(before));
        assert_eq!(fingerprint(b"short"), None);
    }

    #[test]
    fn what_no_script_says_is_no_answer() {
        let free = |slot, covers| Some(Claimed::Free { slot, covers });
        assert_eq!(read_claimed(&[0, 7, 0]), free(Some(SharedSlot(7)), None));
        assert_eq!(read_claimed(&[0, 0, 3]), free(None, Some(SharedHeld(3))));
        assert_eq!(
            read_claimed(&[3, 7, 2]),
            Some(Claimed::Blocked(BlockReason::Doubted, Duration::from_millis(7)))
        );
        for strange in [&[][..], &[6], &[0, 1], &[1], &[3, 1, 3], &[2, 2]] {
            assert_eq!(read_claimed(strange), None, "{strange:?}");
        }
    }
}
