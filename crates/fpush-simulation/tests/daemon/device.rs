//! The devices of the world: what is true of them, whatever fpush believes.

use fpush_push::{Class, Urgency};

use crate::{random::Random, stanzas::MARK};

/// What tokens look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Apple's.
    Hex,
    /// Google's.
    Text,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Text => "text",
        }
    }

    pub(crate) fn canonical(self, token: &str) -> Option<String> {
        let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self {
            Self::Hex => (is_hex && (2..=200).contains(&token.len()) && token.len().is_multiple_of(2))
                .then(|| token.to_ascii_lowercase()),
            Self::Text => (!is_hex && (20..=4_096).contains(&token.len())).then(|| token.to_owned()),
        }
    }

    pub(crate) fn class(self, urgency: Urgency) -> Class {
        match (urgency, self) {
            (Urgency::Low, _) => Class::Low,
            (Urgency::Voip, Self::Hex) => Class::Voip,
            (Urgency::Voip, Self::Text) | (Urgency::High, _) => Class::High,
        }
    }

    pub(crate) fn token(self, random: &mut Random) -> String {
        let [one, two] = [random.next(), random.next()];
        match self {
            Self::Hex => format!("{MARK}{one:016x}{two:016x}{:020x}", random.next()),
            Self::Text => format!("{MARK}:{one:x}-{two:x}_x"),
        }
    }
}

/// How a device is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Its publishes carry the token and name the module.
    Named,
    /// Its publishes carry the token alone.
    Unnamed,
    /// It has registered.
    Registered {
        node: String,
        secret: String,
        account: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Which app it has.
    pub(crate) app: usize,
    /// Its token, by its place in the app.
    pub(crate) token: usize,
    pub(crate) way: Way,
    /// Who publishes: the server itself, or the account.
    pub(crate) from: String,
}

pub(crate) const DOMAINS: [&str; 5] = [
    "one.example.org",
    "chat.one.example.org",
    "two.example.com",
    "three.co.uk",
    "four.de",
];

impl Device {
    pub(crate) fn new(
        number: usize,
        app: usize,
        token: usize,
        is_default: bool,
        is_alone: bool,
        random: &mut Random,
    ) -> Self {
        // One that nobody else uses is not known before its first push.
        let domain = if is_alone {
            format!("small-{number}.example")
        } else {
            random.one_of(&DOMAINS).to_owned()
        };
        let way = match random.below(4) {
            0 | 1 => Way::Registered {
                node: format!("node-{number}"),
                secret: format!("{MARK}{:016x}", random.next()),
                account: format!("{MARK}account{number}"),
            },
            2 if is_default => Way::Unnamed,
            _ => Way::Named,
        };
        let from = if random.one_in(2) {
            domain
        } else {
            format!("{MARK}{number}@{domain}")
        };
        Self {
            app,
            token,
            way,
            from,
        }
    }

    /// What tells its pushes from those of others with its token.
    pub(crate) fn account(&self) -> Option<&str> {
        match &self.way {
            Way::Registered { account, .. } => Some(account),
            Way::Named | Way::Unnamed => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&str> {
        match &self.way {
            Way::Registered { node, .. } => Some(node),
            Way::Named | Way::Unnamed => None,
        }
    }
}
