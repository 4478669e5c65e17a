//! What the log says of a request, and what it does not.

use std::thread;

use fpush_push::Network;
use fpush_testkit::Written;

use crate::rig::Rig;

#[tokio::test]
async fn a_line_names_method_path_and_status_and_nobody() {
    let log = Written::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(move || writer.clone())
        .finish();
    // A subscriber of one thread might come too late for a line that another test has written already: this one
    // hears all threads, and what others wrote is left out below.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let rig = Rig::with(|options| {
        options.http.debugging = true;
        options.http.security.trusted_proxies = vec![Network::parse("127.0.0.1").unwrap()];
    })
    .await;
    let from = "X-Forwarded-For: 198.51.100.77\r\n";
    let form = "type=fcm&node=hidden-node&token=hidden-token";
    let reply = rig.post_with("register", form, from).await;
    let secret = reply.body.rsplit('\n').next().unwrap().to_owned();
    assert_eq!(rig.push("hidden-node", &secret).await, "OK\nhidden-node");
    assert!(
        rig.push("hidden-node", "hidden-secret")
            .await
            .starts_with("ERROR")
    );
    rig.get("/v1/settings/hidden-node").await;
    rig.get("/v1/settings?after=hidden-node").await;
    rig.get("/v1/hidden-path").await;
    rig.raw("HIDDEN-METHOD /push_appserver/ HTTP/1.0\r\n\r\n").await;
    rig.post_with("unregister", form, from).await;

    let (log, listener) = (log.text(), format!("http-{}", rig.address.port()));
    let ours = [thread::current().name().unwrap().to_owned(), listener];
    let of_ours = |line| {
        let line = ours
            .iter()
            .filter_map(|name| str::split_once(line, &format!(" {name} ")));
        line.map(|(_, line)| line).next()
    };
    let log: Vec<_> = log.lines().filter_map(of_ours).collect();
    let lines: Vec<_> = log
        .iter()
        .filter_map(|line| line.strip_prefix("fpush_http::answers: answered "))
        .collect();
    assert_eq!(
        lines,
        [
            "method=\"POST\" path=\"/push_appserver/v1/register\" status=200",
            "method=\"POST\" path=\"/push_appserver/v1/push\" status=200",
            "method=\"POST\" path=\"/push_appserver/v1/push\" status=200",
            "method=\"GET\" path=\"/push_appserver/v1/settings/{node}\" status=200",
            "method=\"GET\" path=\"/push_appserver/v1/settings\" status=200",
            "method=\"GET\" path=\"none of ours\" status=404",
            "method=\"another\" path=\"/push_appserver/\" status=405",
            "method=\"POST\" path=\"/push_appserver/v1/unregister\" status=200",
        ]
    );
    let warned = |line: &&str| line.contains("registration.http.debugging is on");
    assert!(log.iter().any(warned), "{log:#?}");
    // What sqlx says is for the program to silence.
    let ours: Vec<_> = log.iter().filter(|line| line.starts_with("fpush_")).collect();
    for hidden in ["hidden", "HIDDEN", "198.51.100.77", &secret] {
        assert!(
            !ours.iter().any(|line| line.contains(hidden)),
            "{hidden}: {ours:#?}"
        );
    }
}
