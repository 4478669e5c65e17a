//! TLS from PEM files, which are read again when they have changed: certificates are renewed while we run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fpush_registry::TlsFiles;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        problem: io::Error,
    },
    /// A file holds no certificate or no key.
    #[error("{path} holds no {wanted} in PEM: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What was found.
        problem: pem::Error,
    },
    /// Certificate and key do not belong together, or are of a kind that TLS does not take.
    #[error("{certificate} and {key} cannot be used together: {problem}")]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What rustls says.
        problem: rustls::Error,
    },
}

/// Certificate and key, as they are now.
pub(crate) struct Tls {
    files: TlsFiles,
    config: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = Mutex::new(config(&files)?);
        Ok(Self { files, config })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.lock().expect("nobody panics with this lock")).into()
    }

    /// Reads the files again whenever they have changed. Files that cannot be used change nothing. Never ends.
    pub(crate) async fn keep_fresh(&self, pause: Duration) {
        let mut seen = self.changed().await;
        loop {
            sleep(pause).await;
            let changed = self.changed().await;
            if changed == seen {
                continue;
            }
            seen = changed;
            let files = self.files.clone();
            match spawn_blocking(move || config(&files)).await {
                Ok(Ok(config)) => {
                    *self.config.lock().expect("nobody panics with this lock") = config;
                    info!("the certificate has changed and was read again");
                }
                Ok(Err(error)) => {
                    warn!(%error, "the certificate has changed and cannot be used; the old one stays");
                }
                Err(_) => warn!("the certificate could not be read again; the old one stays"),
            }
        }
    }

    /// When the files were last changed.
    async fn changed(&self) -> [Option<SystemTime>; 2] {
        let TlsFiles { certificate, key } = self.files.clone();
        let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        spawn_blocking(move || [changed(&certificate), changed(&key)])
            .await
            .unwrap_or_default()
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsFiles { certificate, key } = files;
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| {
            if chain.is_empty() {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|problem| TlsError::Malformed {
            path: certificate.clone(),
            wanted: "certificate",
            problem,
        })?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|problem| TlsError::Malformed {
        path: key.clone(),
        wanted: "private key",
        problem,
    })?;
    let unusable = |problem| TlsError::Unusable {
        certificate: certificate.clone(),
        key: key.clone(),
        problem,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|problem| TlsError::Unreadable {
        path: path.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use fpush_testkit::temp_dir::TempDir;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::{io::duplex, time::timeout};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Writes a new certificate and its key, and returns the certificate.
    fn renew(dir: &TempDir) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        dir.write("cert.pem", cert.pem());
        dir.write("key.pem", signing_key.serialize_pem());
        cert.der().clone()
    }

    /// Whether a client that trusts this certificate alone is served.
    async fn serves(tls: &Tls, certificate: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (client, server) = duplex(65_536);
        let name = ServerName::try_from("localhost").unwrap();
        let (client, _) = tokio::join!(
            TlsConnector::from(Arc::new(config)).connect(name, client),
            tls.acceptor().accept(server),
        );
        client.is_ok()
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_served_and_a_broken_one_is_not() {
        let dir = TempDir::new();
        let first = renew(&dir);
        let files = TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let tls = Tls::load(files).unwrap();
        let pause = Duration::from_millis(20);
        let change = async {
            sleep(5 * pause).await;
            dir.write("cert.pem", "-----BEGIN");
            sleep(5 * pause).await;
            assert!(serves(&tls, &first).await, "the old one stays");
            let second = renew(&dir);
            let renewed = async {
                while !serves(&tls, &second).await {
                    sleep(pause).await;
                }
            };
            timeout(Duration::from_secs(10), renewed).await.unwrap();
            assert!(!serves(&tls, &first).await);
        };
        tokio::select! {
            () = tls.keep_fresh(pause) => unreachable!("it never ends"),
            () = change => {}
        }
    }
}
