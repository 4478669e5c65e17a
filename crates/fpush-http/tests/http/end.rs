//! Beginning and end.

use std::{sync::atomic::Ordering, time::Duration};

use fpush_http::{Limits, Listener, Security, StartError};
use fpush_testkit::LONG;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::rig::{Rig, post, read_reply};

/// Waits until this is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("it becomes so");
}

const MOMENT: Duration = Duration::from_millis(200);

/// A push that waits for the provider.
async fn waiting_push(rig: &Rig) -> TcpStream {
    let secret = rig.register("n", "slow").await;
    let mut stream = rig.connect().await;
    // The connection would stay: the shutdown has to end it.
    let request = post("push", &format!("node=n&secret={secret}"), "");
    stream.write_all(request.as_bytes()).await.unwrap();
    until(async || rig.backend.asked.load(Ordering::SeqCst) == 1).await;
    stream
}

#[tokio::test]
async fn what_is_under_way_when_the_end_begins_is_answered() {
    let rig = Rig::new().await;
    let push = waiting_push(&rig).await;
    let mut idle = rig.connect().await;
    let health = "GET /push_appserver/v1/health HTTP/1.1\r\nHost: h\r\n\r\n";
    idle.write_all(health.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"</html>") {
        assert_ne!(idle.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
    }
    let mut new = rig.connect().await;
    let mut half = rig.connect().await;
    half.write_all(b"GET /push").await.unwrap();
    sleep(MOMENT).await;
    rig.drain.begin();
    new.write_all(health.as_bytes()).await.unwrap();
    until(async || {
        let refused = TcpStream::connect(rig.address).await.err();
        refused.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
    .await;
    let ended = timeout(2 * MOMENT, idle.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "who has no request any more is let go at once");
    let reply = read_reply(new).await;
    assert!(
        reply.body.contains("RUNNING"),
        "the first request may still be on the way"
    );
    assert_eq!(half.read(&mut [0; 1]).await.unwrap(), 0, "but not for long");
    assert!(!rig.server.is_finished());
    rig.backend.go.add_permits(1);
    assert_eq!(read_reply(push).await.body, "OK\nn");
    timeout(Duration::from_secs(3), rig.server)
        .await
        .unwrap()
        .unwrap();
    timeout(Duration::from_secs(3), rig.drain.until_idle())
        .await
        .unwrap();
}

#[tokio::test]
async fn at_the_end_of_all_patience_a_push_is_answered_too() {
    let rig = Rig::new().await;
    let push = waiting_push(&rig).await;
    let mut slow = rig.connect().await;
    let head = "POST /push_appserver/v1/register HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\ntype=fcm";
    slow.write_all(head.as_bytes()).await.unwrap();
    sleep(MOMENT).await;
    rig.drain.begin();
    sleep(MOMENT).await;
    rig.drain.expire();
    let reply = read_reply(push).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with("ERROR\n"), "{reply:?}");
    assert_eq!(read_reply(slow).await.status, 503);
    timeout(Duration::from_secs(2), rig.server)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_push_goes_on_when_its_client_has_gone() {
    let rig = Rig::new().await;
    drop(waiting_push(&rig).await);
    sleep(MOMENT).await;
    rig.backend.go.add_permits(1);
    until(async || rig.backend.accepted.load(Ordering::SeqCst) == 1).await;
    // The registry hears of it.
    until(async || {
        let device = rig.registry.show("n").await.unwrap().unwrap();
        device.delivered.is_some()
    })
    .await;
}

#[tokio::test]
async fn who_cannot_begin_says_what_to_do() {
    let rig = Rig::new().await;
    let error = async |listen: &str| {
        let listen = listen.parse().unwrap();
        let bound = Listener::bind(listen, Security::default(), Limits::default(), &[]).await;
        let Err(error @ StartError::Bind { .. }) = bound else {
            panic!("it must not begin");
        };
        error.to_string()
    };
    let taken = error(&rig.address.to_string()).await;
    assert!(
        taken.starts_with(&format!(
            "cannot listen on {}: Address already in use",
            rig.address
        )),
        "{taken}"
    );
    assert!(taken.contains("choose another port for listen"), "{taken}");
    let elsewhere = error("192.0.2.1:8280").await;
    assert!(
        elsewhere.contains("this machine does not have the address"),
        "{elsewhere}"
    );
}
