//! The pages in a real browser, as a person uses them.

use std::{fs, process::Stdio, time::Duration};

use fpush_testkit::temp_dir::TempDir;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::rig::Rig;

/// A tab of a headless Chromium, which ends with the test.
struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    commands: u64,
    complaints: Vec<String>,
    process: Child,
    profile: TempDir,
}

impl Browser {
    async fn start() -> Self {
        let profile = TempDir::new();
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-extensions",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs Chromium: apt-get install chromium");
        let port_file = profile.path().join("DevToolsActivePort");
        let start = Instant::now();
        let (port, path) = loop {
            let content = fs::read_to_string(&port_file).unwrap_or_default();
            if let Some((port, path)) = content.split_once('\n').filter(|(_, path)| !path.is_empty()) {
                break (port.to_owned(), path.trim().to_owned());
            }
            assert!(start.elapsed() < PATIENCE, "Chromium does not begin");
            sleep(Duration::from_millis(50)).await;
        };
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}{path}"))
            .await
            .unwrap();
        let mut browser = Self {
            socket,
            session: None,
            commands: 0,
            complaints: Vec::new(),
            process,
            profile,
        };
        let target = browser
            .command("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Sends a command of the `DevTools` protocol and returns its result.
    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.try_command(method, parameters)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn try_command(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(command.to_string()))
            .await
            .unwrap();
        loop {
            let message = timeout(PATIENCE, self.socket.next())
                .await
                .unwrap_or_else(|_| panic!("Chromium does not answer {method}"));
            let Message::Text(text) = message.expect("Chromium has gone").unwrap() else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if answer["method"] == "Log.entryAdded" {
                self.complaints
                    .push(answer["params"]["entry"]["text"].to_string());
            }
            if answer["id"] == id {
                return match answer.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// The value of an expression in the page.
    async fn evaluate(&mut self, expression: &str) -> Value {
        let value = self.try_evaluate(expression).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let mut result = self.try_command("Runtime.evaluate", parameters).await?;
        match result.get_mut("exceptionDetails") {
            Some(exception) => Err(exception.take()),
            None => Ok(result["result"]["value"].take()),
        }
    }

    /// Waits until an expression is true on a page that is complete: this one, or one that comes next. Between two
    /// pages there is nothing to evaluate it on.
    async fn wait_for(&mut self, expression: &str) {
        let start = Instant::now();
        let complete = format!("document.readyState === 'complete' && ({expression})");
        while self.try_evaluate(&complete).await != Ok(json!(true)) {
            let text = "location.href + ' ' + document.body?.innerText";
            if start.elapsed() > PATIENCE {
                panic!(
                    "{expression} does not come true on {:?}",
                    self.try_evaluate(text).await
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn open(&mut self, url: &str) {
        self.command("Page.navigate", json!({ "url": url })).await;
        let here = format!(
            "document.readyState === 'complete' && location.href === {}",
            json!(url)
        );
        self.wait_for(&here).await;
    }

    async fn text(&mut self) -> String {
        let text = self.evaluate("document.body.innerText").await;
        text.as_str().unwrap().to_owned()
    }

    /// Types into the field of this name, as a keyboard does.
    async fn fill_in(&mut self, field: &str, text: &str) {
        self.evaluate(&format!("document.querySelector('[name={field}]').focus()"))
            .await;
        self.command("Input.insertText", json!({ "text": text })).await;
    }

    /// Clicks into the middle of an element, as a mouse does.
    async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const r = document.querySelector({}).getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2] }})()",
            json!(selector)
        );
        let place = self.evaluate(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.command("Input.dispatchMouseEvent", event).await;
        }
    }

    async fn end(mut self) -> Vec<String> {
        self.session = None;
        // It may have gone before it answers.
        let close = json!({ "id": 0, "method": "Browser.close" });
        self.socket.send(Message::text(close.to_string())).await.unwrap();
        if timeout(PATIENCE, self.process.wait()).await.is_err() {
            self.process.kill().await.unwrap();
        }
        // Its processes go one after the other, and write until then.
        let (profile, start) = (self.profile.path(), Instant::now());
        while profile.exists() && start.elapsed() < PATIENCE {
            if fs::remove_dir_all(profile).is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        self.complaints
    }
}

#[tokio::test]
async fn a_person_registers_a_device_and_sees_it_in_the_settings() {
    let rig = Rig::debugging().await;
    let base = format!("http://{}/push_appserver/v1", rig.address);
    let mut browser = Browser::start().await;
    let phone = json!({ "width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": true });
    browser.command("Emulation.setDeviceMetricsOverride", phone).await;

    browser.open(&format!("{base}/register")).await;
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

    browser.open(&format!("{base}/settings")).await;
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

    browser.open(&format!("{base}/push")).await;
    browser.fill_in("node", "a phone & <more>").await;
    browser.fill_in("secret", &secret).await;
    browser.click("button").await;
    browser
        .wait_for("document.body.innerText.trim() === 'OK\\na phone & <more>'")
        .await;

    browser.open(&format!("{base}/unregister")).await;
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

/// Nothing takes a browser that long.
const PATIENCE: Duration = Duration::from_secs(30);
