//! mod_push_appserver's commands: the client chooses its node.

use fpush_push::{BadPayload, Command, CommandError, Completed, Subscription, Value, Wording};

use super::{optional, refuse_others, required, text};
use crate::{
    device::Dialect,
    registrar::Registrar,
    rules::{By, Claim},
    targets::Targets,
    text::{MAX_KEY, MAX_KIND, MAX_NODE, MAX_SECRET, MAX_TOKEN},
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
/// HTTP is one's own, and, in the place of the token, `endpoint`, `p256dh` and `auth` of a Web Push subscription. The key that
/// was made with may be said in `vapid`.
pub(super) async fn register(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    let token = token(command)?.ok_or(BadPayload::Missing("token"))?;
    let claim = claim(registrar, command, token)?;
    let key = optional(command, "vapid", MAX_KEY)?;
    registrar.check_key(claim.dialect, &claim.kind, key, &command.scope)?;
    let (device, _) = registrar
        .register(claim, None, &command.sender, &command.scope)
        .await?;
    Ok(completed(command, device.node, Some(device.secret)))
}

/// Fields `type` and `node`; with a `token` or a subscription, only if it is the device's.
pub(super) async fn unregister(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    let known = [
        "type", "node", "token", "endpoint", "p256dh", "auth", "vapid", "secret",
    ];
    refuse_others(command, &known)?;
    let token = token(command)?.unwrap_or_default();
    let device = registrar
        .unregister(claim(registrar, command, token)?, &command.sender, &command.scope)
        .await?;
    Ok(completed(command, device.node, None))
}

/// The field `token`, or the subscription that the command has in its place.
fn token(command: &Command) -> Result<Option<String>, CommandError> {
    if let Some(token) = optional(command, "token", MAX_TOKEN)? {
        return Ok(Some(token.to_owned()));
    }
    let Some(endpoint) = optional(command, "endpoint", MAX_TOKEN)? else {
        return Ok(None);
    };
    let subscription = Subscription {
        endpoint,
        p256dh: required(command, "p256dh", MAX_KEY)?,
        auth: required(command, "auth", MAX_KEY)?,
    };
    Ok(Some(subscription.to_token()))
}

fn claim(registrar: &Registrar, command: &Command, token: String) -> Result<Claim, CommandError> {
    let node = required(command, "node", MAX_NODE)?;
    Ok(Claim {
        dialect: Dialect::Seed,
        kind: required(command, "type", MAX_KIND)?.to_owned(),
        node: node.to_owned(),
        token,
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
