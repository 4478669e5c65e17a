//! The files in `fixtures/` are what their README says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use fpush_testkit::fixture;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

fn key(name: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_file(fixture(name))
        .unwrap()
        .secret_der()
        .to_vec()
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
