//! The settings of modules for Web Push.

use super::{ATTEMPT, Key, Kind, ROOTS, key};

pub(super) static WEBPUSH: [Key; 13] = [
    key(
        "vapidKeyFilePath",
        Kind::Path,
        "",
        "The private key of the module, as fpush vapid new makes it.",
    ),
    key(
        "subject",
        Kind::Text,
        "",
        "How push services reach you: mailto: or an https URL.",
    ),
    key(
        "allowedEndpoints",
        Kind::Texts,
        "",
        "Hosts that pushes may go to. By default the vendors'.",
    ),
    key(
        "allowedPorts",
        Kind::Wholes(1, 65_535),
        "[443]",
        "Ports that pushes may go to.",
    ),
    key(
        "allowedNetworks",
        Kind::Texts,
        "[]",
        "What may be connected to although it is not in the public internet.",
    ),
    key(
        "ttl",
        Kind::Span,
        "\"28days\"",
        "How long the push service keeps a push for a device that is off.",
    ),
    key(
        "urgency",
        Kind::Word(&["auto", "high", "normal", "low", "very-low"]),
        "\"auto\"",
        "How much a push matters; auto: what the publish says.",
    ),
    key(
        "lowPriority",
        Kind::Word(&["drop", "send"]),
        "\"drop\"",
        "What becomes of a publish that nobody has to see.",
    ),
    key(
        "topic",
        Kind::Text,
        "",
        "A push replaces an older one that has not been delivered.",
    ),
    key("additionalData", Kind::Anything, "{}", "Added to the payload."),
    key(
        "declarative",
        Kind::Anything,
        "",
        "A notification that Safari shows by itself.",
    ),
    ROOTS,
    key("requestTimeout", Kind::SpanOrSeconds, "10", ATTEMPT),
];
