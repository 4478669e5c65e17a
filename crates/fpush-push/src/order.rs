//! A push on its way through the policy.

use std::{fmt, sync::Arc, time::Duration};

use crate::{Choice, Fingerprint, Push, Record, limiter::Target};

/// A push, and what the policy has to remember about it until it is done.
pub(crate) struct Order {
    pub(crate) push: Push,
    /// The token's.
    pub(crate) fingerprint: Fingerprint,
    /// What the rate limit goes by.
    pub(crate) key: Fingerprint,
    /// The node of a registered device.
    pub(crate) node: Option<Arc<str>>,
    /// How certain it is that this is the token's module.
    pub(crate) choice: Choice,
    /// The sender's domain, for its place in the line.
    pub(crate) domain: Box<str>,
    /// Between two pushes to the device.
    pub(crate) spacing: Duration,
    /// Who wants to know what becomes of it.
    pub(crate) record: Option<Arc<dyn Record>>,
}

impl Order {
    /// What it is for.
    pub(crate) fn target(&self) -> Target {
        Target {
            key: self.key,
            token: self.fingerprint,
            class: self.push.class,
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("token", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Order {
    /// A push that stands for any.
    pub(crate) fn any(fingerprint: Fingerprint) -> Box<Self> {
        let push = Push {
            token: crate::Token::new("x"),
            class: crate::Class::High,
            form: crate::Form::Full,
            extra: None,
            id: uuid::Uuid::nil(),
            deadline: tokio::time::Instant::now(),
        };
        Box::new(Self {
            push,
            fingerprint,
            key: fingerprint,
            node: None,
            choice: Choice::Named,
            domain: "a.example".into(),
            spacing: Duration::ZERO,
            record: None,
        })
    }
}
