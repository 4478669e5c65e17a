//! Private XMPP servers on loopback, and a client to use them with.
//!
//! A fake server shows how fpush answers; only a real one shows what a publish looks like and what a reply does to a
//! registration. [`Prosody`] and [`Ejabberd`] run from a temporary folder, as root or as an ordinary user, beside any
//! other instance on the machine, and end with the process that started them, however that process ends.
//!
//! Everything here blocks: from async code, call it in `spawn_blocking`.

mod client;
mod guarded;
mod tap;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use self::client::{Client, attribute, escape, form_value, submit_form};
pub use self::guarded::{Guarded, Running};
pub use self::tap::{Seen, Tap};
use crate::helpers::{LONG, is_root};
use crate::own_port::{free_port, is_open};
use crate::temp_dir::TempDir;

/// The one domain of the private servers; users are `NAME@localhost`.
pub const HOST: &str = "localhost";

/// What [`Prosody`] and [`Ejabberd`] have in common, so that one test runs over both.
pub trait Server {
    /// The server's name, for messages.
    fn name(&self) -> &'static str;

    /// The port on 127.0.0.1 for components.
    fn component_port(&self) -> u16;

    /// The port on 127.0.0.1 for clients; without TLS.
    fn c2s_port(&self) -> u16;

    /// How many components have logged in since the server was started for the first time.
    fn component_logins(&self) -> usize;

    /// The whole debug log so far.
    fn log(&self) -> String;

    /// Its processes, of which the kernel can be asked.
    fn processes(&self) -> Vec<u32>;

    /// Stops the server and waits for its end. Its log stays readable.
    fn stop(&mut self);

    /// Starts the server again, after [`Server::stop`] or in place of it, with its users and registrations, on the
    /// same ports.
    fn restart(&mut self) -> io::Result<()>;

    /// Makes the account `user@localhost`.
    fn register(&self, user: &str, password: &str) -> io::Result<()> {
        Client::register(self.c2s_port(), user, password, HOST)
    }

    /// A client of this server that is logged in as `user@localhost`.
    fn login(&self, user: &str, password: &str) -> io::Result<Client> {
        Client::login(self.c2s_port(), user, password, HOST)
    }

    /// Waits until `needle` stands in the log.
    fn wait_for_log(&self, needle: &str, timeout: Duration) -> io::Result<()> {
        wait_until(timeout, || self.log().contains(needle)).ok_or_else(|| {
            timed_out(format!(
                "no {needle:?} in the log of {} in {timeout:?}",
                self.name()
            ))
        })
    }

    /// Waits until so many components have logged in.
    fn wait_for_component(&self, logins: usize, timeout: Duration) -> io::Result<()> {
        wait_until(timeout, || self.component_logins() >= logins).ok_or_else(|| {
            timed_out(format!(
                "component login {logins} has not reached {} in {timeout:?}",
                self.name()
            ))
        })
    }
}

/// Which server, for a test of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Prosody`].
    Prosody,
    /// [`Ejabberd`].
    Ejabberd,
}

impl Kind {
    /// Starts one with these components (JID and secret), as it is usual.
    ///
    /// # Panics
    ///
    /// It does not start, or is not installed.
    pub fn start(self, components: &[(&str, &str)]) -> Box<dyn Server> {
        let started = match self {
            Self::Prosody => Prosody::start(components, "").map(|server| Box::new(server) as _),
            Self::Ejabberd => Ejabberd::start(components, "").map(|server| Box::new(server) as _),
        };
        started.unwrap_or_else(|e| panic!("{e}"))
    }
}

/// A private Prosody with `mod_cloud_notify`.
#[derive(Debug)]
pub struct Prosody(Instance);

impl Prosody {
    /// Whether this machine has what [`Prosody::start`] needs.
    pub fn is_installed() -> bool {
        installed("prosody") && Path::new(PROSODY_MODULES).join("mod_cloud_notify").exists()
    }

    /// Starts Prosody with these components (JID and secret) and waits until both ports are open.
    ///
    /// `extra_config` is Lua; it stands in the global section of the configuration, after everything that is set
    /// there by default.
    pub fn start(components: &[(&str, &str)], extra_config: &str) -> io::Result<Self> {
        Self::start_logging("debug", components, extra_config)
    }

    /// The same with a log as usual, which has no line for each stanza.
    pub fn start_at_info(components: &[(&str, &str)]) -> io::Result<Self> {
        Self::start_logging("info", components, "")
    }

