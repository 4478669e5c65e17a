//! Every endpoint, byte for byte.

use std::sync::atomic::Ordering;

use fpush_http::HostNames;
use fpush_push::Network;
use fpush_registry::{Device, Dialect, Time};

use crate::rig::Rig;

#[tokio::test]
async fn a_device_registers_gets_a_push_and_unregisters() {
    let rig = Rig::new().await;
    let reply = rig
        .post("register", "type=fcm&node=E0FF1D8C-EB96&token=t%3A1")
        .await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/plain;charset=utf-8"))
    );
    let secret = reply.body.strip_prefix("OK\nE0FF1D8C-EB96\n").unwrap().to_owned();
    assert_eq!(secret.len(), 64, "256 bits in hex, and no line feed at the end");
    assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        rig.registry.show("E0FF1D8C-EB96").await.unwrap().unwrap().token,
        "t:1"
    );

    let again = rig.post("register", "token=t2&node=E0FF1D8C-EB96&type=fcm").await;
    let new = again.body.strip_prefix("OK\nE0FF1D8C-EB96\n").unwrap().to_owned();
    assert_ne!(new, secret, "the secret is shown only to a request that says it");
    assert_eq!(
        rig.registry.show("E0FF1D8C-EB96").await.unwrap().unwrap().token,
        "t2"
    );

    // The one that was replaced is good for a while.
    assert_eq!(rig.push("E0FF1D8C-EB96", &secret).await, "OK\nE0FF1D8C-EB96");
    assert_eq!(rig.backend.accepted.load(Ordering::SeqCst), 1);

    let other = rig.post("unregister", "type=apns&node=E0FF1D8C-EB96").await;
    assert_eq!((other.status, &*other.body), (200, "ERROR\nNode not found!"));
    let gone = rig.post("unregister", "type=fcm&node=E0FF1D8C-EB96").await;
    assert_eq!(
        (gone.status, &*gone.body),
        (200, &*format!("OK\nE0FF1D8C-EB96\n{new}"))
    );
    let gone = rig.post("unregister", "type=fcm&node=E0FF1D8C-EB96").await;
    assert_eq!((gone.status, &*gone.body), (200, "ERROR\nNode not found!"));
    assert_eq!(
        rig.push("E0FF1D8C-EB96", &secret).await,
        "ERROR\nNode or secret not found!"
    );
}

#[tokio::test]
async fn each_outcome_of_a_push_has_its_line() {
    let rig = Rig::new().await;
    let generated = format!("type=fcm&node=tigase-{}&token=t", "0".repeat(64));
    let reserved = rig.post("register", &generated).await;
    assert_eq!(reserved.body, "ERROR\nNode is reserved, choose another one!");
    let secret = rig.register("n", "t").await;
    for (node, wrong) in [("n", "0000"), ("other", &*secret)] {
        // It may be a living device for all that is known.
        let answer = "ERROR\nInternal server error, try again later!";
        assert_eq!(rig.push(node, wrong).await, answer);
    }
    assert_eq!(rig.push("n", &secret).await, "OK\nn");
    assert_eq!(
        rig.push("n", &secret).await,
        "OK\nn",
        "it is held until the rate limit allows it"
    );
    assert_eq!(rig.push("n", &secret).await, "ERROR\nRatelimit reached!");
    assert_eq!(rig.backend.accepted.load(Ordering::SeqCst), 1);

    // A provider is believed when it has accepted pushes for others.
    for number in 0..10 {
        let node = format!("living-{number}");
        let secret = rig.register(&node, &node).await;
        assert_eq!(rig.push(&node, &secret).await, format!("OK\n{node}"));
    }
    for (token, answer) in [
        ("dead-1", "ERROR\nToken is dead, register again!"),
        ("odd-1", "ERROR\nToken is blocked for a while!"),
        // What the provider cannot take now is held.
        ("down-1", "OK\ndown-1"),
    ] {
        let secret = rig.register(token, token).await;
        assert_eq!(rig.push(token, &secret).await, answer);
    }
    let registered = rig.registry.show("dead-1").await.unwrap();
    assert!(registered.is_none(), "a dead token ends the registration");

    let reply = rig.post("register", "type=apns&node=nowhere&token=t").await;
    let secret = reply.body.strip_prefix("OK\nnowhere\n").unwrap();
    assert_eq!(
        rig.push("nowhere", secret).await,
        "ERROR\nInternal error in push handler"
    );
}

