//! Listeners alone: any router behind them, and one listener after the other on the same port.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    net::{IpAddr, SocketAddr},
    slice::from_ref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Router,
    http::header,
    routing::{get, post},
};
use fpush_driver::Drain;
use fpush_http::{Client, Handle, Limits, Listener, Security, StartError};
use fpush_push::Network;
use fpush_push::settings::{Report, Section};
use fpush_testkit::{LONG, TempDir};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

const MOMENT: Duration = Duration::from_millis(200);

async fn bind(address: SocketAddr, running: &[Handle]) -> Result<Listener, StartError> {
    Listener::bind(address, Security::default(), Limits::default(), running).await
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Serves a router that says a name.
fn serve(listener: Listener, name: &'static str, drain: &Drain) -> JoinHandle<()> {
    let router = Router::new().route("/", get(async move || name)).route(
        "/slow",
        post(async move || {
            sleep(3 * MOMENT).await;
            name
        }),
    );
    tokio::spawn(listener.serve(router, drain.clone()))
}

async fn ask(address: SocketAddr, request: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

/// The body of the answer to `GET /`.
async fn name(address: SocketAddr) -> String {
    let answer = ask(address, "GET /", "").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    body.to_owned()
}

#[tokio::test]
async fn a_router_is_served_and_knows_its_clients() {
    let security = Security {
        trusted_proxies: vec![Network::parse("127.0.0.1").unwrap()],
        ..Security::default()
    };
    let listener = Listener::bind(any_port(), security, Limits::default(), &[])
        .await
        .unwrap();
    let address = listener.address();
    assert!(listener.handle().certificate_expires().is_none());
    let who = async |Extension(client): Extension<Client>| client.address.to_string();
    let drain = Drain::default();
    tokio::spawn(listener.serve(Router::new().route("/", get(who)), drain.clone()));
    let answer = ask(address, "GET /", "X-Forwarded-For: 192.0.2.7\r\n").await;
    assert!(answer.ends_with("\r\n\r\n192.0.2.7"), "{answer}");
    assert!(ask(address, "GET /none", "").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn what_a_router_says_to_browsers_stays() {
    let listener = bind(any_port(), &[]).await.unwrap();
    let address = listener.address();
    let own = async || {
        let policy = "default-src 'self'";
        (
            [
                (header::CONTENT_SECURITY_POLICY, policy),
                (header::CACHE_CONTROL, "max-age=5"),
            ],
            "",
        )
    };
    let router = Router::new()
        .route("/own", get(own))
        .route("/none", get(async || ""));
    tokio::spawn(listener.serve(router, Drain::default()));
    let answer = ask(address, "GET /own", "").await.to_ascii_lowercase();
    assert!(
        answer.contains("content-security-policy: default-src 'self'\r\n"),
        "{answer}"
    );
    assert!(answer.contains("cache-control: max-age=5\r\n"), "{answer}");
    assert_eq!(answer.matches("content-security-policy").count(), 1, "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    let answer = ask(address, "GET /none", "").await.to_ascii_lowercase();
    assert!(
        answer.contains("content-security-policy: default-src 'none'; "),
        "{answer}"
    );
    assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
}

/// Who has connected waits in the socket's queue until it is accepted.
#[tokio::test]
async fn who_waits_when_the_last_listener_ends_is_served() {
    let drain = Drain::default();
    let listener = bind(any_port(), &[]).await.unwrap();
    let address = listener.address();
    let server = serve(listener, "last", &drain);
    assert_eq!(name(address).await, "last");
    // Nothing here waits, so that nobody accepts them before the end begins.
    let mut streams: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    drain.begin();
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    }
    timeout(LONG, server).await.expect("it ends").unwrap();
    for mut stream in streams {
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.ends_with("last"), "{answer}");
    }
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn nobody_is_refused_while_one_listener_takes_over_from_the_other() {
    let all = Drain::default();
    let listener = bind(any_port(), &[]).await.unwrap();
    let (address, mut handle, mut drain) = (listener.address(), listener.handle(), all.child());
    let mut server = serve(listener, "first", &drain);
    assert_eq!(name(address).await, "first");

    let answers: Arc<[AtomicU64; 4]> = Arc::default();
    let clients: Vec<_> = (0..answers.len())
        .map(|client| {
            let (all, answers) = (all.clone(), Arc::clone(&answers));
            tokio::spawn(async move {
                while !all.has_begun() {
                    // Who has been accepted by the old one has its answer even if the request comes later.
                    let mut stream = TcpStream::connect(address).await.expect("nobody is refused");
                    let count = answers[client].load(Relaxed);
                    sleep(Duration::from_millis(count % 5)).await;
                    stream
                        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                        .await
                        .unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await.unwrap();
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    answers[client].fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    // However slow the machine is, every client has answers from each of the listeners.
    let some_more = async || {
        let before = answers.each_ref().map(|count| count.load(Relaxed));
        while answers
            .iter()
            .zip(before)
            .any(|(count, before)| count.load(Relaxed) < before + 5)
        {
            sleep(Duration::from_millis(5)).await;
        }
    };

    let slow = tokio::spawn(async move { ask(address, "POST /slow", "").await });
    sleep(MOMENT).await;
    for turn in ["second", "third", "fourth"] {
        let listener = bind(address, from_ref(&handle)).await.unwrap();
        let (new_handle, new_drain) = (listener.handle(), all.child());
        let new_server = serve(listener, turn, &new_drain);
        drain.begin();
        timeout(LONG, server).await.expect("the old one ends").unwrap();
        (handle, drain, server) = (new_handle, new_drain, new_server);
        assert_eq!(name(address).await, turn);
        timeout(LONG, some_more()).await.expect("all are served");
    }
    assert!(
        slow.await.unwrap().ends_with("\r\n\r\nfirst"),
        "what was under way is finished"
    );

    all.begin();
    for client in clients {
        client.await.unwrap();
    }
    timeout(LONG, server).await.unwrap().unwrap();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(handle);
}

#[tokio::test]
async fn a_port_is_shared_with_the_same_address_only() {
    let drain = Drain::default();
    let listener = bind(any_port(), &[]).await.unwrap();
    let (address, handle) = (listener.address(), listener.handle());
    let server = serve(listener, "first", &drain);

    let same = bind(any_port(), from_ref(&handle)).await.unwrap();
    assert_eq!(same.address(), address, "a port that the system gave stays");
    drop(same);
    assert_eq!(
        name(address).await,
        "first",
        "one that was never served takes nothing away"
    );

    let everywhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port());
    let Err(error @ StartError::Overlap { .. }) = bind(everywhere, from_ref(&handle)).await else {
        panic!("the port is taken");
    };
    let expected = format!(
        "cannot listen on {everywhere} while this fpush listens on {address}; restart it, or choose another port for \
         listen"
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(bind(address, &[]).await, Err(StartError::Bind { .. })));

    drain.begin();
    timeout(LONG, server).await.unwrap().unwrap();
    let anew = bind(address, &[handle]).await.unwrap();
    serve(anew, "anew", &Drain::default());
    assert_eq!(name(address).await, "anew", "a handle keeps no port open");
}

#[tokio::test]
async fn the_end_of_the_certificate_is_told() {
    let dir = TempDir::new();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let block = json!({
        "certFilePath": dir.write("cert.pem", cert.pem()),
        "keyFilePath": dir.write("key.pem", signing_key.serialize_pem()),
    });
    let security = Security::read(&mut Section::root(block.as_object().unwrap(), &Report::default()));
    let listener = Listener::bind(any_port(), security, Limits::default(), &[])
        .await
        .unwrap();
    let expires = listener.handle().certificate_expires().expect("it says so");
    assert!(expires > SystemTime::now());
}

/// The thread that pushes has nothing to do with a request: this one does nothing while it is answered.
#[tokio::test]
async fn requests_take_no_time_of_the_thread_that_pushes() {
    let listener = bind(any_port(), &[]).await.unwrap();
    let address = listener.address();
    tokio::spawn(serve(listener, "served", &Drain::default()));
    yield_now().await;
    let (answered, is_answered) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        answered.send(runtime.block_on(name(address))).unwrap();
    });
    let answer = is_answered.recv_timeout(Duration::from_secs(20));
    assert_eq!(answer.expect("the request needs this thread"), "served");
}
