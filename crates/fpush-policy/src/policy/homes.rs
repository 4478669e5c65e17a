//! In which of two lanes a token is at home, where a provider has two: learnt from the pushes that were accepted.

use std::time::Instant;

use fpush_push::{Fingerprint, LaneId};
use serde::{Deserialize, Serialize};

use super::Policy;
use crate::{
    job::{Elsewhere, PushJob},
    recency::Recency,
    verdict::Seconds,
};

/// The tokens that are at home in the second lane. All others are tried in the main one first.
#[derive(Debug)]
pub(super) struct Homes {
    second: Recency<()>,
    changes: u64,
}

/// A token that is at home in the second lane, in a form that can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeRecord {
    token: [u64; 2],
}

impl Homes {
    pub(super) fn new() -> Self {
        Self {
            second: Recency::new(MOST),
            changes: 0,
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

impl<W> Policy<W> {
    /// The lane in which a token is tried first, of a provider that has two: where it last worked.
    #[must_use]
    pub fn home(&self, token: Fingerprint) -> LaneId {
        match self.homes.second.get(token) {
            Some(()) => LaneId::Second,
            None => LaneId::Main,
        }
    }

    /// Whether a token has worked in a lane, and not in the other one since, as far as that is remembered.
    pub(super) fn is_known_home(&self, token: Fingerprint, lane: LaneId, at: Seconds) -> bool {
        self.home(token) == lane && (lane == LaneId::Second || self.guard.is_alive(token, at))
    }

    /// A push was accepted: from now on that is where its token is tried first.
    pub(super) fn learn_home(&mut self, job: &PushJob) {
        let homes = &mut self.homes;
        let has_changed = match (job.elsewhere, job.lane) {
            (_, LaneId::Vendor(_) | LaneId::Origin(_)) | (Elsewhere::Nowhere, LaneId::Second) => false,
            (Elsewhere::Unasked | Elsewhere::Asked { .. }, LaneId::Second) => {
                let before = homes.second.len();
                homes.second.touch(job.token, ());
                homes.second.len() != before || before == MOST as usize
            }
            (_, LaneId::Main) => homes.second.remove(job.token).is_some(),
        };
        homes.changes += u64::from(has_changed);
    }

    /// The registry says that a device's token was at home in the second lane when it last asked there: another instance learnt
    /// it, or what was known here is lost. What is known here is newer.
    pub fn hear_home(&mut self, token: Fingerprint) {
        if self.home(token) == LaneId::Main && self.recent.accepted_at(token).is_none() {
            self.homes.second.touch(token, ());
            self.homes.changes += 1;
        }
    }

    /// A held push of the main lane has turned out to be for another one: there it is tried again.
    pub fn held_moved(&mut self, number: u64, job: &PushJob, now: Instant) {
        let Some(held) = self.held.get_mut(number) else {
            return;
        };
        if held.job.lane == LaneId::Main && job.lane != LaneId::Main {
            (held.job.lane, held.job.elsewhere) = (job.lane, job.elsewhere);
            self.turns.held_out = self.turns.held_out.saturating_sub(1);
            self.outage.held_ended(false, now);
        }
    }

    /// How often something was learnt so far.
    pub(crate) fn home_changes(&self) -> u64 {
        self.homes.changes()
    }

    /// A part of what was learnt, to be written down, and the place of the next part; none after the last one.
    #[must_use]
    pub fn homes(&self, from: usize) -> (Vec<HomeRecord>, Option<usize>) {
        let (part, next) = self.homes.second.part(from, PART);
        let records = part.map(|(token, ())| HomeRecord {
            token: token.to_parts(),
        });
        (records.collect(), next)
    }

    /// Takes what was learnt before the daemon started.
    pub fn remember_homes(&mut self, records: impl IntoIterator<Item = HomeRecord>) {
        for HomeRecord { token } in records {
            self.homes.second.touch(Fingerprint::from_parts(token), ());
        }
    }
}

/// Of more tokens those are forgotten that worked longest ago: each costs a request more. 8 MB.
const MOST: u32 = 250_000;
/// So many records are copied at a time, in a fraction of a millisecond.
const PART: usize = 1_000;
