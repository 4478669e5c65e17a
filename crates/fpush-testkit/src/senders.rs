//! What the servers that publish do with the replies: which of them forgets a registration, and when.
//!
//! The rules were read from the servers' source. All of them keep a registration on `wait` with one of four conditions.

use std::fmt::{self, Display, Formatter};

/// A server that publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Prosody up to 13.0.1: the 16th error without a result in between ends the registration.
    Prosody,
    /// Prosody 13 with the patches of Debian: nothing changes anything.
    Prosody13,
    /// ejabberd: one error whose type is not `wait`.
    Ejabberd,
    /// `MongooseIM`: one error of type `cancel`.
    MongooseIm,
    /// Tigase: one error whose condition is not among four; the type does not count.
    Tigase,
    /// Openfire: nothing changes anything.
    Openfire,
    /// Metronome: one error whose type is not `wait`.
    Metronome,
}

impl Sender {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Prosody,
        Self::Prosody13,
        Self::Ejabberd,
        Self::MongooseIm,
        Self::Tigase,
        Self::Openfire,
        Self::Metronome,
    ];
}

/// One device's registration for push, as each server would have it after the replies until now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// Errors in a row that Prosody counts.
    errors: u32,
    forgotten_by: Vec<Sender>,
}

impl Registration {
    /// Takes note of a reply: `result`, or type and condition of an error as [`Reply::verdict`](crate::Reply::verdict)
    /// names them.
    pub fn hear(&mut self, verdict: &str) {
        let Some((kind, condition)) = verdict.split_once('/') else {
            assert_eq!(verdict, "result");
            self.errors = 0;
            return;
        };
        if kind != "wait" {
            self.errors += 1;
        }
        for sender in Sender::ALL {
            let forgets = match sender {
                Sender::Prosody => self.errors >= PROSODY_MAX_ERRORS,
                Sender::Prosody13 | Sender::Openfire => false,
                Sender::Ejabberd | Sender::Metronome => kind != "wait",
                Sender::MongooseIm => kind == "cancel",
                Sender::Tigase => !KEPT_BY_TIGASE.contains(&condition),
            };
            if forgets && !self.forgotten_by.contains(&sender) {
                self.forgotten_by.push(sender);
            }
        }
    }

    /// Whether every server still publishes for the device.
    pub fn is_kept(&self) -> bool {
        self.forgotten_by.is_empty()
    }

    /// Whether the servers that forget at the first word have done so.
    pub fn is_forgotten(&self) -> bool {
        [
            Sender::Ejabberd,
            Sender::MongooseIm,
            Sender::Tigase,
            Sender::Metronome,
        ]
        .iter()
        .all(|sender| self.forgotten_by.contains(sender))
    }
}

impl Display for Registration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_kept() {
            return f.write_str("kept by all");
        }
        write!(f, "forgotten by {:?}", self.forgotten_by)
    }
}

/// Prosody's `push_max_errors`, unless somebody sets it.
const PROSODY_MAX_ERRORS: u32 = 16;

const KEPT_BY_TIGASE: [&str; 4] = [
    "remote-server-timeout",
    "service-unavailable",
    "internal-server-error",
    "bad-request",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn after(verdicts: &[&str]) -> Registration {
        let mut registration = Registration::default();
        for verdict in verdicts {
            registration.hear(verdict);
        }
        registration
    }

    #[test]
    fn what_every_server_keeps() {
        for condition in KEPT_BY_TIGASE {
            let verdict = format!("wait/{condition}");
            assert!(after(&[verdict.as_str(); 40]).is_kept(), "{verdict}");
        }
        assert!(after(&["result"; 40]).is_kept());
    }

    #[test]
    fn what_some_server_forgets_at() {
        assert!(after(&["cancel/item-not-found"]).is_forgotten());
        assert!(
            !after(&["cancel/item-not-found"])
                .forgotten_by
                .contains(&Sender::Prosody)
        );
        assert!(
            after(&["cancel/item-not-found"; 16])
                .forgotten_by
                .contains(&Sender::Prosody)
        );
        assert_eq!(
            after(&["wait/resource-constraint"]).forgotten_by,
            [Sender::Tigase]
        );
        assert_eq!(
            after(&["modify/bad-request"]).forgotten_by,
            [Sender::Ejabberd, Sender::Metronome]
        );
    }

    #[test]
    fn a_result_ends_prosodys_row_of_errors() {
        let mut registration = after(&["auth/internal-server-error"; 15]);
        registration.hear("result");
        registration.hear("auth/internal-server-error");
        assert!(!registration.forgotten_by.contains(&Sender::Prosody));
    }
}
