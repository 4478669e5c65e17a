//! The server: takes the component's connections, sends what it is told to, and reads the replies.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use fpush_component::{Dial, LinkSettings, Socket};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf,
        duplex, split,
    },
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

use crate::{
    books::Shared,
    stanzas::{Answer, COMPONENT, attribute, cut, is_stream},
};

#[derive(Clone)]
pub(crate) struct Net {
    books: Shared,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_away: bool,
    links: u64,
    link: Option<(u64, UnboundedSender<Order>)>,
}

/// What a link is to do.
pub(crate) enum Order {
    Send(String),
    /// It ends the stream.
    Close,
    /// The connection is gone.
    Drop,
}

impl Net {
    pub(crate) fn new(books: Shared) -> Self {
        Self {
            books,
            state: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes connections.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
    }

    /// The link that is up.
    pub(crate) fn link(&self) -> Option<u64> {
        self.lock().link.as_ref().map(|(number, _)| *number)
    }

    pub(crate) fn order(&self, order: Order) {
        if let Some((_, link)) = &self.lock().link {
            drop(link.send(order));
        }
    }

    /// The daemon is gone.
    pub(crate) fn reset(&self) {
        self.lock().link = None;
    }

    async fn serve(self, stream: DuplexStream, number: u64) {
        let (mut reader, mut writer) = split(stream);
        let mut buffer = String::new();
        if self.log_in(&mut reader, &mut writer, &mut buffer).await.is_err() {
            return;
        }
        let (sender, mut orders) = unbounded_channel();
        self.lock().link = Some((number, sender.clone()));
        self.books.lock().tell(&format!("link {number} is up"));
        let ours = self.clone();
        let reading = tokio::spawn(async move { ours.read(reader, buffer, &sender).await });
        write(&mut writer, &mut orders, !number.is_multiple_of(4)).await;
        reading.abort();
        {
            let mut state = self.lock();
            if state.link.as_ref().is_some_and(|(up, _)| *up == number) {
                state.link = None;
            }
        }
        let mut books = self.books.lock();
        books.tell(&format!("link {number} is down"));
        books.link_lost(number);
    }

    async fn log_in<R, W>(&self, reader: &mut R, writer: &mut W, buffer: &mut String) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let piece = next(reader, buffer).await?;
            if is_stream(&piece) {
                let header = format!(
                    "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                     xmlns:stream='http://etherx.jabber.org/streams' id='s1' from='{COMPONENT}'>"
                );
                writer.write_all(header.as_bytes()).await?;
            } else if piece.starts_with("<handshake") {
                return writer.write_all(b"<handshake/>").await;
            }
        }
    }

    async fn read(
        self,
        mut reader: ReadHalf<DuplexStream>,
        mut buffer: String,
        link: &UnboundedSender<Order>,
    ) {
        while let Ok(piece) = next(&mut reader, &mut buffer).await {
            if piece.starts_with("</") {
                break;
            }
            let Some(to) = attribute(&piece, "to") else {
                self.books.lock().fail("a stanza without an address".to_owned());
                continue;
            };
            if to.ends_with(COMPONENT) {
                // It talks to itself.
                drop(link.send(Order::Send(piece)));
            } else if let (Some(id), Some(answer)) = (attribute(&piece, "id"), Answer::read(&piece)) {
                self.books.lock().replied(id, &answer);
            } else {
                self.books.lock().fail(format!("this is not a reply: {piece}"));
            }
        }
        drop(link.send(Order::Drop));
    }
}

/// Does what it is told. Some servers send a blank when they have been silent for a while, others are pinged then.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    orders: &mut UnboundedReceiver<Order>,
    sends_blanks: bool,
) {
    loop {
        let order = match timeout(BLANK, orders.recv()).await {
            Ok(Some(order)) => order,
            Ok(None) => return,
            Err(_) if sends_blanks => Order::Send(" ".to_owned()),
            Err(_) => continue,
        };
        match order {
            Order::Send(text) => {
                if writer.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Order::Close => {
                drop(writer.write_all(b"</stream:stream>").await);
                // What is answered meanwhile is read.
                sleep(Duration::from_millis(200)).await;
                return;
            }
            Order::Drop => return,
        }
    }
}

async fn next(reader: &mut (impl AsyncRead + Unpin), buffer: &mut String) -> io::Result<String> {
    loop {
        if let Some(piece) = cut(buffer) {
            return Ok(piece);
        }
        let mut bytes = [0; 4_096];
        let length = reader.read(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Everything that we say is ASCII.
        buffer.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

impl Dial for Net {
    type Socket = Pipe;

    async fn dial(&self, _settings: &LinkSettings) -> io::Result<Pipe> {
        let number = {
            let mut state = self.lock();
            if state.is_away {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.links += 1;
            state.links
        };
        let (ours, theirs) = duplex(PIPE);
        tokio::spawn(self.clone().serve(theirs, number));
        Ok(Pipe(ours))
    }
}

/// The component's end of a connection.
pub(crate) struct Pipe(DuplexStream);

impl Socket for Pipe {
    fn halves(self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
        split(self.0)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const BLANK: Duration = Duration::from_secs(25);
const PIPE: usize = 64 * 1_024;
