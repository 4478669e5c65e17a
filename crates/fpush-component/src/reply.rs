//! What every outcome is answered with: the one table.
//!
//! Servers forget a device on certain errors. ejabberd does so on every error that is not of type `wait`,
//! Tigase on every condition but `remote-server-timeout`, `service-unavailable`, `internal-server-error` and
//! `bad-request`. So for a device that may be alive only these conditions are used, with type `wait`.

use std::{borrow::Cow, fmt};

use fpush_push::{CommandError, Cut, Outcome, metrics::LabelledCounters};
use quick_xml::escape::escape;
use xmpp_parsers::minidom::Element;

use crate::{addresses::Addresses, push2::Fault};

/// What we say to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// To a publish, by what became of it, and the push module that it is about.
    Published(Outcome, Named<'a>),
    /// To a publish that names no node.
    NoNode,
    /// To a stanza that was too large to be read, or that is not the XML that we know.
    Unreadable,
    /// To an iq with no child or several.
    Malformed,
    /// To what we do not do.
    Unsupported,
    /// To a command where the settings let nobody register.
    NoRegistration,
    /// To a use of pubsub that we do not support.
    UnsupportedPubsub,
    /// To a question about a node that we do not have.
    UnknownNode,
    /// To a question with an empty answer.
    Nothing,
    /// To a question, or to a command that was executed, as XML.
    Xml(Xml),
    /// To a command that was not executed.
    CommandFailed(CommandError),
    /// To a command with characters that XML does not have, so that an answer could not hold them.
    BadCharacters,
    /// To a command with an action that it does not have.
    BadAction,
    /// To a notification of Push 2.0, by what became of it. Where that is nothing bad there is nothing to say.
    Notified(Outcome),
    /// To one that nobody could pass on.
    BadNotification(Fault),
    /// To a command with an action that nobody knows.
    MalformedAction,
    /// To a command of a session that was never there, or is another one's.
    BadSession,
    /// To a command of a session whose time is over.
    SessionExpired,
    /// To a command of a user, or of a domain, that sends too many.
    TooOften,
    /// To a presence subscription: nobody sees our presence (RFC 6121 section 3.1.6).
    Unsubscribed,
}

/// XML for a reply. It is not shown: the answer to a registration holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Xml(String);

impl Xml {
    pub(crate) fn of(payload: impl Into<Element>) -> Self {
        Self(String::from(&payload.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Xml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xml")
    }
}

/// The push module that a publish is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    /// One of the settings, with this name.
    Known(&'a str),
    /// One that the publish named, and nobody knows.
    Unknown,
    /// The publish named none.
    Missing,
    /// That of a registered device.
    OfDevice,
}

/// An enum of words, with all of them in their order: what counts by them has a place for each.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($word:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name {
            $($word,)*
        }

        impl $name {
            const ALL: &[Self] = &[$(Self::$word,)*];

            fn text(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                }
            }
        }
    };
}

words! {
    /// An error type of RFC 6120 section 8.3.2.
    ErrorType {
        Auth = "auth",
        Cancel = "cancel",
        Modify = "modify",
        Wait = "wait",
    }
}

words! {
    /// A defined condition of RFC 6120 section 8.3.3.
    Condition {
        BadRequest = "bad-request",
        FeatureNotImplemented = "feature-not-implemented",
        Forbidden = "forbidden",
        InternalServerError = "internal-server-error",
        ItemNotFound = "item-not-found",
        NotAcceptable = "not-acceptable",
        NotAllowed = "not-allowed",
        PolicyViolation = "policy-violation",
        RemoteServerTimeout = "remote-server-timeout",
        ResourceConstraint = "resource-constraint",
        ServiceUnavailable = "service-unavailable",
    }
}

/// What XEP-0050 section 4.5 adds to a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandCondition {
    BadAction,
    BadPayload,
    BadSession,
    MalformedAction,
    SessionExpired,
}

/// What is written for a reply.
#[derive(Debug, PartialEq, Eq)]
enum Shape<'a> {
    Result(&'a str),
    Error(ErrorType, Condition),
    CommandError(ErrorType, Condition, CommandCondition),
    /// In a message.
    MessageError(ErrorType, Condition),
    Unsubscribed,
    /// Nothing at all.
    Silence,
}

