//! The folders that systemd makes for the service, unless the settings name others.

use std::{
    io,
    path::{Path, PathBuf},
};

use fpush_push::files;

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFolder {
    pub(crate) path: PathBuf,
    /// Whether the settings name it. Otherwise the daemon goes on without one where it cannot be had.
    pub(crate) named: bool,
}

impl RuntimeFolder {
    /// The folder that the settings name (`runtimeDirectory`), or the one that systemd made for the service
    /// (`RuntimeDirectory=`), or the one that it makes with the unit file that comes with fpush.
    pub(crate) fn choose(named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self { path, named: true },
            None => Self {
                path: made_by_systemd("RUNTIME_DIRECTORY").unwrap_or_else(|| USUAL.into()),
                named: false,
            },
        }
    }

    /// Where the socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Whether nobody has said that there is such a folder, and there is none.
    pub(crate) fn is_missing(&self) -> bool {
        !self.named && made_by_systemd("RUNTIME_DIRECTORY").is_none() && !self.path.is_dir()
    }

    /// That no daemon answers there, in words.
    pub(crate) fn nobody(&self) -> String {
        let socket = self.socket();
        let socket = socket.display();
        if self.named {
            format!("none answers at {socket}")
        } else {
            format!("none answers at {socket}, or it has no runtimeDirectory; SIGHUP reloads it")
        }
    }

    /// Where the socket is, if that is what the settings say.
    pub(crate) fn socket_by_settings(&self) -> Option<PathBuf> {
        self.named.then(|| self.socket())
    }
}

/// The first folder that systemd made for the service, from the variable of the environment that names them
/// (systemd.exec(5)).
pub(crate) fn made_by_systemd(variable: &str) -> Option<PathBuf> {
    let folders = std::env::var(variable).ok()?;
    let first = folders.split(':').next().filter(|first| !first.is_empty());
    first.map(PathBuf::from)
}

/// What to do about a folder of the settings that cannot be used.
pub(crate) fn remedy(error: &io::Error, folder: &Path) -> String {
    files::remedy(error, folder, files::Use::Own).unwrap_or_else(|| {
        let obstacle =
            files::not_a_folder(folder).map(|path| format!("{} is not a folder; ", path.display()));
        format!(
            "{}make it a folder that belongs to fpush's user, or choose another one (this runs as user {})",
            obstacle.unwrap_or_default(),
            files::this_user()
        )
    })
}

const USUAL: &str = "/run/fpush";
/// The name of the control socket.
pub(crate) const SOCKET: &str = "control.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_settings_say_is_described() {
        let named = RuntimeFolder::choose(Some("run".into()));
        assert_eq!(named.socket_by_settings(), Some(named.socket()));
        assert_eq!(RuntimeFolder::choose(None).socket_by_settings(), None);
    }
}
