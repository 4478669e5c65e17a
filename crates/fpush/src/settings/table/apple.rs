//! The settings of `apple` modules.

use super::{Default, Key, Kind, NONE, Required, Words, key, modules::ROOTS};

pub(super) static APNS: [Key; 35] = [
    key(
        "certFilePath",
        Kind::Path,
        CREDENTIALS,
        "The client certificate: PKCS#12 (`.p12`), or PEM together with `certKeyFilePath`",
    ),
    key(
        "certPassword",
        Kind::Text("text"),
        CREDENTIALS,
        "The password of the PKCS#12 file",
    ),
    key(
        "certPasswordFile",
        Kind::Path,
        CREDENTIALS,
        "A file that holds that password",
    ),
    key(
        "certKeyFilePath",
        Kind::Path,
        CREDENTIALS,
        "The key of the certificate (PEM), without a password",
    ),
    key(
        "tokenKeyFilePath",
        Kind::Path,
        CREDENTIALS,
        "The key for provider tokens (`.p8`)",
    ),
    key(
        "keyId",
        Kind::Text("10 characters of A-Z and 0-9"),
        CREDENTIALS,
        "That key's ID",
    ),
    key(
        "teamId",
        Kind::Text("10 characters of A-Z and 0-9"),
        CREDENTIALS,
        "The team's ID",
    ),
    key(
        "topic",
        Kind::Text("text"),
        Required,
        "The app's bundle ID. For calls `.voip` is appended",
    ),
    key(
        "environment",
        Kind::Word(&["production", "sandbox", "both"]),
        Default("\"production\""),
        "`api.push.apple.com`, `api.sandbox.push.apple.com` (for builds that come from Xcode), or [each device's \
         own](../operate/apns-environments.md)",
    ),
    key(
        "endpoint",
        Kind::Text("https URL without a path"),
        NONE,
        "Instead of Apple's, such as `https://api.push.apple.com:2197`, or a relay",
    ),
    key(
        "sandboxEndpoint",
        Kind::Text("https URL without a path"),
        NONE,
        "With `environment` `\"both\"`: the same for the sandbox. It is set together with `endpoint`",
    ),
    ROOTS,
    key(
        "pushPriority",
        Kind::Word(&["high", "silent", "voip", "auto"]),
        Default("\"high\""),
        "What pushes are: see [Visible, silent, call](#visible-silent-call)",
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
    DATA,
    key(
        "visible",
        Kind::Overrides(&VISIBLE),
        NONE,
        "For visible pushes alone: any of the keys from `mutableContent` to `additionalData`, instead of the one above",
    ),
    key(
        "silent",
        Kind::Overrides(&WAKING),
        NONE,
        "For silent pushes alone: `aps` and `additionalData`. Silent pushes have no `alert`, `badge` or `sound`, but \
         `content-available: 1`",
    ),
    key(
        "voip",
        Kind::Overrides(&WAKING),
        NONE,
        "For calls alone: `aps` and `additionalData`. Calls have `content-available: 1`",
    ),
    key(
        "collapsePushes",
        Kind::Flag,
        Default("false"),
        "A push replaces one of the same class that has not been delivered (`apns-collapse-id`)",
    ),
    key(
        "pushTtl",
        Kind::Span("30 days at most"),
        Default("\"28days\""),
        "How long Apple keeps a push for a device that is off; `\"0s\"`: now or never",
    ),
    key(
        "requestTimeout",
        Kind::SpanOrSeconds,
        Default("5"),
        "One attempt takes this long at most",
    ),
    key(
        "poolIdleTimeout",
        Kind::SpanOrSeconds,
        Default("600"),
        "A connection without a push for this long is closed",
    ),
];

static VISIBLE: [Key; 15] = [
    MUTABLE, TITLE, TITLE_KEY, TITLE_ARGS, BODY, BODY_KEY, BODY_ARGS, SOUND, CATEGORY, THREAD, LEVEL, SCORE,
    BADGE, APS, DATA,
];

static WAKING: [Key; 2] = [APS, DATA];

const CREDENTIALS: super::Without = Words("one kind of [credentials](#credentials)");

const MUTABLE: Key = key(
    "mutableContent",
    Kind::Flag,
    Default("true"),
    "Visible pushes carry `mutable-content: 1`",
);

const TITLE: Key = key(
    "alertTitle",
    Kind::Text("text"),
    Default("\"New Message\""),
    "The title of visible pushes; empty: none",
);

const TITLE_KEY: Key = key(
    "alertTitleLocKey",
    Kind::Text("text"),
    NONE,
    "Instead of `alertTitle`: a key of the app's `Localizable.strings`, so that each user reads the own language",
);

const TITLE_ARGS: Key = key(
    "alertTitleLocArgs",
    Kind::Texts("texts"),
    Default("[]"),
    "What is put into that text",
);

const BODY: Key = key(
    "alertBody",
    Kind::Text("text"),
    Default("\"New Message?\""),
    "The text of visible pushes; empty: none",
);

const BODY_KEY: Key = key(
    "alertBodyLocKey",
    Kind::Text("text"),
    NONE,
    "Instead of `alertBody`, as `alertTitleLocKey`",
);

const BODY_ARGS: Key = key(
    "alertBodyLocArgs",
    Kind::Texts("texts"),
    Default("[]"),
    "What is put into that text",
);

const SOUND: Key = key(
    "sound",
    Kind::Text("text"),
    Default("\"default\""),
    "The sound of visible pushes; empty: none",
);

const CATEGORY: Key = key(
    "category",
    Kind::Text("text"),
    NONE,
    "The notification category, which decides about actions",
);

const THREAD: Key = key(
    "threadId",
    Kind::Text("text"),
    NONE,
    "Notifications with the same one are grouped",
);

const LEVEL: Key = key(
    "interruptionLevel",
    Kind::Word(&["passive", "active", "time-sensitive", "critical"]),
    NONE,
    "Whether Focus and the silent switch hold it back",
);

const SCORE: Key = key(
    "relevanceScore",
    Kind::Number(0, 1),
    NONE,
    "Its place in the notification summary",
);

const BADGE: Key = key(
    "badge",
    Kind::WordOrWhole(&["none", "count"]),
    Default("\"none\""),
    "The number at the app's icon. `\"count\"`: the `message-count` of the publish for which the push is made, and no `badge` if it \
     has none. Prosody always says 1",
);

const APS: Key = key(
    "aps",
    Kind::Anything,
    Default("{}"),
    "Any other key of Apple's `aps`, for pushes of all classes. Objects in it are merged with what the keys above set; to say the \
     same thing twice is a mistake. A default gives way",
);

const DATA: Key = key(
    "additionalData",
    Kind::Anything,
    Default("{}"),
    "Any JSON; its keys are added beside `aps` in the payload. `aps` itself is not allowed",
);
