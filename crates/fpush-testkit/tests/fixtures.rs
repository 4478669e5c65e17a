//! The files in `fixtures/` are what their README says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use fpush_testkit::fixture;
use p12_keystore::KeyStore;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn der(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(fixture(name)).unwrap().to_vec()
}

fn key(name: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_file(fixture(name))
        .unwrap()
        .secret_der()
        .to_vec()
}

fn keystore(name: &str) -> KeyStore {
    KeyStore::from_pkcs12(&fs::read(fixture(name)).unwrap(), "test").unwrap()
}

#[test]
fn pkcs12_of_each_kind_holds_the_pair() {
    for name in ["aes.p12", "3des.p12", "rc2.p12"] {
        let store = keystore(name);
        let (_, chain) = store.private_key_chain().unwrap();
        assert_eq!(chain.key(), key("aps.key.pem"), "{name}");
        assert_eq!(chain.chain().len(), 1, "{name}");
        assert_eq!(chain.chain()[0].as_der(), der("aps.pem"), "{name}");
        assert_eq!(
            chain.chain()[0].subject(),
            "CN=Apple Push Services: org.example.app",
            "{name}"
        );
        assert!(
            KeyStore::from_pkcs12(&fs::read(fixture(name)).unwrap(), "wrong").is_err(),
            "{name}"
        );
    }
}

#[test]
fn pkcs12_without_a_key_id_holds_no_chain() {
    for name in ["orphan.p12", "no-key-id.p12"] {
        let store = keystore(name);
        let chain = store.private_key_chain();
        assert!(chain.is_none_or(|(_, chain)| chain.chain().is_empty()), "{name}");
    }
}

#[test]
fn keys_differ() {
    let mut keys = [
        "aps.key.pem",
        "expired.key.pem",
        "other.key.pem",
        "service-account.key.pem",
    ]
    .map(key);
    keys.sort();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
}
