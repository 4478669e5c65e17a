//! The border to registered devices: what the component and the policy ask of a registry, and what they tell it.
//!
//! Nothing here is XMPP. The component reads forms and words the answers; here they are names and values.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{LaneId, Scope, Token, TokenFlaw};

/// What the component asks of the registry.
pub trait Devices: Send + Sync + 'static {
    /// Looks up the node of a publish of this sender, a domain, that carries this secret. Never waits: what has to be
    /// asked elsewhere is a future, and nothing is asked before that is polled.
    fn find(&self, node: &str, secret: Option<&str>, sender: &str) -> Lookup;

    /// The commands with which clients register: each with its name, and a title for persons.
    fn commands(&self) -> Vec<(&'static str, &'static str)>;

    /// The public key with which apps subscribe at their push service (VAPID), for each push type that has one and whose push
    /// module may be used.
    fn vapid_keys(&self, _scope: &Scope) -> Vec<VapidKey> {
        Vec::new()
    }

    /// Features that show clients that they are welcome where these push modules may be used.
    fn features(&self, scope: &Scope) -> Vec<String>;

    /// Executes a command. Nothing is done before the future is polled.
    ///
    /// # Errors
    ///
    /// What can be told without the database: there is no such command, or the sender has sent too many.
    fn execute(&self, command: Command) -> Result<Executing, CommandError>;

    /// The devices that an account has registered, a bare JID in the spelling of [`canonical_jid`](crate::canonical_jid): the
    /// newest, a few at most. Where nobody owns devices there are none.
    fn owned(&self, _owner: &str) -> Owning {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// The devices of an account, being asked for.
pub type Owning = Pin<Box<dyn Future<Output = Result<Vec<OwnDevice>, Unavailable>> + Send>>;

/// A registered device as its owner may see it. Times are as RFC 3339 writes them.
#[derive(Debug)]
pub struct OwnDevice {
    /// What a push to it needs.
    pub recipient: Recipient,
    /// The push type, or the provider id, that it registered with.
    pub kind: String,
    /// When it registered first.
    pub registered: String,
    /// When it last registered again.
    pub renewed: Option<String>,
    /// When the provider last accepted a push to it.
    pub accepted: Option<String>,
    /// When the provider last refused one.
    pub refused: Option<String>,
}

/// The public key with which apps subscribe at their push service (VAPID, RFC 8292 section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VapidKey {
    /// The push type that they register with.
    pub kind: String,
    /// The key, in base64url.
    pub key: String,
}

/// What the registry knows of a node.
pub enum Lookup {
    /// It knows for certain.
    Settled(Found),
    /// Others have to be asked first.
    Asking(Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send>>),
}

/// What a node refers to.
#[derive(Debug)]
pub enum Found {
    /// A device, whose secret matches, or that needs none.
    Device(Recipient),
    /// A device, but the secret is missing or another one.
    WrongSecret,
    /// A device whose registration the registry has itself ended.
    Ended,
    /// Nothing that is known. Only a registry makes such nodes, so it is not a token either.
    Reserved,
    /// Nothing that is known. Where apps register with Tigase's commands, whose publishes carry no secret, it may be a node that
    /// their former push service made: what a provider says of it as a token ends no registration.
    Unsure,
    /// Nothing that is known, and it looks like the nodes of devices that were imported from another push service: without the
    /// name of a module it is not a token.
    Foreign,
    /// Nothing that is known.
    Nothing,
}

/// Begins every node of Tigase's dialect, so that none looks like a token of Apple's.
pub const TIGASE_NODE: &str = "tigase-";

