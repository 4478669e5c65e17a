//! A stand-in for Apple's push service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::Value;

use crate::answer::{Answer, HttpReply};
use crate::certs::{ClientAuth, TestCa};
use crate::http_server::{NewConnections, Options, Request, Server, Service};
use crate::journal::{Journal, Script};

/// A fake APNs on `127.0.0.1`, with TLS and HTTP/2. Unless told otherwise it accepts every push, and every answer
/// carries the `apns-id` of the request. It stops on drop.
pub struct FakeApns {
    server: Server,
    apns: Arc<Apns>,
}

/// One push as it reached the fake.
#[derive(Debug, Clone)]
pub struct ApnsRequest {
    /// What follows `/3/device/` in the path; the whole path if that is another one.
    pub token: String,
    /// The HTTP method.
    pub method: String,
    /// The whole path.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; [`Value::Null`] if it is not JSON.
    pub body: Value,
    /// The length of the body in bytes.
    pub body_len: usize,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// When the head of the request arrived.
    pub at: Instant,
    /// Whether the client had shown a certificate.
    pub client_cert: bool,
}

impl ApnsRequest {
    /// The value of a header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// How a [`FakeApns`] is set up.
pub struct Builder<'a> {
    ca: &'a TestCa,
    client_auth: ClientAuth,
    max_concurrent_streams: u32,
    recording: bool,
    delay: Option<Duration>,
}

impl Builder<'_> {
    /// What is done about client certificates; [`ClientAuth::Optional`] by default, as Apple does.
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// How many requests at a time a connection takes; 1000 by default.
    #[must_use]
    pub fn max_concurrent_streams(mut self, max: u32) -> Self {
        self.max_concurrent_streams = max;
        self
    }

    /// Whether requests are kept. If not they are only counted, which a benchmark wants.
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

    /// Starts the server.
    pub fn start(self) -> FakeApns {
        let Self {
            ca,
            client_auth,
            max_concurrent_streams,
            recording,
            delay,
        } = self;
        let apns = Arc::new(Apns {
            journal: Journal::new(recording),
            script: Script::new(),
        });
        let options = Options {
            tls: ca.server_config(&["h2"], client_auth),
            max_concurrent_streams,
            delay,
        };
        FakeApns {
            server: Server::start("fake-apns", options, Arc::clone(&apns) as _),
            apns,
        }
    }
}

impl FakeApns {
    /// Starts a fake whose certificate comes from `ca`.
    pub fn start(ca: &TestCa) -> Self {
        Self::builder(ca).start()
    }

    /// The same with more choices.
    pub fn builder(ca: &TestCa) -> Builder<'_> {
        Builder {
            ca,
            client_auth: ClientAuth::Optional,
            max_concurrent_streams: 1000,
            recording: true,
            delay: None,
        }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// Answers every request from now on as the closure says. Queued answers go first.
    pub fn answer_with(&self, answer: impl Fn(&ApnsRequest) -> Answer + Send + Sync + 'static) {
        self.apns.script.set(answer);
    }

    /// Answers the next requests with these, one each, in the order of their arrival.
    pub fn queue(&self, answers: impl IntoIterator<Item = Answer>) {
        self.apns.script.queue(answers);
    }

    /// Forgets the closure and the queue: from now on every push is accepted.
    pub fn answer_normally(&self) {
        self.apns.script.clear();
    }

    /// The requests until now, in the order of their arrival.
    pub fn requests(&self) -> Vec<ApnsRequest> {
        self.apns.journal.snapshot()
    }

    /// How many requests arrived until now, also if they are not kept.
    pub fn count(&self) -> usize {
        self.apns.journal.len()
    }

    /// Blocks until `n` requests have arrived since the start, and returns all that are kept. Panics when `timeout`
    /// is over.
    #[track_caller]
    pub fn wait_for(&self, n: usize, timeout: Duration) -> Vec<ApnsRequest> {
        self.apns
            .journal
            .wait_for(n, timeout, "requests at the fake APNs")
    }

    /// Keeps from now on how long each request takes here, from the arrival of its head to its answer.
    pub fn start_timing(&self) {
        self.server.start_timing();
    }

    /// Ends the timing, and returns the path and the time of each request that was answered since its start.
    pub fn take_times(&self) -> Vec<(String, Duration)> {
        self.server.take_times()
    }

    /// How many connections finished their handshake until now. With TLS 1.3 a client is through a little earlier.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// How many connections failed in the TLS handshake.
    pub fn failed_handshakes(&self) -> usize {
        self.server.failed_handshakes()
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

struct Apns {
    journal: Journal<ApnsRequest>,
    script: Script<ApnsRequest>,
}

impl Service for Apns {
    fn answer(&self, request: Request) -> Answer {
        let id = request
            .headers
            .get("apns-id")
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned);
        let answer = if self.journal.recording() || !self.script.is_empty() {
            let request = ApnsRequest::new(request);
            // Kept before the script runs, so that a closure sees its own request in the journal.
            if self.journal.recording() {
                self.journal.push(request.clone());
            } else {
                self.journal.count_one();
            }
            self.script.next(&request).or_normal(&|| Answer::status(200))
        } else {
            self.journal.count_one();
            Answer::status(200)
        };
        match id {
            Some(id) => with_id(answer, id),
            None => answer,
        }
    }
}

/// Every answer of Apple names the push.
fn with_id(answer: Answer, id: String) -> Answer {
    match answer {
        Answer::Reply(HttpReply {
            status,
            mut headers,
            body,
            end,
        }) => {
            if !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("apns-id"))
            {
                headers.push(("apns-id".to_owned(), id));
            }
            Answer::Reply(HttpReply {
                status,
                headers,
                body,
                end,
            })
        }
        Answer::After(delay, inner) => Answer::After(delay, Box::new(with_id(*inner, id))),
        Answer::Behind(gate, inner) => Answer::Behind(gate, Box::new(with_id(*inner, id))),
        Answer::Drain(inner) => Answer::Drain(Box::new(with_id(*inner, id))),
        Answer::OneStream(inner) => Answer::OneStream(Box::new(with_id(*inner, id))),
        other @ (Answer::Normal
        | Answer::Silence
        | Answer::ResetStream(_)
        | Answer::CloseConnection
        | Answer::GoAway(_)) => other,
    }
}

impl ApnsRequest {
    fn new(request: Request) -> Self {
        let Request {
            method,
            path,
            authority: _,
            path_and_query: _,
            headers,
            body,
            connection,
            at,
            client_cert,
        } = request;
        Self {
            token: path.strip_prefix("/3/device/").unwrap_or(&path).to_owned(),
            method: method.to_string(),
            path,
            headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            body_len: body.len(),
            connection,
            at,
            client_cert,
        }
    }
}
