//! The pooled client at receivers of every kind, over real sockets and real TLS.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "pooled/receiver.rs"]
mod receiver;

use std::{
    net::Ipv4Addr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fpush_client::{Answer, Dialer, Obstacle, PoolSettings, PooledClient, SendError, Trust, Wanted};
use fpush_testkit::{LONG, TestCa};
use h2::Reason;
use http::{Method, Request, header::LOCATION};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use receiver::{Do, Receiver};

fn settings(ca: &TestCa) -> PoolSettings {
    let anywhere = "https://127.0.0.1".parse().unwrap();
    let dialer = Dialer::new(&anywhere).unwrap();
    assert_eq!(
        dialer.proxy_host(&anywhere),
        None,
        "unset HTTPS_PROXY for this test"
    );
    PoolSettings {
        trust: Trust::new(Some(ca.pem().as_bytes())).unwrap(),
        dialer,
        plain_http: false,
        idle_timeout: LONG,
        max_connections: NonZeroUsize::new(4).unwrap(),
        max_idle: NonZeroUsize::new(4).unwrap(),
        max_origins: NonZeroUsize::new(100).unwrap(),
    }
}

fn client(ca: &TestCa) -> PooledClient {
    PooledClient::new(settings(ca))
}

fn request(url: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"{}"));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.parse().unwrap();
    request
}

/// Sends a request for its status.
async fn post(client: &PooledClient, receiver: &Receiver) -> Result<Answer, SendError> {
    post_within(client, receiver, LONG).await
}

async fn post_within(
    client: &PooledClient,
    receiver: &Receiver,
    time: Duration,
) -> Result<Answer, SendError> {
    let deadline = Instant::now() + time;
    client
        .send(request(&receiver.url()), Wanted::Status, deadline)
        .await
}

async fn status(client: &PooledClient, receiver: &Receiver) -> u16 {
    post(client, receiver).await.unwrap().status.as_u16()
}

/// Waits until this many connections are open.
async fn until_open(client: &PooledClient, open: usize) {
    let start = Instant::now();
    while client.status().open != open {
        assert!(start.elapsed() < LONG, "{:?}", client.status());
        sleep(Duration::from_millis(5)).await;
    }
}

fn say(text: impl AsRef<str>) -> Do {
    Do::Say(text.as_ref().as_bytes().to_vec())
}

/// An answer of HTTP/1.1.
fn http1(status: u16, body: &str) -> Vec<Do> {
    let length = body.len();
    vec![say(format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"
    ))]
}

/// An answer of HTTP/2.
fn http2(status: u16, body: &str) -> Vec<Do> {
    vec![Do::Head(status, vec![]), say(body), Do::End]
}

/// An answer in the protocol of the request.
fn either(line: &str) -> Vec<Do> {
    if line.ends_with("HTTP/2") {
        http2(200, "ok")
    } else {
        http1(200, "ok")
    }
}

/// Sends to a receiver of HTTP/1.1 that does this with its first request, and answers 200 to those on later connections.
async fn first_meets(todo: Vec<Do>) -> (Result<Answer, SendError>, Receiver, PooledClient) {
    first_meets_within(todo, LONG).await
}

async fn first_meets_within(
    todo: Vec<Do>,
    time: Duration,
) -> (Result<Answer, SendError>, Receiver, PooledClient) {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["http/1.1"], move |seen| {
        if seen.connection == 1 {
            todo.clone()
        } else {
            http1(200, "")
        }
    })
    .await;
    let client = client(&ca);
    let answer = post_within(&client, &receiver, time).await;
    (answer, receiver, client)
}

/// The same with a receiver of HTTP/2.
async fn first_meets_http2(
    todo: Vec<Do>,
    time: Duration,
) -> (Result<Answer, SendError>, Receiver, PooledClient) {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["h2"], move |seen| {
        if (seen.connection, seen.request) == (1, 1) {
            todo.clone()
        } else {
            http2(200, "")
        }
    })
    .await;
    let client = client(&ca);
    let answer = post_within(&client, &receiver, time).await;
    (answer, receiver, client)
}

