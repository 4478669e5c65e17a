//! What a push is, the contract of a backend, and the whole policy in front of it.
//!
//! A publish becomes a [`Request`]; a [`Module`] decides what happens to it (block list, token format, rate
//! limit, line, send with deadline and retry) and answers with an [`Outcome`]. A backend implements
//! [`PushTrait`] and knows nothing of XMPP; the component knows nothing of HTTP.

mod backend;
mod backoff;
mod blocklist;
mod drain;
pub mod files;
mod fitness;
#[doc(hidden)]
pub mod hot;
mod jid;
mod limiter;
mod line;
mod liveness;
mod log;
mod memory;
mod meters;
pub mod metrics;
mod module;
mod modules;
mod order;
mod outcome;
mod queue;
mod recency;
mod recent;
mod registrable;
mod registration;
mod retry;
pub mod settings;
mod status;
mod strangers;
pub mod sync;
mod token;
mod verdict;

pub use backend::{
    BackendType, Background, Built, Class, Encrypted, Extra, Failure, Form, ParsedBackend, Push, PushError,
    PushTrait, Sending, Urgency, Verifying,
};
pub use backoff::Backoff;
pub use blocklist::{BlockRule, BlocklistSettings};
pub use drain::Drain;
pub use jid::{canonical_domain, canonical_jid};
pub use limiter::RatelimitSettings;
pub use liveness::{Liveness, Probe};
pub use log::Cut;
pub use memory::{BlockRecord, Clocks, HeldRecord};
pub use meters::Meters;
pub use module::{
    Block, Limit, Module, ModuleSettings, NotSent, Registered, Request, Ticket, TokenView, Verdict,
};
pub use modules::{Choice, Modules, Resolved};
pub use outcome::Outcome;
pub use recent::{End, Last};
pub use registrable::registrable;
pub use registration::{
    BadPayload, COMMAND_FIELDS, Command, CommandError, Completed, Devices, Ending, Executing, Found, Lookup,
    Recipient, Record, TIGASE_NODE, Unavailable, Value, Wording, is_tigase_node,
};
pub use retry::jitter;
pub use status::{
    BackendStatus, ConnectionStatus, Credential, CredentialKind, ModuleStatus, Proof, Trouble, TroubleKind,
};
pub use strangers::{client_network, masked};
pub use token::{Fingerprint, Token, TokenHasher};
pub use verdict::VerdictRecord;
