//! fpush: wakes the phones of XMPP users. An XMPP server asks by XEP-0357; Apple's and Google's push services
//! do it.

mod backends;
mod check;
mod cli;
mod cluster;
mod console;
mod control;
mod daemon;
mod descriptors;
#[cfg(feature = "enable_registration")]
mod devices;
mod folders;
#[doc(hidden)]
pub mod fuzz;
mod inquiry;
mod logging;
#[cfg(all(
    test,
    feature = "enable_registration",
    feature = "enable_cluster",
    feature = "enable_apns_support",
    feature = "enable_fcm_support",
    feature = "enable_demo_support"
))]
mod malformed;
mod notify;
mod recovery;
#[cfg(all(
    test,
    feature = "enable_registration",
    feature = "enable_apns_support",
    feature = "enable_cluster",
    feature = "enable_fcm_support",
    feature = "enable_webpush_support"
))]
mod reference;
mod registration;
mod reload;
mod run;
mod send;
mod settings;
mod state_dir;
mod token;
#[cfg(feature = "enable_webpush_support")]
mod vapid;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command},
    console::{Console, Exit},
};

/// The program: does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let mut console = Console::default();
    let exit = match cli::parse(&mut console) {
        Ok(Cli { command, settings }) => match command {
            Some(command) => obey(&command, &mut console),
            None => run::run(&settings.choose(&mut console)),
        },
        Err(exit) => exit,
    };
    console.end(exit).into()
}

fn obey(command: &Command, console: &mut Console) -> Exit {
    match command {
        Command::Check(check) => check::check(check, console),
        Command::Reload(reload) => reload::reload(reload, console),
        Command::Send(send) => send::send(send, console),
        Command::Token(token) => token::token(token, console),
        #[cfg(feature = "enable_registration")]
        Command::Import(import) => devices::import(import, console),
        #[cfg(feature = "enable_registration")]
        Command::Export(export) => devices::export(export, console),
        #[cfg(feature = "enable_registration")]
        Command::Devices(devices) => devices::devices(devices, console),
        #[cfg(feature = "enable_webpush_support")]
        Command::Vapid(command) => vapid::vapid(command, console),
        Command::Schema => {
            console.say(format_args!("{:#}", settings::schema()));
            Exit::Success
        }
        Command::Completions { shell } => cli::completions(*shell, console),
    }
}
