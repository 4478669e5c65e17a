//! `fpush check --show-payloads`: requests as they would go out.

use std::{borrow::Cow, fmt};

use fpush_push::Example;
use serde::Serialize;
use serde_json::{Map, Value};

/// One request.
#[derive(Serialize)]
pub(super) struct Payload {
    pushes: Cow<'static, str>,
    request: String,
    headers: Map<String, Value>,
    body: Value,
    /// Of the body.
    bytes: usize,
}

impl From<Example> for Payload {
    fn from(example: Example) -> Self {
        let Example {
            pushes,
            request,
            headers,
            body,
            size,
        } = example;
        Self {
            pushes,
            request,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect(),
            body,
            bytes: size,
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}, {} bytes:", self.pushes, self.bytes)?;
        writeln!(f, "    {}", self.request)?;
        for (name, value) in &self.headers {
            writeln!(f, "    {name}: {}", value.as_str().unwrap_or_default())?;
        }
        // Of JSON that was read before there always is a text.
        let body = serde_json::to_string_pretty(&self.body).map_err(|_| fmt::Error)?;
        let lines: Vec<_> = body.lines().map(|line| format!("    {line}")).collect();
        f.write_str(&lines.join("\n"))
    }
}
