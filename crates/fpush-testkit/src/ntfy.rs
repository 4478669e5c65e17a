//! A private ntfy: a push service of `UnifiedPush` as many people run it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    LONG,
    certs::TestCa,
    own_port::free_port,
    servers::{Guarded, Running},
    temp_dir::TempDir,
};

/// An ntfy that ends with this.
pub struct Ntfy {
    _program: Running,
    folder: TempDir,
    http: u16,
    https: u16,
}

impl Ntfy {
    /// The program: the one that `cargo xtask test --long` unpacks, or this machine's.
    pub fn program() -> Option<PathBuf> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/ntfy/usr/bin/ntfy");
        [unpacked, PathBuf::from("/usr/bin/ntfy")]
            .into_iter()
            .find(|program| program.is_file())
    }

    /// Starts one whose certificate comes from `ca`, and which refuses what nobody has subscribed to, as public ones do.
    /// `None` if there is no ntfy here.
    pub fn start(ca: &TestCa) -> Option<Self> {
        let (program, folder) = (Self::program()?, TempDir::new());
        let (http, https) = (free_port().unwrap(), free_port().unwrap());
        let identity = ca.server_cert(&["127.0.0.1"], None);
        let certificate = folder.write("cert.pem", identity.cert_pem);
        let key = folder.write("key.pem", identity.key_pem);
        // Without a file of its own it would read the machine's.
        let config = folder.write("server.yml", "visitor-subscriber-rate-limiting: true\n");
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Guarded::new(program);
        command
            .args(["serve", "--config"])
            .arg(config)
            .args(["--listen-http", &format!("127.0.0.1:{http}")])
            .args(["--listen-https", &format!("127.0.0.1:{https}")])
            .args(["--base-url", &format!("https://127.0.0.1:{https}")])
            .arg("--cert-file")
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
            .arg("--cache-file")
            .arg(folder.path().join("cache.db"));
        let ntfy = Self {
            _program: command.spawn(log).unwrap(),
            folder,
            http,
            https,
        };
        let begin = Instant::now();
        while [http, https]
            .iter()
            .any(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err())
        {
            assert!(begin.elapsed() < LONG, "ntfy does not begin:\n{}", ntfy.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(ntfy)
    }

    /// The port at which it speaks TLS.
    pub fn port(&self) -> u16 {
        self.https
    }

    /// The endpoint of a topic, as its app for Android gives it out. Topics of `UnifiedPush` are `up` and twelve more characters.
    pub fn endpoint(&self, topic: &str) -> String {
        format!("https://127.0.0.1:{}/{topic}?up=1", self.https)
    }

    /// Subscribes to a topic as its app does, from now on.
    pub fn listen(&self, topic: &str) -> Messages {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // An app that subscribes by a name for the topic's rate limit pays for what is sent to it.
        write!(
            stream,
            "GET /{topic}/json HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nRate-Topics: {topic}\r\n\r\n",
            self.http
        )
        .unwrap();
        let mut messages = Messages(BufReader::new(stream));
        let opened = messages.event();
        assert_eq!(opened["event"], "open", "{opened}");
        messages
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// What comes for a topic.
pub struct Messages(BufReader<TcpStream>);

impl Messages {
    /// The body of the next message, as it was posted; `None` if none comes in that time.
    pub fn next_body(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            // It says every 45 seconds that it is there.
            let event = self.event();
            if event["event"] == "message" {
                let text = event["message"].as_str().unwrap();
                return Some(match event["encoding"].as_str() {
                    Some("base64") => BASE64_STANDARD.decode(text).unwrap(),
                    _ => text.as_bytes().to_owned(),
                });
            }
        }
        None
    }

    /// One object a line; the lines between them are HTTP's.
    fn event(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).unwrap();
            assert!(read > 0, "ntfy ended the stream");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}
