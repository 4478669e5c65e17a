//! A stand-in for the push services of browsers (RFC 8030), and for the browsers behind them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;

use crate::answer::Answer;
use crate::certs::{ClientAuth, Identity, TestCa};
use crate::http_server::{NewConnections, Options, Request, Server, Service};
use crate::journal::{Journal, Script};
use crate::jwt::Jwt;
use crate::subscriber::{Subscriber, Subscription};

/// A fake push service on `127.0.0.1`, with TLS and HTTP/2, whose certificate is good for the vendors' hosts as well. Unless
/// told otherwise it answers 201 to every push that its subscriber can decrypt and whose claims are good. It stops on drop.
pub struct FakePush {
    server: Server,
    push: Arc<Push>,
}

/// A push as it reached the fake.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Host and port that the client asked for.
    pub authority: String,
    /// Path and query, byte for byte.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// What the subscriber reads, or why it cannot.
    pub text: Result<String, String>,
    /// Bytes of the body.
    pub length: usize,
    /// The body, as a browser gets it.
    pub body: Bytes,
    /// The claims of the sender, if their signature is good, or what is wrong with them.
    pub claims: Result<Jwt, String>,
    /// The key that they are signed with, base64url.
    pub key: String,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// When the head of the request arrived.
    pub at: Instant,
}

impl Pushed {
    /// A header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the subscriber reads, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text.as_ref().unwrap()).unwrap()
    }
}

impl FakePush {
    /// Starts a fake whose certificate comes from `ca`.
    pub fn start(ca: &TestCa) -> Self {
        Self::with(ca, true)
    }

    /// Starts one that reads nothing, remembers nothing, and accepts everything: for load.
    pub fn start_blind(ca: &TestCa) -> Self {
        Self::with(ca, false)
    }

    /// Starts one that shows this certificate.
    pub fn start_as(ca: &TestCa, identity: Identity) -> Self {
        Self::serving(ca.server_config_with(identity, &["h2"], ClientAuth::Off), true)
    }

    fn with(ca: &TestCa, recording: bool) -> Self {
        Self::serving(ca.server_config_for(&NAMES, &["h2"], ClientAuth::Off), recording)
    }

    fn serving(tls: Arc<ServerConfig>, recording: bool) -> Self {
        let push = Arc::new(Push {
            subscribers: Mutex::new(HashMap::new()),
            pushes: Journal::new(recording),
            script: Script::new(),
        });
        let options = Options {
            tls,
            max_concurrent_streams: 100,
            delay: None,
        };
        Self {
            server: Server::start("fake-push", options, Arc::clone(&push) as _),
            push,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A new subscription at `https://127.0.0.1:PORT` and this path.
    pub fn subscribe(&self, path: &str) -> Subscription {
        self.subscribe_at(&self.server.address().to_string(), path)
    }

    /// A new subscription at another host, from which something has to lead here.
    pub fn subscribe_at(&self, authority: &str, path: &str) -> Subscription {
        let subscriber = Subscriber::new();
        let subscription = subscriber.subscription(format!("https://{authority}{path}"));
        self.push
            .subscribers
            .lock()
            .unwrap()
            .insert(path.to_owned(), Arc::new(subscriber));
        subscription
    }

    /// Answers every push from now on as the closure says. Queued answers go first.
    pub fn answer_with(&self, answer: impl Fn(&Pushed) -> Answer + Send + Sync + 'static) {
        self.push.script.set(answer);
    }

    /// Answers the next pushes with these, one each, in the order of their arrival.
    pub fn queue(&self, answers: impl IntoIterator<Item = Answer>) {
        self.push.script.queue(answers);
    }

    /// The pushes until now, in the order of their arrival, also the ones that were refused.
    pub fn pushes(&self) -> Vec<Pushed> {
        self.push.pushes.snapshot()
    }

    /// Blocks until `n` pushes have arrived since the start, and returns all. Panics when `timeout` is over.
    #[track_caller]
    pub fn wait_for(&self, n: usize, timeout: Duration) -> Vec<Pushed> {
        self.push
            .pushes
            .wait_for(n, timeout, "pushes at the fake push service")
    }

    /// How many connections finished their handshake until now.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// What is done with connections from now on; those that exist stay.
    pub fn new_connections(&self, what: NewConnections) {
        self.server.set_new_connections(what);
    }

    /// Resets the connections that exist. New ones work.
    pub fn reset_existing_connections(&self) {
        self.server.reset_existing_connections();
    }
}

struct Push {
    /// By path and query.
    subscribers: Mutex<HashMap<String, Arc<Subscriber>>>,
    pushes: Journal<Pushed>,
    script: Script<Pushed>,
}

impl Service for Push {
    fn answer(&self, request: Request) -> Answer {
        if !self.pushes.recording() {
            self.pushes.count_one();
            return Answer::status(201);
        }
        let subscriber = self
            .subscribers
            .lock()
            .unwrap()
            .get(&request.path_and_query)
            .cloned();
        let authorization = request.headers.get("authorization");
        let authorization = authorization
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let (claims, key) = verify(authorization);
        let pushed = Pushed {
            authority: request.authority,
            path: request.path_and_query,
            text: match &subscriber {
                Some(subscriber) => subscriber.read(&request.body),
                None => Err("nobody has subscribed here".to_owned()),
            },
            headers: request.headers,
            length: request.body.len(),
            body: request.body.clone(),
            claims,
            key,
            connection: request.connection,
            at: request.at,
        };
        self.pushes.push(pushed.clone());
        self.script.next(&pushed).or_normal(&|| {
            if request.method != Method::POST {
                Answer::status(405)
            } else if subscriber.is_none() {
                Answer::status(404)
            } else if pushed.header("ttl").parse::<u32>().is_err() || pushed.text.is_err() {
                Answer::status(400)
            } else if !pushed.has_good_claims() {
                Answer::status(401)
            } else {
                Answer::status(201).header("location", "https://push.example/message/1")
            }
        })
    }
}

impl Pushed {
    /// Whether the claims are for this service, and end within a day.
    fn has_good_claims(&self) -> bool {
        let Ok(Jwt { claims, .. }) = &self.claims else {
            return false;
        };
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let is_for_us = claims["aud"] == format!("https://{}", self.authority);
        let ends = claims["exp"].as_u64();
        is_for_us && ends.is_some_and(|end| (now..=now + 86_400).contains(&end))
    }
}

/// The claims of `Authorization: vapid t=…, k=…`, and the key.
fn verify(authorization: &str) -> (Result<Jwt, String>, String) {
    let parts = authorization.strip_prefix("vapid t=");
    let Some((token, key)) = parts.and_then(|parts| parts.split_once(", k=")) else {
        return (Err("there are no claims".to_owned()), String::new());
    };
    let public = BASE64_URL_SAFE_NO_PAD.decode(key);
    let claims = match public {
        Ok(public) => Jwt::verify_es256(token, &public),
        Err(error) => Err(format!("k: {error}")),
    };
    (claims, key.to_owned())
}

/// What its certificate is good for.
const NAMES: [&str; 8] = [
    "*.up.example.org",
    "localhost",
    "127.0.0.1",
    "updates.push.services.mozilla.com",
    "fcm.googleapis.com",
    "web.push.apple.com",
    "*.notify.windows.com",
    "up.example.org",
];
