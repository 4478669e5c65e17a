//! Secrets that were replaced, and that are good for a while: until the app has told its server the new one.

use std::time::Duration;

use crate::{
    text::{MAX_SECRET, is_sane, secret_matches},
    time::Time,
};

/// A secret that was replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Former {
    /// Until when it is good.
    pub until: Time,
    /// Whether a push came with it: some server knows it.
    pub used: bool,
    /// The secret.
    pub secret: String,
}

/// How the database keeps them: a line for each.
pub(crate) fn to_text(former: &[Former]) -> Option<String> {
    let line = |former: &Former| {
        let used = if former.used { USED } else { "" };
        format!("{}{used} {}", former.until.millis(), former.secret)
    };
    (!former.is_empty()).then(|| former.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Reads what [`to_text`] wrote.
pub(crate) fn from_text(text: Option<&str>) -> Vec<Former> {
    let read = |line: &str| {
        let (until, secret) = line.split_once(' ')?;
        let (until, used) = match until.strip_suffix(USED) {
            Some(until) => (until, true),
            None => (until, false),
        };
        let until = Time(until.parse().ok()?);
        is_sane(secret, MAX_SECRET).then(|| Former {
            until,
            used,
            secret: secret.to_owned(),
        })
    };
    text.into_iter()
        .flat_map(str::lines)
        .filter_map(read)
        .take(MOST)
        .collect()
}

/// The one that this secret is, if it is still good.
pub(crate) fn matching<'a>(former: &'a [Former], given: Option<&str>, now: Time) -> Option<&'a Former> {
    former
        .iter()
        .find(|former| former.until > now && secret_matches(former.secret.as_bytes(), given))
}

/// Notes that a push came with a secret. Returns whether that was not known yet.
pub(crate) fn note_use(former: &mut [Former], secret: &str) -> bool {
    let unused = former
        .iter_mut()
        .find(|former| former.secret == secret && !former.used);
    unused.map(|former| former.used = true).is_some()
}

/// The former secrets after this one was replaced, too, or will be. If there are too many the oldest goes of those that no push came
/// with; so nobody can outdate the secret that a server uses by registering again and again.
pub(crate) fn replace(
    former: Vec<Former>,
    secret: String,
    used: bool,
    now: Time,
    most: usize,
) -> Vec<Former> {
    // It may be among them from when it was still the device's.
    let used = used || former.iter().any(|former| former.used && former.secret == secret);
    let mut former: Vec<_> = former
        .into_iter()
        .filter(|former| former.until > now && former.secret != secret)
        .collect();
    if former.len() >= most
        && let Some(least) = (0..former.len()).min_by_key(|&at| (former[at].used, former[at].until))
    {
        former.remove(least);
    }
    former.push(Former {
        until: now.after(GOOD_FOR),
        used,
        secret,
    });
    former
}

/// Of one device: an app that registers at each start does so nine times a day.
pub(crate) const MOST: usize = 64;
/// Of a device that only its owner can register again.
pub(crate) const MOST_OF_OWNER: usize = 8;
/// An app starts, and tells its server the new secret, within this time.
const GOOD_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Behind the time of one that was used.
const USED: &str = "+";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_good_for_seven_days_after_it_was_replaced() {
        let day = 86_400_000;
        let former = replace(Vec::new(), "first".to_owned(), true, Time(0), MOST);
        let former = replace(former, "second of a client".to_owned(), false, Time(day), MOST);
        let text = to_text(&former);
        assert!(from_text(text.as_deref()) == former);
        assert_eq!(
            former
                .iter()
                .map(|former| (former.until.0 / day, former.used))
                .collect::<Vec<_>>(),
            [(7, true), (8, false)]
        );
        let good = |secret, at| matching(&former, Some(secret), Time(at)).is_some();
        assert!(good("first", 7 * day - 1) && !good("first", 7 * day) && !good("fir", 0));
        let former = replace(former, "third".to_owned(), false, Time(7 * day), MOST);
        assert_eq!(former.len(), 2, "the first one is past");
        assert!(to_text(&[]).is_none() && from_text(None).is_empty());
    }

    #[test]
    fn what_a_server_uses_stays_however_often_somebody_registers() {
        let mut former = replace(Vec::new(), "used".to_owned(), true, Time(0), MOST);
        for number in 0..3 * MOST {
            former = replace(former, number.to_string(), false, Time(1), MOST);
        }
        assert_eq!(former.len(), MOST);
        let has = |secret: &str| former.iter().any(|former| former.secret == secret);
        assert!(has("used") && has("191") && has("129") && !has("128"));
        // Of those that are all used, too, there is an end.
        for number in 0..3 * MOST {
            former = replace(former, number.to_string(), true, Time(2), MOST);
        }
        assert_eq!(former.len(), MOST);
    }
}
