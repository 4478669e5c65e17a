//! The XMPP server's side of the link, made to be faster than what it measures: publishes are copies of a template
//! with another id and token, replies are counted by their ids, and one thread does both.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fpush_testkit::publish::prosody_publish;
use memchr::memmem::Finder;

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
            thread::sleep(Duration::from_millis(1));
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
        Ok(Link {
            socket,
            replies: Replies::new(),
            next: 0,
            out: Vec::new(),
        })
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

/// A publish in Prosody's shape, in which id and token can be replaced.
pub(super) struct Template {
    bytes: Vec<u8>,
    id: usize,
    token: usize,
}

impl Template {
    pub(super) fn new(module: &str) -> Self {
        let (id, token) = ("1".repeat(64), "2".repeat(64));
        let publish = prosody_publish(&id, &token, Some(module), true)
            .from("localhost")
            .to_string();
        let position = |text: &str| {
            publish
                .find(text)
                .expect("the publish holds its id and its token")
        };
        Self {
            id: position(&id),
            token: position(&token),
            bytes: publish.into_bytes(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn write(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for position in [self.id, self.token] {
            write_hex(number, &mut out[start + position..][..DIGITS]);
        }
    }
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
    socket: TcpStream,
    replies: Replies,
    /// The number of the next publish. No number, and so no token, is used twice.
    next: u64,
    out: Vec<u8>,
}

impl Link {
    /// Keeps so many publishes in flight, then waits for the last reply. A reply that is no `result`, that nobody
    /// waits for or that comes twice is an error.
    pub(super) fn run(&mut self, template: &Template, in_flight: u64, amount: Amount) -> Result<Done> {
        let first = self.next;
        let mut answered = Vec::new();
        let mut pushes = 0;
        let start = Instant::now();
        let mut wanted = in_flight;
        loop {
            wanted = match amount {
                Amount::Time(time) if start.elapsed() >= time || interrupt::happened() => 0,
                Amount::Time(_) => wanted,
                Amount::Publishes(_) if interrupt::happened() => 0,
                Amount::Publishes(all) => wanted.min(all - (self.next - first)),
            };
            self.out.clear();
            for _ in 0..wanted {
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
            wanted = self.replies.read(&mut self.socket, |number| {
                let index = number
                    .checked_sub(first)
                    .and_then(|index| usize::try_from(index).ok());
                match index.and_then(|index| answered.get_mut(index)) {
                    Some(answered) if !*answered => *answered = true,
                    _ => bail!("there is no publish {number} to reply to"),
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

/// Reads the replies.
struct Replies {
    bytes: Vec<u8>,
    filled: usize,
    iq: Finder<'static>,
    id: Finder<'static>,
    result: Finder<'static>,
}

impl Replies {
    fn new() -> Self {
        Self {
            bytes: vec![0; 256 * 1024],
            filled: 0,
            iq: Finder::new("<iq "),
            id: Finder::new(" id='"),
            result: Finder::new(" type='result'"),
        }
    }

    /// Reads once and calls back with the number of each publish that has its reply. Returns how many there were.
    fn read(&mut self, socket: &mut TcpStream, mut reply: impl FnMut(u64) -> Result<()>) -> Result<u64> {
        let count = socket
            .read(&mut self.bytes[self.filled..])
            .with_context(|| format!("no reply in {TIMEOUT:?}"))?;
        ensure!(count > 0, "fpush closed the stream");
        self.filled += count;
        let (mut replies, mut at) = (0, 0);
        while let Some(start) = self.iq.find(&self.bytes[at..self.filled]) {
            let tag = &self.bytes[at + start..self.filled];
            let Some(end) = memchr::memchr(b'>', tag) else {
                break;
            };
            let tag = &tag[..end];
            ensure!(
                self.result.find(tag).is_some(),
                "fpush refuses a publish: {}",
                String::from_utf8_lossy(&self.bytes[at + start..self.filled.min(at + start + 400)])
            );
            let number = self
                .id
                .find(tag)
                .and_then(|id| read_hex(tag.get(id + 5..id + 5 + DIGITS)?));
            reply(number.context("a reply has no id of ours")?)?;
            replies += 1;
            at += start + end + 1;
        }
        self.bytes.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(replies)
    }
}

fn write_hex(number: u64, digits: &mut [u8]) {
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 15];
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Digits of a number at the beginning of an id or token.
const DIGITS: usize = 16;

const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publish_has_its_own_id_and_token() {
        let template = Template::new("demo");
        let mut publishes = Vec::new();
        template.write(0xabc, &mut publishes);
        template.write(0xdef, &mut publishes);
        let text = String::from_utf8(publishes).expect("a publish is text");
        for number in ["0000000000000abc", "0000000000000def"] {
            assert_eq!(text.matches(number).count(), 2, "{text}");
        }
        assert_eq!(text.len(), 2 * template.len());
        assert_eq!(read_hex(b"0000000000000def"), Some(0xdef));
    }
}
