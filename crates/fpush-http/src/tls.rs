//! TLS from PEM files, which are read again when they have changed: certificates are renewed while we run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use fpush_push::files;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::settings::TlsFiles;

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

/// Certificate and key, as they are now.
pub(crate) struct Tls {
    files: TlsFiles,
    /// As they were when they were read first.
    watch: Watch,
    current: Mutex<Current>,
}

/// What is in use.
#[derive(Clone)]
pub(crate) struct Current {
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

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: a change that comes meanwhile must be seen later.
        let watch = Watch::new(&files);
        let current = Mutex::new(Current::read(&files)?);
        Ok(Self {
            files,
            watch,
            current,
        })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current().config.into()
    }

    /// When the certificate in use expires, as far as it can be read.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.current().expiry.map(|expiry| expiry.at)
    }

    /// Reads the files again whenever they have changed. Files that cannot be used change nothing. Says every day that
    /// the certificate is about to expire; at first the settings have said so. Never ends.
    pub(crate) async fn keep_fresh(&self, pause: Duration) {
        let mut watch = self.watch;
        let mut said = Instant::now();
        loop {
            sleep(pause).await;
            if said.elapsed() >= DAY {
                said = Instant::now();
                if let Some(trouble) = self.current().trouble(SystemTime::now()) {
                    warn!(file = %self.files.certificate.display(), "{trouble}");
                }
            }
            let files = self.files.clone();
            let look = move || {
                let news = watch.look(&files);
                (watch, news)
            };
            // It would have panicked: then the next look is as this one was.
            let Ok((looked, news)) = spawn_blocking(look).await else {
                continue;
            };
            watch = looked;
            match news {
                News::Same | News::Unfit => {}
                News::Renewed(current) => {
                    *self.lock() = current;
                    info!("the certificate has changed and was read again");
                }
                News::Unusable(error) => error!(
                    %error,
                    "the certificate has changed and cannot be used; the old one stays until certFilePath and \
                     keyFilePath are right"
                ),
            }
        }
    }

    fn current(&self) -> Current {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nobody panics with this lock")
    }
}

/// What is known of the files.
#[derive(Clone, Copy)]
struct Watch {
    seen: Changed,
    /// How often they could not be used since they have changed.
    failures: u32,
}

/// When certificate and key were last changed.
type Changed = [Option<SystemTime>; 2];

/// What another look at the files brought.
enum News {
    /// Nothing has changed.
    Same,
    /// There is a new certificate.
    Renewed(Current),
    /// They cannot be used. Nobody has to know: often one of the two is not written yet, or it was said before.
    Unfit,
    /// They still cannot be used, and somebody has to know.
    Unusable(TlsError),
}

impl Watch {
    fn new(files: &TlsFiles) -> Self {
        Self {
            seen: changed(files),
            failures: 0,
        }
    }

    /// Reads the files if they have changed, and for as long as they cannot be used: a file can become readable without
    /// a change.
    fn look(&mut self, files: &TlsFiles) -> News {
        let now = Self::new(files);
        if now.seen != self.seen {
            *self = now;
        } else if self.failures == 0 {
            return News::Same;
        }
        match Current::read(files) {
            Ok(current) => {
                self.failures = 0;
                News::Renewed(current)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 2 {
                    News::Unusable(error)
                } else {
                    News::Unfit
                }
            }
        }
    }
}

fn changed(files: &TlsFiles) -> Changed {
    let TlsFiles { certificate, key } = files;
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    [changed(certificate), changed(key)]
}

impl Current {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { certificate, key } = files;
        let chain = chain(certificate, &read(certificate)?)?;
        let key = private_key(key, &read(key)?)?;
        Self::of(files, chain, key)
    }

    /// What the files held.
    pub(crate) fn of(
        files: &TlsFiles,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let unusable = |problem| {
            let TlsFiles { certificate, key } = files.clone();
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
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
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

/// The certificates in a file.
pub(crate) fn chain(file: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wanted = "certificate in PEM (BEGIN CERTIFICATE)";
    let content = &text(file, content)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) if PrivateKeyDer::from_pem_slice(content).is_ok() => Err(TlsError::Exchanged {
            path: file.to_owned(),
            wanted,
            found: "private key",
        }),
        chain => Err(TlsError::Malformed {
            path: file.to_owned(),
            wanted,
            problem: chain.err().unwrap_or(pem::Error::NoItemsFound),
        }),
    }
}

