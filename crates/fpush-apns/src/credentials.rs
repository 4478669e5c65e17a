//! Reading what the operator got from Apple.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use fpush_client::{Identity, TrustError};
use p12_keystore::KeyStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("the PKCS#12 file cannot be opened: the password is wrong")]
    Password,
    #[error("expected a PKCS#12 file (.p12 or .pfx): {0}")]
    Pkcs12(String),
    #[error(
        "the PKCS#12 file holds no private key that one of its certificates names; export the certificate \
         together with its private key"
    )]
    Orphan,
    #[error("expected a certificate in PEM form (BEGIN CERTIFICATE)")]
    CertificatePem,
    #[error("expected a private key in PEM form (BEGIN PRIVATE KEY) without a password")]
    KeyPem,
    #[error("{0}")]
    Identity(#[from] TrustError),
    #[error("the certificate cannot be read")]
    Certificate,
}

/// Reads certificate and key from a PKCS#12 file, also from one with the old RC2 and 3DES suites that
/// Keychain exports.
pub(crate) fn from_pkcs12(file: &[u8], password: &str) -> Result<Identity, CredentialError> {
    let store = KeyStore::from_pkcs12(file, password).map_err(|e| match e {
        p12_keystore::error::Error::MacError(_) => CredentialError::Password,
        other => CredentialError::Pkcs12(other.to_string()),
    })?;
    let (_, entry) = store.private_key_chain().ok_or(CredentialError::Orphan)?;
    let chain = entry
        .chain()
        .iter()
        .map(|certificate| CertificateDer::from(certificate.as_der().to_vec()));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(entry.key().to_vec()));
    Ok(Identity::new(chain.collect(), key)?)
}

/// Puts a certificate (chain) and a key in PEM form together.
pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Identity, CredentialError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| CredentialError::CertificatePem)?;
    if chain.is_empty() {
        return Err(CredentialError::CertificatePem);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CredentialError::KeyPem)?;
    Ok(Identity::new(chain, key)?)
}

/// What a certificate says of itself.
#[derive(Debug)]
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
    pub(crate) fn of(identity: &Identity) -> Result<Self, CredentialError> {
        let (_, certificate) =
            X509Certificate::from_der(identity.certificate()).map_err(|_| CredentialError::Certificate)?;
        let validity = certificate.validity();
        let time = |time: ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        Ok(Self {
            subject: certificate.subject().to_string(),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            from: validity.not_before.to_datetime().to_string(),
            until: validity.not_after.to_datetime().to_string(),
        })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use fpush_testkit::certs::fixture;

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        fs::read(fixture(name)).unwrap()
    }

    #[test]
    fn all_three_kinds_of_pkcs12_hold_the_same_certificate() {
        let pem = from_pem(&file("aps.pem"), &file("aps.key.pem")).unwrap();
        for name in ["aes.p12", "3des.p12", "rc2.p12"] {
            let identity = from_pkcs12(&file(name), "test").unwrap();
            assert_eq!(identity.certificate(), pem.certificate(), "{name}");
        }
    }

    #[test]
    fn a_wrong_password_is_called_so() {
        for name in ["aes.p12", "3des.p12", "rc2.p12"] {
            let error = from_pkcs12(&file(name), "wrong").unwrap_err();
            assert!(matches!(error, CredentialError::Password), "{name}: {error}");
        }
        assert!(matches!(
            from_pkcs12(b"no file", "test"),
            Err(CredentialError::Pkcs12(_))
        ));
    }

    #[test]
    fn a_key_that_no_certificate_names_is_reported() {
        for name in ["orphan.p12", "no-key-id.p12"] {
            assert!(
                matches!(from_pkcs12(&file(name), "test"), Err(CredentialError::Orphan)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_reported() {
        let error = from_pem(&file("aps.pem"), &file("other.key.pem")).unwrap_err();
        assert!(
            matches!(error, CredentialError::Identity(TrustError::KeyMismatch)),
            "{error}"
        );
    }

    #[test]
    fn files_that_are_something_else_are_reported() {
        let (certificate, key) = (file("aps.pem"), file("aps.key.pem"));
        assert!(matches!(
            from_pem(&key, &key),
            Err(CredentialError::CertificatePem)
        ));
        assert!(matches!(
            from_pem(&certificate, &certificate),
            Err(CredentialError::KeyPem)
        ));
    }

    #[test]
    fn subject_and_expiry_are_read() {
        let identity = from_pem(&file("expired.pem"), &file("expired.key.pem")).unwrap();
        let validity = Validity::of(&identity).unwrap();
        assert!(validity.subject.contains("Apple Push Services: org.example.app"));
        assert!(validity.not_after < SystemTime::now());
        assert!(validity.until.starts_with("2021-01-01"), "{}", validity.until);
    }
    #[test]
    fn a_certificate_that_is_not_good_now_is_trouble() {
        let validity = Validity::of(&from_pem(&file("aps.pem"), &file("aps.key.pem")).unwrap()).unwrap();
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
