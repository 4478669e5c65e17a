//! The socket in the runtime directory, over which `fpush send`, `check --connect` and `reload` ask a running daemon.
//!
//! One line of JSON goes in, one comes back. Only the daemon's user and root can open the socket.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fpush_component::Handle;
use fpush_driver::Modules;
use fpush_monitor::Monitor;
use fpush_push::{files, sync::lock};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    folders::{self, RuntimeFolder, SOCKET},
    inquiry::{Findings, Holding, Inquiry, Question, Verdict, about_link, one_each},
    registration,
    settings::Source,
};

/// The open socket. It is removed on drop.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What the answers come from.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) modules: Arc<Modules>,
    pub(crate) component: Handle,
    /// The settings file of the daemon.
    pub(crate) settings: PathBuf,
    pub(crate) reloads: Reloads,
    pub(crate) holding: Arc<Mutex<Holding>>,
    /// What the settings in force were read from.
    pub(crate) source: Arc<Mutex<Source>>,
    pub(crate) devices: registration::Lookup,
    pub(crate) monitor: Arc<Monitor>,
}

/// Where the daemon is asked to reload. What comes back is the verdict.
pub(crate) type Reloads = mpsc::Sender<oneshot::Sender<Verdict>>;

impl Control {
    /// Opens the socket. `None` where there is no place for one, and the settings do not ask for it.
    pub(crate) async fn open(folder: &RuntimeFolder) -> anyhow::Result<Option<Self>> {
        let path = folder.socket();
        let opened = open(folder, &path).await;
        match opened {
            Ok(listener) => Ok(Some(Self { listener, path })),
            Err(NoSocket::Taken) if folder.named => bail!(
                "another fpush uses runtimeDirectory {}: stop it, or choose another folder",
                folder.path.display()
            ),
            Err(NoSocket::Io(e)) if folder.named => bail!(
                "cannot use runtimeDirectory {}: {}",
                folder.path.display(),
                explain(folder, &path, &e)
            ),
            Err(NoSocket::Taken) => {
                warn!(
                    "another fpush answers at {}, and fpush send, check --connect and reload ask that one; give each a \
                     runtimeDirectory of its own",
                    path.display()
                );
                Ok(None)
            }
            // Under systemd a reload needs it.
            Err(NoSocket::Io(e)) if env::var_os("INVOCATION_ID").is_some() => {
                warn!(
                    "no socket for fpush send, check --connect and reload in {}: {}; set RuntimeDirectory= in the unit, or \
                     reload with: systemctl kill -s HUP fpush",
                    folder.path.display(),
                    explain(folder, &path, &e)
                );
                Ok(None)
            }
            Err(NoSocket::Io(e)) => {
                debug!("no socket for fpush send, check --connect and reload: {e}");
                info!(
                    "there is no runtimeDirectory, so fpush send, check --connect and reload cannot ask this fpush; SIGHUP \
                     reloads it"
                );
                Ok(None)
            }
        }
    }

    /// Answers questions until it is dropped.
    pub(crate) async fn serve(self, responder: Responder) {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let responder = responder.clone();
                    tokio::spawn(async move {
                        // The client has gone, or is not an fpush.
                        drop(timeout(PATIENCE, answer(stream, &responder)).await);
                        drop(place);
                    });
                }
                Err(e) => {
                    warn!("cannot accept a connection at the control socket: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // If it is gone already, that is as good.
        drop(fs::remove_file(&self.path));
    }
}

/// Why there is no socket.
enum NoSocket {
    /// Another daemon has it.
    Taken,
    /// There is no place for it.
    Io(io::Error),
}

impl From<io::Error> for NoSocket {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn open(folder: &RuntimeFolder, path: &Path) -> Result<UnixListener, NoSocket> {
    if folder.named {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder.path)?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(NoSocket::Taken),
        // Left behind by one that was killed; a file that is not a socket is not ours.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(path)? => fs::remove_file(path)?,
        Err(_) => {}
    }
    // Nobody reaches the socket before its mode is right.
    let hidden = folder.path.join(HIDDEN);
    let new = hidden.join(SOCKET);
    let remove = || (fs::remove_file(&new), fs::remove_dir(&hidden));
    // What a killed one has left.
    drop(remove());
    fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    let bound = UnixListener::bind(&new).and_then(|listener| {
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        // Unlike a renaming, it replaces nothing.
        fs::hard_link(&new, path)?;
        Ok(listener)
    });
    drop(remove());
    Ok(bound?)
}

/// Why there is no socket, and what to do.
fn explain(folder: &RuntimeFolder, path: &Path, error: &io::Error) -> String {
    if let Err(too_long) = fits(folder) {
        return too_long;
    }
    if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_ok() {
        return format!(
            "{} is there, and no socket that user {} may replace; remove it, or choose another folder",
            path.display(),
            files::this_user()
        );
    }
    format!("{error}; {}", folders::remedy(error, &folder.path))
}

/// Whether the path of the socket is short enough for the kernel.
pub(crate) fn fits(folder: &RuntimeFolder) -> Result<(), String> {
    let length = folder.path.join(HIDDEN).join(SOCKET).as_os_str().len();
    if length <= LONGEST_PATH {
        return Ok(());
    }
    Err(format!(
        "the path of the folder is {} bytes too long for a socket in it; choose a shorter one, such as /run/fpush",
        length - LONGEST_PATH
    ))
}

fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.file_type().is_socket())
}

