//! How devices from elsewhere are written.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::transaction::{Replaced, Transaction};
use crate::{
    change::Imported,
    device::Device,
    foreign::Form,
    past::Ended,
    rules,
    store::{AT_ONCE, Column, is_outage},
    time::Time,
};

impl Transaction<'_> {
    /// Imports some of these devices, the first ones: each takes a few answers of the database, however far that is, and
    /// meanwhile nobody else writes.
    pub(super) async fn import(&mut self, devices: &[Device]) -> Result<Imported, sqlx::Error> {
        let (now, mut imported) = (Time::now(), Imported::default());
        for form in devices.iter().filter_map(Form::of) {
            self.learn(form).await?;
        }
        let began = Instant::now();
        for part in devices.chunks(AT_ONCE) {
            if imported.total() > 0 && began.elapsed() >= IMPORT_TIME {
                break;
            }
            let nodes: Vec<_> = part.iter().map(|device| device.node.as_str()).collect();
            let is_each_there_once = nodes.iter().collect::<HashSet<_>>().len() == nodes.len();
            let existing = self.writing.find_all(Column::Node, &nodes).await?;
            match existing.filter(|_| is_each_there_once) {
                Some(existing) => self.import_part(part, existing, now, &mut imported).await?,
                None => {
                    for device in part {
                        self.import_one(device, now, &mut imported).await?;
                    }
                }
            }
        }
        Ok(imported)
    }

    /// Imports devices with different nodes; `existing` are those that are there with one of these.
    async fn import_part(
        &mut self,
        devices: &[Device],
        existing: Vec<Device>,
        now: Time,
        imported: &mut Imported,
    ) -> Result<(), sqlx::Error> {
        let mut existing: HashMap<_, _> = existing
            .into_iter()
            .map(|device| (device.node.clone(), device))
            .collect();
        let mut later = Vec::with_capacity(devices.len());
        for device in devices {
            let existing = existing.remove(&device.node);
            if imported.count(device, existing.as_ref()) {
                self.note_put(Arc::new(device.clone()), existing.as_ref().map(Replaced::of));
                later.push(device);
            }
        }
        self.writing.put_all(&later, Some(now)).await
    }

    async fn import_one(
        &mut self,
        device: &Device,
        now: Time,
        imported: &mut Imported,
    ) -> Result<(), sqlx::Error> {
        let existing = match self.writing.find(&device.node).await {
            Err(problem) if !is_outage(&problem) => {
                // What cannot be read is no later registration, and nothing else mends it.
                self.remove(&device.node, Ended::Removed).await?;
                None
            }
            found => found?,
        };
        if imported.count(device, existing.as_ref()) {
            self.writing.put_all(&[device], Some(now)).await?;
            self.note_put(Arc::new(device.clone()), existing.as_ref().map(Replaced::of));
        }
        Ok(())
    }
}

impl Imported {
    /// Counts a device, in whose place another one is if there is one. Returns whether it is to be written.
    fn count(&mut self, device: &Device, existing: Option<&Device>) -> bool {
        let number = match existing {
            Some(existing) if !rules::is_later(device, existing) => {
                self.unchanged += 1;
                return false;
            }
            Some(_) => &mut self.changed,
            None => &mut self.added,
        };
        *number += 1;
        true
    }
}

/// For so long devices are imported in one transaction. To tell others of them takes as long again.
const IMPORT_TIME: Duration = Duration::from_millis(200);
