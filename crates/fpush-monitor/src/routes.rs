//! The addresses.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::Instant;

use crate::monitor::Monitor;

impl Monitor {
    /// `/metrics`, `/livez`, `/readyz` and the status page. Requests are `GET` or `HEAD`, and have no body that anybody
    /// reads.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route(
                "/",
                get(|| async { answer(HTML, include_str!("page/index.html")) }),
            )
            .route(
                "/status.js",
                get(|| async { answer(JS, include_str!("page/status.js")) }),
            )
            .route("/status.css", get(|| async { answer(CSS, STYLE) }))
            .route(
                "/icon.svg",
                get(|| async { answer(SVG, include_str!("page/icon.svg")) }),
            )
            .route("/status.json", get(status))
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { answer(TEXT, "ok\n") }))
            .route("/readyz", get(ready))
            .with_state(Arc::clone(self))
    }
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> Response {
    match monitor
        .written(|monitor| Some(monitor.metrics(SystemTime::now())))
        .await
    {
        Some(text) => answer(PROMETHEUS, text),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State(monitor): State<Arc<Monitor>>) -> Response {
    let reasons = monitor.unready();
    if reasons.is_empty() {
        let remark = monitor.remark().map(|remark| format!("{remark}\n"));
        return answer(TEXT, format!("ready\n{}", remark.unwrap_or_default()));
    }
    let text = reasons.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, answer(TEXT, text)).into_response()
}

async fn status(State(monitor): State<Arc<Monitor>>) -> Response {
    let write = |monitor: &Monitor| {
        let view = monitor.view(Instant::now(), SystemTime::now())?;
        Some(view.to_string())
    };
    match monitor.written(write).await {
        Some(text) => answer(JSON, text),
        // The page shows what it had, and asks again.
        None => (StatusCode::SERVICE_UNAVAILABLE, answer(JSON, "{}")).into_response(),
    }
}

/// An answer of this type, with what keeps a browser from doing more with it than it should.
fn answer(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

const STYLE: &str = concat!(include_str!("page/plots.css"), include_str!("page/status.css"));
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const CROSS_ORIGIN_RESOURCE_POLICY: header::HeaderName =
    header::HeaderName::from_static("cross-origin-resource-policy");

/// The page loads its own files and nothing else, runs no script but its own, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
