//! The endpoints of `mod_push_appserver`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::{Body, HttpBody as _},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use fpush_driver::{Admission, Drain, Modules};
use fpush_push::{
    Choice, Devices as _, Found, Outcome, Recipient, Scope, Subscription, Unavailable, Urgency, VapidKey,
    network_name,
};
use fpush_registry::{Destination, RegisterError, Registry};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Duration, Instant, timeout},
};
use tracing::warn;

use crate::{
    cors::{self, AllowedOrigins},
    form::Fields,
    hosts::HostNames,
    limits::Limits,
    origin::{Client, is_browser},
    pages::{self, Page},
    registrations::Registrations,
    settings::HttpSettings,
    shares::Shares,
    wording::{Answer, Refusal, result, text},
};

/// All endpoints, for a [`Listener`](crate::Listener). What they begin ends with the drain. To be called where registry and
/// modules run, within a Tokio runtime: what is asked of them is done there.
pub fn api(
    settings: &HttpSettings,
    limits: Limits,
    registry: Arc<Registry>,
    modules: Arc<Modules>,
    drain: Drain,
) -> Router {
    if settings.debugging {
        warn!(
            "registration.http.debugging is on: everybody who reaches the port sees all devices; switch it off when you are \
             done"
        );
    }
    let api = Api {
        registrations: Registrations::new(Arc::clone(&registry), settings),
        registry,
        modules,
        drain,
        home: Handle::current(),
        debugging: settings.debugging,
        allowed_origins: settings.allowed_origins.clone(),
        host_names: settings.security.host_names.clone(),
        require_secret: settings.require_secret,
        body_patience: limits.body,
        pushes: Shares::new(limits.pushes, limits.pushes_per_address),
        lookups: Shares::new(limits.lookups, limits.lookups_per_address),
    };
    let for_pages = Router::new()
        .route(
            "/push_appserver/v1/register",
            get(register_form).post(register).options(cors::preflight),
        )
        .route(
            "/push_appserver/v1/unregister",
            get(unregister_form).post(unregister).options(cors::preflight),
        )
        .route(
            "/push_appserver/v1/vapid/{kind}",
            get(vapid).options(cors::preflight),
        )
        .layer(from_fn_with_state(settings.allowed_origins.clone(), cors::allow));
    let selftest = match settings.selftest {
        true => Router::new().route("/push_appserver/v1/selftest", get(async || pages::selftest())),
        false => Router::new(),
    };
    Router::new()
        .merge(for_pages)
        .merge(selftest)
        .route("/push_appserver", get(async || pages::hello()))
        .route("/push_appserver/", get(async || pages::hello()))
        .route("/push_appserver/v1/health", get(async || pages::health()))
        .route("/push_appserver/v1/push", get(push_form).post(push))
        .route("/push_appserver/v1/settings", get(devices))
        .route("/push_appserver/v1/settings/", get(devices))
        .route("/push_appserver/v1/settings/{node}", get(device))
        .route("/unregister-device/{service}", post(unregister_device))
        .route("/rest/push/unregister-device/{service}", post(unregister_device))
        .with_state(Arc::new(api))
}

/// Whose pages a form may come from, where there are forms of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Welcome {
    /// Ours.
    Own,
    /// Those as well that `allowedOrigins` names.
    Allowed,
}

/// What the endpoints share.
struct Api {
    registry: Arc<Registry>,
    registrations: Registrations,
    modules: Arc<Modules>,
    drain: Drain,
    /// Where registry and modules run: their connections belong to that runtime, and outlive the listener's.
    home: Handle,
    debugging: bool,
    allowed_origins: AllowedOrigins,
    host_names: HostNames,
    require_secret: bool,
    body_patience: Duration,
    pushes: Arc<Shares>,
    lookups: Arc<Shares>,
}

impl Api {
    /// The pages that are for debugging only, and only under a host name that is not a stranger's. Apps register
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

    /// Reads the form that a request carries. It may be of pages that are welcome.
    async fn fields(&self, client: Client, request: Request, welcome: Welcome) -> Result<Fields, Refusal> {
        Fields::parse(&self.body(client, request, welcome).await?).ok_or(Refusal::BadForm)
    }

