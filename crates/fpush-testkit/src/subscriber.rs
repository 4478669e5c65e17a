//! The receiver's side of Web Push: what an app subscribes with, and what it reads (RFC 8291).

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// What a browser gives its app.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Where pushes go.
    pub endpoint: String,
    /// The browser's public key, base64url.
    pub p256dh: String,
    /// The secret that only the app's server knows, base64url.
    pub auth: String,
}

impl Subscription {
    /// The one string that it is as a token.
    pub fn token(&self) -> String {
        format!("webpush:{}|{}|{}", self.endpoint, self.p256dh, self.auth)
    }
}

/// A browser, or an app that gets its pushes by `UnifiedPush`: it alone reads what is encrypted for its subscriptions.
pub struct Subscriber {
    private: PrivateKey,
    auth: [u8; 16],
}

impl Subscriber {
    /// Makes new keys.
    #[expect(
        clippy::new_without_default,
        reason = "makes new keys, which no default should"
    )]
    pub fn new() -> Self {
        let mut auth = [0; 16];
        rand::fill(&mut auth).unwrap();
        Self {
            private: PrivateKey::generate(&ECDH_P256).unwrap(),
            auth,
        }
    }

    /// What it gives its app for this endpoint.
    pub fn subscription(&self, endpoint: String) -> Subscription {
        let public = self.private.compute_public_key().unwrap();
        Subscription {
            endpoint,
            p256dh: BASE64_URL_SAFE_NO_PAD.encode(public.as_ref()),
            auth: BASE64_URL_SAFE_NO_PAD.encode(self.auth),
        }
    }

    /// Decrypts the body of a push, or says why it cannot.
    pub fn read(&self, body: &[u8]) -> Result<String, String> {
        let wrong = |what: &str| what.to_owned();
        let (salt, rest) = body.split_at_checked(16).ok_or("no salt")?;
        let (size, rest) = rest.split_at_checked(4).ok_or("no record size")?;
        let (length, rest) = rest.split_first().ok_or("no key")?;
        let (theirs, record) = rest.split_at_checked(usize::from(*length)).ok_or("no key")?;
        if size != 4_096_u32.to_be_bytes() || record.len() > 4_096 {
            return Err(wrong("the record size"));
        }
        let ours = self.private.compute_public_key().unwrap();
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let shared = agree(&self.private, peer, wrong("the key"), |secret| {
            Ok(derive::<32>(
                &self.auth,
                secret,
                &[b"WebPush: info\0", ours.as_ref(), theirs],
            ))
        })?;
        let key = derive::<16>(salt, &shared, &[b"Content-Encoding: aes128gcm\0"]);
        let nonce = derive::<12>(salt, &shared, &[b"Content-Encoding: nonce\0"]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = record.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = key.open_in_place(nonce, Aad::empty(), &mut record);
        let plain = plain.map_err(|_| "cannot be decrypted")?;
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or("no delimiter")?;
        if plain[end] != 2 {
            return Err(wrong("the delimiter"));
        }
        String::from_utf8(plain[..end].to_vec()).map_err(|_| wrong("no UTF-8"))
    }
}

pub(crate) fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut derived = [0; N];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(info, Bytes(N)).unwrap().fill(&mut derived).unwrap();
    derived
}
