//! What `--help` says below the options: examples, environment, exit statuses.

/// `fpush --help`.
pub(super) const FPUSH: &str = "\
Examples:
  fpush /etc/fpush/settings.json                start, in the foreground
  fpush check /etc/fpush/settings.json          what is wrong with the settings
  fpush check --connect                         and whether server and providers accept the login
  fpush send --module ios --token - < token     one push to one device
  fpush token --module ios --token - < token    why a phone gets no push
  fpush reload /etc/fpush/settings.json         let the running fpush read its settings again
  fpush help COMMAND                            more about a command

Environment:
  FPUSH_SETTINGS         the settings file, unless it is named on the command line
  FPUSH__component__serverHostname
                         and one for each other setting, after the file: names with __ between them, values as
                         JSON or text
  FPUSH_VERIFY           off: do not ask the providers after the start whether they accept the credentials
  RUST_LOG               how much is logged, such as debug or info,fpush_apns=debug; before logging.level
  NO_COLOR               no colours in the log, whatever its value, if it has one
  TERM                   dumb: no colours and no progress bar
  HTTPS_PROXY, ALL_PROXY, NO_PROXY
                         the way to the providers
  NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM, STATE_DIRECTORY, RUNTIME_DIRECTORY
                         what systemd tells its services

Exit statuses:
  0    ended by SIGTERM or SIGINT, or the command has done what was asked
  1    the answer of a command is no
  2    the command line is wrong
  71   something in the machine failed
  78   the settings are wrong, and starting again does not help
  141  nobody reads the output any more";

/// `fpush check --help`.
pub(super) const CHECK: &str = "\
Examples:
  fpush check /etc/fpush/settings.json
  sudo fpush check /etc/fpush/settings.json     with the rights of the service's user
  fpush check --show-payloads                   and what pushes of each module carry
  fpush check --healthcheck                     only whether the running fpush is ready
  fpush check --connect --json | jq -r '.problems[].message'

Exit statuses:
  0    the settings are good; with --connect, server and providers accept the login
  1    with --connect: the server or a provider refuses the login, or does not answer;
       with --healthcheck: fpush is not ready, or does not run
  2    the command line is wrong
  71   the running fpush cannot be asked, or something in the machine failed
  78   the settings are wrong, or a start with them would not get what it needs";

/// `fpush schema --help`.
pub(super) const SCHEMA: &str = "\
Example:
  fpush schema > /etc/fpush/settings.schema.json
                         and in the settings: \"$schema\": \"settings.schema.json\"";

/// `fpush send --help`.
pub(super) const SEND: &str = "\
Examples:
  fpush send --module ios --token - < token
  fpush send /etc/fpush/settings.json --module android --token - --priority low < token

Exit statuses:
  0    the provider accepted the push
  1    it did not, or there is no such module
  2    the command line is wrong
  71   the running fpush cannot be asked, or something in the machine failed
  78   the settings are wrong";

/// `fpush token --help`.
pub(super) const TOKEN: &str = "\
Examples:
  fpush token --module ios --token - < token
  fpush token /etc/fpush/settings.json --node 6b1f0c
  fpush token --module ios --token - --json < token | jq '.tokens[].last'

Exit statuses:
  0    nothing that fpush knows of keeps pushes from the device
  1    something does, or there is no such device, module or running fpush
  2    the command line is wrong
  71   the running fpush cannot be asked, or something in the machine failed
  78   the settings cannot be read";

/// `fpush reload --help`.
pub(super) const RELOAD: &str = "\
Examples:
  fpush reload /etc/fpush/settings.json
  systemctl reload fpush                        which does the same

Exit statuses:
  0    the new settings are in force
  1    no fpush runs with these settings, or the one that runs has another settings file
  2    the command line is wrong
  71   the running fpush cannot be asked, or something in the machine failed
  78   the new settings are wrong, and the old ones stay in force";

/// `fpush import --help`.
#[cfg(feature = "enable_registration")]
pub(super) const IMPORT: &str = "\
Examples:
  fpush import json devices.jsonl
  ssh old-server fpush export | fpush import json -
  fpush import mod_push_appserver /var/lib/prosody
  fpush import p2 target.tsv

Exit statuses:
  0    everything was read
  1    something was not: each kind of mistake is named once
  2    the command line is wrong
  71   something in the machine failed, such as the database
  78   the settings are wrong, or have no registration block";

/// `fpush import p2 --help`.
#[cfg(feature = "enable_registration")]
pub(super) const IMPORT_P2: &str = "\
The file:
  mysql --batch p2 -e 'SELECT service, device, channel, domain, token, node, secret FROM target' > target.tsv

Example:
  fpush import p2 target.tsv";

/// `fpush export --help`.
#[cfg(feature = "enable_registration")]
pub(super) const EXPORT: &str = "\
Examples:
  (umask 077; fpush export > devices.jsonl)
  (umask 077; fpush export --format p2 > target.tsv)
  (umask 077; fpush export --format mod_push_appserver --folder push_appserver)

Exit statuses:
  0    all devices were written
  1    some were not: that format knows no such devices, or they cannot be read
  2    the command line is wrong
  71   something in the machine failed, such as the database
  78   the settings are wrong, or have no registration block
  141  the reader has gone before the end";

/// `fpush devices --help`.
#[cfg(feature = "enable_registration")]
pub(super) const DEVICES: &str = "\
Examples:
  fpush devices list --json | jq -r .node
  fpush devices show 4f3c6d1e
  fpush devices remove 4f3c6d1e

Exit statuses:
  0    done
  1    no device is registered under this node
  2    the command line is wrong
  71   something in the machine failed, such as the database
  78   the settings are wrong, or have no registration block";

/// `fpush vapid --help`.
#[cfg(feature = "enable_webpush_support")]
pub(super) const VAPID: &str = "\
Example:
  fpush vapid new /etc/fpush/vapid.key          which writes the public key for the app to standard output

Exit statuses:
  0    the key is in the file
  1    the file was there already
  2    the command line is wrong
  71   something in the machine failed";

/// `fpush completions --help`.
pub(super) const COMPLETIONS: &str = "\
Example:
  fpush completions bash > /etc/bash_completion.d/fpush

Exit statuses:
  0    written
  2    the command line is wrong
  71   the output cannot be written";
