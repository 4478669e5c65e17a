//! What was known before the daemon started again.

use std::sync::Arc;

use fpush_policy::{BlockRecord, Clocks, HeldRecord, HomeRecord, Recipient, Remembered, VerdictRecord};
use fpush_push::{Outcome, Token};

use super::Module;
use crate::HeldStore;

impl Module {
    /// From now on what is held is written down there.
    /// No number from `free` on is taken there.
    pub fn keep_in(&self, store: Arc<dyn HeldStore>, free: u64) {
        let mut state = self.lock();
        state.policy.begin_noting(free);
        state.store = Some(store);
    }

    /// Takes what was written down of the block list and of the provider's words before the daemon started again.
    pub fn remember(
        &self,
        blocks: impl IntoIterator<Item = BlockRecord>,
        verdicts: impl IntoIterator<Item = VerdictRecord>,
        clocks: Clocks,
    ) {
        self.lock().policy.remember(blocks, verdicts, clocks);
    }

    /// Takes what was learnt of where tokens are at home before the daemon started again.
    pub fn remember_homes(&self, homes: impl IntoIterator<Item = HomeRecord>) {
        self.lock().policy.remember_homes(homes);
    }

    /// Takes a push that was written down before the daemon started again, under its number. It goes out when its time has
    /// come. Returns whether it is held.
    pub fn remember_held(&self, number: u64, record: HeldRecord, clocks: Clocks) -> bool {
        // The settings may have changed since, and the file too.
        let Some(recipient) = self.recipient(&record) else {
            self.lose(self.fingerprint(record.token()), Outcome::TokenInvalid);
            return false;
        };
        let fingerprint = self.fingerprint(recipient.token.as_str());
        let hasher = self.senders.hasher();
        let mut state = self.lock();
        let remembered = state
            .policy
            .remember_held(number, record, recipient, hasher, clocks);
        drop(state);
        match remembered {
            Remembered::Held => return true,
            Remembered::Full => self.lose(fingerprint, Outcome::Overloaded),
            Remembered::Expired => self.lose(fingerprint, Outcome::ProviderUnavailable),
        }
        false
    }

    /// All that was written down is there.
    pub fn has_remembered(&self) {
        self.lane.wake.notify_one();
    }

    /// Whom a push is for that was written down. `None` if its token cannot be one.
    pub(super) fn recipient(&self, record: &HeldRecord) -> Option<Recipient> {
        let backend = self.backend();
        let token = backend.canonical(record.token())?;
        let fingerprint = self.fingerprint(&token);
        let (lane, elsewhere) = self.lock().lanes_of(&token, fingerprint, self.senders.hasher());
        Some(Recipient {
            lane,
            elsewhere,
            token: Token::new(&token),
            sender: self.senders.domain(record.domain()),
            time_to_live: backend.time_to_live(record.class),
        })
    }
}
