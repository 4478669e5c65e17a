//! Checking as another user: as the one who will run fpush.

use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Who will run fpush.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    pub(super) name: &'a str,
    /// Where the name comes from, which is what has to be corrected if there is no such user.
    pub(super) source: &'static str,
    /// The group in the place of the user's own one.
    pub(super) group: Option<&'a str>,
    /// Groups besides those that the user is in.
    pub(super) further_groups: &'a [String],
    /// Whether systemd makes the user when the service starts, if it is not there.
    pub(super) dynamic: bool,
}

/// Whose rights the process has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// Those of the user.
    User,
    /// The user is not there yet: those of one that owns nothing.
    Stranger,
}

impl Account<'_> {
    /// Becomes this user; no other thread may run yet. There is no way back, except from a user that systemd makes: what
    /// belongs to it is in folders that root alone can enter.
    ///
    /// # Errors
    ///
    /// There is no such user, or only root can do that. The text says so.
    pub(super) fn become_it(&self) -> anyhow::Result<Became> {
        let Self {
            name,
            source,
            group,
            further_groups,
            dynamic,
        } = *self;
        let uid = first(numbers(name, "-u")?);
        if uid == Some(geteuid().as_raw()) {
            return Ok(Became::User);
        }
        if !geteuid().is_root() {
            bail!("only root can check as another user: do: sudo fpush check …");
        }
        let (uid, own_group, became) = match uid {
            Some(uid) => (uid, first(numbers(name, "-g")?), Became::User),
            None if dynamic => (STRANGER, None, Became::Stranger),
            None => {
                bail!("there is no user {name} on this machine; add it, or correct {source}")
            }
        };
        // The group of a user that systemd makes is made with it.
        let group = group.filter(|group| became == Became::User || *group != name);
        let group = match group {
            Some(group) => group_id(group, "Group=")?,
            None => own_group.unwrap_or(uid),
        };
        let mut groups = numbers(name, "-G")?;
        groups.push(group);
        for group in further_groups {
            groups.push(group_id(group, "SupplementaryGroups=")?);
        }
        let groups: Vec<_> = groups.into_iter().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(group));
        let saved = if dynamic { Uid::ROOT } else { uid };
        set_thread_groups(&groups)
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, saved))
            .with_context(|| format!("cannot become user {name}; --user root checks as root"))?;
        Ok(became)
    }
}

/// Becomes root again after a check as a user that systemd makes.
///
/// # Errors
///
/// This was not root, or has become another user for good.
pub(super) fn return_to_root() -> anyhow::Result<()> {
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context("cannot become root again")
}

fn first(numbers: Vec<u32>) -> Option<u32> {
    numbers.first().copied()
}

/// What `id` says of a user: it asks all sources of users that the machine has. Empty if there is no such user.
fn numbers(user: &str, option: &str) -> anyhow::Result<Vec<u32>> {
    let output = Command::new("id")
        .args([option, "--", user])
        .output()
        .context("cannot run the program id")?;
    let numbers = String::from_utf8_lossy(&output.stdout);
    let numbers: Result<Vec<_>, _> = numbers.split_whitespace().map(str::parse).collect();
    Ok(numbers
        .ok()
        .filter(|_| output.status.success())
        .unwrap_or_default())
}

fn group_id(group: &str, key: &str) -> anyhow::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let output = Command::new("getent")
        .args(["group", "--", group])
        .output()
        .context("cannot run the program getent")?;
    let line = String::from_utf8_lossy(&output.stdout);
    let id = line.split(':').nth(2).and_then(|id| id.parse().ok());
    id.with_context(|| {
        format!("there is no group {group} on this machine; add it, or correct {key} in the unit file")
    })
}

/// A user that owns nothing: the last one of those that systemd makes, and so hardly ever one that runs.
const STRANGER: u32 = 65_519;
