//! The certificate of a listener, which is renewed while we run.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fpush_push::{files, settings, sync::lock};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file is not text.
    #[error("cannot read {path}: {problem}")]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: files::NotText,
    },
    /// A file holds no certificate or no key.
    #[error("{path} holds no {wanted}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What was found.
        problem: pem::Error,
    },
    /// A file holds what the other one should.
    #[error("{path} holds no {wanted}, but a {found}: are certFilePath and keyFilePath exchanged?")]
    Exchanged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is in it.
        found: &'static str,
    },
    /// Certificate and key do not belong together.
    #[error("{certificate} and {key} cannot be used together: the certificate was issued for another key")]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Certificate or key is of a kind that TLS does not take.
    #[error("{certificate} and {key} cannot be used: {problem}")]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What rustls says.
        problem: rustls::Error,
    },
}

/// A certificate with its key, which can be used together. Two are the same if they are from the same files, and what is
/// in these is the same.
#[derive(Clone)]
pub struct ServerCertificate {
    /// The file of the certificate.
    file: PathBuf,
    /// Of both files, their names and their content.
    digest: u128,
    config: Arc<ServerConfig>,
    expiry: Option<Expiry>,
}

/// The end of a certificate.
#[derive(Clone)]
struct Expiry {
    at: SystemTime,
    /// The same in words.
    date: String,
}

/// A file in PEM form, as it was read.
pub(crate) struct PemFile {
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

impl ServerCertificate {
    /// Puts together what [`PemFile::chain`] and [`PemFile::private_key`] found in the two files.
    pub(crate) fn new(
        [certificate, key]: [&PemFile; 2],
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let unusable = |problem| {
            let (certificate, key) = (certificate.path.clone(), key.path.clone());
            match problem {
                rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate, key },
                problem => TlsError::Unusable {
                    certificate,
                    key,
                    problem,
                },
            }
        };
        let expiry = chain.first().and_then(Expiry::of);
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, private_key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            file: certificate.path.clone(),
            digest: certificate.digest() ^ key.digest().rotate_left(1),
            config: Arc::new(config),
            expiry,
        })
    }

    /// Whether clients refuse the certificate because its time is over.
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.at < now)
    }

    /// Why clients refuse the certificate or will soon, in words with what to do.
    pub(crate) fn trouble(&self, now: SystemTime) -> Option<String> {
        self.expiry.as_ref()?.trouble(now)
    }
}

impl PartialEq for ServerCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ServerCertificate {}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerCertificate").field(&self.file).finish()
    }
}

/// The certificate in use.
pub(crate) struct Tls(Mutex<ServerCertificate>);

impl Tls {
    pub(crate) fn new(certificate: ServerCertificate) -> Self {
        Self(Mutex::new(certificate))
    }

    /// From now on it is this one.
    pub(crate) fn renew(&self, certificate: ServerCertificate) {
        *lock(&self.0) = certificate;
        info!("the certificate has changed and was read again");
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&lock(&self.0).config).into()
    }

    /// When it expires, as far as that can be read.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        lock(&self.0).expiry.as_ref().map(|expiry| expiry.at)
    }

    /// Says every day that the certificate has expired or is about to; at first the settings have said so. Never ends.
    pub(crate) async fn remind(&self) {
        loop {
            sleep(DAY).await;
            let certificate = lock(&self.0).clone();
            if let Some(trouble) = certificate.trouble(SystemTime::now()) {
                warn!(file = %certificate.file.display(), "{trouble}");
            }
        }
    }
}

