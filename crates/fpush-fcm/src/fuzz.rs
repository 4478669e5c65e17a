//! The readers of Google's answers and of the operator's file, for the fuzz targets, and for nobody else: nothing here is part of
//! the interface.

use std::time::Duration;

use fpush_push::PushError;
use http::StatusCode;

use crate::{
    credentials::ServiceAccount,
    response::{Refusal, Remedy},
    token_endpoint,
};

/// What an answer says.
pub struct Answer {
    /// The reason as metrics name it.
    pub name: &'static str,
    /// The reason as the log describes it.
    pub described: String,
    /// What the module is to do, if the backend does not do it.
    pub error: Option<PushError>,
}

/// Reads an answer that is not a success.
#[must_use]
pub fn answer(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Answer {
    let refusal = Refusal::read(status, body, retry_after);
    let entry = refusal.entry();
    Answer {
        name: entry.name,
        described: refusal.describe(),
        error: match entry.remedy {
            Remedy::Module(error) => Some(error),
            Remedy::RenewToken | Remedy::RenewTokenOnce => None,
        },
    }
}

/// Reads an answer of the token endpoint: the life of the token and the bytes of its header.
///
/// # Errors
///
/// It grants none; in words.
pub fn token(status: StatusCode, body: &[u8]) -> Result<(Duration, usize), String> {
    let granted = token_endpoint::read(status, body);
    granted
        .map(|granted| (granted.life, granted.authorization.len()))
        .map_err(|error| error.in_words())
}

/// Reads a service account's file. Returns all that is wrong with it, in words.
#[must_use]
pub fn account(file: &[u8]) -> Vec<String> {
    match ServiceAccount::read(file) {
        Ok(account) => account.signer().err().iter().map(ToString::to_string).collect(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
