//! Who has a form open, and who has sent how many commands: functions of a state and the time.

use fpush_policy::{Recency, Sender, Standing};
use fpush_push::Fingerprint;
use tokio::time::{Duration, Instant};

use super::Trial;

/// The sessions of commands with a form, and how often users and their domains have sent a command.
#[derive(Debug)]
pub(super) struct Sessions {
    /// By the hash of their ids.
    open: Recency<Session>,
    users: Recency<Count>,
    /// By registrable domain.
    shares: Recency<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    /// The whole address of who began it.
    owner: Fingerprint,
    trial: Trial,
    expires: Instant,
}

/// Commands in a span of time.
#[derive(Clone, Copy, Debug)]
struct Count {
    began: Instant,
    number: u32,
}

/// Why a session is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSession {
    /// It was never there, or is another one's.
    Unknown,
    /// Its time is over.
    Expired,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            open: Recency::new(MOST_SESSIONS),
            users: Recency::new(MOST_COUNTED),
            shares: Recency::new(MOST_COUNTED),
        }
    }

    /// Counts a command of a user whose domain is this sender; returns whether those are not too many.
    pub(super) fn admit(&mut self, user: Fingerprint, sender: &Sender<Fingerprint>, now: Instant) -> bool {
        let most = match sender.standing {
            Standing::Known => OF_KNOWN_DOMAIN,
            Standing::Unknown => OF_UNKNOWN_DOMAIN,
        };
        // What is refused to one user is not the others' loss.
        count(&mut self.users, user, OF_USER, now) && count(&mut self.shares, sender.share, most, now)
    }

    /// Begins a session. Where there is no room, the oldest one ends.
    pub(super) fn begin(&mut self, id: Fingerprint, owner: Fingerprint, trial: Trial, now: Instant) {
        let session = Session {
            owner,
            trial,
            expires: now + PATIENCE,
        };
        self.open.touch(id, session);
    }

    /// Looks whether a session is this sender's, for this command.
    pub(super) fn look(
        &mut self,
        id: Fingerprint,
        owner: Fingerprint,
        trial: Trial,
        now: Instant,
    ) -> Result<(), NoSession> {
        let is_own = |session: &&Session| session.owner == owner && session.trial == trial;
        let session = self.open.get(id).filter(is_own).ok_or(NoSession::Unknown)?;
        if now < session.expires {
            return Ok(());
        }
        self.open.remove(id);
        Err(NoSession::Expired)
    }

    /// Ends a session.
    pub(super) fn end(&mut self, id: Fingerprint) {
        self.open.remove(id);
    }
}

/// Counts one more, and returns whether those are not too many.
fn count(counts: &mut Recency<Count>, who: Fingerprint, most: u32, now: Instant) -> bool {
    let before = counts
        .get(who)
        .filter(|count| now.saturating_duration_since(count.began) < SPAN);
    let Count { began, number } = before.copied().unwrap_or(Count {
        began: now,
        number: 0,
    });
    let number = number.saturating_add(1);
    counts.touch(who, Count { began, number });
    number <= most
}

/// A form may be open for so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Some hundred bytes each.
const MOST_SESSIONS: u32 = 10_000;
/// In which commands are counted.
const SPAN: Duration = Duration::from_secs(60);
/// Commands of a bare JID.
const OF_USER: u32 = 30;
/// Commands of a registrable domain of which a push was accepted lately.
const OF_KNOWN_DOMAIN: u32 = 300;
/// Of another one: it may have been made for the purpose.
const OF_UNKNOWN_DOMAIN: u32 = 60;
/// Users, and domains; of more those are forgotten that were counted longest ago.
const MOST_COUNTED: u32 = 20_000;

#[cfg(test)]
mod tests {
    use fpush_push::TokenHasher;

    use super::*;

    fn mark(text: &str) -> Fingerprint {
        TokenHasher::with_key([7; 16]).domain(text)
    }

    fn sender(domain: &str, standing: Standing) -> Sender<Fingerprint> {
        Sender {
            share: mark(domain),
            name: mark(domain),
            standing,
        }
    }

    #[test]
    fn a_session_is_its_owners_and_ends() {
        let (mut sessions, now) = (Sessions::new(), Instant::now());
        let [id, owner, other] = ["id", "a@b/c", "a@b/d"].map(mark);
        sessions.begin(id, owner, Trial::Push, now);
        let mut look = |id, owner, trial, after| sessions.look(id, owner, trial, now + after);
        let soon = Duration::from_secs(599);
        assert_eq!(look(id, owner, Trial::Push, soon), Ok(()));
        for (id, owner, trial) in [
            (other, owner, Trial::Push),
            (id, other, Trial::Push),
            (id, owner, Trial::Status),
        ] {
            assert_eq!(look(id, owner, trial, soon), Err(NoSession::Unknown));
        }
        assert_eq!(look(id, owner, Trial::Push, PATIENCE), Err(NoSession::Expired));
        assert_eq!(look(id, owner, Trial::Push, PATIENCE), Err(NoSession::Unknown));
        sessions.begin(id, owner, Trial::Push, now);
        sessions.end(id);
        assert_eq!(
            sessions.look(id, owner, Trial::Push, now),
            Err(NoSession::Unknown)
        );
    }

    #[test]
    fn a_flood_is_bounded_for_each_user_and_each_domain_and_in_memory() {
        let (mut sessions, now) = (Sessions::new(), Instant::now());
        let unknown = sender("evil.example", Standing::Unknown);
        let admitted = (0..100)
            .filter(|_| sessions.admit(mark("one"), &unknown, now))
            .count();
        assert_eq!(admitted, OF_USER as usize);
        let users = (0..1_000).filter(|number| sessions.admit(mark(&number.to_string()), &unknown, now));
        assert_eq!(users.count() + admitted, OF_UNKNOWN_DOMAIN as usize);
        let known = sender("good.example", Standing::Known);
        let users = (0..1_000).filter(|number| sessions.admit(mark(&format!("k{number}")), &known, now));
        assert_eq!(users.count(), OF_KNOWN_DOMAIN as usize);
        assert!(
            sessions.admit(mark("one"), &unknown, now + SPAN),
            "a minute later"
        );
        for number in 0..2 * MOST_SESSIONS {
            sessions.begin(mark(&number.to_string()), mark("one"), Trial::Push, now);
        }
        assert_eq!(sessions.open.len(), MOST_SESSIONS as usize);
    }
}
