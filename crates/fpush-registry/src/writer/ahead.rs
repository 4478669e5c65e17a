//! What registrations are about to ask the database for, asked for together: a transaction with many of them waits for a few
//! answers, not for several each.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    change::Change,
    device::Device,
    p2::is_somebody,
    store::{Column, Writing},
};

/// Devices that changes may be about, as they are after those that this transaction has made.
#[derive(Default)]
pub(super) struct Ahead {
    /// By their nodes; `None` is none.
    devices: HashMap<String, Option<Arc<Device>>>,
    /// Nodes of all devices that have this owner, or this account, and of some that had it.
    owners: HashMap<String, Vec<String>>,
    accounts: HashMap<String, Vec<String>>,
}

impl Ahead {
    /// Asks for all that these changes may be about, at most [`AT_ONCE`](crate::store::AT_ONCE) of them.
    pub(super) async fn of<'a>(
        writing: &mut Writing,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<Self, sqlx::Error> {
        let (mut nodes, mut owners, mut accounts) = (HashSet::new(), HashSet::new(), HashSet::new());
        for change in changes {
            let (Change::Register { claim, .. } | Change::Unregister { claim }) = change else {
                continue;
            };
            nodes.insert(claim.node.as_str());
            owners.extend(claim.owner().filter(|owner| !is_somebody(owner)));
            if claim.unknown_account().is_some() {
                accounts.extend(claim.account.as_deref());
            }
        }
        let mut ahead = Self::default();
        for (column, texts) in [
            (Column::Node, nodes),
            (Column::Owner, owners),
            (Column::Account, accounts),
        ] {
            if texts.is_empty() {
                continue;
            }
            let texts: Vec<_> = texts.into_iter().collect();
            // One that cannot be read is an error of the change that means it alone.
            let Some(found) = writing.find_all(column, &texts).await? else {
                return Ok(Self::default());
            };
            for text in texts.iter().map(|text| (*text).to_owned()) {
                match column {
                    Column::Node => drop(ahead.devices.insert(text, None)),
                    Column::Owner => drop(ahead.owners.insert(text, Vec::new())),
                    Column::Account => drop(ahead.accounts.insert(text, Vec::new())),
                }
            }
            for device in found {
                ahead.put(&Arc::new(device));
            }
        }
        Ok(ahead)
    }

    /// Notes a device, in the place of the one with the same node if there is one.
    pub(super) fn put(&mut self, device: &Arc<Device>) {
        let Device {
            node, owner, account, ..
        } = &**device;
        for (lists, text) in [(&mut self.owners, owner), (&mut self.accounts, account)] {
            if let Some(list) = text.as_ref().and_then(|text| lists.get_mut(text))
                && !list.contains(node)
            {
                list.push(node.clone());
            }
        }
        self.devices.insert(node.clone(), Some(Arc::clone(device)));
    }

    /// The device with this node; `None` if the database was not asked.
    pub(super) fn with_node(&self, node: &str) -> Option<Option<Device>> {
        let device = self.devices.get(node)?;
        Some(device.as_deref().cloned())
    }

    /// The devices of an owner; `None` if the database was not asked.
    pub(super) fn owned_by(&self, owner: &str) -> Option<Vec<Device>> {
        let list = self.owners.get(owner)?;
        Some(self.those(list, |device| device.owner.as_deref() == Some(owner)))
    }

    /// The devices of an owner that have this account; `None` if the database was not asked.
    pub(super) fn of_account(&self, account: &str, owner: &str) -> Option<Vec<Device>> {
        let list = self.accounts.get(account)?;
        Some(self.those(list, |device| {
            device.account.as_deref() == Some(account) && device.owner.as_deref() == Some(owner)
        }))
    }

    fn those(&self, nodes: &[String], still: impl Fn(&Device) -> bool) -> Vec<Device> {
        let devices = nodes.iter().filter_map(|node| self.devices.get(node)?.as_deref());
        devices.filter(|device| still(device)).cloned().collect()
    }
}
