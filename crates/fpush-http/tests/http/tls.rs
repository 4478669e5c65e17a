//! TLS, and HTTP/2 with and without it.

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fpush_http::{Security, ServerCertificate};
use fpush_push::settings::{Report, Section};
use fpush_testkit::temp_dir::TempDir;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::rig::{Rig, post, read_reply};

/// A certificate for `localhost`: its PEM, and what the settings make of it and its key.
pub(crate) fn certificate() -> (String, ServerCertificate) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = TempDir::new();
    let block = json!({
        "certFilePath": dir.write("cert.pem", cert.pem()),
        "keyFilePath": dir.write("key.pem", signing_key.serialize_pem()),
    });
    let report = Report::default();
    let security = Security::read(&mut Section::root(block.as_object().unwrap(), &report));
    (cert.pem(), security.tls.unwrap())
}

async fn rig() -> (Rig, String) {
    let (pem, certificate) = certificate();
    let rig = Rig::with(|options| options.http.security.tls = Some(certificate)).await;
    (rig, pem)
}

async fn connect(address: SocketAddr, pem: &str, protocol: &str) -> TlsStream<TcpStream> {
    handshake(TcpStream::connect(address).await.unwrap(), pem, protocol).await
}

async fn handshake(stream: TcpStream, pem: &str, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    stream
}

/// The thread that pushes has nothing to do with a handshake: this one does nothing while it happens.
#[tokio::test]
async fn handshakes_take_no_time_of_the_thread_that_pushes() {
    let (rig, pem) = rig().await;
    let address = rig.address;
    let (connected, has_connected) = oneshot::channel();
    let (go, has_to_go) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let client = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            connected.send(()).unwrap();
            has_to_go.recv().unwrap();
            let stream = handshake(stream, &pem, "http/1.1").await;
            done.send(()).unwrap();
            stream
        });
    });
    has_connected.await.unwrap();
    // The listener accepts it meanwhile.
    sleep(Duration::from_millis(50)).await;
    go.send(()).unwrap();
    is_done
        .recv_timeout(Duration::from_secs(20))
        .expect("the handshake needs this thread");
    client.join().unwrap();
}

/// Registers a device over HTTP/2 and returns the answer.
async fn register_over_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> (u16, String) {
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("https://localhost/push_appserver/v1/register")
        .body(())
        .unwrap();
    let (reply, mut form) = client.send_request(request, false).unwrap();
    form.send_data(Bytes::from_static(b"type=fcm&node=n&token=t"), true)
        .unwrap();
    let reply = reply.await.unwrap();
    let (status, mut body, mut text) = (reply.status().as_u16(), reply.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    drop((client, form, body));
    timeout(Duration::from_secs(5), connection)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    (status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls() {
    let (rig, pem) = rig().await;
    let mut first = connect(rig.address, &pem, "http/1.1").await;
    let request = post("register", "type=fcm&node=m&token=t", "Connection: close\r\n");
    first.write_all(request.as_bytes()).await.unwrap();
    assert!(read_reply(first).await.body.starts_with("OK\nm\n"));

    let second = connect(rig.address, &pem, "h2").await;
    let (status, text) = register_over_http2(second).await;
    assert_eq!(status, 200);
    assert!(text.starts_with("OK\nn\n"), "{text}");
}

#[tokio::test]
async fn http2_is_spoken_without_tls_too() {
    let rig = Rig::new().await;
    let (status, text) = register_over_http2(rig.connect().await).await;
    assert_eq!(status, 200);
    assert!(text.starts_with("OK\nn\n"), "{text}");
}

#[tokio::test]
async fn a_connection_of_http2_without_requests_ends() {
    let rig = Rig::with(|options| options.limits.first_request = Duration::from_millis(300)).await;
    let start = Instant::now();
    let (_client, connection) = h2::client::handshake(rig.connect().await).await.unwrap();
    timeout(Duration::from_secs(5), connection)
        .await
        .unwrap()
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_let_go() {
    let (rig, pem) = rig().await;
    let mut plain = rig.connect().await;
    plain.write_all(post("push", "", "").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let ended = timeout(Duration::from_secs(5), plain.read_to_end(&mut said)).await;
    assert!(ended.is_ok() && !said.starts_with(b"HTTP"), "{said:?}");
    let stream = connect(rig.address, &pem, "h2").await;
    assert_eq!(register_over_http2(stream).await.0, 200);

    let rig = Rig::with(|options| {
        options.http.security.tls = Some(certificate().1);
        options.limits.handshake = Duration::from_millis(300);
    })
    .await;
    let mut silent = rig.connect().await;
    let ended = timeout(Duration::from_secs(3), silent.read(&mut [0; 1])).await;
    assert_eq!(ended.expect("the handshake has an end").unwrap(), 0);
}
