//! The command line.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint, error::ErrorKind};
use clap_complete::{Shell, generate};

use crate::{
    console::{Console, Exit},
    inquiry::Priority,
};

mod help;

/// Push server for XMPP: receives the publishes of XEP-0357 and wakes devices through Apple's, Google's and
/// browsers' push services.
#[derive(Debug, Parser)]
#[command(name = "fpush", version = VERSION, args_conflicts_with_subcommands = true, after_long_help = help::FPUSH)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) settings: SettingsFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try everything that a start would do, say what it would do, and start nothing
    ///
    /// Settings, credentials, ports, folders and the database are tried with the rights of the user who will run fpush,
    /// and left as they were. What a running fpush of the same settings holds is fine. All mistakes are listed in one run.
    /// A key that is not known, and a certificate that has expired, are mistakes here, and warnings when fpush runs.
    #[command(after_long_help = help::CHECK)]
    Check(Check),
    /// Send one push, and say what the provider answers and what that means
    ///
    /// It goes out at once, whatever rate limit and block list say. While fpush runs, it does that itself, asked over
    /// its socket.
    #[command(after_long_help = help::SEND)]
    Send(Send),
    /// Say why a phone gets no push
    ///
    /// The running fpush says what it knows of a token, or of a registered device: the name that the token has in the log,
    /// rate limit, queue, block list, the state of its push module, the last push, and the registration. Only root and
    /// fpush's user can ask. Nothing is sent, and neither token nor secret is shown.
    #[command(after_long_help = help::TOKEN)]
    Token(Token),
    /// Let the running fpush read its settings again, and wait for the verdict
    ///
    /// If anything is wrong with them, every mistake is listed and the old ones stay in force. Only root and fpush's user
    /// can ask. The running fpush reads the file that it was started with, which must be this one.
    #[command(after_long_help = help::RELOAD)]
    Reload(Reload),
    /// Take over devices that have registered elsewhere
    ///
    /// What is there already stays as it is, so that doing it twice changes nothing. A running fpush takes notice
    /// within ten seconds.
    #[cfg(feature = "enable_registration")]
    #[command(subcommand, after_long_help = help::IMPORT)]
    Import(Import),
    /// Write all registered devices to standard output, secrets and tokens included
    #[cfg(feature = "enable_registration")]
    #[command(after_long_help = help::EXPORT)]
    Export(Export),
    /// Look at registered devices, or remove them
    #[cfg(feature = "enable_registration")]
    #[command(subcommand, after_long_help = help::DEVICES)]
    Devices(Devices),
    /// Make the key that a Web Push module signs with
    #[cfg(feature = "enable_webpush_support")]
    #[command(subcommand, after_long_help = help::VAPID)]
    Vapid(Vapid),
    /// Write the JSON Schema of the settings, with which editors complete and check them
    #[command(after_long_help = help::SCHEMA)]
    Schema,
    /// Write what a shell needs to complete this command line
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Which settings file.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsFile {
    /// The settings file. Without it: the one that the environment variable `FPUSH_SETTINGS` names, ./settings.json, or
    /// /etc/fpush/settings.json
    #[arg(value_name = "SETTINGS", value_hint = ValueHint::FilePath, conflicts_with = "config")]
    settings: Option<PathBuf>,
    /// The settings file, as an option
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
    /// Log in to the XMPP server and to every provider, too
    ///
    /// Nothing is sent to any device. While fpush runs, it is asked over its socket, because a second login would
    /// disturb it: then it is the settings that it has in force which are tried.
    #[arg(long)]
    pub(crate) connect: bool,
    /// Show each request as it would go to a provider, without any secret
    #[arg(long)]
    pub(crate) show_payloads: bool,
    /// Ask the running fpush whether it is ready, and check nothing else: for a container's probe
    #[arg(long, conflicts_with_all = ["connect", "show_payloads", "user"])]
    pub(crate) healthcheck: bool,
    /// Check with the rights of this user; only root can do that for another one
    ///
    /// If root checks, that is the user of the installed fpush.service unless this option names another one.
    #[arg(long, value_hint = ValueHint::Username)]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// Write JSON for scripts, one value a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose pushes to look for.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
    /// The push module: its name in pushModules of the settings
    #[arg(long, value_hint = ValueHint::Other, requires = "token")]
    pub(crate) module: Option<String>,
    /// The device's token; - reads it from standard input, so that it is not in the list of processes
    #[arg(
        long,
        allow_hyphen_values = true,
        value_hint = ValueHint::Other,
        requires = "module",
        required_unless_present = "node"
    )]
    pub(crate) token: Option<String>,
    /// The node of a registered device, instead of module and token
    #[arg(long, value_hint = ValueHint::Other, conflicts_with_all = ["module", "token"])]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// What to reload.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
    #[command(flatten)]
    pub(crate) form: Form,
}

