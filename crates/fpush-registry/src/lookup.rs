//! Finds devices for publishes, and hears what became of their pushes.

use std::{sync::Arc, time::Duration};

use fpush_push::{
    Ending, Found, LaneId, Lookup, OwnDevice, Recipient, Record, Token, Unavailable, is_tigase_node,
};
use tokio::time::Instant;

use crate::{
    asking::Asking,
    cache::Cached,
    change::{Change, Done},
    device::Dialect,
    entry::{Entry, Field},
    former,
    jobs::Origin,
    secrets::WrongSecrets,
    shared::{Shared, ask},
    targets::Targets,
    text::{MAX_JID, MAX_NODE, is_sane, secret_matches},
    time::Time,
    times::Noted,
};

/// Finds devices.
pub(crate) struct Finder {
    shared: Arc<Shared>,
    targets: Arc<Targets>,
    wrong_secrets: Arc<WrongSecrets>,
    /// Look-ups that ask the database.
    asking: Arc<Asking>,
    /// Between two pushes to a device.
    spacing: Duration,
}

impl Finder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        targets: Arc<Targets>,
        wrong_secrets: Arc<WrongSecrets>,
        spacing: Duration,
    ) -> Self {
        Self {
            shared,
            targets,
            wrong_secrets,
            asking: Arc::default(),
            spacing,
        }
    }

    /// Looks up the node of a publish of this sender that carries this secret.
    pub(crate) fn find(self: &Arc<Self>, node: &str, secret: Option<&str>, sender: &str) -> Lookup {
        if !is_sane(node, MAX_NODE) {
            return Lookup::Settled(Found::Nothing);
        }
        let cached = self.shared.cache.as_ref().map(|cache| cache.find(node, secret));
        match cached {
            Some(Cached::Device {
                entry,
                module,
                is_first_use,
            }) => {
                let first_use = secret.filter(|_| is_first_use);
                return Lookup::Settled(Found::Device(self.recipient(entry, module, first_use)));
            }
            // Others may have replaced the secret; where none was given, or too many wrong ones were, nobody is asked.
            Some(Cached::WrongSecret)
                if secret.is_none() || !self.wrong_secrets.may_try(node, sender, Instant::now()) =>
            {
                return Lookup::Settled(Found::WrongSecret);
            }
            // Without a secret it may be a token, which no registry has to be asked for.
            Some(Cached::Nothing) if secret.is_none() && !self.needs_no_secret(node) => {
                return Lookup::Settled(self.unknown(node));
            }
            // Others may have registered it since. Without a cache the database alone knows the right secret, which always
            // passes, so that each is asked for: one costs no more than another.
            Some(Cached::WrongSecret | Cached::Nothing | Cached::Incomplete) | None => {}
        }
        let (finder, node) = (Arc::clone(self), node.to_owned());
        let (secret, sender) = (secret.map(str::to_owned), sender.to_owned());
        Lookup::Asking(Box::pin(async move {
            let found = finder.ask_for(&node, secret.as_deref(), &sender).await?;
            if matches!(found, Found::WrongSecret) && secret.is_some() {
                finder.wrong_secrets.count(&node, &sender, Instant::now());
            }
            Ok(found)
        }))
    }

    /// Whether a node may be one that is published to without a secret.
    fn needs_no_secret(&self, node: &str) -> bool {
        is_tigase_node(node) || self.shared.foreign.needs_no_secret(node)
    }

    /// What a node is without a secret that is registered nowhere here.
    fn unknown(&self, node: &str) -> Found {
        if is_tigase_node(node) {
            Found::Reserved
        } else if self.shared.foreign.is_no_token(node) {
            Found::Foreign
        } else if self.targets.has_providers() || self.shared.foreign.needs_no_secret(node) {
            Found::Unsure
        } else {
            Found::Nothing
        }
    }

    /// Asks the database for a node.
    async fn ask_for(&self, node: &str, secret: Option<&str>, sender: &str) -> Result<Found, Unavailable> {
        let _question = self.asking.begin(sender).ok_or(Unavailable)?;
        let Some(device) = ask(self.shared.store.find(node)).await? else {
            if (secret.is_some() || self.needs_no_secret(node)) && self.has_ended(node).await? {
                return Ok(Found::Ended);
            }
            return Ok(match secret {
                Some(_) => Found::Nothing,
                None => self.unknown(node),
            });
        };
        let first_use =
            if device.dialect == Dialect::Tigase || secret_matches(device.secret.as_bytes(), secret) {
                None
            } else {
                match former::matching(&device.former, secret, Time::now()) {
                    Some(former) => secret.filter(|_| !former.used),
                    None => return Ok(Found::WrongSecret),
                }
            };
        let module = self.targets.of(device.dialect, &device.kind);
        Ok(Found::Device(self.recipient(
            Entry::new(&device, 0),
            module,
            first_use,
        )))
    }

    /// The devices of an owner, the newest first; a few at most.
    pub(crate) async fn owned(&self, owner: &str) -> Result<Vec<OwnDevice>, Unavailable> {
        if !is_sane(owner, MAX_JID) {
            return Ok(Vec::new());
        }
        let devices = ask(self.shared.store.newest_owned(owner, MOST_SHOWN)).await?;
        let time = |time: Time| time.whole_seconds().to_string();
        let own = devices.into_iter().map(|mut device| {
            self.shared.times.complete(&mut device);
            let module = self.targets.of(device.dialect, &device.kind);
            OwnDevice {
                recipient: self.recipient(Entry::new(&device, 0), module, None),
                registered: time(device.registered),
                renewed: device.renewed.map(time),
                accepted: device.delivered.map(time),
                refused: device.failed.map(time),
                kind: device.kind,
            }
        });
        Ok(own.collect())
    }

    /// Whether the registry has itself ended the registration of a node, and nothing that came after that can be lost.
    async fn has_ended(&self, node: &str) -> Result<bool, Unavailable> {
        let Some(known) = self.shared.known() else {
            return Ok(false);
        };
        let hash = self.shared.tombstone(node).ok_or(Unavailable)?;
        ask(self.shared.store.has_tombstone(&hash, &known)).await
    }

    /// `first_use` is a secret that was replaced, and that nobody was known to use.
    fn recipient(&self, entry: Entry, module: Arc<str>, first_use: Option<&str>) -> Recipient {
        let text = |field| entry.text(field);
        let node = text(Field::Node).unwrap_or_default();
        if let Some(secret) = first_use {
            let noted = Noted {
                former: Some(secret.into()),
                ..Noted::default()
            };
            self.shared.times.note(&node, noted);
        }
        Recipient {
            node: node.into(),
            module,
            token: Token::new(&text(Field::Token).unwrap_or_default()),
            voip_token: text(Field::VoipToken).map(|token| Token::new(&token)),
            account: text(Field::Account).map(Arc::from),
            channel: text(Field::Channel).map(Arc::from),
            spacing: self.spacing,
            home: if entry.in_second() {
                LaneId::Second
            } else {
                LaneId::Main
            },
            record: Arc::new(Pushed {
                entry,
                shared: Arc::clone(&self.shared),
            }),
        }
    }
}

