//! The example of a web app, in a real Chromium. Its push service is a stand-in: Chromium's own is on the internet.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use fpush_testkit::{ApnsKey, Browser, FakePush, Site, TestCa, http_address};
use serde_json::json;
use tokio::time::sleep;

use crate::rig::{LONG, RESULT, Rig};

/// What the browser's push service would do.
const STAND_IN: &str = "PushManager.prototype.subscribe = async (options) => {
    window.subscribed = options;
    return { toJSON: () => (SUBSCRIPTION) };
}; Notification.requestPermission = async () => 'granted';";

#[tokio::test]
async fn the_page_of_the_example_subscribes_registers_and_gets_a_push() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/web-client");
    let (ca, site) = (TestCa::new(), Site::bind());
    let push = FakePush::start(&ca);
    let origin = format!("http://{}", site.local_addr().unwrap());
    let module = json!({ "web": {
        "type": "webpush", "ratelimit": { "enabled": false },
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "push-ca.pem",
            "allowedEndpoints": ["127.0.0.1"], "allowedNetworks": ["127.0.0.1"],
            "allowedPorts": [push.address().port()],
        },
    } });
    let more = json!({ "types": { "webpush": "web" }, "http": { "allowedOrigins": [origin] } });
    let mut rig = Rig::run(more, module, |builder| {
        builder
            .file("vapid.key", ApnsKey::generate().p8())
            .file("push-ca.pem", ca.pem())
    });
    let mut files = HashMap::new();
    for name in ["index.html", "app.js", "worker.js"] {
        files.insert(name.to_owned(), fs::read(folder.join(name)).unwrap());
    }
    let api = http_address(&rig.daemon, LONG);
    let config = json!({ "api": format!("http://{api}/push_appserver/v1/"), "type": "webpush" });
    files.insert("config.json".to_owned(), config.to_string().into());
    let site = Site::serve(
        site,
        files,
        Box::new(|path, form| format!("{path} of {} fields", form.split('&').count())),
    );

    let mut browser = Browser::start().await;
    let subscription = push.subscribe("/wp/example");
    let shown = json!({
        "endpoint": subscription.endpoint, "keys": { "p256dh": subscription.p256dh, "auth": subscription.auth },
    });
    let script = json!({ "source": STAND_IN.replace("SUBSCRIPTION", &shown.to_string()) });
    browser
        .command("Page.addScriptToEvaluateOnNewDocument", script)
        .await;
    let permission =
        json!({ "permission": { "name": "notifications" }, "setting": "granted", "origin": origin });
    browser.command("Browser.setPermission", permission).await;
    browser
        .open(
            &site.url(),
            "document.querySelector('#subscribe').onclick !== null",
        )
        .await;
    browser.click("#subscribe").await;
    browser
        .wait_for("document.querySelector('#log').innerText.includes('<enable')")
        .await;
    let key = rig.http("GET /push_appserver/v1/vapid/webpush", "").body;
    assert_eq!(
        browser.evaluate("window.subscribed.applicationServerKey").await,
        json!(key)
    );
    let page = browser.text().await;
    let part = |before: &str| {
        page.split_once(before)
            .unwrap()
            .1
            .split(['<', '\''])
            .next()
            .unwrap()
            .to_owned()
    };
    let (node, secret) = (part("node='"), part("<field var='secret'><value>"));
    // The XMPP server of the user publishes.
    assert_eq!(rig.push(&node, &secret), RESULT);
    let pushes = push.wait_for(1, LONG);
    assert_eq!((&*pushes[0].path, pushes[0].json()), ("/wp/example", json!({})));
    browser.click("#push").await;
    browser
        .wait_for("document.querySelector('#log').innerText.includes('publish of 2 fields')")
        .await;

    // The rest of the way is Chromium's: it hands the decrypted text to the worker.
    browser.command("ServiceWorker.enable", json!({})).await;
    let data = pushes[0].text.clone().unwrap();
    let mut delivered = false;
    for registration in 0..100 {
        let deliver =
            json!({ "origin": site.url(), "registrationId": registration.to_string(), "data": data });
        browser.command("ServiceWorker.deliverPushMessage", deliver).await;
        sleep(Duration::from_millis(50)).await;
        let text = browser.text().await;
        delivered = text.contains("The service worker has got a push: {}");
        if delivered {
            break;
        }
    }
    assert!(delivered, "{}", browser.text().await);
    let notifications = "navigator.serviceWorker.ready.then(async (worker) => {
        window.titles = (await worker.getNotifications()).map((shown) => shown.title).join() }) && true";
    browser.evaluate(notifications).await;
    browser.wait_for("window.titles === 'New message'").await;
    let complaints = browser.end().await;
    let errors: Vec<_> = complaints
        .iter()
        .filter(|complaint| !complaint.contains("favicon"))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}
