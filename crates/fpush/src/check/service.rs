//! The service that systemd runs fpush as, from its unit file and drop-ins: as who, in which folders, with which
//! credentials. The files are read by ourselves, because `fpush check` is also run where systemd does not run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use fpush_push::files;

/// What is known of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// `User=`.
    pub(crate) user: Option<String>,
    /// `Group=`.
    pub(crate) group: Option<String>,
    /// `SupplementaryGroups=`.
    pub(crate) further_groups: Vec<String>,
    /// Whether systemd makes the user when the service starts (`DynamicUser=`).
    pub(crate) dynamic: bool,
    /// `WorkingDirectory=`.
    pub(crate) working_folder: Option<PathBuf>,
    /// Whether it may listen at ports below 1024 (`AmbientCapabilities=`).
    pub(crate) low_ports: bool,
    credentials: Vec<Credential>,
    command: String,
    /// `ProtectSystem=strict`.
    strict: bool,
    /// `PrivateTmp=`.
    private_tmp: bool,
    /// Where it may write all the same.
    writable: Vec<PathBuf>,
    /// The folders that systemd makes for it.
    made: Vec<PathBuf>,
}

/// A file that systemd makes when the service starts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Credential {
    name: String,
    /// Where its content comes from; `None` if that is the unit file itself, or encrypted.
    source: Option<PathBuf>,
}

/// A file that is there while the service runs, and what it will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provided {
    /// Where the settings expect it.
    pub(crate) path: PathBuf,
    /// Where it comes from.
    pub(crate) source: Option<PathBuf>,
}