/// What to send, and where.
#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
    /// The push module: its name in pushModules of the settings
    #[arg(long, value_hint = ValueHint::Other)]
    pub(crate) module: String,
    /// The device's token; - reads it from standard input, so that it is not in the list of processes
    #[arg(long, allow_hyphen_values = true, value_hint = ValueHint::Other)]
    pub(crate) token: String,
    /// How much it matters, for modules whose pushPriority is "auto"
    #[arg(long, value_enum, default_value_t = Priority::High)]
    pub(crate) priority: Priority,
    #[command(flatten)]
    pub(crate) form: Form,
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
        #[command(flatten)]
        settings: SettingsFile,
    },
    /// From p2's table "target", as mysql --batch writes it
    #[command(after_long_help = help::IMPORT_P2)]
    P2 {
        /// The file; - for standard input
        file: PathBuf,
        #[command(flatten)]
        settings: SettingsFile,
    },
    /// From what `fpush export` wrote
    Json {
        /// The file; - for standard input
        file: PathBuf,
        #[command(flatten)]
        settings: SettingsFile,
    },
}

/// How devices are written.
#[cfg(feature = "enable_registration")]
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// For whom
    #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
    pub(crate) format: ExportFormat,
    /// The folder for the files of mod_push_appserver, which is made, or empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, required_if_eq("format", "mod_push_appserver"))]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingsFile,
}

/// For whom devices are written.
#[cfg(feature = "enable_registration")]
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// For fpush: one JSON object a line
    Json,
    /// For Prosody's storage: a file for each device that registered over HTTP or with the module's commands
    #[value(name = "mod_push_appserver")]
    ModPushAppserver,
    /// For p2's table "target": rows for LOAD DATA, of the devices that registered with p2's commands
    P2,
}

/// What to do with registered devices.
#[cfg(feature = "enable_registration")]
#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Write the node, the type and the dates of each device
    List {
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        form: Form,
    },
    /// Write everything that is known of a device but its secret and its token
    Show {
        /// The device's node
        node: String,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        form: Form,
    },
    /// Say that the database is the right one, although it is not what fpush knew
    ///
    /// After a backup was restored, or with another database, fpush does not believe it when it says that a device is gone,
    /// and the status page is red. A running fpush takes notice within ten seconds.
    Accept {
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        form: Form,
    },
    /// Remove a device. A running fpush takes notice within ten seconds
    Remove {
        /// The device's node
        node: String,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        form: Form,
    },
}