/// The key in a file.
pub(crate) fn private_key(file: &Path, content: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wanted = "private key in PEM without a password (BEGIN PRIVATE KEY)";
    let content = &text(file, content)?;
    PrivateKeyDer::from_pem_slice(content).map_err(|problem| {
        let path = file.to_owned();
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

impl Expiry {
    /// That of a certificate, as far as it can be read.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let end = certificate.validity().not_after;
        let seconds = u64::try_from(end.timestamp()).ok()?;
        Some(Self {
            at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
            date: end.to_datetime().to_string(),
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

/// What a file in PEM form says, whatever editor wrote it.
fn text(path: &Path, content: &[u8]) -> Result<Vec<u8>, TlsError> {
    let text = files::pem(content).map(String::into_bytes);
    text.map_err(|problem| TlsError::Unreadable {
        path: path.to_owned(),
        problem: io::Error::new(io::ErrorKind::InvalidData, problem),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    files::read(path, files::LARGEST).map_err(|problem| TlsError::Unreadable {
        path: path.to_owned(),
        problem,
    })
}

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use fpush_testkit::{TempDir, Written};
    use rcgen::{CertificateParams, CertifiedKey, KeyPair, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::{io::duplex, time::timeout};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Writes a certificate that ends then and its key.
    fn write_pair(dir: &TempDir, (year, month, day): (i32, u8, u8)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        dir.write("cert.pem", params.self_signed(&key).unwrap().pem());
        dir.write("key.pem", key.serialize_pem());
    }

    /// Writes a new certificate and its key, and returns the certificate.
    fn renew(dir: &TempDir) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        dir.write("cert.pem", cert.pem());
        dir.write("key.pem", signing_key.serialize_pem());
        cert.der().clone()
    }

    fn files(dir: &TempDir) -> TlsFiles {
        TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        }
    }

    /// Says that a file was changed at another time than before.
    fn touch(file: &Path, seconds: u64) {
        let file = fs::File::options().write(true).open(file).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
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
        let tls = Tls::load(files(&dir)).unwrap();
        let pause = Duration::from_millis(20);
        let change = async {
            sleep(5 * pause).await;
            dir.write("cert.pem", "-----BEGIN");
            sleep(10 * pause).await;
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

    #[test]
    fn files_that_do_not_fit_are_a_problem_the_second_time_and_are_read_until_they_fit() {
        let dir = TempDir::new();
        renew(&dir);
        let files = files(&dir);
        let mut watch = Watch::new(&files);
        assert!(matches!(watch.look(&files), News::Same));
        let key = fs::read(&files.key).unwrap();
        touch(&files.certificate, 1);
        assert!(matches!(watch.look(&files), News::Renewed(_)));
        renew(&dir);
        let new_key = fs::read(&files.key).unwrap();

        let half_way = |watch: &mut Watch, seconds| {
            fs::write(&files.key, &key).unwrap();
            touch(&files.key, seconds);
            assert!(matches!(watch.look(&files), News::Unfit));
        };
        half_way(&mut watch, 2);
        fs::write(&files.key, &new_key).unwrap();
        touch(&files.key, 3);
        assert!(matches!(watch.look(&files), News::Renewed(_)));
        assert!(matches!(watch.look(&files), News::Same));

        half_way(&mut watch, 4);
        let News::Unusable(error) = watch.look(&files) else {
            panic!("the second time");
        };
        assert!(error.to_string().contains("cannot be used together"), "{error}");
        assert!(matches!(watch.look(&files), News::Unfit), "it was said");
        fs::write(&files.key, &new_key).unwrap();
        touch(&files.key, 4);
        assert!(
            matches!(watch.look(&files), News::Renewed(_)),
            "though it seems unchanged"
        );
    }

    #[test]
    fn the_end_of_the_certificate_in_use_is_known() {
        let dir = TempDir::new();
        write_pair(&dir, (2033, 5, 18));
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_999_987_200);
        let tls = Tls::load(files(&dir)).unwrap();
        assert_eq!(tls.expires(), Some(midnight));
        let trouble = |now| tls.current().trouble(now).unwrap_or_default();
        assert_eq!(trouble(midnight - 30 * DAY), "");
        let soon = trouble(midnight - 30 * DAY + Duration::from_secs(1));
        assert!(soon.contains("expires on 2033-05-18"), "{soon}");
        let late = trouble(midnight + Duration::from_secs(1));
        assert!(late.contains("expired on 2033-05-18"), "{late}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_day_the_log_says_that_a_certificate_has_expired() {
        let dir = TempDir::new();
        write_pair(&dir, (2021, 1, 1));
        let tls = Tls::load(files(&dir)).unwrap();
        let log = Written::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let days = DAY * 2 + DAY / 2;
        assert!(timeout(days, tls.keep_fresh(DAY / 4)).await.is_err());
        let log = log.text();
        assert_eq!(
            log.matches("the certificate expired on 2021-01-01").count(),
            2,
            "{log}"
        );
    }
}