impl Service {
    /// The service that is installed, if one is.
    pub(crate) fn installed() -> Option<Self> {
        let folders = folders(env::var("SYSTEMD_UNIT_PATH").ok().as_deref());
        let unit = folders
            .iter()
            .find_map(|folder| fs::read(folder.join(UNIT)).ok())?;
        let mut service = Self::default();
        service.read_file(&unit);
        // Of two with one name the one in the first folder counts, and all are read in the order of their names.
        let mut drop_ins = BTreeMap::new();
        for folder in folders.iter().rev() {
            let entries = fs::read_dir(folder.join(format!("{UNIT}.d")))
                .into_iter()
                .flatten();
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "conf") {
                    drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
                }
            }
        }
        for path in drop_ins.values() {
            service.read_file(&fs::read(path).unwrap_or_default());
        }
        Some(service)
    }

    /// The user that it runs as: a user that systemd makes has the name of the unit, unless the unit file names another.
    pub(crate) fn user(&self) -> Option<&str> {
        let of_unit = UNIT.strip_suffix(".service").filter(|_| self.dynamic);
        self.user.as_deref().or(of_unit)
    }

    /// Whether this is the settings file that the service is started with.
    pub(crate) fn starts_with(&self, settings: &Path) -> bool {
        let same = |word: &str| match (fs::canonicalize(word), fs::canonicalize(settings)) {
            (Ok(one), Ok(other)) => one == other,
            _ => Path::new(word) == settings,
        };
        self.command.split_whitespace().skip(1).any(same)
    }

    /// The files that systemd makes for the service.
    pub(crate) fn provided(&self) -> Vec<Provided> {
        let provided = |credential: &Credential| Provided {
            path: Path::new(CREDENTIALS).join(UNIT).join(&credential.name),
            source: credential.source.clone(),
        };
        self.credentials.iter().map(provided).collect()
    }

    /// Whether the service may write below this folder, as far as systemd lets it.
    pub(crate) fn may_write(&self, folder: &Path) -> bool {
        let is_within = |folders: &[PathBuf]| folders.iter().any(|within| folder.starts_with(within));
        // `DynamicUser=` implies `ProtectSystem=strict` and `PrivateTmp=`.
        let (strict, private_tmp) = (self.strict || self.dynamic, self.private_tmp || self.dynamic);
        let is_private = private_tmp && TEMPORARY.iter().any(|within| folder.starts_with(within));
        !strict || is_private || is_within(&self.writable) || is_within(&self.made)
    }

    /// Whether systemd makes this, or a folder that it is in, and gives it to a user that it makes as well: then nobody
    /// else can look into it, and whose it is now does not matter.
    pub(crate) fn is_handed_over(&self, path: &Path) -> bool {
        self.dynamic && self.made.iter().any(|made| path.starts_with(made))
    }

    /// Whether systemd makes a folder for the control socket.
    pub(crate) fn has_runtime_folder(&self) -> bool {
        self.made.iter().any(|made| made.starts_with(RUNTIME))
    }

    /// The folder for what must survive a restart: the first one of `StateDirectory=`.
    pub(crate) fn state_folder(&self) -> Option<&Path> {
        let mut made = self.made.iter().map(PathBuf::as_path);
        made.find(|made| made.starts_with(STATE))
    }

    /// Reads a file as systemd does: with or without a byte order mark, with any kind of line end, and a line that is not
    /// UTF-8 costs none of the others.
    fn read_file(&mut self, content: &[u8]) {
        let content = files::without_mark(content).unwrap_or_default();
        let text = String::from_utf8_lossy(content);
        self.read(&text.replace("\r\n", "\n").replace('\r', "\n"));
    }

    pub(crate) fn read(&mut self, text: &str) {
        let mut in_service = false;
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
            } else if in_service
                && !line.starts_with(['#', ';'])
                && let Some((key, value)) = line.split_once('=')
            {
                self.set(key.trim(), &expanded(value.trim()));
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "User" => self.user = text(),
            "Group" => self.group = text(),
            "SupplementaryGroups" if value.is_empty() => self.further_groups.clear(),
            "SupplementaryGroups" => {
                let groups = value.split_whitespace().map(str::to_owned);
                self.further_groups.extend(groups);
            }
            "DynamicUser" => self.dynamic = is_on(value),
            // "-": it need not be there; "~" is the user's home, where nobody keeps settings.
            "WorkingDirectory" => {
                let folder = PathBuf::from(value.trim_start_matches('-'));
                self.working_folder = Some(folder).filter(|folder| folder.is_absolute());
            }
            "ExecStart" => value.clone_into(&mut self.command),
            "AmbientCapabilities" => {
                self.low_ports =
                    !value.is_empty() && (self.low_ports || value.contains("CAP_NET_BIND_SERVICE"));
            }
            "ProtectSystem" => self.strict = value == "strict",
            "StateDirectory" => self.add_made(STATE, value),
            "RuntimeDirectory" => self.add_made(RUNTIME, value),
            "CacheDirectory" => self.add_made("/var/cache", value),
            "LogsDirectory" => self.add_made("/var/log", value),
            "ReadWritePaths" | "BindPaths" => {
                let inside = |path: &str| {
                    path.rsplit(':')
                        .next()
                        .unwrap_or_default()
                        .trim_start_matches(['-', '+'])
                        .into()
                };
                self.writable.extend(value.split_whitespace().map(inside));
            }
            "PrivateTmp" => self.private_tmp = is_on(value) || value == "disconnected",
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                self.set_credential(key, value);
            }
            _ => {}
        }
    }

    fn add_made(&mut self, root: &str, names: &str) {
        if names.is_empty() {
            self.made.retain(|made| !made.starts_with(root));
        }
        // Behind a colon are links to it.
        let names = names.split_whitespace().filter_map(|name| name.split(':').next());
        self.made.extend(names.map(|name| Path::new(root).join(name)));
    }

    fn set_credential(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            self.credentials.clear();
            return;
        }
        let (name, rest) = value
            .split_once(':')
            .map_or((value, None), |(name, rest)| (name, Some(rest)));
        let source = match (key, rest) {
            ("LoadCredential", Some(path)) if path.starts_with('/') => Some(PathBuf::from(path)),
            ("LoadCredential", rest) => {
                let file = rest.unwrap_or(name);
                let stored = CREDENTIAL_STORES.iter().map(|store| Path::new(store).join(file));
                let mut stored: Vec<_> = stored.collect();
                let there = stored.iter().position(|path| path.exists()).unwrap_or(0);
                Some(stored.swap_remove(there))
            }
            _ => None,
        };
        self.credentials.retain(|credential| credential.name != name);
        self.credentials.push(Credential {
            name: name.to_owned(),
            source,
        });
    }
}

