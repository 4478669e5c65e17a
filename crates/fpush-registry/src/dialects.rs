//! The dialects in which clients register with commands, one file each.
//!
//! A dialect makes a [`Claim`] of a command's fields, and says what the answer holds. What a claim may do is decided
//! elsewhere, for all dialects alike; how forms and answers are written is the component's business.

mod p2;
mod seed;
mod tigase;

use fpush_push::{
    BadPayload, COMMAND_FIELDS, Command, CommandError, Completed, Unavailable, Value, canonical_jid,
};

use crate::{
    registrar::Registrar,
    rules::Claim,
    targets::Targets,
    text::{MAX_JID, is_sane},
};

/// The commands that the settings make possible, each with a name for persons.
pub(crate) fn list(targets: &Targets) -> Vec<(&'static str, &'static str)> {
    [seed::list(targets), p2::list(targets), tigase::list(targets)].concat()
}

/// Whether a command may be executed, as far as that is known without the database.
pub(crate) fn admit(registrar: &Registrar, command: &Command) -> Result<(), CommandError> {
    if !list(registrar.targets())
        .iter()
        .any(|(name, _)| *name == command.name)
    {
        return Err(CommandError::UnknownCommand);
    }
    if !is_sane(&command.sender, MAX_JID) || !is_sane(&command.written, MAX_JID) {
        return Err(BadPayload::Impossible("from").into());
    }
    if !registrar.is_command_allowed(&command.sender) {
        return Err(CommandError::TooMany);
    }
    Ok(())
}

/// Executes a command that was admitted.
pub(crate) async fn execute(registrar: &Registrar, command: Command) -> Result<Completed, CommandError> {
    match command.name.as_str() {
        seed::REGISTER => seed::register(registrar, &command).await,
        seed::UNREGISTER => seed::unregister(registrar, &command).await,
        tigase::REGISTER => tigase::register(registrar, &command).await,
        tigase::UNREGISTER => tigase::unregister(registrar, &command).await,
        _ => match p2::Action::of(&command.name) {
            Some(p2::Action::Register(kind)) => p2::register(registrar, &command, kind).await,
            Some(p2::Action::Unregister(kind)) => p2::unregister(registrar, &command, kind).await,
            None => Err(CommandError::UnknownCommand),
        },
    }
}

/// The claim of somebody who wants to remove a registration of Tigase's dialect, by what only its app and its server
/// know.
pub(crate) fn of_account(
    registrar: &Registrar,
    account: &str,
    provider: &str,
    token: &str,
) -> Result<Claim, Unavailable> {
    tigase::claim_for(registrar, &canonical_jid(account), account, provider, token)
}

/// Refuses a command that removes something and has a field which is not known: it may say that less is to be removed.
fn refuse_others(command: &Command, known: &[&str]) -> Result<(), CommandError> {
    let is_known = |(name, value): &(&str, String)| value.is_empty() || known.contains(name);
    if command.fields.iter().all(is_known) && !command.has_other_fields {
        Ok(())
    } else {
        Err(BadPayload::UnknownField.into())
    }
}

/// The value of a field that may be missing; an empty one counts as missing.
fn optional<'a>(
    command: &'a Command,
    name: &'static str,
    max: usize,
) -> Result<Option<&'a str>, CommandError> {
    debug_assert!(
        COMMAND_FIELDS.contains(&name),
        "{name} is dropped before it comes here"
    );
    let found = command
        .fields
        .iter()
        .find(|(known, value)| *known == name && !value.is_empty());
    match found {
        None => Ok(None),
        Some((_, value)) if is_sane(value, max) => Ok(Some(value)),
        Some(_) => Err(BadPayload::Impossible(name).into()),
    }
}

/// The value of a field that must be there.
fn required<'a>(command: &'a Command, name: &'static str, max: usize) -> Result<&'a str, CommandError> {
    optional(command, name, max)?.ok_or_else(|| BadPayload::Missing(name).into())
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}
