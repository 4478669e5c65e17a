//! A PostgreSQL server of one's own: no service of the machine, no port, and gone with the test.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{LONG, certs::Identity, helpers::is_root, own_port::free_port, relay::Relay, temp_dir::TempDir};

/// A server that only this process knows: its socket is in a folder that goes with it.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    binaries: PathBuf,
    /// The name of the folder of what it serves.
    data: Mutex<&'static str>,
    arguments: Vec<String>,
    /// Its socket is named after it, also where nobody listens there.
    port: u16,
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
        let server = Self::prepare();
        server.start();
        server
    }

    /// The same, which also listens at a [port](Self::port) of the loopback address, and speaks TLS there.
    pub fn with_tls(identity: &Identity) -> Self {
        let mut server = Self::prepare();
        server.port = free_port().unwrap();
        let files = [
            ("ssl_cert_file", "server.pem", &identity.cert_pem),
            ("ssl_key_file", "server.key", &identity.key_pem),
        ];
        let mut settings = vec!["listen_addresses=127.0.0.1".to_owned(), "ssl=on".to_owned()];
        for (key, name, content) in files {
            let file = server.folder.write(name, content);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            give_to_user(&file);
            settings.push(format!("{key}={}", file.display()));
        }
        server.arguments = settings
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect();
        server.start();
        server
    }

    /// One that is not started yet.
    fn prepare() -> Self {
        let binaries = binaries();
        let folder = TempDir::new();
        give_to_user(folder.path());
        let data = folder.path().join(FIRST);
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
        Self {
            folder,
            binaries,
            data: Mutex::new(FIRST),
            arguments: Vec::new(),
            port: PORT,
            child: Mutex::new(None),
            databases: AtomicU32::new(0),
        }
    }

    /// Starts it again.
    pub fn start(&self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let child = as_user(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.folder.path().join(*self.data.lock().unwrap()))
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
            .args(["-p", &self.port.to_string()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        let end = Instant::now() + LONG;
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
            // A test may have failed while it was halted.
            let server = child.id().to_string();
            signal_all(&server, "CONT");
            // SIGQUIT: at once, and its children with it.
            kill("QUIT", [server]);
            child.wait().unwrap();
        }
    }

    /// Makes a copy of all that it has, as a standby has it.
    pub fn copy(&self) {
        let copied = as_user(&self.binaries.join("pg_basebackup"))
            .arg("-h")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string()])
            .args(["-U", "postgres", "--no-sync", "--checkpoint=fast", "-D"])
            .arg(self.folder.path().join(SECOND))
            .output()
            .unwrap();
        let problem = String::from_utf8_lossy(&copied.stderr);
        assert!(copied.status.success(), "pg_basebackup failed: {problem}");
        let signal = self.folder.path().join(SECOND).join("standby.signal");
        fs::write(&signal, "").unwrap();
        give_to_user(&signal);
    }

    /// It stops as if its machine did, and at its address there is the copy: one that can be read alone until it is
    /// [promoted](Self::promote).
    pub fn fail_over(&self) {
        self.stop();
        *self.data.lock().unwrap() = SECOND;
        self.start();
    }

    /// The copy becomes a server that can be written to.
    pub fn promote(&self) {
        let promoted = self.psql("postgres", "SELECT pg_promote()");
        assert_eq!(promoted.as_deref(), Some("t\n"));
    }

    /// Sends STOP or CONT to the server and its children.
    pub fn signal_all(&self, signal: &str) {
        let server = self.child.lock().unwrap().as_ref().unwrap().id().to_string();
        signal_all(&server, signal);
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
            "postgres://postgres@localhost:{}/{name}?host={}",
            self.port,
            self.folder.path().display()
        )
    }

    /// The port at which it listens if it speaks TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name of the database with this URL.
    pub fn name<'a>(&self, url: &'a str) -> &'a str {
        let (before, _) = url.split_once('?').unwrap();
        before.rsplit('/').next().unwrap()
    }

    /// A way to the server on which things are delayed and held.
    pub fn relay(&self) -> Relay {
        let socket = format!(".s.PGSQL.{}", self.port);
        Relay::to(&self.folder.path().join(socket))
    }

    /// The URL of a database by this way.
    pub fn through(&self, relay: &Relay, url: &str) -> String {
        let [direct, by] = [self.folder.path(), relay.folder()].map(|folder| folder.display().to_string());
        assert!(url.contains(&direct), "{url} is not a database of this server");
        url.replace(&direct, &by)
    }

    /// What a statement gives, if it succeeds.
    pub fn psql(&self, database: &str, sql: &str) -> Option<String> {
        let output = Command::new(self.binaries.join("psql"))
            .arg("-h")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string()])
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

/// Sends STOP or CONT to a process and its children.
fn signal_all(server: &str, signal: &str) {
    // Meanwhile it begins no children, and none of those that it has is gone.
    kill("STOP", [server.to_owned()]);
    kill(signal, children_of(server));
    kill(signal, [server.to_owned()]);
}

/// Sends a signal to processes.
fn kill(signal: &str, pids: impl IntoIterator<Item = String>) {
    let pids: Vec<_> = pids.into_iter().collect();
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}")).args(pids);
    assert!(kill.status().unwrap().success(), "{kill:?}");
}

/// The processes that a process has begun.
fn children_of(parent: &str) -> impl Iterator<Item = String> {
    let is_child = move |pid: &String| {
        // The name of the process, in brackets, may hold spaces; its state and its parent come after.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent_of = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        parent_of == Some(parent)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(is_child)
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

/// The server reads nothing that is another user's.
fn give_to_user(path: &Path) {
    if is_root() {
        let owner = Command::new("chown").arg(user()).arg(path).status();
        assert!(owner.unwrap().success(), "chown failed");
    }
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

/// Folders of what it serves.
const FIRST: &str = "data";
const SECOND: &str = "copy";
/// The usual one.
const PORT: u16 = 5432;
