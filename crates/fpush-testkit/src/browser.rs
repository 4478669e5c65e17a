//! A headless Chromium that is told what to do over its `DevTools` protocol. Unlike the fakes it wants a runtime.

use std::{fs, process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{LONG, TempDir};

/// A tab, which ends with the test.
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    commands: u64,
    /// What it wrote to its console.
    pub complaints: Vec<String>,
    process: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts Chromium.
    pub async fn start() -> Self {
        let profile = TempDir::new();
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--disable-quic",
                "--no-first-run",
                "--disable-extensions",
                "--disable-sync",
            ])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--hide-scrollbars", "--remote-debugging-port=0"])
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
            assert!(start.elapsed() < LONG, "Chromium does not begin");
            sleep(Duration::from_millis(50)).await;
        };
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = connect_async(url).await.unwrap();
        let mut browser = Self {
            socket,
            session: None,
            commands: 0,
            complaints: Vec::new(),
            process,
            profile,
        };
        let blank = json!({ "url": "about:blank" });
        let target = browser.command("Target.createTarget", blank).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Sends a command and returns its result.
    pub async fn command(&mut self, method: &str, parameters: Value) -> Value {
        let result = self.try_command(method, parameters).await;
        result.unwrap_or_else(|error| panic!("{method}: {error}"))
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
            let message = timeout(LONG, self.socket.next()).await;
            let message = message.unwrap_or_else(|_| panic!("Chromium does not answer {method}"));
            let Message::Text(text) = message.expect("Chromium has gone").unwrap() else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if let Some("Log.entryAdded" | "Runtime.exceptionThrown" | "Runtime.consoleAPICalled") =
                answer["method"].as_str()
            {
                self.complaints.push(answer["params"].to_string());
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
    pub async fn evaluate(&mut self, expression: &str) -> Value {
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
    pub async fn wait_for(&mut self, expression: &str) {
        let start = Instant::now();
        let complete = format!("document.readyState === 'complete' && ({expression})");
        while self.try_evaluate(&complete).await != Ok(json!(true)) {
            let text = "location.href + ' ' + document.body?.innerText";
            if start.elapsed() > LONG {
                panic!(
                    "{expression} does not come true on {:?}; {:?}",
                    self.try_evaluate(text).await,
                    self.complaints
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Opens a page and waits until an expression is true there.
    pub async fn open(&mut self, url: &str, expression: &str) {
        self.command("Page.navigate", json!({ "url": url })).await;
        self.wait_for(&format!("location.href === {} && ({expression})", json!(url)))
            .await;
    }

    /// What a person reads there.
    pub async fn text(&mut self) -> String {
        let text = self.evaluate("document.body.innerText").await;
        text.as_str().unwrap().to_owned()
    }

    /// Makes it a screen of this width, light or dark.
    pub async fn screen(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", scheme).await;
    }

    /// The whole page as a PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.command("Page.captureScreenshot", whole).await;
        STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// Types into the field of this name, as a keyboard does.
    pub async fn fill_in(&mut self, field: &str, text: &str) {
        self.evaluate(&format!("document.querySelector('[name={field}]').focus()"))
            .await;
        self.command("Input.insertText", json!({ "text": text })).await;
    }

    /// Clicks into the middle of an element, as a mouse does.
    pub async fn click(&mut self, selector: &str) {
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

    /// Ends Chromium, and returns what it wrote to its console.
    pub async fn end(mut self) -> Vec<String> {
        self.session = None;
        // It may have gone before it answers.
        let close = json!({ "id": 0, "method": "Browser.close" });
        self.socket.send(Message::text(close.to_string())).await.unwrap();
        if timeout(LONG, self.process.wait()).await.is_err() {
            self.process.kill().await.unwrap();
        }
        // Its processes go one after the other, and write until then.
        let (profile, start) = (self.profile.path(), Instant::now());
        while profile.exists() && start.elapsed() < LONG {
            if fs::remove_dir_all(profile).is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        self.complaints
    }
}
