//! One connection that was logged in: reading requests, writing replies, noticing its end.

use std::{cell::Cell, io, sync::Arc};

use fpush_driver::Probe;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Duration, Instant, sleep, timeout},
};
use tracing::debug;
use uuid::Uuid;

use crate::{
    dispatcher::Dispatcher,
    outbox::Outbox,
    request::{Incoming, StreamError},
    stream::{Cutter, Piece},
};

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// The server closed it.
    Closed,
    /// The server closed it because somebody else has taken our name.
    Replaced,
    /// The server closed it for another reason.
    StreamError(String),
    /// The connection failed.
    Io(io::Error),
    /// Nothing came from the server for too long.
    Silent,
    /// The server takes nothing from us.
    Stuck,
}

impl LinkEnd {
    /// Its name in metrics. Of a stream error that is its condition, if it is one of RFC 6120 section 4.9.3.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Replaced => "conflict",
            Self::StreamError(condition) => CONDITIONS
                .into_iter()
                .find(|known| known == condition)
                .unwrap_or("other_stream_error"),
            Self::Io(_) => "io",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
        }
    }
}

/// Reads until the link ends, and has everything dispatched that wants a reply; writes what is in the outbox. `name` is our own address.
pub(crate) async fn run<R, W>(
    (reader, mut writer): (&mut R, &mut W),
    cutter: &mut Cutter,
    name: &str,
    dispatcher: &Arc<Dispatcher>,
    probe: &mut Probe,
) -> LinkEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (outbox, last_read) = (dispatcher.outbox(), Cell::new(Instant::now()));
    outbox.drop_late(Instant::now());
    tokio::select! {
        end = read(reader, cutter, dispatcher, &last_read, probe) => end,
        end = write(&mut writer, outbox) => end,
        end = watch(name, outbox, &last_read) => end,
    }
}

/// Reads until the link ends. What was cut off by an end of ours can be read on.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    cutter: &mut Cutter,
    dispatcher: &Arc<Dispatcher>,
    last_read: &Cell<Instant>,
    probe: &mut Probe,
) -> LinkEnd {
    let mut stream_error = None;
    loop {
        while let Some(piece) = cutter.next() {
            match piece {
                Piece::Stanza(stanza) => match Incoming::read(stanza) {
                    Some(incoming) => dispatcher.dispatch(incoming, Instant::now()),
                    None => stream_error = StreamError::read(stanza).or(stream_error),
                },
                Piece::Oversized(head) => {
                    debug!("a stanza above component.maxStanzaSize was dropped");
                    if let Some(incoming) = head.as_deref().and_then(Incoming::too_large) {
                        dispatcher.dispatch(incoming, Instant::now());
                    }
                }
                Piece::End => return closed(stream_error),
            }
        }
        probe.while_waiting(dispatcher.outbox().wait_for_room()).await;
        match probe.while_waiting(reader.read_buf(cutter.space())).await {
            Ok(0) => return closed(stream_error),
            Ok(_) => last_read.set(Instant::now()),
            Err(e) => return stream_error.map_or(LinkEnd::Io(e), |error| closed(Some(error))),
        }
    }
}

fn closed(error: Option<StreamError>) -> LinkEnd {
    match error {
        None => LinkEnd::Closed,
        Some(StreamError::Conflict) => LinkEnd::Replaced,
        Some(StreamError::Other(condition)) => LinkEnd::StreamError(condition),
    }
}

/// Writes what is in the outbox, everything that is there at a time.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, outbox: &Outbox) -> LinkEnd {
    loop {
        let batch = outbox.take().await;
        let written = timeout(STUCK, async {
            writer.write_all(batch.bytes()).await?;
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => batch.written(),
            Ok(Err(e)) => {
                // What the server said last may still be to be read, and "conflict" must not be missed.
                sleep(LAST_WORDS).await;
                return LinkEnd::Io(e);
            }
            Err(_) => return LinkEnd::Stuck,
        }
    }
}

