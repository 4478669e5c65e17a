//! The contract between the policy and one push provider.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    Agreement, BackendStatus, LaneId, Notification, Receiver, Token, TokenHasher, settings::Section,
};

/// What the publish says about how much the push matters: the signs that servers put into the notification
/// (Tigase's priority tag, a body, a call, a message count of zero), already weighed against each other.
/// A backend in a fixed mode ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A person should notice: also where the signs contradict each other or are missing.
    High,
    /// Nothing that a person has to see.
    Low,
    /// A call: in twenty seconds it is worth nothing.
    Voip,
}

/// The class of a push. Each class of a token has its own rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// A visible push.
    High = 1,
    /// A silent push.
    Low = 2,
    /// A call. It is never queued: late, it is worth nothing.
    Voip = 3,
}

impl Class {
    /// The class of a push that goes out as its publish says.
    #[must_use]
    pub fn of(urgency: Urgency) -> Self {
        match urgency {
            Urgency::High => Self::High,
            Urgency::Low => Self::Low,
            Urgency::Voip => Self::Voip,
        }
    }
}

/// The setting `shadow`: whether a module's pushes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To the provider.
    Real,
    /// Nowhere: they are decided about and counted as if they did, and every publish is answered as if all were well.
    Shadow,
}

/// How much a push carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Everything that the settings add.
    Full,
    /// Only what wakes the app, after the provider found the full form too large.
    Minimal,
}

/// What a push to a registered device carries beside what the settings say.
#[derive(Clone, PartialEq, Eq)]
pub struct Extra {
    /// Tells the app which of its accounts is meant.
    pub account: Option<Arc<str>>,
    /// Tells the app which of the account's group chats is meant.
    pub channel: Option<Arc<str>>,
    /// What the account's server has for the app.
    pub encrypted: Option<Encrypted>,
    /// Whether the token is one for calls (`PushKit`).
    pub call: bool,
}

/// A payload that the account's server has encrypted for the app (`tigase:push:encrypt:0`).
#[derive(Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The initialisation vector as it came, in base64.
    pub iv: Box<str>,
    /// The ciphertext as it came, in base64.
    pub ciphertext: Box<str>,
}

