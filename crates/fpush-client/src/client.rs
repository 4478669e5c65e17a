//! Requests with deadlines over one connection that is replaced when it fails.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use fpush_push::{ConnectionStatus, sync::lock};
use fpush_tls::{Identity, Trust};
use h2::{
    Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response, Uri, header::CONTENT_LENGTH};
use hyper_rustls::HttpsConnectorBuilder;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::{
    answer::{Answer, BODY_PATIENCE, MAX_BODY, SendError},
    clock::Clock,
    connection::{Connection, Unusable},
    departures::Departures,
    dial::{Connector, Dialer},
    obstacle::root_cause,
    tally::Tally,
};

/// How a client reaches its provider.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whom to trust.
    pub trust: Trust,
    /// The client certificate, if any.
    pub identity: Option<Identity>,
    /// How to connect.
    pub dialer: Dialer,
    /// A request takes this long at most.
    pub request_timeout: Duration,
    /// A connection that carried nothing for this long is closed.
    pub idle_timeout: Duration,
}

/// One provider's client.
#[derive(Debug)]
pub struct ProviderClient {
    connector: Connector,
    uri: Uri,
    request_timeout: Duration,
    idle_timeout: Duration,
    current: Mutex<Current>,
    tally: Arc<Tally>,
    clock: Clock,
}

/// What requests go over.
#[derive(Debug, Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    departures: Departures,
}

/// The connection that an answer came over, for [`ProviderClient::leave_as_told`].
#[derive(Debug)]
pub struct Via(Arc<Connection>);

impl ProviderClient {
    /// A client for the provider at this URL, of which only the authority matters. It connects with its first
    /// request.
    #[must_use]
    pub fn new(settings: ClientSettings, uri: Uri) -> Self {
        let tls = settings.trust.client_config(settings.identity.as_ref());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http2()
            .wrap_connector(settings.dialer);
        Self {
            connector,
            uri,
            request_timeout: settings.request_timeout,
            idle_timeout: settings.idle_timeout,
            current: Mutex::default(),
            tally: Arc::default(),
            clock: Clock::default(),
        }
    }

