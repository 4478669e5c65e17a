//! Encrypts a message for one receiver: RFC 8291, in the encoding aes128gcm of RFC 8188, as one record.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};

/// What the receiver has made for its sender.
#[derive(Clone)]
pub(crate) struct ReceiverKeys {
    /// Its public key: a point of P-256, uncompressed.
    pub(crate) p256dh: [u8; 65],
    /// The secret that only its sender knows.
    pub(crate) auth: [u8; 16],
}

/// The body of a request that holds this text, under a key that nobody uses again.
///
/// # Errors
///
/// The receiver's key is no point of P-256, or the system has no randomness to give.
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
    let theirs = UnparsedPublicKey::new(&ECDH_P256, receiver.p256dh);
    let shared = agree(ours, theirs, Unspecified, |secret| {
        let info = [b"WebPush: info\0", receiver.p256dh.as_slice(), public];
        derive::<32>(&receiver.auth, secret, &info)
    })?;
    let key = derive::<16>(&salt, &shared, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce = derive::<12>(&salt, &shared, &[b"Content-Encoding: nonce\0"])?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);

    let mut body = Vec::with_capacity(text.len() + OVERHEAD);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_SIZE.to_be_bytes());
    body.push(public.len().try_into().map_err(|_| Unspecified)?);
    body.extend_from_slice(public);
    let mut record = Vec::with_capacity(text.len() + 1 + TAG);
    record.extend_from_slice(text);
    record.push(LAST_RECORD);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;
    body.append(&mut record);
    Ok(body)
}

/// HKDF (RFC 5869).
fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    let mut derived = [0; N];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Bytes(N))?
        .fill(&mut derived)?;
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
        ReceiverKeys {
            p256dh: decode(P256DH).unwrap(),
            auth: decode(AUTH).unwrap(),
        }
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
    fn a_key_that_is_no_point_of_the_curve_is_an_error() {
        let mut receiver = receiver();
        receiver.p256dh[64] ^= 1;
        assert!(encrypt(b"x", &receiver).is_err());
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
            let theirs = UnparsedPublicKey::new(&ECDH_P256, receiver.p256dh);
            agree(&ours, theirs, Unspecified, |secret| Ok(secret[0]))
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
