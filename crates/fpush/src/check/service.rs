//! The service that systemd runs fpush as, from its unit file and drop-ins: as who, in which folders, with which
//! credentials. The files are read by ourselves, because `fpush check` is also run where systemd does not run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// What is known of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// `User=`.
    pub(crate) user: Option<String>,
    /// `Group=`.
    pub(crate) group: Option<String>,
    /// `WorkingDirectory=`.
    pub(crate) working_folder: Option<PathBuf>,
    /// The folder that `StateDirectory=` makes.
    pub(crate) state_folder: Option<PathBuf>,
    /// Whether it may listen at ports below 1024 (`AmbientCapabilities=`).
    pub(crate) low_ports: bool,
    credentials: Vec<Credential>,
    command: String,
    /// `ProtectSystem=strict`.
    strict: bool,
    /// Where it may write all the same.
    writable: Vec<PathBuf>,
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
            .find_map(|folder| fs::read_to_string(folder.join(UNIT)).ok())?;
        let mut service = Self::default();
        service.read(&unit);
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
            service.read(&fs::read_to_string(path).unwrap_or_default());
        }
        Some(service)
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
        !self.strict || self.writable.iter().any(|writable| folder.starts_with(writable))
    }

    fn read(&mut self, text: &str) {
        let mut in_service = false;
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
            } else if in_service
                && !line.starts_with(['#', ';'])
                && let Some((key, value)) = line.split_once('=')
            {
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "User" => self.user = text(),
            "Group" => self.group = text(),
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
            "StateDirectory" => {
                let below =
                    |name: &str| Path::new("/var/lib").join(name.split(':').next().unwrap_or_default());
                self.state_folder = value.split_whitespace().next().map(below);
                self.writable.extend(value.split_whitespace().map(below));
            }
            "RuntimeDirectory" => self.add_writable("/run", value),
            "CacheDirectory" => self.add_writable("/var/cache", value),
            "LogsDirectory" => self.add_writable("/var/log", value),
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
            "PrivateTmp" if value != "no" && value != "false" => {
                self.writable.extend(["/tmp".into(), "/var/tmp".into()]);
            }
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                self.set_credential(key, value);
            }
            _ => {}
        }
    }

    fn add_writable(&mut self, root: &str, names: &str) {
        let below = |name: &str| Path::new(root).join(name.split(':').next().unwrap_or_default());
        self.writable.extend(names.split_whitespace().map(below));
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

/// The name that the package, and README, give it.
pub(crate) const UNIT: &str = "fpush.service";
const CREDENTIALS: &str = "/run/credentials";
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
    fn the_unit_that_comes_with_fpush_is_understood() {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fpush.service");
        let service = service(&[&fs::read_to_string(unit).unwrap()]);
        assert_eq!(
            (service.user.as_deref(), service.group.as_deref()),
            (Some("fpush"), Some("fpush"))
        );
        assert_eq!(service.state_folder, Some("/var/lib/fpush".into()));
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
        assert!(!service.low_ports);
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
    fn units_are_looked_for_where_systemd_does() {
        assert_eq!(folders(None).len(), UNIT_FOLDERS.len());
        assert_eq!(folders(Some("/a:/b")), [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(folders(Some("/a:")).len(), 1 + UNIT_FOLDERS.len());
    }
}
