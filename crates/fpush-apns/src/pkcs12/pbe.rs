//! What a PKCS#12 file does with its password: keys, ciphers and the check of the whole.

use std::{borrow::Cow, num::NonZeroU32};

use aws_lc_rs::{
    cipher::{
        self, AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
    },
    digest, hmac,
    iv::FixedLength,
    pbkdf2,
};
use cbc::cipher::{
    BlockCipher, BlockDecrypt, BlockDecryptMut as _, KeyInit, KeyIvInit as _, block_padding::Pkcs7,
};

use super::{
    Pkcs12Error,
    ber::{INTEGER, OID, Reader, SEQUENCE},
};

/// The password in the forms that tools make of it.
#[derive(Clone, Debug)]
pub(super) struct Password {
    /// For PBKDF2.
    plain: Vec<u8>,
    /// For the derivation of PKCS#12 itself: UTF-16 with a zero at the end.
    wide: Vec<u8>,
}

/// How much work a file may still ask for.
#[derive(Debug)]
pub(super) struct Budget(u64);

/// An algorithm with its parameters.
pub(super) struct Algorithm<'a> {
    oid: &'a [u8],
    parameters: Reader<'a>,
}

impl Password {
    /// The forms in which tools write one password, the usual one first.
    pub(super) fn forms(text: &str) -> Vec<Self> {
        let wide = |units: &mut dyn Iterator<Item = u16>| {
            let units = units.chain([0]);
            units.flat_map(u16::to_be_bytes).collect::<Vec<_>>()
        };
        let usual = wide(&mut text.encode_utf16());
        let form = |plain: &[u8], wide: &[u8]| Self {
            plain: plain.to_vec(),
            wide: wide.to_vec(),
        };
        let mut forms = vec![form(text.as_bytes(), &usual)];
        if text.is_empty() {
            forms.push(form(&[], &[]));
        } else {
            // NSS took the wide form for PBKDF2 as well.
            forms.push(form(&usual, &usual));
        }
        if !text.is_ascii() {
            // OpenSSL before 1.1 widened each byte.
            forms.push(form(text.as_bytes(), &wide(&mut text.bytes().map(u16::from))));
        }
        forms
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(MOST_ITERATIONS)
    }
}

impl Budget {
    fn spend(&mut self, iterations: u64, rounds: usize) -> Result<NonZeroU32, Pkcs12Error> {
        let cost = iterations.saturating_mul(rounds.max(1) as u64);
        self.0 = self.0.checked_sub(cost).ok_or(Pkcs12Error::TooMuchWork)?;
        u32::try_from(iterations)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(Pkcs12Error::Malformed)
    }
}

