//! `/livez` and `/readyz`.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::RegistryStatus;

use super::{
    made_up::{bad, good, monitor},
    request, serve,
};

#[tokio::test]
async fn it_is_ready_when_it_can_do_its_work() {
    let monitor = monitor();
    let (address, _serving) = serve(&monitor).await;
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let alive = request(address, "GET", "/livez").await;
    assert!(
        alive.starts_with("HTTP/1.1 200") && body(&alive) == "ok\n",
        "{alive}"
    );
    let early = request(address, "GET", "/readyz").await;
    assert!(early.starts_with("HTTP/1.1 503"), "{early}");

    monitor.tick(good(), Instant::now(), SystemTime::now());
    let ready = request(address, "GET", "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && body(&ready) == "ready\n",
        "{ready}"
    );

    let mut status = good();
    status.registry = Some(RegistryStatus::Loading);
    monitor.tick(status, Instant::now(), SystemTime::now());
    let loading = request(address, "GET", "/readyz").await;
    assert!(
        loading.starts_with("HTTP/1.1 200")
            && body(&loading).starts_with("ready\nnot all registered devices"),
        "it answers all the same: {loading}"
    );

    let mut status = bad();
    status.links[0].down = Some("refused\r\nready".to_owned());
    monitor.tick(status, Instant::now(), SystemTime::now());
    let unready = request(address, "GET", "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    let unready = body(&unready);
    let lines: Vec<_> = unready.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "link down: refused  ready");
    assert!(
        lines[1].starts_with("module authentication: Apple refuses"),
        "{lines:?}"
    );

    // A status that nobody renewed says nothing about now.
    monitor.tick(
        good(),
        Instant::now() - Duration::from_secs(61),
        SystemTime::now(),
    );
    assert!(
        request(address, "GET", "/readyz")
            .await
            .starts_with("HTTP/1.1 503")
    );
    assert!(
        !request(address, "GET", "/metrics")
            .await
            .contains("fpush_component_up")
    );
}

#[tokio::test]
async fn it_is_only_read() {
    let monitor = monitor();
    let (address, _serving) = serve(&monitor).await;
    let head = request(address, "HEAD", "/livez").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/", "/metrics", "/livez", "/readyz", "/status.json"] {
            let answer = request(address, method, path).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
            assert!(answer.contains("allow: GET,HEAD"), "{answer}");
        }
    }
    assert!(
        request(address, "GET", "/favicon.ico")
            .await
            .starts_with("HTTP/1.1 404")
    );
}