#[tokio::test]
async fn what_cannot_register_is_told_so() {
    let rig = Rig::new().await;
    for (form, answer) in [
        ("type=wns&node=n&token=t", "ERROR\nPush type not known!"),
        (
            "type=fcm&node=n&token=a+b",
            "ERROR\nToken does not fit the push type!",
        ),
    ] {
        let reply = rig.post("register", form).await;
        assert_eq!((reply.status, &*reply.body), (200, answer));
    }
    let long = "n".repeat(3_000);
    for (endpoint, form) in [
        ("register", "node=n&token=t"),
        ("register", "type=fcm&token=t"),
        ("register", "type=fcm&node=n"),
        ("register", "type=fcm&node=&token=t"),
        ("register", ""),
        ("register", "type"),
        ("register", "type=fcm&node=a%0Ab&token=t"),
        ("register", "type=fcm&node=%ff&token=t"),
        ("register", "{\"type\":\"fcm\",\"node\":\"n\",\"token\":\"t\"}"),
        ("register", &format!("type=fcm&node={long}&token=t")),
        ("unregister", "type=fcm"),
        ("unregister", "node=n"),
        ("push", "node=n"),
        ("push", "secret=s"),
    ] {
        let reply = rig.post(endpoint, form).await;
        assert_eq!(reply.status, 400, "{endpoint} {form}: {reply:?}");
        assert!(!reply.body.starts_with("OK"), "{reply:?}");
    }
    assert_eq!(rig.registry.count().await.unwrap(), 0);
}

#[tokio::test]
async fn a_form_may_have_4096_bytes() {
    let rig = Rig::new().await;
    let secret = rig.register("n", "t").await;
    for (endpoint, form, good) in [
        ("register", "type=fcm&node=n&token=t".to_owned(), "OK\nn\n"),
        ("push", format!("node=n&secret={secret}"), "OK\nn"),
        ("unregister", "type=fcm&node=n".to_owned(), "OK\nn\n"),
    ] {
        let padded = |length: usize| format!("{form}&x={}", "y".repeat(length - form.len() - 3));
        for length in [4_097, 70_000] {
            let reply = rig.post(endpoint, &padded(length)).await;
            let said = (reply.status, &*reply.body);
            assert_eq!(
                said,
                (400, "The form is larger than 4096 bytes.\n"),
                "{endpoint} {length}"
            );
        }
        let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", 4_097, padded(4_097));
        let reply = rig
            .raw(&format!(
                "POST /push_appserver/v1/{endpoint} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{chunked}"
            ))
            .await;
        assert_eq!(reply.status, 400, "{endpoint} in chunks");
        let reply = rig.post(endpoint, &padded(4_096)).await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.starts_with(good), "{reply:?}");
    }
}

