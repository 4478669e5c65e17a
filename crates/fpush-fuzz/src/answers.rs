//! What providers, Google's token endpoint and proxies answer.

use std::time::Duration;

use fpush_push::PushError;
use http::StatusCode;
use serde_json::Value;

use crate::{check_words, split_line};

/// The status in the first line, and the body behind it.
fn answer(input: &[u8]) -> (StatusCode, &[u8]) {
    let (line, body) = split_line(input);
    let status = StatusCode::from_bytes(line.trim_ascii()).unwrap_or(StatusCode::BAD_REQUEST);
    (status, body)
}

/// Status and body of Apple's. Nothing but Apple's own words for it makes a token dead.
pub(crate) fn apns_answer(input: &[u8]) {
    let (status, body) = answer(input);
    let answer = fpush_apns::fuzz::answer(status, body, None);
    check_reason(answer.name, &answer.described);
    check_error(answer.error.as_ref());
    if let Some(PushError::TokenGone { .. }) = answer.error {
        let body: Value =
            serde_json::from_slice(body).expect("a page of somebody else's makes no token dead");
        let reason = body["reason"].as_str();
        assert!(
            matches!(reason, Some("Unregistered" | "ExpiredToken")),
            "{reason:?}"
        );
    }
}

/// Status and body of Google's. Nothing but Google's own word for it makes a token dead.
pub(crate) fn fcm_answer(input: &[u8]) {
    let (status, body) = answer(input);
    let answer = fpush_fcm::fuzz::answer(status, body, None);
    check_reason(answer.name, &answer.described);
    check_error(answer.error.as_ref());
    if let Some(PushError::TokenGone { .. }) = answer.error {
        let body: Value =
            serde_json::from_slice(body).expect("a page of somebody else's makes no token dead");
        assert!(body.to_string().contains("\"UNREGISTERED\""), "{body}");
    }
}

/// Status and body of a browser's push service: of whichever it is taken for, only known words are repeated.
pub(crate) fn webpush_answer(input: &[u8]) {
    let (status, body) = answer(input);
    for (name, described) in fpush_webpush::fuzz::answer(status, body) {
        check_reason(name, &described);
        check_words(&described);
    }
}

/// A reason is one of few for metrics, and a short text of plain characters for the log, whatever was sent.
#[track_caller]
fn check_reason(name: &str, described: &str) {
    assert!(!name.is_empty());
    assert!(described.len() <= LONGEST_REASON, "{described}");
    assert!(
        described.bytes().all(|byte| matches!(byte, b' '..=b'~')),
        "{described:?}"
    );
}

/// Nobody makes us wait for longer than an hour.
#[track_caller]
fn check_error(error: Option<&PushError>) {
    let wait = match error {
        Some(PushError::Later { after }) => *after,
        Some(PushError::Pause { length, .. }) => Some(*length),
        _ => None,
    };
    assert!(wait.is_none_or(|wait| wait <= HOUR), "{wait:?}");
}

/// Status and body of the token endpoint. A token's life has a bound, and what is said about an answer holds nothing of it.
pub(crate) fn token_answer(input: &[u8]) {
    let (status, body) = answer(input);
    match fpush_fcm::fuzz::token(status, body) {
        Ok((life, header)) => {
            assert!((Duration::from_secs(1)..=24 * HOUR).contains(&life), "{life:?}");
            assert!(header <= body.len() + "Bearer ".len());
            assert!(status.is_success());
        }
        Err(words) => check_words(&words),
    }
}

/// What a proxy answers to CONNECT. More bytes do not change a status that is known.
pub(crate) fn proxy_answer(input: &[u8]) {
    let status = fpush_client::fuzz::proxy_status(input);
    assert!(
        status.is_none_or(|status| (100..1_000).contains(&status)),
        "{status:?}"
    );
    let mut known = None;
    for length in 0..=input.len().min(LONGEST_STATUS_LINE) {
        let status = fpush_client::fuzz::proxy_status(&input[..length]);
        assert!(known.is_none() || status == known, "{known:?} becomes {status:?}");
        known = status;
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
/// A status, some words, and a name of at most 40 letters.
const LONGEST_REASON: usize = 160;
/// The prefixes of longer ones take too long.
const LONGEST_STATUS_LINE: usize = 256;
