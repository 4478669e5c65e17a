//! How the server is reached.

use std::{future::Future, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Duration,
};

use crate::settings::ComponentSettings;

/// Opens connections to the server. The program has one that does so over TCP; a simulation has its own.
pub trait Dial {
    /// What it opens.
    type Socket: Socket;

    /// Opens one.
    fn dial(&self, settings: &ComponentSettings) -> impl Future<Output = io::Result<Self::Socket>>;
}

/// A connection to the server.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Takes it apart.
    fn halves(self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin);
}

/// Over TCP.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Dial for Tcp {
    type Socket = TcpStream;

    async fn dial(&self, settings: &ComponentSettings) -> io::Result<TcpStream> {
        let socket = TcpStream::connect((settings.server_host.as_str(), settings.server_port)).await?;
        tune(&socket)?;
        Ok(socket)
    }
}

impl Socket for TcpStream {
    fn halves(self) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
        self.into_split()
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
