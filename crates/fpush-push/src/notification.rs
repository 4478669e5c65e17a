//! A notification of Push 2.0 (`urn:xmpp:push2:0`): the account's server has encrypted and signed it, and all that is left is
//! to pass it on.

use std::fmt;

/// What a server has made ready for one receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// The whole body of the request, encrypted for the receiver (RFC 8291, `aes128gcm`). `None` where there is nothing to
    /// say but that something has come.
    pub payload: Option<Box<[u8]>>,
    /// Who answers for it towards the push service, if the server says so.
    pub signature: Option<Signature>,
    /// How much it matters.
    pub priority: Priority,
    /// Whether it announces a call, which is worth nothing in a minute.
    pub call: bool,
}

/// Claims that the server has signed for the receiver's push service (RFC 8292).
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The JWT: three parts of base64url with dots between them.
    pub jwt: Box<str>,
    /// The public key, an uncompressed point of P-256.
    pub key: [u8; 65],
}

/// How much a notification matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A person should notice at once.
    High,
    /// A message, mostly.
    Normal,
    /// Nobody waits for it.
    Low,
}

/// Whom the `<client>` of a notification means, in the words of the backend that sends to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The token in its one spelling; for Web Push, the endpoint.
    pub token: String,
    /// Whether the token is one for calls (`PushKit`).
    pub call: bool,
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("priority", &self.priority)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature")
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
