//! mod_push_appserver's commands: the client chooses its node.

use fpush_push::{Command, CommandError, Completed, Value, Wording};

use super::{optional, refuse_others, required, text};
use crate::{
    device::Dialect,
    registrar::Registrar,
    rules::{By, Claim},
    targets::Targets,
    text::{MAX_KIND, MAX_NODE, MAX_SECRET, MAX_TOKEN},
    time::Time,
};

pub(super) const REGISTER: &str = "v1-register-push";
pub(super) const UNREGISTER: &str = "v1-unregister-push";

/// The commands of this dialect that the settings make possible.
pub(super) fn list(targets: &Targets) -> Vec<(&'static str, &'static str)> {
    if targets.has_types() {
        vec![
            (REGISTER, "Register for push"),
            (UNREGISTER, "Unregister from push"),
        ]
    } else {
        Vec::new()
    }
}

/// Fields `type`, `node` and `token`; beyond the original's a `secret`, which proves that a node registered over
/// HTTP is one's own.
pub(super) async fn register(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    let token = required(command, "token", MAX_TOKEN)?;
    let (device, _) = registrar
        .register(
            claim(registrar, command, token)?,
            None,
            &command.sender,
            &command.scope,
        )
        .await?;
    Ok(completed(command, device.node, Some(device.secret)))
}

/// Fields `type` and `node`; with a `token`, only if it is the device's.
pub(super) async fn unregister(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    refuse_others(command, &["type", "node", "token", "secret"])?;
    let token = optional(command, "token", MAX_TOKEN)?.unwrap_or("");
    let device = registrar
        .unregister(claim(registrar, command, token)?, &command.sender)
        .await?;
    Ok(completed(command, device.node, None))
}

fn claim(registrar: &Registrar, command: &Command, token: &str) -> Result<Claim, CommandError> {
    let node = required(command, "node", MAX_NODE)?;
    Ok(Claim {
        dialect: Dialect::Seed,
        kind: required(command, "type", MAX_KIND)?.to_owned(),
        node: node.to_owned(),
        token: token.to_owned(),
        account: None,
        channel: None,
        by: By::Owner(command.sender.clone()),
        secret: optional(command, "secret", MAX_SECRET)?.map(str::to_owned),
        is_reserved: registrar.is_reserved(node),
        now: Time::now(),
    })
}

fn completed(command: &Command, node: String, secret: Option<String>) -> Completed {
    let mut values = vec![
        ("jid", Value::Address(command.service.clone())),
        ("node", text(node)),
    ];
    values.extend(secret.map(|secret| ("secret", text(secret))));
    Completed {
        wording: Wording::Original,
        values,
    }
}
