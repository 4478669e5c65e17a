//! A small HTTP/2 client, and signatures.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
pub(crate) use fpush_testkit::LONG;
use fpush_testkit::TestCa;
use fpush_testkit::certs::Identity;
use h2::client::SendRequest;
use h2::{Error, PingPong};
use http::{HeaderMap, Request};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Long enough to see that something does not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), Error>>,
    pub(crate) pings: PingPong,
    authority: String,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(ca: &TestCa, url: &str, identity: Option<Identity>) -> io::Result<Self> {
        let authority = url.strip_prefix("https://").unwrap().to_owned();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(Identity {
                cert_der, key_der, ..
            }) => builder.with_client_auth_cert(vec![cert_der], key_der).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(&authority).await?;
        // Without it every batch of requests may wait 40 ms for the acknowledgement of the one before.
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (send, mut connection) = h2::client::handshake(tls).await.map_err(io::Error::other)?;
        let pings = connection.ping_pong().unwrap();
        Ok(Self {
            send,
            driver: tokio::spawn(connection),
            pings,
            authority,
        })
    }

    /// Sends a request now and returns its answer later.
    pub(crate) async fn start<B: Into<Bytes>>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> Result<impl Future<Output = Result<Response, Error>> + use<B>, Error> {
        let mut request = Request::post(format!("https://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = self.send.clone().ready().await?;
        let (answer, mut stream) = send.send_request(request.body(()).unwrap(), false)?;
        stream.send_data(body.into(), true)?;
        Ok(async move {
            // Held, because dropping it would cancel the request.
            let _stream = stream;
            let (head, mut body) = answer.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                bytes.extend_from_slice(&chunk?);
            }
            Ok(Response {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8(bytes).unwrap(),
            })
        })
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, Error> {
        self.start(path, headers, body).await?.await
    }
}

pub(crate) fn sign_es256(p8: &str, header: &Value, claims: &Value) -> String {
    let der = PrivatePkcs8KeyDer::from_pem_slice(p8.as_bytes()).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der()).unwrap();
    sign(header, claims, |text| {
        key.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()
    })
}

pub(crate) fn sign_rs256(pem: &str, header: &Value, claims: &Value) -> String {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    sign(header, claims, |text| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .unwrap();
        signature
    })
}

fn sign(header: &Value, claims: &Value, signature: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = encode(&signature(text.as_bytes()));
    format!("{text}.{signature}")
}
