//! Secrets that were replaced, and that are good for a while: until the app has told its server the new one.

use std::time::Duration;

use crate::device::{MAX_SECRET, Time, is_sane};

/// A secret that was replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Former {
    /// Until when it is good.
    pub until: Time,
    /// The secret.
    pub secret: String,
}

/// How the database keeps them: a line for each.
pub(crate) fn to_text(former: &[Former]) -> Option<String> {
    let line = |former: &Former| format!("{} {}", former.until.millis(), former.secret);
    (!former.is_empty()).then(|| former.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Reads what [`to_text`] wrote.
pub(crate) fn from_text(text: Option<&str>) -> Vec<Former> {
    let read = |line: &str| {
        let (until, secret) = line.split_once(' ')?;
        let until = Time(until.parse().ok()?);
        is_sane(secret, MAX_SECRET).then(|| Former {
            until,
            secret: secret.to_owned(),
        })
    };
    text.into_iter()
        .flat_map(str::lines)
        .filter_map(read)
        .take(MOST)
        .collect()
}

/// The former secrets after this one was replaced, too; `None` if there are as many as may be, of which each is good.
pub(crate) fn replace(former: Vec<Former>, secret: String, now: Time) -> Option<Vec<Former>> {
    let mut former: Vec<_> = former.into_iter().filter(|former| former.until > now).collect();
    if former.len() >= MOST {
        return None;
    }
    let until = now.after(GOOD_FOR);
    former.push(Former { until, secret });
    Some(former)
}

/// Of one device: an app that registers at each start does so nine times a day. None is given up before its time, so that
/// nobody can outdate another one's secret by registering again and again.
pub(crate) const MOST: usize = 64;
/// An app starts, and tells its server the new secret, within this time.
const GOOD_FOR: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_good_for_seven_days_after_it_was_replaced() {
        let day = 86_400_000;
        let former = replace(Vec::new(), "first".to_owned(), Time(0)).unwrap();
        let former = replace(former, "second of a client".to_owned(), Time(day)).unwrap();
        let text = to_text(&former);
        assert!(from_text(text.as_deref()) == former);
        assert_eq!(
            former
                .iter()
                .map(|former| former.until.0 / day)
                .collect::<Vec<_>>(),
            [7, 8]
        );
        let former = replace(former, "third".to_owned(), Time(7 * day)).unwrap();
        assert_eq!(former.len(), 2, "the first one is past");
        assert!(to_text(&[]).is_none() && from_text(None).is_empty());
    }

    #[test]
    fn no_good_secret_is_given_up_for_another_one() {
        let mut former = Vec::new();
        for number in 0..MOST {
            former = replace(former, number.to_string(), Time(0)).unwrap();
        }
        assert!(replace(former.clone(), "more".to_owned(), Time(1)).is_none());
        assert!(replace(former, "more".to_owned(), Time(8 * 86_400_000)).is_some());
    }
}
