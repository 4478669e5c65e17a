//! Encrypts a message for one receiver: RFC 8291, in the encoding aes128gcm of RFC 8188, as one record.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, ParsedPublicKey, ParsedPublicKeyFormat, PrivateKey, UnparsedPublicKey, agree},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    rand,
};

/// What the receiver has made for its sender.
#[derive(Clone)]
pub(crate) struct ReceiverKeys {
    /// Its public key: a point of P-256, uncompressed.
    public: ParsedPublicKey,
    /// The secret that only its sender knows.
    pub(crate) auth: [u8; 16],
}

impl ReceiverKeys {
    /// Those with this public key; `None` if that is not an uncompressed point of P-256.
    pub(crate) fn new(p256dh: [u8; 65], auth: [u8; 16]) -> Option<Self> {
        let public = ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, p256dh)).ok()?;
        match public.format() {
            ParsedPublicKeyFormat::Uncompressed => Some(Self { public, auth }),
            _ => None,
        }
    }

    /// The public key, as its receiver gave it.
    pub(crate) fn p256dh(&self) -> &[u8] {
        self.public.as_ref()
    }
}

/// The body of a request that holds this text, under a key that nobody uses again.
///
/// # Errors
///
/// The system has no randomness to give.
pub(crate) fn encrypt(text: &[u8], receiver: &ReceiverKeys) -> Result<Vec<u8>, Unspecified> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt)?;
    encrypt_with(&PrivateKey::generate(&ECDH_P256)?, salt, text, receiver)
}

fn encrypt_with(
    ours: &PrivateKey,
    salt: [u8; SALT],
    text: &[u8],
    receiver: &ReceiverKeys,
) -> Result<Vec<u8>, Unspecified> {
    let public = ours.compute_public_key()?;
    let public = public.as_ref();
    let shared = agree(ours, receiver.public.clone(), Unspecified, |secret| {
        let info = [b"WebPush: info\0", receiver.p256dh(), public];
        derive::<32>(&extract(&receiver.auth, secret), &info)
    })?;
    let secrets = extract(&salt, &shared);
    let key = derive::<16>(&secrets, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce = derive::<12>(&secrets, &[b"Content-Encoding: nonce\0"])?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);

    let mut body = Vec::with_capacity(text.len() + OVERHEAD);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_SIZE.to_be_bytes());
    body.push(public.len().try_into().map_err(|_| Unspecified)?);
    body.extend_from_slice(public);
    let head = body.len();
    body.extend_from_slice(text);
    body.push(LAST_RECORD);
    let record = body.get_mut(head..).ok_or(Unspecified)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), record)?;
    body.extend_from_slice(tag.as_ref());
    Ok(body)
}

/// The first half of HKDF (RFC 5869).
fn extract(salt: &[u8], secret: &[u8]) -> Prk {
    Salt::new(HKDF_SHA256, salt).extract(secret)
}

/// The second half.
fn derive<const N: usize>(secret: &Prk, info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    let mut derived = [0; N];
    secret.expand(info, Bytes(N))?.fill(&mut derived)?;
    Ok(derived)
}

/// So many bytes of HKDF.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

const SALT: usize = 16;
const TAG: usize = 16;
/// What the encoding has more than the text: salt, record size, length and value of the key, delimiter, tag.
pub(crate) const OVERHEAD: usize = SALT + 4 + 1 + 65 + 1 + TAG;
const RECORD_SIZE: u32 = 4_096;
const LAST_RECORD: u8 = 2;

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        encoding::{decode, encode},
        endpoint::Allowed,
        subscription::Subscription,
    };

    /// The receiver of RFC 8291 appendix A.
    pub(crate) const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    pub(crate) const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn receiver() -> ReceiverKeys {
        ReceiverKeys::new(decode(P256DH).unwrap(), decode(AUTH).unwrap()).unwrap()
    }

    #[test]
    fn the_example_of_rfc_8291() {
        let ours = decode::<32>("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw").unwrap();
        let ours = PrivateKey::from_private_key(&ECDH_P256, &ours).unwrap();
        let salt = decode("DGv6ra1nlYgDCS1FRnbzlw").unwrap();
        let text = b"When I grow up, I want to be a watermelon";
        let body = encrypt_with(&ours, salt, text, &receiver()).unwrap();
        assert_eq!(
            encode(&body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK\
             6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
        assert_eq!(body.len(), text.len() + OVERHEAD);
    }

    #[test]
    fn two_bodies_share_neither_key_nor_salt() {
        let (one, other) = (
            encrypt(b"x", &receiver()).unwrap(),
            encrypt(b"x", &receiver()).unwrap(),
        );
        assert_ne!(one[..16], other[..16]);
        assert_ne!(one[21..86], other[21..86]);
    }

    #[test]
    fn no_receiver_has_a_key_that_is_not_a_point_of_the_curve() {
        let p256dh: [u8; 65] = decode(P256DH).unwrap();
        let is_one = |at: usize, bits: u8| {
            let mut other = p256dh;
            other[at] ^= bits;
            ReceiverKeys::new(other, [0; 16]).is_some()
        };
        assert!(is_one(0, 0));
        assert!(!is_one(64, 1) && !is_one(1, 1), "beside the curve");
        // A hybrid form, whose first byte says something of the rest.
        assert!(!is_one(0, 2) && !is_one(0, 3) && !is_one(0, 4));
    }

    /// `cargo test --release -p fpush-webpush -- --ignored --nocapture`
    #[test]
    #[ignore = "it measures"]
    fn what_a_push_costs() {
        let allowed = Allowed {
            hosts: vec!["*.example.org".to_owned()],
            ports: vec![443],
        };
        let token = format!("webpush:https://up.example.org/a|{P256DH}|{AUTH}");
        let (receiver, ours) = (receiver(), PrivateKey::generate(&ECDH_P256).unwrap());
        let agree = || {
            agree(
                &ours,
                receiver.public.clone(),
                Unspecified,
                |secret| Ok(secret[0]),
            )
        };
        measure("a token is read", || Subscription::read(&token, &allowed).is_ok());
        measure("a key is made", || PrivateKey::generate(&ECDH_P256).is_ok());
        measure("a secret is agreed on", || agree().is_ok());
        measure("a push is encrypted", || encrypt(b"{}", &receiver).is_ok());
    }

    #[expect(clippy::disallowed_macros, reason = "that is its report")]
    fn measure(what: &str, mut each: impl FnMut() -> bool) {
        const TIMES: u32 = 5_000;
        let start = Instant::now();
        for _ in 0..TIMES {
            assert!(std::hint::black_box(each()));
        }
        println!("{what} in {:?}", start.elapsed() / TIMES);
    }
}
