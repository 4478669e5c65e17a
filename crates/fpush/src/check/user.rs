//! Checking as another user: as the one who will run fpush.

use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Becomes this user, with the group that is named or the user's own one, and with the user's further groups. There is no
/// way back, and no other thread may run yet.
///
/// # Errors
///
/// There is no such user, or only root can do that. The text says so.
pub(crate) fn become_user(name: &str, group: Option<&str>) -> anyhow::Result<()> {
    let uid = numbers(name, "-u")?[0];
    if uid == geteuid().as_raw() {
        return Ok(());
    }
    if !geteuid().is_root() {
        bail!("only root can check as another user: do: sudo fpush check …");
    }
    let group = match group {
        Some(group) => group_id(group)?,
        None => numbers(name, "-g")?[0],
    };
    let mut groups = numbers(name, "-G")?;
    groups.push(group);
    let groups: Vec<_> = groups.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(group));
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .with_context(|| format!("cannot become user {name}; --user root checks as root"))
}

/// What `id` says of a user: it asks all sources of users that the machine has. Never empty.
fn numbers(user: &str, option: &str) -> anyhow::Result<Vec<u32>> {
    let output = Command::new("id")
        .args([option, "--", user])
        .output()
        .context("cannot run the program id")?;
    let numbers = String::from_utf8_lossy(&output.stdout);
    let numbers: Result<Vec<_>, _> = numbers.split_whitespace().map(str::parse).collect();
    match numbers {
        Ok(numbers) if output.status.success() && !numbers.is_empty() => Ok(numbers),
        Ok(_) | Err(_) => {
            bail!("there is no user {user} on this machine; add it, or correct User= in the unit file")
        }
    }
}

fn group_id(group: &str) -> anyhow::Result<u32> {
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
        format!("there is no group {group} on this machine; add it, or correct Group= in the unit file")
    })
}