impl Reply<'_> {
    /// The table.
    fn shape(&self) -> Shape<'_> {
        use Condition::{
            BadRequest, FeatureNotImplemented, Forbidden, InternalServerError, ItemNotFound, NotAcceptable,
            NotAllowed, PolicyViolation, RemoteServerTimeout, ResourceConstraint, ServiceUnavailable,
        };
        use ErrorType::{Auth, Cancel, Modify, Wait};
        match self {
            Self::Published(outcome, _) => match outcome {
                Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => {
                    Shape::Result("")
                }
                Outcome::Refused => Shape::Error(Wait, ServiceUnavailable),
                Outcome::TokenDead | Outcome::NotRegistered => Shape::Error(Cancel, ItemNotFound),
                Outcome::TokenBlocked | Outcome::ProviderUnavailable => {
                    Shape::Error(Wait, RemoteServerTimeout)
                }
                Outcome::TokenInvalid
                | Outcome::Overloaded
                | Outcome::ShuttingDown
                | Outcome::UnknownModule
                | Outcome::UnknownDevice
                | Outcome::RegistryUnavailable => Shape::Error(Wait, InternalServerError),
            },
            // It may be a publish for a living device.
            Self::Unreadable | Self::NoNode => Shape::Error(Wait, BadRequest),
            Self::Malformed => Shape::Error(Modify, BadRequest),
            Self::Unsupported | Self::NoRegistration => Shape::Error(Cancel, ServiceUnavailable),
            Self::UnsupportedPubsub => Shape::Error(Cancel, FeatureNotImplemented),
            Self::UnknownNode => Shape::Error(Cancel, ItemNotFound),
            Self::Nothing => Shape::Result(""),
            Self::Xml(xml) => Shape::Result(xml.as_str()),
            Self::CommandFailed(error) => match error {
                CommandError::UnknownCommand | CommandError::NotFound => Shape::Error(Cancel, ItemNotFound),
                CommandError::BadPayload(_) => {
                    Shape::CommandError(Modify, BadRequest, CommandCondition::BadPayload)
                }
                CommandError::Forbidden => Shape::Error(Auth, Forbidden),
                CommandError::TooMany | CommandError::Full => Shape::Error(Wait, ResourceConstraint),
                CommandError::Unavailable(_) => Shape::Error(Wait, InternalServerError),
            },
            Self::BadCharacters => Shape::CommandError(Modify, BadRequest, CommandCondition::BadPayload),
            Self::BadAction => Shape::CommandError(Modify, BadRequest, CommandCondition::BadAction),
            // No server may give up a device because of what we think of it, or of what the settings allow: only its provider
            // says that it is gone.
            Self::Notified(outcome) => match outcome {
                Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => {
                    Shape::Silence
                }
                Outcome::TokenDead | Outcome::NotRegistered => Shape::MessageError(Cancel, ItemNotFound),
                Outcome::TokenInvalid | Outcome::UnknownModule | Outcome::UnknownDevice => {
                    Shape::MessageError(Wait, PolicyViolation)
                }
                Outcome::Refused | Outcome::Overloaded => Shape::MessageError(Wait, ResourceConstraint),
                Outcome::TokenBlocked
                | Outcome::ProviderUnavailable
                | Outcome::ShuttingDown
                | Outcome::RegistryUnavailable => Shape::MessageError(Wait, RemoteServerTimeout),
            },
            Self::BadNotification(fault) => match fault {
                Fault::NoClient | Fault::Payload | Fault::Jwt | Fault::Key => {
                    Shape::MessageError(Modify, BadRequest)
                }
                Fault::LongClient | Fault::LargePayload => Shape::MessageError(Modify, NotAcceptable),
            },
            Self::MalformedAction => {
                Shape::CommandError(Modify, BadRequest, CommandCondition::MalformedAction)
            }
            Self::BadSession => Shape::CommandError(Modify, BadRequest, CommandCondition::BadSession),
            Self::SessionExpired => Shape::CommandError(Cancel, NotAllowed, CommandCondition::SessionExpired),
            Self::TooOften => Shape::Error(Wait, ResourceConstraint),
            Self::Unsubscribed => Shape::Unsubscribed,
        }
    }

    /// What an error says to a reader who looks for its cause: which field or which push module. It repeats nothing that was
    /// sent; the names of push modules are those of the settings.
    fn text(&self) -> Cow<'static, str> {
        let text = match self {
            Self::Published(outcome, named) => return published_text(*outcome, *named),
            Self::NoNode => "attribute node of the publish is missing",
            Self::Unreadable => "this stanza is too large, or is not XML that can be read",
            Self::Malformed => "an iq has exactly one child",
            Self::Unsupported => "this request is not supported here",
            Self::NoRegistration => "no device can register here: registration is not configured",
            Self::UnsupportedPubsub => "of pubsub only publish is supported here",
            Self::UnknownNode => "there is no such node here",
            Self::CommandFailed(error) => return error.to_string().into(),
            Self::BadCharacters => "a value has characters that XML does not allow",
            Self::BadAction => "this command has no way back: its action is execute, complete or cancel",
            Self::MalformedAction => "there is no such action: it is execute, complete or cancel",
            Self::BadSession => "there is no such session of yours: execute the command again",
            Self::SessionExpired => "this session has expired: execute the command again",
            Self::TooOften => {
                "too many of these commands came from you or from your server: wait for a minute"
            }
            Self::Notified(outcome) => notified_text(*outcome),
            Self::BadNotification(fault) => match fault {
                Fault::NoClient => "element client is missing",
                Fault::LongClient => "element client has more than 1000 bytes",
                Fault::Payload => "element payload is not base64",
                Fault::LargePayload => "element payload has more than 4096 bytes",
                Fault::Jwt => "element jwt is not a signed JWT of at most 2048 bytes",
                Fault::Key => "attribute key of element jwt is not an uncompressed point of P-256 in base64",
            },
            Self::Nothing | Self::Xml(_) | Self::Unsubscribed => "",
        };
        text.into()
    }

    /// Appends the reply as XML, and counts it.
    pub(crate) fn write(&self, addresses: &Addresses, counters: &LabelledCounters<2>, out: &mut Vec<u8>) {
        let shape = match self.shape() {
            // Without an id nobody knows which message it is about.
            Shape::MessageError(..) if !addresses.has_id => Shape::Silence,
            shape => shape,
        };
        if let Some(place) = shape.place() {
            counters.increment(place);
        }
        let mut append = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        let attributes = &addresses.attributes;
        let (stanza, kind, condition, more): (&[u8], _, _, _) = match shape {
            Shape::Result("") => return append(&[b"<iq type='result'", attributes, b"/>"]),
            Shape::Result(xml) => {
                return append(&[b"<iq type='result'", attributes, b">", xml.as_bytes(), b"</iq>"]);
            }
            Shape::Unsubscribed => {
                return append(&[b"<presence type='unsubscribed'", attributes, b"/>"]);
            }
            Shape::Silence => return,
            Shape::Error(kind, condition) => (b"iq", kind, condition, None),
            Shape::CommandError(kind, condition, more) => (b"iq", kind, condition, Some(more)),
            Shape::MessageError(kind, condition) => (b"message", kind, condition, None),
        };
        append(&[
            b"<",
            stanza,
            b" type='error'",
            attributes,
            b"><error type='",
            kind.text().as_bytes(),
            b"'><",
            condition.text().as_bytes(),
            b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>",
            b"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>",
            escape(self.text()).as_bytes(),
            b"</text>",
        ]);
        if let Some(more) = more {
            append(&[
                b"<",
                more.name(),
                b" xmlns='http://jabber.org/protocol/commands'/>",
            ]);
        }
        append(&[b"</error></", stanza, b">"]);
    }
}

