//! Apple's two environments in one module: production is the main lane, the sandbox the second one. They share all but their
//! connections.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use fpush_push::{
    BackendStatus, Class, Example, LaneId, Push, PushTrait, Receiver, Sending, Urgency, Verifying,
};

use crate::backend::Apns;

/// A module with `environment` "both".
#[derive(Debug)]
pub(crate) struct Both {
    pub(crate) production: Apns,
    pub(crate) sandbox: Apns,
}

impl PushTrait for Both {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        self.production.canonical(token)
    }

    fn has_second(&self) -> bool {
        true
    }

    fn receiver(&self, client: &str, call: bool) -> Option<Receiver> {
        self.production.receiver(client, call)
    }

    fn class(&self, urgency: Urgency) -> Class {
        self.production.class(urgency)
    }

    fn time_to_live(&self, class: Class) -> Duration {
        self.production.time_to_live(class)
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        self.production.send(push)
    }

    fn send_in<'a>(&'a self, lane: LaneId, push: &'a Push) -> Sending<'a> {
        match lane {
            LaneId::Second => self.sandbox.send(push),
            LaneId::Main | LaneId::Vendor(_) | LaneId::Origin(_) => self.production.send(push),
        }
    }

    /// What the one does not accept the other one may: both have to.
    fn verify(&self, deadline: Instant) -> Verifying<'_> {
        Box::pin(async move {
            let production = self.production.verify(deadline).await?;
            let sandbox = self.sandbox.verify(deadline).await?;
            Ok(format!("{production}; {sandbox}").into())
        })
    }

    /// The credentials are the same for both.
    fn status(&self) -> BackendStatus {
        let (production, sandbox) = (self.production.status(), self.sandbox.status());
        BackendStatus {
            second: sandbox.connection.map(|connection| ("sandbox", connection)),
            clock_offset: production.clock_offset.or(sandbox.clock_offset),
            ..production
        }
    }

    fn examples(&self) -> Vec<Example> {
        let sandbox = self.sandbox.examples().into_iter().map(|example| Example {
            pushes: format!("{}, to a build from Xcode", example.pushes).into(),
            ..example
        });
        self.production.examples().into_iter().chain(sandbox).collect()
    }

    fn digest(&self) -> u128 {
        self.production.digest() ^ self.sandbox.digest()
    }
}
