//! TLS handshakes on a thread of their own: each takes a signature, and strangers can ask for any number of them. The
//! thread that pushes has no time for that.

use std::{io, thread};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The thread. It also hears of what comes over the connections that began on it, so that it has to stay as long as they
/// do; it ends when this is dropped.
pub(crate) struct Handshakes {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system has no thread or no file descriptor left.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name("tls-handshakes".to_owned())
            .spawn(move || drop(runtime.block_on(ended)))?;
        Ok(Self {
            runtime: handle,
            _end: end,
        })
    }

    /// Does one handshake. Dropped, it ends the connection.
    ///
    /// # Errors
    ///
    /// The other side has gone, or does not speak TLS as we do.
    pub(crate) async fn accept(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        // Everything that happens on it from now on is told to the other thread.
        let stream = stream.into_std()?;
        let mut handshake = JoinSet::new();
        handshake.spawn_on(
            async move { acceptor.accept(TcpStream::from_std(stream)?).await },
            &self.runtime,
        );
        match handshake.join_next().await {
            Some(Ok(accepted)) => accepted,
            Some(Err(problem)) => Err(problem.into()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