/// A value with what its specifiers are for this unit, see `systemd.unit(5)`. Others stay as they are: they name what is
/// known while the service runs.
fn expanded(value: &str) -> String {
    let mut expanded = String::with_capacity(value.len());
    let mut parts = value.split('%');
    expanded.extend(parts.next());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // It was doubled.
            expanded.push('%');
            expanded.extend(parts.next());
            continue;
        }
        let specifier = SPECIFIERS.iter().find(|(letter, _)| part.starts_with(*letter));
        match specifier {
            Some((letter, meaning)) => expanded.extend([meaning, &part[letter.len_utf8()..]]),
            None => expanded.extend(["%", part]),
        }
    }
    expanded
}

/// A switch in a unit file.
fn is_on(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"]
        .iter()
        .any(|on| value.eq_ignore_ascii_case(on))
}

/// Where unit files are, the first one first: as `systemd.unit(5)` has it, or as the variable of its name says.
fn folders(variable: Option<&str>) -> Vec<PathBuf> {
    let usual = || UNIT_FOLDERS.iter().map(PathBuf::from);
    let named = |paths: &str| {
        paths
            .split(':')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect::<Vec<_>>()
    };
    match variable {
        None | Some("") => usual().collect(),
        Some(paths) if paths.ends_with(':') => named(paths).into_iter().chain(usual()).collect(),
        Some(paths) => named(paths),
    }
}

