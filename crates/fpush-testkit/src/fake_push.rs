//! A stand-in for the push services of browsers (RFC 8030), and for the browsers behind them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::answer::Answer;
use crate::certs::{ClientAuth, TestCa};
use crate::http_server::{NewConnections, Options, Request, Server, Service};
use crate::journal::{Journal, Script};
use crate::jwt::Jwt;

/// A fake push service on `127.0.0.1`, with TLS and HTTP/2, whose certificate is good for the vendors' hosts as well. Unless
/// told otherwise it answers 201 to every push that its subscriber can decrypt and whose claims are good. It stops on drop.
pub struct FakePush {
    server: Server,
    push: Arc<Push>,
}

/// What a browser gives its app.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Where pushes go.
    pub endpoint: String,
    /// The browser's public key, base64url.
    pub p256dh: String,
    /// The secret that only the app's server knows, base64url.
    pub auth: String,
}

impl Subscription {
    /// The one string that it is as a token.
    pub fn token(&self) -> String {
        format!("webpush:{}|{}|{}", self.endpoint, self.p256dh, self.auth)
    }
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
        let push = Arc::new(Push {
            subscribers: Mutex::new(HashMap::new()),
            pushes: Journal::new(true),
            script: Script::new(),
        });
        let options = Options {
            tls: ca.server_config_for(&NAMES, &["h2"], ClientAuth::Off),
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
        let private = PrivateKey::generate(&ECDH_P256).unwrap();
        let mut auth = [0; 16];
        rand::fill(&mut auth).unwrap();
        let public = private.compute_public_key().unwrap();
        let subscription = Subscription {
            endpoint: format!("https://{authority}{path}"),
            p256dh: BASE64_URL_SAFE_NO_PAD.encode(public.as_ref()),
            auth: BASE64_URL_SAFE_NO_PAD.encode(auth),
        };
        let subscriber = Arc::new(Subscriber { private, auth });
        self.push
            .subscribers
            .lock()
            .unwrap()
            .insert(path.to_owned(), subscriber);
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

struct Subscriber {
    private: PrivateKey,
    auth: [u8; 16],
}

impl Service for Push {
    fn answer(&self, request: Request) -> Answer {
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
                Some(subscriber) => subscriber.decrypt(&request.body),
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

impl Subscriber {
    /// RFC 8291, from the receiver's side.
    fn decrypt(&self, body: &[u8]) -> Result<String, String> {
        let wrong = |what: &str| what.to_owned();
        let (salt, rest) = body.split_at_checked(16).ok_or("no salt")?;
        let (size, rest) = rest.split_at_checked(4).ok_or("no record size")?;
        let (length, rest) = rest.split_first().ok_or("no key")?;
        let (theirs, record) = rest.split_at_checked(usize::from(*length)).ok_or("no key")?;
        if size != 4_096_u32.to_be_bytes() || record.len() > 4_096 {
            return Err(wrong("the record size"));
        }
        let ours = self.private.compute_public_key().unwrap();
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let shared = agree(&self.private, peer, wrong("the key"), |secret| {
            Ok(derive::<32>(
                &self.auth,
                secret,
                &[b"WebPush: info\0", ours.as_ref(), theirs],
            ))
        })?;
        let key = derive::<16>(salt, &shared, &[b"Content-Encoding: aes128gcm\0"]);
        let nonce = derive::<12>(salt, &shared, &[b"Content-Encoding: nonce\0"]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = record.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = key.open_in_place(nonce, Aad::empty(), &mut record);
        let plain = plain.map_err(|_| "cannot be decrypted")?;
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or("no delimiter")?;
        if plain[end] != 2 {
            return Err(wrong("the delimiter"));
        }
        String::from_utf8(plain[..end].to_vec()).map_err(|_| wrong("no UTF-8"))
    }
}

pub(crate) fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut derived = [0; N];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(info, Bytes(N)).unwrap().fill(&mut derived).unwrap();
    derived
}

/// What its certificate is good for.
const NAMES: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "updates.push.services.mozilla.com",
    "fcm.googleapis.com",
    "web.push.apple.com",
    "wns2-par02p.notify.windows.com",
    "up.example.org",
];