    fn start_logging(level: &str, components: &[(&str, &str)], extra_config: &str) -> io::Result<Self> {
        if !Self::is_installed() {
            return Err(missing(
                "Prosody with mod_cloud_notify",
                "prosody prosody-modules",
            ));
        }
        let folder = TempDir::new();
        let (c2s_port, component_port) = (free_port()?, free_port()?);
        let dir = folder.path().display();
        let mut config = format!(
            r#"run_as_root = {root}
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
plugin_paths = {{ "{PROSODY_MODULES}" }}
modules_enabled = {{ "saslauth", "roster", "disco", "ping", "register", "smacks", "carbons", "cloud_notify", "offline" }}
modules_disabled = {{ "s2s" }}
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
c2s_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s_port} }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component_port} }}
log = {{ {level} = "{dir}/prosody.log" }}
{extra_config}
VirtualHost "{HOST}"
"#,
            root = is_root(),
        );
        for (jid, secret) in components {
            let _ = write!(
                config,
                "\nComponent \"{jid}\"\n\tcomponent_secret = \"{secret}\"\n"
            );
        }
        let config_file = folder.path().join("prosody.cfg.lua");
        fs::create_dir(folder.path().join("data"))?;
        fs::write(&config_file, config)?;

        let mut command = Guarded::new("prosody");
        command.arg("--config").arg(&config_file).arg("-F");
        let mut instance = Instance {
            name: "Prosody",
            log_file: folder.path().join("prosody.log"),
            console: folder.path().join("console.log"),
            component_port,
            c2s_port,
            // It writes no line once it is ready; open ports say it.
            ready_line: "",
            login_line: "External component successfully authenticated",
            programs: vec![command],
            running: Vec::new(),
            folder,
        };
        instance.start()?;
        Ok(Self(instance))
    }

    /// The folder with everything that Prosody stores. It is removed with the server.
    pub fn data(&self) -> PathBuf {
        self.0.folder.path().join("data")
    }
}

/// A private ejabberd with `mod_push`.
#[derive(Debug)]
pub struct Ejabberd(Instance);

impl Ejabberd {
    /// Whether this machine has what [`Ejabberd::start`] needs.
    pub fn is_installed() -> bool {
        installed("erl") && installed("epmd") && ejabberd_libraries().is_some()
    }

    /// Starts ejabberd with these components (JID and secret) and waits until it is ready.
    ///
    /// `extra_config` is YAML at the top level; two spaces in front of its first lines put them into `modules`, which
    /// comes last.
    pub fn start(components: &[(&str, &str)], extra_config: &str) -> io::Result<Self> {
        Self::start_with(DEBUG, components, "", extra_config)
    }

    /// The same with a log as usual, which has no line for each stanza.
    pub fn start_at_info(components: &[(&str, &str)]) -> io::Result<Self> {
        Self::start_with(INFO, components, "", "")
    }

    /// The same, where the port for components speaks TLS with the certificate and key in this PEM file.
    pub fn start_with_tls(components: &[(&str, &str)], certificate: &Path) -> io::Result<Self> {
        let listener = format!("\n    tls: true\n    certfile: \"{}\"", certificate.display());
        Self::start_with(DEBUG, components, &listener, "")
    }

