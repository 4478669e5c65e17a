//! A registered device.

use std::{
    fmt,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use fpush_push::masked;

use crate::former::{self, Former};

/// The way in which a device registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `mod_push_appserver`'s commands, or its HTTP API: the client chooses the node.
    Seed,
    /// p2's commands, as Conversations sends them.
    P2,
    /// Tigase's commands, as Siskin sends them: the node needs no secret.
    Tigase,
}

/// A time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub(crate) i64);

/// A registered device. It has no `Debug` that shows more than the dialect: all else is somebody's secret or address.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// How it registered.
    pub dialect: Dialect,
    /// The push type; the provider id in Tigase's dialect.
    pub kind: String,
    /// The name under which it is published to; unique.
    pub node: String,
    /// What a publish has to carry.
    pub secret: String,
    /// Its token at the provider.
    pub token: String,
    /// Its second token, for calls.
    pub call_token: Option<String>,
    /// The bare JID that registered it; none if it came over HTTP.
    pub owner: Option<String>,
    /// What tells the app which of its accounts is meant.
    pub account: Option<String>,
    /// What tells the app which group chat is meant.
    pub channel: Option<String>,
    /// When it registered first.
    pub registered: Time,
    /// When it registered again.
    pub renewed: Option<Time>,
    /// When the provider last accepted a push (`last_successful_push`).
    pub delivered: Option<Time>,
    /// When the provider last refused a push (`last_push_error`).
    pub failed: Option<Time>,
    /// Secrets that were replaced and are good for a while.
    pub former: Vec<Former>,
    /// Whether it came from elsewhere without an owner, and nobody has registered it here since: nobody knows whether its
    /// app registers over XMPP or over HTTP.
    pub imported: bool,
}

impl Dialect {
    pub(crate) const ALL: [Self; 3] = [Self::Seed, Self::P2, Self::Tigase];

    /// Its name in the database and in an export.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "mod_push_appserver",
            Self::P2 => "p2",
            Self::Tigase => "tigase",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}

impl Device {
    /// When it last registered.
    #[must_use]
    pub fn changed(&self) -> Time {
        self.renewed.unwrap_or(self.registered)
    }

    /// Whether a secret is the device's, or one that was replaced and is still good.
    pub(crate) fn opens(&self, secret: Option<&str>, now: Time) -> bool {
        opens(self.secret.as_bytes(), secret) || former_opens(&self.former, secret, now)
    }

    /// Whether every field has a sane length and no control characters.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let optional = |field: &Option<String>, max| field.as_deref().is_none_or(|text| is_sane(text, max));
        is_sane(&self.kind, MAX_KIND)
            && is_sane(&self.node, MAX_NODE)
            && is_sane(&self.secret, MAX_SECRET)
            && is_sane(&self.token, MAX_TOKEN)
            && optional(&self.call_token, MAX_TOKEN)
            && optional(&self.owner, MAX_JID)
            && optional(&self.account, MAX_JID)
            && optional(&self.channel, MAX_JID)
            && self.former.len() <= former::MOST
            && self
                .former
                .iter()
                .all(|former| is_sane(&former.secret, MAX_SECRET))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

impl Time {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// A time in milliseconds since 1970.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339, in UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339(text).ok().map(Self::from)
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add_unsigned(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    pub(crate) fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub_unsigned(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The last millisecond that four digits of a year can say.
    const LAST: i64 = 253_402_300_799_999;
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// RFC 3339 in UTC, with milliseconds where there are any: `2017-03-18T04:07:44Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.clamp(0, Self::LAST)).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        if millis.is_multiple_of(1_000) {
            humantime::format_rfc3339_seconds(time).fmt(f)
        } else {
            humantime::format_rfc3339_millis(time).fmt(f)
        }
    }
}

/// Whether a text that a stranger chose has 1 to `max` bytes and no control characters.
pub(crate) fn is_sane(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a text is what apps have for an id of their device: a UUID, with or without its dashes, or up to 32 hexadecimal
/// digits, such as an Android ID. No provider's tokens have that form.
pub(crate) fn is_device_id(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<_> = text.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    parts.iter().copied().all(is_hex) && (is_uuid || (parts.len() == 1 && text.len() <= 32))
}

/// Whether a secret is the right one. The time that it takes says nothing about where two secrets differ.
pub(crate) fn opens(right: &[u8], given: Option<&str>) -> bool {
    given.is_some_and(|given| verify_slices_are_equal(right, given.as_bytes()).is_ok())
}

/// Whether a secret is one that was replaced and is still good.
pub(crate) fn former_opens(former: &[Former], given: Option<&str>, now: Time) -> bool {
    former
        .iter()
        .any(|former| former.until > now && opens(former.secret.as_bytes(), given))
}

/// 256 random bits, in hex.
///
/// # Errors
///
/// The operating system has no randomness to give.
pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(hex(&bits))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes of a push type or a provider id.
pub(crate) const MAX_KIND: usize = 128;
/// Bytes of a node.
pub(crate) const MAX_NODE: usize = 512;
/// Bytes of a secret; ours have 64.
pub(crate) const MAX_SECRET: usize = 256;
/// Bytes of a token.
pub(crate) const MAX_TOKEN: usize = 4_096;
/// Bytes of a bare JID: two parts of 1,023 bytes and an at sign.
pub(crate) const MAX_JID: usize = 2_047;
/// Bytes of a device id.
pub(crate) const MAX_DEVICE_ID: usize = 512;

impl Device {
    /// What may be shown of the secret.
    #[must_use]
    pub fn masked_secret(&self) -> String {
        masked(&self.secret)
    }
}
