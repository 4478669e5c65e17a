//! fpush: wakes the phones of XMPP users. An XMPP server asks by XEP-0357; Apple's and Google's push services
//! do it.

mod backends;
mod check;
mod cli;
mod control;
mod daemon;
#[cfg(feature = "enable_registration")]
mod devices;
mod inquiry;
mod logging;
mod memory;
mod notify;
mod registration;
mod run;
mod send;
mod settings;
mod state_dir;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { command, settings } = Cli::parse();
    match command {
        Some(Command::Check { settings, connect }) => check::check(&settings, connect),
        Some(Command::Send(send)) => send::send(&send),
        #[cfg(feature = "enable_registration")]
        Some(Command::Import(import)) => devices::import(&import),
        #[cfg(feature = "enable_registration")]
        Some(Command::Export { settings }) => devices::export(&settings),
        #[cfg(feature = "enable_registration")]
        Some(Command::Devices(devices)) => devices::devices(&devices),
        Some(Command::Completions { shell }) => cli::completions(shell),
        None => run::run(&settings),
    }
}

/// Exit statuses that mean something to systemd and to scripts (sysexits.h).
mod exit {
    /// Something in the machine failed.
    pub(crate) const OS_ERROR: u8 = 71;
    /// The settings are wrong: starting again does not help.
    pub(crate) const CONFIG: u8 = 78;
}
