//! The endpoints of `mod_push_appserver`, byte for byte, and the tables from what came of a request to what it is
//! answered.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::{Body, HttpBody as _},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use fpush_push::{
    Choice, Drain, Found, Modules, Outcome, Recipient, Unavailable, Urgency, Verdict, client_network,
};
use fpush_registry::{HttpRegistration, RegisterError, Registered, Registry};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::{
    sync::oneshot,
    time::{Duration, Instant, timeout},
};
use tracing::warn;

use crate::{
    form::Fields,
    hosts::{self, HostNames},
    limits::Limits,
    origin::{Client, is_browser},
    pages::{self, Page},
    settings::HttpSettings,
    shares::{Share, Shares},
};

/// All endpoints, for a [`Listener`](crate::Listener). What they begin ends with the drain.
pub fn api(
    settings: &HttpSettings,
    limits: Limits,
    registry: Arc<Registry>,
    modules: Arc<Modules>,
    drain: Drain,
) -> Router {
    if settings.debugging {
        warn!(
            "registration.http.debugging is on: whoever reaches the port sees all devices; switch it off when you are \
             done"
        );
    }
    let api = Api {
        registry,
        modules,
        drain,
        debugging: settings.debugging,
        host_names: settings.security.host_names.clone(),
        require_secret: settings.require_secret,
        body_patience: limits.body,
        pushes: Shares::new(limits.pushes, limits.pushes_per_address),
        lookups: Shares::new(limits.lookups, limits.lookups_per_address),
    };
    Router::new()
        .route("/push_appserver", get(async || pages::hello()))
        .route("/push_appserver/", get(async || pages::hello()))
        .route("/push_appserver/v1/health", get(async || pages::health()))
        .route("/push_appserver/v1/register", get(register_form).post(register))
        .route(
            "/push_appserver/v1/unregister",
            get(unregister_form).post(unregister),
        )
        .route("/push_appserver/v1/push", get(push_form).post(push))
        .route("/push_appserver/v1/settings", get(devices))
        .route("/push_appserver/v1/settings/", get(devices))
        .route("/push_appserver/v1/settings/{node}", get(device))
        .route("/unregister-device/{service}", post(unregister_device))
        .route("/rest/push/unregister-device/{service}", post(unregister_device))
        .with_state(Arc::new(api))
}

/// What the endpoints share.
struct Api {
    registry: Arc<Registry>,
    modules: Arc<Modules>,
    drain: Drain,
    debugging: bool,
    host_names: HostNames,
    require_secret: bool,
    body_patience: Duration,
    pushes: Arc<Shares>,
    lookups: Arc<Shares>,
}

impl Api {
    /// The pages that are for debugging only, and only for who asks by a name that is no stranger's. Apps register
    /// under any name: a web server in front may have several.
    fn open(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.debugging {
            Err(Refusal::Closed)
        } else if self.host_names.admit(uri, headers) {
            Ok(())
        } else {
            Err(Refusal::StrangeHost)
        }
    }

    /// Reads the form that a request carries.
    async fn fields(&self, client: Client, request: Request) -> Result<Fields, Refusal> {
        Fields::parse(&self.body(client, request).await?).ok_or(Refusal::BadForm)
    }

    /// Reads what a request carries.
    async fn body(&self, client: Client, request: Request) -> Result<Vec<u8>, Refusal> {
        let (head, body) = request.into_parts();
        // Without debugging there is no form of ours that a page of somebody else could imitate.
        if self.debugging && is_browser(&head.headers) {
            if client.is_cross_site(&head.uri, &head.headers) {
                return Err(Refusal::CrossSite);
            }
            self.open(&head.uri, &head.headers)?;
        }
        self.drain
            .run(timeout(self.body_patience, read(body)))
            .await
            .ok_or(Refusal::Stopping)?
            .map_err(|_| Refusal::Slow)?
    }

    /// Sends a push as a publish would, and waits for what becomes of it. It goes on if the client does not.
    async fn send(&self, recipient: &Recipient, client: Client, share: Share) -> Outcome {
        let Some(module) = self.modules.named(&recipient.module) else {
            return Outcome::UnknownModule;
        };
        let request = fpush_push::Request {
            token: recipient.token.as_str(),
            choice: Choice::Registered,
            urgency: Urgency::High,
            domain: &client_network(client.address).to_string(),
            registered: Some(fpush_push::Registered {
                recipient,
                encrypted: None,
            }),
        };
        let ticket = match module.admit(request, Instant::now()) {
            Verdict::Settled(outcome) => return outcome,
            Verdict::Deliver(ticket) => ticket,
        };
        let (done, outcome) = oneshot::channel();
        let delivery = ticket.deliver();
        self.drain.spawn(async move {
            let outcome = delivery.await;
            drop(share);
            // If the client has gone, nobody waits for it.
            let _ = done.send(outcome);
        });
        outcome.await.unwrap_or(Outcome::ShuttingDown)
    }
}