/// What to do with a key.
#[cfg(feature = "enable_webpush_support")]
#[derive(Debug, Subcommand)]
pub(crate) enum Vapid {
    /// Make a new key, and write the public one to standard output
    New {
        /// The file for the private key, which must not be there yet
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

impl SettingsFile {
    /// The file that is meant. A default is said, because nobody asked for it by name.
    pub(crate) fn choose(&self, console: &mut Console) -> PathBuf {
        let named = self.settings.as_ref().or(self.config.as_ref());
        let variable = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        if let Some(named) = named.cloned().or_else(|| variable.map(PathBuf::from)) {
            return named;
        }
        let (here, installed) = (Path::new(HERE).exists(), Path::new(INSTALLED).exists());
        let chosen = default_of(here, installed);
        if here || installed {
            console.complain(format_args!(
                "note: no settings file is named; using {}",
                chosen.display()
            ));
        } else {
            console.complain(format_args!(
                "note: no settings file is named, and there is neither {HERE} nor {INSTALLED}"
            ));
        }
        chosen.to_owned()
    }
}

/// The first default that is there. If none is, it is the first that is missed.
fn default_of(here: bool, installed: bool) -> &'static Path {
    Path::new(if installed && !here { INSTALLED } else { HERE })
}

/// Reads the command line. What there is to say of it is said.
///
/// # Errors
///
/// The status of a command line that is wrong, or asks for nothing but help or the version.
pub(crate) fn parse(console: &mut Console) -> Result<Cli, Exit> {
    let args: Vec<_> = env::args_os().collect();
    let mistyped = mistyped(args.get(1..).unwrap_or_default(), |name| Path::new(name).exists());
    let parsed = match mistyped {
        Some(mistake) => Err(Cli::command().error(ErrorKind::InvalidSubcommand, mistake)),
        None => Cli::try_parse_from(args).and_then(without_contradiction),
    };
    parsed.map_err(|e| {
        let text = e.render().to_string();
        if e.use_stderr() {
            console.complain(text.trim_end());
            Exit::Usage
        } else {
            console.say(text.trim_end());
            Exit::Success
        }
    })
}

/// Refuses options that another option's value leaves without a meaning: what is ignored was meant for something.
fn without_contradiction(cli: Cli) -> Result<Cli, clap::Error> {
    #[cfg(feature = "enable_registration")]
    if let Some(Command::Export(Export {
        format,
        folder: Some(_),
        ..
    })) = &cli.command
    {
        match format {
            ExportFormat::ModPushAppserver => {}
            ExportFormat::Json | ExportFormat::P2 => {
                let mistake = "--folder is for --format mod_push_appserver alone: this format goes to standard output. Write it to a \
                     file with (umask 077; fpush export ... > FILE)";
                return Err(Cli::command().error(ErrorKind::ArgumentConflict, mistake));
            }
        }
    }
    Ok(cli)
}

/// What to say of a first word that is neither a command nor a settings file, or of a command that comes after the settings
/// file. Without this the former would be taken for the name of a file, or the words after it would be blamed.
fn mistyped(args: &[OsString], is_there: impl Fn(&OsStr) -> bool) -> Option<String> {
    let mut cli = Cli::command();
    cli.build();
    let commands: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let command_at = |place: usize| {
        let word = args.get(place)?.to_str()?;
        commands.iter().find(|name| **name == word)
    };
    let first = args.first()?;
    let word = first.to_str()?;
    let (file, after) = match word {
        "-c" | "--config" => (args.get(1).and_then(|file| file.to_str()), 2),
        word => (Some(word.strip_prefix("--config=").unwrap_or(word)), 1),
    };
    let is_path = word.contains(['/', '.']) || is_there(first);
    let is_option = word.starts_with("-c") || word.starts_with("--config");
    if let Some(file) = file.filter(|_| is_path || is_option)
        && let Some(command) = command_at(after)
    {
        return Some(format!(
            "the settings file comes after the command: fpush {command} -c {file}"
        ));
    }
    let word = match (word, args.get(1).and_then(|word| word.to_str())) {
        ("help", Some(about)) => about,
        (word, _) => word,
    };
    if word.starts_with('-') || word.is_empty() || is_path || commands.contains(&word) {
        return None;
    }
    let near = fpush_push::settings::nearest(word, commands.iter().copied());
    let hint = match near {
        Some(near) => format!("did you mean: fpush {near}"),
        None => format!("the commands are: {}", commands.join(", ")),
    };
    Some(format!(
        "there is no command \"{word}\", and no settings file of that name; {hint}"
    ))
}

/// Writes the completions to standard output.
pub(crate) fn completions(shell: Shell, console: &mut Console) -> Exit {
    // In memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    console.say(String::from_utf8_lossy(&script).trim_end());
    Exit::Success
}

/// The version, with the commit where the build knows it.
pub(crate) const VERSION: &str = env!("FPUSH_VERSION");
const VARIABLE: &str = "FPUSH_SETTINGS";
const HERE: &str = "./settings.json";
/// Where the package and the unit file have it.
const INSTALLED: &str = "/etc/fpush/settings.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_settings_file_is_an_argument_or_an_option() {
        for args in [
            ["fpush", "check", "a.json"].as_slice(),
            &["fpush", "check", "-c", "a.json"],
            &["fpush", "check", "--config=a.json"],
        ] {
            let Some(Command::Check(check)) = Cli::parse_from(args).command else {
                panic!("{args:?}");
            };
            assert_eq!(
                check.settings.choose(&mut Console::default()),
                Path::new("a.json")
            );
        }
        Cli::try_parse_from(["fpush", "check", "a.json", "-c", "b.json"]).unwrap_err();
    }

    #[test]
    fn the_first_default_that_is_there_is_taken() {
        for here in [true, false] {
            assert_eq!(default_of(here, false), Path::new(HERE));
        }
        assert_eq!(default_of(true, true), Path::new(HERE));
        assert_eq!(default_of(false, true), Path::new(INSTALLED));
    }

    #[test]
    fn a_word_that_is_neither_command_nor_file_is_told_so() {
        let said = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            mistyped(&args, |name| name == "settings")
        };
        for args in [
            [].as_slice(),
            &["check"],
            &["help", "check"],
            &["--help"],
            &["other.json"],
            &["/etc/x"],
            &["settings"],
        ] {
            assert_eq!(said(args), None, "{args:?}");
        }
        let mistake = said(&["chek", "settings.json"]).unwrap();
        assert!(mistake.ends_with("did you mean: fpush check"), "{mistake}");
        let mistake = said(&["help", "chek"]).unwrap();
        assert!(mistake.ends_with("did you mean: fpush check"), "{mistake}");
        for args in [
            ["a.json", "check", "--connect"].as_slice(),
            &["-c", "a.json", "check"],
            &["--config", "a.json", "check"],
            &["--config=a.json", "check"],
        ] {
            let mistake = said(args).unwrap();
            assert!(
                mistake.ends_with("comes after the command: fpush check -c a.json"),
                "{mistake}"
            );
        }
        let mistake = said(&["frobnicate"]).unwrap();
        assert!(mistake.contains("the commands are: check, send"), "{mistake}");
    }
}
