//! Keys and certificates: made on the spot, or from the folder `fixtures/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde_json::json;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::jwt::Jwt;

/// A certificate authority that lives as long as the test.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The key, PKCS#8 PEM.
    pub key_pem: String,
    /// The certificate, DER.
    pub cert_der: CertificateDer<'static>,
    /// The key, PKCS#8 DER.
    pub key_der: PrivateKeyDer<'static>,
}

impl Identity {
    /// A certificate of a server of these names and addresses that nobody but itself has signed.
    pub fn self_signed(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Self::of(&cert, &key)
    }

    fn of(cert: &Certificate, key: &KeyPair) -> Self {
        Self {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            cert_der: cert.der().clone(),
            key_der: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }
}

/// What a server does about client certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Asks for none.
    Off,
    /// Takes one, but does without.
    Optional,
    /// Ends the handshake of a client that has none.
    Required,
}

impl TestCa {
    /// Makes a new authority with a key of its own.
    #[expect(
        clippy::new_without_default,
        reason = "makes a new key, which no default should"
    )]
    pub fn new() -> Self {
        Self::named("fpush test CA")
    }

    /// The same with another name than the others have.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// The certificate of the authority, PEM: what the client must trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The certificate of the authority, DER.
    pub fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// TLS settings of a server at `localhost` and `127.0.0.1` that offers the protocols in `alpn`. Client
    /// certificates are accepted from this authority and from `fixtures/client-ca.pem`.
    pub fn server_config(&self, alpn: &[&str], client_auth: ClientAuth) -> Arc<ServerConfig> {
        self.server_config_for(&["localhost", "127.0.0.1"], alpn, client_auth)
    }

    /// The same for a server of other names and addresses.
    pub fn server_config_for(
        &self,
        names: &[&str],
        alpn: &[&str],
        client_auth: ClientAuth,
    ) -> Arc<ServerConfig> {
        let identity = self.server_cert(names, None);
        self.server_config_with(identity, alpn, client_auth)
    }

    /// A certificate of a server of these names and addresses, which may end at `not_after`.
    pub fn server_cert(&self, names: &[&str], not_after: Option<SystemTime>) -> Identity {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(not_after) = not_after {
            params.not_after = not_after.into();
        }
        self.sign(params)
    }

    /// TLS settings of a server with this certificate.
    pub fn server_config_with(
        &self,
        identity: Identity,
        alpn: &[&str],
        client_auth: ClientAuth,
    ) -> Arc<ServerConfig> {
        let Identity {
            cert_der, key_der, ..
        } = identity;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let verifier = || {
            let mut roots = RootCertStore::empty();
            roots.add(self.der()).unwrap();
            roots
                .add(CertificateDer::from_pem_file(fixture("client-ca.pem")).unwrap())
                .unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        };
        let builder = match client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            ClientAuth::Optional => {
                builder.with_client_cert_verifier(verifier().allow_unauthenticated().build().unwrap())
            }
            ClientAuth::Required => builder.with_client_cert_verifier(verifier().build().unwrap()),
        };
        let mut config = builder.with_single_cert(vec![cert_der], key_der).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client certificate that ends at `not_after`, which may be in the past.
    pub fn client_cert(&self, common_name: &str, not_after: SystemTime) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = not_after.into();
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity::of(&cert, &key)
    }
}

/// A key that signs provider tokens for APNs, as Apple hands it out in a `.p8` file.
pub struct ApnsKey {
    key: KeyPair,
}

impl ApnsKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    /// The content of the `.p8` file: PKCS#8 PEM.
    pub fn p8(&self) -> String {
        self.key.serialize_pem()
    }

    /// Reads a provider token, with or without `bearer ` before it, if this key signed it.
    pub fn verify(&self, token: &str) -> Result<Jwt, String> {
        let token = token.strip_prefix("bearer ").unwrap_or(token);
        Jwt::verify_es256(token, self.key.public_key_raw())
    }
}

/// The JSON file of a Google service account, with the key of `fixtures/service-account.key.pem`.
pub fn service_account_json(project_id: &str, token_uri: &str) -> String {
    let key = std::fs::read_to_string(fixture("service-account.key.pem")).unwrap();
    let account = json!({
        "type": "service_account",
        "project_id": project_id,
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": key,
        "client_email": service_account_email(project_id),
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "universe_domain": "googleapis.com",
    });
    serde_json::to_string_pretty(&account).unwrap()
}

/// Who signs the assertions of [`service_account_json`].
pub fn service_account_email(project_id: &str) -> String {
    format!("fpush@{project_id}.iam.gserviceaccount.com")
}

/// Reads an assertion that the key of [`service_account_json`] signed.
pub fn verify_assertion(assertion: &str) -> Result<Jwt, String> {
    let public = SubjectPublicKeyInfoDer::from_pem_file(fixture("service-account.pub.pem")).unwrap();
    Jwt::verify_rs256(assertion, &public)
}

/// The path of a file in `fixtures/`, which must exist.
#[track_caller]
pub fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    assert!(path.is_file(), "there is no fixture {name}");
    path
}