fn published_text(outcome: Outcome, named: Named<'_>) -> Cow<'static, str> {
    let text = match outcome {
        Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => "",
        Outcome::Refused => "a push for this device is queued already, or a call came too soon after another",
        Outcome::TokenDead => "the push provider says that the app is not on this device any more",
        Outcome::TokenBlocked => {
            "nothing is sent to this device for a while, because the push provider does not take its token"
        }
        Outcome::TokenInvalid => {
            "the token cannot be one for this push module: does the app name the right one in field pushModule?"
        }
        Outcome::ProviderUnavailable => "the push provider does not take the push now",
        Outcome::Overloaded => "too many pushes are under way",
        Outcome::ShuttingDown => "this service is about to stop",
        Outcome::UnknownModule => match named {
            Named::Unknown => "no push module of this name is configured: look at field pushModule",
            Named::Missing => "field pushModule is missing, and there is no default push module",
            Named::OfDevice | Named::Known(_) => "the push module of this device is not configured any more",
        },
        Outcome::NotRegistered => "the registration of this device has ended",
        Outcome::UnknownDevice => "no device with this node and this secret is known",
        Outcome::RegistryUnavailable => "the database of registered devices is out of reach",
    };
    match named {
        Named::Known(name) => format!("{text} (push module {})", Cut(name)).into(),
        Named::Unknown | Named::Missing | Named::OfDevice => text.into(),
    }
}

fn notified_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted | Outcome::Queued | Outcome::Coalesced | Outcome::Unwanted => "",
        Outcome::TokenDead | Outcome::NotRegistered => {
            "the push service says that the app is not on this device any more"
        }
        Outcome::TokenInvalid | Outcome::UnknownModule | Outcome::UnknownDevice => {
            "nothing may be sent to this client from here"
        }
        Outcome::Refused => "too many notifications from this domain, or for this device",
        Outcome::Overloaded => "too many notifications are under way",
        Outcome::TokenBlocked => {
            "nothing is sent to this client for a while, because the push service does not take it"
        }
        Outcome::ProviderUnavailable | Outcome::RegistryUnavailable => {
            "the push service does not take the notification now"
        }
        Outcome::ShuttingDown => "this service is about to stop",
    }
}

