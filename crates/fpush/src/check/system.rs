//! What a start would take hold of: ports, folders, the database. All of it is tried, and let go without a trace: a port is
//! bound and freed, a folder that is missing is not made, the database is opened for reading alone.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{self, Path, PathBuf},
};

use fpush_push::{
    files::folder_of,
    settings::{Problem, Severity},
};
use rustix::{
    fs::{Access, access, statfs},
    process::geteuid,
};

use super::service::{Service, UNIT};
use crate::{
    cluster::{self, ClusterSettings},
    control,
    inquiry::Holding,
    registration::{self, RegistrationSettings},
    settings::Settings,
    state_dir,
};

/// What there is to know besides the settings.
pub(super) struct Situation<'a> {
    /// What the running fpush of these settings holds, if one runs.
    pub(super) running: Option<&'a Holding>,
    /// The service that is started with these settings, if there is one.
    pub(super) service: Option<&'a Service>,
    /// Whose rights the check has, for messages.
    pub(super) user: &'a str,
    /// Whether servers are asked, too.
    pub(super) connect: bool,
}

impl Situation<'_> {
    /// Everything that would keep a start with these settings from what it needs.
    pub(super) async fn problems(&self, settings: &Settings) -> Vec<Problem> {
        let mut problems = Vec::new();
        let monitoring = settings
            .monitoring
            .as_ref()
            .map(|monitoring| ("monitoring.listen", monitoring.listen));
        let http = settings.registration.as_ref().and_then(registration::listen);
        let http = http.map(|listen| ("registration.http.listen", listen));
        // Two that want the same port find each other.
        let mut bound = Vec::new();
        for (path, listen) in monitoring.into_iter().chain(http) {
            let binding = self.bind(listen).map(|listener| bound.push(listener));
            problems.extend(error(path, binding));
        }
        drop(bound);
        problems.extend(self.problems_of_places(settings, false).await);
        let is_made = self.service.is_some_and(Service::has_runtime_folder);
        if settings.runtime_folder.is_missing() && !is_made {
            problems.push(Problem {
                severity: Severity::Note,
                path: "runtimeDirectory".to_owned(),
                message:
                    "there is none, so fpush send, check --connect and reload cannot ask the fpush that runs"
                        .to_owned(),
            });
        }
        if let Some(registration) = &settings.registration
            && registration::database_file(registration).is_none()
        {
            problems.extend(self.database(settings, registration).await);
        }
        if let Some(cluster) = &settings.cluster {
            problems.extend(self.engine(cluster).await);
        }
        problems
    }

    /// What there is to say of the engine that several instances share.
    async fn engine(&self, cluster: &ClusterSettings) -> Vec<Problem> {
        let say = |severity, message| Problem {
            severity,
            path: "cluster".to_owned(),
            message,
        };
        if !self.connect {
            let not_asked = "the engine was not asked: fpush check --connect asks it".to_owned();
            return vec![say(Severity::Note, not_asked)];
        }
        match cluster::probe(cluster).await {
            Ok(concerns) => {
                let accepts =
                    "the engine accepts us, with all that is needed under cluster.prefix".to_owned();
                let concerns = concerns
                    .into_iter()
                    .map(|concern| say(Severity::Warning, concern));
                std::iter::once(say(Severity::Note, accepts))
                    .chain(concerns)
                    .collect()
            }
            // A start does not fail for that.
            Err(reason) => vec![say(Severity::Unusable, reason)],
        }
    }

    /// The rest: what is in folders that systemd gives to a user that it makes. Only root can look there, and whose it is
    /// does not matter yet.
    pub(super) async fn problems_of_handed_over(&self, settings: &Settings) -> Vec<Problem> {
        if geteuid().is_root() {
            return self.problems_of_places(settings, true).await;
        }
        let Settings {
            registration,
            state_folder,
            runtime_folder,
            ..
        } = settings;
        let database = registration.as_ref().and_then(registration::database_file);
        let socket = runtime_folder.socket_by_settings();
        let mut places = state_folder
            .as_deref()
            .into_iter()
            .chain(socket.as_deref())
            .chain(database);
        let note = places.any(|place| self.is_handed_over(place)).then(|| Problem {
            severity: Severity::Note,
            path: String::new(),
            message: format!(
                "what is in the folders that systemd makes for {UNIT} and its user (DynamicUser=yes) was not tried, which \
                 only root can do"
            ),
        });
        note.into_iter().collect()
    }

    /// What is wrong with the folders and the file that the settings name: those that systemd hands over, or the others.
    async fn problems_of_places(&self, settings: &Settings, handed_over: bool) -> Vec<Problem> {
        let is_meant = |place: &Path| self.is_handed_over(place) == handed_over;
        let mut problems = Vec::new();
        if let Some(folder) = settings.state_folder.as_deref().filter(|folder| is_meant(folder)) {
            problems.extend(error("stateDirectory", self.state_folder(folder)));
        }
        let socket = settings.runtime_folder.socket_by_settings();
        if let Some(socket) = socket.filter(|socket| is_meant(socket)) {
            let tried = control::fits(&settings.runtime_folder).and_then(|()| self.runtime_folder(&socket));
            problems.extend(error("runtimeDirectory", tried));
        }
        if let Some(registration) = &settings.registration
            && let Some(file) = registration::database_file(registration).filter(|file| is_meant(file))
        {
            match self.database_file(file) {
                Ok(()) => problems.extend(self.database(settings, registration).await),
                wrong @ Err(_) => problems.extend(error("registration.store.path", wrong)),
            }
        }
        problems
    }

    async fn database(&self, settings: &Settings, registration: &RegistrationSettings) -> Vec<Problem> {
        let known = settings.state_folder.as_deref().and_then(state_dir::peek_known);
        registration::probe(registration, self.connect, known.as_ref(), self.running.is_some()).await
    }

    fn is_handed_over(&self, place: &Path) -> bool {
        let absolute = path::absolute(place).unwrap_or_else(|_| place.to_owned());
        self.service
            .is_some_and(|service| service.is_handed_over(&absolute))
    }

    /// Binds a port, unless the running fpush has it.
    fn bind(&self, listen: SocketAddr) -> Result<Option<TcpListener>, String> {
        let error = match TcpListener::bind(listen) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) => error,
        };
        let port = listen.port();
        match error.kind() {
            ErrorKind::AddrInUse if self.running.is_some_and(|running| running.listens_at(listen)) => {
                Ok(None)
            }
            ErrorKind::AddrInUse => Err(format!(
                "another program listens at {listen}; stop it (ss -ltnp shows which it is), or choose another port"
            )),
            ErrorKind::PermissionDenied if self.service.is_some_and(|service| service.low_ports) => Ok(None),
            ErrorKind::PermissionDenied => Err(format!(
                "user {} may not listen at port {port}, because it is below 1024; choose a higher one and let a proxy have this \
                 one, or add AmbientCapabilities=CAP_NET_BIND_SERVICE and CapabilityBoundingSet=CAP_NET_BIND_SERVICE to \
                 the unit file, with PrivateUsers=no",
                self.user
            )),
            ErrorKind::AddrNotAvailable => Err(format!(
                "{} is not an address of this machine; use one of those that ip addr shows, 127.0.0.1 or 0.0.0.0",
                listen.ip()
            )),
            _ => Err(format!("cannot listen at {listen}: {error}")),
        }
    }

    fn state_folder(&self, folder: &Path) -> Result<(), String> {
        if self.service.and_then(Service::state_folder) == Some(folder) && !folder.exists() {
            // systemd makes it.
            return Ok(());
        }
        self.folder(folder)?;
        if !folder.exists() {
            return Ok(());
        }
        state_dir::examine(folder).map_err(|e| format!("cannot use {}: {e}", folder.display()))?;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // With what SQLite puts beside its file.
            let is_ours = name == "lock" || name.ends_with(".jsonl") || name.starts_with(state_dir::SPOOL);
            if is_ours {
                self.file(&path)?;
            }
        }
        let lock = folder.join("lock");
        match File::open(&lock).map(|lock| lock.try_lock()) {
            Ok(Err(TryLockError::WouldBlock))
                if self
                    .running
                    .is_none_or(|running| running.state_folder != folder.canonicalize().ok()) =>
            {
                Err(format!(
                    "another fpush uses {}; stop it, or choose another folder",
                    folder.display()
                ))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn runtime_folder(&self, socket: &Path) -> Result<(), String> {
        let folder = socket.parent().unwrap_or_else(|| Path::new("/"));
        self.folder(folder)?;
        match fs::symlink_metadata(socket) {
            Ok(there) if !there.file_type().is_socket() => Err(format!(
                "{} is not a socket; remove it, or choose another folder",
                socket.display()
            )),
            Ok(_) if self.running.is_none() && UnixStream::connect(socket).is_ok() => Err(format!(
                "another fpush answers at {}; give each a folder of its own",
                socket.display()
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn database_file(&self, file: &Path) -> Result<(), String> {
        let paths = ["", "-wal", "-shm"].map(|suffix| {
            let mut path = file.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        });
        if let Some(folder) = paths.iter().find(|path| path.is_dir()) {
            return Err(format!("{} is a folder; name a file", folder.display()));
        }
        if let Some(other) = paths
            .iter()
            .find(|path| fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()))
        {
            return Err(format!(
                "{}: it is not a regular file; name another one",
                other.display()
            ));
        }
        self.folder(folder_of(file))?;
        for path in paths.iter().filter(|path| path.exists()) {
            self.file(path)?;
        }
        Ok(())
    }

    /// Whether files can be made in a folder, or the folder itself where it is missing.
    fn folder(&self, folder: &Path) -> Result<(), String> {
        let shown = folder.display();
        let absolute = path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        match self.service {
            Some(service) if service.dynamic && !service.may_write(&absolute) => {
                return Err(format!(
                    "systemd keeps the service from writing to {shown} (DynamicUser=yes in the unit file); {}",
                    below_its_own(service)
                ));
            }
            Some(service) if !service.may_write(&absolute) => {
                return Err(format!(
                    "systemd keeps the service from writing to {shown} (ProtectSystem=strict in the unit file); choose a \
                     place below /var/lib/fpush, or do: systemctl edit fpush, and add ReadWritePaths={}",
                    absolute.display()
                ));
            }
            Some(_) | None => {}
        }
        let there = absolute
            .ancestors()
            .find(|ancestor| fs::symlink_metadata(ancestor).is_ok());
        let there = there.unwrap_or_else(|| Path::new("/"));
        if statfs(there).is_ok_and(|of| KERNELS.contains(&(of.f_type as u64))) {
            return Err(format!(
                "nothing can be made in {}, which belongs to the kernel; choose another place than {shown}",
                there.display()
            ));
        }
        let error = match fs::metadata(there) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(format!("{} is not a folder", there.display()));
            }
            Ok(_) => match access(there, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => return Ok(()),
                Err(e) => io::Error::from(e),
            },
            Err(e) => e,
        };
        Err(if there == absolute {
            format!(
                "user {} cannot write to {shown}: {error}; {}",
                self.user,
                self.remedy(there, "do")
            )
        } else {
            format!(
                "user {} cannot make {shown}: {}: {error}; {}",
                self.user,
                there.display(),
                self.remedy(folder, "make it, and do")
            )
        })
    }

    fn file(&self, file: &Path) -> Result<(), String> {
        access(file, Access::READ_OK | Access::WRITE_OK).map_err(|e| {
            format!(
                "user {} cannot read and write {}: {}; {}",
                self.user,
                file.display(),
                io::Error::from(e),
                self.remedy(file, "do")
            )
        })
    }

    fn remedy(&self, path: &Path, what_to_do: &str) -> String {
        match self.service {
            Some(service) if service.dynamic => below_its_own(service),
            Some(_) | None => format!("{what_to_do}: chown {} {}", self.user, path.display()),
        }
    }
}

/// What to do about a place that a user cannot have whom systemd makes anew at each start.
fn below_its_own(service: &Service) -> String {
    match service.state_folder() {
        Some(folder) => format!(
            "choose a place below {}, which belongs to its user",
            folder.display()
        ),
        None => {
            "choose a place below /var/lib/fpush, and add StateDirectory=fpush to the unit file".to_owned()
        }
    }
}

/// File systems of the kernel: proc, sysfs and cgroup2.
const KERNELS: [u64; 3] = [0x9fa0, 0x6265_6572, 0x6367_7270];

fn error(path: &str, tried: Result<(), String>) -> Option<Problem> {
    tried.err().map(|message| Problem {
        severity: Severity::Error,
        path: path.to_owned(),
        message,
    })
}
