//! What a module must not forget when the daemon starts again: its block list and what it holds.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_push::{Choice, Class, Ending, Extra, Fingerprint, Form, LaneId, Push, Record, Token, TokenHasher};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    block::BlockReason,
    hold::HeldPush,
    job::{Elsewhere, PushJob, SenderDomain},
    limiter::Target,
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
    /// The token.
    pub token: String,
    /// Its class.
    pub class: Class,
    /// How its module was found.
    pub choice: Choice,
    /// The domain that published it.
    pub domain: String,
    /// Between two pushes to the device, in milliseconds.
    pub spacing: u64,
    /// Tells the app which of its accounts is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Tells the app which of the account's group chats is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// How many messages wait for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Whether its device is a registered one.
    pub registered: bool,
    /// Its node; missing in files of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Not before then. Zero for one that waits until its provider is back.
    pub due: u64,
    /// When it is given up; missing in files of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up: Option<u64>,
    /// When the newest publish came for which it goes out; missing in files of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
    /// How often it has failed.
    pub attempts: u32,
    /// Names it towards the provider; missing in files of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u128>,
}

/// Whom a push is for that was written down.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The token in the spelling of its module.
    pub token: Token,
    /// What that shares a fate with.
    pub lane: LaneId,
    /// Where else it may be at home.
    pub elsewhere: Elsewhere,
    /// Who published it.
    pub sender: Arc<SenderDomain>,
    /// How long its provider would keep it for the device.
    pub time_to_live: Duration,
}

/// What is to be written down of acknowledged pushes.
#[derive(Debug)]
pub enum HeldChange {
    /// The wall clock has jumped by so many milliseconds: the times of all that is written down move with it, as
    /// [`HeldRecord::jumped`] says.
    Jumped(i64),
    /// It is like this now.
    Put(u64, Box<HeldRecord>),
    /// It is worth something until then at least, in milliseconds since 1970, as [`HeldRecord::extended`] says.
    Extended(u64, u64),
    /// Nothing more is to be done for it.
    Gone(u64),
}

impl HeldChange {
    /// What the change means, for what is held in a map by numbers.
    pub fn apply(self, held: &mut BTreeMap<u64, HeldRecord>) {
        match self {
            Self::Jumped(millis) => held.values_mut().for_each(|record| record.jumped(millis)),
            Self::Put(number, record) => {
                held.insert(number, *record);
            }
            Self::Extended(number, until) => {
                if let Some(record) = held.get_mut(&number) {
                    record.extended(until);
                }
            }
            Self::Gone(number) => {
                held.remove(&number);
            }
        }
    }
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
    /// The wall clock.
    pub wall: SystemTime,
}

impl Clocks {
    /// Rounded once: what happens now is never said to lie ahead.
    pub(crate) fn to_millis(self, instant: Instant) -> u64 {
        let ahead = instant.saturating_duration_since(self.now);
        let behind = self.now.saturating_duration_since(instant);
        as_millis(self.since_1970().saturating_add(ahead).saturating_sub(behind))
    }

    fn since_1970(self) -> Duration {
        self.wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
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

    /// Milliseconds since 1970.
    #[must_use]
    pub fn wall_millis(self) -> u64 {
        as_millis(self.since_1970())
    }
}

impl HeldRecord {
    /// One in the hold queue.
    pub(crate) fn of(held: &HeldPush, millis: impl Fn(Instant) -> u64) -> Self {
        let HeldPush {
            job,
            state: _,
            due,
            expires,
            is_spooled: _,
            attempts,
        } = held;
        let (due, give_up) = (millis(*due).max(1), expires.map(&millis));
        Self {
            due,
            give_up,
            attempts: *attempts,
            ..Self::spooled(job, job.arrived, millis)
        }
    }

