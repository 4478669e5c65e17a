//! Nobody holds more than a share of the listener, and nobody holds it for longer than it takes.

use std::{io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use fpush_http::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::rig::{Rig, post, read_reply};

const SHORT: Duration = Duration::from_millis(300);
const HEALTH: &str = "GET /push_appserver/v1/health HTTP/1.1\r\nHost: h\r\n\r\n";

async fn rig(limits: Limits) -> Rig {
    Rig::with(|options| options.limits = limits).await
}

/// How long after `start` the other side has ended a connection, and what it said until then.
async fn until_closed(stream: &mut TcpStream, start: Instant) -> (Duration, String) {
    let mut said = Vec::new();
    match timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        Err(_) => panic!("the connection stays"),
    }
    (start.elapsed(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_head_has_to_come_soon() {
    let rig = rig(Limits {
        first_request: SHORT,
        ..Limits::default()
    })
    .await;
    let (start, mut silent) = (Instant::now(), rig.connect().await);
    let (took, said) = until_closed(&mut silent, start).await;
    assert!(
        took >= SHORT && took < 4 * SHORT + Duration::from_secs(1),
        "{took:?}"
    );
    assert_eq!(said, "");

    let (start, mut slow) = (Instant::now(), rig.connect().await);
    slow.write_all(b"GET /push_appserver/v1/health HTTP/1.1\r\n")
        .await
        .unwrap();
    while slow.write_all(b"X-Slow: 1\r\n").await.is_ok() {
        sleep(Duration::from_millis(50)).await;
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "a byte now and then keeps the connection"
        );
    }
    let (_, said) = until_closed(&mut slow, start).await;
    assert_eq!(said, "");
}

#[tokio::test]
async fn a_connection_without_requests_ends_but_not_one_that_waits_for_its_push() {
    let rig = rig(Limits {
        idle: SHORT,
        ..Limits::default()
    })
    .await;
    let (start, mut idle) = (Instant::now(), rig.connect().await);
    idle.write_all(HEALTH.repeat(2).as_bytes()).await.unwrap();
    let (took, said) = until_closed(&mut idle, start).await;
    assert!(took >= SHORT && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(said.matches("RUNNING").count(), 2);

    let secret = rig.register("n", "slow").await;
    let mut waiting = rig.connect().await;
    let request = post(
        "push",
        &format!("node=n&secret={secret}"),
        "Connection: close\r\n",
    );
    waiting.write_all(request.as_bytes()).await.unwrap();
    sleep(4 * SHORT).await;
    rig.backend.go.add_permits(1);
    assert_eq!(read_reply(waiting).await.body, "OK\nn");
}

#[tokio::test]
async fn a_body_has_to_come_soon() {
    let rig = rig(Limits {
        body: SHORT,
        ..Limits::default()
    })
    .await;
    let mut slow = rig.connect().await;
    let head = "POST /push_appserver/v1/register HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\ntype=fcm";
    slow.write_all(head.as_bytes()).await.unwrap();
    let reply = read_reply(slow).await;
    assert_eq!(reply.status, 408);
}

#[tokio::test]
async fn a_head_has_a_bound() {
    let rig = Rig::new().await;
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    let reply = rig.post_with("push", "node=n&secret=s", &long).await;
    assert_eq!(reply.status, 431);
}

#[tokio::test]
async fn one_address_has_a_share_of_the_connections() {
    let rig = rig(Limits {
        connections_per_address: 3,
        ..Limits::default()
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(connect_from("127.0.0.2:0", rig.address).await);
    }
    sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    let mut fourth = connect_from("127.0.0.2:0", rig.address).await;
    let (took, said) = until_closed(&mut fourth, start).await;
    assert!(
        took < Duration::from_secs(2) && said.is_empty(),
        "{took:?} {said}"
    );
    assert_eq!(
        rig.get("/v1/health").await.status,
        200,
        "another address has its own share"
    );
    held.pop();
    sleep(Duration::from_millis(50)).await;
    let mut again = connect_from("127.0.0.2:0", rig.address).await;
    again
        .write_all(
            HEALTH
                .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(read_reply(again).await.status, 200);
}

async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(source.parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Waits until so many slow pushes are at the provider, of which this is the last one.
async fn under_way(rig: &Rig, pushes: usize, last: &mut (impl Future<Output = String> + Unpin)) {
    while rig.backend.asked.load(Ordering::SeqCst) < pushes {
        let ended = timeout(Duration::from_millis(10), &mut *last).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}

#[tokio::test]
async fn beyond_the_last_connection_one_without_a_request_ends_and_others_wait() {
    let rig = rig(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let [first, second] = [
        rig.register("one", "slow").await,
        rig.register("two", "slow").await,
    ];
    let mut idle = rig.connect().await;
    let mut push = Box::pin(rig.push("one", &first));
    under_way(&rig, 1, &mut push).await;
    assert_eq!(rig.get("/v1/health").await.status, 200);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "it had no request");

    let mut other = Box::pin(rig.push("two", &second));
    under_way(&rig, 2, &mut other).await;
    let mut reply = Box::pin(rig.get("/v1/health"));
    assert!(timeout(SHORT, &mut reply).await.is_err(), "each has a request");
    rig.backend.go.add_permits(2);
    assert_eq!(reply.await.status, 200);
    assert_eq!(
        (push.await, other.await),
        ("OK\none".to_owned(), "OK\ntwo".to_owned())
    );
}

#[tokio::test]
async fn one_address_has_a_share_of_the_pushes() {
    let rig = rig(Limits {
        pushes_per_address: 1,
        ..Limits::default()
    })
    .await;
    let slow = rig.register("slow", "slow").await;
    let other = rig.register("other", "t").await;
    let mut first = Box::pin(rig.push("slow", &slow));
    assert!(timeout(SHORT, &mut first).await.is_err());
    assert_eq!(
        rig.push("other", &other).await,
        "ERROR\nToo many requests, try again later!"
    );
    let reply = rig.post("register", "type=fcm&node=n&token=t").await;
    assert!(
        reply.body.starts_with("OK\n"),
        "pushes do not stand in the way of others: {reply:?}"
    );
    rig.backend.go.add_permits(1);
    assert_eq!(first.await, "OK\nslow");
    assert_eq!(rig.push("other", &other).await, "OK\nother");
}