    /// Sends a request and waits for the whole answer: for the request timeout, and not beyond the deadline. It comes with
    /// the connection that it came over.
    ///
    /// # Errors
    ///
    /// There is no answer; see [`SendError`].
    pub fn send(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> impl Future<Output = Result<(Answer, Via), SendError>> {
        // By value it would take its place several times in the future, which every push has on the heap.
        self.send_boxed(Box::new(request), deadline)
    }

    async fn send_boxed(
        &self,
        request: Box<Request<Bytes>>,
        deadline: Instant,
    ) -> Result<(Answer, Via), SendError> {
        let connection = self.connection();
        let reads = connection.reads();
        let longest = Instant::now() + self.request_timeout;
        let cut_short = deadline < longest;
        let limit = deadline.min(longest);
        match timeout_at(limit, self.exchange(&connection, request)).await {
            Ok(Ok(response)) => {
                // Boxed and short-lived, so that the future of a push stays small while it waits.
                let (answer, via) = Box::pin(self.read(response, limit)).await?;
                self.clock.note(answer.status, &answer.headers, Instant::now());
                if !answer.status.is_success() {
                    self.leave_if_cut(&via.0);
                }
                Ok((answer, via))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // A request that was given less time than it may take says nothing about the connection.
                if !cut_short && connection.note_timeout(reads) {
                    self.leave(&connection);
                } else if !cut_short {
                    self.leave_if_cut(&connection);
                }
                Err(SendError::TimedOut)
            }
        }
    }

    /// Sends a request: the head of the answer.
    async fn exchange(
        &self,
        connection: &Arc<Connection>,
        request: Box<Request<Bytes>>,
    ) -> Result<Responding, SendError> {
        match connection.ready().await {
            Ok(sender) => self.exchange_over(connection, sender, request).await,
            // The provider has closed it, as it may at any time, and nothing was sent yet.
            Err(Unusable::Over) => {
                self.leave(connection);
                let next = self.connection();
                let sender = next.ready().await?;
                self.exchange_over(&next, sender, request).await
            }
            Err(unreachable @ Unusable::Unreachable(_)) => Err(unreachable.into()),
        }
    }

    async fn exchange_over(
        &self,
        connection: &Arc<Connection>,
        sender: SendRequest<Bytes>,
        request: Box<Request<Bytes>>,
    ) -> Result<Responding, SendError> {
        let _request = self.tally.requested();
        let broken = |e| self.broken(connection, &e);
        let response = begin(sender, *request).map_err(broken)?.await.map_err(broken)?;
        connection.note_answer(response.status().is_success());
        Ok(Responding {
            response,
            connection: Arc::clone(connection),
        })
    }

    /// Reads an answer to its end. A body that does not come to its end counts as none: the status alone says enough, and
    /// what was accepted must not be sent again.
    async fn read(&self, responding: Responding, limit: Instant) -> Result<(Answer, Via), SendError> {
        let Responding { response, connection } = responding;
        let (head, body) = response.into_parts();
        let body = if body.is_end_stream() {
            Bytes::new()
        } else {
            let _request = self.tally.requested();
            let patience = limit.min(Instant::now() + BODY_PATIENCE);
            match timeout_at(patience, collect(body)).await {
                Ok(Ok(body)) => body,
                Ok(Err(e)) if !head.status.is_success() => return Err(self.broken(&connection, &e)),
                Ok(Err(_)) | Err(_) => Bytes::new(),
            }
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body,
        };
        Ok((answer, Via(connection)))
    }

    /// The connection broke under a request.
    fn broken(&self, connection: &Arc<Connection>, error: &h2::Error) -> SendError {
        // A stream that was refused was not looked at (RFC 9113 section 8.7), and the others go on.
        if error.reason() != Some(Reason::REFUSED_STREAM) {
            self.leave(connection);
        }
        SendError::Broken(connection.cause_of_end().unwrap_or_else(|| root_cause(error)))
    }

    /// Leaves a connection because an answer that came over it says so: requests under way may finish on it, the next one
    /// opens a new one. Where each new connection says the same, they are left once a second. Returns whether the next
    /// request goes over another one.
    pub fn leave_as_told(&self, via: &Via) -> bool {
        let mut current = self.lock();
        let Current {
            connection,
            departures,
        } = &mut *current;
        let is_current = connection
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, &via.0));
        if is_current && departures.may_leave_as_told(Instant::now()) {
            *connection = None;
            return true;
        }
        !is_current
    }

    /// Its connection, and what there was since it was made.
    #[must_use]
    pub fn status(&self) -> ConnectionStatus {
        self.tally.status()
    }

    /// By how many seconds the clock of this machine is ahead of the provider's (behind if negative), if the
    /// provider's answers say that it is wrong by more than a minute.
    #[must_use]
    pub fn clock_offset(&self) -> Option<i64> {
        self.clock.offset()
    }

    /// The connection to send over: the current one, or a new one if that has ended.
    fn connection(&self) -> Arc<Connection> {
        let mut current = self.lock();
        match &current.connection {
            Some(connection) if connection.is_usable() => Arc::clone(connection),
            Some(_) | None => {
                let next = Connection::open(
                    self.connector.clone(),
                    self.uri.clone(),
                    self.idle_timeout,
                    Arc::clone(&self.tally),
                );
                Arc::clone(current.connection.insert(next))
            }
        }
    }

    /// Leaves this connection, unless that has happened already.
    fn leave(&self, connection: &Arc<Connection>) {
        let mut current = self.lock();
        current
            .connection
            .take_if(|current| Arc::ptr_eq(current, connection));
    }

    /// Leaves this connection if the provider has cut the number of requests at a time, as Apple does now and then after
    /// rejections, and many wait for that.
    fn leave_if_cut(&self, connection: &Arc<Connection>) {
        if !connection.is_cut(self.tally.status().streams) {
            return;
        }
        let mut current = self.lock();
        let is_current = current
            .connection
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection));
        if is_current && current.departures.may_leave_cut(Instant::now()) {
            current.connection = None;
            info!("the provider lets through fewer requests at a time than before; opening a new connection");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// An answer whose head is there.
struct Responding {
    response: Response<RecvStream>,
    connection: Arc<Connection>,
}

/// Hands a request over to its connection.
fn begin(mut sender: SendRequest<Bytes>, request: Request<Bytes>) -> Result<ResponseFuture, h2::Error> {
    let (mut head, body) = request.into_parts();
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    let (response, mut stream) = sender.send_request(Request::from_parts(head, ()), false)?;
    stream.send_data(body, true)?;
    Ok(response)
}

/// The whole body, or none if it is longer than any that says something.
async fn collect(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut collected = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if collected.len() + chunk.len() > MAX_BODY {
            return Ok(Bytes::new());
        }
        collected.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(collected.into())
}
