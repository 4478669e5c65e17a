//! The tables from what came of a request to what it is answered.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fpush_push::{Outcome, TokenFlaw, Unavailable};
use fpush_registry::{RegisterError, Registered};

use crate::hosts;

/// The text that a request is answered; always with status 200, as the original does.
pub(crate) enum Answer {
    /// A registration, or the end of one.
    Registered(Registered),
    /// A push to this node.
    Pushed(String),
    /// What did not work.
    Error(&'static str),
}

impl Answer {
    /// The one table from what came of a registration, or of the end of one, to its answer.
    pub(crate) fn to_registration(result: Result<Registered, RegisterError>) -> Result<Self, Refusal> {
        Ok(match result {
            Ok(registered) => Self::Registered(registered),
            Err(RegisterError::BadField(field)) => return Err(Refusal::BadField(field)),
            Err(RegisterError::UnknownType) => Self::Error("Push type not known!"),
            Err(RegisterError::BadToken(flaw)) => Self::Error(match flaw {
                TokenFlaw::Form => NO_TOKEN,
                TokenFlaw::Endpoint => "Endpoint is not allowed here!",
                TokenFlaw::PublicKey => "p256dh is not a public key!",
                TokenFlaw::AuthSecret => "auth is not 16 bytes in base64url!",
            }),
            Err(RegisterError::OtherKey) => Self::Error("Subscribed with another VAPID key!"),
            Err(RegisterError::ReservedNode) => Self::Error("Node is reserved, choose another one!"),
            Err(RegisterError::Forbidden) => Self::Error(NODE_OR_SECRET),
            Err(RegisterError::NotFound) => Self::Error("Node not found!"),
            Err(RegisterError::TooMany) => Self::Error(RATELIMIT),
            Err(RegisterError::Full) => Self::Error("No room for more devices, try again later!"),
            Err(RegisterError::Unavailable(Unavailable)) => Self::Error(UNAVAILABLE),
        })
    }

    /// The one table from what became of a push to its answer.
    pub(crate) fn to_push(outcome: Outcome, node: &str) -> Self {
        match outcome {
            Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => {
                Self::Pushed(node.to_owned())
            }
            Outcome::Refused => Self::Error(RATELIMIT),
            Outcome::TokenDead => Self::Error("Token is dead, register again!"),
            Outcome::TokenBlocked => Self::Error("Token is blocked for a while!"),
            Outcome::TokenInvalid => Self::Error(NO_TOKEN),
            Outcome::ProviderUnavailable => {
                Self::Error("Push service does not take the push, try again later!")
            }
            Outcome::Overloaded => Self::Error(BUSY),
            Outcome::ShuttingDown => Self::Error("Server is about to stop, try again later!"),
            Outcome::UnknownModule => Self::Error("Internal error in push handler"),
            Outcome::NotRegistered => Self::Error(NODE_OR_SECRET),
            Outcome::UnknownDevice | Outcome::RegistryUnavailable => Self::Error(UNAVAILABLE),
        }
    }

    /// Too much is going on.
    pub(crate) fn busy() -> Self {
        Self::Error(BUSY)
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

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain;charset=utf-8")], text).into_response()
}

/// What Siskin reads.
pub(crate) fn result(status: StatusCode, result: &str) -> Response {
    let body = format!("{{\"result\":\"{result}\"}}");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

const NO_TOKEN: &str = "Token does not fit the push type!";
const RATELIMIT: &str = "Ratelimit reached!";
const NODE_OR_SECRET: &str = "Node or secret not found!";
const UNAVAILABLE: &str = "Internal server error, try again later!";
const BUSY: &str = "Too many requests, try again later!";
