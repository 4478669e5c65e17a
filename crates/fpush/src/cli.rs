//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    },
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

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
        assert!(matches!(cli.command, Some(Command::Check { settings }) if settings.ends_with("other.json")));
    }
}
