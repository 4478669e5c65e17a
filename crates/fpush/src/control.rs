//! The socket in the runtime directory, over which `fpush send` and `fpush check --connect` ask a running daemon.
//!
//! One line of JSON goes in, one comes back. Only the daemon's user and root can open the socket.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use fpush_component::Handle;
use fpush_push::Modules;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::inquiry::{Findings, Inquiry};

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFolder {
    path: PathBuf,
    /// Whether the settings name it. Otherwise the daemon goes on without one where it cannot be had.
    named: bool,
}

/// The open socket. It is removed on drop.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What the answers come from.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) modules: Arc<Modules>,
    pub(crate) component: Handle,
}

impl RuntimeFolder {
    /// The folder that the settings name (`runtimeDirectory`), or the one that systemd made for the service
    /// (`RuntimeDirectory=`), or the one that it makes with the unit file that comes with fpush.
    pub(crate) fn choose(named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self { path, named: true },
            None => Self {
                path: std::env::var_os("RUNTIME_DIRECTORY").map_or_else(|| USUAL.into(), PathBuf::from),
                named: false,
            },
        }
    }

    fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

impl Control {
    /// Opens the socket. `None` where there is no place for one, and the settings do not ask for it.
    pub(crate) async fn open(folder: &RuntimeFolder) -> anyhow::Result<Option<Self>> {
        let path = folder.socket();
        let opened = open(folder, &path).await;
        match opened {
            Ok(listener) => Ok(Some(Self { listener, path })),
            Err(e) if folder.named => Err(e).with_context(|| {
                let folder = folder.path.display();
                format!("cannot use runtimeDirectory {folder}: make it a folder that belongs to fpush's user")
            }),
            Err(e) => {
                debug!("no socket for fpush send and fpush check --connect: {e:#}");
                Ok(None)
            }
        }
    }

    /// Answers questions until it is dropped.
    pub(crate) async fn serve(self, desk: Desk) {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let desk = desk.clone();
                    tokio::spawn(async move {
                        // Whoever asked has gone, or is no fpush.
                        drop(timeout(PATIENCE, answer(stream, &desk)).await);
                        drop(place);
                    });
                }
                Err(e) => {
                    warn!("cannot accept a connection of fpush send or fpush check --connect: {e}");
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

async fn open(folder: &RuntimeFolder, path: &Path) -> anyhow::Result<UnixListener> {
    if folder.named {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder.path)?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => bail!("another fpush answers at {}", path.display()),
        // Left behind by one that was killed.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let mut findings = Findings::new();
    match serde_json::from_str(&line) {
        Ok(Inquiry::Send {
            module,
            token,
            priority,
        }) => findings.push(&desk.modules, &module, &token, priority).await,
        Ok(Inquiry::Check) => {
            let link = desk.component.link();
            findings.link(&link.component, link.down);
            findings.providers(&desk.modules.all()).await;
        }
        Err(_) => {
            findings.ok = false;
            findings.lines.push(
                "the running fpush does not understand the question: is it of another version?".to_owned(),
            );
        }
    }
    let mut line = serde_json::to_vec(&findings)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Asks the daemon that runs with this folder; `None` if none runs.
///
/// # Errors
///
/// One runs and cannot be asked.
pub(crate) async fn ask(folder: &RuntimeFolder, inquiry: &Inquiry) -> anyhow::Result<Option<Findings>> {
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
        Err(e) => bail!("cannot ask the running fpush at {shown}: {e}; run this as root or as fpush's user"),
    };
    let asking = async {
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(inquiry)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await?;
        Ok::<_, anyhow::Error>(serde_json::from_str(&answer)?)
    };
    let findings = timeout(2 * PATIENCE, asking)
        .await
        .with_context(|| format!("the running fpush at {shown} does not answer"))?
        .with_context(|| format!("the answer of the running fpush at {shown} cannot be read"))?;
    Ok(Some(findings))
}

const USUAL: &str = "/run/fpush";
const SOCKET: &str = "control.sock";
/// A question is not longer.
const LONGEST: u64 = 16 * 1_024;
/// Questions at a time.
const AT_A_TIME: usize = 4;
/// A push and all its attempts take 25 s; a check of many modules may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
