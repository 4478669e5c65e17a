//! What the writer does beside writing jobs: it reads what others wrote, looks whether the database is the one that it was,
//! writes the times of pushes, and removes what is old.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fpush_push::sender;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{BATCH, Follows, Writer, is_due, transaction::NoRoom};
use crate::{
    former,
    past::{DatabaseTrust, Known, Past, compare},
    store::{NOTED_AT_ONCE, is_outage},
    time::Time,
    times::Noted,
    unreadable::Unreadable,
};

impl Writer {
    /// Looks whether the database is the one that it was; `thoroughly` counts the devices, too. While it is doubted, it
    /// is compared with what was known before, and an operator may accept it.
    pub(super) async fn look_at_past(&mut self, thoroughly: bool) -> Result<(), sqlx::Error> {
        let store = &self.shared.store;
        let doubted = self.shared.doubt();
        let present = store.look().await?;
        self.learn_foreign().await?;
        let goes_on = match &self.doubted {
            Some(doubted) => {
                present.known.database == doubted.known.database
                    && store.mark(doubted.known.change).await?.as_ref() == Some(&doubted.known.mark)
            }
            None => false,
        };
        // An acceptance that comes during the doubt is one by whichever clock.
        let accepted = self.doubted.as_ref().and_then(|doubted| doubted.accepted);
        let mut before = self.before.clone();
        if goes_on
            && accepted != present.accepted
            && let Some(before) = &mut before
        {
            (before.seen, before.accepted) = (i64::MIN, i64::MIN);
        }
        let mark = match &before {
            Some(before) => store.mark(before.change).await?,
            None => None,
        };
        let counted = if thoroughly || doubted.is_some() {
            Some(present.known.devices - store.missing().await?)
        } else {
            None
        };
        let known = match compare(before.as_ref(), &present, mark.as_deref(), counted) {
            Past::Known(known) => known,
            Past::Unknown => {
                let mut writing = store.begin().await?;
                writing.begin_past(Time::now()).await?;
                writing.commit().await?;
                store.look().await?.known
            }
            Past::Doubted(doubt) => {
                if doubted.is_none() {
                    error!("{doubt}");
                }
                self.shared.set_trust(DatabaseTrust::Doubted(doubt));
                if !goes_on {
                    self.doubted = Some(present);
                }
                return Ok(());
            }
        };
        if doubted.is_some() {
            info!(
                "the database of registered devices is believed again: it is the one that it was, or was accepted"
            );
        }
        self.doubted = None;
        self.believe(known);
        Ok(())
    }

    /// Reads what nodes look like that other push services made: others may have imported devices. It is known before anything is
    /// looked up, so that none is taken for a token.
    pub(super) async fn learn_foreign(&self) -> Result<(), sqlx::Error> {
        self.shared.foreign.learn(self.shared.store.foreign().await?);
        Ok(())
    }

    /// Says once in a while that a device was refused, and why.
    pub(super) fn tell_of_no_room(&mut self, no_room: &NoRoom) {
        let now = Instant::now();
        if !is_due(self.told_of_no_room, now) {
            return;
        }
        self.told_of_no_room = Some(now);
        let rules = &self.shared.rules;
        match no_room {
            NoRoom::InAll => warn!(
                most = rules.max_devices,
                "a new device was refused: there are as many as registration.maxDevices allows; raise it, or see with fpush \
                 devices list whose they are"
            ),
            NoRoom::OfDomain(domain) if domain.is_empty() => warn!(
                most = rules.max_devices_per_domain,
                "a new device was refused: there are as many devices without an owner (over HTTP, or imported) as \
                 registration.maxDevicesPerDomain allows; raise it if they are your users'"
            ),
            NoRoom::OfDomain(domain) => warn!(
                domain = sender(domain).map(display),
                most = rules.max_devices_per_domain,
                "a new device was refused: there are as many of this domain as registration.maxDevicesPerDomain allows; add \
                 the domain to registration.trustedDomains if you trust it"
            ),
        }
    }

    pub(super) fn believe(&mut self, known: Known) {
        self.before = Some(known.clone());
        self.shared.set_trust(DatabaseTrust::Good(known));
    }

    /// Looks whether the database is the one that it was, and reads some of what other processes changed.
    pub(super) async fn look_and_read(&mut self) {
        match self.try_to_look_and_read().await {
            Ok(true) => self.shared.news.notify_one(),
            Ok(false) => {}
            Err(problem) => self.fail(&self.shared.store.explain(&problem).await),
        }
    }

    async fn try_to_look_and_read(&mut self) -> Result<bool, sqlx::Error> {
        self.doubt_clock().await?;
        self.look_at_past(false).await?;
        self.try_to_read_news().await
    }

    /// Notes in the database that the clock may be ahead, before devices have its times.
    pub(super) async fn doubt_clock(&mut self) -> Result<(), sqlx::Error> {
        let doubt = self
            .expiry
            .and_then(|expiry| expiry.doubt(Instant::now(), Time::now()));
        if let Some((doubted, noted)) = doubt {
            self.shared.store.set_doubted_clock(doubted).await?;
            self.expiry = Some(noted);
            warn!(
                until = %doubted.after(self.shared.expire_after),
                "the clock is far ahead of the last use of a device, or was set far forward: until then no unused device is \
                 removed; if it is right, there is nothing to do"
            );
        }
        Ok(())
    }

