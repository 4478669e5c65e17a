//! The settings of push modules.

use super::{ATTEMPT, Key, Kind, ROOTS, key, webpush::WEBPUSH};

pub(super) static MODULE: [Key; 10] = [
    key(
        "type",
        Kind::Word(&["apple", "google", "webpush", "demo"]),
        "",
        "The provider.",
    ),
    key(
        "is_default_module",
        Kind::Flag,
        "false",
        "The module for publishes that name none. One at most.",
    ),
    key(
        "maxInFlight",
        Kind::Whole(1, 100_000),
        "1000",
        "How many pushes may be at the provider at a time.",
    ),
    key(
        "holdFor",
        Kind::Span,
        "\"4h\"",
        "How long a push is held that the provider cannot take.",
    ),
    key(
        "shadow",
        Kind::Flag,
        "false",
        "It decides and counts, sends nothing, and answers every publish with a result.",
    ),
    key(
        "ratelimit",
        Kind::Section(&RATELIMIT),
        "",
        "How often a device may be woken.",
    ),
    key(
        "blacklist",
        Kind::Section(&BLACKLIST),
        "",
        "For how long a token is left alone.",
    ),
    key("apns", Kind::Section(&APNS), "", "For modules of type apple."),
    key("fcm", Kind::Section(&FCM), "", "For modules of type google."),
    key(
        "webpush",
        Kind::Section(&WEBPUSH),
        "",
        "For modules of type webpush.",
    ),
];

static RATELIMIT: [Key; 5] = [
    key("enabled", Kind::Flag, "true", "Off, every push goes out at once."),
    key(
        "ratelimitTime",
        Kind::Span,
        "\"20s\"",
        "Between two pushes to one token.",
    ),
    key(
        "ratelimitCleanupInterval",
        Kind::Span,
        "\"300s\"",
        "A token whose last push is longer ago is forgotten.",
    ),
    key(
        "hardRatelimitTime",
        Kind::Span,
        "\"600s\"",
        "Silence for a token after the provider called it too busy.",
    ),
    key(
        "refusedReply",
        Kind::Word(&["wait", "result"]),
        "\"wait\"",
        "The answer to a push that is refused because one is queued already.",
    ),
];

static BLACKLIST: [Key; 3] = [
    key(
        "invalidToken",
        Kind::Section(&INVALID_TOKEN),
        "",
        "For tokens that the provider declared dead.",
    ),
    key(
        "pushError",
        Kind::Section(&PUSH_ERROR),
        "",
        "After errors of unknown cause.",
    ),
    key(
        "blockExtension",
        Kind::Span,
        "\"600s\"",
        "A publish in the second half of a block makes it last at least this long.",
    ),
];

const INITIAL: &str = "The first block.";
const EXTENDED: &str = "The second block.";

static INVALID_TOKEN: [Key; 3] = [
    key("initalBlocking", Kind::Span, "\"24h\"", INITIAL),
    key(
        "initialBlocking",
        Kind::Span,
        "\"24h\"",
        "Another spelling of initalBlocking.",
    ),
    key("extendedBlocking", Kind::Span, "\"5d\"", EXTENDED),
];

static PUSH_ERROR: [Key; 3] = [
    key("initalBlocking", Kind::Span, "\"10min\"", INITIAL),
    key(
        "initialBlocking",
        Kind::Span,
        "\"10min\"",
        "Another spelling of initalBlocking.",
    ),
    key("extendedBlocking", Kind::Span, "\"20min\"", EXTENDED),
];