impl<'a> Algorithm<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Pkcs12Error> {
        let mut parameters = reader.inside(SEQUENCE)?;
        let oid = parameters.expect(OID)?;
        Ok(Self { oid, parameters })
    }

    fn unsupported<T>(&self) -> Result<T, Pkcs12Error> {
        Err(Pkcs12Error::Unsupported(dotted(self.oid)))
    }

    /// Decrypts with a password.
    pub(super) fn decrypt(
        &self,
        data: &[u8],
        password: &Password,
        budget: &mut Budget,
    ) -> Result<Vec<u8>, Pkcs12Error> {
        let mut parameters = self.parameters;
        match self.oid {
            PBES2 => {
                let mut parameters = parameters.inside(SEQUENCE)?;
                let (kdf, cipher) = (Self::read(&mut parameters)?, Self::read(&mut parameters)?);
                let kdf = kdf.pbkdf2()?;
                // The cipher says how long its key is.
                cipher.decrypt_with_key(data, |length| kdf.derive(password, length, budget))
            }
            SHA1_3DES_3 => self.decrypt_old::<des::TdesEde3>(24, data, password, budget),
            SHA1_3DES_2 => self.decrypt_old::<des::TdesEde2>(16, data, password, budget),
            SHA1_RC2_128 => self.decrypt_old::<rc2::Rc2>(16, data, password, budget),
            SHA1_RC2_40 => self.decrypt_old::<rc2::Rc2>(5, data, password, budget),
            _ => self.unsupported(),
        }
    }

    /// With the ciphers of PKCS#12 itself.
    fn decrypt_old<C: KeyInit + BlockCipher + BlockDecrypt>(
        &self,
        length: usize,
        data: &[u8],
        password: &Password,
        budget: &mut Budget,
    ) -> Result<Vec<u8>, Pkcs12Error> {
        let mut parameters = { self.parameters }.inside(SEQUENCE)?;
        let (salt, iterations) = (parameters.octets()?, parameters.integer()?);
        let mut derive = |id, length| {
            let digest = &digest::SHA1_FOR_LEGACY_USE_ONLY;
            derive(digest, &password.wide, &salt, id, iterations, length, budget)
        };
        let (key, iv) = (derive(1, length)?, derive(2, 8)?);
        decrypt_blocks::<C>(&key, &iv, data)
    }

    /// With the cipher that PBES2 names.
    fn decrypt_with_key(
        &self,
        data: &[u8],
        mut key: impl FnMut(usize) -> Result<Vec<u8>, Pkcs12Error>,
    ) -> Result<Vec<u8>, Pkcs12Error> {
        let iv = { self.parameters }.octets()?;
        let (aes, length): (&'static cipher::Algorithm, _) = match self.oid {
            AES_128_CBC => (&AES_128, 16),
            AES_192_CBC => (&AES_192, 24),
            AES_256_CBC => (&AES_256, 32),
            DES_EDE3_CBC => return decrypt_blocks::<des::TdesEde3>(&key(24)?, &iv, data),
            _ => return self.unsupported(),
        };
        let iv: [u8; 16] = (*iv).try_into().map_err(|_| Pkcs12Error::Malformed)?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let mut data = data.to_vec();
        let key = UnboundCipherKey::new(aes, &key(length)?).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
        let plain = key.and_then(|key| Ok(key.decrypt(&mut data, context)?.to_vec()));
        plain.map_err(|_| Pkcs12Error::Password)
    }

    /// The parameters of PBKDF2.
    fn pbkdf2(&self) -> Result<Pbkdf2<'a>, Pkcs12Error> {
        if self.oid != PBKDF2 {
            return self.unsupported();
        }
        let mut parameters = { self.parameters }.inside(SEQUENCE)?;
        let mut pbkdf2 = Pbkdf2 {
            salt: parameters.octets()?,
            iterations: parameters.integer()?,
            length: None,
            prf: (pbkdf2::PBKDF2_HMAC_SHA1, 20),
        };
        while !parameters.is_empty() {
            let value = parameters.any()?;
            let mut value_again = Reader::new(value.whole);
            match value.tag {
                INTEGER => pbkdf2.length = Some(value_again.integer()?),
                SEQUENCE => {
                    let named = Self::read(&mut value_again)?;
                    pbkdf2.prf = match named.oid {
                        HMAC_SHA1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
                        HMAC_SHA256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
                        HMAC_SHA384 => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
                        HMAC_SHA512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
                        _ => return named.unsupported(),
                    };
                }
                _ => return Err(Pkcs12Error::Malformed),
            }
        }
        Ok(pbkdf2)
    }

    /// Whether a code over the data is right, which also says whether the password is.
    pub(super) fn is_code_of(
        &self,
        data: &[u8],
        code: &[u8],
        (salt, iterations): (&[u8], u64),
        password: &Password,
        budget: &mut Budget,
    ) -> Result<bool, Pkcs12Error> {
        let (algorithm, key) = if self.oid == PBMAC1 {
            let mut parameters = { self.parameters }.inside(SEQUENCE)?;
            let (kdf, mac) = (Self::read(&mut parameters)?, Self::read(&mut parameters)?);
            let (algorithm, length) = match mac.oid {
                HMAC_SHA1 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20),
                HMAC_SHA256 => (hmac::HMAC_SHA256, 32),
                HMAC_SHA384 => (hmac::HMAC_SHA384, 48),
                HMAC_SHA512 => (hmac::HMAC_SHA512, 64),
                _ => return mac.unsupported(),
            };
            let kdf = kdf.pbkdf2()?;
            // RFC 9579: the file says how long it is, usually as long as the code.
            let length = kdf.length.map_or(Some(length), |said| usize::try_from(said).ok());
            let length = length.filter(|length| (1..=LONGEST_KEY).contains(length));
            let length = length.ok_or(Pkcs12Error::Malformed)?;
            (algorithm, kdf.derive(password, length, budget)?)
        } else {
            let (algorithm, digest) = match self.oid {
                SHA1 => (
                    hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    &digest::SHA1_FOR_LEGACY_USE_ONLY,
                ),
                SHA224 => (hmac::HMAC_SHA224, &digest::SHA224),
                SHA256 => (hmac::HMAC_SHA256, &digest::SHA256),
                SHA384 => (hmac::HMAC_SHA384, &digest::SHA384),
                SHA512 => (hmac::HMAC_SHA512, &digest::SHA512),
                _ => return self.unsupported(),
            };
            let key = derive(
                digest,
                &password.wide,
                salt,
                3,
                iterations,
                digest.output_len(),
                budget,
            )?;
            (algorithm, key)
        };
        Ok(hmac::verify(&hmac::Key::new(algorithm, &key), data, code).is_ok())
    }
}

