//! The readers of what servers send, for the fuzz targets, and for nobody else: nothing here is part of the interface.

use std::sync::Arc;

use fpush_push::{Command, CommandError, Devices, Executing, Lookup, Notification, Outcome, Scope, Urgency};

use crate::{
    command,
    reply::{self, Named, Reply},
    request::{Incoming, Request, StreamError},
    stream::{Cutter, Piece},
    usual,
};

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole stanza.
    Stanza(Vec<u8>),
    /// One that was too large, and its start tag.
    Oversized(Option<Vec<u8>>),
    /// The end of the stream.
    End,
}

/// What a stanza asks.
pub struct Asked {
    /// The reply that it gets, or the longest of those that it may get.
    pub reply: Vec<u8>,
    /// How many bytes of it are kept until somebody has answered.
    pub kept: usize,
    /// The domain of the sender in the one spelling.
    pub domain: String,
    /// What the registry is to execute.
    pub command: Option<Command>,
    /// What is to be passed on, and to whom (Push 2.0).
    pub notification: Option<(String, Notification)>,
}

/// All that is read of a publish.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// How many bytes it has.
    pub length: usize,
    /// The reply that it gets if its module is not known.
    pub reply: Vec<u8>,
    /// The domain of the sender in the one spelling.
    pub domain: String,
    /// Node, module and secret.
    pub names: [Option<String>; 3],
    /// How much it matters.
    pub urgency: Urgency,
    /// How many messages wait.
    pub count: Option<u32>,
}

/// Cuts a stream that comes in these chunks.
pub fn cut<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Cut> {
    let mut cutter = Cutter::new(limit, b"");
    let mut pieces = Vec::new();
    for chunk in chunks {
        cutter.space().extend_from_slice(chunk);
        while let Some(piece) = cutter.next() {
            pieces.push(match piece {
                Piece::Stanza(stanza) => Cut::Stanza(stanza.bytes.to_vec()),
                Piece::Oversized(head) => Cut::Oversized(head),
                Piece::End => Cut::End,
            });
        }
    }
    pieces
}

/// Reads the first stanza of a stream; `None` if it wants no reply.
#[must_use]
pub fn read(stanza: &[u8]) -> Option<Asked> {
    match Cutter::new(stanza.len(), stanza).next()? {
        Piece::Stanza(stanza) => Incoming::read(stanza).map(asked),
        Piece::Oversized(_) | Piece::End => None,
    }
}

/// Reads the publish that a stream begins with, with the reader of usual ones and with the one of all stanzas. `None` if the
/// first one leaves it to the other.
#[must_use]
pub fn read_usual(stream: &[u8]) -> Option<(Published, Option<Published>)> {
    let (incoming, length) = usual::read(stream)?;
    let of_all = match Cutter::new(stream.len(), stream).next() {
        Some(Piece::Stanza(stanza)) => {
            Incoming::read(stanza).and_then(|incoming| published(incoming, stanza.bytes.len()))
        }
        Some(Piece::Oversized(_) | Piece::End) | None => None,
    };
    published(incoming, length).map(|usual| (usual, of_all))
}

fn published(incoming: Incoming<'_>, length: usize) -> Option<Published> {
    let Request::Publish(publish) = incoming.request else {
        return None;
    };
    let mut reply = Vec::new();
    let unknown = Reply::Published(Outcome::UnknownModule, Named::Unknown);
    unknown.write(&incoming.addresses, &reply::counters(), &mut reply);
    Some(Published {
        length,
        reply,
        domain: incoming.domain.into_owned(),
        names: [Some(publish.node), publish.push_module, publish.secret].map(|name| name.map(Into::into)),
        urgency: publish.urgency,
        count: publish.count,
    })
}

/// Reads the start tag of a stanza that was too large.
#[must_use]
pub fn read_head(head: &[u8]) -> Option<Asked> {
    Incoming::too_large(head).map(asked)
}

/// Why the server closes the stream, if the first stanza says so.
#[must_use]
pub fn stream_error(stanza: &[u8]) -> Option<String> {
    match Cutter::new(stanza.len(), stanza).next()? {
        Piece::Stanza(stanza) => StreamError::read(stanza).map(|error| match error {
            StreamError::Conflict => "conflict".to_owned(),
            StreamError::Other(condition) => condition,
        }),
        Piece::Oversized(_) | Piece::End => None,
    }
}

fn asked(incoming: Incoming<'_>) -> Asked {
    let Incoming {
        addresses,
        domain,
        request,
    } = incoming;
    let (mut kept, mut command, mut notification) = (0, None, None);
    let reply = match request {
        Request::Publish(publish) => {
            kept = publish.size();
            Reply::Published(Outcome::UnknownModule, Named::Unknown)
        }
        Request::NoNode => Reply::NoNode,
        Request::DiscoInfo(_) | Request::DiscoItems(_) => Reply::UnknownNode,
        Request::Command(ad_hoc) => match ad_hoc.check(&AllCommands, Arc::default()) {
            Ok((_, checked)) => {
                kept = command::size(&checked);
                command = Some(checked);
                Reply::CommandFailed(CommandError::TooMany)
            }
            Err(reply) => reply,
        },
        Request::Ping(_) => Reply::Nothing,
        Request::Version | Request::Unknown => Reply::Unsupported,
        Request::OtherPubsub => Reply::UnsupportedPubsub,
        Request::Malformed => Reply::Malformed,
        Request::Unreadable => Reply::Unreadable,
        Request::Subscribe => Reply::Unsubscribed,
        Request::Notify(sent) => match sent.check() {
            Ok((client, checked)) => {
                kept = client.len() + carried(&checked);
                notification = Some((client.to_owned(), checked));
                Reply::Notified(Outcome::UnknownModule)
            }
            Err(fault) => Reply::BadNotification(fault),
        },
    };
    let mut written = Vec::new();
    reply.write(&addresses, &reply::counters(), &mut written);
    Asked {
        reply: written,
        kept: kept
            + if addresses.can_be_kept() {
                addresses.size()
            } else {
                0
            },
        domain: domain.into_owned(),
        command,
        notification,
    }
}

/// Bytes that a notification carries.
fn carried(notification: &Notification) -> usize {
    let payload = notification.payload.as_ref().map_or(0, |payload| payload.len());
    let signature = notification.signature.as_ref();
    payload + signature.map_or(0, |signature| signature.jwt.len() + signature.key.len())
}

/// Stands for a registry with the commands of all dialects, of which none is executed.
struct AllCommands;

impl Devices for AllCommands {
    fn find(&self, _node: &str, _secret: Option<&str>, _sender: &str) -> Lookup {
        Lookup::Settled(fpush_push::Found::Nothing)
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        let names = [
            "v1-register-push",
            "v1-unregister-push",
            "register-push-fcm",
            "unregister-push-fcm",
            "register-push-apns",
            "unregister-push-apns",
            "register-device",
            "unregister-device",
        ];
        names.map(|name| (name, "")).to_vec()
    }

    fn features(&self, _scope: &Scope) -> Vec<String> {
        Vec::new()
    }

    fn execute(&self, _command: Command) -> Result<Executing, CommandError> {
        Err(CommandError::UnknownCommand)
    }
}
