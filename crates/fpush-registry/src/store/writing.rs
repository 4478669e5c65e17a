//! What a transaction that writes can do.

use std::time::Duration;

use sqlx::{Postgres, Sqlite, Transaction};

use super::{
    run::{
        Removed, Result, State, Value, bound, devices, first, nodes, numbers, on, only, readable, removed,
        states,
    },
    statements as sql,
};
use crate::{
    device::Device,
    foreign::Form,
    former,
    past::{Accepted, Ended, FIRST_CHANGE, Known},
    text::random_hex,
    time::Time,
    times::Noted,
};

/// A transaction that writes. Without [`commit`](Self::commit) nothing of it remains.
pub(crate) enum Writing {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Devices that are counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) devices: i64,
    /// As how many they count where there are bounds.
    pub(crate) places: i64,
}

impl Writing {
    /// The device with this node.
    pub(crate) async fn find(&mut self, node: &str) -> Result<Option<Device>> {
        let values = [Value::Text(node)];
        first(on!(self, transaction => devices(&mut **transaction, sql::FIND, &values)))
    }

    /// All devices of an owner that can be read.
    pub(crate) async fn owned_by(&mut self, owner: &str) -> Result<Vec<Device>> {
        let values = [Value::Text(owner)];
        readable(on!(self, transaction => devices(&mut **transaction, sql::OWNED, &values)))
    }

    /// The devices of an owner that have this hash of an account.
    pub(crate) async fn of_account(&mut self, account: &str, owner: &str) -> Result<Vec<Device>> {
        let values = [Value::Text(account), Value::Text(owner)];
        readable(on!(self, transaction => devices(&mut **transaction, sql::OF_ACCOUNT, &values)))
    }

    /// Notes that the node with this hash was registered, and is not any more since this change.
    pub(crate) async fn bury(&mut self, hash: &str, ended: Ended, now: Time, change: i64) -> Result<()> {
        let values = [
            Value::Text(hash),
            Value::Number(now.millis()),
            Value::Text(ended.name()),
            Value::Number(change),
        ];
        self.execute(sql::BURY, &values).await.map(drop)
    }

    /// Forgets changes, tombstones and states of which there are too many, and those that are old if the time is believed.
    /// Returns whether there are more to forget.
    pub(crate) async fn forget(&mut self, now: Option<Time>) -> Result<bool> {
        let mut more = self.limit_tombstones().await?;
        if let Some(now) = now {
            let since = Value::Number(now.before(KEEP_TOMBSTONES).millis());
            let values = [since, Value::Number(FORGOTTEN_AT_ONCE)];
            let old = self.execute(sql::FORGET_TOMBSTONES, &values).await?;
            more |= old >= FORGOTTEN_AT_ONCE.unsigned_abs();
        }
        more |= self.forget_states().await?;
        more |= self
            .forget_changes(now.map(|now| now.before(KEEP_CHANGES)))
            .await?;
        Ok(more)
    }

    /// Forgets the oldest tombstones if there are too many, so many at most that others do not wait for long. Returns whether
    /// there may be more of them.
    pub(crate) async fn limit_tombstones(&mut self) -> Result<bool> {
        let values = [Value::Number(MOST_TOMBSTONES), Value::Number(FORGOTTEN_AT_ONCE)];
        let forgotten = self.execute(sql::LIMIT_TOMBSTONES, &values).await?;
        Ok(forgotten >= FORGOTTEN_AT_ONCE.unsigned_abs())
    }

    /// Forgets states that no copy of the database is compared with any more, in the same way.
    pub(crate) async fn forget_states(&mut self) -> Result<bool> {
        let Some(last) = self.last_state().await? else {
            return Ok(false);
        };
        let end = last.change.saturating_sub(KEEP_STATES);
        let at_most = self.number(sql::OLDEST_STATE, &[]).await? + FORGOTTEN_AT_ONCE;
        self.execute(sql::FORGET_STATES, &[Value::Number(end.min(at_most))])
            .await?;
        Ok(end > at_most)
    }