/// Pings ourselves through the server when nothing has come for a while.
///
/// Another instance under our name may get the ping or its reply instead of us (ejabberd shares the traffic
/// out), so several are sent, each between addresses of its own.
async fn watch(name: &str, outbox: &Outbox, last_read: &Cell<Instant>) -> LinkEnd {
    let (mut misses, mut looked) = (0, Instant::now());
    loop {
        sleep(QUIET).await;
        let now = Instant::now();
        if last_read.get() >= looked {
            misses = 0;
        }
        looked = now;
        if now.duration_since(last_read.get()) < QUIET {
            continue;
        }
        if misses == MAX_MISSES {
            return LinkEnd::Silent;
        }
        misses += 1;
        outbox.push(now, |out| {
            for _ in 0..PINGS {
                let id = Uuid::new_v4().simple().to_string();
                let address = format!("{id}@{name}");
                let ping = format!(
                    "<iq type='get' from='{address}' to='{address}' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"
                );
                out.extend_from_slice(ping.as_bytes());
            }
        });
    }
}

/// RFC 6120 section 4.9.3, and what XEP-0114's servers are known to say beside it.
const CONDITIONS: [&str; 24] = [
    "bad-format",
    "bad-namespace-prefix",
    "connection-timeout",
    "host-gone",
    "host-unknown",
    "improper-addressing",
    "internal-server-error",
    "invalid-from",
    "invalid-namespace",
    "invalid-xml",
    "not-authorized",
    "not-well-formed",
    "policy-violation",
    "remote-connection-failed",
    "reset",
    "resource-constraint",
    "restricted-xml",
    "see-other-host",
    "system-shutdown",
    "undefined-condition",
    "unsupported-encoding",
    "unsupported-feature",
    "unsupported-stanza-type",
    "unsupported-version",
];
/// Silence before the server is pinged.
const QUIET: Duration = Duration::from_secs(30);
/// Pings in vain before the link is given up.
const MAX_MISSES: u32 = 3;
/// Pings at a time.
const PINGS: u32 = 3;
/// How long to read on when nothing can be written any more.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long the server may take to accept what we write.
const STUCK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};

    use fpush_driver::{Drain, Senders};
    use fpush_push::TokenHasher;

    use super::*;

    fn dispatcher() -> Arc<Dispatcher> {
        let senders = Senders::new(TokenHasher::new().unwrap());
        Dispatcher::new("push.example", Arc::default(), None, senders, Drain::default())
    }

    async fn link(socket: DuplexStream, dispatcher: &Arc<Dispatcher>) -> LinkEnd {
        let (mut reader, mut writer) = split(socket);
        run(
            (&mut reader, &mut writer),
            &mut Cutter::new(1_000, b""),
            "push.example",
            dispatcher,
            &mut fpush_driver::Liveness::new().probe("reader"),
        )
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_pinged_and_then_given_up() {
        let (ours, mut theirs) = duplex(100_000);
        let start = Instant::now();
        let end = link(ours, &dispatcher()).await;
        assert!(matches!(end, LinkEnd::Silent), "{end:?}");
        assert_eq!(start.elapsed(), QUIET * (MAX_MISSES + 1));
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).await.unwrap();
        assert_eq!(
            sent.matches("<ping xmlns='urn:xmpp:ping'/>").count() as u32,
            MAX_MISSES * PINGS
        );
        assert!(sent.starts_with("<iq type='get' from='"), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn any_byte_is_a_sign_of_life() {
        let (ours, mut theirs) = duplex(100_000);
        let start = Instant::now();
        let dispatcher = dispatcher();
        let server = async {
            for _ in 0..20 {
                sleep(QUIET * 2).await;
                theirs.write_all(b" ").await.unwrap();
            }
            drop(theirs);
        };
        let (end, ()) = tokio::join!(link(ours, &dispatcher), server);
        assert!(matches!(end, LinkEnd::Closed), "{end:?}");
        assert_eq!(start.elapsed(), QUIET * 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_left_and_the_reply_is_kept() {
        let (ours, _theirs) = duplex(10);
        let dispatcher = dispatcher();
        dispatcher.outbox().push(Instant::now(), |out| {
            out.extend_from_slice(b"<iq type='result' id='1'/>");
        });
        let end = link(ours, &dispatcher).await;
        assert!(matches!(end, LinkEnd::Stuck), "{end:?}");
        assert!(
            dispatcher
                .outbox()
                .take()
                .await
                .bytes()
                .starts_with(b"<iq type='result' id='1'/>")
        );
    }
}
