//! What is known of a database's past: whether it is the one that it was, and whether it still knows what it knew.
//!
//! A node with a tombstone is answered as one that is gone for good, and its server forgets it. That is right only if
//! nothing that came after the tombstone is lost. So each change of the devices has a number and a random mark, and
//! an instance that remembers the last one can tell a backup that was restored, a copy that went another way, and another
//! database from the one that it knew. An instance that remembers nothing cannot tell: it begins a past of its own, and
//! only tombstones that came after its beginning count.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The last change of a database that somebody has seen, to be remembered outside of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The database's id.
    pub database: String,
    /// The number of the change.
    pub change: i64,
    /// Its mark.
    pub mark: String,
    /// How many devices there were after it.
    pub devices: i64,
    /// When it was seen, in milliseconds since 1970.
    pub seen: i64,
    /// When an operator accepted a database, of the acceptances that were seen, by a clock that may have been ahead. 0 if none
    /// was.
    #[serde(default)]
    pub accepted: i64,
    /// The tombstones of later changes count: nothing that came after them can be lost without being noticed. Where that was
    /// not noted nothing else was either: tombstones of that time have no number.
    #[serde(default)]
    pub since: i64,
}

impl Known {
    /// Whether no device has ever been registered in the database.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.change == FIRST_CHANGE && self.devices == 0
    }
}

/// The number of the state of a database in which nothing has changed yet.
pub(crate) const FIRST_CHANGE: i64 = 1;

/// What a database says of its past.
#[derive(Clone)]
pub(crate) struct Look {
    /// As for somebody who knew nothing of it.
    pub(crate) known: Known,
    pub(crate) accepted: Option<Accepted>,
}

/// An operator has said that this is the right database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// In milliseconds since 1970.
    pub(crate) at: i64,
    /// Its number among the changes.
    pub(crate) change: i64,
}

impl Accepted {
    pub(crate) fn to_text(self) -> String {
        format!("{} {}", self.at, self.change)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (at, change) = text.split_once(' ')?;
        Some(Self {
            at: at.parse().ok()?,
            change: change.parse().ok()?,
        })
    }
}

/// Why a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The provider declared the token dead.
    Dead,
    /// The owner wanted it.
    Unregistered,
    /// Nobody used it.
    Expired,
    /// The operator removed it.
    Removed,
}

impl Ended {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Unregistered => "unregistered",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

/// Why a database is not believed when it says that a device is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is another one than the one that fpush knew, which had so many devices.
    Other {
        /// Devices that fpush knew.
        devices: i64,
    },
    /// It has forgotten changes that fpush knew: a backup was restored.
    Older {
        /// Devices that fpush knew.
        devices: i64,
    },
    /// Devices are missing that fpush has not removed.
    Fewer {
        /// How many.
        missing: i64,
    },
}

/// What happened and what to do, in words.
impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { devices } => write!(
                f,
                "this is another database than the one that fpush knew, which had {devices} registered devices"
            ),
            Self::Older { devices } => write!(
                f,
                "the database does not know what it knew before: an older copy was restored, as likely as not, after fpush had \
                 known {devices} registered devices"
            ),
            Self::Fewer { missing } => write!(
                f,
                "registered devices are missing in the database ({missing}), and fpush has not removed them"
            ),
        }?;
        f.write_str(
            "; unknown devices are answered wait, and none is unregistered meanwhile. Correct registration.store, or if this \
             is the right database: fpush devices accept SETTINGS",
        )
    }
}

/// What a look at a database says of what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// It is the database that was known, or was accepted.
    Known(Known),
    /// Nothing was known of it.
    Unknown,
    /// It is not believed.
    Doubted(Doubt),
}

/// Compares a database with what was known of it. `mark` is the one that the known change has there, `counted` how many
/// devices there are, if they were counted.
pub(crate) fn compare(known: Option<&Known>, look: &Look, mark: Option<&str>, counted: Option<i64>) -> Past {
    let present = &look.known;
    let missing = present.devices - counted.unwrap_or(present.devices);
    let fewer = (missing > 0).then_some(Past::Doubted(Doubt::Fewer { missing }));
    let Some(known) = known else {
        return fewer.unwrap_or(Past::Unknown);
    };
    let believed = |since| {
        Past::Known(Known {
            since,
            ..present.clone()
        })
    };
    // The whole machine may have been put back to what it was then: who ended before may have registered again since.
    let is_long_ago = present.seen.saturating_sub(known.seen) > LONG_AGO;
    let since = if is_long_ago { present.change } else { known.since };
    // What was known before an operator accepted the database counts no more: neither against it nor for its tombstones.
    if let Some(accepted) = look
        .accepted
        .filter(|accepted| accepted.at > known.seen.max(known.accepted))
    {
        return fewer.unwrap_or_else(|| believed(accepted.change));
    }
    let devices = known.devices;
    if known.database != present.database {
        return Past::Doubted(Doubt::Other { devices });
    }
    let forgotten = match mark {
        Some(mark) => mark != known.mark,
        // A change that was so long ago that its mark is forgotten is not a reason for doubt.
        None => present.change < known.change,
    };
    if forgotten {
        return Past::Doubted(Doubt::Older { devices });
    }
    fewer.unwrap_or_else(|| believed(since))
}

