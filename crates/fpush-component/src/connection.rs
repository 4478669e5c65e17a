//! One connection that was logged in: reading requests, writing replies, noticing its end.

use std::{
    io,
    sync::{Arc, Mutex},
};

use fpush_driver::Probe;
use fpush_push::sync::lock;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Duration, Instant, sleep, timeout},
};
use tracing::debug;

use crate::{
    dispatcher::Dispatcher,
    link::Link,
    outbox::Outbox,
    pings::Pings,
    request::{Incoming, StreamError},
    stream::{Cutter, Piece},
    usual,
};

/// Why a connection ended.
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

/// Reads until the connection ends, and has everything dispatched that wants a reply; writes what is in the link's outbox.
pub(crate) async fn run<R, W>(
    (reader, mut writer): (&mut R, &mut W),
    cutter: &mut Cutter,
    link: &Link,
    dispatcher: &Arc<Dispatcher>,
    probe: &mut Probe,
) -> LinkEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (outbox, last_read) = (link.outbox(), Mutex::new(Instant::now()));
    let name = &link.settings().hostname;
    tokio::select! {
        end = read(reader, cutter, link, dispatcher, &last_read, probe) => end,
        end = write(&mut writer, outbox) => end,
        end = watch(name, outbox, dispatcher.pings(), &last_read) => end,
    }
}

