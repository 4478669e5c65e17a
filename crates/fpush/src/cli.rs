//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use clap_complete::{Shell, generate};

use crate::{exit, inquiry::Priority};

/// Push server for XMPP: receives the publishes of XEP-0357 and wakes devices through Apple's and Google's
/// push services.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The settings file
    #[arg(default_value = "./settings.json")]
    pub(crate) settings: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load everything that a start would load, say what it would do, and start nothing
    ///
    /// The exit status is 0, or 78 if something is wrong; here a key that is not known is wrong, too.
    Check {
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
        /// Log in to the XMPP server and to every provider, too
        ///
        /// Nothing is sent to any device. While fpush runs, it is asked over its socket, because a second login would
        /// disturb it: then it is the settings that it has in force which are tried. The exit status is 1 if somebody
        /// does not let us in, and 71 if the fpush that runs cannot be asked.
        #[arg(long)]
        connect: bool,
    },
    /// Send one push, and say what the provider answers and what that means
    ///
    /// It goes out at once, whatever rate limit and block list say. While fpush runs, it does that itself, asked over
    /// its socket. The exit status is 0 only if the provider accepted the push, 1 if it did not, 78 if the settings are
    /// wrong, and 71 if the fpush that runs cannot be asked.
    Send(Send),
    /// Take over devices that have registered elsewhere
    ///
    /// What is there already stays as it is, so that doing it twice changes nothing. A running fpush takes notice
    /// within ten seconds.
    #[cfg(feature = "enable_registration")]
    #[command(subcommand)]
    Import(Import),
    /// Write all registered devices to standard output, one JSON object a line, secrets and tokens included
    #[cfg(feature = "enable_registration")]
    Export {
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
    /// Look at registered devices, or remove them
    #[cfg(feature = "enable_registration")]
    #[command(subcommand)]
    Devices(Devices),
    /// Write what a shell needs to complete this command line
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to send, and where.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The settings file
    #[arg(default_value = "./settings.json")]
    pub(crate) settings: PathBuf,
    /// The push module: its name in pushModules of the settings
    #[arg(long, value_hint = ValueHint::Other)]
    pub(crate) module: String,
    /// The device's token; - reads it from standard input, so that it is not in the list of processes
    #[arg(long, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) token: String,
    /// How much it matters, for modules whose pushPriority is "auto"
    #[arg(long, value_enum, default_value_t = Priority::High)]
    pub(crate) priority: Priority,
}

/// Where devices come from.
#[cfg(feature = "enable_registration")]
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// From Prosody's storage folder of mod_push_appserver, such as /var/lib/prosody
    #[command(name = "mod_push_appserver")]
    ModPushAppserver {
        /// The folder: /var/lib/prosody, or that of one host in it
        folder: PathBuf,
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
    /// From what `fpush export` wrote
    Json {
        /// The file; - for standard input
        file: PathBuf,
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
}

/// What to do with registered devices.
#[cfg(feature = "enable_registration")]
#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Write the node, the type and the dates of each device
    List {
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
    /// Write everything that is known of a device but its secret and its token
    Show {
        /// The device's node
        node: String,
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
    /// Remove a device. A running fpush takes notice within ten seconds
    Remove {
        /// The device's node
        node: String,
        /// The settings file
        #[arg(default_value = "./settings.json")]
        settings: PathBuf,
    },
}

/// Writes the completions to standard output.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    // In memory first: the generator takes a reader who has seen enough for a reason to panic.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot write the completions: {e}");
            ExitCode::from(exit::OS_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_settings_file_may_be_left_out() {
        let settings = |args: &[&str]| Cli::parse_from([&["fpush"], args].concat()).settings;
        assert_eq!(settings(&[]), PathBuf::from("./settings.json"));
        assert_eq!(settings(&["other.json"]), PathBuf::from("other.json"));
        let cli = Cli::parse_from(["fpush", "check", "other.json"]);
        assert!(
            matches!(cli.command, Some(Command::Check { settings, .. }) if settings.ends_with("other.json"))
        );
    }
}