/// Where the pushes to a device that was found are recorded.
struct Pushed {
    shared: Arc<Shared>,
    /// The device as it was when it was found.
    entry: Entry,
}

impl Pushed {
    fn note(&self, noted: Noted) {
        if let Some(node) = self.entry.text(Field::Node) {
            self.shared.times.note(&node, noted);
        }
    }

    /// The present, but later than the registration: the clock may have been set back since, or the registration may be dated a
    /// little later than it came, because others of this node came in the same millisecond. Otherwise a secret with which pushes
    /// come would be taken for one that nobody uses.
    fn now(&self) -> Time {
        Time::now().max(self.entry.changed().next())
    }
}

impl Record for Pushed {
    fn delivered(&self, lane: LaneId) {
        let in_second = lane == LaneId::Second;
        self.note(Noted {
            delivered: Some(self.now()),
            in_second: (in_second != self.entry.in_second()).then_some(in_second),
            ..Noted::default()
        });
    }

    fn failed(&self) {
        self.note(Noted {
            failed: Some(self.now()),
            ..Noted::default()
        });
    }

    fn gone(&self, since: Option<u64>) -> Ending {
        // A provider that names no time speaks of the registration that the push was for.
        let before = match since {
            Some(since) => Time(i64::try_from(since).unwrap_or(i64::MAX)),
            None => self.entry.changed().next(),
        };
        let (shared, entry) = (Arc::clone(&self.shared), self.entry.clone());
        Box::pin(async move {
            let (Some(node), Some(token)) = (entry.text(Field::Node), entry.text(Field::Token)) else {
                return Err(Unavailable);
            };
            match shared
                .jobs
                .write(Origin::Own, Change::Dead { node, token, before })
                .await
            {
                Ok(Done::Removed(removed)) => Ok(removed),
                Ok(Done::Device { .. } | Done::Imported(_) | Done::Accepted(_)) | Err(_) => Err(Unavailable),
            }
        })
    }
}

/// Of the devices of one owner.
const MOST_SHOWN: i64 = 50;