impl PemFile {
    /// The certificates in it.
    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let wanted = "certificate in PEM (BEGIN CERTIFICATE)";
        let content = &self.pem()?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) if PrivateKeyDer::from_pem_slice(content).is_ok() => Err(TlsError::Exchanged {
                path: self.path.clone(),
                wanted,
                found: "private key",
            }),
            chain => Err(TlsError::Malformed {
                path: self.path.clone(),
                wanted,
                problem: chain.err().unwrap_or(pem::Error::NoItemsFound),
            }),
        }
    }

    /// The key in it.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let wanted = "private key in PEM without a password (BEGIN PRIVATE KEY)";
        let content = &self.pem()?;
        PrivateKeyDer::from_pem_slice(content).map_err(|problem| {
            let path = self.path.clone();
            match CertificateDer::from_pem_slice(content) {
                Ok(_) => TlsError::Exchanged {
                    path,
                    wanted,
                    found: "certificate",
                },
                Err(_) => TlsError::Malformed {
                    path,
                    wanted,
                    problem,
                },
            }
        })
    }

    /// What it says, whatever editor wrote it.
    fn pem(&self) -> Result<Vec<u8>, TlsError> {
        let text = files::pem(&self.content).map(String::into_bytes);
        text.map_err(|problem| TlsError::NotText {
            path: self.path.clone(),
            problem,
        })
    }

    fn digest(&self) -> u128 {
        let path = self.path.as_os_str().as_encoded_bytes();
        settings::digest(path) ^ settings::digest(&self.content).rotate_left(1)
    }
}

impl Expiry {
    /// That of a certificate, as far as it can be read.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let end = certificate.validity().not_after;
        let seconds = u64::try_from(end.timestamp()).ok()?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(Self {
            at,
            date: humantime::format_rfc3339_seconds(at).to_string(),
        })
    }

    /// Why clients refuse the certificate or will soon, in words with what to do.
    fn trouble(&self, now: SystemTime) -> Option<String> {
        let date = &self.date;
        match self.at.duration_since(now) {
            Ok(left) if left >= 30 * DAY => None,
            Ok(_) => Some(format!("the certificate expires on {date}; renew it soon")),
            Err(_) => Some(format!(
                "the certificate expired on {date}: clients refuse it; renew it, or check the clock of this machine if \
                 it says so by mistake"
            )),
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use fpush_testkit::Written;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::{io::duplex, time::timeout};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A certificate that ends then, in files of these names.
    fn certificate((year, month, day): (i32, u8, u8)) -> (ServerCertificate, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let issued = params.self_signed(&key).unwrap();
        let file = |path: &str, content: String| PemFile {
            path: path.into(),
            content: content.into_bytes(),
        };
        let files = [
            file("cert.pem", issued.pem()),
            file("key.pem", key.serialize_pem()),
        ];
        let (chain, private_key) = (files[0].chain().unwrap(), files[1].private_key().unwrap());
        let certificate = ServerCertificate::new(files.each_ref(), chain, private_key).unwrap();
        (certificate, issued.der().clone())
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
    async fn a_renewed_certificate_is_served() {
        let ((first, first_der), (second, second_der)) =
            (certificate((2100, 1, 1)), certificate((2100, 1, 1)));
        assert!(first == first.clone() && first != second);
        let tls = Tls::new(first);
        assert!(serves(&tls, &first_der).await);
        tls.renew(second);
        assert!(serves(&tls, &second_der).await && !serves(&tls, &first_der).await);
    }

    #[test]
    fn the_end_of_the_certificate_in_use_is_known() {
        let (certificate, _) = certificate((2033, 5, 18));
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_999_987_200);
        assert_eq!(Tls::new(certificate.clone()).expires(), Some(midnight));
        let trouble = |now| certificate.trouble(now).unwrap_or_default();
        assert_eq!(trouble(midnight - 30 * DAY), "");
        let soon = trouble(midnight - 30 * DAY + Duration::from_secs(1));
        assert!(soon.contains("expires on 2033-05-18"), "{soon}");
        let late = trouble(midnight + Duration::from_secs(1));
        assert!(late.contains("expired on 2033-05-18"), "{late}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_day_the_log_says_that_a_certificate_has_expired() {
        let tls = Tls::new(certificate((2021, 1, 1)).0);
        let log = Written::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let days = DAY * 2 + DAY / 2;
        assert!(timeout(days, tls.remind()).await.is_err());
        let log = log.text();
        assert_eq!(
            log.matches("the certificate expired on 2021-01-01").count(),
            2,
            "{log}"
        );
    }
}