    /// Forgets the changes of which there are too many, and those before a time; the oldest go first, so many at most that
    /// others do not wait for long. The last one stays: by it others see where the database is. Returns whether there are
    /// more to forget.
    pub(crate) async fn forget_changes(&mut self, before: Option<Time>) -> Result<bool> {
        let oldest = self.number(sql::OLDEST_CHANGE, &[]).await?;
        let last = self.number(sql::LAST_CHANGE, &[]).await?;
        let at_most = oldest.saturating_add(FORGOTTEN_AT_ONCE);
        let mut end = last.saturating_sub(MOST_CHANGES - 1);
        if let Some(before) = before
            && end < at_most
        {
            let values = [Value::Number(before.millis())];
            end = end.max(self.number(sql::CHANGE_SINCE, &values).await?);
        }
        let values = [Value::Number(end.min(at_most))];
        self.execute(sql::FORGET_CHANGES, &values).await?;
        Ok(end > at_most)
    }

    /// Notes that the devices change, and how many more there are. Returns the number of the change, and what is known of
    /// the database from then on, if it has the change in its past that was known `before`.
    pub(crate) async fn advance(
        &mut self,
        more: Counted,
        now: Time,
        before: Option<&Known>,
    ) -> Result<(i64, Option<Known>)> {
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        let change = last.change.saturating_add(1);
        let counted = Counted {
            devices: last.devices.saturating_add(more.devices),
            places: last.places.saturating_add(more.places),
        };
        let mark = self.add_state(change, counted, now).await?;
        let is_past = match before {
            // Usually, and then there is nothing to ask for.
            Some(before) if before.change == last.change => before.mark == last.mark,
            Some(before) => self.has_in_past(before).await?,
            None => false,
        };
        let known = before.filter(|_| is_past).map(|before| Known {
            database: before.database.clone(),
            change,
            mark,
            devices: counted.devices,
            // Whether the database was accepted meanwhile was not looked for.
            seen: before.seen,
            accepted: before.accepted,
            since: before.since,
        });
        Ok((change, known))
    }

    /// Notes that somebody who remembers nothing of the database begins to: no copy of it that was made before has this
    /// change. In a new database there is nothing to remember yet.
    pub(crate) async fn begin_past(&mut self, now: Time) -> Result<()> {
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        if last.change > FIRST_CHANGE || last.devices > 0 {
            let counted = Counted {
                devices: last.devices,
                places: last.places,
            };
            self.add_state(last.change.saturating_add(1), counted, now)
                .await?;
        }
        Ok(())
    }

    /// Whether this database has this change in its past.
    pub(crate) async fn has_in_past(&mut self, known: &Known) -> Result<bool> {
        let values = [Value::Number(known.change)];
        let found = on!(self, transaction => nodes(&mut **transaction, sql::MARK, &values))?;
        Ok(found.first() == Some(&known.mark))
    }

    /// As how many the devices count, as it was counted along.
    pub(crate) async fn counted(&mut self) -> Result<i64> {
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok(last.places)
    }

    /// As how many the devices of a domain count, as it was counted along.
    pub(crate) async fn counted_of(&mut self, domain: &str) -> Result<i64> {
        let values = [Value::Text(domain)];
        let found = on!(self, transaction => numbers(&mut **transaction, sql::COUNTED_OF, &values))?;
        Ok(found.first().copied().unwrap_or(0))
    }

    /// Counts so much more of a domain.
    pub(crate) async fn count_of(&mut self, domain: &str, more: i64) -> Result<()> {
        self.execute(sql::COUNT_OF, &[Value::Text(domain), Value::Number(more)])
            .await?;
        if more < 0 {
            self.execute(sql::FORGET_DOMAIN, &[Value::Text(domain)]).await?;
        }
        Ok(())
    }

    /// Notes that the operator says that this is the right database, with the devices that it has. Returns how many.
    pub(crate) async fn accept(&mut self, now: Time) -> Result<i64> {
        let counted = self.count().await?;
        let last = self.last_state().await?.ok_or(sqlx::Error::RowNotFound)?;
        let change = last.change.saturating_add(1);
        self.add_state(change, counted, now).await?;
        let before = self.meta(ACCEPTED).await?;
        let before = before.and_then(|text| Accepted::from_text(&text));
        // Later than the last one, also if the clock was ahead then: a reader that has seen that one has to see this one.
        let after = before.map_or(0, |before| before.at.saturating_add(1));
        let accepted = Accepted {
            at: now.millis().max(after),
            change,
        };
        self.set_meta(ACCEPTED, &accepted.to_text()).await?;
        Ok(counted.devices)
    }

    pub(super) async fn count(&mut self) -> Result<Counted> {
        Ok(Counted {
            devices: self.number(sql::COUNT, &[]).await?,
            places: self.number(sql::COUNT_PLACES, &[]).await?,
        })
    }

