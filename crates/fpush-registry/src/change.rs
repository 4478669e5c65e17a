//! What is to be written, and what came of it.

use std::{ops::AddAssign, sync::Arc};

use tokio::sync::oneshot;

use crate::{device::Device, error::RegisterError, rules::Claim, time::Time};

/// Something to be written, and the sender of its result.
pub(crate) struct Job {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<Done, RegisterError>>,
}

/// Something to be written.
pub(crate) enum Change {
    /// A device registers.
    Register {
        claim: Claim,
        voip_token: Option<String>,
    },
    /// A device is to be forgotten, if the sender has the right to.
    Unregister { claim: Claim },
    /// The provider says that a token was dead before then.
    Dead {
        node: String,
        token: String,
        before: Time,
    },
    /// Devices from elsewhere, from one of them on: as many of them as there is time for.
    Import { devices: Arc<[Device]>, first: usize },
    /// A device is to be forgotten; its owner does not matter.
    Remove { node: String },
    /// The operator says that this is the right database.
    Accept,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Devices that were not there.
    pub added: usize,
    /// Devices in whose place a later registration came.
    pub changed: usize,
    /// Devices that were there already, as they are or later ones.
    pub unchanged: usize,
}

/// What was written.
pub(crate) enum Done {
    /// The device that was registered or removed, and whether it is a new one.
    Device {
        device: Box<Device>,
        is_new: bool,
    },
    Imported(Imported),
    /// Whether there was something to remove.
    Removed(bool),
    /// How many devices are in the database that was accepted.
    Accepted(u64),
}

impl Imported {
    /// How many devices that were in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.added + self.changed + self.unchanged
    }
}

impl AddAssign for Imported {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
    }
}

impl Job {
    /// Whether the sender still waits for the result. One that gave up was told that it failed.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }

    pub(crate) fn answer(self, result: Result<Done, RegisterError>) {
        drop(self.reply.send(result));
    }
}