#[tokio::test]
async fn pages_for_debugging_are_closed_and_health_is_open() {
    let rig = Rig::new().await;
    rig.register("n", "t").await;
    for path in [
        "/v1/register",
        "/v1/unregister",
        "/v1/push",
        "/v1/settings",
        "/v1/settings/",
        "/v1/settings/n",
    ] {
        let reply = rig.get(path).await;
        assert_eq!(reply.status, 403, "{path}");
        assert!(!reply.body.contains("<form"), "{reply:?}");
    }
    let health = rig.get("/v1/health").await;
    assert_eq!(
        (health.status, health.header("content-type")),
        (200, Some("text/html;charset=utf-8"))
    );
    assert!(health.body.contains("RUNNING"));
    for path in ["", "/"] {
        let hello = rig.get(path).await;
        assert_eq!(hello.status, 200);
        assert!(hello.body.contains("<h1>Hello from mod_push_appserver!</h1>"));
    }
    assert_eq!(rig.get("/v1/nothing").await.status, 404);
    assert_eq!(
        rig.get("/v1/selftest").await.status,
        404,
        "unless the settings open it"
    );
    let open = Rig::with(|options| options.http.selftest = true).await;
    let page = open.get("/v1/selftest").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("test-push") && page.body.contains("push-status"));
    assert_eq!(open.get("/v1/settings").await.status, 403);
    assert_eq!(rig.get("/../etc/passwd").await.status, 404);
    assert_eq!(
        rig.raw("DELETE /push_appserver/v1/push HTTP/1.0\r\n\r\n")
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_doing_more() {
    let rig = Rig::debugging().await;
    let page = "default-src 'none'; style-src 'sha256-";
    let replies = [
        (rig.get("/v1/register").await, page, "form-action 'self'"),
        (
            rig.get("/v1/nothing").await,
            "default-src 'none'",
            "form-action 'none'",
        ),
        (
            rig.post("push", "").await,
            "default-src 'none'",
            "form-action 'none'",
        ),
        (
            rig.post("push", "node=a&secret=b").await,
            "default-src 'none'",
            "form-action 'none'",
        ),
    ];
    for (reply, sources, forms) in replies {
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with(sources), "{policy}");
        let rest = format!("{forms}; base-uri 'none'; frame-ancestors 'none'");
        assert!(policy.contains(&rest), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("referrer-policy"), Some("same-origin"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn forms_and_settings_show_when_debugging() {
    let rig = Rig::debugging().await;
    assert!(
        rig.get("/v1/settings")
            .await
            .body
            .contains("No device is registered.")
    );
    let secret = rig.register("n1", "t1").await;
    for (path, heading, fields) in [
        (
            "/v1/register",
            "Register Push Node",
            &["type", "node", "token"][..],
        ),
        ("/v1/unregister", "Unregister Push Node", &["type", "node"]),
        ("/v1/push", "Send Push Request", &["node", "secret"]),
    ] {
        let page = rig.get(path).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html;charset=utf-8"))
        );
        assert!(page.body.contains(&format!("<h1>{heading}</h1>")));
        assert!(
            page.body
                .contains("<meta name=\"viewport\" content=\"width=device-width")
        );
        assert!(page.body.contains("<form method=\"post\">"));
        assert_eq!(page.body.matches("<input").count(), fields.len(), "{}", page.body);
        for field in fields {
            assert!(page.body.contains(&format!("name=\"{field}\"")), "{}", page.body);
        }
    }
    let list = rig.get("/v1/settings").await;
    assert!(
        list.body.contains("<a href=\"settings/n1\">n1</a>"),
        "{}",
        list.body
    );
    let list = rig.get("/v1/settings/").await;
    assert!(list.body.contains("<a href=\"n1\">n1</a>"), "{}", list.body);
    let page = rig.get("/v1/settings/n1").await;
    for line in [
        "<pre>{\n  type = &quot;fcm&quot;,\n  token = &quot;t1&quot;,\n  registered = &quot;20",
        "  node = &quot;n1&quot;,\n",
        &format!("  secret = &quot;{}…&quot;,\n", &secret[..4]),
        "}</pre>",
    ] {
        assert!(page.body.contains(line), "{line}: {}", page.body);
    }
    assert!(!page.body.contains(&secret[4..]), "{}", page.body);
    let missing = rig.get("/v1/settings/n2").await;
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("Node not found!"));
    assert_eq!(rig.get("/v1/settings/%ff").await.status, 400);
}

#[tokio::test]
async fn hostile_values_stay_text() {
    let rig = Rig::debugging().await;
    let form =
        "type=%3Cb%3E&node=%3Cscript%3E/%22'..%3F%26&token=%3C/pre%3E%3Cscript%3Ealert(1)%3C/script%3E";
    let reply = rig.post("register", form).await;
    assert!(reply.body.starts_with("OK\n<script>/\"'..?&\n"), "{reply:?}");
    let list = rig.get("/v1/settings").await.body;
    let link =
        "<a href=\"settings/%3Cscript%3E%2F%22%27%2E%2E%3F%26\">&lt;script&gt;/&quot;&#39;..?&amp;</a>";
    assert!(list.contains(link), "{list}");
    assert!(!list.contains("<script"));
    let page = rig.get("/v1/settings/%3Cscript%3E%2F%22%27%2E%2E%3F%26").await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("type = &quot;&lt;b&gt;&quot;"),
        "{}",
        page.body
    );
    assert!(
        page.body
            .contains("token = &quot;&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;")
    );
    assert!(!page.body.contains("<script"));
}

#[tokio::test]
async fn the_list_goes_on_and_gives_no_node_away_that_is_a_secret() {
    let rig = Rig::debugging().await;
    let device = |dialect, node: String| Device {
        dialect,
        kind: "fcm".to_owned(),
        node,
        secret: "0123456789abcdef".repeat(4),
        token: "t".to_owned(),
        voip_token: None,
        owner: Some("a@b".to_owned()),
        account: None,
        channel: None,
        registered: Time::now(),
        renewed: None,
        delivered: None,
        failed: None,
        former: Vec::new(),
        imported: false,
        in_second: false,
    };
    let secret = |number: usize| format!("{number:04x}{}", "0123456789abcdef".repeat(4).split_off(4));
    let mut devices: Vec<_> = (0..250)
        .map(|number| device(Dialect::Tigase, secret(number)))
        .collect();
    devices.extend((0..200).map(|number| device(Dialect::Seed, format!("node {number:03}"))));
    rig.registry.import(devices).await.unwrap();

    let (mut path, mut pages, mut tigase) = ("/v1/settings".to_owned(), 0, 0);
    let mut listed = Vec::new();
    loop {
        let page = rig.get(&path).await.body;
        pages += 1;
        tigase += page.matches("… (Tigase)").count();
        assert!(!page.contains("0123456789abcdef0123456789abcdef"), "{page}");
        assert!(!page.contains(&secret(5)[..20]), "{page}");
        listed.extend(
            page.lines()
                .filter_map(|line| Some(line.strip_prefix("<a href=\"settings/node%20")?[..3].to_owned())),
        );
        let Some((_, next)) = page.split_once("<a href=\"settings?after=") else {
            break;
        };
        path = format!("/v1/settings?after={}", next.split('"').next().unwrap());
    }
    assert_eq!((pages, tigase), (3, 250));
    let all: Vec<_> = (0..200).map(|number| format!("{number:03}")).collect();
    assert_eq!(listed, all);
    let page = rig.get(&format!("/v1/settings/{}", secret(5))).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("node = &quot;0005…&quot;"), "{}", page.body);
}