    pub(super) async fn try_to_read_news(&mut self) -> Result<bool, sqlx::Error> {
        let Some(cache) = &self.shared.cache else {
            return Ok(false);
        };
        if !self.is_followed().await? {
            self.load().await?;
            return Ok(false);
        }
        let store = &self.shared.store;
        let state = store.last_state().await?;
        let last = store.last_change().await?;
        // Usually memory knows our own.
        let not_from = if self.is_unsure { "" } else { &self.source };
        let changes = store.changes(self.seen, not_from, PAGE as i64).await?;
        // Asked for last, so that none is forgotten in between.
        if store.oldest_change().await? > self.seen.saturating_add(1) {
            self.load().await?;
            return Ok(false);
        }
        let nodes: HashSet<_> = changes.iter().map(|change| change.node.as_str()).collect();
        let mut unreadable = 0;
        for node in nodes {
            match store.find(node).await {
                Ok(Some(device)) => cache.put(&device),
                Ok(None) => cache.remove(node),
                Err(problem) if is_outage(&problem) => return Err(problem),
                // Who looks it up asks the database, and is told to wait.
                Err(_) => {
                    cache.remove(node);
                    unreadable += 1;
                }
            }
        }
        if let Some(unreadable) = Unreadable::of(unreadable) {
            warn!("{unreadable}");
        }
        let more = changes.len() == PAGE;
        self.seen = match changes.last() {
            Some(change) if more => change.id,
            Some(_) | None => self.seen.max(last),
        };
        self.is_unsure &= more;
        if let Some(follows) = &mut self.follows {
            follows.state = state;
        }
        Ok(more)
    }

    /// Whether memory can be brought up to date with what was changed since. It cannot if the database is another one by now,
    /// such as a backup that was restored under us: what went another way there is not in its changes. Nor if it is doubted
    /// since then, or not any more: devices may be missing without a change.
    async fn is_followed(&self) -> Result<bool, sqlx::Error> {
        let Some(Follows { state, doubted }) = &self.follows else {
            return Ok(false);
        };
        if *doubted != self.shared.doubt().is_some() {
            return Ok(false);
        }
        let store = &self.shared.store;
        let mark = store.mark(state.change).await?;
        Ok(mark.as_ref() == Some(&state.mark) && store.last_change().await? >= self.seen)
    }

    /// Writes some of the times of pushes. Returns whether there may be more.
    pub(super) async fn write_times(&mut self) -> bool {
        let taken = self.shared.times.take(NOTED_AT_ONCE);
        if taken.is_empty() {
            return false;
        }
        match self.try_to_write_times(&taken).await {
            Ok(()) => taken.len() == NOTED_AT_ONCE,
            Err(problem) => {
                self.shared.times.put_back(taken);
                self.fail(&self.shared.store.explain(&problem).await);
                false
            }
        }
    }

    async fn try_to_write_times(&self, taken: &[(Box<str>, Noted)]) -> Result<(), sqlx::Error> {
        let uses: HashMap<&str, &str> = taken
            .iter()
            .filter_map(|(node, noted)| Some((&**node, noted.former.as_deref()?)))
            .collect();
        let mut writing = self.shared.store.begin().await?;
        writing.note_pushes(taken).await?;
        // A push came with a secret that was replaced.
        let mut used = Vec::new();
        if !uses.is_empty() {
            let nodes: Vec<_> = uses.keys().copied().collect();
            used = writing.find_noted(&nodes).await?;
            used.retain_mut(|device| {
                let secret = uses.get(device.node.as_str());
                secret.is_some_and(|secret| former::note_use(&mut device.former, secret))
            });
        }
        if !used.is_empty() {
            writing.set_former(&used).await?;
        }
        // Rarely: other instances hear of it.
        let moved = taken.iter().filter(|(_, noted)| noted.in_second.is_some());
        let moved: Vec<_> = moved.map(|(node, _)| &**node).collect();
        if !moved.is_empty() {
            used.extend(writing.find_noted(&moved).await?);
            writing.tell_all(&moved, Time::now(), &self.source).await?;
            writing.notify(&self.source).await?;
        }
        writing.commit().await?;
        if let Some(cache) = &self.shared.cache {
            cache.put_all(&used);
        }
        Ok(())
    }

    /// Removes some of the devices that nobody uses, and old changes. Returns when to go on, if that is soon.
    pub(super) async fn clean(&mut self) -> Option<Duration> {
        match self.try_to_clean().await {
            Ok(more) => more.then_some(Duration::from_secs(1)),
            Err(problem) => {
                self.fail(&self.shared.store.explain(&problem).await);
                Some(CLEAN_AGAIN)
            }
        }
    }

    pub(super) async fn try_to_clean(&mut self) -> Result<bool, sqlx::Error> {
        if self.shared.doubt().is_some() {
            // What looks unused may have been used, and that is lost. What strangers leave is bounded all the same.
            let mut transaction = self.transaction().await?;
            let more = transaction.forget(None).await?;
            let committed = transaction.commit().await?;
            self.settle(committed);
            return Ok(more);
        }
        // What was used a moment ago, or while the database was away, must not look unused.
        while self.write_times().await {
            // A registration that comes meanwhile does not wait for all of it.
            self.write().await;
        }
        if self.outage.is_some() {
            return Ok(true);
        }
        let now = Time::now();
        let mut transaction = self.transaction().await?;
        let believed = self
            .expiry
            .is_some_and(|expiry| expiry.is_believed(Instant::now(), now))
            .then_some(now);
        let unused = match believed {
            Some(now) => {
                let since = now.before(self.shared.expire_after);
                transaction.expire(since, BATCH as i64).await?
            }
            None => 0,
        };
        let more = transaction.forget(believed).await?;
        let committed = transaction.commit().await?;
        self.settle(committed);
        if unused > 0 {
            info!(devices = unused, "unused registrations were removed");
        }
        Ok(more || unused == BATCH)
    }
}

/// After a failure.
const CLEAN_AGAIN: Duration = Duration::from_secs(600);
/// Devices that are read at once.
const PAGE: usize = 5_000;
