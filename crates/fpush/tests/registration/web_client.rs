//! The example of a web app, in a real Chromium and a real Firefox. Their push service is a stand-in: their own are on the internet.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use fpush_testkit::{
    Answer, ApnsKey, Browser, Daemon, FakePush, Firefox, Site, TestCa, http_address, site::OnForm,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::rig::{LONG, RESULT, Rig};

/// What the browser's push service would do.
const STAND_IN: &str = "PushManager.prototype.subscribe = async (options) => {
    window.subscribed = options;
    return { toJSON: () => (SUBSCRIPTION) };
}; Notification.requestPermission = async () => 'granted';";

/// fpush, the site of the example, and a push service.
struct Stage {
    rig: Rig,
    push: FakePush,
    site: Site,
    origin: String,
}

impl Stage {
    /// With more at the end of the page, and what answers its forms.
    fn set(more: &str, on_form: OnForm) -> Self {
        let (ca, site) = (TestCa::new(), Site::bind());
        let push = FakePush::start(&ca);
        let origin = format!("http://{}", site.local_addr().unwrap());
        let settings = json!({ "types": { "webpush": "web" }, "http": { "allowedOrigins": [origin] } });
        let rig = Rig::run(settings, module(&push), |builder| {
            builder
                .file("vapid.key", ApnsKey::generate().p8())
                .file("push-ca.pem", ca.pem())
        });
        let files = files(&rig.daemon, more);
        Self {
            rig,
            push,
            site: Site::serve(site, files, on_form),
            origin,
        }
    }
}

/// A module for a push service on this machine.
pub(crate) fn module(push: &FakePush) -> Value {
    json!({ "web": {
        "type": "webpush", "ratelimit": { "enabled": false },
        "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "caFilePath": "push-ca.pem",
            "allowedEndpoints": ["127.0.0.1"], "allowedNetworks": ["127.0.0.1"],
            "allowedPorts": [push.address().port()],
        },
    } })
}

/// The files of the example, with more at the end of the page, for this daemon.
pub(crate) fn files(daemon: &Daemon, more: &str) -> HashMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/web-client");
    let mut files: HashMap<_, _> = ["index.html", "app.js", "worker.js"]
        .map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap()))
        .into();
    let page = files.get_mut("index.html").unwrap();
    page.extend_from_slice(more.as_bytes());
    let api = http_address(daemon, LONG);
    let config = json!({ "api": format!("http://{api}/push_appserver/v1/"), "type": "webpush" });
    files.insert("config.json".to_owned(), config.to_string().into());
    files
}

/// Node and secret as the page shows them.
fn device(page: &str) -> [String; 2] {
    ["node='", "<field var='secret'><value>"].map(|before| {
        let rest = page.split_once(before).unwrap().1;
        rest.split(['<', '\'']).next().unwrap().to_owned()
    })
}

#[tokio::test]
async fn the_page_of_the_example_subscribes_registers_and_gets_a_push() {
    let on_form = |path: &str, form: &str| format!("{path} of {} fields", form.split('&').count());
    let Stage {
        mut rig,
        push,
        site,
        origin,
    } = Stage::set("", Box::new(on_form));

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
    let [node, secret] = device(&page);
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
    // It is shown a little later than the page hears of it. A page that asked for it ten times a second was once never told
    // of any; so it is asked for, and delivered again, once a second.
    let ask = "navigator.serviceWorker.ready.then((worker) => worker.getNotifications())
        .then((all) => { window.titles = all.map((shown) => shown.title).join(); }) && true";
    let start = Instant::now();
    while browser.evaluate("window.titles").await != json!("New message") {
        assert!(
            start.elapsed() < LONG,
            "nothing is shown on {}",
            browser.text().await
        );
        // Nothing tells which one is the worker's.
        for registration in 0..100 {
            let deliver =
                json!({ "origin": site.url(), "registrationId": registration.to_string(), "data": data });
            browser.command("ServiceWorker.deliverPushMessage", deliver).await;
        }
        sleep(Duration::from_secs(1)).await;
        browser.evaluate(ask).await;
        sleep(Duration::from_millis(50)).await;
    }
    let text = browser.text().await;
    assert!(text.contains("The service worker has got a push: {}"), "{text}");
    let complaints = browser.end().await;
    let errors: Vec<_> = complaints
        .iter()
        .filter(|complaint| !complaint.contains("favicon"))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The whole way in a real Firefox, which decrypts what fpush has encrypted for it.
#[test]
#[ignore = "needs Firefox: `cargo xtask test --long` runs it"]
fn firefox_shows_a_push_that_a_publish_caused() {
    let (report, reports) = mpsc::channel();
    let on_form = move |path: &str, form: &str| {
        drop(report.send((path.to_owned(), form.to_owned())));
        String::new()
    };
    let Stage {
        mut rig, push, site, ..
    } = Stage::set(REPORTING, Box::new(on_form));
    push.answer_with(|_| Answer::status(201));
    let endpoints = format!("https://{}/wpush/v2/", push.address());
    let firefox = Firefox::open(&site.url(), &endpoints);
    let wait_for = |words: &str| loop {
        let (_, page) = reports.recv_timeout(LONG).expect("Firefox reports");
        if page.contains(words) {
            return page;
        }
    };
    let [node, secret] = device(&wait_for("<enable"));
    assert_eq!(rig.push(&node, &secret), RESULT);
    let pushed = &push.wait_for(1, LONG)[0];
    assert!(pushed.claims.is_ok(), "{:?}", pushed.claims);
    assert_eq!(
        firefox.deliver(&pushed.path, &pushed.body),
        100,
        "it is decrypted"
    );
    wait_for("The service worker has got a push: {}");
    let mut spoilt = pushed.body.to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    assert_eq!(
        firefox.deliver(&pushed.path, &spoilt),
        101,
        "as it does with what is not"
    );
}

/// Presses the button, and says what the page shows. The push service of a new Firefox may not be there at first.
const REPORTING: &str = "<script type=module>
    const show = () => document.querySelector('#log').innerText;
    const press = () => document.querySelector('#subscribe').onclick ? document.querySelector('#subscribe').click()
        : setTimeout(press, 100);
    press();
    setTimeout(() => show().includes('<enable') || location.reload(), 6000);
    setInterval(() => fetch('report', { method: 'POST', body: show() }), 500);
</script>";
