//! The settings of push modules.

use super::{Default, Key, Kind, NONE, Required, Words, apple::APNS, google::FCM, key, webpush::WEBPUSH};

pub(super) static MODULE: [Key; 10] = [
    key(
        "type",
        Kind::Word(&["apple", "google", "webpush", "demo"]),
        Required,
        "The provider. A type that this build leaves out is an error that says so",
    ),
    key(
        "is_default_module",
        Kind::Flag,
        Default("false"),
        "The module for publishes that name none. One at most",
    ),
    key(
        "maxInFlight",
        Kind::Whole(1, 100_000),
        Default("1000"),
        "Pushes at the provider at a time. Above it, twenty times as many wait in a queue. Web Push: at each browsers' vendor, and \
         at all other push services together",
    ),
    key(
        "holdFor",
        Kind::Span("28 days at most"),
        Default("\"4h\""),
        "How long a push is held that the provider cannot take (see [Outages](behaviour.md#outages)), and never longer than \
         `pushTtl` or `ttl`. `\"0s\"`: it is answered with `wait` instead, as are pushes of `webpush` modules",
    ),
    key(
        "shadow",
        Kind::Flag,
        Default("false"),
        "`true`: the module decides and counts as usual, sends nothing, and answers every publish with a result. See [Trying fpush \
         beside another push server](../moving/shadow.md)",
    ),
    key(
        "ratelimit",
        Kind::Section(&RATELIMIT),
        NONE,
        "How often a device may be woken",
    ),
    key(
        "blacklist",
        Kind::Section(&BLACKLIST),
        NONE,
        "For how long a token is left alone",
    ),
    key(
        "apns",
        Kind::Section(&APNS),
        Words("required for `apple`"),
        "For modules of type `apple` alone",
    ),
    key(
        "fcm",
        Kind::Section(&FCM),
        Words("required for `google`"),
        "For modules of type `google` alone",
    ),
    key(
        "webpush",
        Kind::Section(&WEBPUSH),
        Words("required for `webpush`"),
        "For modules of type `webpush` alone",
    ),
];

static RATELIMIT: [Key; 5] = [
    key(
        "enabled",
        Kind::Flag,
        Default("true"),
        "Off, every push goes out at once. A provider's own \"too many\" is still respected",
    ),
    key(
        "ratelimitTime",
        Kind::Span(""),
        Default("\"20s\""),
        "Between two pushes to one token",
    ),
    key(
        "ratelimitCleanupInterval",
        Kind::Span(""),
        Default("\"300s\""),
        "A token whose last push is longer ago is forgotten",
    ),
    key(
        "hardRatelimitTime",
        Kind::Span("less than a second is taken as one"),
        Default("\"600s\""),
        "Silence for a token after the provider called it too busy",
    ),
    key(
        "refusedReply",
        Kind::Word(&["wait", "result"]),
        Default("\"wait\""),
        "The answer to a push that is refused because one is queued. `\"result\"` keeps the senders' logs quiet",
    ),
];

static BLACKLIST: [Key; 3] = [
    key(
        "invalidToken",
        Kind::Section(&INVALID_TOKEN),
        NONE,
        "For tokens that the provider declared dead",
    ),
    key(
        "pushError",
        Kind::Section(&PUSH_ERROR),
        NONE,
        "After errors of unknown cause",
    ),
    key(
        "blockExtension",
        Kind::Span(""),
        Default("\"600s\""),
        "A publish in the second half of a block makes it last at least this long from then; a `pushError` block never longer than \
         `extendedBlocking` in all",
    ),
];

const SPELLING: &str = "Another spelling of `initalBlocking`, which is the original's";

static INVALID_TOKEN: [Key; 3] = [
    key(
        "initalBlocking",
        Kind::Span(""),
        Default("\"24h\""),
        "The first block of a token that the provider declared dead",
    ),
    key("initialBlocking", Kind::Span(""), NONE, SPELLING),
    key(
        "extendedBlocking",
        Kind::Span(""),
        Default("\"5d\""),
        "The block of one that is found dead again after its block ended",
    ),
];

static PUSH_ERROR: [Key; 3] = [
    key(
        "initalBlocking",
        Kind::Span(""),
        Default("\"10min\""),
        "The first block after an error of unknown cause",
    ),
    key("initialBlocking", Kind::Span(""), NONE, SPELLING),
    key(
        "extendedBlocking",
        Kind::Span(""),
        Default("\"20min\""),
        "The same for the second time",
    ),
];

pub(super) const ROOTS: Key = key(
    "caFilePath",
    Kind::Path,
    NONE,
    "Roots (PEM) that are trusted beside those of the system",
);