    /// Reads what a request carries.
    async fn body(&self, client: Client, request: Request, welcome: Welcome) -> Result<Vec<u8>, Refusal> {
        let (head, body) = request.into_parts();
        // Without debugging there is no form of ours that a page of somebody else could imitate.
        if self.debugging && is_browser(&head.headers) {
            let is_welcome = welcome == Welcome::Allowed && self.allowed_origins.include(&head.headers);
            if !is_welcome && client.is_cross_site(&head.uri, &head.headers) {
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

    /// Has work done where registry and modules run. It goes on if the client does not wait for it.
    async fn at_home<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let work = work(Arc::clone(self));
        {
            let _home = self.home.enter();
            self.drain.spawn(async move {
                // If the client has gone, nobody waits for it.
                let _ = done.send(work.await);
            });
        }
        result.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Sends a push as a publish would, and waits for what becomes of it.
    async fn send(&self, recipient: &Recipient, client: Client) -> Outcome {
        let Some(module) = self.modules.named(&recipient.module) else {
            return Outcome::UnknownModule;
        };
        let request = fpush_push::Request {
            token: recipient.token.as_str(),
            choice: Choice::Registered,
            urgency: Urgency::High,
            count: None,
            domain: &network_name(client.address),
            registered: Some(fpush_push::Registered {
                recipient,
                encrypted: None,
            }),
        };
        match module.admit(request, Instant::now()) {
            Admission::Answered(outcome) => outcome,
            Admission::Admitted(admitted) => admitted.deliver().await,
        }
    }
}

async fn register(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request, Welcome::Allowed).await?;
    let [kind, node] = fields.all_of(["type", "node"])?;
    let token = token(&fields)?;
    let [secret, key] = ["secret", "vapid"].map(|name| fields.optional(name).map(str::to_owned));
    let Some(share) = api.lookups.take(client.address) else {
        return Ok(Answer::busy());
    };
    api.at_home(async move |api| {
        let _share = share;
        let (registrations, secret) = (&api.registrations, secret.as_deref());
        let destination = Destination {
            token: &token,
            key: key.as_deref(),
        };
        let registered = registrations.register(&kind, &node, destination, secret, client.address);
        Answer::to_registration(registered.await)
    })
    .await
}

/// The field `token`, or the Web Push subscription that a form has in its place.
fn token(fields: &Fields) -> Result<String, Refusal> {
    if let Some(token) = fields.optional("token") {
        return Ok(token.to_owned());
    }
    if fields.optional("endpoint").is_none() {
        return Err(Refusal::BadField("token"));
    }
    let [endpoint, p256dh, auth] = fields.all_of(["endpoint", "p256dh", "auth"])?;
    let subscription = Subscription {
        endpoint: &endpoint,
        p256dh: &p256dh,
        auth: &auth,
    };
    Ok(subscription.to_token())
}

/// The key with which apps subscribe for a push type.
async fn vapid(State(api): State<Arc<Api>>, Path(kind): Path<String>) -> Response {
    let keys = api.registry.vapid_keys(&Scope::default());
    match keys.into_iter().find(|key| key.kind == kind) {
        Some(VapidKey { key, .. }) => text(StatusCode::OK, key),
        None => text(
            StatusCode::NOT_FOUND,
            "This push type has no VAPID key.\n".to_owned(),
        ),
    }
}

async fn unregister(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request, Welcome::Allowed).await?;
    let [kind, node] = fields.all_of(["type", "node"])?;
    let secret = fields.optional("secret").map(str::to_owned);
    let Some(share) = api.lookups.take(client.address) else {
        return Ok(Answer::busy());
    };
    api.at_home(async move |api| {
        let _share = share;
        let (registrations, secret) = (&api.registrations, secret.as_deref());
        let unregistered = registrations.unregister(&kind, &node, secret, client.address);
        Answer::to_registration(unregistered.await)
    })
    .await
}

/// Siskin's and Snikket's way to remove an account that is offline. There is no secret in it: who knows account, provider
/// and token is its app or its server. Whether there was such a registration is nobody's business: there is none now.
async fn unregister_device(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = api.body(client, request, Welcome::Own).await?;
    let Ok(device) = serde_json::from_slice::<Unregistering>(&body) else {
        return Ok(result(StatusCode::BAD_REQUEST, "failure"));
    };
    let Some(share) = api.lookups.take(client.address) else {
        return Ok(result(StatusCode::SERVICE_UNAVAILABLE, "failure"));
    };
    let unregistered = api.at_home(async move |api| {
        let _share = share;
        let Unregistering {
            account,
            provider,
            token,
        } = device;
        let registrations = &api.registrations;
        Ok(registrations
            .unregister_account(&account, &provider, &token, client.address)
            .await)
    });
    Ok(match unregistered.await? {
        Ok(true | false) => result(StatusCode::OK, "success"),
        Err(RegisterError::TooMany) => result(StatusCode::TOO_MANY_REQUESTS, "failure"),
        Err(RegisterError::Unavailable(Unavailable)) => result(StatusCode::SERVICE_UNAVAILABLE, "failure"),
        Err(
            RegisterError::BadField(_)
            | RegisterError::UnknownType
            | RegisterError::BadToken(_)
            | RegisterError::OtherKey
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
pub(crate) struct Unregistering {
    account: String,
    provider: String,
    #[serde(rename = "device-token")]
    token: String,
}

async fn push(
    State(api): State<Arc<Api>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Answer, Refusal> {
    let fields = api.fields(client, request, Welcome::Own).await?;
    let [node, secret] = fields.all_of(["node", "secret"])?;
    let Some(share) = api.pushes.take(client.address) else {
        return Ok(Answer::busy());
    };
    api.at_home(async move |api| {
        let _share = share;
        let outcome = match api.registrations.find(&node, &secret, client.address).await {
            Ok(Found::Device(recipient)) => api.send(&recipient, client).await,
            Ok(Found::Ended) => Outcome::NotRegistered,
            Ok(Found::WrongSecret | Found::Reserved | Found::Unsure | Found::Foreign | Found::Nothing) => {
                Outcome::UnknownDevice
            }
            Err(Unavailable) => Outcome::RegistryUnavailable,
        };
        Ok(Answer::to_push(outcome, &node))
    })
    .await
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
    let share = api.lookups.take(client.address).ok_or(Refusal::Busy)?;
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes()).ok_or(Refusal::BadForm)?;
    let page = api.at_home(async move |api| {
        let _share = share;
        Ok(api.registry.page(query.optional("after"), PAGE + 1).await?)
    });
    let mut devices = page.await?.devices;
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
    let share = api.lookups.take(client.address).ok_or(Refusal::Busy)?;
    let device = api.at_home(async move |api| {
        let _share = share;
        Ok(api.registry.show(&node).await?)
    });
    Ok(match device.await? {
        Some(device) => pages::device(&device).into_response(),
        None => (StatusCode::NOT_FOUND, pages::no_device()).into_response(),
    })
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

/// Bytes of a form.
const MAX_BODY: usize = 4_096;
/// Bytes of a form that is too large, and that is read nevertheless.
const MAX_DISCARDED: u64 = 65_536;
/// Devices on one page of the list.
const PAGE: usize = 200;
