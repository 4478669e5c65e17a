//! What a fake provider does with a request.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use h2::Reason;

/// What happens to one request at a fake provider.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What the fake does when nothing is scripted: the request succeeds.
    Normal,
    /// An HTTP response.
    Reply(HttpReply),
    /// No answer, ever; the connection stays alive.
    Silence,
    /// The answer inside, after a while.
    After(Duration, Box<Self>),
    /// The answer inside, once the gate is open.
    Behind(Gate, Box<Self>),
    /// `RST_STREAM` with this reason.
    ResetStream(Reason),
    /// The TCP connection is reset at once, with all requests on it.
    CloseConnection,
    /// `GOAWAY`, after which nothing on this connection is answered any more and it is closed.
    GoAway(GoAway),
    /// A graceful `GOAWAY`, then the answer inside; the requests in flight are still answered.
    Drain(Box<Self>),
    /// The connection takes one request at a time from now on (`SETTINGS_MAX_CONCURRENT_STREAMS`); then the answer inside.
    OneStream(Box<Self>),
}

/// An HTTP response of a fake provider.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Headers in addition to those that the fake sets itself.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How the body ends.
    pub end: BodyEnd,
}

/// How the body of an [`HttpReply`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// As it should.
    Proper,
    /// Never: nothing more comes.
    Stalls,
    /// Never: the body comes again and again, as fast as it is taken.
    Endless,
    /// The stream is reset.
    Reset,
}

/// Keeps answers back until the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// One that is closed.
    #[expect(clippy::new_without_default, reason = "a closed gate is not a usual value")]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets all answers behind it go, also those that come later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn opened(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// The `GOAWAY` of [`Answer::GoAway`].
#[derive(Debug, Clone)]
pub struct GoAway {
    /// Its error code.
    pub reason: Reason,
    /// Whether the last stream id names this request as one that may have been processed. If not, the client may send
    /// this request and all later ones again without the danger of a duplicate.
    pub processed: bool,
    /// The debug data. Apple puts a JSON object with the reason here.
    pub debug: String,
}

impl Answer {
    /// A response without a body.
    pub fn status(status: u16) -> Self {
        Self::raw(status, "")
    }

    /// A response with any body, such as the HTML page of a load balancer.
    pub fn raw(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Reply(HttpReply {
            status,
            headers: Vec::new(),
            body: body.into(),
            end: BodyEnd::Proper,
        })
    }

    /// A response with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string()).header("content-type", "application/json")
    }

    /// Apple's error body.
    pub fn reason(status: u16, reason: &str) -> Self {
        Self::json(status, &json!({ "reason": reason }))
    }

    /// Apple's error body for a dead token, which says since when it is dead, in milliseconds since 1970.
    pub fn reason_since(status: u16, reason: &str, timestamp_ms: u64) -> Self {
        Self::json(status, &json!({ "reason": reason, "timestamp": timestamp_ms }))
    }

    /// A `GOAWAY` that says nothing more; see [`GoAway`].
    pub fn go_away(reason: Reason, processed: bool) -> Self {
        Self::GoAway(GoAway {
            reason,
            processed,
            debug: String::new(),
        })
    }

    /// Adds a header to a response. An answer that is none is a mistake of the test, so it panics.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.reply_mut().headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ends the body of a response otherwise.
    #[must_use]
    pub fn ending(mut self, end: BodyEnd) -> Self {
        self.reply_mut().end = end;
        self
    }

    /// The same answer, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// The same answer, once the gate is open.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self::Behind(gate.clone(), Box::new(self))
    }

    fn reply_mut(&mut self) -> &mut HttpReply {
        match self {
            Self::Reply(reply) => reply,
            Self::After(_, inner) | Self::Behind(_, inner) | Self::Drain(inner) | Self::OneStream(inner) => {
                inner.reply_mut()
            }
            Self::Normal | Self::Silence | Self::ResetStream(_) | Self::CloseConnection | Self::GoAway(_) => {
                panic!("{self:?} is not a response that could have a header")
            }
        }
    }

    /// Puts `normal` where the answer says [`Answer::Normal`].
    pub(crate) fn or_normal(self, normal: &dyn Fn() -> Self) -> Self {
        match self {
            Self::Normal => normal(),
            Self::After(delay, inner) => Self::After(delay, Box::new(inner.or_normal(normal))),
            Self::Behind(gate, inner) => Self::Behind(gate, Box::new(inner.or_normal(normal))),
            Self::Drain(inner) => Self::Drain(Box::new(inner.or_normal(normal))),
            Self::OneStream(inner) => Self::OneStream(Box::new(inner.or_normal(normal))),
            other @ (Self::Reply(_)
            | Self::Silence
            | Self::ResetStream(_)
            | Self::CloseConnection
            | Self::GoAway(_)) => other,
        }
    }
}