async fn register(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request).await?;
    let registration = HttpRegistration {
        kind: fields.required("type")?,
        node: fields.required("node")?,
        token: fields.required("token")?,
        secret: fields.optional("secret"),
        address: client.address,
    };
    let Some(_share) = api.lookups.take(client.address) else {
        return Ok(Answer::Error(BUSY));
    };
    answer_to_registration(api.registry.register_http(registration).await)
}

async fn unregister(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request).await?;
    let (kind, node) = (fields.required("type")?, fields.required("node")?);
    let Some(_share) = api.lookups.take(client.address) else {
        return Ok(Answer::Error(BUSY));
    };
    let secret = fields.optional("secret");
    answer_to_registration(
        api.registry
            .unregister_http(kind, node, secret, client.address)
            .await,
    )
}

/// Siskin's and Snikket's way to remove an account that is offline. There is no secret in it: who knows account, provider
/// and token is its app or its server. Whether there was such a registration is nobody's business: there is none now.
async fn unregister_device(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = api.body(client, request).await?;
    let Ok(device) = serde_json::from_slice::<Unregistering>(&body) else {
        return Ok(result(StatusCode::BAD_REQUEST, "failure"));
    };
    let Some(_share) = api.lookups.take(client.address) else {
        return Ok(result(StatusCode::SERVICE_UNAVAILABLE, "failure"));
    };
    let Unregistering {
        account,
        provider,
        token,
    } = device;
    let unregistered = api
        .registry
        .unregister_account(&account, &provider, &token, client.address)
        .await;
    Ok(match unregistered {
        Ok(true | false) => result(StatusCode::OK, "success"),
        Err(RegisterError::TooMany) => result(StatusCode::TOO_MANY_REQUESTS, "failure"),
        Err(RegisterError::Unavailable(Unavailable)) => result(StatusCode::SERVICE_UNAVAILABLE, "failure"),
        Err(
            RegisterError::BadField(_)
            | RegisterError::UnknownType
            | RegisterError::BadToken
            | RegisterError::ReservedNode
            | RegisterError::Forbidden
            | RegisterError::NotFound
            | RegisterError::Full,
        ) => result(StatusCode::BAD_REQUEST, "failure"),
    })
}

/// What Siskin sends. A field that is not known may say that less is meant: nothing is removed then.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unregistering {
    account: String,
    provider: String,
    #[serde(rename = "device-token")]
    token: String,
}

/// What Siskin reads.
fn result(status: StatusCode, result: &str) -> Response {
    let body = format!("{{\"result\":\"{result}\"}}");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn push(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request).await?;
    let (node, secret) = (fields.required("node")?, fields.required("secret")?);
    let Some(share) = api.pushes.take(client.address) else {
        return Ok(Answer::Error(BUSY));
    };
    let outcome = match api.registry.verify(node, secret, client.address).await {
        Ok(Found::Device(recipient)) => api.send(&recipient, client, share).await,
        Ok(Found::Ended) => Outcome::NotRegistered,
        Ok(Found::WrongSecret | Found::Reserved | Found::Nothing) => Outcome::UnknownDevice,
        Err(Unavailable) => Outcome::RegistryUnavailable,
    };
    Ok(answer_to_push(outcome, node))
}

