//! The server's side of XEP-0114, byte by byte.
//!
//! [`FakeXmpp`] listens, [`Link`] is one component that logged in. A link answers nothing by itself, but what the
//! component sends to its own domain is routed back to it, as a server does.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, Reader};
use sha1::{Digest as _, Sha1};

use crate::cutter::{Cutter, Piece};
use crate::own_port::{OwnPort, stop_listening};
use crate::publish::escape;

/// A fake XMPP server on `127.0.0.1` for one component domain. Connections wait in the backlog until the test accepts
/// or refuses them.
pub struct FakeXmpp {
    domain: String,
    secret: String,
    stream_id: Mutex<Option<String>>,
    port: OwnPort,
    listener: Mutex<Option<TcpListener>>,
}

/// How a component is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The domain is not configured; said before the handshake.
    HostUnknown,
    /// The secret is wrong.
    NotAuthorized,
    /// The domain is connected already.
    Conflict,
    /// The connection is closed after the handshake, without a word.
    Close,
}

/// Why [`FakeXmpp::try_accept`] has no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcceptError {
    /// Nobody connected, or nobody got as far as the handshake.
    Timeout,
    /// The component asked for this other domain, and was told `host-unknown`.
    WrongDomain(String),
    /// The handshake did not fit the secret, and was answered with `not-authorized`.
    WrongSecret,
    /// This came instead of what XEP-0114 wants.
    Protocol(String),
}

impl FakeXmpp {
    /// Listens for a component.
    pub fn start(domain: &str, secret: &str) -> Self {
        let server = Self {
            domain: domain.to_owned(),
            secret: secret.to_owned(),
            stream_id: Mutex::new(None),
            port: OwnPort::take().unwrap(),
            listener: Mutex::new(None),
        };
        server.open_port();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The id of the streams from now on, unescaped; by default each stream has its own.
    pub fn set_stream_id(&self, id: &str) {
        *self.stream_id.lock().unwrap() = Some(id.to_owned());
    }

    /// Stops listening: connections are refused from now on, also those that wait. Links stay.
    pub fn close_port(&self) {
        if let Some(listener) = self.listener.lock().unwrap().take() {
            stop_listening(&listener).unwrap();
        }
    }

    /// Listens again, at the same port.
    pub fn open_port(&self) {
        let listener = self.port.listen().unwrap();
        listener.set_nonblocking(true).unwrap();
        *self.listener.lock().unwrap() = Some(listener);
    }

    /// Waits for a component and logs it in. Panics when `timeout` is over or the login is wrong.
    #[track_caller]
    pub fn accept(&self, timeout: Duration) -> Link {
        self.try_accept(timeout)
            .unwrap_or_else(|error| panic!("no component logged in: {error}"))
    }

    /// The same for tests that expect a login to fail. The component is told what is wrong as servers do.
    pub fn try_accept(&self, timeout: Duration) -> Result<Link, AcceptError> {
        let mut stream = self.open(timeout)?;
        if stream.to != self.domain {
            stream.refuse("host-unknown");
            return Err(AcceptError::WrongDomain(stream.to));
        }
        if stream.handshake()? != stream.expected_handshake(&self.secret) {
            stream.refuse("not-authorized");
            return Err(AcceptError::WrongSecret);
        }
        stream
            .socket
            .write_all(b"<handshake/>")
            .map_err(|error| AcceptError::Protocol(error.to_string()))?;
        Ok(Link::new(&self.domain, stream))
    }

    /// Waits for a component and turns it away. Panics when `timeout` is over.
    #[track_caller]
    pub fn refuse(&self, refusal: Refusal, timeout: Duration) {
        let refused = self.try_refuse(refusal, timeout);
        refused.unwrap_or_else(|error| panic!("no component could be refused: {error}"));
    }

    fn try_refuse(&self, refusal: Refusal, timeout: Duration) -> Result<(), AcceptError> {
        let mut stream = self.open(timeout)?;
        if refusal != Refusal::HostUnknown {
            stream.handshake()?;
        }
        match refusal {
            Refusal::HostUnknown => stream.refuse("host-unknown"),
            Refusal::NotAuthorized => stream.refuse("not-authorized"),
            Refusal::Conflict => stream.refuse("conflict"),
            Refusal::Close => {}
        }
        Ok(())
    }

    /// Accepts a connection and exchanges headers.
    fn open(&self, timeout: Duration) -> Result<Opening, AcceptError> {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let deadline = Instant::now() + timeout;
        let socket = loop {
            let accepted = match self.listener.lock().unwrap().as_ref() {
                Some(listener) => listener.accept(),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
            match accepted {
                Ok((socket, _)) => break socket,
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Err(_) => return Err(AcceptError::Timeout),
            }
        };
        socket.set_nonblocking(false).unwrap();
        socket.set_nodelay(true).unwrap();
        let scripted = self.stream_id.lock().unwrap().clone();
        let id = scripted.unwrap_or_else(|| format!("stream-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut stream = Opening {
            socket,
            deadline,
            cutter: Cutter::default(),
            pieces: VecDeque::new(),
            id,
            to: String::new(),
        };
        let header = match stream.next()? {
            Piece::Header(header) => header,
            other @ (Piece::Stanza(_) | Piece::End | Piece::Broken(_)) => {
                return Err(AcceptError::Protocol(format!(
                    "{other:?} instead of a stream header"
                )));
            }
        };
        stream.to =
            check_header(&header).map_err(|why| AcceptError::Protocol(format!("{why} in {header}")))?;
        let answer = format!(
            "<?xml version='1.0'?><stream:stream xmlns:stream='{STREAMS}' xmlns='{COMPONENT}' \
             from='{}' id='{}'>",
            escape(&stream.to),
            escape(&stream.id)
        );
        stream
            .socket
            .write_all(answer.as_bytes())
            .map_err(|error| AcceptError::Protocol(error.to_string()))?;
        Ok(stream)
    }
}

impl Display for AcceptError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the time is over"),
            Self::WrongDomain(domain) => write!(f, "it asked for the domain {domain:?}"),
            Self::WrongSecret => f.write_str("its handshake does not fit the secret"),
            Self::Protocol(what) => f.write_str(what),
        }
    }
}

