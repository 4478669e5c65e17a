//! A stand-in for Firebase Cloud Messaging (HTTP v1) and for Google's token endpoint.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::certs::{ClientAuth, TestCa, service_account_json, verify_assertion};
use crate::http_server::{NewConnections, Options, Request, Server, Service};
use crate::journal::{Journal, Script};
use crate::jwt::Jwt;

/// A fake FCM on `127.0.0.1`, with TLS and HTTP/2. Unless told otherwise it accepts every message, and gives an access
/// token for every assertion that the key of [`service_account_json`] signed for it. It stops on drop.
///
/// Like Google it takes a Firebase installation ID in `fid` and in `token`. Once a device has got a message by its
/// installation ID, its registration tokens, which begin with the same ID and a colon, are UNREGISTERED.
pub struct FakeFcm {
    server: Server,
    fcm: Arc<Fcm>,
}

/// One message as it reached the fake.
#[derive(Debug, Clone)]
pub struct FcmSend {
    /// The project id in the path.
    pub project: String,
    /// The access token.
    pub bearer: Option<String>,
    /// The object `message` of the body; [`Value::Null`] if there is none.
    pub message: Value,
    /// The whole body; [`Value::Null`] if it is not JSON.
    pub body: Value,
    /// All headers.
    pub headers: HeaderMap,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// When the head of the request arrived.
    pub at: Instant,
}

impl FcmSend {
    /// The device token of the message, or an empty string.
    pub fn token(&self) -> &str {
        self.message["token"].as_str().unwrap_or_default()
    }

    /// The Firebase installation ID of the message, or an empty string.
    pub fn fid(&self) -> &str {
        self.message["fid"].as_str().unwrap_or_default()
    }

    /// What the message names its device by: its token or its installation ID.
    pub fn target(&self) -> &str {
        match self.fid() {
            "" => self.token(),
            fid => fid,
        }
    }
}

/// One request for an access token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The form, decoded.
    pub form: HashMap<String, String>,
    /// The assertion, or what is wrong with it.
    pub assertion: Result<Jwt, String>,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// When the head of the request arrived.
    pub at: Instant,
}

/// How a [`FakeFcm`] is set up.
pub struct Builder<'a> {
    ca: &'a TestCa,
    max_concurrent_streams: u32,
    recording: bool,
    delay: Option<Duration>,
    check_tokens: bool,
    expires_in: Duration,
}

impl Builder<'_> {
    /// How many requests at a time a connection takes; 100 by default.
    #[must_use]
    pub fn max_concurrent_streams(mut self, max: u32) -> Self {
        self.max_concurrent_streams = max;
        self
    }

    /// Whether messages are kept. If not they are only counted. Token requests are always kept.
    #[must_use]
    pub fn recording(mut self, recording: bool) -> Self {
        self.recording = recording;
        self
    }

    /// How long every request waits until it is looked at and answered.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Answers messages whose access token is not one of ours, or is too old, with 401, whatever is scripted.
    #[must_use]
    pub fn check_tokens(mut self, check: bool) -> Self {
        self.check_tokens = check;
        self
    }

    /// How long access tokens live; an hour by default.
    #[must_use]
    pub fn expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = expires_in;
        self
    }

    /// Starts the server.
    pub fn start(self) -> FakeFcm {
        let Self {
            ca,
            max_concurrent_streams,
            recording,
            delay,
            check_tokens,
            expires_in,
        } = self;
        let fcm = Arc::new(Fcm {
            sends: Journal::new(recording),
            send_script: Script::new(),
            token_requests: Journal::new(true),
            token_script: Script::new(),
            check_tokens,
            expires_in: Mutex::new(expires_in),
            issued: AtomicUsize::new(0),
            valid: Mutex::new(HashMap::new()),
            used_fids: Mutex::new(HashSet::new()),
        });
        let options = Options {
            tls: ca.server_config(&["h2"], ClientAuth::Off),
            max_concurrent_streams,
            delay,
        };
        FakeFcm {
            server: Server::start("fake-fcm", options, Arc::clone(&fcm) as _),
            fcm,
        }
    }
}

impl FakeFcm {
    /// Starts a fake whose certificate comes from `ca`.
    pub fn start(ca: &TestCa) -> Self {
        Self::builder(ca).start()
    }

    /// The same with more choices.
    pub fn builder(ca: &TestCa) -> Builder<'_> {
        Builder {
            ca,
            max_concurrent_streams: 100,
            recording: true,
            delay: None,
            check_tokens: false,
            expires_in: Duration::from_secs(3600),
        }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// The address of the token endpoint.
    pub fn token_uri(&self) -> String {
        self.url() + TOKEN_PATH
    }

    /// A service account that fetches its access tokens here.
    pub fn service_account(&self, project_id: &str) -> String {
        service_account_json(project_id, &self.token_uri())
    }

