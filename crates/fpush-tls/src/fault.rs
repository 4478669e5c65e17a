//! What is wrong with a certificate or a handshake, in words.

use std::{error::Error, io};

use rustls::CertificateError;

/// The error of TLS that a failed connection is about, if it is.
#[must_use]
pub fn fault_of(error: &io::Error) -> Option<&rustls::Error> {
    let inner: &(dyn Error + 'static) = error.get_ref()?;
    inner.downcast_ref()
}

/// What is wrong with a certificate: the frequent ones in plain words; the certificate's names and times stay out of the log.
#[must_use]
pub fn certificate_fault(reason: &CertificateError) -> String {
    let plain = match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::UnknownIssuer => "its authority is unknown",
        CertificateError::BadSignature => "its signature is not that of the authority which it names",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name"
        }
        // What `openssl req -x509` makes.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is an authority's own, and none of a server"
        }
        other => {
            return format!("{other:?}")
                .chars()
                .take_while(|c| c.is_alphanumeric())
                .collect();
        }
    };
    plain.to_owned()
}