/// A connection before the login.
struct Opening {
    socket: TcpStream,
    deadline: Instant,
    cutter: Cutter,
    pieces: VecDeque<Piece>,
    id: String,
    to: String,
}

impl Opening {
    fn next(&mut self) -> Result<Piece, AcceptError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(piece);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    return Err(AcceptError::Protocol(
                        "the component closed the connection".to_owned(),
                    ));
                }
                Ok(n) => self.pieces.extend(self.cutter.push(&buffer[..n])),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(AcceptError::Timeout);
                }
                Err(error) => return Err(AcceptError::Protocol(error.to_string())),
            }
        }
    }

    /// The text of the `<handshake>` that the component sends.
    fn handshake(&mut self) -> Result<String, AcceptError> {
        let piece = self.next()?;
        if let Piece::Stanza(stanza) = &piece
            && let Some(digest) = stanza.strip_prefix("<handshake")
            && let Some((_, digest)) = digest.split_once('>')
            && let Some(digest) = digest.strip_suffix("</handshake>")
        {
            return Ok(digest.to_owned());
        }
        Err(AcceptError::Protocol(format!("{piece:?} instead of a handshake")))
    }

    fn expected_handshake(&self, secret: &str) -> String {
        let digest = Sha1::new().chain_update(&self.id).chain_update(secret).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn refuse(&mut self, condition: &str) {
        // The component may be gone already; the test will see that from its side.
        let _ = self
            .socket
            .write_all(format!("{}</stream:stream>", stream_error(condition)).as_bytes());
        let _ = self.socket.shutdown(Shutdown::Write);
        // Closed with unread bytes, the socket would be reset and the error lost.
        self.socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let _ = io::copy(&mut self.socket, &mut io::sink());
    }
}

/// The end of a stream as the component made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whether it sent `</stream:stream>` before it closed the connection.
    pub stream_closed: bool,
}

/// A component that has logged in. Dropped, it closes the connection.
pub struct Link {
    shared: Arc<Shared>,
    received: Receiver<Received>,
    /// What was received while something else was waited for.
    kept: VecDeque<Stanza>,
    end: Option<Result<End, String>>,
    reader: Option<JoinHandle<()>>,
}

