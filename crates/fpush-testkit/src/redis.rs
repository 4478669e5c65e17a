//! A Redis server of one's own: no service of the machine, and gone with the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{LONG, clock::Clock, own_port::free_port, relay::Relay, temp_dir::TempDir};

/// A server that only this process knows. It listens at a socket in a folder that goes with it, and at a port of the loopback
/// address.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    port: u16,
    tls_port: u16,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Mutex<Option<Child>>,
}

impl Redis {
    /// Whether there is a program to start.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// A server that keeps an append-only file, as its operator should have it.
    pub fn start_new() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "no"])
    }

    /// A server with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let server = Self::prepare(arguments);
        server.start();
        server
    }

    /// A server that keeps an append-only file, under this clock.
    pub fn under(clock: &Clock) -> Self {
        let mut server = Self::prepare(&["--appendonly", "yes", "--appendfsync", "no"]);
        server.environment = clock.environment_with_usual_allocator();
        server.start();
        server
    }

    /// A sentinel with this configuration.
    pub fn sentinel(config: &str) -> Self {
        let mut server = Self::prepare(&["--sentinel"]);
        // It writes into that file, which comes first.
        let file = server.folder.write("sentinel.conf", config);
        server.arguments.insert(0, file.display().to_string());
        server.start();
        server
    }

    /// A server that also speaks TLS, with these files in PEM form.
    pub fn with_tls(certificate: &Path, key: &Path, ca: &Path) -> Self {
        let mut server = Self::prepare(&["--appendonly", "yes", "--tls-auth-clients", "no"]);
        let files = [certificate, key, ca].map(|file| file.display().to_string());
        let keys = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
        for (key, file) in keys.into_iter().zip(files) {
            server.arguments.extend([key.to_owned(), file]);
        }
        let port = server.tls_port.to_string();
        server.arguments.extend(["--tls-port".to_owned(), port]);
        server.start();
        server
    }

    /// One that is not started yet.
    fn prepare(arguments: &[&str]) -> Self {
        let (folder, port) = (TempDir::new(), free_port().unwrap());
        let own = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--unixsocket", folder.path().join(SOCKET).display().to_string()),
            ("--dir", folder.path().display().to_string()),
        ];
        let own = own.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        Self {
            arguments: own.chain(arguments.iter().map(ToString::to_string)).collect(),
            folder,
            port,
            tls_port: free_port().unwrap(),
            environment: Vec::new(),
            child: Mutex::new(None),
        }
    }

    /// Starts it, also again.
    pub fn start(&self) {
        let program = program()
            .expect("there is neither valkey-server nor redis-server; do: apt-get install redis-server");
        let child = Command::new(program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdout(fs::File::create(self.folder.path().join("log")).unwrap())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        let end = Instant::now() + LONG;
        loop {
            match self.try_ask(&["PING"]) {
                Some(answer) if !answer.starts_with("-LOADING") => return,
                _ => {}
            }
            if Instant::now() > end {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("the Redis server does not start:\n{log}");
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops it, as if its machine stopped.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // It would be in the way of the next one.
            let _ = fs::remove_file(self.socket());
        }
    }

    /// Sends a signal, such as STOP.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let kill = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(kill.unwrap().success());
    }

    /// The process that it is now.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    /// The port at the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for TLS, if it speaks that.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Its URL by the socket.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its URL by the port.
    pub fn tcp_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A way to the server on which things are delayed and held, and its URL.
    pub fn relay(&self) -> (Relay, String) {
        let relay = Relay::to(&self.socket());
        let url = format!("unix://{}", relay.folder().join(SOCKET).display());
        (relay, url)
    }

    /// What it answers, as one text: lines of lists follow each other.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        let answer = self.try_ask(command).expect("the Redis server answers");
        assert!(!answer.starts_with('-'), "{command:?}: {answer}");
        answer
    }

    /// The same; an error begins with a hyphen, and `None` is not an answer.
    pub fn try_ask(&self, command: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        read(&mut BufReader::new(stream), &mut answer)?;
        Some(answer.join("\n"))
    }

    /// The names of all keys.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.ask(&["KEYS", "*"]).lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<&'static str> {
    ["/usr/bin/valkey-server", "/usr/bin/redis-server"]
        .into_iter()
        .find(|program| Path::new(program).exists())
}

/// Reads one answer; the texts in it go into the list.
fn read(stream: &mut BufReader<UnixStream>, texts: &mut Vec<String>) -> Option<()> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1)?;
    match kind {
        "*" => {
            for _ in 0..rest.parse::<i64>().ok()? {
                read(stream, texts)?;
            }
        }
        "$" => {
            let length: i64 = rest.parse().ok()?;
            let mut content = vec![0; usize::try_from(length + 2).unwrap_or(0)];
            std::io::Read::read_exact(stream, &mut content).ok()?;
            if length >= 0 {
                content.truncate(content.len() - 2);
                texts.push(String::from_utf8_lossy(&content).into_owned());
            }
        }
        "-" => texts.push(line.to_owned()),
        _ => texts.push(rest.to_owned()),
    }
    Some(())
}

const SOCKET: &str = "redis.sock";
