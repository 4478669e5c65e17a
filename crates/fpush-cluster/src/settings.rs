//! The settings block `cluster`.

use std::{fmt, sync::Arc, time::Duration};

use fpush_push::{files, settings::Section};
use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::address::Address;

/// What the block `cluster` says, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    pub(crate) address: Address,
    /// `prefix`: with it all names in the engine begin.
    pub(crate) prefix: String,
    /// `timeout`: a push that waited so long for the engine goes on without it.
    pub(crate) timeout: Duration,
    pub(crate) tls: Option<Tls>,
}

/// Whom TLS trusts, and as whom we present ourselves.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// `caFilePath`, in PEM form: trusted beside the roots of the system.
    roots: Option<Arc<[u8]>>,
    /// `certFilePath` and `keyFilePath`.
    client: Option<[Arc<[u8]>; 2]>,
}

impl ClusterSettings {
    /// Reads the block. Every mistake goes into the settings' report; `None` if nothing can be made of it.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let address = read_address(section);
        let prefix = match section.optional_string("prefix") {
            None => "fpush",
            Some(prefix) if is_prefix(prefix) => prefix,
            Some(_) => {
                section.error(
                    "prefix",
                    "expected 1 to 64 letters, digits, dots, colons, hyphens or underscores, such as \"fpush\"",
                );
                "fpush"
            }
        };
        let timeout = section.duration("timeout", Duration::from_millis(20));
        if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            section.error(
                "timeout",
                "expected \"1ms\" to \"1s\": for so long a push waits for the engine",
            );
        }
        let tls = Tls::read(section, address.as_ref().is_some_and(|address| address.tls));
        Some(Self {
            address: address?,
            prefix: prefix.to_owned(),
            timeout,
            tls: tls?,
        })
    }

    /// For `fpush check`: what it is, as pairs.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let tls = if self.tls.is_some() { "yes" } else { "no" };
        vec![
            ("engine", self.address.to_string()),
            ("TLS", tls.to_owned()),
            ("prefix", self.prefix.clone()),
            ("timeout", format!("{} ms", self.timeout.as_millis())),
        ]
    }
}

impl fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSettings").finish_non_exhaustive()
    }
}

impl Tls {
    /// `None` if something is wrong with it.
    fn read(section: &mut Section<'_>, wanted: bool) -> Option<Option<Self>> {
        let read = |section: &mut Section<'_>, key: &'static str| -> Result<_, ()> {
            match section.optional_file(key) {
                None => Ok(None),
                Some(file) => {
                    let path = section.path_of(key);
                    let read = if key == KEY {
                        section.report().read_secret_file(&path, &file)
                    } else {
                        section.report().read_file(&path, &file)
                    };
                    let content = read.ok_or(())?;
                    let text = files::pem(&content).map_err(|e| section.error(key, e))?;
                    Ok(Some(Arc::<[u8]>::from(text.into_bytes())))
                }
            }
        };
        let [roots, certificate, key] = [ROOTS, CERTIFICATE, KEY].map(|key| read(section, key));
        let (Ok(roots), Ok(certificate), Ok(key)) = (roots, certificate, key) else {
            return None;
        };
        let mut is_good = true;
        let mut refuse = |key: &str, message: &str| {
            section.error(key, message);
            is_good = false;
        };
        if !wanted {
            for (key, value) in [(ROOTS, &roots), (CERTIFICATE, &certificate), (KEY, &key)] {
                if value.is_some() {
                    refuse(
                        key,
                        "TLS is off; begin the URL with \"rediss\" instead of \"redis\"",
                    );
                }
            }
            return is_good.then_some(None);
        }
        if roots.as_ref().is_some_and(|pem| certificates(pem).is_none()) {
            refuse(
                ROOTS,
                "expected trusted certificates in PEM form (BEGIN CERTIFICATE)",
            );
        }
        let client = match (certificate, key) {
            (None, None) => None,
            (Some(_), None) => {
                refuse(
                    KEY,
                    "this key is missing; expected the file of the certificate's private key",
                );
                None
            }
            (None, Some(_)) => {
                refuse(
                    CERTIFICATE,
                    "this key is missing; expected the file of the client certificate",
                );
                None
            }
            (Some(certificate), Some(key)) => {
                let chain = certificates(&certificate);
                let private = PrivateKeyDer::from_pem_slice(&key);
                match (chain, private) {
                    (None, _) => refuse(
                        CERTIFICATE,
                        "expected a certificate in PEM form (BEGIN CERTIFICATE)",
                    ),
                    (_, Err(_)) => refuse(KEY, "expected a private key in PEM form (BEGIN PRIVATE KEY)"),
                    (Some(chain), Ok(private)) => {
                        if CertifiedKey::from_der(chain, private, &default_provider()).is_err() {
                            refuse(KEY, "it is not the key of the certificate in certFilePath");
                        }
                    }
                }
                Some([certificate, key])
            }
        };
        is_good.then_some(Some(Self { roots, client }))
    }

    /// In the form of the client. Reads the roots of the system.
    pub(crate) fn certificates(&self) -> TlsCertificates {
        let mut pem = Vec::new();
        for root in rustls_native_certs::load_native_certs().certs {
            pem.extend_from_slice(encoded(&root).as_bytes());
        }
        if let Some(roots) = &self.roots {
            pem.extend_from_slice(roots);
        }
        TlsCertificates {
            client_tls: self.client.as_ref().map(|[certificate, key]| ClientTlsConfig {
                client_cert: certificate.to_vec(),
                client_key: key.to_vec(),
            }),
            root_cert: Some(pem),
        }
    }
}

/// `url` or `urlFile`.
fn read_address(section: &mut Section<'_>) -> Option<Address> {
    let (url, key) = match (section.has("url"), section.has("urlFile")) {
        (true, true) => {
            let (_, _) = (section.value("url"), section.value("urlFile"));
            section.error("urlFile", "expected url or urlFile, not both");
            return None;
        }
        (false, true) => {
            section.value("url");
            let (file, path) = (section.string("urlFile")?, section.path_of("urlFile"));
            let url = section.report().read_secret_line(&path, file.as_ref())?;
            (url, "urlFile")
        }
        (_, false) => {
            section.value("urlFile");
            (section.string("url")?.to_owned(), "url")
        }
    };
    Address::parse(&url).inspect_err(|e| section.error(key, e)).ok()
}

fn is_prefix(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

fn encoded(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

const ROOTS: &str = "caFilePath";
const CERTIFICATE: &str = "certFilePath";
const KEY: &str = "keyFilePath";
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1);