/// PBKDF2 with its parameters.
struct Pbkdf2<'a> {
    salt: Cow<'a, [u8]>,
    iterations: u64,
    length: Option<u64>,
    /// The function, and how many bytes it makes at a time.
    prf: (pbkdf2::Algorithm, usize),
}

impl Pbkdf2<'_> {
    fn derive(
        &self,
        password: &Password,
        length: usize,
        budget: &mut Budget,
    ) -> Result<Vec<u8>, Pkcs12Error> {
        let (prf, output) = self.prf;
        let iterations = budget.spend(self.iterations, length.div_ceil(output))?;
        let mut key = vec![0; length];
        pbkdf2::derive(prf, iterations, &self.salt, &password.plain, &mut key);
        Ok(key)
    }
}

fn decrypt_blocks<C: KeyInit + BlockCipher + BlockDecrypt>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, Pkcs12Error> {
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|_| Pkcs12Error::Malformed)?;
    cipher
        .decrypt_padded_vec_mut::<Pkcs7>(data)
        .map_err(|_| Pkcs12Error::Password)
}

/// The derivation of keys in RFC 7292, appendix B.
fn derive(
    algorithm: &'static digest::Algorithm,
    password: &[u8],
    salt: &[u8],
    id: u8,
    iterations: u64,
    length: usize,
    budget: &mut Budget,
) -> Result<Vec<u8>, Pkcs12Error> {
    let block = algorithm.block_len();
    let iterations = budget.spend(iterations, length.div_ceil(algorithm.output_len()))?;
    let filled = |bytes: &[u8]| {
        let length = bytes.len().div_ceil(block) * block;
        bytes.iter().copied().cycle().take(length).collect::<Vec<_>>()
    };
    let mut input = [filled(salt), filled(password)].concat();
    let mut key = Vec::with_capacity(length);
    while key.len() < length {
        let mut context = digest::Context::new(algorithm);
        context.update(&vec![id; block]);
        context.update(&input);
        let mut hash = context.finish();
        for _ in 1..iterations.get() {
            hash = digest::digest(algorithm, hash.as_ref());
        }
        key.extend_from_slice(hash.as_ref());
        // Each block of the input grows by the hash and one.
        for piece in input.chunks_exact_mut(block) {
            let added = hash.as_ref().iter().cycle().take(block).collect::<Vec<_>>();
            let mut carry = 1u16;
            for (byte, added) in piece.iter_mut().zip(added).rev() {
                let sum = u16::from(*byte) + u16::from(*added) + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
        }
    }
    key.truncate(length);
    Ok(key)
}

/// An OID as people write it.
fn dotted(oid: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0u64;
    for byte in oid {
        arc = arc << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(std::mem::take(&mut arc));
        }
    }
    let (first, rest) = arcs.split_first().unwrap_or((&0, &[]));
    let root = (first / 40).min(2);
    let head = format!("{root}.{}", first - root * 40);
    rest.iter().fold(head, |text, arc| format!("{text}.{arc}"))
}

/// The work that a file may ask for in all, in rounds of a hash: some seconds. OpenSSL writes 2,048 and NSS 600,000 rounds
/// for each of up to three keys.
const MOST_ITERATIONS: u64 = 10_000_000;

/// For codes; those that there are have 64 bytes at most.
const LONGEST_KEY: usize = 1_024;

const SHA1_3DES_3: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03";
const SHA1_3DES_2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x04";
const SHA1_RC2_128: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x05";
const SHA1_RC2_40: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x06";
const PBKDF2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";
const PBES2: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
const PBMAC1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0e";
const HMAC_SHA1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x02\x07";
const HMAC_SHA256: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x02\x09";
const HMAC_SHA384: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x02\x0a";
const HMAC_SHA512: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x02\x0b";
const DES_EDE3_CBC: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x03\x07";
const AES_128_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x02";
const AES_192_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x16";
const AES_256_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
const SHA1: &[u8] = b"\x2b\x0e\x03\x02\x1a";
const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
const SHA384: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x02";
const SHA512: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x03";
const SHA224: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x04";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_are_shown_as_people_write_them() {
        assert_eq!(dotted(PBES2), "1.2.840.113549.1.5.13");
        assert_eq!(dotted(AES_256_CBC), "2.16.840.1.101.3.4.1.42");
    }
}
