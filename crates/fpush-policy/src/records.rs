//! What a module must not forget when the daemon starts again: its block list and what it holds.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_push::{Choice, Class, Ending, Extra, Form, LaneId, Push, Record, Token, TokenHasher};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    blocklist::BlockReason,
    hold::{HeldPush, HeldState},
    job::{PushJob, SenderDomain},
};

/// A block, in a form that can be written down. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    pub(crate) token: [u64; 2],
    pub(crate) reason: BlockReason,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// An acknowledged push, in a form that can be written down. It holds a token: it must be kept where nobody else
/// reads it. What somebody encrypted for the app is not in it. Times are milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    token: String,
    class: Class,
    choice: Choice,
    domain: String,
    /// In milliseconds.
    spacing: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// Whether its device is a registered one.
    registered: bool,
    /// Its node; missing in files of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    due: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    give_up: Option<u64>,
    attempts: u32,
}

impl BlockRecord {
    /// When the block began: blocks are remembered in that order.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl fmt::Debug for HeldRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldRecord")
    }
}

/// The present moment on both clocks, to get from the one to the other.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The clock that never jumps.
    pub now: Instant,
    /// The clock on the wall.
    pub wall: SystemTime,
}

impl Clocks {
    pub(crate) fn to_millis(self, instant: Instant) -> u64 {
        let ahead = as_millis(instant.saturating_duration_since(self.now));
        let behind = as_millis(self.now.saturating_duration_since(instant));
        (self.wall_millis() + ahead).saturating_sub(behind)
    }

    /// An instant that the clock of this machine cannot name, because it had not started then, is as early as possible.
    pub(crate) fn to_instant(self, millis: u64) -> Instant {
        let wall = self.wall_millis();
        if millis >= wall {
            return self.now + Duration::from_millis(millis - wall).min(LONGEST);
        }
        let mut ago = Duration::from_millis(wall - millis);
        loop {
            match self.now.checked_sub(ago) {
                Some(instant) => return instant,
                None => ago /= 2,
            }
        }
    }

    fn wall_millis(self) -> u64 {
        as_millis(
            self.wall
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }
}

impl HeldRecord {
    pub(crate) fn of(held: &HeldPush, clocks: Clocks) -> Self {
        let HeldPush {
            job,
            state: _,
            due,
            give_up,
            attempts,
        } = held;
        let PushJob {
            push,
            token: _,
            lane: _,
            key: _,
            node,
            choice,
            sender,
            spacing,
            record,
        } = &**job;
        let extra = push.extra.as_deref();
        let text = |text: Option<&Arc<str>>| text.map(|text| text.to_string());
        Self {
            token: push.token.as_str().to_owned(),
            class: push.class,
            choice: *choice,
            domain: sender.name.to_string(),
            spacing: as_millis(*spacing),
            account: text(extra.and_then(|extra| extra.account.as_ref())),
            channel: text(extra.and_then(|extra| extra.channel.as_ref())),
            count: push.count,
            registered: record.is_some(),
            node: text(node.as_ref()),
            due: clocks.to_millis(*due),
            give_up: give_up.map(|give_up| clocks.to_millis(give_up)),
            attempts: *attempts,
        }
    }

    /// Whether fpush may have written it: what is read is used like a publish, and never trusted more.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let is_text = |text: &str, longest: usize| {
            !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
        };
        let is_optional = |text: &Option<String>| text.as_ref().is_none_or(|text| is_text(text, 4_096));
        is_text(&self.token, 4_096)
            && is_text(&self.domain, 1_023)
            && is_optional(&self.account)
            && is_optional(&self.channel)
            && is_optional(&self.node)
            && self.spacing <= as_millis(LONGEST)
            && self.attempts <= 1_000_000
    }

    /// Whether its time was over so long ago.
    #[must_use]
    pub fn is_overdue(&self, by: Duration, clocks: Clocks) -> bool {
        self.due.saturating_add(as_millis(by)) < clocks.wall_millis()
    }

    /// The token as it was written down.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The domain that published it.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The push again, to the token in the spelling of its module, with its lane, under this id.
    pub(crate) fn into_held(
        self,
        (token, lane): (Token, LaneId),
        id: Uuid,
        sender: Arc<SenderDomain>,
        hasher: &TokenHasher,
        clocks: Clocks,
    ) -> HeldPush {
        let fingerprint = hasher.fingerprint(token.as_str());
        let extra = Extra {
            account: self.account.map(Arc::from),
            channel: self.channel.map(Arc::from),
            encrypted: None,
            call: false,
        };
        let has_extra = extra.account.is_some() || extra.channel.is_some();
        HeldPush {
            job: Box::new(PushJob {
                push: Push {
                    token,
                    class: self.class,
                    form: Form::Full,
                    extra: has_extra.then(|| Arc::new(extra)),
                    count: self.count,
                    id,
                    deadline: clocks.now,
                },
                token: fingerprint,
                lane,
                key: self
                    .node
                    .as_deref()
                    .map_or(fingerprint, |node| hasher.device(node)),
                node: self.node.map(Arc::from),
                choice: self.choice,
                sender,
                spacing: Duration::from_millis(self.spacing),
                record: self.registered.then(|| Arc::new(Forgotten) as Arc<dyn Record>),
            }),
            state: HeldState::Waiting,
            due: clocks.to_instant(self.due),
            give_up: self.give_up.map(|give_up| clocks.to_instant(give_up)),
            attempts: self.attempts,
        }
    }
}

/// Stands for the record of a device that registered, which is not known any more: nothing may end its registration,
/// because it may have registered anew since.
struct Forgotten;

impl Record for Forgotten {
    fn delivered(&self) {}

    fn failed(&self) {}

    fn gone(&self, _since: Option<u64>) -> Ending {
        Box::pin(async { Ok(false) })
    }
}

/// In milliseconds, and so few that some of them can be added up.
pub(crate) fn as_millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX >> 3)
}

/// What is later than that was written by a clock that was wrong.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_record_is_longer_than_one_of_a_publish() {
        let record = |key: &str, length: usize| {
            let mut record = serde_json::json!({
                "token": "t", "class": "High", "choice": "Named", "domain": "a.example", "spacing": 1,
                "registered": true, "due": 1, "attempts": 0,
            });
            record[key] = "x".repeat(length).into();
            serde_json::from_value::<HeldRecord>(record).unwrap()
        };
        for (key, longest) in [
            ("token", 4_096),
            ("domain", 1_023),
            ("account", 4_096),
            ("channel", 4_096),
            ("node", 4_096),
        ] {
            assert!(record(key, longest).is_sane(), "{key}");
            assert!(
                !record(key, longest + 1).is_sane() && !record(key, 0).is_sane(),
                "{key}"
            );
        }
    }

    #[test]
    fn times_survive_the_way_through_the_clock_on_the_wall() {
        let then = crate::testing::clocks();
        let later = Clocks {
            now: then.now + Duration::from_secs(100),
            wall: then.wall + Duration::from_secs(100),
        };
        for ahead in [0, 50, 1_000] {
            let written = then.to_millis(then.now + Duration::from_secs(ahead));
            let read = later.to_instant(written);
            let expected = then.now + Duration::from_secs(ahead);
            let off = read.max(expected) - read.min(expected);
            assert!(off <= Duration::from_millis(2), "{ahead}: {off:?}");
        }
        assert!(later.to_instant(0) <= later.now, "1970 is before every start");
        assert!(later.to_instant(u64::MAX) <= later.now + LONGEST);
    }
}
