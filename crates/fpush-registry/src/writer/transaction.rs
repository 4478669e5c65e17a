//! One transaction: what it changes, what others are told of it, and how many devices there are then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use fpush_push::Unavailable;

use super::ahead::Ahead;
use crate::{
    change::{Change, Done},
    device::{Device, share_of},
    error::RegisterError,
    foreign::Form,
    p2::is_somebody,
    past::{Ended, Known},
    rules::{self, Claim, Joins, Needs},
    shared::Shared,
    store::{Counted, Removed, Writing},
    text::random_hex,
    time::Time,
};

/// What a transaction does to memory once it is committed.
pub(super) enum Effect {
    /// A device is there.
    Put(Arc<Device>),
    /// The device with this node is not there any more, and why; with the registrable domain of its owner.
    Remove(String, Ended, String),
}

/// Which bound refused a new device.
pub(super) enum NoRoom {
    InAll,
    /// Of this registrable domain; of those without an owner if it is empty.
    OfDomain(String),
}

/// What was committed.
pub(super) struct Committed {
    pub(super) effects: Vec<Effect>,
    /// Whether a new device was refused.
    pub(super) no_room: Option<NoRoom>,
    /// What is known of the database from then on, unless it is doubted.
    pub(super) known: Option<Known>,
    /// Of how many changes others were told.
    pub(super) told: usize,
}

/// A transaction.
pub(super) struct Transaction<'a> {
    shared: &'a Shared,
    /// Marks the changes that are ours.
    source: &'a str,
    /// The last change that is known of the database.
    before: Option<&'a Known>,
    pub(super) writing: Writing,
    /// What the database need not be asked for any more.
    ahead: Ahead,
    /// Devices that are not written yet, the last ones of the effects: many are written with one statement.
    unwritten: Vec<Arc<Device>>,
    effects: Vec<Effect>,
    /// How many devices more there are.
    more: Counted,
    /// As how many more those of each domain count.
    more_of: HashMap<String, i64>,
    /// As how many all devices counted at the beginning, and those of domains, as far as that was asked for.
    places: Option<i64>,
    places_of: HashMap<String, i64>,
    no_room: Option<NoRoom>,
    /// What nodes of imported devices look like, as far as that was not known.
    foreign: HashSet<Form>,
}

impl<'a> Transaction<'a> {
    pub(super) async fn begin(
        shared: &'a Shared,
        source: &'a str,
        before: Option<&'a Known>,
    ) -> Result<Self, sqlx::Error> {
        Ok(Self {
            shared,
            source,
            before,
            writing: shared.store.begin().await?,
            ahead: Ahead::default(),
            unwritten: Vec::new(),
            effects: Vec::new(),
            more: Counted::default(),
            more_of: HashMap::new(),
            places: None,
            places_of: HashMap::new(),
            no_room: None,
            foreign: HashSet::new(),
        })
    }

