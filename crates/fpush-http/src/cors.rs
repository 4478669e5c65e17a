//! Pages of other sites that register devices: which of them browsers let read the answers (CORS, Fetch Standard section 3.2).
//!
//! Nothing is protected by that: apps, which are not browsers, register without it.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::Response,
};
use fpush_push::settings::Section;

/// `allowedOrigins`: whose pages may register devices. None, unless the settings say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Option<Allowed>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    All,
    These(Arc<[String]>),
}

impl AllowedOrigins {
    /// Reads `allowedOrigins`. Every mistake goes into the settings' report.
    pub fn read(section: &mut Section<'_>) -> Self {
        let expected = "a list of origins such as [\"https://chat.example.org\"], or [\"*\"] for all";
        let Some(origins) = section.read::<Vec<String>>("allowedOrigins", expected) else {
            return Self::default();
        };
        if origins == ["*"] {
            return Self(Some(Allowed::All));
        }
        if let Some(wrong) = origins.iter().position(|origin| !is_origin(origin)) {
            section.error(
                &format!("allowedOrigins[{wrong}]"),
                format_args!("expected {expected}, as browsers write them: in small letters, and without a slash at the end"),
            );
            return Self::default();
        }
        Self((!origins.is_empty()).then(|| Allowed::These(origins.into())))
    }

    /// Whether a request is one of a page that is allowed.
    pub(crate) fn include(&self, headers: &HeaderMap) -> bool {
        self.answer_to(headers).is_some()
    }

    /// What the browser of a page that is allowed is told.
    fn answer_to(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        match self.0.as_ref()? {
            Allowed::All => Some(HeaderValue::from_static("*")),
            Allowed::These(origins) => {
                let is_allowed = origins.iter().any(|allowed| origin == allowed.as_str());
                is_allowed.then(|| origin.clone())
            }
        }
    }
}

/// Whether this is an origin as browsers write it.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let is_default = matches!(
        (scheme, uri.port_u16()),
        ("https", Some(443)) | ("http", Some(80))
    );
    let is_http = matches!(scheme, "https" | "http");
    is_http
        && !is_default
        && text == format!("{scheme}://{authority}").to_ascii_lowercase()
        && !text.contains('@')
}

/// What browsers ask before they send what a form could not.
pub(crate) async fn preflight() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Tells browsers which pages may read the answer.
pub(crate) async fn allow(State(origins): State<AllowedOrigins>, request: Request, next: Next) -> Response {
    let answer = origins.answer_to(request.headers());
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if origins.0.is_some() {
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(answer) = answer {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, answer);
        if is_preflight {
            headers.insert(
                ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, POST"),
            );
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("content-type"),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> (AllowedOrigins, Vec<String>) {
        let report = Report::default();
        let all = json!({ "allowedOrigins": value });
        let origins = AllowedOrigins::read(&mut Section::root(all.as_object().unwrap(), &report));
        let problems = report.into_problems().iter().map(ToString::to_string).collect();
        (origins, problems)
    }

    fn answer(origins: &AllowedOrigins, origin: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_str(origin).unwrap())]);
        let answer = origins.answer_to(&headers)?;
        Some(answer.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_origins_of_the_list_are_allowed() {
        let (origins, problems) = read(&json!(["https://a.example", "http://localhost:8000"]));
        assert_eq!(problems, [""; 0]);
        for allowed in ["https://a.example", "http://localhost:8000"] {
            assert_eq!(answer(&origins, allowed).as_deref(), Some(allowed));
        }
        for other in [
            "https://b.example",
            "http://a.example",
            "https://a.example:8443",
            "null",
            "https://a.example.evil",
        ] {
            assert_eq!(answer(&origins, other), None, "{other}");
        }
        let (all, _) = read(&json!(["*"]));
        assert_eq!(answer(&all, "https://b.example").as_deref(), Some("*"));
        assert_eq!(answer(&AllowedOrigins::default(), "https://a.example"), None);
        assert!(!all.include(&HeaderMap::new()), "an app is not a page");
    }

    #[test]
    fn what_is_not_an_origin_is_a_mistake() {
        for wrong in [
            "https://a.example/",
            "https://A.example",
            "a.example",
            "https://a.example:443",
            "ftp://a.example",
            "https://u@a.example",
            "*",
            "",
        ] {
            let (origins, problems) = read(&json!(["https://b.example", wrong]));
            assert_eq!(
                (origins, problems.len()),
                (AllowedOrigins::default(), 1),
                "{wrong}"
            );
            assert!(
                problems[0].starts_with("allowedOrigins[1]: expected"),
                "{problems:?}"
            );
        }
        assert!(read(&json!("*")).1[0].starts_with("allowedOrigins: expected"));
    }
}
