//! What is said to the engine and what it says: the one translation of both.

use std::time::Duration;

use fpush_policy::{
    BlockReason, Change, Claimed, HeldRecord, News, OwnDeaths, SharedHeld, SharedPush, SharedSlot, SharedWord,
};
use fpush_push::Fingerprint;
use redis::{Cmd, FromRedisValue as _, Value};
use uuid::Uuid;

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

/// A push that was found: its place, its key, whether its instance was stopped, when it is due and given up, how long ago it
/// came, its record.
pub(crate) type Found = (Vec<u8>, Vec<u8>, bool, i64, i64, u64, Vec<u8>);

/// A push that was found, with an id of its own; `None` if it is none that this version could send.
pub(crate) fn read_found(found: &Found) -> Option<SharedPush> {
    let (_, key, _, due, give_up, age, record) = found;
    let left = |left: i64| Some(Duration::from_millis(u64::try_from(left).ok()?).min(LONGEST));
    let record = serde_json::from_slice::<HeldRecord>(record).ok();
    Some(SharedPush {
        key: fingerprint(key)?,
        id: Uuid::new_v4(),
        due: left(*due),
        give_up: left(*give_up),
        age: Some(Duration::from_millis(*age).min(LONGEST)),
        record: Box::new(record.filter(HeldRecord::is_sane)?),
    })
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
    fn what_no_script_says_is_not_an_answer() {
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

    #[test]
    fn what_this_fpush_would_not_have_written_is_not_taken() {
        let record = br#"{"token":"t","class":"High","choice":"Named","domain":"a.example","spacing":1,"registered":false,
            "due":0,"attempts":0}"#;
        let found = |key: &[u8], record: &[u8]| {
            read_found(&(b"1:1".to_vec(), key.to_vec(), false, -1, 5, 7, record.to_vec()))
        };
        let push = found(&[1; 16], record).unwrap();
        assert_eq!((push.due, push.give_up), (None, Some(Duration::from_millis(5))));
        assert_eq!(found(&[1; 15], record), None);
        assert_eq!(found(&[1; 16], b"{}"), None);
        let of_later = String::from_utf8(record.to_vec())
            .unwrap()
            .replace("High", "Higher");
        assert_eq!(found(&[1; 16], of_later.as_bytes()), None);
    }
}
