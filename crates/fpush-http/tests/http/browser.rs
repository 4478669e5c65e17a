//! The pages in a real browser, as a person uses them.

use std::time::Duration;

use fpush_testkit::Browser;
use serde_json::json;
use tokio::time::sleep;

use crate::rig::Rig;

#[tokio::test]
async fn a_person_registers_a_device_and_sees_it_in_the_settings() {
    let rig = Rig::debugging().await;
    let base = format!("http://{}/push_appserver/v1", rig.address);
    let mut browser = Browser::start().await;
    let phone = json!({ "width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": true });
    browser.command("Emulation.setDeviceMetricsOverride", phone).await;

    browser.open(&format!("{base}/register"), "true").await;
    let style = "getComputedStyle(document.querySelector('label')).display";
    assert_eq!(browser.evaluate(style).await, "block", "the style is allowed");
    browser.fill_in("type", "fcm").await;
    browser.fill_in("node", "a phone & <more>").await;
    browser.click("button").await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.registry.count().await.unwrap(), 0, "a field is missing");
    let token = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
    browser.fill_in("token", &token.replace(' ', "/")).await;
    browser.click("button").await;
    browser
        .wait_for("document.body.innerText.startsWith('OK\\n')")
        .await;
    let answer = browser.text().await;
    let secret = answer.strip_prefix("OK\na phone & <more>\n").unwrap().to_owned();
    assert_eq!(secret.len(), 64);

    browser.open(&format!("{base}/settings"), "true").await;
    assert!(browser.text().await.contains("a phone & <more>"));
    browser.click("a").await;
    browser.wait_for("document.querySelector('pre') !== null").await;
    let page = browser.text().await;
    let shown = token.replace(' ', "/").replace('"', "\\\"");
    assert!(page.contains(&format!("token = \"{shown}\"")), "{page}");
    assert!(
        page.contains(&format!("secret = \"{}…\"", &secret[..4])),
        "{page}"
    );
    assert!(!page.contains(&secret), "{page}");
    assert_eq!(browser.evaluate("document.title").await, "mod_push_appserver");
    let width = "document.documentElement.scrollWidth <= 360";
    assert_eq!(browser.evaluate(width).await, true, "a phone shows all of it");
    browser.click("a").await;
    browser
        .wait_for("document.body.innerText.includes('List of devices')")
        .await;

    browser.open(&format!("{base}/push"), "true").await;
    browser.fill_in("node", "a phone & <more>").await;
    browser.fill_in("secret", &secret).await;
    browser.click("button").await;
    browser
        .wait_for("document.body.innerText.trim() === 'OK\\na phone & <more>'")
        .await;

    browser.open(&format!("{base}/unregister"), "true").await;
    browser.fill_in("type", "fcm").await;
    browser.fill_in("node", "a phone & <more>").await;
    browser.click("button").await;
    browser
        .wait_for("document.body.innerText.startsWith('OK\\n')")
        .await;
    assert_eq!(rig.registry.count().await.unwrap(), 0);
    let complaints: Vec<_> = browser
        .end()
        .await
        .into_iter()
        .filter(|complaint| !complaint.contains("404"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test]
async fn a_page_of_another_site_registers_nothing() {
    let rig = Rig::debugging().await;
    let mut browser = Browser::start().await;
    let url = format!("http://{}/push_appserver/v1/register", rig.address);
    let page = format!(
        "data:text/html,<form method=post action={url}><input name=type value=fcm><input name=node value=n>\
         <input name=token value=t><button>free ice cream</button></form>"
    );
    browser.command("Page.navigate", json!({ "url": page })).await;
    browser
        .wait_for("document.querySelector('button') !== null")
        .await;
    browser.click("button").await;
    browser
        .wait_for("document.body.innerText.includes('another site')")
        .await;
    assert_eq!(rig.registry.count().await.unwrap(), 0);
    browser.end().await;
}
