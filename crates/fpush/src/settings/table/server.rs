//! The settings of the link to the XMPP server, of what operators see, and of what instances share.

use super::{
    Default, Key, Kind, NONE, Required, Words, key,
    registration::{CERT_FILE, HOST_NAMES, KEY_FILE},
};

pub(super) static COMPONENT: [Key; 12] = [
    key(
        "componentHostname",
        Kind::Text("domain"),
        Required,
        "Our address: the component's name in the server's configuration",
    ),
    key(
        "componentKey",
        Kind::Text("text"),
        Words("one of the two"),
        "The secret that the server has for it",
    ),
    key(
        "componentKeyFile",
        Kind::Path,
        Words("one of the two"),
        "A file that holds the secret; line breaks at its end do not count",
    ),
    key(
        "serverHostname",
        Kind::Text("name or IP address"),
        Required,
        "Where the XMPP server is. No SRV look-up",
    ),
    key(
        "serverPort",
        Kind::Whole(1, 65_535),
        Required,
        "The server's port for components",
    ),
    key(
        "maxStanzaSize",
        Kind::Whole(16_384, 67_108_864),
        Default("1048576"),
        "In bytes. A larger stanza is dropped up to its end; the stream stays",
    ),
    key(
        "tls",
        Kind::FlagOrSection(&COMPONENT_TLS),
        Default("false"),
        "TLS from the first byte (no STARTTLS), as ejabberd, Openfire, MongooseIM and stunnel offer it",
    ),
    key(
        "modules",
        Kind::Texts("names of push modules"),
        Words("all"),
        "The modules that this name may use: publishes for others are answered as for one that is not in the settings, and devices \
         cannot register for them over it",
    ),
    key(
        "defaultModule",
        Kind::Text("name of a push module"),
        Words("the one with `is_default_module`"),
        "The module for publishes over this link that name none",
    ),
    key(
        "linkName",
        Kind::Text("text"),
        Words("`componentHostname@serverHostname:serverPort`"),
        "What the link is called in metrics, log, status page and `fpush check`. No two links have the same",
    ),
    key(
        "group",
        Kind::Text("text"),
        NONE,
        "Links with the same group send each other's replies while one is down: the nodes of one cluster. They have the same \
         `componentHostname`, `modules` and `defaultModule`",
    ),
    key(
        "push2",
        Kind::Section(&PUSH2),
        Words("they are dropped"),
        "Passes on notifications of [Push 2.0](../apps/push2.md)",
    ),
];

static COMPONENT_TLS: [Key; 2] = [
    key(
        "caFilePath",
        Kind::Path,
        NONE,
        "Authorities (PEM) that are trusted beside those of the system. A changed file is reloaded within a minute",
    ),
    key(
        "serverName",
        Kind::Text("name or IP address"),
        Words("`serverHostname`"),
        "What the server's certificate must be for",
    ),
];

static PUSH2: [Key; 3] = [
    key(
        "modules",
        Kind::Texts("names of push modules"),
        Required,
        "The push modules that notifications may go out through; one at least",
    ),
    key(
        "maxPerDomain",
        Kind::Whole(1, 1_000_000),
        Default("6000"),
        "Notifications of one registrable domain in a minute",
    ),
    key(
        "maxPerReceiver",
        Kind::Whole(1, 1_000_000),
        Default("60"),
        "Notifications of one registrable domain for one device in a minute",
    ),
];

pub(super) static MONITORING: [Key; 6] = [
    key(
        "listen",
        Kind::Text("address and port"),
        Words("no listener"),
        "Where metrics, health and the status page are, such as `\"127.0.0.1:9114\"`. There is no password: see \
         [Security](../operate/security.md)",
    ),
    key(
        "senders",
        Kind::Word(&["top", "off"]),
        Default("\"top\""),
        "`\"off\"`: no domain of a sender is in metrics, on the page or in the log. It may stand alone, without `listen`. See \
         [Privacy](../privacy.md)",
    ),
    key(
        "trustedProxies",
        Kind::Texts("addresses and networks"),
        Default("[]"),
        "Your web server, if it is a reverse proxy for this listener: its connections are not limited",
    ),
    key(
        "hostNames",
        HOST_NAMES,
        Default("[]"),
        "Under which names the listener may be asked, beside addresses, `localhost` and names without a dot, such as \
         `[\"status.example.org\"]`. Any other is answered 403: otherwise a stranger's page could read the status (DNS rebinding)",
    ),
    CERT_FILE,
    KEY_FILE,
];

pub(super) static LOGGING: [Key; 2] = [
    key(
        "format",
        Kind::Word(&["human", "json"]),
        Default("\"human\""),
        "One line of text, or one JSON object, for each event",
    ),
    key(
        "level",
        Kind::Text("`\"warn\"`, `\"info\"`, `\"debug\"`, or by part"),
        Default("\"info\""),
        "How much is logged; a reload changes it. By part is as in [`RUST_LOG`](environment.md#other-variables), which wins if it \
         is set, and the log says so",
    ),
];

pub(super) static TIMEOUT: [Key; 1] = [key(
    "xmppconnectionError",
    Kind::Span("less than `\"100ms\"` counts as that"),
    Default("\"10s\""),
    "Before the next attempt after a login failed; up to half as long again is added at random",
)];

pub(super) static CLUSTER: [Key; 7] = [
    key(
        "url",
        Kind::Text("URL"),
        Words("one of the two"),
        "Where the engine is: `redis://USER:PASSWORD@HOST:6379/DATABASE`, \
         `redis-sentinel://PASSWORD@HOST:26379,HOST:26379/SERVICE` (`?sentinelPassword=…` if the sentinels have one), \
         `redis-cluster://PASSWORD@HOST,HOST`, `unix:///PATH`; `rediss` instead of `redis` for TLS, `valkey` and `valkeys` are the \
         same. What is special in a password is written as `%3F`",
    ),
    key(
        "urlFile",
        Kind::Path,
        Words("one of the two"),
        "A file that holds the URL: usually there is a password in it",
    ),
    key(
        "prefix",
        Kind::Text("up to 64 letters, digits, `.`, `:`, `-`, `_`"),
        Default("\"fpush\""),
        "With it all names in the engine begin. Instances that share have the same one",
    ),
    key(
        "timeout",
        Kind::Span("`\"1ms\"` to `\"1s\"`"),
        Default("\"20ms\""),
        "A push that has waited so long for the engine is sent without it",
    ),
    key(
        "caFilePath",
        Kind::Path,
        NONE,
        "Authorities (PEM) that are trusted beside those of the system",
    ),
    key(
        "certFilePath",
        Kind::Path,
        NONE,
        "The client certificate for the engine (PEM), together with `keyFilePath`",
    ),
    key(
        "keyFilePath",
        Kind::Path,
        NONE,
        "The key of that certificate (PEM)",
    ),
];