    /// Answers every message from now on as the closure says. Queued answers go first.
    pub fn answer_with(&self, answer: impl Fn(&FcmSend) -> Answer + Send + Sync + 'static) {
        self.fcm.send_script.set(answer);
    }

    /// Answers the next messages with these, one each, in the order of their arrival.
    pub fn queue(&self, answers: impl IntoIterator<Item = Answer>) {
        self.fcm.send_script.queue(answers);
    }

    /// Answers every token request from now on as the closure says. Queued answers go first.
    pub fn answer_tokens_with(&self, answer: impl Fn(&TokenRequest) -> Answer + Send + Sync + 'static) {
        self.fcm.token_script.set(answer);
    }

    /// Answers the next token requests with these, one each.
    pub fn queue_tokens(&self, answers: impl IntoIterator<Item = Answer>) {
        self.fcm.token_script.queue(answers);
    }

    /// Forgets everything scripted: from now on every message is accepted and every good assertion gets a token.
    pub fn answer_normally(&self) {
        self.fcm.send_script.clear();
        self.fcm.token_script.clear();
    }

    /// How long access tokens live that are given from now on.
    pub fn set_expires_in(&self, expires_in: Duration) {
        *self.fcm.expires_in.lock().unwrap() = expires_in;
    }

    /// No access token given until now is good any more.
    pub fn revoke_tokens(&self) {
        self.fcm.valid.lock().unwrap().clear();
    }

    /// The messages until now, in the order of their arrival, also the ones that were refused.
    pub fn sends(&self) -> Vec<FcmSend> {
        self.fcm.sends.snapshot()
    }

    /// The data of each message to this token or installation ID until now.
    pub fn data_for(&self, token: &str) -> Vec<Value> {
        let sends = self.sends().into_iter();
        let to_it = sends.filter(|send| send.target() == token);
        to_it.map(|send| send.message["data"].clone()).collect()
    }

    /// How many messages arrived until now, also if they are not kept.
    pub fn count(&self) -> usize {
        self.fcm.sends.len()
    }

    /// Blocks until `n` messages have arrived since the start, and returns all that are kept. Panics when `timeout`
    /// is over.
    #[track_caller]
    pub fn wait_for(&self, n: usize, timeout: Duration) -> Vec<FcmSend> {
        self.fcm.sends.wait_for(n, timeout, "messages at the fake FCM")
    }

    /// The token requests until now.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.fcm.token_requests.snapshot()
    }

    /// As [`Self::wait_for`], for token requests.
    #[track_caller]
    pub fn wait_for_token_requests(&self, n: usize, timeout: Duration) -> Vec<TokenRequest> {
        self.fcm
            .token_requests
            .wait_for(n, timeout, "token requests at the fake FCM")
    }

    /// How many connections finished their handshake until now. With TLS 1.3 a client is through a little earlier.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// What is done with connections from now on; those that exist stay.
    pub fn new_connections(&self, what: NewConnections) {
        self.server.set_new_connections(what);
    }

    /// The connections that exist fall silent for good, without even a reply to PING, and are not closed. New ones
    /// work.
    pub fn stall_existing_connections(&self) {
        self.server.stall_existing_connections();
    }

    /// Resets the connections that exist. New ones work.
    pub fn reset_existing_connections(&self) {
        self.server.reset_existing_connections();
    }
}

/// Google's error body. With `error_code` it holds an entry of type `FcmError`, after the details in `more`.
pub fn fcm_error(code: u16, status: &str, error_code: Option<&str>, more: &[Value]) -> Answer {
    let mut details = more.to_vec();
    if let Some(error_code) = error_code {
        details.push(json!({
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": error_code,
        }));
    }
    let mut error = json!({ "code": code, "message": "Scripted by the test.", "status": status });
    if !details.is_empty() {
        error["details"] = details.into();
    }
    Answer::json(code, &json!({ "error": error }))
}

/// The detail that blames a field of the request.
pub fn bad_request(field: &str, description: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": field, "description": description }],
    })
}

/// The detail that says whose quota is used up.
pub fn quota_failure(subject: &str, description: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{ "subject": subject, "description": description }],
    })
}

/// The error body of the token endpoint.
pub fn token_error(code: u16, error: &str, description: &str) -> Answer {
    Answer::json(code, &json!({ "error": error, "error_description": description }))
}

struct Fcm {
    sends: Journal<FcmSend>,
    send_script: Script<FcmSend>,
    token_requests: Journal<TokenRequest>,
    token_script: Script<TokenRequest>,
    check_tokens: bool,
    expires_in: Mutex<Duration>,
    issued: AtomicUsize,
    valid: Mutex<HashMap<String, Instant>>,
    /// The installation IDs that messages went to.
    used_fids: Mutex<HashSet<String>>,
}

