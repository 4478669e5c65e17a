//! All settings in one table: their names, what they hold, what holds without them and what they mean. The reference, the
//! manual page, the JSON Schema, the variables of the environment and the tests of the documents go by it. What reads a
//! section checks more than this can say; a test compares the names with those that are read.

mod apple;
mod google;
mod modules;
mod registration;
mod server;
mod webpush;

use self::{
    modules::MODULE,
    registration::REGISTRATION,
    server::{CLUSTER, COMPONENT, LOGGING, MONITORING, TIMEOUT},
};

/// A key of the settings.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) without: Without,
    /// In Markdown, with code and links alone; links are relative to `docs/reference`.
    pub(crate) meaning: &'static str,
}

/// What a key holds. A text says more about what is wanted, such as a range.
pub(crate) enum Kind {
    Text(&'static str),
    /// A path of a file or folder.
    Path,
    Flag,
    /// A whole number in a range.
    Whole(u64, u64),
    /// A number in a range.
    Number(u32, u32),
    /// A time span such as `"20s"`, and its limits.
    Span(&'static str),
    /// The same, or a number of seconds.
    SpanOrSeconds,
    Word(&'static [&'static str]),
    /// One of these words, or a whole number.
    WordOrWhole(&'static [&'static str]),
    /// A list of texts, and of which.
    Texts(&'static str),
    /// A list of whole numbers in a range.
    Wholes(u64, u64),
    /// An object with texts under names of the operator's.
    Pairs,
    /// An object with anything.
    Anything,
    Section(&'static [Key]),
    /// An object with some keys of the section that it is in, for one class of pushes.
    Overrides(&'static [Key]),
    /// One such object, or a list of them.
    Sections(&'static [Key]),
    /// `true`, `false`, or an object that says more than `true`.
    FlagOrSection(&'static [Key]),
    /// Sections under names of the operator's.
    Named(&'static [Key]),
}

/// What holds while a key is not in the settings.
pub(crate) enum Without {
    /// It is a mistake.
    Required,
    /// This value, as JSON.
    Default(&'static str),
    /// This, in words and Markdown.
    Words(&'static str),
}

use Without::{Default, Required, Words};

const NONE: Without = Words("none");

const fn key(name: &'static str, kind: Kind, without: Without, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        without,
        meaning,
    }
}

/// A text without Markdown: code without its marks, links without where they lead.
pub(crate) fn plain(markdown: &str) -> String {
    let mut plain = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once("](") {
        let (before, name) = before.rsplit_once('[').unwrap_or(("", before));
        plain.extend([before, name]);
        rest = link.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

/// The outermost object.
pub(crate) static ROOT: [Key; 10] = [
    key(
        "$schema",
        Kind::Text("URL or path"),
        NONE,
        "For editors: where the JSON Schema of the settings is, which `fpush schema` prints",
    ),
    key(
        "component",
        Kind::Sections(&COMPONENT),
        Required,
        "The link to the XMPP server, or a list of links",
    ),
    key(
        "pushModules",
        Kind::Named(&MODULE),
        Required,
        "A module for each app at each provider, by the name that publishes use; one at least",
    ),
    key(
        "registration",
        Kind::Section(&REGISTRATION),
        Words("no app registers"),
        "For apps that register their devices first",
    ),
    key(
        "monitoring",
        Kind::Section(&MONITORING),
        Words("no listener"),
        "Metrics, health and the status page",
    ),
    key(
        "logging",
        Kind::Section(&LOGGING),
        NONE,
        "What is logged, and how",
    ),
    key(
        "stateDirectory",
        Kind::Path,
        Words("what systemd made (`StateDirectory=`), otherwise none"),
        "Where block lists and held pushes survive a restart",
    ),
    key(
        "runtimeDirectory",
        Kind::Path,
        Words("what systemd made (`RuntimeDirectory=`), otherwise `/run/fpush` if it is there"),
        "Where the socket is over which `fpush send`, `fpush token`, `fpush reload` and `fpush check --connect` ask a running \
         fpush. Two instances on one machine need one each",
    ),
    key(
        "timeout",
        Kind::Section(&TIMEOUT),
        NONE,
        "The pause between logins",
    ),
    key(
        "cluster",
        Kind::Section(&CLUSTER),
        Words("an instance shares nothing"),
        "What [several instances](../operate/instances.md) share, over Valkey or Redis",
    ),
];

#[cfg(test)]
#[test]
fn markdown_becomes_plain() {
    let text = "See [the `a` b](../c.md#d), or `e` [f](g).";
    assert_eq!(plain(text), "See the a b, or e f.");
    assert_eq!(plain("a `b` c"), "a b c");
}

#[cfg(all(
    test,
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_cluster",
    feature = "enable_fcm_support",
    feature = "enable_webpush_support"
))]
mod tests;
