//! A TLS server that is no provider: it gives every connection the same bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::certs::{ClientAuth, TestCa};

/// A server on `127.0.0.1` that reads the first bytes of each connection, says what it was told to, and closes. It stops
/// on drop.
pub struct TlsServer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsServer {
    /// A server whose certificate comes from `ca`, and that offers these protocols (ALPN).
    pub fn start(ca: &TestCa, alpn: &[&str], says: impl Into<Vec<u8>>) -> Self {
        let acceptor = TlsAcceptor::from(ca.server_config(alpn, ClientAuth::Off));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let requests = Arc::new(AtomicUsize::new(0));
        let (says, count) = (says.into(), Arc::clone(&requests));
        let serving = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // Clients that do not trust us end the handshake.
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    continue;
                };
                if matches!(tls.read(&mut [0; 4_096]).await, Ok(1..)) {
                    count.fetch_add(1, Ordering::AcqRel);
                    let _ = tls.write_all(&says).await;
                    let _ = tls.shutdown().await;
                }
            }
        };
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            requests,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many connections have said something.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the thread of the TLS server panicked");
        }
    }
}
