//! A push on its way through the policy.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use fpush_push::{
    Choice, Class, Fingerprint, LaneId, Push, Record, TokenHasher, is_network_name, registrable,
};

use crate::{fair::Sender, known::LastAccepted, limiter::Target};

/// Where else a token may be at home than in the lane of its push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Nowhere: what its lane says counts.
    Nowhere,
    /// In the provider's other lane, which was not asked yet: no word of the first one counts before.
    Unasked,
    /// The other lane was asked first, and called the token wrong, or dead.
    Asked {
        /// What that one said.
        said: Said,
    },
}

/// What a provider says against a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is dead.
    Gone {
        /// Since then, in milliseconds since 1970, if the provider says so.
        since: Option<u64>,
    },
    /// It is wrong, or cannot be read.
    Wrong,
    /// It is one of another app.
    AnotherApps,
}

/// A push, and what must be remembered about it until it is done.
#[derive(Clone)]
pub struct PushJob {
    /// The push.
    pub push: Push,
    /// The token's fingerprint.
    pub token: Fingerprint,
    /// What the token shares a fate with.
    pub lane: LaneId,
    /// Where else that may be at home.
    pub elsewhere: Elsewhere,
    /// Behind a lane of its sender's own (Push 2.0): the provider that the backend knows by name.
    pub vendor: Option<u8>,
    /// What the rate limit goes by: a registered device, or a token that did not register.
    pub key: Fingerprint,
    /// The node of a registered device.
    pub node: Option<Arc<str>>,
    /// How certain it is that this is the token's module.
    pub choice: Choice,
    /// Who published.
    pub sender: Arc<SenderDomain>,
    /// Between two pushes to the device.
    pub spacing: Duration,
    /// When its publish arrived.
    pub arrived: Instant,
    /// Until when it may be held because the provider cannot take it; `None` if it must not be held for that.
    pub worth_until: Option<Instant>,
    /// Who wants to know what becomes of it.
    pub record: Option<Arc<dyn Record>>,
}

impl PushJob {
    /// What it is for.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            key: self.key,
            token: self.token,
            class: self.push.class,
        }
    }

    /// Whether it may be queued: late, a call is worth nothing, and no later push says what a notification of Push 2.0 says.
    pub(crate) fn can_wait(&self) -> bool {
        self.push.class != Class::Voip && self.push.notification.is_none()
    }

    /// What was said against its token so far counts for nothing any more: the lanes are asked anew.
    pub fn ask_anew(&mut self) {
        match self.elsewhere {
            Elsewhere::Nowhere | Elsewhere::Unasked => {}
            Elsewhere::Asked { .. } => self.elsewhere = Elsewhere::Unasked,
        }
    }

    /// Takes the fingerprints that this makes.
    pub(crate) fn rekey(&mut self, hasher: &TokenHasher) {
        let token = hasher.fingerprint(self.push.token.as_str());
        let is_second = self.push.extra.as_ref().is_some_and(|extra| extra.call);
        self.token = if is_second {
            token.with_class(Class::Voip)
        } else {
            token
        };
        self.key = self
            .node
            .as_deref()
            .map_or(self.token, |node| hasher.device(node));
    }

    /// Bytes of its token and of what goes with it, without what is encrypted.
    pub(crate) fn texts(&self) -> usize {
        let extra = self.push.extra.as_deref();
        let more = extra.map_or([None, None], |extra| {
            [extra.account.as_ref(), extra.channel.as_ref()]
        });
        let texts = more.into_iter().chain([self.node.as_ref()]).flatten();
        self.push.token.as_str().len() + texts.map(|text| text.len()).sum::<usize>()
    }

    /// Takes out what is encrypted in it.
    pub(crate) fn become_plain(&mut self) {
        if let Some(extra) = &mut self.push.extra {
            Arc::make_mut(extra).encrypted = None;
        }
    }

    /// Bytes of what is encrypted in it.
    pub(crate) fn encrypted(&self) -> usize {
        let extra = self.push.extra.as_ref();
        let encrypted = extra.and_then(|extra| extra.encrypted.as_ref());
        encrypted.map_or(0, |encrypted| encrypted.iv.len() + encrypted.ciphertext.len())
    }
}

impl fmt::Debug for PushJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushJob")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A domain that publishes.
#[derive(Debug, PartialEq, Eq)]
pub struct SenderDomain {
    /// Its name.
    pub name: Box<str>,
    /// The fingerprint of the name.
    pub key: Fingerprint,
    /// The fingerprint of its registrable domain. All clients of the HTTP API have one: networks are cheaper than domains.
    pub share: Fingerprint,
    /// When a push of its registrable domain was last accepted, as far as that was known when it published.
    pub last_accepted: LastAccepted,
}

/// In whose share of what can be used up a sender is.
fn share(name: &str) -> Cow<'_, str> {
    if is_network_name(name) {
        Cow::Borrowed("/")
    } else {
        registrable(name)
    }
}

impl SenderDomain {
    /// The domain of this name, of which no push was accepted.
    #[must_use]
    pub fn new(name: &str, hasher: &TokenHasher) -> Self {
        Self {
            name: name.into(),
            key: hasher.domain(name),
            share: hasher.domain(&share(name)),
            last_accepted: LastAccepted::Never,
        }
    }

    /// The domain of the same name, of which a push was last accepted then.
    #[must_use]
    pub fn accepted(&self, last_accepted: LastAccepted) -> Self {
        Self {
            name: self.name.clone(),
            last_accepted,
            ..*self
        }
    }

    /// Whether it can become a known domain. Clients of the HTTP API cannot: they may be anybody's.
    #[must_use]
    pub fn can_be_known(&self) -> bool {
        !is_network_name(&self.name)
    }

    /// Whose share it uses, and whose turn.
    #[must_use]
    pub fn sender(&self) -> Sender<Fingerprint> {
        Sender {
            share: self.share,
            name: self.key,
            standing: self.last_accepted.standing(),
        }
    }
}