    /// Asks for what these changes, which come next, may be about: at most [`AT_ONCE`](crate::store::AT_ONCE) of them.
    pub(super) async fn look_ahead<'c>(
        &mut self,
        changes: impl ExactSizeIterator<Item = &'c Change>,
    ) -> Result<(), sqlx::Error> {
        self.write().await?;
        // Few ask for less themselves.
        self.ahead = if changes.len() < FEW {
            Ahead::default()
        } else {
            Ahead::of(&mut self.writing, changes).await?
        };
        Ok(())
    }

    /// Writes what is not written yet. Before anything else is read of the devices than what was asked for ahead.
    async fn write(&mut self) -> Result<(), sqlx::Error> {
        // Of several with the same node the last one counts.
        let mut nodes = HashSet::new();
        let devices = self.unwritten.iter().rev().map(|device| &**device);
        let devices: Vec<_> = devices.filter(|device| nodes.insert(&device.node)).collect();
        self.writing.put_all(&devices, None).await?;
        self.unwritten.clear();
        Ok(())
    }

    /// The same before devices change in another way than by registrations.
    async fn write_and_forget(&mut self) -> Result<(), sqlx::Error> {
        self.ahead = Ahead::default();
        self.write().await
    }

    /// Makes one change. What it is refused for is a result; an error is the database's.
    pub(super) async fn make(&mut self, change: &Change) -> Result<Result<Done, RegisterError>, sqlx::Error> {
        Ok(match change {
            Change::Register { claim, voip_token } => self.register(claim, voip_token.clone()).await?,
            Change::Unregister { claim } => {
                let (existing, _) = self.find(claim).await?;
                match rules::unregister(claim, existing) {
                    Ok(device) => {
                        self.remove(&device.node, Ended::Unregistered).await?;
                        Ok(Done::Device {
                            device: Box::new(device),
                            is_new: false,
                        })
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Change::Dead { node, token, before } => {
                self.write_and_forget().await?;
                // The registration that the word is about may be an older one than the device has.
                if !self.is_as_known().await? {
                    return Ok(Err(Unavailable.into()));
                }
                let removed = self.writing.remove_dead(node, token, *before).await?;
                Ok(Done::Removed(self.note_removed(removed, Ended::Dead)))
            }
            Change::Import { devices, first } => {
                self.write_and_forget().await?;
                Ok(Done::Imported(self.import(&devices[*first..]).await?))
            }
            Change::Remove { node } => Ok(Done::Removed(self.remove(node, Ended::Removed).await?)),
            Change::Accept => {
                self.write_and_forget().await?;
                self.writing.count_domains().await?;
                let devices = self.writing.accept(Time::now()).await?;
                // What this transaction has changed before is counted with it.
                self.more = Counted::default();
                self.more_of.clear();
                self.places = None;
                self.places_of.clear();
                Ok(Done::Accepted(u64::try_from(devices).unwrap_or(0)))
            }
        })
    }

    /// Removes at most so many devices that nobody used since then. Returns how many.
    pub(super) async fn expire(&mut self, since: Time, limit: i64) -> Result<usize, sqlx::Error> {
        if !self.is_as_known().await? {
            return Ok(0);
        }
        let unused = self.writing.remove_unused(since, limit).await?;
        let number = unused.len();
        for removed in unused {
            self.note_removed(Some(removed), Ended::Expired);
        }
        Ok(number)
    }

    /// Forgets what is too much, and what is old if the time is believed. Returns whether there may be more.
    pub(super) async fn forget(&mut self, now: Option<Time>) -> Result<bool, sqlx::Error> {
        self.writing.forget(now).await
    }

    /// Forgets changes and states of which there are too many.
    pub(super) async fn limit_changes(&mut self) -> Result<(), sqlx::Error> {
        self.writing.forget_states().await?;
        self.writing.forget_changes(None).await.map(drop)
    }

    /// Forgets tombstones of which there are too many.
    pub(super) async fn limit_tombstones(&mut self) -> Result<(), sqlx::Error> {
        self.writing.limit_tombstones().await.map(drop)
    }

    /// Makes everything last, with what belongs to every change of devices: tombstones, the new state, and what other
    /// processes are told. Of several effects on a node only the last one counts there.
    pub(super) async fn commit(mut self) -> Result<Committed, sqlx::Error> {
        let (known, told) = self.conclude().await?;
        self.writing.commit().await?;
        self.shared.foreign.learn(self.foreign);
        Ok(Committed {
            told,
            effects: self.effects,
            no_room: self.no_room,
            known,
        })
    }

    /// Returns what is known of the database from then on, and of how many changes others are told.
    async fn conclude(&mut self) -> Result<(Option<Known>, usize), sqlx::Error> {
        self.write().await?;
        if self.effects.is_empty() {
            return Ok((None, 0));
        }
        let (now, mut told) = (Time::now(), HashSet::new());
        let before = self.before.filter(|_| self.shared.doubt().is_none());
        let (change, known) = self.writing.advance(self.more, now, before).await?;
        let (mut nodes, mut unburied) = (Vec::new(), Vec::new());
        for effect in self.effects.iter().rev() {
            let node = match effect {
                Effect::Put(device) => device.node.as_str(),
                Effect::Remove(node, ..) => node,
            };
            if !told.insert(node) {
                continue;
            }
            nodes.push(node);
            let hash = self.shared.tombstone(node).ok_or(sqlx::Error::PoolClosed)?;
            match effect {
                Effect::Put(_) => unburied.push(hash),
                Effect::Remove(_, ended, _) => self.writing.bury(&hash, *ended, now, change).await?,
            }
        }
        self.writing.unbury_all(&unburied).await?;
        self.writing.tell_all(&nodes, now, self.source).await?;
        self.writing.notify(self.source).await?;
        for (domain, more) in &self.more_of {
            if *more != 0 {
                self.writing.count_of(domain, *more).await?;
            }
        }
        Ok((known, nodes.len()))
    }

    async fn register(
        &mut self,
        claim: &Claim,
        voip_token: Option<String>,
    ) -> Result<Result<Done, RegisterError>, sqlx::Error> {
        let (mut existing, owned) = self.find(claim).await?;
        if let Some(device) = &mut existing {
            self.shared.times.complete(device);
        }
        let secret = random_hex().map_err(|e| sqlx::Error::Io(e.into()))?;
        let joins = Joins::of(claim, existing.as_ref());
        let replaced = existing.as_ref().map(Replaced::of);
        let rules = self.shared.rules.max_per_owner;
        let device = match rules::register(claim, voip_token, existing, owned, secret, rules) {
            Ok(device) => device,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let places = replaced.as_ref().map_or(0, |replaced| replaced.places);
        let needs = joins.needs(device.places(), places);
        if let Some(no_room) = self.room(needs, claim.owner()).await? {
            self.no_room = Some(no_room);
            return Ok(Err(RegisterError::Full));
        }
        let is_new = replaced.is_none();
        let device = Arc::new(device);
        self.ahead.put(&device);
        self.unwritten.push(Arc::clone(&device));
        self.note_put(Arc::clone(&device), replaced);
        Ok(Ok(Done::Device {
            device: Box::new(Device::clone(&device)),
            is_new,
        }))
    }

    /// Notes what the node of an imported device looks like, if that was not known.
    pub(super) async fn learn(&mut self, form: Form) -> Result<(), sqlx::Error> {
        if !self.shared.foreign.knows(&form) && self.foreign.insert(form) {
            self.writing.add_foreign(&form).await?;
        }
        Ok(())
    }

    /// Whether there is room for so much more of this owner's domain; if not, why.
    async fn room(&mut self, needs: Needs, owner: Option<&str>) -> Result<Option<NoRoom>, sqlx::Error> {
        let rules = &self.shared.rules;
        if needs.in_all > 0 {
            let places = match self.places {
                Some(places) => places,
                None => *self.places.insert(self.writing.counted().await?),
            };
            if places + self.more.places + needs.in_all > rules.max_devices {
                return Ok(Some(NoRoom::InAll));
            }
        }
        let domain = share_of(owner);
        if needs.of_domain == 0 || rules.trusts(&domain) {
            return Ok(None);
        }
        let more = self.more_of.get(&*domain).copied().unwrap_or(0) + needs.of_domain;
        let known = match self.places_of.get(&*domain) {
            Some(places) => *places,
            None => {
                let places = self.writing.counted_of(&domain).await?;
                self.places_of.insert(domain.clone().into_owned(), places);
                places
            }
        };
        let places = known + more;
        Ok((places > rules.max_devices_per_domain).then(|| NoRoom::OfDomain(domain.into_owned())))
    }

    /// The registration that is meant, and how many its owner has.
    async fn find(&mut self, claim: &Claim) -> Result<(Option<Device>, usize), sqlx::Error> {
        let owned = match claim.owner() {
            Some(owner) if !is_somebody(owner) => self.owned_by(owner).await?,
            Some(_) | None => Vec::new(),
        };
        let number = owned.len();
        let is_meant = |device: &Device| claim.refers_to(device);
        let mut existing = owned.into_iter().find(is_meant);
        if existing.is_none() {
            existing = self.with_node(&claim.node).await?;
        }
        if let (None, Some((somebody, account))) = (&existing, claim.unknown_account()) {
            let imported = self.of_account(account, &somebody).await?;
            existing = imported.into_iter().find(is_meant);
        }
        Ok((existing, number))
    }

    async fn owned_by(&mut self, owner: &str) -> Result<Vec<Device>, sqlx::Error> {
        if let Some(owned) = self.ahead.owned_by(owner) {
            return Ok(owned);
        }
        self.write().await?;
        self.writing.owned_by(owner).await
    }

    async fn with_node(&mut self, node: &str) -> Result<Option<Device>, sqlx::Error> {
        if let Some(device) = self.ahead.with_node(node) {
            return Ok(device);
        }
        self.write().await?;
        self.writing.find(node).await
    }

    async fn of_account(&mut self, account: &str, owner: &str) -> Result<Vec<Device>, sqlx::Error> {
        if let Some(devices) = self.ahead.of_account(account, owner) {
            return Ok(devices);
        }
        self.write().await?;
        self.writing.of_account(account, owner).await
    }

    /// Whether the database is still the one that it was when it was last looked at.
    async fn is_as_known(&mut self) -> Result<bool, sqlx::Error> {
        match self.before {
            Some(before) if self.shared.doubt().is_none() => self.writing.has_in_past(before).await,
            Some(_) | None => Ok(false),
        }
    }

    /// Notes a device that is written, in the place of another one if there is one.
    pub(super) fn note_put(&mut self, device: Arc<Device>, replaced: Option<Replaced>) {
        if let Some(Replaced { owner, places }) = replaced {
            self.count(owner.as_deref(), -1, -places);
        }
        self.count(device.owner.as_deref(), 1, device.places());
        self.effects.push(Effect::Put(device));
    }

    pub(super) async fn remove(&mut self, node: &str, ended: Ended) -> Result<bool, sqlx::Error> {
        self.write_and_forget().await?;
        let removed = self.writing.remove(node).await?;
        Ok(self.note_removed(removed, ended))
    }

    /// Returns whether there was one.
    fn note_removed(&mut self, removed: Option<Removed>, ended: Ended) -> bool {
        let Some(Removed { node, owner, places }) = removed else {
            return false;
        };
        self.count(owner.as_deref(), -1, -places);
        let share = share_of(owner.as_deref()).into_owned();
        self.effects.push(Effect::Remove(node, ended, share));
        true
    }

    fn count(&mut self, owner: Option<&str>, devices: i64, places: i64) {
        self.more.devices += devices;
        self.more.places += places;
        *self.more_of.entry(share_of(owner).into_owned()).or_default() += places;
    }
}

/// What is counted of a device in whose place another one comes.
pub(super) struct Replaced {
    owner: Option<String>,
    places: i64,
}

impl Replaced {
    pub(super) fn of(device: &Device) -> Self {
        Self {
            owner: device.owner.clone(),
            places: device.places(),
        }
    }
}

/// Changes for which nothing is asked ahead: that would be no fewer statements.
const FEW: usize = 3;
