//! All decisions about pushes: functions of a state and the time.
//!
//! Nothing here waits, locks, reads a clock, draws a random number, writes a log or does I/O. The caller, which carries a decision
//! out, hands in what the decision needs. [`Policy`] is the state of one module, and its methods are the events.

mod attempts;
mod block;
mod blocklist;
mod chunks;
mod crowd;
mod fair;
mod health;
mod hold;
mod job;
mod known;
mod limiter;
mod outage;
mod policy;
mod recency;
mod recent;
mod records;
mod relaying;
mod settings;
mod several;
mod shared;
mod shares;
mod spool;
#[cfg(test)]
mod testing;
mod ticks;
mod verdict;
mod view;

pub use attempts::{Answered, Ended, Next, Notice, Tries};
pub use block::BlockReason;
pub use blocklist::{BlockRule, BlocklistSettings};
pub use fair::{Entered, FairQueue, Gate, Passed, Sender, Standing, Ticket};
pub use health::Complaint;
pub use job::{Elsewhere, PushJob, SenderDomain};
pub use known::{KnownDomain, KnownDomains, LastAccepted};
pub use limiter::{RateSlot, RatelimitSettings, Target};
pub use outage::LaneState;
pub use policy::{
    Busy, Confirmed, Decision, Failed, Grant, Held, HeldAttempt, HeldEnd, HoldUntil, HomeRecord, Policy,
    Publish, Remembered, SharedPlace, TakenOver, Turn, Unsent, VerdictPlace,
};
pub use recency::Recency;
pub use recent::{End, Last};
pub use records::{BlockRecord, Clocks, HeldChange, HeldRecord, Recipient};
pub use relaying::{RelayLimits, Relaying};
pub use settings::ModuleSettings;
pub use shared::{
    Change, Claim, Claimed, DeadBlock, HeldNews, News, OwnDeaths, SharedHeld, SharedPush, SharedSlot,
    SharedWord, Wish,
};
pub use verdict::{Condition, LaneChange, VerdictRecord};
pub use view::{Limit, SecondView, TokenState, VendorView, View, Waits};