impl Responder {
    /// Whether the settings file was edited since the settings in force were read.
    async fn is_edited(&self) -> bool {
        let (source, file) = (lock(&self.source).clone(), self.settings.clone());
        let looking = spawn_blocking(move || source.is_edited(&file));
        looking.await.unwrap_or(false)
    }
}

async fn answer(stream: UnixStream, responder: &Responder) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let mut findings = Findings::new();
    let links = responder.component.links();
    let components = one_each(links.iter().map(|link| &*link.component));
    match serde_json::from_str(&line) {
        Ok(Question {
            components: meant, ..
        }) if !meant.is_empty() && !meant.iter().any(|name| components.contains(name)) => {
            findings.not_meant(&components, &meant);
        }
        Ok(Question { inquiry, .. }) => match inquiry {
            Inquiry::Send {
                module,
                token,
                priority,
            } => findings.push(&responder.modules, &module, &token, priority).await,
            Inquiry::Check => {
                if responder.is_edited().await {
                    findings.edited(&responder.settings.display().to_string());
                }
                let is_only = links.len() == 1;
                for link in links {
                    let about = about_link(&link.component, &link.name, is_only);
                    findings.link(&about, link.down);
                }
                findings.providers(&responder.modules.all()).await;
            }
            Inquiry::Reload { settings } => reload(&mut findings, responder, &components, &settings).await,
            Inquiry::Token(wanted) => {
                findings
                    .token(&responder.modules, &responder.devices, &wanted)
                    .await;
            }
            Inquiry::Health => findings.health(responder.monitor.unready()),
            Inquiry::Holding => {
                findings.holding = Some(lock(&responder.holding).clone());
            }
        },
        Err(_) => findings
            .bad("the running fpush does not understand the question: is it of another version?".to_owned()),
    }
    let mut line = serde_json::to_vec(&findings)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

