//! Tigase's commands, as Siskin, Snikket for iOS and Stork send them. Their servers publish without a form, so that
//! the node is all that proves that a push is meant: it is 256 bits that only we can make.

use fpush_push::{Command, CommandError, Completed, TIGASE_NODE, Unavailable, Value, Wording};

use super::{optional, refuse_others, required, text};
use crate::{
    device::Dialect,
    registrar::Registrar,
    rules::{By, Claim},
    targets::Targets,
    text::{MAX_JID, MAX_KIND, MAX_TOKEN},
    time::Time,
};

pub(super) const REGISTER: &str = "register-device";
pub(super) const UNREGISTER: &str = "unregister-device";

/// The commands of this dialect that the settings make possible.
pub(super) fn list(targets: &Targets) -> Vec<(&'static str, &'static str)> {
    if targets.has_providers() {
        vec![(REGISTER, "Register device"), (UNREGISTER, "Unregister device")]
    } else {
        Vec::new()
    }
}

/// Fields `provider`, `device-token`, and `device-second-token` for calls.
pub(super) async fn register(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    let voip_token = optional(command, "device-second-token", MAX_TOKEN)?.map(str::to_owned);
    let (device, _) = registrar
        .register(
            claim(registrar, command)?,
            voip_token,
            &command.sender,
            &command.scope,
        )
        .await?;
    Ok(completed(vec![
        ("node", text(device.node)),
        ("features", Value::List(vec![ENCRYPTION.to_owned()])),
        ("max-payload-size", text(MAX_PAYLOAD)),
    ]))
}

/// Fields `provider` and `device-token`.
pub(super) async fn unregister(registrar: &Registrar, command: &Command) -> Result<Completed, CommandError> {
    refuse_others(
        command,
        &["provider", "device-token", "device-second-token", "account"],
    )?;
    let account = optional(command, "account", MAX_JID)?;
    if account.is_some_and(|account| account != command.sender && account != command.written) {
        return Err(CommandError::NotFound);
    }
    let device = registrar
        .unregister(claim(registrar, command)?, &command.sender, &command.scope)
        .await?;
    Ok(completed(vec![("node", text(device.node))]))
}

fn claim(registrar: &Registrar, command: &Command) -> Result<Claim, CommandError> {
    let provider = required(command, "provider", MAX_KIND)?;
    let token = required(command, "device-token", MAX_TOKEN)?;
    Ok(claim_for(
        registrar,
        &command.sender,
        &command.written,
        provider,
        token,
    )?)
}

pub(super) fn claim_for(
    registrar: &Registrar,
    owner: &str,
    account: &str,
    provider: &str,
    token: &str,
) -> Result<Claim, Unavailable> {
    Ok(Claim {
        dialect: Dialect::Tigase,
        kind: provider.to_owned(),
        node: format!(
            "{TIGASE_NODE}{}",
            registrar.node(&["tigase", provider, owner, token])?
        ),
        token: token.to_owned(),
        account: Some(account.to_owned()),
        channel: None,
        by: By::Owner(owner.to_owned()),
        secret: None,
        is_reserved: false,
        now: Time::now(),
    })
}

fn completed(values: Vec<(&'static str, Value)>) -> Completed {
    Completed {
        wording: Wording::Standard,
        values,
    }
}

/// Tells the client that encrypted notifications reach it.
const ENCRYPTION: &str = "tigase:push:encrypt:0";
/// What servers cut a notification down to: in base64, with all that the providers want around it, it stays below the
/// 4,096 bytes that both allow.
const MAX_PAYLOAD: &str = "3000";