struct Stanza {
    raw: String,
    /// The id of a result or error, unescaped.
    reply_id: Option<String>,
}

enum Received {
    Stanza(Stanza),
    End(Result<End, String>),
}

/// What the reader thread and the test share.
struct Shared {
    domain: String,
    socket: TcpStream,
    /// Held while a write lasts, so that routed stanzas do not end up within others.
    writing: Mutex<()>,
    route_self: AtomicBool,
    routed: AtomicUsize,
    paused: Mutex<bool>,
    resumed: Condvar,
}

impl Link {
    fn new(domain: &str, opening: Opening) -> Self {
        let Opening {
            socket,
            cutter,
            pieces,
            ..
        } = opening;
        socket.set_read_timeout(None).unwrap();
        let shared = Arc::new(Shared {
            domain: domain.to_owned(),
            socket,
            writing: Mutex::new(()),
            route_self: AtomicBool::new(true),
            routed: AtomicUsize::new(0),
            paused: Mutex::new(false),
            resumed: Condvar::new(),
        });
        let (sender, received) = mpsc::channel();
        let reader = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.read(cutter, pieces.into(), &sender)
        });
        Self {
            shared,
            received,
            kept: VecDeque::new(),
            end: None,
            reader: Some(reader),
        }
    }

    /// Sends text as it is: a stanza, several, or a part of one.
    #[track_caller]
    pub fn send(&self, text: impl Display) {
        self.send_bytes(text.to_string());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&self, bytes: impl AsRef<[u8]>) {
        self.shared.write(bytes.as_ref()).expect("the component reads");
    }

    /// Sends bytes in pieces of `chunk` bytes, each in a packet of its own as far as TCP allows. Whatever is routed
    /// meanwhile comes after.
    #[track_caller]
    pub fn send_split(&self, bytes: impl AsRef<[u8]>, chunk: usize) {
        let _writing = self.shared.writing.lock().unwrap();
        for chunk in bytes.as_ref().chunks(chunk) {
            (&self.shared.socket)
                .write_all(chunk)
                .expect("the component reads");
            // Gives the reader on the other side the time to see this piece alone.
            thread::sleep(Duration::from_micros(20));
        }
    }

    /// The next stanza that the component sent, byte by byte. Panics when `timeout` is over or the stream ends.
    #[track_caller]
    pub fn next_stanza(&mut self, timeout: Duration) -> String {
        let deadline = Instant::now() + timeout;
        if let Some(stanza) = self.kept.pop_front() {
            return stanza.raw;
        }
        match self.receive(deadline) {
            Some(stanza) => stanza.raw,
            None => panic!("no stanza within {timeout:?}{}", self.how_it_ended()),
        }
    }

    /// Checks that the component sends nothing for this time, and has sent nothing that was not asked for yet.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        if let Some(stanza) = self.kept.pop_front().or_else(|| self.receive(deadline)) {
            panic!("wanted silence, got {}", stanza.raw);
        }
        assert!(self.end.is_none(), "wanted silence{}", self.how_it_ended());
    }

    /// The next result or error with this id, escaped or not; every other stanza is kept for later. Panics when
    /// `timeout` is over or the stream ends.
    #[track_caller]
    pub fn reply_to(&mut self, id: &str, timeout: Duration) -> Reply {
        if let Some(reply) = self.try_reply_to(id, timeout) {
            return reply;
        }
        let kept: Vec<_> = self.kept.iter().map(|stanza| &stanza.raw).collect();
        panic!(
            "no reply to {id:?} within {timeout:?}{}; other stanzas: {kept:#?}",
            self.how_it_ended()
        );
    }

    /// The same where the stream may end first: `None` if it does, or when `timeout` is over.
    #[track_caller]
    pub fn try_reply_to(&mut self, id: &str, timeout: Duration) -> Option<Reply> {
        let deadline = Instant::now() + timeout;
        let unescaped = unescape(id);
        let is_it = |stanza: &Stanza| {
            stanza
                .reply_id
                .as_deref()
                .is_some_and(|reply_id| reply_id == unescaped || reply_id == id)
        };
        if let Some(index) = self.kept.iter().position(is_it) {
            return Some(Reply::parse(&self.kept.remove(index).unwrap().raw));
        }
        while let Some(stanza) = self.receive(deadline) {
            if is_it(&stanza) {
                return Some(Reply::parse(&stanza.raw));
            }
            self.kept.push_back(stanza);
        }
        None
    }

    /// Whether iqs from the component to its own domain, whatever the localpart and the resource, go back to it as
    /// they are instead of being received by the test. On at first.
    pub fn route_self(&self, on: bool) {
        self.shared.route_self.store(on, Ordering::SeqCst);
    }

    /// How many stanzas have been routed back.
    pub fn routed(&self) -> usize {
        self.shared.routed.load(Ordering::SeqCst)
    }

    /// Stops reading from the socket, as a server that hangs: at most one more chunk is taken. `false` goes on.
    pub fn pause_reading(&self, pause: bool) {
        *self.shared.paused.lock().unwrap() = pause;
        self.shared.resumed.notify_all();
    }

    /// Ends our side of the stream with `</stream:stream>`; the component may still answer.
    pub fn close(&self) {
        // A component that has gone first needs no goodbye.
        let _ = self.shared.write(b"</stream:stream>");
    }

    /// Sends a stream error and ends our side of the stream.
    pub fn stream_error(&self, condition: &str) {
        let _ = self
            .shared
            .write(format!("{}</stream:stream>", stream_error(condition)).as_bytes());
    }

    /// Closes the connection without ending the stream.
    pub fn drop_tcp(self) {}

    /// Waits until the component has closed the connection; stanzas that come first are kept. Panics when `timeout` is
    /// over.
    #[track_caller]
    pub fn expect_end(&mut self, timeout: Duration) -> End {
        let deadline = Instant::now() + timeout;
        while let Some(stanza) = self.receive(deadline) {
            self.kept.push_back(stanza);
        }
        match &self.end {
            Some(Ok(end)) => *end,
            Some(Err(why)) => panic!("the stream broke: {why}"),
            None => panic!("the component did not close the connection within {timeout:?}"),
        }
    }

    /// The stanzas that were received and not asked for, the next included.
    pub fn pending(&mut self) -> Vec<String> {
        while let Some(stanza) = self.receive(Instant::now()) {
            self.kept.push_back(stanza);
        }
        self.kept.drain(..).map(|stanza| stanza.raw).collect()
    }

    /// The next stanza from the reader, or nothing if the time or the stream is over.
    fn receive(&mut self, deadline: Instant) -> Option<Stanza> {
        if self.end.is_some() {
            return None;
        }
        match self
            .received
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(Received::Stanza(stanza)) => Some(stanza),
            Ok(Received::End(end)) => {
                self.end = Some(end);
                None
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the reader says how it ends"),
        }
    }

    fn how_it_ended(&self) -> String {
        match &self.end {
            None => String::new(),
            Some(Ok(End { stream_closed: true })) => ", the component closed the stream".to_owned(),
            Some(Ok(End { stream_closed: false })) => ", the component closed the connection".to_owned(),
            Some(Err(why)) => format!(", the stream broke: {why}"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.shared.socket.shutdown(Shutdown::Both);
        self.pause_reading(false);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap();
        (&self.socket).write_all(bytes)
    }

    fn read(&self, mut cutter: Cutter, mut pieces: Vec<Piece>, sender: &Sender<Received>) {
        let mut buffer = vec![0; 64 * 1024];
        let mut end = End { stream_closed: false };
        loop {
            for piece in pieces {
                let received = match piece {
                    Piece::Stanza(raw) => self.take(raw),
                    Piece::End => {
                        end.stream_closed = true;
                        continue;
                    }
                    Piece::Header(raw) | Piece::Broken(raw) => {
                        Some(Received::End(Err(format!("{raw:?} between stanzas"))))
                    }
                };
                let broken = matches!(received, Some(Received::End(_)));
                // Nobody receives any more when the link is dropped.
                if received.is_some_and(|received| sender.send(received).is_err()) || broken {
                    return;
                }
            }
            let read = (&self.socket).read(&mut buffer);
            let mut paused = self.paused.lock().unwrap();
            while *paused {
                paused = self.resumed.wait(paused).unwrap();
            }
            drop(paused);
            match read {
                Ok(n @ 1..) => pieces = cutter.push(&buffer[..n]),
                // A reset ends the connection as well as a FIN.
                Ok(0) | Err(_) => {
                    let _ = sender.send(Received::End(Ok(end)));
                    return;
                }
            }
        }
    }

    /// Routes a stanza back or hands it to the test.
    fn take(&self, raw: String) -> Option<Received> {
        let start = match Start::parse(&raw) {
            Ok(start) => start,
            Err(why) => return Some(Received::End(Err(format!("{why} in {raw}")))),
        };
        match written(&raw) {
            Ok(..=MAX_STANZA) => {}
            Ok(bytes) => {
                let why = format!("{bytes} bytes where every reference is written out: {raw:.100}");
                return Some(Received::End(Err(why)));
            }
            Err(why) => return Some(Received::End(Err(format!("{why} in {raw}")))),
        }
        if start.name == "iq" && self.route_self.load(Ordering::SeqCst) && start.to_domain(&self.domain) {
            // If the component does not read any more it has ended the stream or will.
            let _ = self.write(raw.as_bytes());
            self.routed.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        let is_reply = matches!(
            (&*start.name, start.attr("type")),
            ("iq", Some("result" | "error")) | ("message", Some("error"))
        );
        let reply_id = if is_reply {
            start.attr("id").map(unescape)
        } else {
            None
        };
        Some(Received::Stanza(Stanza { raw, reply_id }))
    }
}

/// A result or error, taken apart. Attributes stand here as they were sent, still escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The whole stanza, byte by byte.
    pub raw: String,
    /// `type`: `result` or `error`.
    pub kind: String,
    /// `from`
    pub from: Option<String>,
    /// `to`
    pub to: Option<String>,
    /// `id`
    pub id: String,
    /// The type of `<error>`.
    pub error_type: Option<String>,
    /// The name of the first child of `<error>`.
    pub condition: Option<String>,
    /// All children of `<error>`, in order.
    pub error_children: Vec<ErrorChild>,
}

/// A child of `<error>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorChild {
    /// Its local name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The text in it, without references such as `&amp;`.
    pub text: String,
}