async fn register_form(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Result<Page, Refusal> {
    api.open(&uri, &headers)?;
    let fields = ["type", "node", "token"];
    Ok(pages::form("Register Push Node", &fields, api.require_secret))
}

async fn unregister_form(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Result<Page, Refusal> {
    api.open(&uri, &headers)?;
    Ok(pages::form(
        "Unregister Push Node",
        &["type", "node"],
        api.require_secret,
    ))
}

async fn push_form(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Result<Page, Refusal> {
    api.open(&uri, &headers)?;
    Ok(pages::form("Send Push Request", &["node", "secret"], false))
}

async fn devices(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Page, Refusal> {
    api.open(&uri, &headers)?;
    let _share = api.lookups.take(client.address).ok_or(Refusal::Busy)?;
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes()).ok_or(Refusal::BadForm)?;
    let mut devices = api.registry.page(query.optional("after"), PAGE + 1).await?;
    let more = devices.len() > PAGE;
    devices.truncate(PAGE);
    let base = if uri.path().ends_with('/') {
        ""
    } else {
        "settings/"
    };
    Ok(pages::devices(&devices, more, base))
}

async fn device(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    Path(node): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    api.open(&uri, &headers)?;
    let _share = api.lookups.take(client.address).ok_or(Refusal::Busy)?;
    Ok(match api.registry.show(&node).await? {
        Some(device) => pages::device(&device).into_response(),
        None => (StatusCode::NOT_FOUND, pages::no_device()).into_response(),
    })
}

/// The text that a request is answered; always with status 200, as the original does.
enum Answer {
    /// A registration, or the end of one.
    Registered(Registered),
    /// A push to this node.
    Pushed(String),
    /// What did not work.
    Error(&'static str),
}

/// The one table from what came of a registration, or of the end of one, to its answer.
fn answer_to_registration(result: Result<Registered, RegisterError>) -> Result<Answer, Refusal> {
    Ok(match result {
        Ok(registered) => Answer::Registered(registered),
        Err(RegisterError::BadField(field)) => return Err(Refusal::BadField(field)),
        Err(RegisterError::UnknownType) => Answer::Error("Push type not known!"),
        Err(RegisterError::BadToken) => Answer::Error("Token does not fit the push type!"),
        Err(RegisterError::ReservedNode) => Answer::Error("Node looks like a token, choose another one!"),
        Err(RegisterError::Forbidden) => Answer::Error(NODE_OR_SECRET),
        Err(RegisterError::NotFound) => Answer::Error("Node not found!"),
        Err(RegisterError::TooMany) => Answer::Error(RATELIMIT),
        Err(RegisterError::Full) => Answer::Error("No room for more devices, try again later!"),
        Err(RegisterError::Unavailable(Unavailable)) => Answer::Error(UNAVAILABLE),
    })
}

/// The one table from what became of a push to its answer.
fn answer_to_push(outcome: Outcome, node: &str) -> Answer {
    match outcome {
        Outcome::Accepted | Outcome::Queued | Outcome::Coalesced => Answer::Pushed(node.to_owned()),
        Outcome::Refused => Answer::Error(RATELIMIT),
        Outcome::TokenDead => Answer::Error("Token is dead, register again!"),
        Outcome::TokenBlocked => Answer::Error("Token is blocked for a while!"),
        Outcome::TokenInvalid => Answer::Error("Token does not fit the push type!"),
        Outcome::ProviderUnavailable => {
            Answer::Error("Push service does not take the push, try again later!")
        }
        Outcome::Overloaded => Answer::Error(BUSY),
        Outcome::ShuttingDown => Answer::Error("Server is about to stop, try again later!"),
        Outcome::UnknownModule => Answer::Error("Internal error in push handler"),
        Outcome::NotRegistered => Answer::Error(NODE_OR_SECRET),
        Outcome::UnknownDevice | Outcome::RegistryUnavailable => Answer::Error(UNAVAILABLE),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let lines = match self {
            Self::Registered(Registered { node, secret }) => format!("OK\n{node}\n{secret}"),
            Self::Pushed(node) => format!("OK\n{node}"),
            Self::Error(reason) => format!("ERROR\n{reason}"),
        };
        text(StatusCode::OK, lines)
    }
}

/// Why a request got no answer but a status.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// A field is missing or impossible.
    BadField(&'static str),
    /// The form is not UTF-8.
    BadForm,
    /// The body is larger than 4,096 bytes.
    TooLarge,
    /// The body broke off.
    Broken,
    /// The body took too long.
    Slow,
    /// A browser sent it because a page of another site told it to.
    CrossSite,
    /// This page is for debugging only.
    Closed,
    /// The request names a host that may be a stranger's.
    StrangeHost,
    /// Too much is going on.
    Busy,
    /// The database is out of reach.
    Unavailable,
    /// The daemon is about to stop.
    Stopping,
}

impl From<Unavailable> for Refusal {
    fn from(Unavailable: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Self::BadField(field) => {
                let reason = format!("The field {field} is missing or has an impossible value.\n");
                return text(StatusCode::BAD_REQUEST, reason);
            }
            Self::BadForm => (StatusCode::BAD_REQUEST, "The form is not in UTF-8.\n"),
            Self::TooLarge => (StatusCode::BAD_REQUEST, "The form is larger than 4096 bytes.\n"),
            Self::Broken => (StatusCode::BAD_REQUEST, "The form ended early.\n"),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "The form took too long.\n"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "A page of another site sent this form.\n"),
            Self::Closed => (
                StatusCode::FORBIDDEN,
                "This page is for debugging and is switched off.\n",
            ),
            Self::StrangeHost => {
                let (status, reason) = hosts::refusal("registration.http");
                return text(status, reason);
            }
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many requests.\n"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The database is out of reach.\n"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "The server is about to stop.\n"),
        };
        text(status, reason.to_owned())
    }
}

fn text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain;charset=utf-8")], text).into_response()
}

/// Reads a body. Of one that is a little too large the rest is read and thrown away, because a client that is still
/// sending does not see an answer.
async fn read(mut body: Body) -> Result<Vec<u8>, Refusal> {
    if body.size_hint().lower() > MAX_DISCARDED {
        return Err(Refusal::TooLarge);
    }
    let (mut read, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length as u64 > MAX_DISCARDED {
            return Err(Refusal::TooLarge);
        }
        if length <= MAX_BODY {
            read.extend_from_slice(data);
        }
    }
    if length > MAX_BODY {
        Err(Refusal::TooLarge)
    } else {
        Ok(read)
    }
}

const RATELIMIT: &str = "Ratelimit reached!";
const NODE_OR_SECRET: &str = "Node or secret not found!";
const UNAVAILABLE: &str = "Internal server error, try again later!";
const BUSY: &str = "Too many requests, try again later!";

/// Bytes of a form.
const MAX_BODY: usize = 4_096;
/// Bytes of a form that is too large, and that is read nevertheless.
const MAX_DISCARDED: u64 = 65_536;
/// Devices on one page of the list.
const PAGE: usize = 200;
