//! A headless Firefox whose push service is a stand-in: it subscribes, decrypts and acknowledges as every Firefox does.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime, sync::mpsc as pushes};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use crate::{LONG, TempDir};

/// A Firefox and its connection to the push service. Both end when this is dropped.
pub struct Firefox {
    process: Child,
    _profile: TempDir,
    pushes: pushes::UnboundedSender<Value>,
    acknowledged: mpsc::Receiver<u64>,
    /// Firefox takes each version once.
    delivered: AtomicU32,
}

impl Firefox {
    /// Opens a page in a new Firefox whose subscriptions have endpoints that begin like this.
    pub fn open(url: &str, endpoints: &str) -> Self {
        let (address, pushes, acknowledged) = push_service(endpoints.to_owned());
        let profile = TempDir::new();
        let preferences = [
            ("dom.push.serverURL", json!(format!("ws://{address}/"))),
            ("dom.push.testing.allowInsecureServerURL", json!(true)),
            ("dom.push.connection.enabled", json!(true)),
            ("dom.push.testing.ignorePermission", json!(true)),
            ("permissions.default.desktop-notification", json!(1)),
            // There is no desktop that would show them.
            ("alerts.useSystemBackend", json!(false)),
            ("browser.shell.checkDefaultBrowser", json!(false)),
            ("datareporting.policy.dataSubmissionEnabled", json!(false)),
            ("app.update.enabled", json!(false)),
        ];
        let lines = preferences.map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
        fs::write(profile.path().join("user.js"), lines.concat()).unwrap();
        let process = Command::new("firefox-esr")
            .args(["--headless", "--no-remote", "--profile"])
            .arg(profile.path())
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Firefox: apt-get install firefox-esr");
        Self {
            process,
            _profile: profile,
            pushes,
            acknowledged,
            delivered: AtomicU32::new(0),
        }
    }

    /// Hands a body over to the subscription with this endpoint, and returns what Firefox says of it: 100 if it could decrypt
    /// it and gave it to the app, 101 if it could not.
    #[track_caller]
    pub fn deliver(&self, path: &str, body: &[u8]) -> u64 {
        let channel = path.rsplit('/').next().unwrap_or_default();
        let version = self.delivered.fetch_add(1, Ordering::Relaxed);
        let notification = json!({
            "messageType": "notification", "channelID": channel, "version": format!("v{version}"),
            "data": BASE64_URL_SAFE_NO_PAD.encode(body), "headers": { "encoding": "aes128gcm" },
        });
        self.pushes.send(notification).unwrap();
        self.acknowledged.recv_timeout(LONG).unwrap()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

type Service = (String, pushes::UnboundedSender<Value>, mpsc::Receiver<u64>);

/// The side of a push service that browsers see: where it is, what it is to hand over, and what becomes of that.
fn push_service(endpoints: String) -> Service {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (pushes, mut to_browser) = pushes::unbounded_channel::<Value>();
    let (acknowledge, acknowledged) = mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            // It ends with the sender of pushes.
            while let Ok((stream, _)) = listener.accept().await {
                #[expect(clippy::result_large_err, reason = "it is the callback's type")]
                let protocol = |_: &Request, mut response: Response| {
                    let name = "push-notification".parse().unwrap();
                    response.headers_mut().insert("sec-websocket-protocol", name);
                    Ok(response)
                };
                let Ok(mut socket) = accept_hdr_async(stream, protocol).await else {
                    continue;
                };
                loop {
                    tokio::select! {
                        push = to_browser.recv() => {
                            let Some(push) = push else { return };
                            drop(socket.send(Message::text(push.to_string())).await);
                        }
                        said = socket.next() => {
                            let Some(Ok(Message::Text(text))) = said else { break };
                            let said = serde_json::from_str::<Value>(&text).unwrap();
                            if let Some(code) = said["updates"][0]["code"].as_u64() {
                                let _ = acknowledge.send(code);
                            }
                            if let Some(answer) = answer(&said, &endpoints) {
                                drop(socket.send(Message::text(answer.to_string())).await);
                            }
                        }
                    }
                }
            }
        });
    });
    (address, pushes, acknowledged)
}

/// What autopush says to that.
fn answer(said: &Value, endpoints: &str) -> Option<Value> {
    let channel = &said["channelID"];
    match said["messageType"].as_str() {
        None => Some(json!({})),
        Some("hello") => Some(json!({
            "messageType": "hello", "uaid": "0123456789abcdef0123456789abcdef", "status": 200,
            "use_webpush": true, "broadcasts": {},
        })),
        Some("register") => Some(json!({
            "messageType": "register", "channelID": channel, "status": 200,
            "pushEndpoint": format!("{endpoints}{}", channel.as_str()?),
        })),
        Some("unregister") => {
            Some(json!({ "messageType": "unregister", "channelID": channel, "status": 200 }))
        }
        Some(_) => None,
    }
}
