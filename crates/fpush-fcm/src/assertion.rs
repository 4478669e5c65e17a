//! Assertions: what a service account signs to get an access token (RFC 7523; Google's page "Using OAuth 2.0 for server
//! to server applications").

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::SigningKey,
};
use serde_json::json;

/// Signs with the key of a service account.
pub(crate) struct Signer {
    key: Arc<dyn SigningKey>,
    email: String,
    audience: String,
}

/// The key cannot sign what Google wants (RS256).
#[derive(Debug)]
pub(crate) struct UnusableKey;

impl Signer {
    /// Reads the key, and signs with it once: so that one that cannot is found when the settings are read.
    pub(crate) fn new(pem: &str, email: String, audience: String) -> Result<Self, UnusableKey> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| UnusableKey)?;
        let key = any_supported_type(&key).map_err(|_| UnusableKey)?;
        let signer = Self { key, email, audience };
        signer.assertion(SystemTime::UNIX_EPOCH)?;
        Ok(signer)
    }

    /// The assertion that the account wants to send pushes.
    pub(crate) fn assertion(&self, now: SystemTime) -> Result<String, UnusableKey> {
        let iat = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.audience,
            "iat": iat,
            "exp": iat.saturating_add(LIFE.as_secs()),
        });
        let base64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let signed = [header, claims]
            .map(|part| base64(part.to_string().as_bytes()))
            .join(".");
        let signer = self
            .key
            .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
            .ok_or(UnusableKey)?;
        let signature = signer.sign(signed.as_bytes()).map_err(|_| UnusableKey)?;
        Ok(format!("{signed}.{}", base64(&signature)))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// As long as Google allows.
const LIFE: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use fpush_testkit::{
        ApnsKey,
        certs::{fixture, verify_assertion},
    };

    use super::*;

    fn signer(pem: &str) -> Result<Signer, UnusableKey> {
        Signer::new(
            pem,
            "me@project-1".to_owned(),
            "https://127.0.0.1/token".to_owned(),
        )
    }

    fn key() -> String {
        std::fs::read_to_string(fixture("service-account.key.pem")).unwrap()
    }

    #[test]
    fn it_says_who_wants_what_and_when() {
        let signer = signer(&key()).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let assertion = signer.assertion(now).unwrap();
        assert!(!assertion.contains(['=', '+', '/']));
        let jwt = verify_assertion(&assertion).unwrap();
        assert_eq!(jwt.header, json!({ "alg": "RS256", "typ": "JWT" }));
        assert_eq!(
            jwt.claims,
            json!({ "iss": "me@project-1", "aud": "https://127.0.0.1/token",
                "scope": "https://www.googleapis.com/auth/firebase.messaging",
                "iat": 1_700_000_000, "exp": 1_700_003_600 })
        );
        assert!(!format!("{signer:?}").contains("project"));
    }

    #[test]
    fn a_clock_before_1970_is_googles_to_refuse() {
        let signer = signer(&key()).unwrap();
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(10);
        assert_eq!(
            verify_assertion(&signer.assertion(before).unwrap())
                .unwrap()
                .claims["iat"],
            0
        );
    }

    #[test]
    fn what_cannot_sign_is_refused_at_once() {
        for bad in [String::new(), key().replace('\n', ""), ApnsKey::generate().p8()] {
            assert!(signer(&bad).is_err());
        }
    }
}
