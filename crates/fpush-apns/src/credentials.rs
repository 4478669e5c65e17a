//! Reading what the operator got from Apple.

use std::{
    borrow::Cow,
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use fpush_client::{Identity, TrustError};
use fpush_push::files::{self, NotText};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject as _},
    },
};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

use crate::{
    pkcs12::{self, Pkcs12Error},
    purpose::{Objection, Wanted, objection},
};

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("{0}")]
    Pkcs12(#[from] Pkcs12Error),
    #[error("expected a PKCS#12 file (.p12 or .pfx), found PEM; name the file of its key in certKeyFilePath")]
    PemForPkcs12,
    #[error("expected a certificate in PEM form, found a PKCS#12 file; name its password in certPassword")]
    Pkcs12ForPem,
    #[error(
        "the PKCS#12 file holds no private key that belongs to one of its certificates; export the certificate together \
         with its private key"
    )]
    Orphan,
    #[error("expected a certificate in PEM form (BEGIN CERTIFICATE){0}")]
    CertificatePem(Found),
    #[error("expected a private key in PEM form (BEGIN PRIVATE KEY) without a password{0}")]
    KeyPem(Found),
    #[error(
        "the private key is encrypted with a password; take it off: openssl pkey -in key.pem -out new.pem"
    )]
    Encrypted,
    #[error("{0}")]
    CertificateText(NotText),
    #[error("{0}")]
    KeyText(NotText),
    #[error("{0}")]
    Identity(#[from] TrustError),
    #[error("the certificate cannot be read")]
    Certificate,
}

impl CredentialError {
    /// The key in the settings whose file is wrong.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::KeyPem(_) | Self::KeyText(_) | Self::Encrypted => "certKeyFilePath",
            Self::Pkcs12(_)
            | Self::PemForPkcs12
            | Self::Pkcs12ForPem
            | Self::Orphan
            | Self::CertificatePem(_)
            | Self::CertificateText(_)
            | Self::Identity(_)
            | Self::Certificate => "certFilePath",
        }
    }
}

/// What was found in the place of something else, as the end of a sentence: the labels of a PEM file, which are not secret.
#[derive(Debug, Default)]
pub(crate) struct Found(String);

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Found {
    fn labels_of(pem: &str) -> Self {
        let labels = pem
            .lines()
            .filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        let is_plain =
            |label: &&str| label.len() <= 32 && label.bytes().all(|b| b.is_ascii_uppercase() || b == b' ');
        match labels.filter(is_plain).take(3).collect::<Vec<_>>().join(", ") {
            labels if labels.is_empty() => Self::default(),
            labels => Self(format!(", found {labels}")),
        }
    }
}

/// All keys and certificates that the operator's files hold, in any order.
#[derive(Debug)]
pub(crate) struct Material {
    keys: Vec<PrivateKeyDer<'static>>,
    certificates: Vec<CertificateDer<'static>>,
    is_pkcs12: bool,
}

/// How well a certificate fits: whether it may be able to send what is wanted, is good now, and surely can send it; and for how
/// long it is good.
type Rank = (bool, bool, bool, SystemTime);

/// The one certificate of them that is used.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) identity: Identity,
    pub(crate) validity: Validity,
    /// Why it cannot send the pushes that are wanted.
    pub(crate) objection: Option<Objection>,
}

