//! What waits to be written: bounded, and served in turns, so that nobody's registrations keep those of others away.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Mutex,
    time::Duration,
};

use fpush_policy::{Entered, FairQueue, Sender, Standing, Ticket};
use fpush_push::{Unavailable, sync::lock};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use crate::{
    change::{Change, Done, Job},
    error::RegisterError,
};

/// Who wants something written.
pub(crate) enum Origin<'a> {
    /// A stranger of this share, and of this name.
    Stranger { share: &'a str, name: &'a str },
    /// A share that the operator trusts, and a name in it.
    Trusted { share: &'a str, name: &'a str },
    /// We ourselves, or the operator.
    Own,
}

/// What waits to be written.
pub(crate) struct Jobs {
    waiting: Mutex<FairQueue<u64, Job>>,
    arrived: Notify,
    /// Names are chosen by strangers: the hash has a key.
    hasher: RandomState,
}

/// A job that waits, and leaves when this is dropped.
struct Waiting<'a> {
    jobs: &'a Jobs,
    ticket: Ticket<u64>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(FairQueue::new(PLACES)),
            arrived: Notify::new(),
            hasher: RandomState::new(),
        }
    }
}

impl Jobs {
    /// Has something written; waits until it is on disk, for 5 s.
    pub(crate) async fn write(&self, origin: Origin<'_>, change: Change) -> Result<Done, RegisterError> {
        let (reply, done) = oneshot::channel();
        let _waiting = self
            .enter(&origin, Job { change, reply })
            .ok_or(RegisterError::TooMany)?;
        match timeout(PATIENCE, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Unavailable.into()),
        }
    }

    fn enter(&self, origin: &Origin<'_>, job: Job) -> Option<Waiting<'_>> {
        let (share, name, standing) = match origin {
            Origin::Stranger { share, name } => (*share, *name, Standing::Unknown),
            Origin::Trusted { share, name } => (*share, *name, Standing::Known),
            Origin::Own => ("", "", Standing::Known),
        };
        let sender = Sender {
            share: self.hasher.hash_one(share),
            name: self.hasher.hash_one(name),
            standing,
        };
        let entered = lock(&self.waiting).enter(sender, job);
        let ticket = match entered {
            Entered::Waiting(ticket) => ticket,
            Entered::Displacing(ticket, displaced) => {
                displaced.answer(Err(RegisterError::TooMany));
                ticket
            }
            Entered::Full(_) => return None,
        };
        self.arrived.notify_one();
        Some(Waiting { jobs: self, ticket })
    }

    /// Returns when something waits. Only one may wait for that.
    pub(crate) async fn until_any(&self) {
        while self.is_empty() {
            self.arrived.notified().await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.waiting).is_empty()
    }

    /// Takes out whose turn it is.
    pub(crate) fn next(&self) -> Option<Job> {
        lock(&self.waiting).serve()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        drop(lock(&self.jobs.waiting).leave(&self.ticket));
    }
}

/// Changes that may wait. Those of strangers have half of the places at most.
const PLACES: usize = 4_096;
/// How long a change may take until it is on disk.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(node: &str) -> (Job, oneshot::Receiver<Result<Done, RegisterError>>) {
        let (reply, done) = oneshot::channel();
        let change = Change::Remove {
            node: node.to_owned(),
        };
        (Job { change, reply }, done)
    }

    #[tokio::test]
    async fn a_share_with_many_names_leaves_places_and_turns_to_others() {
        let jobs = Jobs::default();
        let mut flood = Vec::new();
        for number in 0..2 * PLACES {
            let (job, done) = removal("flood");
            let name = format!("u{number}@x{number}.flood.org");
            let origin = Origin::Stranger {
                share: "flood.org",
                name: &name,
            };
            flood.extend(jobs.enter(&origin, job).map(|waiting| (waiting, done)));
        }
        assert_eq!(flood.len(), PLACES / 2);
        let mut others = Vec::new();
        for share in ["one.org", "two.org"] {
            let (job, done) = removal(share);
            let origin = Origin::Stranger { share, name: "a@b" };
            others.push((jobs.enter(&origin, job).unwrap(), done));
        }
        let displaced = flood.iter_mut().filter_map(|(_, done)| done.try_recv().ok());
        let displaced: Vec<_> = displaced.map(Result::err).collect();
        assert_eq!(displaced, [Some(RegisterError::TooMany); 2]);
        let node = |job: Job| match job.change {
            Change::Remove { node } => node,
            _ => panic!("not a removal"),
        };
        let first: Vec<_> = std::iter::from_fn(|| jobs.next()).take(4).map(node).collect();
        assert_eq!(first, ["flood", "one.org", "two.org", "flood"]);
        // Who no longer waits takes up no place.
        drop((flood, others));
        assert!(jobs.next().is_none());
    }
}
