//! TLS in front of a server that has none, as stunnel has it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::serving::Serving;

/// Takes connections with TLS on `127.0.0.1` and passes on what they carry to a port there. It stops on drop, and ends its
/// connections.
pub struct TlsFront {
    serving: Serving,
}

impl TlsFront {
    /// One in front of this port.
    pub fn start(config: Arc<ServerConfig>, port: u16) -> Self {
        let acceptor = TlsAcceptor::from(config);
        let serving = Serving::start("TLS front", async move |listener| {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Clients that do not trust us end the handshake.
                    let Ok(mut tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        // However it ends, there is nothing more to pass on.
                        let _ = copy_bidirectional(&mut tls, &mut server).await;
                    }
                });
            }
        });
        Self { serving }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.serving.address().port()
    }
}
