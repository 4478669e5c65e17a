//! Requests with deadlines to many receivers, each of which speaks HTTP/1.1 or HTTP/2 as its TLS server chooses (ALPN).

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fpush_push::{ConnectionStatus, sync::lock};
use fpush_tls::Trust;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::{Answer, BODY_PATIENCE, MAX_BODY, SendError},
    dial::Dialer,
    obstacle::Obstacle,
    origin::Origin,
    pool::{Keeping, Pool, Reach, Responding},
};

/// How a client reaches its receivers.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Whom to trust.
    pub trust: Trust,
    /// How to connect.
    pub dialer: Dialer,
    /// Whether URLs may begin with `http://`.
    pub plain_http: bool,
    /// A connection that was unused for this long is closed. Zero: none is kept.
    pub idle_timeout: Duration,
    /// At an origin that speaks HTTP/1.1, this many requests are under way at a time, each over a connection of its own;
    /// further ones wait. One of HTTP/2 has one connection for all.
    pub max_connections: NonZeroUsize,
    /// To an origin that speaks HTTP/1.1, this many connections that are not in use are kept.
    pub max_idle: NonZeroUsize,
    /// Connections are kept for this many origins; beyond that, those go that were not used for longest.
    pub max_origins: NonZeroUsize,
}

/// What a request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whether it was accepted: the body is read only if it comes at once.
    Status,
    /// What the body of a success says: it is waited for.
    Body,
}

/// A client for many receivers. It follows no redirection.
#[derive(Debug)]
pub struct PooledClient {
    reach: Reach,
    origins: Mutex<Origins>,
    plain_http: bool,
}

#[derive(Debug)]
struct Origins {
    pools: HashMap<Origin, (Arc<Pool>, LastUse)>,
    most: NonZeroUsize,
    keeping: Keeping,
    uses: u64,
}

/// Numbers the uses of all pools.
type LastUse = u64;

impl PooledClient {
    /// A client that connects when it has something to send.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        let PoolSettings {
            trust,
            dialer,
            plain_http,
            idle_timeout,
            max_connections,
            max_idle,
            max_origins,
        } = settings;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.client_config(None))
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(dialer);
        Self {
            reach: Reach {
                connector,
                max_connections,
                tally: Arc::default(),
            },
            origins: Mutex::new(Origins {
                pools: HashMap::new(),
                most: max_origins,
                keeping: Keeping {
                    idle_timeout,
                    max_idle,
                },
                uses: 0,
            }),
            plain_http,
        }
    }

    /// Sends a request and waits for the answer until the deadline. A body that is too long or breaks off counts as none, and
    /// so does one that comes too late, but for that of a success whose body is wanted.
    ///
    /// # Errors
    ///
    /// There is no answer; see [`SendError`].
    pub async fn send(
        &self,
        request: Request<Bytes>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, SendError> {
        let origin = Origin::of(request.uri()).filter(|origin| origin.is_https() || self.plain_http);
        let origin = origin.ok_or(SendError::Unreachable(Obstacle::Url))?;
        let pool = self.pool(&origin);
        let _request = self.reach.tally.requested();
        let responding = pool.exchange(&self.reach, &origin, &request, deadline).await?;
        read(responding, wanted, deadline).await
    }

    /// Its connections, and what there was since it was made.
    #[must_use]
    pub fn status(&self) -> ConnectionStatus {
        self.reach.tally.status()
    }

    fn pool(&self, origin: &Origin) -> Arc<Pool> {
        let mut origins = lock(&self.origins);
        origins.pool(origin)
    }
}

impl Origins {
    /// The pool of an origin. If that is a new one and there is no room, another origin's pool goes: its requests come to their
    /// end, its idle connections are closed.
    fn pool(&mut self, origin: &Origin) -> Arc<Pool> {
        self.uses += 1;
        if let Some((pool, last_use)) = self.pools.get_mut(origin) {
            *last_use = self.uses;
            return Arc::clone(pool);
        }
        // Connecting, which comes next, costs more than a look at all of them.
        if self.pools.len() >= self.most.get()
            && let Some((oldest, _)) = self.pools.iter().min_by_key(|(_, (_, last_use))| *last_use)
        {
            let oldest = oldest.clone();
            self.pools.remove(&oldest);
        }
        let pool = Arc::new(Pool::new(self.keeping));
        self.pools.insert(origin.clone(), (Arc::clone(&pool), self.uses));
        pool
    }
}

/// Reads an answer to its end.
async fn read(responding: Responding<'_>, wanted: Wanted, deadline: Instant) -> Result<Answer, SendError> {
    let Responding { response, busy } = responding;
    let (head, body) = response.into_parts();
    let soon = deadline.min(Instant::now() + BODY_PATIENCE);
    let is_wanted = wanted == Wanted::Body && head.status.is_success();
    let patience = if is_wanted { deadline } else { soon };
    let body = match timeout_at(patience, collect(body)).await {
        Ok(Ok(Some(body))) => {
            busy.finish();
            body
        }
        Ok(Ok(None)) => Bytes::new(),
        Ok(Err(_)) => {
            busy.leave();
            Bytes::new()
        }
        Err(_) if is_wanted => return Err(SendError::TimedOut),
        Err(_) => Bytes::new(),
    };
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// The whole body, or none if it is longer than any that says something.
async fn collect(body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut body = pin!(body);
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if collected.len() + data.len() > MAX_BODY {
            return Ok(None);
        }
        collected.extend_from_slice(&data);
    }
    Ok(Some(collected.into()))
}