/// Counters of replies by type and condition; the last one counts results.
pub(crate) fn counters() -> LabelledCounters<2> {
    let errors = ErrorType::ALL.iter().flat_map(|kind| {
        Condition::ALL
            .iter()
            .map(|condition| [kind.text(), condition.text()])
    });
    LabelledCounters::new(errors.chain([["result", ""]]))
}

impl Shape<'_> {
    /// The place of its counter.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Result(_) => Some(RESULTS),
            Self::Error(kind, condition)
            | Self::CommandError(kind, condition, _)
            | Self::MessageError(kind, condition) => Some(place(*kind, *condition)),
            Self::Unsubscribed | Self::Silence => None,
        }
    }
}

const RESULTS: usize = ErrorType::ALL.len() * Condition::ALL.len();

fn place(kind: ErrorType, condition: Condition) -> usize {
    kind as usize * Condition::ALL.len() + condition as usize
}

impl CommandCondition {
    fn name(self) -> &'static [u8] {
        match self {
            Self::BadAction => b"bad-action",
            Self::BadPayload => b"bad-payload",
            Self::BadSession => b"bad-sessionid",
            Self::MalformedAction => b"malformed-action",
            Self::SessionExpired => b"session-expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use fpush_push::{BadPayload, Unavailable};

    use super::*;

    /// The reply to a stanza with these addresses: from, to and id.
    fn write(reply: &Reply<'_>, [from, to, id]: [&str; 3]) -> String {
        let mut out = Vec::new();
        let addresses = Addresses::of_reply(from, to, Some(id)).unwrap();
        reply.write(&addresses, &counters(), &mut out);
        String::from_utf8(out).unwrap()
    }

    const IQ: [&str; 3] = ["a.example/r", "push.example", "x=/+"];

    #[test]
    fn addresses_are_swapped_and_otherwise_untouched() {
        assert_eq!(
            write(&Reply::Published(Outcome::Accepted, Named::Known("m")), IQ),
            "<iq type='result' from='push.example' to='a.example/r' id='x=/+'/>"
        );
        assert_eq!(
            write(&Reply::Nothing, ["&quot;a&amp;b", "P@Push.Example/R", "it's"]),
            "<iq type='result' from='P@Push.Example/R' to='&quot;a&amp;b' id=\"it's\"/>"
        );
    }

    #[test]
    fn nobody_sees_our_presence() {
        assert_eq!(
            write(&Reply::Unsubscribed, IQ),
            "<presence type='unsubscribed' from='push.example' to='a.example/r' id='x=/+'/>"
        );
    }

    #[test]
    fn errors_have_the_condition_first_and_a_text_second() {
        assert_eq!(
            write(&Reply::Published(Outcome::TokenDead, Named::Known("a<b&c")), IQ),
            "<iq type='error' from='push.example' to='a.example/r' id='x=/+'><error type='cancel'><item-not-found \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' \
             xml:lang='en'>the push provider says that the app is not on this device any more (push module \
             a&lt;b&amp;c)</text></error></iq>"
        );
    }

    #[test]
    fn what_is_wrong_with_a_command_comes_last() {
        let bad = CommandError::BadPayload(BadPayload::Missing("token"));
        assert_eq!(
            write(&Reply::CommandFailed(bad), IQ),
            "<iq type='error' from='push.example' to='a.example/r' id='x=/+'><error type='modify'><bad-request \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' \
             xml:lang='en'>field token is missing</text><bad-payload \
             xmlns='http://jabber.org/protocol/commands'/></error></iq>"
        );
    }

    #[test]
    fn every_error_has_a_text_and_no_result_has_one() {
        let names = [Named::Known("m"), Named::Unknown, Named::Missing, Named::OfDevice];
        let published = Outcome::ALL
            .into_iter()
            .map(|outcome| Reply::Published(outcome, names[1]));
        let unknown = names.map(|named| Reply::Published(Outcome::UnknownModule, named));
        let others = [
            Reply::NoNode,
            Reply::Unreadable,
            Reply::Malformed,
            Reply::Unsupported,
            Reply::NoRegistration,
            Reply::UnsupportedPubsub,
            Reply::UnknownNode,
            Reply::Nothing,
            Reply::BadCharacters,
            Reply::BadAction,
            Reply::Unsubscribed,
        ];
        let failed = [
            CommandError::UnknownCommand,
            BadPayload::Impossible("node").into(),
            CommandError::NotFound,
            CommandError::Forbidden,
            CommandError::TooMany,
            CommandError::Full,
            CommandError::Unavailable(Unavailable),
        ];
        let all = published
            .chain(unknown)
            .chain(others)
            .chain(failed.map(Reply::CommandFailed));
        for reply in all {
            let is_error = matches!(reply.shape(), Shape::Error(..) | Shape::CommandError(..));
            assert_eq!(is_error, !reply.text().is_empty(), "{reply:?}");
        }
    }

    #[test]
    fn every_reply_is_counted_by_its_type_and_condition() {
        let counters = counters();
        let addresses = Addresses::of_reply("a.example", "push.example", None).unwrap();
        let write = |reply: Reply<'_>| reply.write(&addresses, &counters, &mut Vec::new());
        write(Reply::Nothing);
        write(Reply::Published(Outcome::TokenDead, Named::Missing));
        write(Reply::BadAction);
        let counted = counters.get().filter(|(_, count)| *count > 0);
        assert!(counted.eq([
            (["cancel", "item-not-found"], 1),
            (["modify", "bad-request"], 1),
            (["result", ""], 1),
        ]));
        let pairs = ErrorType::ALL
            .iter()
            .flat_map(|kind| Condition::ALL.iter().map(|condition| (*kind, *condition)));
        for (place, (kind, condition)) in pairs.enumerate() {
            assert_eq!(Shape::Error(kind, condition).place(), Some(place));
        }
    }

    /// No server forgets a device on these.
    #[test]
    fn what_may_be_alive_is_kept_by_every_server() {
        for outcome in [
            Outcome::Refused,
            Outcome::TokenBlocked,
            Outcome::TokenInvalid,
            Outcome::ProviderUnavailable,
            Outcome::Overloaded,
            Outcome::ShuttingDown,
            Outcome::UnknownModule,
            Outcome::RegistryUnavailable,
        ] {
            let reply = Reply::Published(outcome, Named::Known("m"));
            let Shape::Error(kind, condition) = reply.shape() else {
                panic!("{outcome:?}")
            };
            assert_eq!(kind, ErrorType::Wait, "{outcome:?}");
            assert!(
                matches!(
                    condition,
                    Condition::RemoteServerTimeout
                        | Condition::ServiceUnavailable
                        | Condition::InternalServerError
                ),
                "{outcome:?}"
            );
        }
    }
}
