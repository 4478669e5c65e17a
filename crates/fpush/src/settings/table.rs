//! All settings in one table: their names, what they hold, their defaults and what they mean. Variables of the environment, the
//! JSON Schema and the tests of the documents go by it. What reads a section checks more than this can say; a test compares
//! the names with those that are read.

mod modules;
mod webpush;

use self::modules::MODULE;

/// A key of the settings.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As JSON; empty if there is none, or if it depends on something else.
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
}

/// What a key holds.
pub(crate) enum Kind {
    Text,
    /// A path of a file or folder.
    Path,
    Flag,
    /// A whole number in a range.
    Whole(u64, u64),
    /// A number in a range.
    Number(u32, u32),
    /// A time span such as `"20s"`.
    Span,
    /// The same, or a number of seconds.
    SpanOrSeconds,
    Word(&'static [&'static str]),
    /// One of these words, or a whole number.
    WordOrWhole(&'static [&'static str]),
    Texts,
    /// A list of whole numbers in a range.
    Wholes(u64, u64),
    /// An object with texts under names of the operator's.
    Pairs,
    /// An object with anything.
    Anything,
    Section(&'static [Key]),
    /// One such object, or a list of them.
    Sections(&'static [Key]),
    /// `true`, `false`, or an object that says more than `true`.
    FlagOrSection(&'static [Key]),
    /// Sections under names of the operator's.
    Named(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        meaning,
    }
}

/// The outermost object.
pub(crate) static ROOT: [Key; 10] = [
    key(
        "$schema",
        Kind::Text,
        "",
        "The JSON Schema of this file, for editors: what fpush schema prints.",
    ),
    key(
        "component",
        Kind::Sections(&COMPONENT),
        "",
        "The link to the XMPP server, or a list of links.",
    ),
    key(
        "pushModules",
        Kind::Named(&MODULE),
        "",
        "One module for each app at each provider, by the name that publishes use.",
    ),
    key(
        "registration",
        Kind::Section(&REGISTRATION),
        "",
        "For apps that register their devices first.",
    ),
    key(
        "monitoring",
        Kind::Section(&MONITORING),
        "",
        "Metrics, health and the status page.",
    ),
    key("logging", Kind::Section(&LOGGING), "", "What is logged, and how."),
    key(
        "stateDirectory",
        Kind::Path,
        "",
        "Where block lists and held pushes survive a restart. By default what systemd made.",
    ),
    key(
        "runtimeDirectory",
        Kind::Path,
        "",
        "Where fpush send, check --connect and reload ask a running fpush. By default what systemd made, or /run/fpush.",
    ),
    key("timeout", Kind::Section(&TIMEOUT), "", "Pauses."),
    key(
        "cluster",
        Kind::Section(&CLUSTER),
        "",
        "What several instances share, over Valkey or Redis. Without it an instance shares nothing.",
    ),
];

static CLUSTER: [Key; 7] = [
    key(
        "url",
        Kind::Text,
        "",
        "Where the engine is: redis://, rediss://, redis-sentinel://, redis-cluster:// or unix://.",
    ),
    key("urlFile", Kind::Path, "", "A file with the URL, instead of url."),
    key(
        "prefix",
        Kind::Text,
        "\"fpush\"",
        "With it all names in the engine begin. Instances that share have the same one.",
    ),
    key(
        "timeout",
        Kind::Span,
        "\"20ms\"",
        "A push that has waited so long for the engine goes on without it.",
    ),
    key(
        "caFilePath",
        Kind::Path,
        "",
        "Trusted certificates (PEM), beside those of the system.",
    ),
    key(
        "certFilePath",
        Kind::Path,
        "",
        "The client certificate for the engine (PEM).",
    ),
    key("keyFilePath", Kind::Path, "", "Its private key (PEM)."),
];

static COMPONENT: [Key; 12] = [
    key(
        "componentHostname",
        Kind::Text,
        "",
        "The component's address, as the XMPP server's configuration has it.",
    ),
    key(
        "componentKey",
        Kind::Text,
        "",
        "The secret that the XMPP server has for it.",
    ),
    key(
        "componentKeyFile",
        Kind::Path,
        "",
        "A file that holds the secret.",
    ),
    key(
        "serverHostname",
        Kind::Text,
        "",
        "The name or address of the XMPP server.",
    ),
    key(
        "serverPort",
        Kind::Whole(1, 65_535),
        "",
        "The server's port for components.",
    ),
    key(
        "maxStanzaSize",
        Kind::Whole(16_384, 67_108_864),
        "1048576",
        "In bytes. A larger stanza is dropped; the stream stays.",
    ),
    key(
        "tls",
        Kind::FlagOrSection(&COMPONENT_TLS),
        "false",
        "TLS from the first byte of the connection.",
    ),
    key(
        "modules",
        Kind::Texts,
        "",
        "The push modules that this address may use. By default all.",
    ),
    key(
        "defaultModule",
        Kind::Text,
        "",
        "The push module for publishes that name none. By default the one with is_default_module.",
    ),
    key(
        "linkName",
        Kind::Text,
        "",
        "What the link is called in metrics, log and status page.",
    ),
    key(
        "group",
        Kind::Text,
        "",
        "Links of one group send each other's replies while one is down.",
    ),
    key(
        "push2",
        Kind::Section(&PUSH2),
        "",
        "Notifications of Push 2.0 are passed on. Without it they are dropped.",
    ),
];

static PUSH2: [Key; 3] = [
    key(
        "modules",
        Kind::Texts,
        "",
        "The push modules that notifications may go out through.",
    ),
    key(
        "maxPerDomain",
        Kind::Whole(1, 1_000_000),
        "6000",
        "Notifications of one registrable domain in a minute.",
    ),
    key(
        "maxPerReceiver",
        Kind::Whole(1, 1_000_000),
        "60",
        "Notifications of one registrable domain for one device in a minute.",
    ),
];

static COMPONENT_TLS: [Key; 2] = [
    key(
        "caFilePath",
        Kind::Path,
        "",
        "Authorities (PEM) that are trusted beside those of the system.",
    ),
    key(
        "serverName",
        Kind::Text,
        "",
        "What the server's certificate must be for. By default serverHostname.",
    ),
];

static REGISTRATION: [Key; 10] = [
    key("store", Kind::Section(&STORE), "", "Where the devices are kept."),
    key(
        "types",
        Kind::Pairs,
        "",
        "From the push type that clients name to the push module.",
    ),
    key(
        "providers",
        Kind::Pairs,
        "",
        "From the provider id that clients of Tigase's dialect name to the push module.",
    ),
    key(
        "rateLimit",
        Kind::SpanOrSeconds,
        "\"5s\"",
        "Between two pushes to one device.",
    ),
    key(
        "maxPerOwner",
        Kind::Whole(1, 10_000),
        "32",
        "Devices of one account.",
    ),
    key(
        "maxDevices",
        Kind::Whole(1, 1_000_000_000),
        "2000000",
        "Devices in all.",
    ),
    key(
        "maxDevicesPerDomain",
        Kind::Whole(1, 1_000_000_000),
        "",
        "Devices of one registrable domain. By default half of maxDevices.",
    ),
    key(
        "trustedDomains",
        Kind::Texts,
        "[]",
        "Of these there may be as many devices as in all.",
    ),
    key(
        "expireAfter",
        Kind::Span,
        "\"400days\"",
        "Unused devices go after that time.",
    ),
    key("http", Kind::Section(&HTTP), "", "mod_push_appserver's HTTP API."),
];

static STORE: [Key; 5] = [
    key(
        "type",
        Kind::Word(&["sqlite", "postgres"]),
        "\"sqlite\"",
        "One file of SQLite, or a database of a PostgreSQL server.",
    ),
    key("path", Kind::Path, "", "The file of SQLite."),
    key(
        "url",
        Kind::Text,
        "",
        "PostgreSQL: postgres://USER:PASSWORD@HOST/DATABASE",
    ),
    key(
        "urlFile",
        Kind::Path,
        "",
        "A file that holds the URL, which has a password in it.",
    ),
    key(
        "cache",
        Kind::Flag,
        "",
        "All devices are in memory, too. By default true for SQLite, false for PostgreSQL.",
    ),
];

static HTTP: [Key; 11] = [
    key("listen", Kind::Text, "", "The address and port of the listener."),
    key(
        "debugging",
        Kind::Flag,
        "false",
        "Opens forms and pages that show all devices. Not in production.",
    ),
    key(
        "selftest",
        Kind::Flag,
        "false",
        "Opens a page that explains to users how to test: GET /push_appserver/v1/selftest.",
    ),
    key(
        "requireSecret",
        Kind::Flag,
        "false",
        "Demands the secret for registering a known node again.",
    ),
    key(
        "newPerAddress",
        Kind::Whole(1, 1_000_000),
        "5000",
        "New devices of one address in a day.",
    ),
    key(
        "requestsPerAddress",
        Kind::Whole(1, 1_000_000),
        "600",
        "Registrations, renewals and removals of one address in a minute.",
    ),
    key(
        "allowedOrigins",
        Kind::Texts,
        "[]",
        "Origins of web pages that may register, such as https://chat.example.org.",
    ),
    TRUSTED_PROXIES,
    HOST_NAMES,
    CERT_FILE,
    KEY_FILE,
];

static MONITORING: [Key; 6] = [
    key("listen", Kind::Text, "", "The address and port of the listener."),
    key(
        "senders",
        Kind::Word(&["top", "off"]),
        "\"top\"",
        "off: no domain of a sender is in metrics, on the page or in the log.",
    ),
    TRUSTED_PROXIES,
    HOST_NAMES,
    CERT_FILE,
    KEY_FILE,
];

const TRUSTED_PROXIES: Key = key(
    "trustedProxies",
    Kind::Texts,
    "[]",
    "Addresses and networks of a web server in front, whose word about clients is believed.",
);

const HOST_NAMES: Key = key(
    "hostNames",
    Kind::Texts,
    "[]",
    "Names by which it may be asked, beside addresses, localhost and names without a dot.",
);

const CERT_FILE: Key = key("certFilePath", Kind::Path, "", "The certificate for TLS (PEM).");

const KEY_FILE: Key = key(
    "keyFilePath",
    Kind::Path,
    "",
    "The key of the certificate for TLS (PEM).",
);

const ATTEMPT: &str = "One attempt takes this long at most.";

const ROOTS: Key = key(
    "caFilePath",
    Kind::Path,
    "",
    "Roots (PEM) that are trusted beside those of the system.",
);

static LOGGING: [Key; 2] = [
    key(
        "format",
        Kind::Word(&["human", "json"]),
        "\"human\"",
        "One line of text, or one JSON object, for each event.",
    ),
    key(
        "level",
        Kind::Text,
        "\"info\"",
        "warn, info, debug, or by part: info,fpush_apns=debug. RUST_LOG wins.",
    ),
];

static TIMEOUT: [Key; 1] = [key(
    "xmppconnectionError",
    Kind::Span,
    "\"10s\"",
    "Before the next attempt, after a login at the XMPP server failed.",
)];

#[cfg(all(
    test,
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_cluster",
    feature = "enable_fcm_support",
    feature = "enable_webpush_support"
))]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fpush_push::settings::Report;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{backends, settings};

    type Sections = BTreeMap<String, BTreeSet<String>>;

    /// The sections that are read of these settings, and the keys that each knows.
    fn read(settings: &Value) -> Sections {
        let (report, nothing) = (Report::default(), Map::new());
        let settings = settings.as_object().unwrap_or(&nothing);
        settings::read(settings, &backends::table(), None, &report);
        let mut sections = Sections::new();
        for (path, keys) in report.known() {
            let keys = keys.into_iter().map(str::to_owned);
            sections.entry(path).or_default().extend(keys);
        }
        sections
    }

    /// Those of the table.
    fn table(keys: &[Key], path: &str, sections: &mut Sections) {
        let names = keys.iter().map(|key| key.name.to_owned()).collect();
        sections.insert(path.to_owned(), names);
        for key in keys {
            let path = format!("{path}.{}", key.name);
            let path = path.trim_start_matches('.');
            match key.kind {
                Kind::Section(keys) | Kind::Sections(keys) | Kind::FlagOrSection(keys) => {
                    table(keys, path, sections);
                }
                Kind::Named(keys) => table(keys, &format!("{path}.m"), sections),
                _ => {}
            }
        }
    }

    #[test]
    fn the_table_has_what_is_read() {
        let mut found = Sections::new();
        for (module, spelling) in [
            (json!({ "type": "apple", "apns": {} }), "initalBlocking"),
            (json!({ "type": "google", "fcm": {} }), "initialBlocking"),
            (json!({ "type": "webpush", "webpush": {} }), "initalBlocking"),
        ] {
            for store in ["sqlite", "postgres"] {
                let mut module = module.clone();
                module["blacklist"] =
                    json!({ "invalidToken": { spelling: "1s" }, "pushError": { spelling: "1s" } });
                let settings = json!({
                    "component": { "tls": {}, "push2": {} }, "pushModules": { "m": module }, "monitoring": {}, "logging": {}, "timeout": {}, "cluster": {},
                    "registration": { "store": { "type": store }, "http": {} },
                });
                for (path, keys) in read(&settings) {
                    found.entry(path).or_default().extend(keys);
                }
            }
        }
        let mut expected = Sections::new();
        table(&ROOT, "", &mut expected);
        assert_eq!(found, expected);
    }

    #[test]
    fn defaults_are_json_of_their_kind() {
        fn check(keys: &[Key], path: &str) {
            for key in keys {
                let path = format!("{path}.{}", key.name);
                if let Kind::Section(keys)
                | Kind::Sections(keys)
                | Kind::FlagOrSection(keys)
                | Kind::Named(keys) = key.kind
                {
                    check(keys, &path);
                }
                if key.default.is_empty() {
                    continue;
                }
                let default: Value =
                    serde_json::from_str(key.default).unwrap_or_else(|e| panic!("{path}: {e}"));
                let fits = match key.kind {
                    Kind::Text | Kind::Path | Kind::Span => default.is_string(),
                    Kind::Flag | Kind::FlagOrSection(_) => default.is_boolean(),
                    Kind::Whole(least, most) => {
                        default.as_u64().is_some_and(|it| (least..=most).contains(&it))
                    }
                    Kind::Number(..) => default.is_number(),
                    Kind::SpanOrSeconds => default.is_string() || default.is_u64(),
                    Kind::Word(words) | Kind::WordOrWhole(words) => {
                        default.as_str().is_some_and(|it| words.contains(&it))
                    }
                    Kind::Texts | Kind::Wholes(..) => default.is_array(),
                    Kind::Pairs | Kind::Anything | Kind::Section(_) | Kind::Sections(_) | Kind::Named(_) => {
                        default.is_object()
                    }
                };
                assert!(fits, "{path}: {default}");
            }
        }
        check(&ROOT, "");
    }

    /// Whoever adds a setting has to say it in both.
    #[test]
    fn the_documents_name_every_key() {
        let read = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let pages = [
            "docs/reference/settings.md",
            "docs/apps/push2.md",
            "docs/apps/testing.md",
            "docs/operate/apns-environments.md",
        ];
        let (documents, example) = (pages.map(read).concat(), read("settings.example.json"));
        let mut sections = Sections::new();
        table(&ROOT, "", &mut sections);
        let names: BTreeSet<_> = sections.into_values().flatten().collect();
        for name in &names {
            let words = |text: &str| {
                let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                text.split(|c| !is_of_word(c)).any(|word| word == name)
            };
            assert!(words(&documents), "{name} is not in {pages:?}");
            let quoted = example.contains(&format!("\"{name}\""));
            assert!(
                quoted || name == "initialBlocking",
                "{name} is not in settings.example.json"
            );
        }
    }
}