impl Material {
    /// All of a PKCS#12 file.
    pub(crate) fn from_pkcs12(file: &[u8], password: &str) -> Result<Self, CredentialError> {
        let contents = pkcs12::read(file, password).map_err(|e| match e {
            Pkcs12Error::Malformed if is_pem(file) => CredentialError::PemForPkcs12,
            other => CredentialError::Pkcs12(other),
        })?;
        Ok(Self {
            keys: contents
                .keys
                .into_iter()
                .map(|key| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))
                .collect(),
            certificates: contents
                .certificates
                .into_iter()
                .map(CertificateDer::from)
                .collect(),
            is_pkcs12: true,
        })
    }

    /// All of two files in PEM form, which may be one and the same; a file in DER holds one certificate or key.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CredentialError> {
        let certificates = if is_der(certificate) {
            if X509Certificate::from_der(certificate).is_err() {
                return Err(CredentialError::Pkcs12ForPem);
            }
            vec![CertificateDer::from(certificate.to_vec())]
        } else {
            let pem = files::pem(certificate).map_err(CredentialError::CertificateText)?;
            match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, pem::Error>>() {
                Ok(certificates) if !certificates.is_empty() => certificates,
                Ok(_) | Err(_) => return Err(CredentialError::CertificatePem(Found::labels_of(&pem))),
            }
        };
        let keys = if is_der(key) {
            let key = PrivateKeyDer::try_from(key.to_vec());
            vec![key.map_err(|_| CredentialError::KeyPem(Found::default()))?]
        } else {
            let pem = files::pem(key).map_err(CredentialError::KeyText)?;
            match PrivateKeyDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, pem::Error>>() {
                Ok(keys) if !keys.is_empty() => keys,
                _ if pem.contains("ENCRYPTED") => return Err(CredentialError::Encrypted),
                Ok(_) | Err(_) => return Err(CredentialError::KeyPem(Found::labels_of(&pem))),
            }
        };
        Ok(Self {
            keys,
            certificates,
            is_pkcs12: false,
        })
    }

    /// The key and its certificate that fit best: that can send what is wanted, that are good now, that are good for the
    /// longest time. Key and certificate are matched by the public key; labels and order do not matter.
    pub(crate) fn choose(
        &self,
        wanted: Option<Wanted<'_>>,
        now: SystemTime,
    ) -> Result<Chosen, CredentialError> {
        let mut best: Option<(Rank, _, _, _, _)> = None;
        let mut unusable = None;
        for key in self.keys.iter().take(MOST_KEYS) {
            let usable = match any_supported_type(key) {
                Ok(usable) => usable,
                Err(e) => {
                    unusable = Some(e);
                    continue;
                }
            };
            let public = usable.public_key();
            for certificate in &self.certificates {
                let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
                    continue;
                };
                if public
                    .as_ref()
                    .is_none_or(|public| public.as_ref() != parsed.public_key().raw)
                {
                    continue;
                }
                let validity = Validity::of(&parsed);
                let objection = wanted.and_then(|wanted| objection(&parsed, wanted));
                // What is certain to be refused comes last, and a guess is less than the date.
                let rank = (
                    !objection.as_ref().is_some_and(|objection| objection.is_certain),
                    validity.trouble(now).is_none(),
                    objection.is_none(),
                    validity.not_after,
                );
                if best.as_ref().is_none_or(|(best, ..)| rank > *best) {
                    best = Some((rank, key, certificate, validity, objection));
                }
            }
        }
        let Some((_, key, certificate, validity, objection)) = best else {
            return Err(match unusable {
                Some(e) => TrustError::Key(e).into(),
                None if self.is_pkcs12 => CredentialError::Orphan,
                None if self
                    .certificates
                    .iter()
                    .all(|der| X509Certificate::from_der(der).is_err()) =>
                {
                    CredentialError::Certificate
                }
                None => TrustError::KeyMismatch.into(),
            });
        };
        let identity = Identity::new(self.chain(certificate), key.clone_key())?;
        Ok(Chosen {
            identity,
            validity,
            objection,
        })
    }

    /// A certificate and those that vouch for it, each once: two authorities may vouch for each other.
    fn chain(&self, leaf: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![leaf.clone()];
        let mut rest: Vec<_> = self
            .certificates
            .iter()
            .filter(|certificate| *certificate != leaf)
            .filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)))
            .collect();
        // Of several of one name the one that is good for longest.
        rest.sort_by_key(|(_, parsed)| Reverse(parsed.validity().not_after.timestamp()));
        while chain.len() < LONGEST_CHAIN {
            let next = chain.last().and_then(|last| {
                let (_, last) = X509Certificate::from_der(last).ok()?;
                let issuer = last.issuer().as_raw();
                rest.iter()
                    .position(|(_, parsed)| parsed.subject().as_raw() == issuer)
            });
            match next {
                Some(index) => chain.push(rest.remove(index).0.clone()),
                None => break,
            }
        }
        chain
    }
}

/// Whether a file is in DER: it begins with a sequence of 128 bytes or more, which is not the beginning of a text.
fn is_der(file: &[u8]) -> bool {
    matches!(file, [0x30, length, ..] if *length >= 0x80)
}

fn is_pem(file: &[u8]) -> bool {
    files::pem(file).is_ok_and(|pem| pem.contains("-----BEGIN "))
}

/// What a certificate says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Validity {
    pub(crate) subject: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// The beginning of the validity in words.
    pub(crate) from: String,
    /// The end of the validity in words.
    pub(crate) until: String,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        let time = |time: ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let (not_before, not_after) = (time(validity.not_before), time(validity.not_after));
        Self {
            subject: certificate.subject().to_string(),
            not_before,
            not_after,
            from: humantime::format_rfc3339_seconds(not_before).to_string(),
            until: humantime::format_rfc3339_seconds(not_after).to_string(),
        }
    }

    /// Whether Apple refuses the certificate because its time is over.
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Why Apple does not take the certificate now, in words with what to do.
    pub(crate) fn trouble(&self, now: SystemTime) -> Option<Cow<'static, str>> {
        if self.has_expired(now) {
            let until = &self.until;
            let what = format!(
                "the certificate expired on {until}: Apple refuses it; get a new one at developer.apple.com, under \
                 Certificates, or check the clock of this machine if it says so by mistake"
            );
            return Some(what.into());
        }
        let from = &self.from;
        (now < self.not_before).then(|| {
            format!("the certificate is good only from {from} on: the clock of this machine is wrong; set it")
                .into()
        })
    }
}