impl Reply {
    /// Takes a stanza apart. Panics if it is not a well-formed result or error.
    #[track_caller]
    pub fn parse(raw: &str) -> Self {
        Self::try_parse(raw).unwrap_or_else(|why| panic!("{why} in the reply {raw}"))
    }

    /// Whether it is a result.
    pub fn is_result(&self) -> bool {
        self.kind == "result"
    }

    /// What an error says for people: only where it stands behind the condition, as RFC 6120 has it.
    pub fn text(&self) -> Option<&str> {
        let text = self.error_children.get(1)?;
        let is_text = text.name == "text" && text.namespace == "urn:ietf:params:xml:ns:xmpp-stanzas";
        is_text.then_some(text.text.as_str())
    }

    /// Type and condition of an error, as `wait/remote-server-timeout`; `result` for a result.
    pub fn verdict(&self) -> String {
        if self.is_result() {
            return "result".to_owned();
        }
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "?".to_owned());
        format!("{}/{}", part(&self.error_type), part(&self.condition))
    }

    fn try_parse(raw: &str) -> Result<Self, String> {
        let start = Start::parse(raw)?;
        let attr = |name| start.attr(name).map(str::to_owned);
        let mut reply = Self {
            raw: raw.to_owned(),
            kind: attr("type").ok_or("no type")?,
            from: attr("from"),
            to: attr("to"),
            id: attr("id").ok_or("no id")?,
            error_type: None,
            condition: None,
            error_children: Vec::new(),
        };
        let mut reader = NsReader::from_str(raw);
        reader.config_mut().expand_empty_elements = true;
        let (mut depth, mut in_error) = (0, false);
        loop {
            let (namespace, event) = reader.read_resolved_event().map_err(|error| error.to_string())?;
            match event {
                Event::Start(tag) => {
                    depth += 1;
                    let name = local_name(&tag);
                    if depth == 2 {
                        in_error = name == "error";
                        if in_error {
                            reply.error_type = raw_attributes(&tag)?
                                .into_iter()
                                .find_map(|(name, value)| (name == "type").then_some(value));
                        }
                    } else if depth == 3 && in_error {
                        let namespace = match namespace {
                            ResolveResult::Bound(namespace) => namespace.as_ref().to_owned(),
                            ResolveResult::Unbound => COMPONENT.to_owned(),
                            ResolveResult::Unknown(prefix) => {
                                return Err(format!("unbound prefix {prefix:?}"));
                            }
                        };
                        reply.error_children.push(ErrorChild {
                            name,
                            namespace,
                            text: String::new(),
                        });
                    }
                }
                Event::End(_) => {
                    depth -= 1;
                    in_error &= depth > 1;
                }
                Event::Text(content) if depth == 3 && in_error => {
                    let child = reply.error_children.last_mut().expect("we are in it");
                    child.text.push_str(&content);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if depth != 0 {
            return Err("an element without its end".to_owned());
        }
        reply.condition = reply.error_children.first().map(|child| child.name.clone());
        Ok(reply)
    }
}

/// The start tag of a stanza, its attributes still escaped.
struct Start {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Start {
    fn parse(raw: &str) -> Result<Self, String> {
        match Reader::from_str(raw)
            .read_event()
            .map_err(|error| error.to_string())?
        {
            Event::Start(tag) | Event::Empty(tag) => Ok(Self {
                name: local_name(&tag),
                attributes: raw_attributes(&tag)?,
            }),
            other => Err(format!("{other:?} instead of a start tag")),
        }
    }

    fn attr(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Whether `to` is an address in this domain.
    fn to_domain(&self, domain: &str) -> bool {
        let Some(to) = self.attr("to") else { return false };
        let bare = to.split_once('/').map_or(to, |(bare, _)| bare);
        bare.split_once('@').map_or(bare, |(_, domain)| domain) == domain
    }
}

/// How many bytes a stanza has when a server writes every character as a reference that may be one, as Prosody does with
/// quotes in attributes.
fn written(raw: &str) -> Result<usize, String> {
    let written = |text: &str| -> usize {
        let width = |byte| match byte {
            b'&' | b'<' | b'>' | b'\'' | b'"' | b'\t' | b'\n' | b'\r' => "&quot;".len(),
            _ => 1,
        };
        text.bytes().map(width).sum()
    };
    let mut reader = Reader::from_str(raw);
    let mut bytes = 0;
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) | Event::Empty(tag) => {
                bytes += "<></>".len() + 2 * tag.name().as_ref().len();
                for (name, value) in raw_attributes(&tag)? {
                    bytes += " =''".len() + name.len() + written(&unescape(&value));
                }
            }
            Event::Text(text) => bytes += written(&text),
            Event::CData(text) => bytes += written(&text),
            Event::GeneralRef(_) => bytes += "&quot;".len(),
            Event::Eof => return Ok(bytes),
            Event::End(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// Checks a stream header against XEP-0114 and returns the domain it asks for.
fn check_header(header: &str) -> Result<String, String> {
    let start = Start::parse(header)?;
    if start.attr("xmlns") != Some(COMPONENT) {
        return Err("the default namespace is wrong".to_owned());
    }
    if start.attr("xmlns:stream") != Some(STREAMS) || !header.starts_with("<stream:stream") {
        return Err("the stream namespace is wrong".to_owned());
    }
    start
        .attr("to")
        .map(unescape)
        .ok_or_else(|| "no domain".to_owned())
}

fn stream_error(condition: &str) -> String {
    format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
}

fn local_name(tag: &BytesStart<'_>) -> String {
    tag.local_name().as_ref().to_owned()
}

fn raw_attributes(tag: &BytesStart<'_>) -> Result<Vec<(String, String)>, String> {
    let attributes = tag.attributes().map(|attribute| {
        let attribute = attribute.map_err(|error| error.to_string())?;
        Ok((attribute.key.as_ref().to_owned(), attribute.value.into_owned()))
    });
    attributes.collect()
}

/// The text behind the escapes; the text itself if there is a wrong one.
fn unescape(escaped: &str) -> String {
    quick_xml::escape::unescape(escaped).map_or_else(|_| escaped.to_owned(), Into::into)
}

/// More than that is never sent to a server, which would end the stream: how much it takes is its own decision.
const MAX_STANZA: usize = 64 * 1_024;
const COMPONENT: &str = "jabber:component:accept";
const STREAMS: &str = "http://etherx.jabber.org/streams";