async fn reload(findings: &mut Findings, responder: &Responder, components: &[String], asked: &Path) {
    let own = responder.settings.display();
    if !is_same_file(asked, &responder.settings) {
        return findings.bad(format!(
            "the running fpush is that of {}, and its settings file is {own}, not {}",
            components.join(" and "),
            asked.display()
        ));
    }
    let (answer, verdict) = oneshot::channel();
    // Both fail only while the daemon ends.
    let verdict = match responder.reloads.send(answer).await {
        Ok(()) => verdict.await.ok(),
        Err(_) => None,
    };
    match verdict {
        Some(verdict) => findings.reload(&own.to_string(), &verdict),
        None => findings.bad("the running fpush is stopping".to_owned()),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Asks the daemon that runs with this folder; `None` if none runs.
///
/// # Errors
///
/// One runs and cannot be asked.
pub(crate) async fn ask(folder: &RuntimeFolder, question: &Question) -> anyhow::Result<Option<Findings>> {
    let path = folder.socket();
    let shown = path.display();
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let user = files::this_user();
            bail!(
                "cannot ask the running fpush at {shown}: {e}; this is user {user}: run it as root or as fpush's user"
            )
        }
        Err(e) => {
            bail!("cannot ask the running fpush at {shown}: {e}; check runtimeDirectory in the settings")
        }
    };
    let asking = async {
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(2 * PATIENCE, asking)
        .await
        .with_context(|| format!("the running fpush at {shown} does not answer"))?
        .with_context(|| format!("cannot ask the running fpush at {shown}"))?;
    if answer.is_empty() {
        bail!("the running fpush at {shown} gave no answer: was it stopped meanwhile?");
    }
    let findings = serde_json::from_str(&answer).with_context(|| {
        format!("the answer of the running fpush at {shown} cannot be read: is it of another version?")
    })?;
    Ok(Some(findings))
}

/// Whether the daemon that runs with this folder is ready; `None` if none runs.
///
/// # Errors
///
/// One runs, and does not say so in time.
pub(crate) async fn ask_for_health(
    folder: &RuntimeFolder,
    components: Vec<String>,
) -> anyhow::Result<Option<Findings>> {
    let inquiry = Inquiry::Health;
    let asking = timeout(QUICK, ask(folder, &Question { components, inquiry })).await;
    asking.unwrap_or_else(|_| {
        bail!(
            "the running fpush does not answer in {} s: it hangs",
            QUICK.as_secs()
        )
    })
}

/// What the daemon that runs with this folder holds; `None` if none runs, or none that says so in time.
pub(crate) async fn ask_for_holding(folder: &RuntimeFolder) -> Option<Holding> {
    let question = Question {
        components: Vec::new(),
        inquiry: Inquiry::Holding,
    };
    let findings = timeout(QUICK, ask(folder, &question)).await;
    findings.ok()?.ok()??.holding
}

/// The folder in which the socket is made.
const HIDDEN: &str = ".control";
/// `sockaddr_un` has room for 108 bytes, the last of which is zero.
const LONGEST_PATH: usize = 107;
/// A question is not longer: whatever fits on a command line, and who asks is not to be guarded against.
const LONGEST: u64 = 1_024 * 1_024;
/// Questions at a time.
const AT_A_TIME: usize = 4;
/// A push and all its attempts take 25 s; a check of many modules may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// For what the daemon knows without asking anybody.
const QUICK: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use fpush_testkit::TempDir;

    use super::*;

    fn check() -> Question {
        Question {
            components: Vec::new(),
            inquiry: Inquiry::Check,
        }
    }

    fn named(dir: &TempDir) -> RuntimeFolder {
        RuntimeFolder::choose(Some(dir.path().join("run")))
    }

    #[tokio::test]
    async fn a_socket_is_opened_once_and_goes_with_its_owner() {
        let dir = TempDir::new();
        let folder = named(&dir);
        assert!(ask(&folder, &check()).await.unwrap().is_none());
        let control = Control::open(&folder).await.unwrap().unwrap();
        let refused = Control::open(&folder).await.err().unwrap().to_string();
        assert!(
            refused.starts_with("another fpush uses runtimeDirectory"),
            "{refused}"
        );
        assert!(folder.socket().exists(), "it is still the first one's");
        drop(control);
        assert!(!folder.socket().exists());
    }

    #[tokio::test]
    async fn what_was_left_behind_is_nobody_and_is_replaced() {
        let dir = TempDir::new();
        let folder = named(&dir);
        fs::create_dir(dir.path().join("run")).unwrap();
        drop(UnixListener::bind(folder.socket()).unwrap());
        assert!(folder.socket().exists());
        assert!(ask(&folder, &check()).await.unwrap().is_none());
        assert!(Control::open(&folder).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_socket_is_the_only_thing_there_and_is_for_its_user_alone() {
        let dir = TempDir::new();
        let folder = named(&dir);
        let control = Control::open(&folder).await.unwrap().unwrap();
        let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 1);
        drop(control);
        fs::write(folder.socket(), "somebody's").unwrap();
        assert!(Control::open(&folder).await.is_err());
        assert_eq!(fs::read(folder.socket()).unwrap(), b"somebody's");
    }

    /// Without systemd, and without a word about it in the settings, it is missed by nobody.
    #[tokio::test]
    async fn only_a_folder_that_was_named_must_be_usable() {
        let dir = TempDir::new();
        let file = dir.write("file", "");
        let folder = |named| RuntimeFolder {
            path: file.join("run"),
            named,
        };
        assert!(Control::open(&folder(false)).await.unwrap().is_none());
        let refused = Control::open(&folder(true)).await.err().unwrap().to_string();
        assert!(
            refused.contains("make it a folder that belongs to fpush's user"),
            "{refused}"
        );
    }
}
