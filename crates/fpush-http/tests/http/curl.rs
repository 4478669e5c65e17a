//! The examples of the original's documentation, with the program that everybody tries them with.

use fpush_testkit::temp_dir::TempDir;
use tokio::process::Command;

use crate::{rig::Rig, tls::certificate};

async fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20"])
        .args(arguments)
        .output()
        .await
        .expect("this test needs curl: apt-get install curl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_examples_of_the_original_work() {
    let rig = Rig::debugging().await;
    let base = format!("http://{}/push_appserver/v1", rig.address);
    let url = |endpoint: &str| format!("{base}/{endpoint}");
    let node = "E0FF1D8C-EB96-4E10-A912-F68B03FD8D3E";
    let token = "DEADBEEFABCDEF0123456DEADBEEF112DEADBEEFABCDEF0123456DEADBEEF112";

    let registered = curl(&[
        "--data",
        &format!("type=fcm&node={node}&token={token}"),
        &url("register"),
    ])
    .await;
    let lines: Vec<_> = registered.split('\n').collect();
    assert_eq!(lines[..2], ["OK", node]);
    let secret = lines[2];

    let pushed = curl(&["--data", &format!("node={node}&secret={secret}"), &url("push")]).await;
    assert_eq!(pushed, format!("OK\n{node}"));
    let wrong = curl(&[
        "--data-urlencode",
        &format!("node={node}"),
        "--data",
        "secret=x",
        &url("push"),
    ])
    .await;
    assert_eq!(wrong, "ERROR\nInternal server error, try again later!");
    assert!(
        curl(&[&url("settings")])
            .await
            .contains(&format!("<a href=\"settings/{}\"", node.replace('-', "%2D")))
    );
    assert!(curl(&[&url(&format!("settings/{node}"))]).await.contains(token));
    assert!(curl(&[&url("health")]).await.contains("RUNNING"));
    let large = format!("node={}", "n".repeat(2_000_000));
    let dir = TempDir::new();
    let file = dir.write("form", large);
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let file = format!("@{}", file.display());
    assert_eq!(
        curl(&[&status[..], &["--data", &file, &url("push")]].concat()).await,
        "400"
    );

    let gone = curl(&["--data", &format!("type=fcm&node={node}"), &url("unregister")]).await;
    assert_eq!(gone, format!("OK\n{node}\n{secret}"));
    let gone = curl(&["--data", &format!("type=fcm&node={node}"), &url("unregister")]).await;
    assert_eq!(gone, "ERROR\nNode not found!");
}

#[tokio::test]
async fn they_work_over_tls_with_both_versions_of_http() {
    let dir = TempDir::new();
    let (pem, certificate) = certificate();
    let authority = dir.write("ca.pem", pem).display().to_string();
    let rig = Rig::with(|options| options.http.security.tls = Some(certificate)).await;
    let url = format!(
        "https://localhost:{}/push_appserver/v1/register",
        rig.address.port()
    );
    for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let arguments = [
            version,
            "--cacert",
            &authority,
            "--write-out",
            "\n%{http_version}",
        ];
        let form = ["--data", "type=fcm&node=n&token=t", &url];
        let reply = curl(&[&arguments[..], &form].concat()).await;
        let lines: Vec<_> = reply.split('\n').collect();
        assert_eq!((&lines[..2], lines[3]), (&["OK", "n"][..], number), "{reply}");
    }
}
