//! A PostgreSQL server of one's own: no service of the machine, no port, and gone with the test.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{relay::Relay, temp_dir::TempDir};

/// A server that only this process knows: its socket is in a folder that goes with it.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    binaries: PathBuf,
    child: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that all tests that run now share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start_new());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server for one test.
    pub fn start_new() -> Self {
        let binaries = binaries();
        let folder = TempDir::new();
        if is_root() {
            let owner = Command::new("chown").arg(user()).arg(folder.path()).status();
            assert!(owner.unwrap().success(), "chown failed");
        }
        let data = folder.path().join("data");
        let made = as_user(&binaries.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let server = Self {
            folder,
            binaries,
            child: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.start();
        server
    }

    /// Starts it again.
    pub fn start(&self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let child = as_user(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path())
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        let end = Instant::now() + Duration::from_secs(30);
        while self.psql("postgres", "SELECT 1").is_none() {
            if Instant::now() > end {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("PostgreSQL does not start:\n{log}");
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops it, as it would stop by itself if its machine stopped.
    pub fn stop(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            // SIGQUIT: at once, and its children with it.
            let pid = child.id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-QUIT", &pid])
                    .status()
                    .unwrap()
                    .success()
            );
            child.wait().unwrap();
        }
    }

    /// Sends a signal, such as STOP, to the server and its children.
    pub fn signal_all(&self, signal: &str) {
        let server = self.child.lock().unwrap().as_ref().unwrap().id().to_string();
        let is_child = |pid: &String| {
            // The name of the process, in brackets, may hold spaces; its state and its parent come after.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            parent == Some(server.as_str())
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}"))
            .arg(&server)
            .args(pids.filter(is_child));
        assert!(kill.status().unwrap().success());
    }

    /// The URL of a new database.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
        self.url(&name)
    }

    /// The URL of the database with this name.
    pub fn url(&self, name: &str) -> String {
        format!(
            "postgres://postgres@localhost/{name}?host={}",
            self.folder.path().display()
        )
    }

    /// The name of the database with this URL.
    pub fn name<'a>(&self, url: &'a str) -> &'a str {
        let (before, _) = url.split_once('?').unwrap();
        before.rsplit('/').next().unwrap()
    }

    /// A way to the server on which things are delayed and held.
    pub fn relay(&self) -> Relay {
        Relay::to(&self.folder.path().join(SOCKET))
    }

    /// The URL of a database by this way.
    pub fn through(&self, relay: &Relay, url: &str) -> String {
        let [direct, by] = [self.folder.path(), relay.folder()].map(|folder| folder.display().to_string());
        assert!(url.contains(&direct), "{url} is no database of this server");
        url.replace(&direct, &by)
    }

    /// What a statement gives, if it succeeds.
    pub fn psql(&self, database: &str, sql: &str) -> Option<String> {
        let output = Command::new(self.binaries.join("psql"))
            .arg("-h")
            .arg(self.folder.path())
            .args(["-U", "postgres", "-d", database, "-AtXqc", sql])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where the programs are, of the newest version that is installed.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = versions
        .map(|version| version.path().join("bin"))
        .filter(|binaries| binaries.join("initdb").exists() && binaries.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect(
        "PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/initdb; do: apt-get install postgresql",
    )
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn user() -> &'static str {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    if users.lines().any(|line| line.starts_with("postgres:")) {
        "postgres"
    } else {
        "nobody"
    }
}

/// The server refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user(), "--regid", user_group(), "--clear-groups"])
        .arg(program)
        .current_dir("/");
    command
}

fn user_group() -> &'static str {
    if user() == "nobody" { "nogroup" } else { "postgres" }
}

/// The name of its socket, for the usual port.
const SOCKET: &str = ".s.PGSQL.5432";