#[tokio::test]
async fn with_require_secret_nobody_takes_a_device_over() {
    let rig = Rig::with(|options| {
        options.http.require_secret = true;
        options.http.debugging = true;
    })
    .await;
    let secret = rig.register("n", "t").await;
    let wrong = "0".repeat(64);
    for form in [
        "type=fcm&node=n&token=mine",
        &format!("type=fcm&node=n&token=mine&secret={wrong}"),
    ] {
        let reply = rig.post("register", form).await;
        assert_eq!(
            (reply.status, &*reply.body),
            (200, "ERROR\nNode or secret not found!")
        );
        let reply = rig.post("unregister", form).await;
        assert!(reply.body.starts_with("ERROR\nNode "), "{reply:?}");
    }
    assert_eq!(rig.registry.show("n").await.unwrap().unwrap().token, "t");
    let reply = rig
        .post("register", &format!("type=fcm&node=n&token=t2&secret={secret}"))
        .await;
    assert_eq!(reply.body, format!("OK\nn\n{secret}"));
    let reply = rig
        .post("unregister", &format!("type=fcm&node=n&secret={secret}"))
        .await;
    assert_eq!(reply.body, format!("OK\nn\n{secret}"));
    let form = rig.get("/v1/register").await.body;
    assert!(form.contains("name=\"secret\" autocomplete=\"off\""), "{form}");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_forms() {
    let rig = Rig::with(|options| {
        options.http.debugging = true;
        options.http.security.host_names = HostNames::new(["push.example"]).unwrap();
    })
    .await;
    for headers in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\nOrigin: http://push.example\r\n",
        "X-Forwarded-Host: evil.example\r\nOrigin: https://evil.example\r\n",
    ] {
        for endpoint in ["register", "unregister", "push"] {
            let reply = rig
                .post_with(endpoint, "type=fcm&node=n&token=t&secret=s", headers)
                .await;
            assert_eq!(reply.status, 403, "{endpoint} {headers}");
        }
    }
    assert_eq!(rig.registry.count().await.unwrap(), 0);
    for headers in [
        "",
        "Origin: http://push.example\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
    ] {
        let reply = rig
            .post_with("register", "type=fcm&node=n&token=t", headers)
            .await;
        assert_eq!(reply.status, 200, "{headers}");
    }
    // An app in a web view says where it comes from, too; without debugging there is no form to imitate.
    let rig = Rig::new().await;
    let reply = rig
        .post_with("register", "type=fcm&node=n&token=t", "Origin: app://x\r\n")
        .await;
    assert_eq!(reply.status, 200);
}

