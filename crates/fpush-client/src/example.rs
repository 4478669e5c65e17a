//! Requests as a person is shown them.

use bytes::Bytes;
use fpush_push::Example;
use http::{Request, header::AUTHORIZATION};

/// A request as it would go out, with words in the place of its credentials, and of the values of these headers.
#[must_use]
pub fn example(pushes: &'static str, request: &Request<Bytes>, hidden: &[(&str, &str)]) -> Example {
    let shown = |name: &str, value: &[u8]| {
        let hidden = hidden.iter().find(|(hidden, _)| *hidden == name);
        match hidden {
            Some((_, instead)) => (*instead).to_owned(),
            None if name == AUTHORIZATION => "bearer …".to_owned(),
            None => String::from_utf8_lossy(value).into_owned(),
        }
    };
    let headers = request.headers().iter();
    Example {
        pushes: pushes.into(),
        request: format!("{} {}", request.method(), request.uri()),
        headers: headers
            .map(|(name, value)| (name.to_string(), shown(name.as_str(), value.as_bytes())))
            .collect(),
        body: serde_json::from_slice(request.body()).unwrap_or_default(),
        size: request.body().len(),
    }
}
