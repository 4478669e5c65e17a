//! What a push is, and the contract between who decides, who sends and who knows devices.
//!
//! A backend implements [`PushTrait`] and knows nothing of XMPP; the component knows nothing of HTTP; what became of a
//! publish is an [`Outcome`], which both understand. Nothing here waits or decides.

mod agreement;
mod backend;
mod backoff;
mod ended;
pub mod files;
mod jid;
mod jitter;
mod lane;
mod log;
mod meters;
pub mod metrics;
mod network;
mod notification;
mod outcome;
mod publish;
mod registrable;
mod registration;
mod scope;
pub mod settings;
mod status;
mod strangers;
mod subscription;
pub mod sync;
mod token;
mod words;

pub use agreement::{Agreed, Agreeing, Agreement, Confirming, Offer};
pub use backend::{
    BackendType, Background, Built, Class, Delivery, Encrypted, Example, Extra, Failure, Form, ParsedBackend,
    Push, PushError, PushTrait, Sending, TokenFlaw, Urgency, Verifying,
};
pub use backoff::Backoff;
pub use ended::{Ended, EndedRegistrations};
pub use jid::{canonical_domain, canonical_jid};
pub use jitter::jitter;
pub use lane::LaneId;
pub use log::{Cut, SenderNames, sender};
pub use meters::{LinkMeters, Meters};
pub use network::Network;
pub use notification::{Notification, Priority, Receiver, Signature};
pub use outcome::Outcome;
pub use publish::{Choice, Registered, Request};
pub use registrable::registrable;
pub use registration::{
    BadPayload, COMMAND_FIELDS, Command, CommandError, Completed, Devices, Ending, Executing, Found, Lookup,
    OwnDevice, Owning, Recipient, Record, TIGASE_NODE, Unavailable, Value, VapidKey, Wording, is_tigase_node,
};
pub use scope::Scope;
pub use status::{
    BackendStatus, ConnectionStatus, Credential, CredentialKind, LaneStatus, ModuleStatus, OutagePhase,
    OutageStatus, Proof, Trouble, TroubleKind,
};
pub use strangers::{client_network, client_site, is_network_name, is_plain_name, masked, network_name};
pub use subscription::{Subscription, is_same_base64};
pub use token::{Fingerprint, Token, TokenHasher};
