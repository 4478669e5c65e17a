//! How the server is reached.

use std::{future::Future, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::TcpStream,
    time::Duration,
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::settings::LinkSettings;

/// Opens connections to servers. The program has one that does so over the network; a simulation has its own.
pub trait Dial: Clone + Send + Sync + 'static {
    /// What it opens.
    type Socket: Socket;

    /// Opens one.
    fn dial(&self, settings: &LinkSettings) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// A connection to the server.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Takes it apart.
    fn halves(self) -> (impl AsyncRead + Unpin + Send, impl AsyncWrite + Unpin + Send);
}

/// Over the network.
#[derive(Clone, Debug)]
pub(crate) struct Net;

impl Dial for Net {
    type Socket = NetSocket;

    async fn dial(&self, settings: &LinkSettings) -> io::Result<NetSocket> {
        let socket = TcpStream::connect((settings.server_host.as_str(), settings.server_port)).await?;
        tune(&socket)?;
        Ok(match &settings.tls {
            None => Either::Left(socket),
            Some(tls) => Either::Right(Box::new(tls.connect(socket).await?)),
        })
    }
}

/// Over TCP, without or with TLS.
type NetSocket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Socket for NetSocket {
    fn halves(self) -> (impl AsyncRead + Unpin + Send, impl AsyncWrite + Unpin + Send) {
        // The halves of TLS share a lock, which plain ones do without.
        match self {
            Self::Left(socket) => {
                let (reader, writer) = socket.into_split();
                (Either::Left(reader), Either::Left(writer))
            }
            Self::Right(socket) => {
                let (reader, writer) = split(socket);
                (Either::Right(reader), Either::Right(writer))
            }
        }
    }
}

/// A reply must not wait for the next one, and a connection that has died must be noticed.
fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

const KEEPALIVE: Duration = Duration::from_secs(30);
/// What was sent must be acknowledged by the other machine's kernel within this time.
const USER_TIMEOUT: Duration = Duration::from_secs(45);