    /// One that waits until its provider is back.
    pub(crate) fn spooled(job: &PushJob, expires: Instant, millis: impl Fn(Instant) -> u64) -> Self {
        let PushJob {
            push,
            token: _,
            lane: _,
            elsewhere: _,
            vendor: _,
            key: _,
            node,
            choice,
            sender,
            spacing,
            arrived,
            worth_until: _,
            record,
        } = job;
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
            due: 0,
            give_up: Some(millis(expires)),
            arrived: Some(millis(*arrived)),
            attempts: 0,
            id: Some(push.id.as_u128()),
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

    /// The key and class that it is held for. The token is in the spelling of its module.
    #[must_use]
    pub fn slot_key(&self, token: &str, hasher: &TokenHasher) -> Fingerprint {
        let token = hasher.fingerprint(token);
        let node = self.node.as_deref();
        let target = Target {
            key: node.map_or(token, |node| hasher.device(node)),
            token,
            class: self.class,
        };
        target.slot_key()
    }

    /// It is given up at this time, in milliseconds since 1970, or later.
    pub fn extended(&mut self, until: u64) {
        self.give_up = self.give_up.map(|give_up| give_up.max(until));
    }

    /// Moves its times by so many milliseconds.
    pub fn jumped(&mut self, jump: i64) {
        if self.due > 0 {
            self.due = self.due.saturating_add_signed(jump).max(1);
        }
        self.give_up = self.give_up.map(|give_up| give_up.saturating_add_signed(jump));
        self.arrived = self.arrived.map(|arrived| arrived.saturating_add_signed(jump));
    }

    /// Whether it waits until its provider is back: that was known to be away, or could not take it, and the time of the next attempt
    /// has come meanwhile. What has waited for its window goes out as it would have gone out then.
    pub(crate) fn is_spooled(&self, clocks: Clocks) -> bool {
        self.due == 0 || self.attempts > 0 && self.due <= clocks.wall_millis()
    }

    /// When it is given up, of what is held for so long, and worth something for so long. However long nobody ran, it is
    /// tried once more, unless it waited until its provider is back, and is worth nothing by now. The clock may have been
    /// wrong when it was written, and the settings may say less now.
    pub(crate) fn expires(&self, hold_for: Duration, time_to_live: Duration, clocks: Clocks) -> Instant {
        let longest = hold_for.max(HELD_PATIENCE);
        let due = clocks
            .to_instant(self.due)
            .clamp(clocks.now, clocks.now + longest);
        let latest = due + longest;
        let once_more = clocks.now + HELD_PATIENCE;
        let Some(millis) = self.give_up else {
            return latest;
        };
        let give_up = clocks.to_instant(millis);
        let is_absurd = clocks.wall_millis().abs_diff(millis) > as_millis(LONGEST);
        let worth_until = if self.due > 0 || is_absurd {
            once_more
        } else {
            // It was held for the shorter one of the two.
            give_up + time_to_live.saturating_sub(hold_for).min(LONGEST)
        };
        give_up.min(latest).max(worth_until.min(once_more))
    }

    /// The push again.
    pub(crate) fn into_job(self, recipient: Recipient, hasher: &TokenHasher, clocks: Clocks) -> Box<PushJob> {
        let Recipient {
            token,
            lane,
            elsewhere,
            sender,
            ..
        } = recipient;
        let fingerprint = hasher.fingerprint(token.as_str());
        let extra = Extra {
            account: self.account.map(Arc::from),
            channel: self.channel.map(Arc::from),
            encrypted: None,
            call: false,
        };
        let has_extra = extra.account.is_some() || extra.channel.is_some();
        Box::new(PushJob {
            push: Push {
                token,
                class: self.class,
                form: Form::Full,
                extra: has_extra.then(|| Arc::new(extra)),
                notification: None,
                count: self.count,
                id: self.id.map_or_else(Uuid::new_v4, Uuid::from_u128),
                deadline: clocks.now,
            },
            token: fingerprint,
            lane,
            elsewhere,
            vendor: None,
            key: self
                .node
                .as_deref()
                .map_or(fingerprint, |node| hasher.device(node)),
            node: self.node.map(Arc::from),
            choice: self.choice,
            sender,
            spacing: Duration::from_millis(self.spacing),
            arrived: self
                .arrived
                .map_or(clocks.now, |arrived| clocks.to_instant(arrived).min(clocks.now)),
            worth_until: None,
            record: self.registered.then(|| Arc::new(Forgotten) as Arc<dyn Record>),
        })
    }
}

/// Stands for the record of a device that registered, which is not known any more: nothing may end its registration,
/// because it may have registered anew since.
struct Forgotten;

impl Record for Forgotten {
    fn delivered(&self, _lane: LaneId) {}

    fn failed(&self) {}

    fn gone(&self, _since: Option<u64>) -> Ending {
        Box::pin(async { Ok(false) })
    }
}

/// In milliseconds, and so few that some of them can be added up.
pub(crate) fn as_millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX >> 3)
}

/// An acknowledged push is tried for this long at least.
pub(crate) const HELD_PATIENCE: Duration = Duration::from_secs(600);
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
    fn times_survive_the_way_through_the_wall_clock() {
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
        // A tenth of a millisecond before the next one, and a tenth after that.
        let edge = Clocks {
            now: then.now,
            wall: SystemTime::UNIX_EPOCH + Duration::from_micros(5_900),
        };
        assert_eq!(edge.to_millis(then.now + Duration::from_micros(200)), 6);
        assert!(later.to_instant(0) <= later.now, "1970 is before every start");
        assert!(later.to_instant(u64::MAX) <= later.now + LONGEST);
    }
}