impl Extra {
    /// What the app gets, by the names under which the apps of this world look for it.
    pub fn data(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self {
            account,
            channel,
            encrypted,
            call: _,
        } = self;
        [
            ("account", account.as_deref()),
            ("channel", channel.as_deref()),
            (
                "encrypted",
                encrypted.as_ref().map(|encrypted| &*encrypted.ciphertext),
            ),
            ("iv", encrypted.as_ref().map(|encrypted| &*encrypted.iv)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// The same without what is encrypted: for a provider that takes no more.
    #[must_use]
    pub fn without_encrypted(&self) -> Self {
        Self {
            encrypted: None,
            ..self.clone()
        }
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extra")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

/// One push on its way to a backend; the same value for every attempt.
#[derive(Clone, Debug)]
pub struct Push {
    /// The device, as [`PushTrait::canonical`] spells it.
    pub token: Token,
    /// As [`PushTrait::class`] gave it.
    pub class: Class,
    /// How much to send.
    pub form: Form,
    /// What only this push carries; none for devices that did not register.
    pub extra: Option<Arc<Extra>>,
    /// What it passes on in the place of all that the settings say it carries (Push 2.0).
    pub notification: Option<Arc<Notification>>,
    /// How many messages wait for the user, if the publish says so (`message-count` of XEP-0357).
    pub count: Option<u32>,
    /// Names the push towards the provider (`apns-id`), so that a repeated attempt is recognised.
    pub id: Uuid,
    /// The attempt must have ended by then.
    pub deadline: Instant,
}

/// What the caller must do after a push failed. It says nothing of what happened: that is
/// [`Failure::answer`], for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The provider declared the token dead: forget it, while the provider can be trusted. `since` is when it died,
    /// in milliseconds since 1970, where the provider says so (Apple's 410).
    TokenGone {
        /// Milliseconds since 1970.
        since: Option<u64>,
    },
    /// The provider says that the token is not one of this app's, or cannot be read. A wrong setting of ours, or a
    /// new form of tokens, looks the same: it is weighed for a day or more.
    TokenDoubted,
    /// The provider knows the token, as one of another app or project. Its publishes name a module that is not its own, or our
    /// settings name another app: no device has gone, however often it is said.
    TokenOfAnotherApp,
    /// This device gets too many pushes: silence for this token, then one push.
    TokenBusy,
    /// Nothing was sent: so many pushes are under way to the one host of the provider that this device is at. As with a device
    /// that is busy, one push waits, and nothing was said of anything.
    Crowded,
    /// The provider gets too many pushes and does not say whether for this device or from this module: silence for the token,
    /// and a pause of its lane where several devices of several domains meet it.
    TooMany {
        /// How long the module would pause.
        pause: Duration,
    },
    /// The provider cannot reach this token's platform for this app, and says nothing against other tokens: this one is
    /// left alone for a while.
    TokenUnserved,
    /// The attempt met a dead or dying connection and left a new one behind: try again at once.
    Reconnected,
    /// The credentials had run out and have been renewed: try again at once, once.
    Renewed,
    /// The push is too large: send the minimal form.
    TooLarge,
    /// The provider has an outage or is unreachable: try again, but not before `after`.
    Later {
        /// What the provider asked for, or the shortest pause that it is known to want.
        after: Option<Duration>,
    },
    /// Nothing could be sent to the one host of the provider that this device is at, or it could not take it, and that host has
    /// never accepted anything: somebody may have invented its name. Try again as after [`Later`](Self::Later); nothing was said
    /// of the provider.
    HostAway {
        /// As there.
        after: Option<Duration>,
    },
    /// The provider refuses everything that this module sends: send nothing for this long.
    Pause {
        /// How long.
        length: Duration,
        /// Whether the operator has to act, or only time has to pass.
        alarm: bool,
    },
    /// The provider refuses this request because of our settings or a mistake of ours; the token is innocent.
    Misconfigured,
    /// The provider gave a reason that is known to nobody.
    Unexplained,
}

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    /// What to do.
    pub error: PushError,
    /// The provider's reason by its own name, or what went wrong in a word such as `timeout`: one of few, for
    /// metrics. What is not known is `unknown`.
    pub reason: &'static str,
    /// What the provider said or what went wrong, for the log: never a token, a secret or an address.
    pub answer: Cow<'static, str>,
    /// What that means and what the operator can do, for a person.
    pub meaning: &'static str,
}

impl Failure {
    /// A failure: what to do, the reason for metrics, the answer for the log, and what it means.
    pub fn new(
        error: PushError,
        reason: &'static str,
        answer: impl Into<Cow<'static, str>>,
        meaning: &'static str,
    ) -> Self {
        Self {
            error,
            reason,
            answer: answer.into(),
            meaning,
        }
    }
}

/// What is wrong with a text that is not a token of a provider, in words for those who write apps. They repeat nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// It has not the form of one.
    #[error("the token cannot be one for this push type or provider")]
    Form,
    /// The endpoint of a Web Push subscription is not an https URL, or one to which nothing is sent from here.
    #[error(
        "nothing may be sent to this endpoint from here: its push service or its port is not allowed, or it is not an https URL"
    )]
    Endpoint,
    /// The public key of a Web Push subscription (RFC 8291 section 2.1).
    #[error("p256dh is not an uncompressed point of the curve P-256 in base64url")]
    PublicKey,
    /// The authentication secret of a Web Push subscription (RFC 8291 section 3.2).
    #[error("auth is not 16 bytes in base64url")]
    AuthSecret,
}

/// A request as it would go out, for a person: without any secret, and with words in the place of what differs from push
/// to push.
#[derive(Debug)]
pub struct Example {
    /// Which pushes look like that.
    pub pushes: Cow<'static, str>,
    /// Method and URL.
    pub request: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What it carries.
    pub body: serde_json::Value,
    /// Of the body, in bytes.
    pub size: usize,
}

/// An attempt under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// A proof of identity under way: what the provider said to it, for a person.
pub type Verifying<'a> = Pin<Box<dyn Future<Output = Result<Cow<'static, str>, Failure>> + Send + 'a>>;