/// What they are for a service of the system whose name is [`UNIT`].
const SPECIFIERS: [(char, &str); 13] = [
    ('C', "/var/cache"),
    ('d', "/run/credentials/fpush.service"),
    ('E', "/etc"),
    ('h', "/root"),
    ('L', "/var/log"),
    ('n', UNIT),
    ('N', "fpush"),
    ('p', "fpush"),
    ('S', STATE),
    ('t', "/run"),
    ('T', "/tmp"),
    ('u', "root"),
    ('V', "/var/tmp"),
];
/// The name that the package, and the book, give it.
pub(crate) const UNIT: &str = "fpush.service";
/// Where `StateDirectory=` makes folders.
const STATE: &str = "/var/lib";
const RUNTIME: &str = "/run";
const CREDENTIALS: &str = "/run/credentials";
/// With `PrivateTmp=` the service has its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
const CREDENTIAL_STORES: [&str; 3] = ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"];
const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn service(texts: &[&str]) -> Service {
        let mut service = Service::default();
        for text in texts {
            service.read(text);
        }
        service
    }

    #[test]
    fn a_unit_file_is_read_whatever_editor_wrote_it() {
        let expected = service(&["[Service]\nUser=push\nGroup=push\n"]);
        for content in [
            &b"\xef\xbb\xbf[Service]\r\nUser=push\r\nGroup=push\r\n"[..],
            b"\xef\xbb\xbf[Service]\rUser=push\rGroup=push",
            b"# M\xfcller\n[Service]\nUser=\\\r\npush\nGroup=push\n",
        ] {
            let mut found = Service::default();
            found.read_file(content);
            assert_eq!(found, expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn the_unit_that_comes_with_fpush_is_understood() {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fpush.service");
        let service = service(&[&fs::read_to_string(unit).unwrap()]);
        assert_eq!(
            (service.user.as_deref(), service.group.as_deref()),
            (Some("fpush"), Some("fpush"))
        );
        assert_eq!(service.state_folder(), Some(Path::new("/var/lib/fpush")));
        assert_eq!(service.working_folder, Some("/etc/fpush".into()));
        assert!(service.starts_with(Path::new("/etc/fpush/settings.json")));
        assert!(!service.starts_with(Path::new("/usr/local/bin/fpush")));
        let provided = Provided {
            path: "/run/credentials/fpush.service/component-key".into(),
            source: Some("/etc/fpush/component-key".into()),
        };
        assert_eq!(service.provided(), [provided]);
        for (folder, may) in [
            ("/var/lib/fpush/db", true),
            ("/run/fpush", true),
            ("/srv/fpush", false),
            ("/tmp/x", true),
        ] {
            assert_eq!(service.may_write(Path::new(folder)), may, "{folder}");
        }
        assert!(!service.low_ports && !service.dynamic && service.further_groups.is_empty());
    }

    #[test]
    fn a_user_that_systemd_makes_has_a_name_and_folders_and_may_write_nowhere_else() {
        let unit = "[Service]\nDynamicUser=yes\nSupplementaryGroups=one two\nStateDirectory=fpush more:link\n\
                    RuntimeDirectory=fpush\nReadWritePaths=/srv\nProtectSystem=no\nPrivateTmp=no\n";
        let mut service = service(&[unit]);
        assert_eq!(service.user(), Some("fpush"));
        assert_eq!(service.further_groups, ["one", "two"]);
        for (path, may_write, is_handed_over) in [
            ("/var/lib/fpush/db", true, true),
            ("/var/lib/more", true, true),
            ("/run/fpush", true, true),
            ("/srv/db", true, false),
            ("/tmp/db", true, false),
            ("/var/lib/fpush2", false, false),
            ("/etc/fpush", false, false),
        ] {
            let path = Path::new(path);
            assert_eq!(service.may_write(path), may_write, "{}", path.display());
            assert_eq!(service.is_handed_over(path), is_handed_over, "{}", path.display());
        }
        service.read("[Service]\nUser=other\nSupplementaryGroups=\n");
        assert_eq!((service.user(), service.further_groups.len()), (Some("other"), 0));
        service.read("[Service]\nDynamicUser=off\nUser=\n");
        assert_eq!(service.user(), None);
        assert!(service.may_write(Path::new("/etc")));
        assert!(!service.is_handed_over(Path::new("/var/lib/fpush")));
        service.read("[Service]\nStateDirectory=\n");
        assert_eq!(service.state_folder(), None);
        assert!(!service.made.is_empty());
    }

    #[test]
    fn later_files_change_earlier_ones_and_an_empty_value_takes_back() {
        let unit = "[Unit]\nUser=no\n[Service]\n# User=no\nUser = one\nLoadCredential=a:/x\nLoadCredential=b\n\
                    SetCredential=c:text\nExecStart=/bin/fpush \\\n  /s.json\n";
        let mut service = service(&[
            unit,
            "[Service]\nUser=two\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
        ]);
        assert_eq!(service.user.as_deref(), Some("two"));
        assert!(service.low_ports && service.starts_with(Path::new("/s.json")));
        assert!(service.may_write(Path::new("/srv")), "nothing forbids it");
        let sources: Vec<_> = service
            .provided()
            .into_iter()
            .map(|provided| provided.source)
            .collect();
        assert_eq!(
            sources,
            [Some("/x".into()), Some("/etc/credstore/b".into()), None]
        );
        service.read("[Service]\nLoadCredential=\nUser=\nAmbientCapabilities=\n");
        assert_eq!(
            (
                service.user.as_deref(),
                service.low_ports,
                service.provided().len()
            ),
            (None, false, 0)
        );
    }

    #[test]
    fn specifiers_are_expanded() {
        let unit = "[Service]\nUser=%p\nWorkingDirectory=%E/%N\nLoadCredential=key:%E/%p/a%%b\nExecStart=/bin/fpush %E/x.json %i\n\
                    ProtectSystem=strict\nReadWritePaths=%S/other %T/x\n";
        let service = service(&[unit]);
        assert_eq!(service.user.as_deref(), Some("fpush"));
        assert_eq!(service.working_folder, Some("/etc/fpush".into()));
        assert_eq!(service.provided()[0].source, Some("/etc/fpush/a%b".into()));
        assert!(service.starts_with(Path::new("/etc/x.json")));
        assert!(
            service.may_write(Path::new("/var/lib/other")) && !service.may_write(Path::new("/var/lib/x"))
        );
        for (value, expected) in [
            ("%", "%"),
            ("%%", "%"),
            ("a%%%n", "a%fpush.service"),
            ("%j%", "%j%"),
            ("%\u{e4}", "%\u{e4}"),
        ] {
            assert_eq!(expanded(value), expected, "{value}");
        }
    }

    #[test]
    fn units_are_looked_for_where_systemd_does() {
        assert_eq!(folders(None).len(), UNIT_FOLDERS.len());
        assert_eq!(folders(Some("/a:/b")), [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(folders(Some("/a:")).len(), 1 + UNIT_FOLDERS.len());
    }
}
