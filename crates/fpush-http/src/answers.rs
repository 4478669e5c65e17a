//! What all answers have in common.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tracing::debug;

/// What every request gets: a line in the log that says nothing of anybody, and headers that keep browsers from doing
/// more than showing the answer. What its router has set stays.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let method = name(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let path = path.as_ref().map_or("none of ours", MatchedPath::as_str);
    debug!(method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, STRICTEST),
        // Not `no-referrer`: browsers would hide from us, too, that a form came from our own page.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The method, as long as it is not one that a stranger made up.
fn name(method: &Method) -> &'static str {
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|name| method == name)
        .unwrap_or("another")
}

/// For answers that are not pages: browsers may do nothing with them.
const STRICTEST: &str = "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
