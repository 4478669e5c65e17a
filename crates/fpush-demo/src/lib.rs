//! Backend that needs no credentials and sends nothing: for trying fpush out, for tests, and as the one to
//! copy for a new backend.
//!
//! It answers by the token: accepted, unless the token begins with `dead` (the provider has forgotten it),
//! `busy` (the device gets too many pushes) or `slow` (the answer takes longer than anybody waits).
//!
//! To make a backend of your own, copy this crate; write one type that implements [`PushTrait`] and one that
//! implements [`BackendType`]; add a dependency and a feature in `crates/fpush/Cargo.toml` and a row to the
//! table in `crates/fpush/src/backends.rs`.

use std::borrow::Cow;

use fpush_push::{
    BackendStatus, BackendType, Built, Class, Failure, ParsedBackend, Push, PushError, PushTrait, Sending,
    Urgency, Verifying, settings::Section,
};
use tokio::time::sleep_until;

/// The type of all `demo` modules. They have no settings of their own.
#[derive(Debug, Default)]
pub struct Demo;

impl BackendType for Demo {
    fn read(&self, _module: &mut Section<'_>) -> Option<ParsedBackend> {
        Some(ParsedBackend {
            facts: vec![("pushes", "are accepted and go nowhere".to_owned())],
            build: Box::new(|| Built {
                backend: Box::new(DemoBackend),
                background: Vec::new(),
            }),
        })
    }
}

#[derive(Debug)]
struct DemoBackend;

impl PushTrait for DemoBackend {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        (1..=MAX_TOKEN)
            .contains(&token.len())
            .then_some(Cow::Borrowed(token))
    }

    fn class(&self, _urgency: Urgency) -> Class {
        Class::High
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async {
            let token = push.token.as_str();
            if token.starts_with("dead") {
                return Err(Failure::new(
                    PushError::TokenGone { since: None },
                    "gone",
                    "the token is dead",
                    "tokens that begin with \"dead\" are dead here",
                ));
            }
            if token.starts_with("busy") {
                return Err(Failure::new(
                    PushError::TokenBusy,
                    "busy",
                    "the device gets too many pushes",
                    "tokens that begin with \"busy\" are busy here",
                ));
            }
            if token.starts_with("slow") {
                sleep_until(push.deadline.into()).await;
                return Err(Failure::new(
                    PushError::Later { after: None },
                    "timeout",
                    "no answer in time",
                    "tokens that begin with \"slow\" get no answer here",
                ));
            }
            Ok(())
        })
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nobody wants to know who we are".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

/// As much as anybody's token has.
const MAX_TOKEN: usize = 4_096;