/// A stranger's name may stand for our address in somebody's browser (DNS rebinding). Apps use any name.
#[tokio::test]
async fn under_a_strangers_name_there_is_no_page_for_debugging() {
    let rig = Rig::debugging().await;
    let request = async |method: &str, path: &str, host: &str, more: &str| {
        let length = if method == "POST" {
            "Content-Length: 24\r\n\r\ntype=fcm&node=n&token=tt"
        } else {
            "\r\n"
        };
        let request = format!(
            "{method} /push_appserver{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}{length}"
        );
        rig.raw(&request).await.status
    };
    for path in [
        "/v1/register",
        "/v1/unregister",
        "/v1/push",
        "/v1/settings",
        "/v1/settings/n",
    ] {
        assert_eq!(request("GET", path, "evil.example:8280", "").await, 403, "{path}");
        assert_ne!(request("GET", path, "127.0.0.1:8280", "").await, 403, "{path}");
    }
    assert_eq!(request("GET", "/v1/health", "evil.example", "").await, 200);
    let browser = "Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n";
    assert_eq!(
        request("POST", "/v1/register", "evil.example", browser).await,
        403
    );
    assert_eq!(rig.registry.count().await.unwrap(), 0);
    assert_eq!(request("POST", "/v1/register", "push.example", "").await, 200);
    assert_eq!(rig.registry.count().await.unwrap(), 1);
}

#[tokio::test]
async fn who_registers_too_often_is_stopped_and_a_forged_address_does_not_help() {
    let rig = Rig::new().await;
    let stopped_after = async |headers: &dyn Fn(usize) -> String| {
        for number in 0..200 {
            let form = format!("type=fcm&node=n{number}&token=t");
            let reply = rig.post_with("register", &form, &headers(number)).await;
            assert_eq!(reply.status, 200);
            if reply.body == "ERROR\nRatelimit reached!" {
                return Some(number);
            }
        }
        None
    };
    assert!(
        stopped_after(&|number| format!("X-Forwarded-For: 192.0.2.{number}\r\n"))
            .await
            .is_some()
    );
    assert!(
        stopped_after(&|_| String::new())
            .await
            .is_some_and(|number| number == 0)
    );
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_a_throttle_of_its_own() {
    let rig = Rig::with(|options| {
        options.http.security.trusted_proxies = vec![Network::parse("127.0.0.0/8").unwrap()];
    })
    .await;
    let mut stopped = false;
    for number in 0..200 {
        let forged = format!("X-Forwarded-For: 198.51.100.{number}, 192.0.2.1\r\n");
        let reply = rig
            .post_with("register", &format!("type=fcm&node=n{number}&token=t"), &forged)
            .await;
        stopped |= reply.body == "ERROR\nRatelimit reached!";
    }
    assert!(stopped, "what the client itself wrote does not count");
    let other = "X-Forwarded-For: 192.0.2.2\r\n";
    let reply = rig
        .post_with("register", "type=fcm&node=other&token=t", other)
        .await;
    assert!(reply.body.starts_with("OK\n"), "{reply:?}");
}

/// A network of 64 bits costs nothing to those who have a site of 48.
#[tokio::test]
async fn a_site_makes_as_many_new_devices_as_eight_of_its_networks() {
    let rig = Rig::with(|options| {
        options.http.security.trusted_proxies = vec![Network::parse("127.0.0.0/8").unwrap()];
        options.http.new_per_address = 5;
    })
    .await;
    let register = async |node: usize, network: String| {
        let from = format!("X-Forwarded-For: {network}::1\r\n");
        let form = format!("type=fcm&node=n{node}&token=t");
        let reply = rig.post_with("register", &form, &from).await;
        reply.body.starts_with("OK\n")
    };
    let mut registered = 0;
    for node in 0..60 {
        registered += usize::from(register(node, format!("2001:db8:1:{node:x}")).await);
    }
    assert_eq!(registered, 40);
    assert!(register(60, "2001:db8:2:0".to_owned()).await, "another site");
}