const APNS_DATA: Key = key(
    "additionalData",
    Kind::Anything,
    "{}",
    "Stands beside \"aps\" in the payload.",
);
const APS: Key = key("aps", Kind::Anything, "{}", "Anything else in \"aps\".");
const MUTABLE: Key = key(
    "mutableContent",
    Kind::Flag,
    "true",
    "Visible pushes carry mutable-content: 1.",
);
const TITLE: Key = key(
    "alertTitle",
    Kind::Text,
    "\"New Message\"",
    "Of visible pushes; empty: none.",
);
const TITLE_KEY: Key = key(
    "alertTitleLocKey",
    Kind::Text,
    "",
    "Instead of alertTitle: a text of the app in the user's language.",
);
const TITLE_ARGS: Key = key(
    "alertTitleLocArgs",
    Kind::Texts,
    "[]",
    "What is put into that text.",
);
const BODY: Key = key(
    "alertBody",
    Kind::Text,
    "\"New Message?\"",
    "Of visible pushes; empty: none.",
);
const BODY_KEY: Key = key(
    "alertBodyLocKey",
    Kind::Text,
    "",
    "Instead of alertBody: a text of the app in the user's language.",
);
const BODY_ARGS: Key = key(
    "alertBodyLocArgs",
    Kind::Texts,
    "[]",
    "What is put into that text.",
);
const SOUND: Key = key(
    "sound",
    Kind::Text,
    "\"default\"",
    "Of visible pushes; empty: none.",
);
const CATEGORY: Key = key("category", Kind::Text, "", "The notification category.");
const THREAD: Key = key(
    "threadId",
    Kind::Text,
    "",
    "Notifications with the same one are grouped.",
);
const LEVEL: Key = key(
    "interruptionLevel",
    Kind::Word(&["passive", "active", "time-sensitive", "critical"]),
    "",
    "Whether Focus holds it back.",
);
const SCORE: Key = key(
    "relevanceScore",
    Kind::Number(0, 1),
    "",
    "Its place in the notification summary.",
);
const BADGE: Key = key(
    "badge",
    Kind::WordOrWhole(&["none", "count"]),
    "\"none\"",
    "The number at the app's icon; count: of the messages that the publish tells.",
);

static VISIBLE_APNS: [Key; 15] = [
    MUTABLE, TITLE, TITLE_KEY, TITLE_ARGS, BODY, BODY_KEY, BODY_ARGS, SOUND, CATEGORY, THREAD, LEVEL, SCORE,
    BADGE, APS, APNS_DATA,
];

static WAKING_APNS: [Key; 2] = [APS, APNS_DATA];

static APNS: [Key; 35] = [
    key(
        "certFilePath",
        Kind::Path,
        "",
        "The client certificate: PKCS#12, or PEM with certKeyFilePath.",
    ),
    key(
        "certPassword",
        Kind::Text,
        "",
        "The password of the PKCS#12 file.",
    ),
    key(
        "certPasswordFile",
        Kind::Path,
        "",
        "A file that holds that password.",
    ),
    key(
        "certKeyFilePath",
        Kind::Path,
        "",
        "The key of the certificate (PEM).",
    ),
    key(
        "tokenKeyFilePath",
        Kind::Path,
        "",
        "The key for provider tokens (.p8).",
    ),
    key("keyId", Kind::Text, "", "The key's ID."),
    key("teamId", Kind::Text, "", "The team's ID."),
    key("topic", Kind::Text, "", "The app's bundle ID."),
    key(
        "environment",
        Kind::Word(&["production", "sandbox", "both"]),
        "\"production\"",
        "sandbox for builds that come from Xcode; both: each device's own.",
    ),
    key(
        "endpoint",
        Kind::Text,
        "",
        "Instead of Apple's: for tests and relays.",
    ),
    key(
        "sandboxEndpoint",
        Kind::Text,
        "",
        "Instead of Apple's sandbox, beside endpoint, with environment both.",
    ),
    ROOTS,
    key(
        "pushPriority",
        Kind::Word(&["high", "silent", "voip", "auto"]),
        "\"high\"",
        "What pushes are; auto: what the publish says.",
    ),
    MUTABLE,
    TITLE,
    TITLE_KEY,
    TITLE_ARGS,
    BODY,
    BODY_KEY,
    BODY_ARGS,
    SOUND,
    CATEGORY,
    THREAD,
    LEVEL,
    SCORE,
    BADGE,
    APS,
    APNS_DATA,
    key(
        "visible",
        Kind::Section(&VISIBLE_APNS),
        "",
        "For visible pushes alone, instead of the keys above.",
    ),
    key(
        "silent",
        Kind::Section(&WAKING_APNS),
        "",
        "For silent pushes alone, instead of the keys above.",
    ),
    key(
        "voip",
        Kind::Section(&WAKING_APNS),
        "",
        "For calls alone, instead of the keys above.",
    ),
    key(
        "collapsePushes",
        Kind::Flag,
        "false",
        "A push replaces one of the same class that has not been delivered.",
    ),
    key(
        "pushTtl",
        Kind::Span,
        "\"28days\"",
        "How long Apple keeps a push for a device that is off.",
    ),
    key("requestTimeout", Kind::SpanOrSeconds, "5", ATTEMPT),
    key(
        "poolIdleTimeout",
        Kind::SpanOrSeconds,
        "600",
        "A connection without a push for this long is closed.",
    ),
];

