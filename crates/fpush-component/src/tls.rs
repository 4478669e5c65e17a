//! TLS of a link: direct, from the first byte.

use std::{fmt, io, sync::Arc};

use fpush_tls::Trust;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// `tls`: whom to trust, and what the server's certificate must be for.
#[derive(Clone)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    /// Of the roots of the settings, to see whether they are the same.
    roots: u128,
}

impl TlsSettings {
    /// Trusts these roots, which differ from others if `roots` does. `None` if this is neither the name of a host nor an
    /// address.
    #[must_use]
    pub fn new(trust: &Trust, server_name: &str, roots: u128) -> Option<Self> {
        Some(Self {
            config: Arc::new(trust.client_config(None)),
            server_name: ServerName::try_from(server_name).ok()?.to_owned(),
            roots,
        })
    }

    /// The name or address that the server's certificate must be for.
    #[must_use]
    pub fn server_name(&self) -> String {
        self.server_name.to_str().into_owned()
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.server_name.clone(), socket).await
    }
}

impl PartialEq for TlsSettings {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.roots == other.roots
    }
}

impl Eq for TlsSettings {}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