/// In milliseconds. A start after an update takes less, and what is known is written down more often ([`Known::seen`]).
const LONG_AGO: i64 = 3_600_000;

/// Whether a registry is believed when it says that a device is gone.
#[derive(Clone, Debug, Default)]
pub(crate) enum DatabaseTrust {
    /// The database was not there to be asked yet.
    #[default]
    Unasked,
    /// It is the database that it was, up to this change at least.
    Good(Known),
    /// It is not.
    Doubted(Doubt),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(database: &str, change: i64, mark: &str) -> Known {
        Known {
            database: database.to_owned(),
            change,
            mark: mark.to_owned(),
            devices: 5,
            seen: 100,
            accepted: 0,
            since: 2,
        }
    }

    /// A look at a database that has 5 devices, and was accepted in change 4 at this time.
    fn look(database: &str, change: i64, mark: &str, accepted: i64) -> Look {
        Look {
            known: Known {
                since: change,
                accepted,
                ..known(database, change, mark)
            },
            accepted: Some(Accepted {
                at: accepted,
                change: 4,
            }),
        }
    }

    #[test]
    fn a_database_is_doubted_if_it_does_not_know_what_it_knew() {
        let present = look("a", 7, "m7", 100);
        let is = |before: Option<&Known>, mark, counted| compare(before, &present, mark, counted);
        let good = Past::Known(Known {
            accepted: 100,
            ..known("a", 7, "m7")
        });
        assert_eq!(is(None, None, None), Past::Unknown);
        assert_eq!(is(Some(&known("a", 7, "m7")), Some("m7"), Some(5)), good);
        assert_eq!(
            is(Some(&known("a", 3, "m3")), Some("m3"), Some(5)),
            good,
            "it went on"
        );
        assert_eq!(
            is(Some(&known("a", 3, "m3")), None, Some(5)),
            good,
            "that is long ago"
        );
        let older = Past::Doubted(Doubt::Older { devices: 5 });
        assert_eq!(is(Some(&known("a", 9, "m9")), None, Some(5)), older);
        assert_eq!(
            is(Some(&known("a", 6, "m6")), Some("another"), None),
            older,
            "it went another way"
        );
        assert_eq!(
            is(Some(&known("b", 1, "m1")), Some("m1"), None),
            Past::Doubted(Doubt::Other { devices: 5 })
        );
        let fewer = Past::Doubted(Doubt::Fewer { missing: 2 });
        assert_eq!(is(None, None, Some(3)), fewer);
        assert_eq!(is(Some(&known("a", 7, "m7")), Some("m7"), Some(3)), fewer);
        assert_eq!(is(None, None, Some(6)), Past::Unknown);
    }

    /// A machine with database and state directory was put back: each knows what the other one does.
    #[test]
    fn what_ended_before_nobody_looked_for_more_than_an_hour_counts_no_more() {
        for (minutes, since) in [(59, 2), (60, 2), (61, 7), (60 * 24 * 400, 7)] {
            let mut present = look("a", 7, "m7", 0);
            present.known.seen += minutes * 60_000;
            let before = known("a", 7, "m7");
            let Past::Known(believed) = compare(Some(&before), &present, Some("m7"), Some(5)) else {
                panic!("it is the database that it was");
            };
            assert_eq!(believed.since, since, "{minutes}");
        }
    }

    #[test]
    fn of_a_database_that_was_accepted_what_came_after_that_counts() {
        let accepted = look("a", 7, "m7", 101);
        let believed = Past::Known(Known {
            since: 4,
            accepted: 101,
            ..known("a", 7, "m7")
        });
        for before in [known("b", 9, "m9"), known("a", 9, "m9"), known("a", 3, "m3")] {
            assert_eq!(compare(Some(&before), &accepted, None, Some(5)), believed);
        }
        assert_eq!(
            compare(Some(&known("b", 9, "m9")), &accepted, None, Some(4)),
            Past::Doubted(Doubt::Fewer { missing: 1 }),
            "more of them have gone since"
        );
        let text = accepted.accepted.unwrap().to_text();
        assert_eq!(Accepted::from_text(&text), accepted.accepted);
        assert_eq!(Accepted::from_text("101"), None);
    }
}
