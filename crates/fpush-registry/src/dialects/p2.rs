//! p2's commands, as Conversations and its descendants send them: the node is ours, and stays the same for one
//! device of one account.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use fpush_push::{BadPayload, Command, CommandError, Completed, Value, Wording};

use super::{optional, refuse_others, required, text};
use crate::{
    device::Dialect,
    registrar::Registrar,
    rules::{By, Claim},
    targets::Targets,
    text::{MAX_DEVICE_ID, MAX_JID, MAX_TOKEN, hex},
    time::Time,
};

/// A command, and the push type in its name.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Register(&'static str),
    Unregister(&'static str),
}

impl Action {
    /// The command with this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (_, _, action) = COMMANDS.iter().find(|(known, _, _)| *known == name)?;
        Some(*action)
    }
}

/// The commands of this dialect that the settings make possible.
pub(super) fn list(targets: &Targets) -> Vec<(&'static str, &'static str)> {
    let possible = COMMANDS.iter().filter(|(_, _, action)| {
        let (Action::Register(kind) | Action::Unregister(kind)) = action;
        targets.module(Dialect::P2, kind).is_some()
    });
    possible.map(|(name, title, _)| (*name, *title)).collect()
}

/// Fields `token`, `device-id` or `android-id`, and `muc` for the pushes of one group chat.
pub(super) async fn register(
    registrar: &Registrar,
    command: &Command,
    kind: &str,
) -> Result<Completed, CommandError> {
    let token = required(command, "token", MAX_TOKEN)?;
    let (device, _) = registrar
        .register(
            claim(registrar, command, kind, token)?,
            None,
            &command.sender,
            &command.scope,
        )
        .await?;
    let mut completed = completed(command, device.node);
    completed.values.push(("secret", text(device.secret)));
    Ok(completed)
}

/// Fields `device-id` or `android-id`; for a group chat its `muc`, or the `channel` that its pushes name. With a `token`,
/// only if it is the device's.
pub(super) async fn unregister(
    registrar: &Registrar,
    command: &Command,
    kind: &str,
) -> Result<Completed, CommandError> {
    refuse_others(command, &["device-id", "android-id", "muc", "channel", "token"])?;
    let token = optional(command, "token", MAX_TOKEN)?.unwrap_or("");
    let mut claim = claim(registrar, command, kind, token)?;
    if let Some(channel) = optional(command, "channel", MAX_CHANNEL)? {
        // Two group chats in one command: nobody can tell which is meant.
        if claim.channel.as_deref().is_some_and(|muc| muc != channel) {
            return Err(BadPayload::TwoChats.into());
        }
        if claim.channel.is_none() {
            // The node is made of the address of the group chat, which the client did not say: what the owner has there
            // is found by the channel.
            claim.node.clear();
            claim.channel = Some(channel.to_ascii_lowercase());
        }
    }
    let device = registrar
        .unregister(claim, &command.sender, &command.scope)
        .await?;
    Ok(completed(command, device.node))
}

fn claim(registrar: &Registrar, command: &Command, kind: &str, token: &str) -> Result<Claim, CommandError> {
    let device_id = match optional(command, "device-id", MAX_DEVICE_ID)? {
        Some(device_id) => device_id,
        None => required(command, "android-id", MAX_DEVICE_ID)?,
    };
    let muc = optional(command, "muc", MAX_JID)?;
    let owner = command.sender.as_str();
    Ok(Claim {
        dialect: Dialect::P2,
        kind: kind.to_owned(),
        node: registrar.node(&["p2", kind, owner, device_id, muc.unwrap_or("")])?,
        token: token.to_owned(),
        account: Some(sha1(&command.written, device_id)),
        channel: muc.map(|muc| sha1(muc, device_id)),
        by: By::Owner(owner.to_owned()),
        secret: None,
        is_reserved: false,
        now: Time::now(),
    })
}

/// By this hash the app finds the account or the group chat that a push is about.
fn sha1(address: &str, device_id: &str) -> String {
    hex(digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{address}\0{device_id}").as_bytes(),
    )
    .as_ref())
}

fn completed(command: &Command, node: String) -> Completed {
    Completed {
        wording: Wording::Standard,
        values: vec![
            ("jid", Value::Address(command.service.clone())),
            ("node", text(node)),
        ],
    }
}

/// Hexadecimal digits of a SHA-1.
const MAX_CHANNEL: usize = 40;

const COMMANDS: [(&str, &str, Action); 4] = [
    (
        "register-push-fcm",
        "Register this device (FCM)",
        Action::Register("fcm"),
    ),
    (
        "unregister-push-fcm",
        "Unregister this device (FCM)",
        Action::Unregister("fcm"),
    ),
    (
        "register-push-apns",
        "Register this device (APNs)",
        Action::Register("apns"),
    ),
    (
        "unregister-push-apns",
        "Unregister this device (APNs)",
        Action::Unregister("apns"),
    ),
];
