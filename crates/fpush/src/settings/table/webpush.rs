//! The settings of `webpush` modules.

use super::{Default, Key, Kind, NONE, Required, Words, key, modules::ROOTS};

pub(super) static WEBPUSH: [Key; 13] = [
    key(
        "vapidKeyFilePath",
        Kind::Path,
        Required,
        "The private key: PEM (PKCS#8 or SEC1), DER, or the 32 bytes in base64url that other tools print",
    ),
    key(
        "subject",
        Kind::Text("`mailto:` or https URL"),
        Required,
        "How push services reach you. Apple refuses all pushes if there is no real domain in it",
    ),
    key(
        "allowedEndpoints",
        Kind::Texts("hosts"),
        Words("the vendors'"),
        "Hosts that pushes may go to: names, and domains such as `\"*.example.org\"`. By default the push services of Mozilla, \
         Google, Apple and Microsoft. `\"*\"`: any public host, see [any push service](../operate/any-push-service.md)",
    ),
    key(
        "allowedPorts",
        Kind::Wholes(1, 65_535),
        Default("[443]"),
        "Ports that pushes may go to. Self-hosted `UnifiedPush` servers often have 8443, 5281 (Prosody) or 5443 (ejabberd)",
    ),
    key(
        "allowedNetworks",
        Kind::Texts("addresses and networks"),
        Default("[]"),
        "What may be connected to although it is this machine, or not in the public internet: a push service of your own",
    ),
    key(
        "ttl",
        Kind::Span("1 second to 28 days"),
        Default("\"28days\""),
        "How long the push service keeps a push for a device that is off",
    ),
    key(
        "urgency",
        Kind::Word(&["auto", "high", "normal", "low", "very-low"]),
        Default("\"auto\""),
        "How much a push matters. `auto`: `high`, and `low` for what nobody has to see",
    ),
    key(
        "lowPriority",
        Kind::Word(&["drop", "send"]),
        Default("\"drop\""),
        "What becomes of a publish that nobody has to see (see [`auto` of apns](#visible-silent-call)). A web app must show \
         something for every push, or it loses its permission; so nothing is sent, and the publish is answered with a result and \
         counted as `unwanted`",
    ),
    key(
        "topic",
        Kind::Text("text of base64url, 32 characters at most"),
        NONE,
        "A push replaces an older one that has not been delivered",
    ),
    key(
        "additionalData",
        Kind::Anything,
        Default("{}"),
        "Any JSON; its keys are added to the payload",
    ),
    key(
        "declarative",
        Kind::Anything,
        NONE,
        "A notification that Safari shows by itself (Declarative Web Push): with `title` and `navigate` at least",
    ),
    ROOTS,
    key(
        "requestTimeout",
        Kind::SpanOrSeconds,
        Default("10"),
        "One attempt takes this long at most",
    ),
];