    async fn number(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<i64> {
        only(on!(self, transaction => numbers(&mut **transaction, sql, values)))
    }

    pub(super) async fn last_state(&mut self) -> Result<Option<State>> {
        let last = on!(self, transaction => states(&mut **transaction, sql::LAST_STATE, &[]))?;
        Ok(last.into_iter().next())
    }

    pub(super) async fn add_state(&mut self, change: i64, counted: Counted, now: Time) -> Result<String> {
        let mut mark = random_hex().map_err(|e| sqlx::Error::Io(e.into()))?;
        mark.truncate(16);
        let values = [
            Value::Number(change),
            Value::Text(&mark),
            Value::Number(counted.devices),
            Value::Number(now.millis()),
            Value::Number(counted.places),
        ];
        self.execute(sql::ADD_STATE, &values).await?;
        Ok(mark)
    }

    /// Removes the device with this node, if there is one.
    pub(crate) async fn remove(&mut self, node: &str) -> Result<Option<Removed>> {
        let values = [Value::Text(node)];
        let gone = on!(self, transaction => removed(&mut **transaction, sql::REMOVE, &values))?;
        Ok(gone.into_iter().next())
    }

    /// Removes the device with this node and token if it last registered before then.
    pub(crate) async fn remove_dead(
        &mut self,
        node: &str,
        token: &str,
        before: Time,
    ) -> Result<Option<Removed>> {
        let values = [
            Value::Text(node),
            Value::Text(token),
            Value::Number(before.millis()),
        ];
        let gone = on!(self, transaction => removed(&mut **transaction, sql::REMOVE_DEAD, &values))?;
        Ok(gone.into_iter().next())
    }

    /// Removes at most so many devices that were neither registered nor imported nor pushed to since then.
    pub(crate) async fn remove_unused(&mut self, since: Time, limit: i64) -> Result<Vec<Removed>> {
        let values = [Value::Number(since.millis()), Value::Number(limit)];
        on!(self, transaction => removed(&mut **transaction, sql::REMOVE_UNUSED, &values))
    }

    /// Writes when pushes to devices were last accepted and refused, and where: of at most [`NOTED_AT_ONCE`](sql::NOTED_AT_ONCE).
    pub(crate) async fn note_pushes(&mut self, noted: &[(Box<str>, Noted)]) -> Result<()> {
        let values = noted.iter().flat_map(|(node, noted)| {
            [
                Value::MaybeText(Some(node)),
                Value::MaybeNumber(noted.delivered.map(Time::millis)),
                Value::MaybeNumber(noted.failed.map(Time::millis)),
                Value::MaybeNumber(noted.in_second.map(i64::from)),
            ]
        });
        let nobody = [
            Value::MaybeText(None),
            Value::MaybeNumber(None),
            Value::MaybeNumber(None),
            Value::MaybeNumber(None),
        ];
        let values = padded(values, nobody);
        self.execute(self.words(&sql::NOTE_PUSHES), &values)
            .await
            .map(drop)
    }

    /// Those of the devices with these nodes, of which there may be as many, that can be read.
    pub(crate) async fn find_noted(&mut self, nodes: &[&str]) -> Result<Vec<Device>> {
        let nodes = nodes.iter().map(|node| Value::MaybeText(Some(node)));
        let values = padded(nodes, [Value::MaybeText(None)]);
        let sql = self.words(&sql::FIND_NOTED);
        readable(on!(self, transaction => devices(&mut **transaction, sql, &values)))
    }

    /// Writes the secrets of devices, of which there may be as many, that were replaced.
    pub(crate) async fn set_former(&mut self, devices: &[Device]) -> Result<()> {
        let texts: Vec<_> = devices
            .iter()
            .map(|device| former::to_text(&device.former))
            .collect();
        let values = devices
            .iter()
            .zip(&texts)
            .flat_map(|(device, text)| [Some(device.node.as_str()), text.as_deref()].map(Value::MaybeText));
        let values = padded(values, [Value::MaybeText(None); 2]);
        self.execute(self.words(&sql::SET_FORMER), &values)
            .await
            .map(drop)
    }

    /// Notes what nodes look like that another push service made.
    pub(crate) async fn add_foreign(&mut self, form: &Form) -> Result<()> {
        let length = i64::try_from(form.length).unwrap_or(i64::MAX);
        let values = [Value::Text(form.dialect.name()), Value::Number(length)];
        self.execute(sql::ADD_FOREIGN, &values).await.map(drop)
    }

    /// Makes everything last.
    pub(crate) async fn commit(self) -> Result<()> {
        on!(self, transaction => transaction.commit())
    }

    pub(super) async fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let found = self.texts(sql::META, &[Value::Text(name)]).await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn texts(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<String>> {
        on!(self, transaction => nodes(&mut **transaction, sql, values))
    }

    pub(super) async fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        self.execute(sql::SET_META, &[Value::Text(name), Value::Text(value)])
            .await
            .map(drop)
    }

    pub(super) async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        on!(self, transaction => async {
            Ok(bound(sql, values).execute(&mut **transaction).await?.rows_affected())
        })
    }
}

