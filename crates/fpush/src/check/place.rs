//! Where and as who a check looks: as the service that will run, as far as that can be done from outside.

use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use fpush_push::{
    files,
    settings::{NotSeen, ProvidedFile},
};
use rustix::process::geteuid;

use super::{
    service::{Provided, Service, UNIT},
    user::become_user,
};
use crate::settings::Surroundings;

/// What a check looks at, and with whose eyes.
pub(super) struct Place {
    /// The settings.
    pub(super) file: PathBuf,
    /// The service that is started with these settings, if there is one.
    pub(super) service: Option<Service>,
    pub(super) surroundings: Surroundings,
    /// Whose rights the check has.
    pub(super) user: String,
    /// The same in words, if they are not those of who has called.
    pub(super) acting: Option<String>,
}

impl Place {
    /// Becomes `user`, or the user of the installed service if root checks.
    ///
    /// # Errors
    ///
    /// That user cannot be become, or the folder of the service is not there.
    pub(super) fn take(file: &Path, user: Option<&str>) -> anyhow::Result<Self> {
        let installed = Service::installed();
        // systemd reads credentials as root, so that is what has to be done first.
        let provided = installed
            .iter()
            .flat_map(Service::provided)
            .map(look_into)
            .collect();
        let of_service = installed.as_ref().and_then(|service| service.user.as_deref());
        let user = user.or_else(|| of_service.filter(|_| geteuid().is_root()));
        let service = installed.as_ref().filter(|service| service.starts_with(file));
        let file = match service {
            Some(_) => path::absolute(file)?,
            None => file.to_owned(),
        };
        let mut acting = None;
        if let Some(user) = user {
            let group = installed.as_ref().and_then(|service| service.group.as_deref());
            become_user(user, group.filter(|_| of_service == Some(user)))?;
            let why = if of_service == Some(user) {
                format!(", as {UNIT} does")
            } else {
                String::new()
            };
            acting = Some(format!("checked as user {user}{why}"));
        }
        if let Some(folder) = service.and_then(|service| service.working_folder.as_deref()) {
            env::set_current_dir(folder)
                .with_context(|| format!("cannot go to WorkingDirectory={} of {UNIT}", folder.display()))?;
        }
        Ok(Self {
            file,
            surroundings: Surroundings {
                provided,
                state_folder: service.and_then(|service| service.state_folder.clone()),
            },
            service: service.cloned(),
            user: user.map_or_else(me, str::to_owned),
            acting,
        })
    }
}

/// Reads what systemd would read.
fn look_into(provided: Provided) -> ProvidedFile {
    let Provided { path, source } = provided;
    let content = match &source {
        None => Err(NotSeen::Hidden),
        // A folder stands for many; only its being there matters.
        Some(source) if source.is_dir() => Err(NotSeen::Hidden),
        Some(source) => files::read(source, files::LARGEST).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied
                if fs::symlink_metadata(source).is_ok() || !geteuid().is_root() =>
            {
                NotSeen::Hidden
            }
            _ => NotSeen::Missing(e),
        }),
    };
    ProvidedFile {
        path,
        unit: UNIT.to_owned(),
        source,
        content,
    }
}

/// The name of who runs this.
fn me() -> String {
    let id = Command::new("id").arg("-un").output();
    let name = id.ok().filter(|output| output.status.success());
    name.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_else(|| geteuid().as_raw().to_string())
}
