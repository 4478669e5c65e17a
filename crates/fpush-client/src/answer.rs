//! What comes of a request: the answer, or why there is none.

use std::time::Duration;

use bytes::Bytes;
use fpush_push::{Failure, PushError};
use http::{HeaderMap, StatusCode};

use crate::obstacle::Obstacle;

/// An answer. A body above 16 KiB is left out.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer, sorted by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection broke under the request. The next request finds a new one.
    #[error("the connection to the provider broke: {0}")]
    Broken(String),
    /// No connection can be made.
    #[error("no connection to the provider: {0}")]
    Unreachable(Obstacle),
    /// The answer is not valid HTTP, or too long.
    #[error("the provider's answer cannot be read: {0}")]
    Malformed(String),
    /// Nothing came in time.
    #[error("no answer from the provider in time")]
    TimedOut,
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let later = PushError::Later { after: None };
        let (todo, reason, meaning) = match &error {
            SendError::Broken(_) => (PushError::Reconnected, "broken", BROKEN),
            SendError::Unreachable(obstacle) => (later, "unreachable", obstacle.meaning()),
            SendError::Malformed(_) => (later, "malformed", MALFORMED),
            SendError::TimedOut => (later, "timeout", TIMED_OUT),
        };
        Self::new(todo, reason, error.to_string(), meaning)
    }
}

const BROKEN: &str = "The connection ended under the request, as connections do now and then; the request is repeated over a \
     new one. If it happens all the time, look at the firewall and the proxy on the way, and at the client \
     certificate if there is one: a provider that refuses it ends the connection.";
const MALFORMED: &str = "The server's answer is not valid HTTP, or far too long. Check the host and the port of its URL, and whether \
     a firewall or a proxy on the way answers in its place.";
const TIMED_OUT: &str = "The provider did not answer within requestTimeout. Either it has an outage, or the network between it and \
     this machine loses packets; if it happens often, look at the time of the last PING and raise \
     requestTimeout.";

/// How long the rest of an answer may take whose head is there: it is on the same connection.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// A body that is longer says nothing that an endpoint of ours has to say.
pub(crate) const MAX_BODY: usize = 16 * 1_024;