/// Something that a backend does by itself as long as the daemon runs, such as renewing its credentials.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One push provider.
///
/// A backend turns one push into one request and the answer into a [`PushError`]. It keeps no queue, limits
/// no rate, blocks no token and repeats nothing: all that is the module's, so that it is the same for every
/// provider. It writes no log line per push.
pub trait PushTrait: Send + Sync + 'static {
    /// The one spelling under which the provider's token is known: everything that is remembered of a token, and every
    /// request, goes by it. `None` for what cannot be a token of the provider: it never reaches a URL. That is an
    /// opinion of ours, which providers have outdated before, so it is generous, and costs no device its registration.
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>>;

    /// What is wrong with a text that [`canonical`](Self::canonical) does not take.
    fn flaw(&self, _token: &str) -> TokenFlaw {
        TokenFlaw::Form
    }

    /// What a token in its one spelling shares a fate with. Most providers are one lane.
    fn lane(&self, _token: &str, _hasher: &TokenHasher) -> LaneId {
        LaneId::Main
    }

    /// Whose a lane is, by a name for people, where a module sends to several providers: one of few.
    fn vendor(&self, _lane: LaneId) -> Option<&'static str> {
        None
    }

    /// Whether a token may be at home in the [second](LaneId::Second) lane as well as in the main one. Then who pushes says in
    /// which of them it is tried, whatever [`lane`](Self::lane) says.
    fn has_second(&self) -> bool {
        false
    }

    /// The class that a push of this urgency has here.
    fn class(&self, urgency: Urgency) -> Class;

    /// Whether anything is sent for what matters so much; what is not counts as done.
    fn wants(&self, _urgency: Urgency) -> bool {
        true
    }

    /// How long the provider keeps a push of this class for a device that is away: so long it is worth something.
    fn time_to_live(&self, _class: Class) -> Duration {
        Duration::MAX
    }

    /// In how long the rate of held pushes doubles after an outage, from one a second on.
    fn ramp(&self) -> Duration {
        RAMP
    }

    /// Whom the `<client>` of a notification of Push 2.0 means here, or, if it announces a call, whom it means for that;
    /// `None` for what nothing may be sent to from here. Most providers have no such thing.
    fn receiver(&self, _client: &str, _call: bool) -> Option<Receiver> {
        None
    }

    /// Makes one attempt. It ends at [`Push::deadline`] at the latest, and may be dropped at any time.
    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a>;

    /// The same in one of two lanes, where there are [two](Self::has_second).
    fn send_in<'a>(&'a self, _lane: LaneId, push: &'a Push) -> Sending<'a> {
        self.send(push)
    }

    /// Proves to the provider who we are, without a push to anybody. It ends at the deadline at the latest.
    fn verify(&self, deadline: Instant) -> Verifying<'_>;

    /// Whether [`verify`](Self::verify) proves anything. Otherwise only a push does that is accepted.
    fn can_verify(&self) -> bool {
        true
    }

    /// What there is to say about connection and credentials.
    fn status(&self) -> BackendStatus;

    /// What its requests look like, one for each kind of push that it sends. A backend without requests has none.
    fn examples(&self) -> Vec<Example> {
        Vec::new()
    }

    /// The public key with which apps have to subscribe at their push service so that this module may send to them (VAPID,
    /// RFC 8292 section 3.2), in base64url. Most providers have no such thing.
    fn vapid_key(&self) -> Option<&str> {
        None
    }

    /// A digest of all that the provider's words about tokens depend on: endpoint, environment, topic, project and
    /// credential. What it said under another one is not believed. It is the same after a restart; see
    /// [`digest`](crate::settings::digest()). A backend without such settings needs none.
    fn digest(&self) -> u128 {
        0
    }
}

/// It is at a thousand a second after half a minute.
const RAMP: Duration = Duration::from_secs(3);

/// One kind of backend.
pub trait BackendType: Send + Sync {
    /// Reads what a module says of its backend. Every mistake goes into the settings' report, where it keeps the daemon
    /// from starting; `None` if there can be no backend at all.
    fn read(&self, module: &mut Section<'_>) -> Option<ParsedBackend>;

    /// Whether its modules can be whom notifications of Push 2.0 go out through, see [`PushTrait::receiver`].
    fn takes_notifications(&self) -> bool {
        false
    }

    /// From now on other instances have to use what this one uses, as far as they agree on that, or there are none. A backend
    /// with nothing of that kind does nothing.
    fn agree_by(&self, _agreement: Option<Arc<dyn Agreement>>) {}
}

/// What a module says of its backend: everything that may fail has been done. Two are the same if the module's text and
/// the content of its files are.
pub struct ParsedBackend {
    /// For `fpush check`: what it is and what it would do, as pairs such as `("topic", "org.example.app")`.
    pub facts: Vec<(&'static str, String)>,
    /// Builds it. Nothing is connected and no task is started.
    pub build: Box<dyn FnOnce() -> Built + Send>,
}

/// A backend that was built.
pub struct Built {
    /// The backend.
    pub backend: Box<dyn PushTrait>,
    /// To be spawned when the module goes on with it.
    pub background: Vec<Background>,
}
