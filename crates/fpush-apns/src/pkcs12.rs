//! Reading PKCS#12 files of every common tool: all their keys and all their certificates, under any label.

mod ber;
mod pbe;

use self::{
    ber::{CONTEXT, Malformed, OID, Reader, SEQUENCE},
    pbe::{Algorithm, Budget, Password},
};

/// Why a PKCS#12 file is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Pkcs12Error {
    #[error("the PKCS#12 file cannot be opened: the password is wrong")]
    Password,
    #[error("expected a PKCS#12 file (.p12 or .pfx), found something else or a damaged file")]
    Malformed,
    #[error(
        "the PKCS#12 file uses an algorithm that fpush does not know ({0}); export it again, or convert it: openssl pkcs12 \
         -legacy -in old.p12 -nodes -out all.pem; openssl pkcs12 -export -in all.pem -out new.p12; rm all.pem"
    )]
    Unsupported(String),
    #[error(
        "the PKCS#12 file asks for millions of rounds to derive its keys, which fpush does not take part in; export it \
         again with fewer"
    )]
    TooMuchWork,
}

impl From<Malformed> for Pkcs12Error {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What a file holds.
#[derive(Default)]
pub(crate) struct Contents {
    /// Private keys, as PKCS#8 in DER.
    pub(crate) keys: Vec<Vec<u8>>,
    /// Certificates, in DER.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// Reads everything in a file.
pub(crate) fn read(file: &[u8], password: &str) -> Result<Contents, Pkcs12Error> {
    let budget = &mut Budget::default();
    let mut file = Reader::new(file).inside(SEQUENCE)?;
    file.integer()?;
    let mut safe = file.inside(SEQUENCE)?;
    let kind = safe.expect(OID)?;
    if kind != DATA {
        // Signed with a key instead of a password, which no tool that exports keys does.
        return Err(Pkcs12Error::Malformed);
    }
    let safes = safe.inside(CONTEXT)?.octets()?;
    let mut outcome = Err(Pkcs12Error::Password);
    for password in Password::forms(password) {
        outcome = read_with(&safes, file, &password, budget);
        if outcome.as_ref().err() != Some(&Pkcs12Error::Password) {
            break;
        }
    }
    outcome
}

fn read_with(
    safes: &[u8],
    mut after: Reader<'_>,
    password: &Password,
    budget: &mut Budget,
) -> Result<Contents, Pkcs12Error> {
    // A file without a code is as good as its content.
    if !after.is_empty() {
        let mut mac = after.inside(SEQUENCE)?;
        let mut digest = mac.inside(SEQUENCE)?;
        let (algorithm, code) = (Algorithm::read(&mut digest)?, digest.octets()?);
        let salt = mac.octets()?;
        let iterations = if mac.is_empty() { 1 } else { mac.integer()? };
        if !algorithm.is_code_of(safes, &code, (&salt, iterations), password, budget)? {
            return Err(Pkcs12Error::Password);
        }
    }
    let mut contents = Contents::default();
    let mut safes = Reader::new(safes).inside(SEQUENCE)?;
    while !safes.is_empty() {
        let mut safe = safes.inside(SEQUENCE)?;
        match safe.expect(OID)? {
            DATA => {
                let bags = safe.inside(CONTEXT)?.octets()?;
                contents.add(&bags, password, budget, NESTED)?;
            }
            ENCRYPTED_DATA => {
                let mut encrypted = safe.inside(CONTEXT)?.inside(SEQUENCE)?;
                encrypted.integer()?;
                let mut content = encrypted.inside(SEQUENCE)?;
                content.expect(OID)?;
                let algorithm = Algorithm::read(&mut content)?;
                let bags = algorithm.decrypt(&content.octets()?, password, budget)?;
                // A wrong password may leave something that looks like padding.
                contents.add(&bags, password, budget, NESTED).map_err(|e| {
                    if e == Pkcs12Error::Malformed {
                        Pkcs12Error::Password
                    } else {
                        e
                    }
                })?;
            }
            // Encrypted for somebody's key.
            _ => {}
        }
    }
    Ok(contents)
}

impl Contents {
    fn add(
        &mut self,
        bags: &[u8],
        password: &Password,
        budget: &mut Budget,
        nested: u8,
    ) -> Result<(), Pkcs12Error> {
        let mut bags = Reader::new(bags).inside(SEQUENCE)?;
        while !bags.is_empty() {
            let mut bag = bags.inside(SEQUENCE)?;
            let kind = bag.expect(OID)?;
            let mut content = bag.inside(CONTEXT)?;
            match kind {
                KEY_BAG => self.keys.push(content.any()?.whole.to_vec()),
                SHROUDED_KEY_BAG => {
                    let mut shrouded = content.inside(SEQUENCE)?;
                    let algorithm = Algorithm::read(&mut shrouded)?;
                    let key = algorithm.decrypt(&shrouded.octets()?, password, budget)?;
                    // Without what some tools leave behind it.
                    let key = Reader::new(&key).any().map_err(|_| Pkcs12Error::Password)?;
                    self.keys.push(key.whole.to_vec());
                }
                CERTIFICATE_BAG => {
                    let mut certificate = content.inside(SEQUENCE)?;
                    if certificate.expect(OID)? == X509_CERTIFICATE {
                        let der = certificate.inside(CONTEXT)?.octets()?;
                        self.certificates.push(der.into_owned());
                    }
                }
                BAG_OF_BAGS => {
                    let nested = nested.checked_sub(1).ok_or(Pkcs12Error::Malformed)?;
                    self.add(content.any()?.whole, password, budget, nested)?;
                }
                // Revocation lists and secrets.
                _ => {}
            }
        }
        Ok(())
    }
}

/// How deep bags may be in bags.
const NESTED: u8 = 4;

const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const ENCRYPTED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06";
const KEY_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01";
const SHROUDED_KEY_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";
const CERTIFICATE_BAG: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x03";
const BAG_OF_BAGS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x06";
const X509_CERTIFICATE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x16\x01";

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, Instant},
    };

    use fpush_testkit::certs::fixture;
    use rustls::{
        crypto::aws_lc_rs::sign::any_supported_type,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    };

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        fs::read(fixture(&format!("pkcs12/{name}.p12"))).unwrap()
    }

    fn error(name: &str, password: &str) -> Pkcs12Error {
        read(&file(name), password).err().unwrap()
    }

    #[test]
    fn files_of_every_common_tool_are_read() {
        let key = PrivateKeyDer::from_pem_file(fixture("aps.key.pem")).unwrap();
        let certificate = CertificateDer::from_pem_file(fixture("aps.pem")).unwrap();
        for name in [
            "openssl-3",
            "openssl-legacy",
            "mac-sha1",
            "mac-sha224",
            "mac-sha384",
            "mac-sha512",
            "no-mac",
            "plain",
            "pbes2-aes-128-cbc",
            "pbes2-aes-192-cbc",
            "pbes2-des-ede3-cbc",
            "PBE-SHA1-RC2-128",
            "PBE-SHA1-2DES",
            "one-iteration",
            "600000-iterations",
            "password-empty",
            "password-utf8",
            "java",
            "java-legacy",
            "streamed",
        ] {
            let password = match name {
                "password-empty" => "",
                "password-utf8" => "schl\u{fc}ssel",
                "java" | "java-legacy" => "testtest",
                _ => "test",
            };
            let contents = read(&file(name), password).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(contents.certificates, [certificate.to_vec()], "{name}");
            assert_eq!(contents.keys, [key.secret_der()], "{name}");
            if name != "plain" {
                assert_eq!(error(name, "wrong"), Pkcs12Error::Password, "{name}");
            }
        }
        assert_eq!(read(&file("elliptic"), "test").unwrap().keys.len(), 1);
    }

    /// Those of NSS and `GnuTLS` are real; `make-others.sh` says of which structure the others are.
    #[test]
    fn files_of_other_programs_are_read_or_their_algorithm_is_named() {
        let key = PrivateKeyDer::from_pem_file(fixture("aps.key.pem")).unwrap();
        let certificate = CertificateDer::from_pem_file(fixture("aps.pem")).unwrap();
        for name in [
            "nss-default",
            "nss-aes-256",
            "nss-rc2-40",
            "nss-chain",
            "nss-utf8",
            "gnutls-default",
            "gnutls-aes-128",
            "gnutls-aes-192",
            "gnutls-aes-256",
            "gnutls-3des",
            "gnutls-3des-pkcs12",
            "gnutls-rc2-40",
            "gnutls-sha512",
            "gnutls-chain",
            "gnutls-utf8",
            "gnutls-empty",
            "gnutls-null",
            "keychain",
            "windows",
            "pbmac1-sha256",
            "pbmac1-sha512",
            "pbmac1-mixed",
            "pbmac1-short-key",
            "pbmac1-long-key",
            "pbmac1-default-prf",
            "pbmac1-no-length",
        ] {
            let password = match name {
                "nss-utf8" | "gnutls-utf8" => "schl\u{fc}ssel",
                "gnutls-empty" | "gnutls-null" => "",
                _ => "test",
            };
            let contents = read(&file(name), password).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(contents.certificates.contains(&certificate.to_vec()), "{name}");
            // Some have the authority as well.
            let all = if ["nss-chain", "nss-utf8", "gnutls-chain"].contains(&name) {
                2
            } else {
                1
            };
            assert_eq!(contents.certificates.len(), all, "{name}");
            let usable = any_supported_type(&PrivateKeyDer::Pkcs8(contents.keys[0].clone().into())).unwrap();
            let expected = any_supported_type(&key).unwrap();
            assert_eq!(contents.keys.len(), 1, "{name}");
            assert_eq!(usable.public_key(), expected.public_key(), "{name}");
            // NSS makes hundreds of thousands of rounds: once is enough.
            if !name.starts_with("nss-") || name == "nss-default" {
                assert_eq!(error(name, "wrong"), Pkcs12Error::Password, "{name}");
            }
        }
        for (name, algorithm) in [
            ("nss-rc4", "1.2.840.113549.1.12.1.1"),
            ("gnutls-arcfour", "1.2.840.113549.1.12.1.1"),
            ("pbmac1-sha224", "1.2.840.113549.2.8"),
        ] {
            assert_eq!(
                error(name, "test"),
                Pkcs12Error::Unsupported(algorithm.to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_code_whose_key_has_no_length_or_an_endless_one_is_not_a_panic() {
        let good = file("pbmac1-long-key");
        // `INTEGER 2048`, the rounds, and `INTEGER 64`, the length.
        let at = good
            .windows(7)
            .rposition(|bytes| bytes == [2, 2, 8, 0, 2, 1, 64])
            .unwrap()
            + 6;
        for (length, expected) in [(0, Pkcs12Error::Malformed), (63, Pkcs12Error::Password)] {
            let mut bad = good.clone();
            bad[at] = length;
            assert_eq!(read(&bad, "test").err(), Some(expected));
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_work_ends_at_once() {
        let start = Instant::now();
        for name in ["endless-mac", "endless-keys"] {
            assert_eq!(error(name, "test"), Pkcs12Error::TooMuchWork, "{name}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    /// Truncated anywhere and with each byte changed: an error or contents, and nothing else.
    #[test]
    fn damaged_files_are_errors() {
        for name in ["one-iteration", "plain", "streamed"] {
            let good = file(name);
            for at in 0..good.len() {
                drop(read(&good[..at], "test"));
            }
            // Each change of the third costs thousands of rounds.
            for at in (0..good.len()).step_by(if name == "streamed" { 16 } else { 1 }) {
                for changed in [0xff, 0x80, 0x00, 0x30] {
                    let mut bad = good.clone();
                    bad[at] = changed;
                    drop(read(&bad, "test"));
                }
            }
        }
        for size in [0, 1, 1 << 20] {
            for byte in [0x00, 0x24, 0x30, 0x80, 0xff] {
                assert_eq!(
                    read(&vec![byte; size], "test").err(),
                    Some(Pkcs12Error::Malformed)
                );
            }
        }
    }
}
