//! Where and as who a check looks: as the service that will run, as far as that can be done from outside.

use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use fpush_push::{
    files,
    settings::{NotSeen, Problem, ProvidedFile, Severity},
};
use rustix::process::geteuid;

use super::{
    service::{Provided, Service, UNIT},
    user::{Account, Became},
};
use crate::{
    control,
    inquiry::Holding,
    settings::{Surroundings, load_whom_to_ask},
};

/// What a check looks at, and with whose eyes.
pub(super) struct Place {
    /// The settings.
    pub(super) file: PathBuf,
    /// The service that is started with these settings, if there is one.
    pub(super) service: Option<Service>,
    pub(super) surroundings: Surroundings,
    /// What the fpush holds that can be asked where the settings say.
    pub(super) running: Option<Holding>,
    /// Whose rights the check has.
    pub(super) user: String,
    /// The same in words, if they are not the caller's.
    pub(super) acting: Option<String>,
    /// Whether root's rights can be had again.
    pub(super) has_way_back: bool,
    /// What cannot be tried.
    pub(super) note: Option<Problem>,
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
        let of_service = installed.as_ref().and_then(Service::user);
        let user = user.or_else(|| of_service.filter(|_| geteuid().is_root()));
        let service = installed.as_ref().filter(|service| service.starts_with(file));
        let file = match service {
            Some(_) => path::absolute(file)?,
            None => file.to_owned(),
        };
        let working_folder = service.and_then(|service| service.working_folder.as_deref());
        // The socket may be in a folder that the user can enter only while it is the service's.
        let (mut socket, _) = load_whom_to_ask(&file);
        socket.path = working_folder.map_or_else(|| socket.path.clone(), |folder| folder.join(&socket.path));
        let running = super::run(control::ask_for_holding(&socket))?;
        let mut place = Self {
            file,
            surroundings: Surroundings {
                provided,
                state_folder: service.and_then(Service::state_folder).map(Path::to_owned),
            },
            running,
            service: service.cloned(),
            user: user.map_or_else(me, str::to_owned),
            acting: None,
            has_way_back: false,
            note: None,
        };
        if let Some(user) = user {
            let is_of_service = of_service == Some(user);
            place.become_user(user, installed.as_ref().filter(|_| is_of_service))?;
        }
        if let Some(folder) = working_folder {
            env::set_current_dir(folder)
                .with_context(|| format!("cannot go to WorkingDirectory={} of {UNIT}", folder.display()))?;
        }
        Ok(place)
    }

    /// Takes the rights of a user, which is the one of this service if there is one.
    fn become_user(&mut self, name: &str, service: Option<&Service>) -> anyhow::Result<()> {
        let further_groups = service.map_or(&[][..], |service| service.further_groups.as_slice());
        let dynamic = service.is_some_and(|service| service.dynamic);
        self.has_way_back = dynamic && geteuid().is_root();
        let account = Account {
            name,
            source: if service.is_some() {
                "User= in the unit file"
            } else {
                "--user"
            },
            group: service.and_then(|service| service.group.as_deref()),
            further_groups,
            dynamic,
        };
        self.acting = Some(match account.become_it()? {
            Became::User if service.is_some() => format!("checked as user {name}, as {UNIT} does"),
            Became::User => format!("checked as user {name}"),
            Became::Stranger => {
                let groups = match further_groups {
                    [] => "is in no group".to_owned(),
                    groups => format!("is in no group but {}", groups.join(", ")),
                };
                self.note = Some(Problem {
                    severity: Severity::Note,
                    path: String::new(),
                    message: format!(
                        "user {name} is not there until systemd makes it for {UNIT} (DynamicUser=yes), which is normal; a user \
                         that owns no file and {groups} was taken instead, and what systemd gives to {name} at the start was \
                         looked at by root: whether {name} may write there was not tried"
                    ),
                });
                format!("checked as a user that owns nothing, because systemd makes user {name} at the start")
            }
        });
        Ok(())
    }
}

/// Reads what systemd would read.
fn look_into(provided: Provided) -> ProvidedFile {
    let Provided { path, source } = provided;
    let content = match &source {
        None => Err(NotSeen::Hidden),
        // A folder may be used by many; only its existence matters.
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