#[tokio::test]
async fn the_servers_choice_decides_what_is_spoken() {
    let ca = TestCa::new();
    for (alpn, line) in [
        (["http/1.1"].as_slice(), "POST /hook?x=%2b HTTP/1.1"),
        (&[], "POST /hook?x=%2b HTTP/1.1"),
        (&["http/1.1", "h2"], "POST /hook?x=%2b HTTP/1.1"),
        (&["h2"], "HTTP/2"),
        (&["h2", "http/1.1"], "HTTP/2"),
    ] {
        let receiver = Receiver::tls(&ca, alpn, |seen| either(&seen.line)).await;
        let client = client(&ca);
        for _ in 0..3 {
            let answer = post(&client, &receiver).await.unwrap();
            assert_eq!(
                (answer.status.as_u16(), &*answer.body),
                (200, b"ok".as_slice()),
                "{alpn:?}"
            );
        }
        assert_eq!(receiver.connections(), 1, "{alpn:?}: it is used again");
        let all = receiver.seen();
        assert_eq!(all.len(), 3);
        for seen in all {
            assert_eq!(&*seen.body, b"{}");
            assert_eq!(seen.headers["content-length"], "2");
            if line == "HTTP/2" {
                let uri = receiver.url();
                assert_eq!(seen.line, format!("POST {uri} HTTP/2"));
            } else {
                assert_eq!(seen.line, line);
                assert_eq!(seen.headers["host"], receiver.authority());
            }
        }
        let status = client.status();
        assert_eq!((status.open, status.streams, status.connects), (1, 0, 1));
    }
}

#[tokio::test]
async fn what_is_for_something_else_gets_no_request() {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["smtp"], |_| http1(200, "")).await;
    let client = client(&ca);
    let error = post(&client, &receiver).await.unwrap_err();
    assert_eq!(error, SendError::Unreachable(Obstacle::NotHttp));
    let strange = Receiver::tls(&TestCa::new(), &[], |_| http1(200, "")).await;
    let error = post(&client, &strange).await.unwrap_err();
    assert!(
        matches!(error, SendError::Unreachable(Obstacle::Certificate(_))),
        "{error:?}"
    );
    let nobody = request("https://127.0.0.1:1/");
    let error = client.send(nobody, Wanted::Status, Instant::now() + LONG).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, SendError::Unreachable(Obstacle::Tcp(_))),
        "{error:?}"
    );
    let status = client.status();
    assert_eq!((status.open, status.streams, status.failed_connects), (0, 0, 3));
}

