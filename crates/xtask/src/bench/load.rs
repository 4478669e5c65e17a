//! The XMPP server's side of the link, made to be faster than what it measures: publishes are copies of a template
//! with another id and token, replies are told apart by their ids, and one thread does both.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem::Finder;

use super::template::{Template, read_number};
use crate::interrupt;

/// Where fpush connects to.
pub(super) struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    pub(super) fn bind() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the load")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        Ok(Self { listener, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a component and logs it in, whatever its secret is.
    pub(super) fn accept(&self) -> Result<Link> {
        let end = Instant::now() + TIMEOUT;
        let mut socket = loop {
            match self.listener.accept() {
                Ok((socket, _)) => break socket,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            interrupt::check()?;
            ensure!(Instant::now() < end, "fpush does not connect");
            // Short, because the time until the link is up is measured, too.
            thread::sleep(Duration::from_micros(100));
        };
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        read_until(&mut socket, b"<stream:stream")?;
        socket.write_all(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
              xmlns:stream='http://etherx.jabber.org/streams' id='1' from='push.localhost'>",
        )?;
        read_until(&mut socket, b"</handshake>")?;
        socket.write_all(b"<handshake/>")?;
        Ok(Link::of(socket))
    }
}

fn read_until(socket: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut read = Vec::new();
    let mut bytes = [0; 4096];
    while memchr::memmem::find(&read, end).is_none() {
        let count = socket.read(&mut bytes).context("fpush does not log in")?;
        ensure!(count > 0, "fpush does not log in");
        read.extend_from_slice(&bytes[..count]);
    }
    Ok(())
}

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    Time(Duration),
    Publishes(u64),
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) pushes: u64,
    pub(super) elapsed: Duration,
}

/// A component that has logged in.
pub(super) struct Link {
    pub(super) socket: TcpStream,
    pub(super) replies: Replies,
    /// The number of the next publish. As long as nobody changes it, no token is used twice.
    pub(super) next: u64,
    out: Vec<u8>,
}

impl Link {
    /// A stream on which publishes may be sent.
    pub(super) fn of(socket: TcpStream) -> Self {
        Self {
            socket,
            replies: Replies::new(),
            next: 0,
            out: Vec::new(),
        }
    }

    /// Keeps so many publishes in flight, then waits for the last reply. They are made of the templates in turn. A
    /// reply that is not the expected one, that nobody waits for or that comes twice is an error.
    pub(super) fn run(
        &mut self,
        templates: &[Template],
        in_flight: u64,
        amount: Amount,
        expected: Kind,
    ) -> Result<Done> {
        self.run_with(templates, in_flight, amount, |reply| reply.expect(expected))
    }

    /// The same with whatever is done with each reply.
    pub(super) fn run_with(
        &mut self,
        templates: &[Template],
        in_flight: u64,
        amount: Amount,
        mut take: impl FnMut(&Reply<'_>) -> Result<()>,
    ) -> Result<Done> {
        let first = self.next;
        let mut answered = Vec::new();
        let mut pushes = 0;
        let start = Instant::now();
        let mut wanted = in_flight;
        let mut template = templates.iter().cycle();
        loop {
            wanted = match amount {
                Amount::Time(time) if start.elapsed() >= time || interrupt::happened() => 0,
                Amount::Time(_) => wanted,
                Amount::Publishes(_) if interrupt::happened() => 0,
                Amount::Publishes(all) => wanted.min(all - (self.next - first)),
            };
            self.out.clear();
            for template in template.by_ref().take(usize::try_from(wanted)?) {
                template.write(self.next, &mut self.out);
                self.next += 1;
            }
            answered.resize(usize::try_from(self.next - first)?, false);
            if !self.out.is_empty() {
                self.socket
                    .write_all(&self.out)
                    .context("fpush takes nothing any more")?;
            }
            if pushes == self.next - first {
                break;
            }
            wanted = self.replies.read(&self.socket, |reply| {
                take(&reply)?;
                let index = reply.index_from(first);
                match index.and_then(|index| answered.get_mut(index)) {
                    Some(answered) if !*answered => *answered = true,
                    _ => bail!("there is no publish {} to reply to", reply.number),
                }
                Ok(())
            })?;
            pushes += wanted;
        }
        interrupt::check()?;
        Ok(Done {
            pushes,
            elapsed: start.elapsed(),
        })
    }
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The push is with the provider, or held.
    Result,
    /// The token is dead.
    Gone,
    /// Something else.
    Refused,
}

/// The reply to a publish.
pub(super) struct Reply<'a> {
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// When it was read.
    pub(super) at: Instant,
    stanza: &'a [u8],
}