/// Reads until the connection ends. What was cut off by an end of ours can be read on.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    cutter: &mut Cutter,
    link: &Link,
    dispatcher: &Arc<Dispatcher>,
    last_read: &Mutex<Instant>,
    probe: &mut Probe,
) -> LinkEnd {
    let mut stream_error = None;
    loop {
        loop {
            if let Some(incoming) = cutter.take(usual::read) {
                dispatcher.dispatch(link, incoming, Instant::now());
                continue;
            }
            let Some(piece) = cutter.next() else { break };
            match piece {
                Piece::Stanza(stanza) => match Incoming::read(stanza) {
                    Some(incoming) => dispatcher.dispatch(link, incoming, Instant::now()),
                    None => stream_error = StreamError::read(stanza).or(stream_error),
                },
                Piece::Oversized(head) => {
                    debug!("a stanza above component.maxStanzaSize was dropped");
                    if let Some(incoming) = head.as_deref().and_then(Incoming::too_large) {
                        dispatcher.dispatch(link, incoming, Instant::now());
                    }
                }
                Piece::End => return closed(stream_error),
            }
        }
        probe.while_waiting(link.outbox().wait_for_room()).await;
        match probe.while_waiting(reader.read_buf(cutter.space())).await {
            Ok(0) => return closed(stream_error),
            Ok(_) => *lock(last_read) = Instant::now(),
            // The end of a connection with TLS on which the server said nothing about that.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return closed(stream_error),
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
/// Another connection under our name may get the ping or its reply instead of this one (ejabberd shares the traffic out).
/// Several are sent, each between addresses of its own, because of those of other instances; and one that comes over another
/// link of ours shows as well that the server takes what this one sends. Whether what the server sends arrives, TCP
/// notices.
async fn watch(name: &str, outbox: &Outbox, pings: &Pings, last_read: &Mutex<Instant>) -> LinkEnd {
    let (mut misses, mut looked) = (0, Instant::now());
    let mut sent = pings.watch();
    loop {
        sleep(QUIET).await;
        let (now, last_read) = (Instant::now(), *lock(last_read));
        if last_read >= looked || sent.has_arrived() {
            misses = 0;
        }
        looked = now;
        if now.duration_since(last_read) < QUIET {
            continue;
        }
        if misses == MAX_MISSES {
            return LinkEnd::Silent;
        }
        misses += 1;
        let ids = sent.renew(PINGS);
        outbox.push(now, |out| {
            for id in ids {
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
/// Pings in vain before the connection is given up.
const MAX_MISSES: u32 = 3;
/// Pings at a time.
const PINGS: usize = 3;
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
        Dispatcher::new(Arc::default(), None, senders, Drain::default())
    }

    async fn connect(socket: DuplexStream, link: &Link, dispatcher: &Arc<Dispatcher>) -> LinkEnd {
        let (mut reader, mut writer) = split(socket);
        run(
            (&mut reader, &mut writer),
            &mut Cutter::new(1_000, b""),
            link,
            dispatcher,
            &mut fpush_driver::Liveness::new().probe("reader"),
        )
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_pinged_and_then_given_up() {
        let (ours, mut theirs) = duplex(100_000);
        let start = Instant::now();
        let end = connect(ours, &Link::made_up(), &dispatcher()).await;
        assert!(matches!(end, LinkEnd::Silent), "{end:?}");
        assert_eq!(start.elapsed(), QUIET * (MAX_MISSES + 1));
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).await.unwrap();
        assert_eq!(
            sent.matches("<ping xmlns='urn:xmpp:ping'/>").count(),
            MAX_MISSES as usize * PINGS
        );
        assert!(sent.starts_with("<iq type='get' from='"), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn any_byte_is_a_sign_of_life() {
        let (ours, mut theirs) = duplex(100_000);
        let start = Instant::now();
        let (link, dispatcher) = (Link::made_up(), dispatcher());
        let server = async {
            for _ in 0..20 {
                sleep(QUIET * 2).await;
                theirs.write_all(b" ").await.unwrap();
            }
            drop(theirs);
        };
        let (end, ()) = tokio::join!(connect(ours, &link, &dispatcher), server);
        assert!(matches!(end, LinkEnd::Closed), "{end:?}");
        assert_eq!(start.elapsed(), QUIET * 40);
    }

    /// The server gives all to the other link, as one of several connections of one name.
    #[tokio::test(start_paused = true)]
    async fn a_ping_that_comes_over_another_link_is_a_sign_of_life_of_the_one_that_sent_it() {
        let dispatcher = dispatcher();
        let (quiet, busy) = (Link::made_up(), Link::made_up());
        let (ours, theirs) = duplex(100_000);
        let (other, mut others) = duplex(100_000);
        let server = async {
            let (mut reader, mut writer) = split(theirs);
            let mut buffer = vec![0; 10_000];
            for _ in 0..10 {
                let length = reader.read(&mut buffer).await.unwrap();
                let last = std::str::from_utf8(&buffer[..length])
                    .unwrap()
                    .rfind("<iq")
                    .unwrap();
                others.write_all(&buffer[last..length]).await.unwrap();
            }
            // From now on it reads, and gives the other link something else.
            let reads = async { while reader.read(&mut buffer).await.is_ok_and(|length| length > 0) {} };
            let speaks = async {
                while others.write_all(b" ").await.is_ok() {
                    sleep(QUIET / 3).await;
                }
            };
            tokio::join!(reads, speaks);
            drop(writer.shutdown().await);
        };
        let start = Instant::now();
        let watched = async {
            tokio::select! {
                end = connect(ours, &quiet, &dispatcher) => (end, start.elapsed()),
                end = connect(other, &busy, &dispatcher) => panic!("{end:?}"),
            }
        };
        let ((end, lasted), ()) = tokio::join!(watched, server);
        assert!(matches!(end, LinkEnd::Silent), "{end:?}");
        assert_eq!(lasted, QUIET * (10 + MAX_MISSES + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_left_and_the_reply_is_kept() {
        let (ours, _theirs) = duplex(10);
        let link = Link::made_up();
        // One whose request came late enough to be waited for at the end.
        link.outbox().push(Instant::now() + STUCK, |out| {
            out.extend_from_slice(b"<iq type='result' id='1'/>");
        });
        let end = connect(ours, &link, &dispatcher()).await;
        assert!(matches!(end, LinkEnd::Stuck), "{end:?}");
        let kept = link.outbox().take().await;
        assert!(kept.bytes().starts_with(b"<iq type='result' id='1'/>"));
    }
}
