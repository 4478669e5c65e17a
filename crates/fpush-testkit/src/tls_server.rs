//! A TLS server that is not a provider: it gives every connection the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::certs::{ClientAuth, TestCa};
use crate::serving::Serving;

/// A server on `127.0.0.1` that reads the first bytes of each connection, says what it was told to, and closes. It stops
/// on drop.
pub struct TlsServer {
    requests: Arc<AtomicUsize>,
    serving: Serving,
}

impl TlsServer {
    /// A server whose certificate comes from `ca`, and that offers these protocols (ALPN).
    pub fn start(ca: &TestCa, alpn: &[&str], says: impl Into<Vec<u8>>) -> Self {
        let acceptor = TlsAcceptor::from(ca.server_config(alpn, ClientAuth::Off));
        let requests = Arc::new(AtomicUsize::new(0));
        let (says, count) = (says.into(), Arc::clone(&requests));
        let serving = Serving::start("TLS server", async move |listener| {
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
        });
        Self { requests, serving }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.serving.address())
    }

    /// How many connections have said something.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}
