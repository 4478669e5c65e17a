//! Wrong secrets: how many somebody may try. The right one always passes.

use std::time::Duration;

use tokio::time::Instant;

use crate::{device::share_of, throttle::Throttle};

/// Counts the wrong secrets of senders: bare JIDs, domains, or addresses.
pub(crate) struct WrongSecrets(Throttle);

impl Default for WrongSecrets {
    fn default() -> Self {
        Self(Throttle::new(Duration::from_secs(60)))
    }
}

impl WrongSecrets {
    /// Whether the share of a sender has not sent too many: for this node, or for all.
    pub(crate) fn may_try(&self, node: &str, sender: &str, now: Instant) -> bool {
        let sender = share_of(Some(sender));
        self.0.would_allow(&sender, OF_SENDER, now) && self.0.would_allow((node, &sender), FOR_NODE, now)
    }

    /// Counts one.
    pub(crate) fn count(&self, node: &str, sender: &str, now: Instant) {
        let sender = share_of(Some(sender));
        // A sender over its limit is not counted for further nodes: invented nodes would push out the counts of others.
        if self.0.allows(&sender, OF_SENDER, now) {
            self.0.allows((node, &sender), FOR_NODE, now);
        }
    }
}

/// Of one sender in a minute.
const OF_SENDER: u32 = 600;
/// Of one sender for one node in a minute.
const FOR_NODE: u32 = 12;