impl Reply<'_> {
    /// The position of the publish among those from the number `first` on.
    pub(super) fn index_from(&self, first: u64) -> Option<usize> {
        usize::try_from(self.number.checked_sub(first)?).ok()
    }

    fn expect(&self, expected: Kind) -> Result<()> {
        ensure!(
            self.kind == expected,
            "expected {expected:?}, but fpush answers {}",
            String::from_utf8_lossy(self.stanza)
        );
        Ok(())
    }
}

/// Reads the replies.
pub(super) struct Replies {
    bytes: Vec<u8>,
    filled: usize,
    end: Finder<'static>,
    id: Finder<'static>,
    result: Finder<'static>,
    gone: Finder<'static>,
    ping: Finder<'static>,
}

impl Replies {
    fn new() -> Self {
        Self {
            bytes: vec![0; 256 * 1024],
            filled: 0,
            end: Finder::new(END),
            id: Finder::new(" id='"),
            result: Finder::new(" type='result'"),
            gone: Finder::new("<item-not-found "),
            ping: Finder::new("urn:xmpp:ping"),
        }
    }

    /// Reads once and calls back with each reply. Returns how many there were.
    pub(super) fn read(
        &mut self,
        mut socket: &TcpStream,
        mut take: impl FnMut(Reply<'_>) -> Result<()>,
    ) -> Result<u64> {
        let count = match socket.read(&mut self.bytes[self.filled..]) {
            // Such as by the end of a program that was started meanwhile: with a time limit it is not begun again by itself.
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(0),
            read => read.with_context(|| format!("no reply in {TIMEOUT:?}"))?,
        };
        let at = Instant::now();
        ensure!(count > 0, "fpush closed the stream");
        self.filled += count;
        let (mut replies, mut done) = (0, 0);
        while let Some(stanza) = self.stanza(done)? {
            // It asks whether we are there, as the load has been elsewhere.
            if self.ping.find(stanza).is_some() {
                done += stanza.len();
                continue;
            }
            let id = self.id.find(stanza).and_then(|id| stanza.get(id + 5..));
            let reply = Reply {
                number: id.and_then(read_number).context("a reply has no id of ours")?,
                kind: self.kind(stanza),
                at,
                stanza,
            };
            take(reply)?;
            replies += 1;
            done += stanza.len();
        }
        self.bytes.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(replies)
    }

    /// The stanza that begins there, if all of it has been read. Nothing stands between replies.
    fn stanza(&self, start: usize) -> Result<Option<&[u8]>> {
        let rest = &self.bytes[start..self.filled];
        let Some(tag) = memchr::memchr(b'>', rest) else {
            return Ok(None);
        };
        let tag = &rest[..=tag];
        ensure!(
            tag.starts_with(b"<iq "),
            "fpush sends {}",
            String::from_utf8_lossy(tag)
        );
        if tag.ends_with(b"/>") {
            return Ok(Some(tag));
        }
        Ok(self.end.find(rest).map(|end| &rest[..end + END.len()]))
    }

    fn kind(&self, stanza: &[u8]) -> Kind {
        if self.result.find(stanza).is_some() {
            Kind::Result
        } else if self.gone.find(stanza).is_some() {
            Kind::Gone
        } else {
            Kind::Refused
        }
    }
}

const END: &str = "</iq>";

const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`Replies`] makes of bytes that come in parts.
    fn read(parts: &[&str]) -> Vec<(u64, Kind)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut fpush = TcpStream::connect(listener.local_addr().expect("an address")).expect("a link");
        let (server, _) = listener.accept().expect("a link");
        let (mut replies, mut read) = (Replies::new(), Vec::new());
        for part in parts {
            fpush.write_all(part.as_bytes()).expect("the link is up");
            let count = replies.read(&server, |reply| {
                read.push((reply.number, reply.kind));
                Ok(())
            });
            count.expect("the replies can be read");
        }
        read
    }

    #[test]
    fn replies_are_cut_and_told_apart() {
        let reply = "<iq type='result' from='a' id='00000000000000010000'/>\
                     <iq type='error' id='0000000000000002'>\
                     <error type='cancel'><item-not-found xmlns='x'/></error></iq>\
                     <iq type='error' id='0000000000000003'>\
                     <error type='wait'><service-unavailable xmlns='x'/></error></iq>";
        let expected = [(1, Kind::Result), (2, Kind::Gone), (3, Kind::Refused)];
        assert_eq!(read(&[reply]), expected);
        for cut in [2, 30, 60, 110, 160, reply.len() - 1] {
            assert_eq!(read(&[&reply[..cut], &reply[cut..]]), expected, "cut at {cut}");
        }
    }
}