    fn start_with(
        level: u8,
        components: &[(&str, &str)],
        listener_config: &str,
        extra_config: &str,
    ) -> io::Result<Self> {
        let libraries = ejabberd_libraries()
            .filter(|_| Self::is_installed())
            .ok_or_else(|| missing("ejabberd", "ejabberd"))?;
        let folder = TempDir::new();
        let (c2s_port, component_port, epmd_port) = (free_port()?, free_port()?, free_port()?);
        let dir = folder.path().display();
        let mut hosts = String::new();
        for (jid, secret) in components {
            let _ = write!(hosts, "\n      \"{jid}\": {{password: \"{secret}\"}}");
        }
        let hosts = if hosts.is_empty() {
            String::new()
        } else {
            format!("\n    hosts:{hosts}")
        };
        let config = format!(
            r#"hosts: [{HOST}]
loglevel: {level}
auth_method: internal
auth_password_format: plain
registration_timeout: infinity
listen:
  -
    port: {c2s_port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: false
  -
    port: {component_port}
    ip: "127.0.0.1"
    module: ejabberd_service{listener_config}{hosts}
modules:
  mod_disco: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_push: {{include_body: "New message"}}
  mod_register: {{ip_access: all}}
  mod_roster: {{}}
  mod_stream_mgmt: {{}}
{extra_config}
"#
        );
        let config_file = folder.path().join("ejabberd.yml");
        let log_file = folder.path().join("log/ejabberd.log");
        fs::create_dir(folder.path().join("log"))?;
        fs::write(&config_file, config)?;

        let environment = [
            ("HOME", dir.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", epmd_port.to_string()),
            ("ERL_CRASH_DUMP", "/dev/null".to_owned()),
        ];
        // The node would start a port mapper of its own and leave it behind.
        let mut epmd = Guarded::new("epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let mut node = Guarded::new("erl");
        node.args([
            "-noinput",
            "-start_epmd",
            "false",
            "-sname",
            &format!("ejabberd{c2s_port}@localhost"),
        ])
        .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
        .args(["-mnesia", "dir", &erlang_string(&folder.path().join("spool"))])
        .args(["-ejabberd", "config", &erlang_string(&config_file)])
        .args(["log_path", &erlang_string(&log_file)])
        // A test reads all of it.
        .args(["log_rotate_size", "infinity"])
        .arg("-pa")
        .args(libraries)
        .args(["-s", "ejabberd"]);
        for command in [&mut epmd, &mut node] {
            command.current_dir(folder.path()).envs(environment.clone());
        }
        let mut instance = Instance {
            name: "ejabberd",
            log_file,
            console: folder.path().join("console.log"),
            component_port,
            c2s_port,
            ready_line: "is started in the node",
            login_line: "Accepted external component handshake",
            programs: vec![epmd, node],
            running: Vec::new(),
            folder,
        };
        instance.start()?;
        Ok(Self(instance))
    }
}

/// Log levels of ejabberd.
const DEBUG: u8 = 5;
const INFO: u8 = 4;

/// What a private server is made of.
#[derive(Debug)]
struct Instance {
    name: &'static str,
    log_file: PathBuf,
    console: PathBuf,
    component_port: u16,
    c2s_port: u16,
    /// Stands in the log once the server is ready.
    ready_line: &'static str,
    /// Stands in the log once per login of a component.
    login_line: &'static str,
    programs: Vec<Guarded>,
    /// Ends before `folder` is removed: fields are dropped in this order.
    running: Vec<Running>,
    folder: TempDir,
}

impl Instance {
    fn start(&mut self) -> io::Result<()> {
        let ready_before = self.log().matches(self.ready_line).count();
        for program in &mut self.programs {
            let output = File::options().create(true).append(true).open(&self.console)?;
            self.running.push(program.spawn(output)?);
        }
        let end = Instant::now() + LONG;
        loop {
            let ready =
                self.ready_line.is_empty() || self.log().matches(self.ready_line).count() > ready_before;
            if ready && is_open(self.component_port) && is_open(self.c2s_port) {
                return Ok(());
            }
            for program in &mut self.running {
                if let Some(status) = program.try_wait()? {
                    return Err(self.failed(&format!("{} ended at once ({status})", self.name)));
                }
            }
            if Instant::now() > end {
                return Err(self.failed(&format!("{} was not ready in {LONG:?}", self.name)));
            }
            thread::sleep(POLL);
        }
    }

    fn failed(&self, what: &str) -> io::Error {
        let console = fs::read_to_string(&self.console).unwrap_or_default();
        let log = self.log();
        let tail = |text: &str| {
            let lines = text.lines().collect::<Vec<_>>();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        io::Error::other(format!(
            "{what}\nits output ends with:\n{}\nits log ends with:\n{}",
            tail(&console),
            tail(&log)
        ))
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_file).unwrap_or_default()).into_owned()
    }

    fn processes(&self) -> Vec<u32> {
        self.running.iter().flat_map(Running::processes).collect()
    }

    fn stop(&mut self) {
        // The node first, then its port mapper.
        while let Some(mut program) = self.running.pop() {
            program.stop();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is an instance of one of the servers.
trait Served {
    fn instance(&self) -> &Instance;
    fn instance_mut(&mut self) -> &mut Instance;
}

impl Served for Prosody {
    fn instance(&self) -> &Instance {
        &self.0
    }

    fn instance_mut(&mut self) -> &mut Instance {
        &mut self.0
    }
}

impl Served for Ejabberd {
    fn instance(&self) -> &Instance {
        &self.0
    }

    fn instance_mut(&mut self) -> &mut Instance {
        &mut self.0
    }
}

impl<S: Served> Server for S {
    fn name(&self) -> &'static str {
        self.instance().name
    }

    fn component_port(&self) -> u16 {
        self.instance().component_port
    }

    fn c2s_port(&self) -> u16 {
        self.instance().c2s_port
    }

    fn component_logins(&self) -> usize {
        self.log().matches(self.instance().login_line).count()
    }

    fn log(&self) -> String {
        self.instance().log()
    }

    fn processes(&self) -> Vec<u32> {
        self.instance().processes()
    }

    fn stop(&mut self) {
        self.instance_mut().stop();
    }

    fn restart(&mut self) -> io::Result<()> {
        self.instance_mut().stop();
        self.instance_mut().start()
    }
}

fn wait_until(timeout: Duration, done: impl Fn() -> bool) -> Option<()> {
    let end = Instant::now() + timeout;
    loop {
        if done() {
            return Some(());
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The folders with the compiled modules of ejabberd and of the libraries that it is packaged with.
fn ejabberd_libraries() -> Option<Vec<PathBuf>> {
    let folders = |path: &Path| {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    folders(Path::new("/usr/lib")).into_iter().find_map(|folder| {
        let libraries = folders(&folder)
            .into_iter()
            .map(|l| l.join("ebin"))
            .filter(|l| l.is_dir())
            .collect::<Vec<_>>();
        libraries
            .iter()
            .any(|library| library.join("ejabberd.app").is_file())
            .then_some(libraries)
    })
}

fn erlang_string(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn missing(what: &str, packages: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{what} is not installed; `apt-get install {packages}` or `cargo xtask test` installs it"),
    )
}

fn timed_out(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

const PROSODY_MODULES: &str = "/usr/lib/prosody/modules";

const POLL: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    /// The least that is a component: it logs in and reads.
    fn component(server: &dyn Server, jid: &str, secret: &str) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.component_port())).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let header = format!(
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{jid}'>"
        );
        stream.write_all(header.as_bytes()).unwrap();
        let header = read_until(&mut stream, "id=").replace("<?xml version='1.0'?>", "");
        let id = attribute(&header, "id").unwrap();
        let hash = sha1_hex(&format!("{id}{secret}"));
        stream
            .write_all(format!("<handshake>{hash}</handshake>").as_bytes())
            .unwrap();
        read_until(&mut stream, "<handshake");
        stream
    }

    fn sha1_hex(text: &str) -> String {
        use sha1::Digest as _;
        sha1::Sha1::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn read_until(stream: &mut TcpStream, needle: &str) -> String {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        while !text.contains(needle) {
            let count = stream.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the server closed the stream after {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        text
    }

    fn a_message_becomes_a_publish(server: &mut dyn Server) {
        server.register("alice", "a").unwrap();
        server.register("bob", "b").unwrap();
        assert!(server.login("alice", "wrong").is_err());

        let mut push = component(server, "push.localhost", "secret");
        server.wait_for_component(1, LONG).unwrap();
        let mut alice = server.login("alice", "a").unwrap();
        alice.send_presence().unwrap();
        alice.enable_push("push.localhost", "a<b", Some("demo")).unwrap();
        alice.logout().unwrap();

        let mut bob = server.login("bob", "b").unwrap();
        bob.send_message("alice@localhost", "1 < 2").unwrap();
        let publish = read_until(&mut push, "</iq>");
        assert!(
            publish.contains("a&lt;b") && publish.contains("<value>demo</value>"),
            "{publish}"
        );

        server.restart().unwrap();
        let mut alice = server.login("alice", "a").unwrap();
        alice.send_presence().unwrap();
        let message = alice
            .next_matching(|stanza| stanza.starts_with("<message"), LONG)
            .unwrap();
        assert!(message.contains("1 &lt; 2"), "{message}");
        server.stop();
        assert!(!is_open(server.c2s_port()));
    }

    #[test]
    fn prosody_pushes() {
        a_message_becomes_a_publish(&mut Prosody::start(&[("push.localhost", "secret")], "").unwrap());
    }

    #[test]
    fn ejabberd_pushes() {
        a_message_becomes_a_publish(&mut Ejabberd::start(&[("push.localhost", "secret")], "").unwrap());
    }
}
