//! The status page in a real browser.

use std::{fs, sync::Arc, time::SystemTime};

use fpush_push::{LaneStatus, Proof, Trouble, TroubleKind};
use fpush_testkit::Browser;
use serde_json::json;
use tokio::time::Instant;

use super::{
    made_up::{self, DAY, MINUTE, bad, good, spend_an_hour},
    request, serve,
};
use crate::{Monitor, Status};

const SHOWN: &str = "!document.getElementById('main').hidden";

fn monitor(status: &Status) -> Arc<Monitor> {
    let mut monitor = made_up::monitor();
    Arc::get_mut(&mut monitor).unwrap().started = Instant::now() - DAY * 12;
    spend_an_hour(&monitor, status);
    monitor
}

#[tokio::test]
async fn a_person_sees_how_it_goes_and_what_to_do() {
    let monitor = monitor(&good());
    let (address, serving) = serve(&monitor).await;
    let url = format!("http://{address}/");
    let mut browser = Browser::start().await;
    browser.open(&url, SHOWN).await;
    let text = browser.text().await;
    for words in [
        "fpush push.example.org",
        "version 1.2.3, up for 12 days",
        "All is well",
        "The link to 127.0.0.1:5347 is up, and all 3 push modules work.",
        "18,204",
        "example-ios",
        "works",
        "Delivered",
        "provider unavailable",
        "17 times",
        "the provider did not take a push; trying again: 503 UNAVAILABLE",
        "chat.example.org",
        "2,412",
        "in 63 days",
        "31 min old",
        "in 212 days",
        "can be written",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(!text.contains("does not work"), "{text}");
    assert_eq!(
        browser
            .evaluate("document.querySelectorAll('#hour path.line').length")
            .await,
        6
    );
    let drawn = "document.querySelector('[data-group=Delivered] path.line').getAttribute('d').length > 500";
    assert_eq!(browser.evaluate(drawn).await, true);

    // Pointing at a plot says what was then.
    browser.screen(1_280, "light").await;
    let place = "(() => { const r = document.querySelector('[data-group=Failed] svg').getBoundingClientRect(); \
                 return [r.x + r.width * 0.3, r.y + 9] })()";
    let place = browser.evaluate(place).await;
    let event = json!({ "type": "mouseMoved", "x": place[0], "y": place[1] });
    browser.command("Input.dispatchMouseEvent", event).await;
    let then = "/\\d\\d:\\d\\d \\d/.test(document.querySelector('[data-group=Failed] b').innerText)";
    browser.wait_for(then).await;

    // An update comes without a reload, and says all there is to say.
    browser.evaluate("document.body.dataset.same = 'page'").await;
    let mut unproven = good();
    unproven.modules[0].status.proof = Proof::NotTried;
    monitor.tick(unproven, Instant::now(), SystemTime::now());
    browser
        .wait_for("document.body.innerText.includes('No problem is known')")
        .await;
    let text = browser.text().await;
    let words = "it is not proven yet that the provider accepts the credentials of example-android.";
    assert!(text.contains(words) && !text.contains("All is well"), "{text}");
    let mut both = good();
    let status = &mut both.modules[2].status;
    status.backend.second = Some(("sandbox", status.backend.connection.unwrap()));
    status.second = Some(LaneStatus {
        name: "sandbox",
        last_accepted: Some(MINUTE * 47),
        trouble: Some(Trouble {
            kind: TroubleKind::Provider,
            words: "sandbox: the provider's answer is 503".to_owned(),
        }),
    });
    monitor.tick(both, Instant::now(), SystemTime::now());
    browser
        .wait_for("document.body.innerText.includes('sandbox: the provider')")
        .await;
    let text = browser.text().await;
    for words in [
        "Last accepted in the sandbox",
        "47 min ago",
        "To the sandbox",
        "Ping of the sandbox",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let mut with_two_links = good();
    let mut down = with_two_links.links[0].clone();
    down.name = "second".to_owned();
    down.down = Some("the server closed it".to_owned());
    with_two_links.links.push(down);
    monitor.tick(with_two_links, Instant::now(), SystemTime::now());
    browser
        .wait_for("document.body.innerText.includes('link second: the server closed it')")
        .await;
    let text = browser.text().await;
    assert!(
        text.contains("Works, with a warning") && text.contains("Link second"),
        "{text}"
    );
    monitor.tick(bad(), Instant::now(), SystemTime::now());
    browser
        .wait_for("document.body.innerText.includes('Somebody has to act')")
        .await;
    assert_eq!(browser.evaluate("document.body.dataset.same").await, "page");
    let text = browser.text().await;
    for module in bad().modules {
        let words = module
            .status
            .trouble
            .map_or_else(|| "fine".to_owned(), |trouble| trouble.words);
        assert!(text.contains(&words), "no {words:?} in {text}");
    }
    for words in [
        "link: cannot connect to the server at 127.0.0.1:5347",
        "does not work",
        "works, with trouble",
        "no access token: invalid_grant",
        "registration.http: the certificate ends in 5 days",
        "monitor: the certificate ended 2 days ago",
        "fcmSecretPaht",
        "no space left on the device",
        "1,234,567 times",
        "<img src=x onerror=",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let title = browser.evaluate("document.title").await;
    assert_eq!(
        title, "■ fpush: somebody has to act",
        "nothing that came as text is taken for HTML"
    );
    for (width, scheme) in [(360, "light"), (360, "dark"), (1_280, "dark")] {
        browser.screen(width, scheme).await;
        let fits = format!("document.documentElement.scrollWidth <= {width}");
        assert_eq!(browser.evaluate(&fits).await, true, "{width} pixels are enough");
    }
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);

    // And it says when nothing comes any more, and when it comes again.
    serving.abort();
    browser
        .wait_for("document.getElementById('lost').innerText.startsWith('fpush does not answer since')")
        .await;
    assert!(browser.text().await.contains("What is shown is from"));
    assert_eq!(browser.evaluate("document.title").await, "■ fpush: no answer");
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let again = tokio::spawn(axum::serve(listener, monitor.router()).into_future());
    browser.wait_for("document.getElementById('lost').hidden").await;
    browser.end().await;
    again.abort();
}

#[tokio::test]
async fn without_script_it_says_what_is_needed() {
    let monitor = monitor(&good());
    let (address, _serving) = serve(&monitor).await;
    let mut browser = Browser::start().await;
    browser
        .command("Emulation.setScriptExecutionDisabled", json!({ "value": true }))
        .await;
    browser.open(&format!("http://{address}/"), "true").await;
    let text = browser.text().await;
    assert!(text.contains("needs JavaScript"), "{text}");
    assert!(!text.contains("The last hour"), "{text}");
    browser.end().await;
}

#[tokio::test]
async fn the_page_is_complete_and_strict() {
    let monitor = made_up::monitor();
    let (address, _serving) = serve(&monitor).await;
    for path in ["/", "/status.js", "/status.css", "/icon.svg"] {
        let answer = request(address, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("content-security-policy: default-src 'none'"),
            "{answer}"
        );
        assert!(!answer.contains("unsafe-inline"), "{path}");
        for elsewhere in ["https:", "http:", "src=\"/", "href=\"/", "innerHTML", "style="] {
            let found = answer
                .replace("http://www.w3.org/2000/svg", "")
                .contains(elsewhere);
            assert!(!found, "{elsewhere} in {path}");
        }
    }
    let early = request(address, "GET", "/status.json").await;
    assert!(early.starts_with("HTTP/1.1 503"), "{early}");
}

/// For those who change the page: pictures of it, in /tmp/fpush-status-page. docs/status-page.png is `good-1280-light`.
#[tokio::test]
#[ignore = "makes pictures to look at"]
async fn pictures() {
    let folder = std::env::temp_dir().join("fpush-status-page");
    fs::create_dir_all(&folder).unwrap();
    let mut browser = Browser::start().await;
    for (name, status) in [("good", good()), ("bad", bad())] {
        let monitor = monitor(&status);
        let (address, serving) = serve(&monitor).await;
        for (width, scheme) in [(1_280, "light"), (1_280, "dark"), (390, "light"), (390, "dark")] {
            browser.screen(width, scheme).await;
            browser.open(&format!("http://{address}/"), SHOWN).await;
            let picture = browser.picture().await;
            fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), picture).unwrap();
        }
        serving.abort();
    }
    browser.end().await;
}
