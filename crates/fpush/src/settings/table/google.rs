//! The settings of `google` modules.

use super::{Default, Key, Kind, NONE, Required, key};

pub(super) static FCM: [Key; 19] = [
    key(
        "fcmSecretPath",
        Kind::Path,
        Required,
        "The JSON file of a service account, from the Firebase console (Project settings, Service accounts). Its `token_uri` is used",
    ),
    key(
        "endpoint",
        Kind::Text("https URL without a path"),
        NONE,
        "Instead of `https://fcm.googleapis.com`",
    ),
    key(
        "caFilePath",
        Kind::Path,
        NONE,
        "Roots (PEM) that are trusted beside those of the system, also for the token endpoint",
    ),
    key(
        "priority",
        Kind::Word(&["high", "normal", "auto"]),
        Default("\"high\""),
        "`normal` does not wake a phone that is in doze mode. `auto`: by what the publish says, as with `pushPriority`; a call is \
         high, and never queued",
    ),
    key(
        "target",
        Kind::Word(&["auto", "token", "fid"]),
        Default("\"auto\""),
        "The field of the message that names the device. `\"auto\"`: `fid` for what has the form of a Firebase installation ID (22 \
         characters of base64url), `token` for all else. The others are for the day when Google changes the form",
    ),
    TTL,
    COLLAPSE_KEY,
    DATA,
    DIRECT_BOOT,
    PACKAGE,
    NOTIFICATION,
    ANDROID,
    APNS,
    WEBPUSH,
    OPTIONS,
    key(
        "requestTimeout",
        Kind::SpanOrSeconds,
        Default("10"),
        "One attempt takes this long at most, also at the token endpoint",
    ),
    key(
        "visible",
        Kind::Overrides(&CLASS),
        NONE,
        "For visible pushes alone, which `priority` `high` and `auto` send: any of the keys from `ttl` to `fcmOptions`, instead of \
         the one above",
    ),
    key(
        "silent",
        Kind::Overrides(&CLASS),
        NONE,
        "The same for silent pushes, which `normal` and `auto` send",
    ),
    key(
        "voip",
        Kind::Overrides(&CLASS),
        NONE,
        "The same for calls, which `auto` sends",
    ),
];

static CLASS: [Key; 10] = [
    TTL,
    COLLAPSE_KEY,
    DATA,
    DIRECT_BOOT,
    PACKAGE,
    NOTIFICATION,
    ANDROID,
    APNS,
    WEBPUSH,
    OPTIONS,
];

const TTL: Key = key(
    "ttl",
    Kind::Span("28 days at most"),
    Default("\"28days\""),
    "How long Google keeps a push for a device that is off",
);

const COLLAPSE_KEY: Key = key(
    "collapseKey",
    Kind::Text("text, not empty"),
    NONE,
    "A push replaces an older one with this key. Google limits the rate of such pushes",
);

const DATA: Key = key(
    "additionalData",
    Kind::Pairs,
    Default("{}"),
    "The message's data. Google keeps `from`, `message_type`, `google…` and `gcm…` for itself",
);

const DIRECT_BOOT: Key = key(
    "directBootOk",
    Kind::Flag,
    NONE,
    "Whether the app gets pushes before the phone is unlocked for the first time (`direct_boot_ok`)",
);

const PACKAGE: Key = key(
    "restrictedPackageName",
    Kind::Text("text, not empty"),
    NONE,
    "The package that the token must belong to (`restricted_package_name`)",
);

const NOTIFICATION: Key = key(
    "notification",
    Kind::Anything,
    Default("{}"),
    "This [part of Google's message](#parts-of-googles-message). With it Google's library shows the push, and the app may not be \
     woken",
);

const ANDROID: Key = part("android");
const APNS: Key = part("apns");
const WEBPUSH: Key = part("webpush");
const OPTIONS: Key = part("fcmOptions");

const fn part(name: &'static str) -> Key {
    key(
        name,
        Kind::Anything,
        Default("{}"),
        "This [part of Google's message](#parts-of-googles-message)",
    )
}
