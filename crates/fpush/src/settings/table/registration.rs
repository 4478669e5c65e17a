//! The settings of registered devices, and those that both HTTP listeners have.

use super::{Default, Key, Kind, Required, Words, key};

pub(super) static REGISTRATION: [Key; 10] = [
    key(
        "store",
        Kind::Section(&STORE),
        Required,
        "Where the devices are kept",
    ),
    key(
        "types",
        Kind::Pairs,
        Words("this or `providers`"),
        "From the push type of the first two dialects and of the HTTP API to the push module: `{ \"apns\": \"exampleIos\" }`. p2's \
         clients say `fcm` or `apns`",
    ),
    key(
        "providers",
        Kind::Pairs,
        Words("this or `types`"),
        "From the provider id of Tigase's dialect to the push module: `{ \"tigase:messenger:apns:1\": \"exampleIos\" }`",
    ),
    key(
        "rateLimit",
        Kind::SpanOrSeconds,
        Default("\"5s\""),
        "Between two pushes of one class to a device; the module's `ratelimitTime` is for all others",
    ),
    key(
        "maxPerOwner",
        Kind::Whole(1, 10_000),
        Default("32"),
        "Devices of one account",
    ),
    key(
        "maxDevices",
        Kind::Whole(1, 1_000_000_000),
        Default("2000000"),
        "Devices in all: half a gigabyte of memory with `store.cache`, and 1.5 if each takes what it may, a few gigabytes on disk. \
         One with more than 512 bytes of node, secret, tokens and addresses counts as several. Over HTTP replaced secrets come on \
         top: 6 KB for a device that registers 64 times a week. Further new ones are refused; an import is not, and warns",
    ),
    key(
        "maxDevicesPerDomain",
        Kind::Whole(1, 1_000_000_000),
        Words("half of `maxDevices`"),
        "Devices of the accounts of one registrable domain (`example.org`, with all names below it), and devices without an \
         account: all that came over HTTP, or were imported from there, together. If your apps use the HTTP API alone, set it to \
         `maxDevices`",
    ),
    key(
        "trustedDomains",
        Kind::Texts("domains"),
        Default("[]"),
        "For these only `maxDevices` counts. So it is for the domain of each `componentHostname` and the one above it",
    ),
    key(
        "expireAfter",
        Kind::Span("`\"1day\"` at least"),
        Default("\"400days\""),
        "A device that was neither registered, imported nor pushed to for so long goes",
    ),
    key(
        "http",
        Kind::Section(&HTTP),
        Words("no listener"),
        "mod_push_appserver's [HTTP API](../apps/http.md)",
    ),
];

static STORE: [Key; 5] = [
    key(
        "type",
        Kind::Word(&["sqlite", "postgres"]),
        Default("\"sqlite\""),
        "One file of SQLite, or a database of a PostgreSQL server",
    ),
    key(
        "path",
        Kind::Path,
        Words("required for SQLite"),
        "The file; it and its folder are made if they are not there",
    ),
    key(
        "url",
        Kind::Text("URL"),
        Words("this or `urlFile` for PostgreSQL"),
        "`postgres://USER:PASSWORD@HOST/DATABASE`; with `?sslmode=verify-full` and `sslrootcert` it is reached \
         [over TLS](../operate/backup.md#tls)",
    ),
    key(
        "urlFile",
        Kind::Path,
        Words("this or `url` for PostgreSQL"),
        "A file that holds the URL, which has a password in it",
    ),
    key(
        "cache",
        Kind::Flag,
        Words("true for SQLite, false for PostgreSQL"),
        "All devices are in memory, too. Several instances on PostgreSQL with it see each other's changes at once, \
         and within ten seconds if nobody tells them",
    ),
];

static HTTP: [Key; 11] = [
    key(
        "listen",
        Kind::Text("address and port"),
        Required,
        "The address and port of the listener, such as `\"127.0.0.1:8280\"`",
    ),
    key(
        "debugging",
        Kind::Flag,
        Default("false"),
        "Opens forms and pages that show all devices. Not in production",
    ),
    key(
        "selftest",
        Kind::Flag,
        Default("false"),
        "Whether `GET /push_appserver/v1/selftest` explains [how to test](../apps/testing.md)",
    ),
    key(
        "requireSecret",
        Kind::Flag,
        Default("false"),
        "A known node is registered again or removed only with its secret. The clients of mod_push_appserver do not send it",
    ),
    key(
        "newPerAddress",
        Kind::Whole(1, 1_000_000),
        Default("5000"),
        "New devices of one address in a day, over HTTP; an IPv6 network of 64 bits is one address, and one of 48 bits counts as \
         eight",
    ),
    key(
        "requestsPerAddress",
        Kind::Whole(1, 1_000_000),
        Default("600"),
        "Registrations, renewals and removals of one address in a minute, over HTTP: many phones share the address of a carrier",
    ),
    key(
        "allowedOrigins",
        Kind::Texts("origins"),
        Default("[]"),
        "Whose web pages may register devices and read the answers (CORS), such as `[\"https://chat.example.org\"]`; `[\"*\"]`: all",
    ),
    key(
        "trustedProxies",
        Kind::Texts("addresses and networks"),
        Default("[]"),
        "Whose `X-Forwarded-For` or `Forwarded` is trusted. Name your web server here, or all clients behind it count as one",
    ),
    key(
        "hostNames",
        HOST_NAMES,
        Default("[]"),
        "Under which names browsers get the pages of `debugging`, beside addresses, `localhost` and names without a dot. Apps may \
         use any name",
    ),
    CERT_FILE,
    KEY_FILE,
];

pub(super) const HOST_NAMES: Kind = Kind::Texts("names");

pub(super) const CERT_FILE: Key = key(
    "certFilePath",
    Kind::Path,
    Words("plain HTTP"),
    "The certificate for TLS (PEM), together with `keyFilePath`",
);

pub(super) const KEY_FILE: Key = key(
    "keyFilePath",
    Kind::Path,
    Words("plain HTTP"),
    "The key of that certificate (PEM)",
);
