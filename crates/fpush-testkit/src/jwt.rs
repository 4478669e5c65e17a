//! Reads JSON web tokens and checks their signature, apart from the library that the program signs them with.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::Value;

/// A JSON web token whose signature is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// The header: `alg`, `kid`, …
    pub header: Value,
    /// The claims: `iss`, `iat`, …
    pub claims: Value,
}

impl Jwt {
    pub(crate) fn verify_es256(token: &str, public_key: &[u8]) -> Result<Self, String> {
        // RFC 7515 knows base64url without padding only, and so does Apple.
        Self::verify(
            token,
            "ES256",
            &ECDSA_P256_SHA256_FIXED,
            public_key,
            &URL_SAFE_NO_PAD,
        )
    }

    pub(crate) fn verify_rs256(token: &str, public_key: &[u8]) -> Result<Self, String> {
        // Google takes padding, which its clients have sent for years.
        Self::verify(
            token,
            "RS256",
            &RSA_PKCS1_2048_8192_SHA256,
            public_key,
            &PADDING_ALLOWED,
        )
    }

    fn verify(
        token: &str,
        name: &str,
        algorithm: &'static dyn VerificationAlgorithm,
        public_key: &[u8],
        base64: &GeneralPurpose,
    ) -> Result<Self, String> {
        let (signed, signature) = token.rsplit_once('.').ok_or("a JWT has three parts")?;
        let (header, claims) = signed.split_once('.').ok_or("a JWT has three parts")?;
        let decode = |part: &str| base64.decode(part).map_err(|error| format!("base64url: {error}"));
        let json = |part: &str| -> Result<Value, String> {
            serde_json::from_slice(&decode(part)?).map_err(|error| format!("JSON: {error}"))
        };
        let jwt = Self {
            header: json(header)?,
            claims: json(claims)?,
        };
        if jwt.header["alg"] != name {
            return Err(format!("alg is {}, not {name}", jwt.header["alg"]));
        }
        UnparsedPublicKey::new(algorithm, public_key)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| "the signature is wrong".to_owned())?;
        Ok(jwt)
    }
}

const PADDING_ALLOWED: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