impl Service for Fcm {
    fn answer(&self, request: Request) -> Answer {
        if request.method != Method::POST {
            return Answer::raw(405, "<html>405</html>");
        }
        if request.path == TOKEN_PATH {
            return self.give_token(request);
        }
        let project = request
            .path
            .strip_prefix("/v1/projects/")
            .and_then(|rest| rest.strip_suffix("/messages:send"));
        match project.map(str::to_owned) {
            Some(project) => self.take_message(project, request),
            None => Answer::raw(404, "<html>404</html>"),
        }
    }
}

impl Fcm {
    fn take_message(&self, project: String, request: Request) -> Answer {
        let send = FcmSend::new(project, request);
        if self.sends.recording() {
            self.sends.push(send.clone());
        } else {
            self.sends.count_one();
        }
        if self.check_tokens && !self.is_valid(send.bearer.as_deref()) {
            return fcm_error(401, "UNAUTHENTICATED", None, &[]);
        }
        self.send_script
            .next(&send)
            .or_normal(&|| self.deliver(&send).unwrap_or_else(|refusal| refusal))
    }

    /// What Google does with a message that there is no trouble with.
    fn deliver(&self, send: &FcmSend) -> Result<Answer, Answer> {
        let targets = ["token", "fid", "topic", "condition"];
        let invalid = |field| {
            let violation = bad_request(field, "Invalid value");
            fcm_error(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), &[violation])
        };
        if targets
            .iter()
            .filter(|name| send.message.get(name).is_some())
            .count()
            != 1
        {
            return Err(invalid("message"));
        }
        if !send.fid().is_empty() && !is_fid(send.fid()) {
            return Err(invalid("message.fid"));
        }
        let mut used = self.used_fids.lock().unwrap();
        let dry = send.body["validate_only"] == true;
        if is_fid(send.target()) && !dry {
            used.insert(send.target().to_owned());
        }
        let is_replaced = |(fid, _rest): (&str, &str)| used.contains(fid);
        if send.token().split_once(':').is_some_and(is_replaced) {
            return Err(fcm_error(404, "NOT_FOUND", Some("UNREGISTERED"), &[]));
        }
        let name = format!("projects/{}/messages/0:{}", send.project, self.sends.len());
        Ok(Answer::json(200, &json!({ "name": name })))
    }

    fn is_valid(&self, bearer: Option<&str>) -> bool {
        let valid = self.valid.lock().unwrap();
        bearer
            .and_then(|token| valid.get(token))
            .is_some_and(|end| Instant::now() < *end)
    }

    fn give_token(&self, request: Request) -> Answer {
        let form = parse_form(&request.body);
        let assertion = match form.get("assertion") {
            Some(assertion) => verify_assertion(assertion),
            None => Err("there is no assertion".to_owned()),
        };
        let request = TokenRequest {
            form,
            assertion,
            connection: request.connection,
            at: request.at,
        };
        self.token_requests.push(request.clone());
        self.token_script.next(&request).or_normal(&|| {
            if request.form.get("grant_type").map(String::as_str) != Some(JWT_BEARER) {
                return token_error(400, "unsupported_grant_type", "Invalid grant_type");
            }
            if let Err(error) = &request.assertion {
                return token_error(400, "invalid_grant", error);
            }
            self.issue()
        })
    }

    fn issue(&self) -> Answer {
        let token = format!("ya29.test-{}", self.issued.fetch_add(1, Ordering::AcqRel) + 1);
        let expires_in = *self.expires_in.lock().unwrap();
        self.valid
            .lock()
            .unwrap()
            .insert(token.clone(), Instant::now() + expires_in);
        let body =
            json!({ "access_token": token, "expires_in": expires_in.as_secs(), "token_type": "Bearer" });
        Answer::json(200, &body)
    }
}

impl FcmSend {
    fn new(project: String, request: Request) -> Self {
        let Request {
            method: _,
            path: _,
            authority: _,
            path_and_query: _,
            headers,
            body,
            connection,
            at,
            client_cert: _,
        } = request;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
        Self {
            project,
            bearer: bearer
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::to_owned),
            message: body["message"].clone(),
            body,
            headers,
            connection,
            at,
        }
    }
}

/// Whether this is a Firebase installation ID as Google makes them today.
fn is_fid(text: &str) -> bool {
    text.len() == 22
        && text.starts_with(['c', 'd', 'e', 'f'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// `application/x-www-form-urlencoded`
fn parse_form(body: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (percent_decode(name), percent_decode(value)))
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| str::from_utf8(hex).ok());
        rest = match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                &tail[2..]
            }
            (b'+', _) => {
                bytes.push(b' ');
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const TOKEN_PATH: &str = "/token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
