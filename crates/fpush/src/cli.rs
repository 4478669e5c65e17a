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