/// Whether a node is one of Tigase's dialect, which nobody but a registry makes. Its publishes carry no secret, so that
/// it could be taken for a token of the default module.
#[must_use]
pub fn is_tigase_node(node: &str) -> bool {
    node.strip_prefix(TIGASE_NODE)
        .is_some_and(|rest| rest.len() == 64 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The registry's database cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database of registered devices is out of reach")]
pub struct Unavailable;

/// A registered device as a push needs it.
#[derive(Clone)]
pub struct Recipient {
    /// Its node, which is what the rate limit knows it by: one phone has as many as it has accounts and chats.
    pub node: Arc<str>,
    /// The name of its push module.
    pub module: Arc<str>,
    /// Its token.
    pub token: Token,
    /// A second token, for calls (`PushKit`).
    pub voip_token: Option<Token>,
    /// What tells the app which of its accounts is meant; it goes to the app as it is.
    pub account: Option<Arc<str>>,
    /// What tells the app which of the account's group chats is meant.
    pub channel: Option<Arc<str>>,
    /// Between two pushes to the device.
    pub spacing: Duration,
    /// Of a provider that has two lanes: the one in which a push to the device was last accepted, as far as the registry knows.
    pub home: LaneId,
    /// Where the registry wants to hear what became of a push.
    pub record: Arc<dyn Record>,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient")
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

/// Takes note of what became of a device's pushes.
pub trait Record: Send + Sync + 'static {
    /// The provider accepted a push in this lane.
    fn delivered(&self, lane: LaneId);

    /// The provider refused a push.
    fn failed(&self);

    /// The provider declared the token dead since then, in milliseconds since 1970; since the push, where it does not
    /// say. The database decides whether that ends the registration.
    fn gone(&self, since: Option<u64>) -> Ending;
}

/// Whether a registration has ended: false if the device has registered since.
pub type Ending = Pin<Box<dyn Future<Output = Result<bool, Unavailable>> + Send>>;

/// A command under way.
pub type Executing = Pin<Box<dyn Future<Output = Result<Completed, CommandError>> + Send>>;

/// A command that a client sent. It has no `Debug`: it holds addresses and tokens.
pub struct Command {
    /// Which command.
    pub name: String,
    /// Who sent it: the bare JID in the spelling of [`canonical_jid`](crate::canonical_jid), in which owners are compared.
    pub sender: String,
    /// The same as its server wrote it: by that an app knows its account.
    pub written: String,
    /// Our own address, as the sender wrote it, without a resource.
    pub service: String,
    /// The push modules that may be used where it was sent.
    pub scope: Arc<Scope>,
    /// The fields of [`COMMAND_FIELDS`] that it has, each once and not empty.
    pub fields: Vec<(&'static str, String)>,
    /// Whether it has other fields with a value, too. To remove something nevertheless may be to remove more than was
    /// meant.
    pub has_other_fields: bool,
}

/// The names of all fields that any command reads. Of others only whether there are any is told.
pub const COMMAND_FIELDS: &[&str] = &[
    "account",
    "android-id",
    "auth",
    "channel",
    "device",
    "device-id",
    "device-second-token",
    "device-token",
    "endpoint",
    "muc",
    "node",
    "p256dh",
    "provider",
    "pushModule",
    "secret",
    "token",
    "type",
    "vapid",
];

/// The answer to a command that was executed. It is not shown: it may hold a secret.
#[derive(PartialEq, Eq)]
pub struct Completed {
    /// How the client expects it worded.
    pub wording: Wording,
    /// What it says, by names.
    pub values: Vec<(&'static str, Value)>,
}

impl fmt::Debug for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completed")
            .field("wording", &self.wording)
            .finish_non_exhaustive()
    }
}

/// How an answer is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// As the standards have it.
    Standard,
    /// As `mod_push_appserver` has it, whose clients know no other.
    Original,
}

/// A value of an answer. It is not shown.
#[derive(PartialEq, Eq)]
pub enum Value {
    /// Some text.
    Text(String),
    /// An address (JID).
    Address(String),
    /// Some texts of which there may be several.
    List(Vec<String>),
}

/// Why a command was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("no such command")]
    UnknownCommand,
    /// A field is missing, or its value is impossible.
    #[error(transparent)]
    BadPayload(#[from] BadPayload),
    /// What is to be removed is not there, or is somebody else's.
    #[error("no such registration")]
    NotFound,
    /// The node is somebody else's.
    #[error("somebody else has registered this node")]
    Forbidden,
    /// The sender has as many registrations as one may have, or registers too often.
    #[error("too many registrations")]
    TooMany,
    /// There are as many devices as the settings allow, in all or of the sender's domain.
    #[error("there is no room for more devices here")]
    Full,
    /// The database is out of reach.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What is wrong with the form of a command, in words for those who write apps. They repeat nothing that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// The field is not there, or is empty.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// The field's value cannot be one.
    #[error("field {0} is too long or has control characters")]
    Impossible(&'static str),
    /// The settings have no push module for the push type, or the provider, that the form names.
    #[error("no push module is configured for this push type or provider")]
    UnknownType,
    /// The token cannot be one of the push module's provider.
    #[error(transparent)]
    BadToken(TokenFlaw),
    /// The app has subscribed with another key than the push module's: no push would ever arrive.
    #[error("the subscription was made with another VAPID key than the one of this push type")]
    OtherKey,
    /// The node is one that nobody may choose.
    #[error(
        "the node looks like a push token, or like a node that fpush makes: choose another id for the device, such as a UUID"
    )]
    ReservedNode,
    /// A command that removes something has a field that is not known, and that may say that less is meant.
    #[error("nothing was removed, because the form has a field that is not known")]
    UnknownField,
    /// A command names two group chats.
    #[error("muc and channel are not those of one group chat")]
    TwoChats,
    /// A test push names no device.
    #[error("name a device: one of your own in field device, node and secret, or pushModule and token")]
    NoDevice,
}
