//! What a module says of itself, for those who watch it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::Meters;

/// A module at one moment.
#[derive(Clone, Debug)]
pub struct ModuleStatus {
    /// Its name.
    pub name: String,
    /// Pushes at the provider, those included that wait for their next attempt.
    pub in_flight: usize,
    /// Publishes in the line before the provider.
    pub waiting: usize,
    /// Acknowledged pushes that are held.
    pub held: usize,
    /// What is held because the provider cannot take it.
    pub outage: OutageStatus,
    /// Tokens that the rate limit remembers.
    pub limited_tokens: usize,
    /// Tokens that the block list remembers.
    pub blocked_tokens: usize,
    /// Tokens that the provider called dead or wrong, and that are not believed dead.
    pub doubted_tokens: usize,
    /// What it counts. They go on counting after this moment.
    pub meters: Arc<Meters>,
    /// How long ago the provider last accepted a push.
    pub last_accepted: Option<Duration>,
    /// Whether the provider is known to accept its credentials.
    pub proof: Proof,
    /// Why it does not work as it should.
    pub trouble: Option<Trouble>,
    /// What its backend says.
    pub backend: BackendStatus,
    /// What is known of its [second](crate::LaneId::Second) lane alone, if it has two. All of the above is of both.
    pub second: Option<LaneStatus>,
    /// Where it sends to several providers: those that do not work as they should, by [their names](crate::PushTrait::vendor).
    pub vendors: Vec<(&'static str, Trouble)>,
}

/// One of the two lanes of a module at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// What it is called, as [`BackendStatus::second`] says.
    pub name: &'static str,
    /// How long ago the provider last accepted a push there.
    pub last_accepted: Option<Duration>,
    /// Why it does not work as it should.
    pub trouble: Option<Trouble>,
}

/// What is held because a provider cannot take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutageStatus {
    /// What the module does with publishes.
    pub phase: OutagePhase,
    /// For how long publishes have been held, if they are.
    pub lasts: Option<Duration>,
    /// Pushes that wait until the provider is back.
    pub held: usize,
    /// How long ago the oldest of them was published.
    pub oldest: Option<Duration>,
    /// In how long they are out, if the provider takes them; unknown while it does not.
    pub out_in: Option<Duration>,
}

/// What a module does with publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutagePhase {
    /// They go to the provider.
    #[default]
    Up,
    /// They are held.
    Down,
    /// They go to the provider, and what was held follows.
    Recovering,
}

impl OutagePhase {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Recovering => "recovering",
        }
    }
}

/// What is known of a module's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The provider has accepted them, since the settings are in force.
    Proven,
    /// The provider has not been asked yet, or could not be.
    NotTried,
    /// The provider refuses them.
    Refused,
}

impl Proof {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotTried => "not_tried",
            Self::Refused => "refused",
        }
    }
}

/// What keeps a module from working as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which kind it is.
    pub kind: TroubleKind,
    /// What it is and what to do, in words.
    pub words: String,
}

/// Kinds of trouble, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// It sends nothing, because the settings say so.
    Shadow,
    /// It cannot prove to the provider who it is.
    Authentication,
    /// The provider refuses what it sends, because of the settings.
    Settings,
    /// The provider rejects far more tokens than usual.
    WrongTokens,
    /// The provider cannot be reached or has an outage.
    Provider,
    /// The provider has rejected every token so far, and accepted no push.
    NothingAccepted,
    /// The provider wants less, and the module pauses.
    Paused,
    /// The provider could not be asked whether it accepts the credentials, and nothing else has shown it.
    Unproven,
    /// The clock of this machine is wrong, so that credentials are or will be refused.
    Clock,
    /// Credentials end soon.
    Expiring,
    /// The provider rejects many tokens, as it has for long: devices of an old population.
    StaleTokens,
}

impl TroubleKind {
    /// Whether a module in this trouble does what it is there for all the same: it delivers, or is not to.
    #[must_use]
    pub fn lets_pushes_pass(self) -> bool {
        match self {
            Self::Authentication | Self::Settings | Self::WrongTokens | Self::Provider => false,
            Self::Shadow
            | Self::NothingAccepted
            | Self::Paused
            | Self::Unproven
            | Self::Clock
            | Self::Expiring
            | Self::StaleTokens => true,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Authentication => "authentication",
            Self::Settings => "settings",
            Self::WrongTokens => "wrong_tokens",
            Self::Provider => "provider",
            Self::NothingAccepted => "nothing_accepted",
            Self::Paused => "paused",
            Self::Unproven => "unproven",
            Self::Clock => "clock",
            Self::Expiring => "expiring",
            Self::StaleTokens => "stale_tokens",
        }
    }
}

/// A backend at one moment.
#[derive(Clone, Debug, Default)]
pub struct BackendStatus {
    /// Its connection; `None` if it needs none. Of two lanes that of the main one.
    pub connection: Option<ConnectionStatus>,
    /// Of two lanes, what the [second](crate::LaneId::Second) one is called, and its connection.
    pub second: Option<(&'static str, ConnectionStatus)>,
    /// What it proves its identity with.
    pub credentials: Vec<Credential>,
    /// By how many seconds the clock of this machine is ahead of the provider's, or behind it if that is
    /// negative: only if that is more than a minute, because providers refuse what was signed at a wrong time.
    pub clock_offset: Option<i64>,
}

impl BackendStatus {
    /// The connections of all lanes together: their sums, and the slower PING.
    #[must_use]
    pub fn connections(&self) -> Option<ConnectionStatus> {
        let (Some(main), Some((_, second))) = (self.connection, self.second) else {
            return self.connection;
        };
        Some(ConnectionStatus {
            open: main.open + second.open,
            streams: main.streams + second.streams,
            connects: main.connects + second.connects,
            failed_connects: main.failed_connects + second.failed_connects,
            ping: main.ping.max(second.ping),
        })
    }

    /// What is wrong with the clock of this machine, in words with what to do.
    #[must_use]
    pub fn clock_trouble(&self) -> Option<String> {
        let offset = self.clock_offset?;
        let (seconds, way) = (
            offset.unsigned_abs(),
            if offset < 0 { "behind" } else { "ahead of" },
        );
        Some(format!(
            "the clock of this machine is {seconds} s {way} the provider's, which refuses credentials that were \
             signed at a wrong time; set the clock, and let NTP keep it right"
        ))
    }
}

/// The connection to a provider at one moment, and what there was since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Connections that are open, those included that only finish what is under way.
    pub open: usize,
    /// Requests that wait for their answer.
    pub streams: usize,
    /// Connections that came to be since the backend was built.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub failed_connects: u64,
    /// How long the answer to the last PING took.
    pub ping: Option<Duration>,
}

/// What a backend proves its identity with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What it is.
    pub kind: CredentialKind,
    /// How old it is, if it is one that is renewed all the time.
    pub age: Option<Duration>,
    /// When it ends, if it does.
    pub expires: Option<SystemTime>,
    /// Why it cannot be used, in words with what to do.
    pub trouble: Option<Cow<'static, str>>,
}

/// Kinds of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A client certificate.
    Certificate,
    /// A provider token, which we sign ourselves (a JWT).
    ProviderToken,
    /// An access token, which the provider gives (OAuth 2.0).
    AccessToken,
}

impl CredentialKind {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::ProviderToken => "provider_token",
            Self::AccessToken => "access_token",
        }
    }
}
