//! The HTTP/2 server under both fake providers: every request is answered as the provider's [`Service`] says, down to
//! single frames and the TCP connection itself.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::answer::{Answer, BodyEnd, GoAway, HttpReply};
use crate::serving::Serving;

/// A request as it came in.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Host and port as the client names them, and path and query.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Connections are numbered from 1, in the order of their handshakes.
    pub(crate) connection: usize,
    pub(crate) at: Instant,
    pub(crate) client_cert: bool,
}

/// What the requests are answered with.
pub(crate) trait Service: Send + Sync + 'static {
    /// The answer, in which no [`Answer::Normal`] may be left.
    fn answer(&self, request: Request) -> Answer;
}

/// What a fake provider does with connections that are not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewConnections {
    /// Serves them.
    Serve,
    /// Resets them, as a host does where nothing listens.
    Reset,
    /// Accepts them and says nothing, not even TLS.
    Ignore,
}

pub(crate) struct Options {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) delay: Option<Duration>,
}

/// A running server; it stops on drop.
pub(crate) struct Server {
    shared: Arc<Shared>,
    serving: Serving,
}

impl Server {
    pub(crate) fn start(name: &str, options: Options, service: Arc<dyn Service>) -> Self {
        let Options {
            tls,
            max_concurrent_streams,
            delay,
        } = options;
        let shared = Arc::new(Shared {
            service,
            max_concurrent_streams,
            delay,
            connections: AtomicUsize::new(0),
            failed_handshakes: AtomicUsize::new(0),
            new_connections: Mutex::new(NewConnections::Serve),
            sockets: Mutex::new(Vec::new()),
            times: Mutex::new(None),
            panicked: AtomicBool::new(false),
        });
        let serving = Serving::start(name, {
            let shared = Arc::clone(&shared);
            move |listener| accept(listener, TlsAcceptor::from(tls), shared)
        });
        Self { shared, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    pub(crate) fn failed_handshakes(&self) -> usize {
        self.shared.failed_handshakes.load(Ordering::Acquire)
    }

    pub(crate) fn set_new_connections(&self, what: NewConnections) {
        *self.shared.new_connections.lock().unwrap() = what;
    }

    /// Keeps from now on how long requests take.
    pub(crate) fn start_timing(&self) {
        *self.shared.times.lock().unwrap() = Some(Vec::new());
    }

    /// Ends the timing: the paths and times since its start.
    pub(crate) fn take_times(&self) -> Vec<(String, Duration)> {
        self.shared.times.lock().unwrap().take().unwrap_or_default()
    }

    /// From here on no byte is read from or written to the connections that exist.
    pub(crate) fn stall_existing_connections(&self) {
        for socket in self.shared.live_sockets() {
            socket.0.lock().unwrap().stalled = true;
        }
    }

    /// Resets the connections that exist, the stalled ones too.
    pub(crate) fn reset_existing_connections(&self) {
        for socket in self.shared.live_sockets() {
            socket.reset();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.end();
        // The runtime catches a panic, and a test that asserts something in its closure would pass.
        if self.shared.panicked.load(Ordering::Acquire) && !thread::panicking() {
            panic!("the answer to a request panicked, see above");
        }
    }
}

struct Shared {
    service: Arc<dyn Service>,
    max_concurrent_streams: u32,
    delay: Option<Duration>,
    connections: AtomicUsize,
    failed_handshakes: AtomicUsize,
    new_connections: Mutex<NewConnections>,
    sockets: Mutex<Vec<Weak<Mutex<SocketState>>>>,
    /// The path of each request and the time that it took, if somebody wants to know.
    times: Mutex<Option<Vec<(String, Duration)>>>,
    panicked: AtomicBool,
}

impl Shared {
    fn live_sockets(&self) -> Vec<Socket> {
        let mut sockets = self.sockets.lock().unwrap();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.iter().filter_map(Weak::upgrade).map(Socket).collect()
    }

    fn note_time(&self, path: &str, taken: Duration) {
        if let Some(times) = &mut *self.times.lock().unwrap() {
            times.push((path.to_owned(), taken));
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut ignored = Vec::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let what = *shared.new_connections.lock().unwrap();
        match what {
            NewConnections::Reset => tcp.set_zero_linger().unwrap(),
            NewConnections::Ignore => ignored.push(tcp),
            NewConnections::Serve => {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    tcp.set_nodelay(true).unwrap();
                    match acceptor.accept(tcp).await {
                        Ok(tls) => serve(tls, shared).await,
                        Err(_) => {
                            shared.failed_handshakes.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                });
            }
        }
    }
}

/// What an exchange asks of the connection it runs on.
enum Command {
    Reset,
    GoAway {
        last_stream: u32,
        reason: Reason,
        debug: String,
    },
    Drain,
    OneStream,
}

/// What the exchanges of one connection share.
struct Connection {
    shared: Arc<Shared>,
    number: usize,
    client_cert: bool,
    commands: mpsc::UnboundedSender<Command>,
}

async fn serve(tls: TlsStream<TcpStream>, shared: Arc<Shared>) {
    let client_cert = tls
        .get_ref()
        .1
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    let mut socket = Socket::new(tls);
    shared.sockets.lock().unwrap().push(Arc::downgrade(&socket.0));
    let number = shared.connections.fetch_add(1, Ordering::AcqRel) + 1;
    let (commands, mut orders) = mpsc::unbounded_channel();

    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(shared.max_concurrent_streams)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        // A client may reset as many requests as it likes.
        .max_pending_accept_reset_streams(100_000)
        .max_local_error_reset_streams(None)
        .handshake(socket.clone());
    let Ok(mut http) = handshake.await else { return };
    let connection = Arc::new(Connection {
        shared,
        number,
        client_cert,
        commands,
    });
    loop {
        let order = tokio::select! {
            // First h2, so that what it has to write is written before a command interferes.
            biased;
            request = http.accept() => match request {
                Some(Ok((request, respond))) => {
                    tokio::spawn(exchange(Arc::clone(&connection), request, respond));
                    continue;
                }
                Some(Err(_)) => return,
                // What the client has not read yet would be lost with a connection that ends beside unread bytes.
                None => return socket.end_with(&[]).await,
            },
            Some(order) = orders.recv() => order,
        };
        match order {
            Command::Drain => http.graceful_shutdown(),
            Command::OneStream => {
                socket.0.lock().unwrap().one_stream = true;
                http.enable_connect_protocol().unwrap();
            }
            Command::Reset => return socket.reset(),
            Command::GoAway {
                last_stream,
                reason,
                debug,
            } => {
                // h2 is not asked any more from here on, so that the frame is the last.
                return socket.end_with(&go_away_frame(last_stream, reason, &debug)).await;
            }
        }
    }
}

/// RFC 9113, section 6.8. Written by hand, because h2 sets neither the last stream id nor the debug data as asked.
fn go_away_frame(last_stream: u32, reason: Reason, debug: &str) -> Vec<u8> {
    let length = u32::try_from(debug.len() + 8).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([0x7, 0, 0, 0, 0, 0]);
    frame.extend(last_stream.to_be_bytes());
    frame.extend(u32::from(reason).to_be_bytes());
    frame.extend(debug.as_bytes());
    frame
}

async fn exchange(
    connection: Arc<Connection>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let at = Instant::now();
    let _panics = PanicsAreKept(Arc::clone(&connection));
    let (head, body) = request.into_parts();
    let Some(body) = read(body).await else { return };
    if let Some(delay) = connection.shared.delay {
        tokio::time::sleep(delay).await;
    }
    let mut answer = connection.shared.service.answer(Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        authority: head.uri.authority().map(ToString::to_string).unwrap_or_default(),
        path_and_query: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: head.headers,
        body,
        connection: connection.number,
        at,
        client_cert: connection.client_cert,
    });
    // A command to a connection that has ended meanwhile is of no use.
    let command = |command| drop(connection.commands.send(command));
    loop {
        match answer {
            Answer::Normal => unreachable!("a service leaves no normal answer"),
            Answer::Reply(reply) => {
                send(&mut respond, reply).await;
                return connection.shared.note_time(head.uri.path(), at.elapsed());
            }
            Answer::ResetStream(reason) => return respond.send_reset(reason),
            Answer::After(delay, next) => {
                tokio::time::sleep(delay).await;
                answer = *next;
            }
            Answer::Behind(gate, next) => {
                gate.opened().await;
                answer = *next;
            }
            Answer::Drain(next) => {
                command(Command::Drain);
                answer = *next;
            }
            Answer::OneStream(next) => {
                command(Command::OneStream);
                answer = *next;
            }
            Answer::Silence => break,
            Answer::CloseConnection => {
                command(Command::Reset);
                break;
            }
            Answer::GoAway(GoAway {
                reason,
                processed,
                debug,
            }) => {
                let id = respond.stream_id().as_u32();
                let last_stream = if processed { id } else { id.saturating_sub(2) };
                command(Command::GoAway {
                    last_stream,
                    reason,
                    debug,
                });
                break;
            }
        }
    }
    // Dropped, the handle would reset the stream; so it is kept until the client gives up.
    let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
}

/// Remembers that the task it is part of panicked.
struct PanicsAreKept(Arc<Connection>);

impl Drop for PanicsAreKept {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.shared.panicked.store(true, Ordering::Release);
        }
    }
}

async fn read(mut body: RecvStream) -> Option<Bytes> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        body.flow_control().release_capacity(chunk.len()).ok()?;
        if first.is_empty() {
            first = chunk;
        } else {
            more.extend_from_slice(&chunk);
        }
    }
    if more.is_empty() {
        return Some(first);
    }
    Some([first, more.freeze()].concat().into())
}

