//! The key that a module signs with (VAPID, RFC 8292): a key pair of P-256, for ever the one that its apps subscribed with.

use std::fmt;

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    error::Unspecified,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use fpush_push::files;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::encoding::{decode, encode};

/// A key pair. It is not shown.
pub(crate) struct VapidKey {
    pair: EcdsaKeyPair,
    public: String,
}

/// Why a file holds no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is neither PEM nor DER nor base64url.
    #[error(
        "expected a private key of P-256: PEM, or the 32 bytes in base64url that tools for VAPID print; \"fpush vapid new FILE\" makes \
         one"
    )]
    Unreadable,
    /// It is a key of another kind.
    #[error(
        "this private key is not one of P-256 (prime256v1), which VAPID wants; \"fpush vapid new FILE\" makes one"
    )]
    Kind,
}

/// A key that was made just now.
pub struct NewKey {
    /// The private key, PKCS#8 in PEM.
    pub pem: String,
    /// The public key, as apps subscribe with it.
    pub public: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Makes a key.
///
/// # Errors
///
/// The system has no randomness to give.
pub fn new_key() -> Result<NewKey, Unspecified> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let der = pair.to_pkcs8v1()?;
    let base64 = BASE64_STANDARD.encode(der.as_ref());
    let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(NewKey {
        pem,
        public: encode(pair.public_key()),
    })
}

impl VapidKey {
    /// Reads a private key: PKCS#8 or SEC1 in PEM or DER, or its bare number in base64url.
    pub(crate) fn read(content: &[u8]) -> Result<Self, KeyError> {
        let pair = if content.starts_with(&[DER_SEQUENCE]) {
            of_der(content)?
        } else {
            let text = files::pem(content).map_err(|_| KeyError::Unreadable)?;
            if text.contains("-----BEGIN") {
                let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Unreadable)?;
                of_der(der.secret_der())?
            } else {
                of_number(text.trim())?
            }
        };
        let public = encode(pair.public_key());
        Ok(Self { pair, public })
    }

    /// The public key, as apps subscribe with it: 65 bytes in base64url.
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// Signs with ES256 (RFC 7518 section 3.4), in base64url.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<String, Unspecified> {
        Ok(encode(self.pair.sign(&SystemRandom::new(), message)?))
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VapidKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

fn of_der(der: &[u8]) -> Result<EcdsaKeyPair, KeyError> {
    let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
    pair.map_err(|_| KeyError::Kind)
}

fn of_number(text: &str) -> Result<EcdsaKeyPair, KeyError> {
    let number: [u8; 32] = decode(text).ok_or(KeyError::Unreadable)?;
    let private = PrivateKey::from_private_key(&ECDH_P256, &number).map_err(|_| KeyError::Kind)?;
    let public = private.compute_public_key().map_err(|_| KeyError::Kind)?;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &number,
        public.as_ref(),
    );
    pair.map_err(|_| KeyError::Kind)
}

const PEM_LINE: usize = 64;
const DER_SEQUENCE: u8 = 0x30;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The sender's key of RFC 8291 appendix A.
    const NUMBER: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    const PUBLIC: &str =
        "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";

    pub(crate) fn key() -> VapidKey {
        VapidKey::read(NUMBER.as_bytes()).unwrap()
    }

    fn public(content: &[u8]) -> Result<String, KeyError> {
        VapidKey::read(content).map(|key| key.public().to_owned())
    }

    fn der_of(pem: &str) -> Vec<u8> {
        PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .unwrap()
            .secret_der()
            .to_vec()
    }

    #[test]
    fn a_key_in_every_form() {
        assert_eq!(public(NUMBER.as_bytes()).as_deref(), Ok(PUBLIC));
        assert_eq!(
            public(format!(" {NUMBER}=\r\n").as_bytes()).as_deref(),
            Ok(PUBLIC)
        );
        let new = new_key().unwrap();
        assert_eq!(public(new.pem.as_bytes()).as_ref(), Ok(&new.public));
        assert_eq!(public(&der_of(&new.pem)).as_ref(), Ok(&new.public));
        assert_ne!(new_key().unwrap().public, new.public);
        assert!(new.pem.lines().all(|line| line.len() <= 64));
    }

    /// As "openssl ecparam -name prime256v1 -genkey" writes it.
    #[test]
    fn a_key_of_openssl() {
        let pem = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
            -----BEGIN EC PRIVATE KEY-----\n\
            MHcCAQEEIG+pnHmR6hU9WwTSUKL1Tg6WEH6PYzPZd+snIFzPW8WyoAoGCCqGSM49\n\
            AwEHoUQDQgAE7fLJFYodVQ8QS6HsEdvh5VvoK9Q5q/X/Vh9zo1tZgkRi19BzvmZF\n\
            ZTwgwXMvS7+VyGUAc1vkl0IE2dmxlRySJQ==\n-----END EC PRIVATE KEY-----\n";
        let of_openssl =
            "BO3yyRWKHVUPEEuh7BHb4eVb6CvUOav1_1Yfc6NbWYJEYtfQc75mRWU8IMFzL0u_lchlAHNb5JdCBNnZsZUckiU";
        assert_eq!(public(pem.as_bytes()).as_deref(), Ok(of_openssl));
    }

    #[test]
    fn what_is_not_a_key_of_p_256_is_told_from_what_is_not_a_key() {
        for unreadable in [
            "",
            "x",
            PUBLIC,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(
                public(unreadable.as_bytes()),
                Err(KeyError::Unreadable),
                "{unreadable}"
            );
        }
        let zero = "A".repeat(43);
        let ed25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIMUnht5gmaAU96Js0zmUmx9a2XZMsPhh7VHUUDiLqWzD\n\
            -----END PRIVATE KEY-----\n";
        for kind in [zero.as_str(), ed25519] {
            assert_eq!(public(kind.as_bytes()), Err(KeyError::Kind), "{kind}");
        }
    }
}
