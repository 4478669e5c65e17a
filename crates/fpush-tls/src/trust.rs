//! Whom a client trusts, and as whom it presents itself.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fpush_push::{files, settings::Section, sync::lock};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

/// The client certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Puts a certificate chain, leaf first, and its private key together.
    ///
    /// # Errors
    ///
    /// The key cannot be read, or it is not the key of the first certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TrustError> {
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => TrustError::KeyMismatch,
            other => TrustError::Key(other),
        })?;
        Ok(Self(Arc::new(certified)))
    }

    /// The certificate itself, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.0
            .cert
            .first()
            .map_or(&[], |certificate| certificate.as_ref())
    }
}

/// The roots that the certificate of a provider or a server may come from.
#[derive(Clone)]
pub struct Trust {
    /// TLS with these roots and without a client certificate.
    config: Arc<ClientConfig>,
}

impl Trust {
    /// The roots of the operating system, and those of a PEM file of the operator's.
    ///
    /// # Errors
    ///
    /// The PEM file holds no certificate or a broken one, there is no root at all, or TLS cannot be set up.
    pub fn new(extra_pem: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut roots = systems_roots();
        if let Some(pem) = extra_pem {
            let roots = Arc::make_mut(&mut roots);
            let pem = files::pem(pem).map_err(|e| TrustError::Pem(e.to_string()))?;
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            let certificates = certificates.map_err(|e| TrustError::Pem(e.to_string()))?;
            if certificates.is_empty() {
                return Err(TrustError::Pem("it holds no certificate".to_owned()));
            }
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|e| TrustError::Pem(e.to_string()))?;
            }
        }
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Reads `caFilePath`: roots in PEM form that are trusted beside those of the system.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let path = section.path_of("caFilePath");
        let report = section.report();
        let pem = match section.optional_string("caFilePath") {
            Some(file) => Some(report.read_file(&path, Path::new(file))?),
            None => None,
        };
        Self::new(pem.as_deref())
            .inspect_err(|e| report.error(&path, e))
            .ok()
    }

    /// For connections as whom this certificate says.
    #[must_use]
    pub fn client_config(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.config);
        if let Some(Identity(identity)) = identity {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(identity)));
        }
        config
    }
}

/// The roots of the operating system. To read them takes some milliseconds, so all modules of one reading of the
/// settings share them; the next reading sees what has changed.
fn systems_roots() -> Arc<RootCertStore> {
    static LAST: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let mut last = lock(&LAST);
    match &*last {
        Some((at, roots)) if at.elapsed() < ONE_READING => Arc::clone(roots),
        Some(_) | None => {
            let mut roots = RootCertStore::empty();
            // A broken certificate in the system's store does not prevent a start.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let roots = Arc::new(roots);
            *last = Some((Instant::now(), Arc::clone(&roots)));
            roots
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

/// What is wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The private key cannot be used.
    #[error("the private key or the certificate cannot be used: {0}")]
    Key(rustls::Error),
    /// The operator's roots cannot be read.
    #[error("expected trusted certificates in PEM form: {0}")]
    Pem(String),
    /// Neither the system nor the settings name a root.
    #[error("this machine trusts no certificate authority; install the package ca-certificates")]
    NoRoots,
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// Longer than the settings take to be read, shorter than an operator takes to install a certificate.
const ONE_READING: Duration = Duration::from_secs(1);