/// The values of a device in the order of the table's columns.
pub(super) fn columns<'d>(
    device: &'d Device,
    former: Option<&'d str>,
    arrived: Option<Time>,
) -> [Value<'d>; 17] {
    [
        Value::Text(&device.node),
        Value::Text(device.dialect.name()),
        Value::Text(&device.kind),
        Value::Text(&device.secret),
        Value::Text(&device.token),
        Value::MaybeText(device.voip_token.as_deref()),
        Value::MaybeText(device.owner.as_deref()),
        Value::MaybeText(device.account.as_deref()),
        Value::MaybeText(device.channel.as_deref()),
        Value::Number(device.registered.millis()),
        Value::MaybeNumber(device.renewed.map(Time::millis)),
        Value::MaybeNumber(device.delivered.map(Time::millis)),
        Value::MaybeNumber(device.failed.map(Time::millis)),
        Value::MaybeText(former),
        Value::Number(i64::from(device.imported)),
        Value::Number(i64::from(device.in_second)),
        Value::MaybeNumber(arrived.map(Time::millis)),
    ]
}

/// The values of devices, and further rows as a statement has room for: without a node they are nobody's.
fn padded<'v, const WIDTH: usize>(
    values: impl Iterator<Item = Value<'v>>,
    nobody: [Value<'v>; WIDTH],
) -> Vec<Value<'v>> {
    let rows = values.chain(nobody.into_iter().cycle());
    rows.take(WIDTH * sql::NOTED_AT_ONCE).collect()
}

/// The name in `meta` of the last acceptance.
pub(super) const ACCEPTED: &str = "accepted";
/// Of these a year holds at most: a stranger can end registrations as fast as commands are taken.
const MOST_TOMBSTONES: i64 = 2_000_000;
/// So many changes back a copy that went another way is known by its marks.
const KEEP_STATES: i64 = 50_000;
/// A reader that has not read a change by the time that so many came after it reads all devices anew: that is faster than to read
/// so many. With the longest nodes they take 120 MB.
pub(crate) const MOST_CHANGES: i64 = 200_000;
/// After this time nobody is left who has not read a change.
const KEEP_CHANGES: Duration = Duration::from_secs(86_400);
/// Rows of each table that are forgotten in one transaction.
pub(crate) const FORGOTTEN_AT_ONCE: i64 = 10_000;
/// How long a node that has ended is known as such.
const KEEP_TOMBSTONES: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use fpush_testkit::TempDir;

    use super::*;
    use crate::{
        past::{Past, compare},
        store::Store,
    };

    /// The clock may have been ahead when the operator accepted the database.
    #[tokio::test]
    async fn an_acceptance_is_seen_once_by_whatever_clock_it_was_made() {
        let folder = TempDir::new();
        let store = Store::sqlite(&folder.path().join("devices.db")).await.unwrap();
        store.migrate().await.unwrap();
        let far = Time::from_millis(Time::now().millis() + 700 * 86_400_000);
        let mut known = store.look().await.unwrap().known;
        // Not in the same millisecond.
        known.seen -= 1;
        for clock in [Time::now(), far, Time::now()] {
            let mut writing = store.begin().await.unwrap();
            writing.accept(clock).await.unwrap();
            writing.commit().await.unwrap();
            let look = store.look().await.unwrap();
            let other = Known {
                database: "another".to_owned(),
                ..known
            };
            let Past::Known(accepted) = compare(Some(&other), &look, None, None) else {
                panic!("it was accepted at {clock:?}");
            };
            assert_eq!(accepted.since, look.known.change);
            let other = Known {
                database: "another".to_owned(),
                ..accepted.clone()
            };
            let again = compare(Some(&other), &store.look().await.unwrap(), None, None);
            assert!(matches!(again, Past::Doubted(_)));
            known = accepted;
        }
        store.close().await;
    }
}