#[tokio::test]
async fn what_is_not_encrypted_is_for_those_who_want_it() {
    let ca = TestCa::new();
    let receiver = Receiver::plain(|_| http1(204, "")).await;
    let error = post(&client(&ca), &receiver).await.unwrap_err();
    assert_eq!(error, SendError::Unreachable(Obstacle::Url));
    assert_eq!(receiver.connections(), 0);
    let settings = PoolSettings {
        plain_http: true,
        ..settings(&ca)
    };
    let client = PooledClient::new(settings);
    for _ in 0..2 {
        assert_eq!(status(&client, &receiver).await, 204);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn no_redirection_is_followed() {
    let ca = TestCa::new();
    let elsewhere = Receiver::tls(&ca, &[], |_| http1(200, "")).await;
    let target = elsewhere.url();
    let receiver = Receiver::tls(&ca, &[], move |_| {
        vec![say(format!(
            "HTTP/1.1 307 X\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        ))]
    })
    .await;
    let answer = post(&client(&ca), &receiver).await.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(answer.headers[LOCATION], elsewhere.url().as_str());
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_idle_connection_that_the_receiver_closes_costs_nothing() {
    for close in [
        [http1(200, "ok"), vec![Do::Close]].concat(),
        vec![say(
            "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        )],
        vec![say("HTTP/1.0 200 X\r\n\r\nok"), Do::Close],
    ] {
        let (answer, receiver, client) = first_meets(close).await;
        assert_eq!(answer.unwrap().status, 200);
        until_open(&client, 0).await;
        assert_eq!(status(&client, &receiver).await, 200);
        assert_eq!((receiver.connections(), receiver.seen().len()), (2, 2));
    }
}

/// It may have been acted on.
#[tokio::test]
async fn a_request_that_was_read_is_not_repeated() {
    for todo in [
        vec![Do::Close],
        vec![say("HTTP/1.1 20"), Do::Close],
        vec![say("HTTP/1.1 200 X\r\nContent-Length: 5\r\n"), Do::Close],
    ] {
        let (answer, receiver, client) = first_meets(todo).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, SendError::Broken(_)), "{error:?}");
        assert_eq!((receiver.connections(), receiver.seen().len()), (1, 1));
        assert_eq!(
            status(&client, &receiver).await,
            200,
            "the next one goes elsewhere"
        );
    }
    // The same over a connection that was used before.
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &[], |seen| {
        if (seen.connection, seen.request) == (1, 2) {
            vec![Do::Close]
        } else {
            http1(200, "")
        }
    })
    .await;
    let client = client(&ca);
    assert_eq!(status(&client, &receiver).await, 200);
    let error = post(&client, &receiver).await.unwrap_err();
    assert!(matches!(error, SendError::Broken(_)), "{error:?}");
    assert_eq!(receiver.seen().len(), 2);
}

#[tokio::test]
async fn interim_answers_and_chunks_are_read_past() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let chunked = "HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n";
    let todo = vec![
        say(interim),
        Do::Wait(Duration::from_millis(5)),
        say(chunked),
        Do::Wait(Duration::from_millis(5)),
        say("2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"),
    ];
    let (answer, receiver, client) = first_meets(todo).await;
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &*answer.body),
        (201, b"abcde".as_slice())
    );
    assert_eq!(status(&client, &receiver).await, 201);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn what_does_not_speak_http_is_called_so() {
    let header = |name: &str, count: usize| {
        let mut head = "HTTP/1.1 200 X\r\n".to_owned();
        for number in 0..count {
            head.push_str(&format!("{name}{number}: y\r\n"));
        }
        head + "Content-Length: 0\r\n\r\n"
    };
    let long = format!("HTTP/1.1 200 X\r\nA: {}\r\n\r\n", "x".repeat(20_000));
    for todo in [
        vec![say("SSH-2.0-OpenSSH_9.2\r\n"), Do::Hang],
        vec![say("\0\0\x12\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Do::Hang],
        vec![say(
            "HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        )],
        vec![say(header("x-", 200))],
        vec![say(long)],
        vec![say("HTTP/1.1 200 X\r\nA: "), Do::SayForEver(vec![b'x'; 1_000])],
        vec![say("HTTP/1.1 200 X\r\n"), Do::SayForEver(b"A: b\r\n".repeat(100))],
        vec![Do::SayForEver(b"HTTP/1.1 103 X\r\n\r\n".repeat(100))],
        vec![Do::SayForEver(b"\r\n".repeat(100))],
    ] {
        let shown = format!("{:.60}", format!("{todo:?}"));
        let (answer, receiver, client) = first_meets(todo).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, SendError::Malformed(_)), "{shown}: {error:?}");
        until_open(&client, 0).await;
        assert_eq!(status(&client, &receiver).await, 200);
    }
}

#[tokio::test]
async fn what_agrees_on_http2_and_speaks_something_else_is_called_so() {
    let ca = TestCa::new();
    // It takes the preface of HTTP/2 for a request.
    let receiver = Receiver::tls_of_http1(&ca, &["h2"], |_| [http1(400, ""), vec![Do::Hang]].concat()).await;
    let error = post(&client(&ca), &receiver).await.unwrap_err();
    assert!(matches!(error, SendError::Malformed(_)), "{error:?}");
    assert_eq!(receiver.seen()[0].line, "PRI * HTTP/2.0");
}

#[tokio::test]
async fn frames_that_say_nothing_are_not_read_for_ever() {
    let ca = TestCa::new();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [[0, 0, 8, 6, 0, 0, 0, 0, 0].as_slice(), &[7; 8]].concat();
    let window_update = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1].to_vec();
    for frame in [ping, settings.to_vec(), window_update] {
        let receiver = Receiver::tls_of_http1(&ca, &["h2"], move |_| {
            vec![Do::Say(settings.to_vec()), Do::SayForEver(frame.repeat(1_000))]
        })
        .await;
        let client = client(&ca);
        let error = post(&client, &receiver).await.unwrap_err();
        assert!(matches!(error, SendError::Malformed(_)), "{error:?}");
        until_open(&client, 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_too_slowly_is_none() {
    let loris = std::iter::repeat_with(|| [say("a"), Do::Wait(Duration::from_millis(20))]);
    let loris = [say("HTTP/1.1 200 X\r\n")]
        .into_iter()
        .chain(loris.take(5_000).flatten());
    for todo in [vec![Do::Hang], loris.collect()] {
        let (answer, receiver, client) = first_meets_within(todo, Duration::from_millis(500)).await;
        assert_eq!(answer.unwrap_err(), SendError::TimedOut);
        until_open(&client, 0).await;
        assert_eq!(status(&client, &receiver).await, 200);
    }
}

/// An answer that nobody asked for must not be taken for that to the next request.
#[tokio::test]
async fn a_second_answer_is_nobodys() {
    let twice = "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\nHTTP/1.1 410 X\r\nContent-Length: 0\r\n\r\n";
    let later = [
        http1(200, ""),
        vec![Do::Wait(Duration::from_millis(20))],
        http1(410, ""),
    ]
    .concat();
    for todo in [vec![say(twice)], later] {
        let (answer, receiver, client) = first_meets(todo).await;
        assert_eq!(answer.unwrap().status, 200);
        until_open(&client, 0).await;
        assert_eq!(status(&client, &receiver).await, 200);
        assert_eq!(receiver.connections(), 2);
    }
}

/// What was accepted must not be sent again.
#[tokio::test]
async fn the_status_is_enough_whatever_becomes_of_the_body() {
    for status_code in [200, 500] {
        let head = format!("HTTP/1.1 {status_code} X\r\nContent-Length: 9000000000\r\n\r\nabc");
        let chunked = format!("HTTP/1.1 {status_code} X\r\nTransfer-Encoding: chunked\r\n\r\n");
        for todo in [
            vec![say(&head), Do::Hang],
            vec![say(&head), Do::Close],
            vec![say(&head), Do::SayForEver(vec![b'x'; 1_000])],
            http1(status_code, &"x".repeat(20_000)),
            vec![say(&chunked), say("zz\r\n")],
            vec![say(&chunked), Do::SayForEver(b"1\r\nx\r\n".repeat(1_000))],
            vec![say(&chunked), Do::SayForEver(b"1".to_vec())],
        ] {
            let shown = format!("{:.60}", format!("{todo:?}"));
            let (answer, receiver, client) = first_meets(todo).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status.as_u16(), status_code, "{shown}");
            assert_eq!(answer.body.len(), 0, "{shown}");
            assert_eq!(status(&client, &receiver).await, 200, "{shown}");
            assert_eq!(receiver.connections(), 2, "{shown}: it is not used again");
        }
        let head = vec![Do::Head(status_code, vec![]), say("abc")];
        for then in [Do::Wait(LONG), Do::SayForEver(vec![b'x'; 1_000]), Do::Close] {
            let todo = [head.clone(), vec![then.clone()]].concat();
            let (answer, receiver, client) = first_meets_http2(todo, LONG).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status.as_u16(), status_code, "{then:?}");
            assert_eq!(answer.body.len(), 0, "{then:?}");
            assert_eq!(status(&client, &receiver).await, 200, "{then:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_wanted_is_waited_for() {
    let ca = TestCa::new();
    let late = Duration::from_millis(1_500);
    let receiver = Receiver::tls(&ca, &[], move |seen| match seen.connection {
        1 => vec![
            say("HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nab"),
            Do::Wait(late),
            say("cd"),
        ],
        2 => vec![say("HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nab"), Do::Hang],
        _ => vec![say("HTTP/1.1 400 X\r\nContent-Length: 4\r\n\r\nab"), Do::Hang],
    })
    .await;
    let ask = |time| {
        let client = client(&ca);
        let request = request(&receiver.url());
        async move { client.send(request, Wanted::Body, Instant::now() + time).await }
    };
    assert_eq!(&*ask(LONG).await.unwrap().body, b"abcd");
    let short = Duration::from_secs(3);
    assert_eq!(ask(short).await.unwrap_err(), SendError::TimedOut);
    let refusal = ask(short).await.unwrap();
    assert_eq!((refusal.status.as_u16(), refusal.body.len()), (400, 0));
}

#[tokio::test]
async fn a_protocol_that_nobody_asked_for_is_not_a_success() {
    let switch = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (answer, receiver, client) = first_meets(vec![say(switch), Do::Hang]).await;
    assert!(
        answer.as_ref().map_or(true, |answer| !answer.status.is_success()),
        "{answer:?}"
    );
    assert_eq!(status(&client, &receiver).await, 200);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn requests_share_one_connection_of_http2_from_the_first() {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["h2", "http/1.1"], |seen| {
        let wait = vec![Do::Wait(Duration::from_millis(20))];
        [wait, either(&seen.line)].concat()
    })
    .await;
    let client = client(&ca);
    let all = (0..50).map(|_| status(&client, &receiver));
    assert_eq!(join(all).await, [200; 50]);
    assert_eq!(receiver.connections(), 1);
}

/// Drives many requests at a time.
async fn join<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut all {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    all.into_iter().map(|(_, output)| output.unwrap()).collect()
}

#[tokio::test]
async fn an_origin_of_http1_gets_as_many_connections_as_it_may() {
    let ca = TestCa::new();
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let receiver = {
        let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
        Receiver::tls(&ca, &["http/1.1"], move |_| {
            let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            [vec![Do::Wait(Duration::from_millis(50))], http1(200, "")].concat()
        })
        .await
    };
    let client = client(&ca);
    let all = (0..20).map(|_| async {
        let status = status(&client, &receiver).await;
        under_way.fetch_sub(1, Ordering::Relaxed);
        status
    });
    assert_eq!(join(all).await, [200; 20]);
    assert_eq!(receiver.connections(), 4);
    assert_eq!(most.load(Ordering::Relaxed), 4);
    assert_eq!(client.status().open, 4);
}

#[tokio::test]
async fn nobody_waits_for_another_origin() {
    let ca = TestCa::new();
    let client = Arc::new(client(&ca));
    let silent = Arc::new(Receiver::tls(&ca, &["http/1.1"], |_| vec![Do::Hang]).await);
    let silent2 = Arc::new(Receiver::tls(&ca, &["h2"], |_| vec![Do::Hang]).await);
    let waiting: Vec<_> = (0..40)
        .map(|number| {
            let silent = if number % 2 == 0 { &silent } else { &silent2 };
            let (client, silent) = (Arc::clone(&client), Arc::clone(silent));
            tokio::spawn(async move { post(&client, &silent).await })
        })
        .collect();
    until_open(&client, 5).await;
    let receiver = Receiver::tls(&ca, &["http/1.1"], |_| http1(200, "")).await;
    for _ in 0..10 {
        assert_eq!(status(&client, &receiver).await, 200);
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    assert_eq!(client.status().streams, 40);
    for waiting in &waiting {
        waiting.abort();
    }
    // Their connections go with them.
    until_open(&client, 2).await;
    assert_eq!(client.status().streams, 0);
}

#[tokio::test]
async fn the_origin_goes_that_was_not_used_for_longest() {
    let ca = TestCa::new();
    let settings = PoolSettings {
        max_origins: NonZeroUsize::new(2).unwrap(),
        ..settings(&ca)
    };
    let client = PooledClient::new(settings);
    let [a, b, c] = [["http/1.1"], ["h2"], ["http/1.1"]].map(|alpn| {
        let ca = &ca;
        async move { Receiver::tls(ca, &alpn, |seen| either(&seen.line)).await }
    });
    let (a, b, c) = (a.await, b.await, c.await);
    for receiver in [&a, &b, &a, &c] {
        assert_eq!(status(&client, receiver).await, 200);
    }
    until_open(&client, 2).await;
    for receiver in [&a, &c, &b] {
        assert_eq!(status(&client, receiver).await, 200);
    }
    assert_eq!([a.connections(), b.connections(), c.connections()], [1, 2, 1]);
    until_open(&client, 2).await;
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed() {
    let ca = TestCa::new();
    let settings = PoolSettings {
        idle_timeout: Duration::from_millis(100),
        ..settings(&ca)
    };
    let client = PooledClient::new(settings);
    for alpn in [["h2"], ["http/1.1"]] {
        // The answer takes longer than a connection may be idle.
        let receiver = Receiver::tls(&ca, &alpn, |seen| {
            [vec![Do::Wait(Duration::from_millis(300))], either(&seen.line)].concat()
        })
        .await;
        for connections in 1..3 {
            assert_eq!(status(&client, &receiver).await, 200);
            until_open(&client, 0).await;
            assert_eq!(receiver.connections(), connections);
        }
    }
}

#[tokio::test]
async fn connections_that_are_not_to_be_kept_are_closed_at_once() {
    let ca = TestCa::new();
    let settings = PoolSettings {
        idle_timeout: Duration::ZERO,
        ..settings(&ca)
    };
    let client = PooledClient::new(settings);
    for alpn in [["h2"], ["http/1.1"]] {
        let receiver = Receiver::tls(&ca, &alpn, |seen| {
            [vec![Do::Wait(Duration::from_millis(20))], either(&seen.line)].concat()
        })
        .await;
        for connections in 1..4 {
            assert_eq!(status(&client, &receiver).await, 200);
            assert_eq!(receiver.connections(), connections);
        }
        until_open(&client, 0).await;
    }
}

#[tokio::test]
async fn a_receiver_that_says_goodbye_gets_the_next_request_over_a_new_connection() {
    let todo = [vec![Do::GoAway], http2(200, "")].concat();
    let (answer, receiver, client) = first_meets_http2(todo, LONG).await;
    assert_eq!(answer.unwrap().status, 200);
    until_open(&client, 0).await;
    assert_eq!(status(&client, &receiver).await, 200);
    assert_eq!((receiver.connections(), receiver.seen().len()), (2, 2));
}

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again_once() {
    let ca = TestCa::new();
    for (refusals, repeated) in [(1, true), (2, false)] {
        let receiver = Receiver::tls(&ca, &["h2"], move |seen| {
            if seen.request <= refusals {
                vec![Do::Reset(Reason::REFUSED_STREAM)]
            } else {
                http2(200, "")
            }
        })
        .await;
        let client = client(&ca);
        let answer = post(&client, &receiver).await;
        assert_eq!(answer.is_ok(), repeated, "{answer:?}");
        assert_eq!((receiver.connections(), receiver.seen().len()), (1, 2));
        assert_eq!(
            status(&client, &receiver).await,
            200,
            "the connection is still good"
        );
        assert_eq!(receiver.connections(), 1);
    }
    for other in [Do::Reset(Reason::INTERNAL_ERROR), Do::Close] {
        let (answer, receiver, client) = first_meets_http2(vec![other], LONG).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, SendError::Broken(_)), "{error:?}");
        assert_eq!(receiver.seen().len(), 1);
        assert_eq!(status(&client, &receiver).await, 200);
    }
}

#[tokio::test]
async fn headers_of_http2_have_a_bound() {
    let many = (0..2_000).map(|number| ("x-many", format!("{number:0100}")));
    let todo = vec![Do::Head(200, many.collect()), Do::End];
    let (answer, receiver, client) = first_meets_http2(todo, LONG).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, SendError::Malformed(_)), "{error:?}");
    assert_eq!(receiver.seen().len(), 1);
    assert_eq!(status(&client, &receiver).await, 200);
}

/// What becomes silent is left, so that one dead connection does not cost every request until TCP gives up.
#[tokio::test]
async fn a_connection_of_http2_that_goes_silent_is_left() {
    let patience = Duration::from_secs(5);
    let (answer, receiver, client) = first_meets_http2(vec![Do::Hang], patience).await;
    assert_eq!(answer.unwrap_err(), SendError::TimedOut);
    assert_eq!(status(&client, &receiver).await, 200);
    assert_eq!(receiver.connections(), 2);
}

/// Each request has a deadline of its own, one little after the other: what has begun for one is there for the next.
#[tokio::test]
async fn after_a_dial_that_hung_requests_without_end_find_a_connection_again() {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["http/1.1"], |_| http1(200, "")).await;
    let slow = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, target) = (slow.local_addr().unwrap(), receiver.authority());
    tokio::spawn(async move {
        // The first one hangs, and is closed after a while; all others take longer than one request has left.
        let (first, _) = slow.accept().await.unwrap();
        tokio::spawn(async move {
            sleep(Duration::from_millis(1_500)).await;
            drop(first);
        });
        loop {
            let (mut here, _) = slow.accept().await.unwrap();
            let target = target.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(400)).await;
                let mut there = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    let client = Arc::new(client(&ca));
    let mut answers = Vec::new();
    for _ in 0..80 {
        let (client, url) = (Arc::clone(&client), format!("https://{address}/x"));
        answers.push(tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(1);
            client.send(request(&url), Wanted::Status, deadline).await.is_ok()
        }));
        sleep(Duration::from_millis(50)).await;
    }
    let mut accepted = Vec::new();
    for answer in answers {
        accepted.push(answer.await.unwrap());
    }
    assert!(!accepted[0]);
    assert!(accepted[60..].iter().all(|accepted| *accepted), "{accepted:?}");
}

/// Invented names take no connection away.
#[tokio::test]
async fn names_that_lead_nowhere_displace_no_connection() {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["h2"], |_| http2(200, "")).await;
    let client = PooledClient::new(PoolSettings {
        max_origins: NonZeroUsize::new(10).unwrap(),
        ..settings(&ca)
    });
    assert_eq!(status(&client, &receiver).await, 200);
    for port in 1..40 {
        let nowhere = request(&format!("https://127.0.0.1:{port}/"));
        let deadline = Instant::now() + LONG;
        assert!(client.send(nowhere, Wanted::Status, deadline).await.is_err());
    }
    assert_eq!(status(&client, &receiver).await, 200);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn of_connections_that_are_not_in_use_a_few_are_kept() {
    let ca = TestCa::new();
    let receiver = Receiver::tls(&ca, &["http/1.1"], |_| {
        let mut answer = vec![Do::Wait(Duration::from_millis(300))];
        answer.extend(http1(200, ""));
        answer
    })
    .await;
    let client = PooledClient::new(PoolSettings {
        max_idle: NonZeroUsize::new(2).unwrap(),
        ..settings(&ca)
    });
    let send = || status(&client, &receiver);
    assert_eq!(tokio::join!(send(), send(), send(), send()), (200, 200, 200, 200));
    until_open(&client, 2).await;
}