async fn send(respond: &mut SendResponse<Bytes>, reply: HttpReply) {
    let HttpReply {
        status,
        headers,
        body,
        end,
    } = reply;
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let response = response
        .body(())
        .expect("a scripted answer has a valid status and valid headers");
    let whole = end == BodyEnd::Proper;
    // Errors mean that the client is gone.
    let Ok(mut stream) = respond.send_response(response, whole && body.is_empty()) else {
        return;
    };
    if !body.is_empty() && end != BodyEnd::Endless {
        let _ = stream.send_data(body.clone(), whole);
    }
    match end {
        BodyEnd::Proper => {}
        BodyEnd::Stalls => drop(poll_fn(|cx| stream.poll_reset(cx)).await),
        BodyEnd::Reset => {
            // h2 drops what it has not written yet. While this sleeps, it writes.
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        BodyEnd::Endless => loop {
            stream.reserve_capacity(body.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { return };
            if stream
                .send_data(body.slice(..room.min(body.len())), false)
                .is_err()
            {
                return;
            }
        },
    }
}

/// A TLS connection that can be silenced or cut from outside.
#[derive(Clone)]
struct Socket(Arc<Mutex<SocketState>>);

struct SocketState {
    tls: TlsStream<TcpStream>,
    stalled: bool,
    reset: bool,
    /// Whether [`ENABLE_CONNECT_PROTOCOL`] means something else.
    one_stream: bool,
    /// Who reads, to be told of a reset.
    reader: Option<std::task::Waker>,
}

impl Socket {
    fn new(tls: TlsStream<TcpStream>) -> Self {
        Self(Arc::new(Mutex::new(SocketState {
            tls,
            stalled: false,
            reset: false,
            one_stream: false,
            reader: None,
        })))
    }

    /// Makes the reader end the connection, without goodbye of TLS or TCP.
    fn reset(&self) {
        let mut state = self.0.lock().unwrap();
        state.reset = true;
        let _ = state.tls.get_ref().0.set_zero_linger();
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Sends the last bytes, and waits until the client has had the time to read them.
    async fn end_with(&mut self, bytes: &[u8]) {
        if self.write_all(bytes).await.is_ok() && self.shutdown().await.is_ok() {
            let mut rest = [0; 4096];
            let client_ends = async { while matches!(self.read(&mut rest).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(Duration::from_secs(10), client_ends).await;
        }
    }

    /// Runs `io` on the stream, unless the connection is stalled or cut.
    fn poll<T>(
        &self,
        io: impl FnOnce(Pin<&mut TlsStream<TcpStream>>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = self.0.lock().unwrap();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if state.stalled {
            return Poll::Pending;
        }
        io(Pin::new(&mut state.tls))
    }
}

/// A SETTINGS frame (RFC 9113, section 6.5) that says `SETTINGS_ENABLE_CONNECT_PROTOCOL = 1`. h2 does not change the number of
/// streams of a connection, but sends this one on demand, and takes its acknowledgement: with another setting in its place it
/// allows one stream.
const ENABLE_CONNECT_PROTOCOL: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
/// Where the frame has its setting.
const SETTING: usize = 10;
const MAX_CONCURRENT_STREAMS: u8 = 3;

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll(|tls| tls.poll_read(cx, buf));
        if polled.is_pending() {
            self.0.lock().unwrap().reader = Some(cx.waker().clone());
        }
        Poll::Ready(ready!(polled))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let one_stream = self.0.lock().unwrap().one_stream;
        let mut frames = buf.windows(ENABLE_CONNECT_PROTOCOL.len());
        let place = one_stream.then(|| frames.position(|frame| frame == ENABLE_CONNECT_PROTOCOL));
        let Some(place) = place.flatten() else {
            return self.poll(|tls| tls.poll_write(cx, buf));
        };
        let mut changed = buf.to_vec();
        changed[place + SETTING] = MAX_CONCURRENT_STREAMS;
        self.poll(|tls| tls.poll_write(cx, &changed))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|tls| tls.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|tls| tls.poll_shutdown(cx))
    }
}