static FCM: [Key; 19] = [
    key(
        "fcmSecretPath",
        Kind::Path,
        "",
        "The JSON file of a service account, from the Firebase console.",
    ),
    key(
        "endpoint",
        Kind::Text,
        "",
        "Instead of Google's: for tests and relays.",
    ),
    ROOTS,
    key(
        "priority",
        Kind::Word(&["high", "normal", "auto"]),
        "\"high\"",
        "What messages are; auto: what the publish says.",
    ),
    key(
        "target",
        Kind::Word(&["auto", "token", "fid"]),
        "\"auto\"",
        "The message's field for the device.",
    ),
    FCM_TTL,
    COLLAPSE_KEY,
    FCM_DATA,
    DIRECT_BOOT,
    PACKAGE,
    NOTIFICATION,
    ANDROID,
    APNS_PART,
    WEBPUSH_PART,
    FCM_OPTIONS,
    key("requestTimeout", Kind::SpanOrSeconds, "10", ATTEMPT),
    key(
        "visible",
        Kind::Section(&FCM_CLASS),
        "",
        "For visible pushes alone, instead of the keys above.",
    ),
    key(
        "silent",
        Kind::Section(&FCM_CLASS),
        "",
        "For silent pushes alone, instead of the keys above.",
    ),
    key(
        "voip",
        Kind::Section(&FCM_CLASS),
        "",
        "For calls alone, instead of the keys above.",
    ),
];

static FCM_CLASS: [Key; 10] = [
    FCM_TTL,
    COLLAPSE_KEY,
    FCM_DATA,
    DIRECT_BOOT,
    PACKAGE,
    NOTIFICATION,
    ANDROID,
    APNS_PART,
    WEBPUSH_PART,
    FCM_OPTIONS,
];

const FCM_TTL: Key = key(
    "ttl",
    Kind::Span,
    "\"28days\"",
    "How long Google keeps a push for a device that is off.",
);
const COLLAPSE_KEY: Key = key(
    "collapseKey",
    Kind::Text,
    "",
    "A push replaces an older one with this key.",
);
const FCM_DATA: Key = key("additionalData", Kind::Pairs, "{}", "The message's data.");
const DIRECT_BOOT: Key = key(
    "directBootOk",
    Kind::Flag,
    "",
    "Whether the app gets pushes before the phone is unlocked for the first time.",
);
const PACKAGE: Key = key(
    "restrictedPackageName",
    Kind::Text,
    "",
    "The package that the token must belong to.",
);
const NOTIFICATION: Key = key(
    "notification",
    Kind::Anything,
    "{}",
    "This part of Google's message.",
);
const ANDROID: Key = key("android", Kind::Anything, "{}", "This part of Google's message.");
const APNS_PART: Key = key("apns", Kind::Anything, "{}", "This part of Google's message.");
const WEBPUSH_PART: Key = key("webpush", Kind::Anything, "{}", "This part of Google's message.");
const FCM_OPTIONS: Key = key(
    "fcmOptions",
    Kind::Anything,
    "{}",
    "This part of Google's message.",
);