/// Nobody has more in one file.
const MOST_KEYS: usize = 100;
/// Apple's have three certificates.
const LONGEST_CHAIN: usize = 8;

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs};

    use fpush_testkit::{TestCa, certs::fixture};

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        fs::read(fixture(name)).unwrap()
    }

    fn pem(certificate: &str, key: &str) -> Result<Material, CredentialError> {
        Material::from_pem(&file(certificate), &file(key))
    }

    fn chosen(material: Result<Material, CredentialError>) -> Chosen {
        material.unwrap().choose(None, SystemTime::now()).unwrap()
    }

    #[test]
    fn a_wrong_password_is_called_so() {
        for name in ["aes.p12", "3des.p12", "rc2.p12"] {
            let error = Material::from_pkcs12(&file(name), "wrong").unwrap_err();
            assert!(
                matches!(error, CredentialError::Pkcs12(Pkcs12Error::Password)),
                "{name}: {error}"
            );
        }
        let error = Material::from_pkcs12(b"no file", "test").unwrap_err();
        assert!(matches!(error, CredentialError::Pkcs12(Pkcs12Error::Malformed)));
        let error = Material::from_pkcs12(&file("aps.pem"), "test").unwrap_err();
        assert!(matches!(error, CredentialError::PemForPkcs12));
    }

    #[test]
    fn key_and_certificate_belong_together_by_the_public_key() {
        let expected = chosen(pem("aps.pem", "aps.key.pem"));
        for name in ["aes.p12", "3des.p12", "rc2.p12", "no-key-id.p12"] {
            let found = chosen(Material::from_pkcs12(&file(name), "test"));
            assert_eq!(
                found.identity.certificate(),
                expected.identity.certificate(),
                "{name}"
            );
        }
        let orphan = Material::from_pkcs12(&file("orphan.p12"), "test").unwrap();
        let error = orphan.choose(None, SystemTime::now()).unwrap_err();
        assert!(matches!(error, CredentialError::Orphan), "{error}");
        let error = pem("aps.pem", "other.key.pem")
            .unwrap()
            .choose(None, SystemTime::now())
            .unwrap_err();
        assert!(
            matches!(error, CredentialError::Identity(TrustError::KeyMismatch)),
            "{error}"
        );
    }

    /// All of these vouch for each other, as far as their names say it.
    #[test]
    fn a_chain_has_each_certificate_once_and_an_end() {
        let authorities: Vec<_> = (0..20).map(|_| TestCa::new()).collect();
        let leaf = authorities[0].client_cert("leaf", SystemTime::now() + Duration::from_secs(86_400));
        let all = authorities.iter().map(TestCa::pem).collect::<String>() + &leaf.cert_pem;
        for (certificates, length) in [
            (&*all, LONGEST_CHAIN),
            (&(authorities[0].pem() + &leaf.cert_pem), 2),
        ] {
            let material = Material::from_pem(certificates.as_bytes(), leaf.key_pem.as_bytes()).unwrap();
            let chain = material.chain(&leaf.cert_der);
            let each: HashSet<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
            assert_eq!((chain.len(), each.len()), (length, length));
            assert_eq!(chain[0], leaf.cert_der);
        }
    }

    #[test]
    fn files_that_are_something_else_are_reported() {
        let error = pem("aps.key.pem", "aps.key.pem").unwrap_err();
        assert!(matches!(error, CredentialError::CertificatePem(_)), "{error}");
        let error = pem("aps.pem", "aps.pem").unwrap_err();
        assert!(matches!(error, CredentialError::KeyPem(_)), "{error}");
        assert!(error.to_string().ends_with("found CERTIFICATE"), "{error}");
        let error = pem("aes.p12", "aps.key.pem").unwrap_err();
        assert!(matches!(error, CredentialError::Pkcs12ForPem), "{error}");
    }

    #[test]
    fn subject_and_expiry_are_read() {
        let validity = chosen(pem("expired.pem", "expired.key.pem")).validity;
        assert!(validity.subject.contains("Apple Push Services: org.example.app"));
        assert!(validity.not_after < SystemTime::now());
        assert!(validity.until.starts_with("2021-01-01"), "{}", validity.until);
    }

    #[test]
    fn a_certificate_that_is_not_good_now_is_trouble() {
        let validity = chosen(pem("aps.pem", "aps.key.pem")).validity;
        let second = Duration::from_secs(1);
        let trouble = |now| validity.trouble(now).unwrap_or_default();
        assert_eq!(trouble(validity.not_before), "");
        assert_eq!(trouble(validity.not_after), "");
        let early = trouble(validity.not_before - second);
        assert!(
            early.contains("clock") && early.contains(&validity.from),
            "{early}"
        );
        let late = trouble(validity.not_after + second);
        assert!(
            late.contains("expired") && late.contains(&validity.until),
            "{late}"
        );
    }
}
