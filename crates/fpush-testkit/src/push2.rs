//! Push 2.0 as Prosody's `mod_push2` sends it: encrypted and signed by the account's server, which knows nothing of fpush's keys.

use std::time::SystemTime;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use crate::publish::escape;
use crate::subscriber::{Subscription, derive};

/// A server that has a device's keys, the private one of its subscription included.
pub struct Push2Server {
    key: EcdsaKeyPair,
}

impl Default for Push2Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Push2Server {
    /// One with a new key.
    pub fn new() -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    /// The public key, in base64url.
    pub fn public_key(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref())
    }

    /// What it sends for a device: `text`, encrypted for the device, and claims for the push service of the endpoint.
    pub fn notification(&self, device: &Subscription, text: &str) -> Notification {
        let origin = origin(&device.endpoint);
        Notification::to(&device.endpoint)
            .payload(&encrypt(device, text))
            .jwt(&self.sign(origin), &self.public_key())
    }

    /// A JWT for the push service with this origin.
    pub fn sign(&self, origin: &str) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256" });
        let claims =
            json!({ "aud": origin, "exp": now + 3_600, "iat": now, "sub": "mailto:admin@a.example" });
        let parts = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = parts.join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// The `<notification/>` of a message.
#[derive(Debug, Clone)]
pub struct Notification {
    client: String,
    priority: String,
    more: String,
}

impl Notification {
    /// One that only wakes the device.
    pub fn to(client: &str) -> Self {
        Self {
            client: client.to_owned(),
            priority: "normal".to_owned(),
            more: String::new(),
        }
    }

    /// With another priority.
    #[must_use]
    pub fn priority(mut self, priority: &str) -> Self {
        priority.clone_into(&mut self.priority);
        self
    }

    /// For a call.
    #[must_use]
    pub fn voip(mut self) -> Self {
        self.more.push_str("<voip/>");
        self.priority("high")
    }

    /// With this in `<payload/>`, in base64.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        let payload = BASE64_STANDARD.encode(payload);
        self.more +=
            &format!("<encrypted xmlns='urn:xmpp:sce:rfc8291:0'><payload>{payload}</payload></encrypted>");
        self
    }

    /// With this JWT and this key, in base64url; in the stanza it is standard base64.
    #[must_use]
    pub fn jwt(mut self, jwt: &str, key: &str) -> Self {
        let key = BASE64_STANDARD.encode(BASE64_URL_SAFE_NO_PAD.decode(key).unwrap());
        self.more += &format!("<jwt key='{key}'>{jwt}</jwt>");
        self
    }

    /// The message with this id from this domain to `push.localhost`.
    pub fn message(&self, from: &str, id: &str) -> String {
        let Self {
            client,
            priority,
            more,
        } = self;
        format!(
            "<message from='{}' to='push.localhost' id='{}'><notification xmlns='urn:xmpp:push2:0'><client>{}</client>\
             <priority>{priority}</priority>{more}</notification></message>",
            escape(from),
            escape(id),
            escape(client)
        )
    }
}

/// RFC 8291, from the sender's side, in one record.
pub fn encrypt(device: &Subscription, text: &str) -> Vec<u8> {
    let theirs = BASE64_URL_SAFE_NO_PAD.decode(&device.p256dh).unwrap();
    let auth = BASE64_URL_SAFE_NO_PAD.decode(&device.auth).unwrap();
    let private = PrivateKey::generate(&ECDH_P256).unwrap();
    let ours = private.compute_public_key().unwrap();
    let peer = UnparsedPublicKey::new(&ECDH_P256, &theirs);
    let shared = agree(&private, peer, "the key", |secret| {
        Ok(derive::<32>(
            &auth,
            secret,
            &[b"WebPush: info\0", &theirs, ours.as_ref()],
        ))
    });
    let mut salt = [0; 16];
    rand::fill(&mut salt).unwrap();
    let shared = shared.unwrap();
    let key = derive::<16>(&salt, &shared, &[b"Content-Encoding: aes128gcm\0"]);
    let nonce = derive::<12>(&salt, &shared, &[b"Content-Encoding: nonce\0"]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
    let mut record = [text.as_bytes(), &[2]].concat();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record)
        .unwrap();
    let size = 4_096_u32.to_be_bytes();
    [&salt[..], &size, &[65], ours.as_ref(), &record].concat()
}

/// Scheme, host and port of an endpoint.
fn origin(endpoint: &str) -> &str {
    let scheme = "https://".len();
    let end = endpoint[scheme..]
        .find('/')
        .map_or(endpoint.len(), |at| scheme + at);
    &endpoint[..end]
}
