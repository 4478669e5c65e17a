//! The HTTP API with a real registry in a folder of its own, a push module over a backend that does as its tokens say,
//! and a client that shows every byte.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fpush_driver::{Drain, Liveness, Module, Modules};
use fpush_http::{AllowedOrigins, HttpSettings, Limits, Listener, Security, api};
use fpush_policy::ModuleSettings;
use fpush_push::{
    BackendStatus, Class, Failure, Push, PushError, PushTrait, Sending, TokenHasher, Urgency, Verifying,
    settings::{Report, Section},
};
use fpush_registry::{PushModules, Registry, RegistrySettings, StoreSettings};
use fpush_testkit::temp_dir::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Arc<Registry>,
    pub(crate) drain: Drain,
    pub(crate) backend: Arc<Backend>,
    pub(crate) server: JoinHandle<()>,
    _dir: TempDir,
}

/// What a test can change.
pub(crate) struct Options {
    pub(crate) http: HttpSettings,
    pub(crate) rate_limit: Duration,
    pub(crate) limits: Limits,
}

/// Does as the token says: `dead…`, `odd…`, `down…`; `slow…` waits for the test; others are accepted. Nothing with a
/// blank in it can be a token.
pub(crate) struct Backend {
    pub(crate) accepted: AtomicUsize,
    /// Pushes that have come here and wait, or have waited, for `go`.
    pub(crate) asked: AtomicUsize,
    pub(crate) go: Semaphore,
}

struct Shared(Arc<Backend>);

impl PushTrait for Shared {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        (!token.contains(' ')).then_some(Cow::Borrowed(token))
    }

    fn class(&self, _urgency: Urgency) -> Class {
        Class::High
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async {
            let token = push.token.as_str();
            let error = match token.get(..4) {
                Some("dead") => PushError::TokenGone { since: None },
                Some("odd-") => PushError::Unexplained,
                Some("down") => PushError::Pause {
                    length: Duration::from_secs(600),
                    alarm: false,
                },
                _ => {
                    if token.starts_with("slow") {
                        self.0.asked.fetch_add(1, Ordering::SeqCst);
                        self.0.go.acquire().await.unwrap().forget();
                    }
                    self.0.accepted.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            };
            Err(Failure::new(error, "scripted", "as the token says", ""))
        })
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("nothing to prove".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }
}

/// What the registry knows of the module `app`; the tokens of others are as they are.
struct Told(Arc<Module>);

impl PushModules for Told {
    fn canonical(&self, module: &str, token: &str) -> Option<String> {
        match module {
            "app" => self.0.canonical(token).map(Cow::into_owned),
            _ => Some(token.to_owned()),
        }
    }

    fn has_registered(&self, _module: &str, _token: &str) {}

    fn looks_like_token(&self, _node: &str) -> bool {
        false
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn debugging() -> Self {
        Self::with(|options| options.http.debugging = true).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options {
            http: HttpSettings {
                listen: "127.0.0.1:0".parse().unwrap(),
                debugging: false,
                selftest: false,
                require_secret: false,
                new_per_address: 5_000,
                requests_per_address: 60,
                allowed_origins: AllowedOrigins::default(),
                security: Security::default(),
            },
            rate_limit: Duration::from_secs(3_600),
            limits: Limits::default(),
        };
        change(&mut options);
        let Options {
            http,
            rate_limit,
            limits,
        } = options;
        let dir = TempDir::new();
        let settings = RegistrySettings {
            store: StoreSettings::Sqlite {
                path: dir.path().join("devices.db"),
            },
            cache: true,
            types: BTreeMap::from([
                ("fcm".to_owned(), "app".to_owned()),
                ("<b>".to_owned(), "app".to_owned()),
                ("apns".to_owned(), "gone".to_owned()),
            ]),
            providers: BTreeMap::new(),
            rate_limit,
            max_per_owner: 1_000,
            max_devices: 2_000_000,
            max_devices_per_domain: 1_000_000,
            trusted_domains: BTreeSet::new(),
            expire_after: Duration::from_secs(400 * 86_400),
        };
        let drain = Drain::default();
        let backend = Arc::new(Backend {
            accepted: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            go: Semaphore::new(0),
        });
        let (report, empty) = (Report::default(), serde_json::Map::new());
        let module = Module::new(
            "app",
            Box::new(Shared(Arc::clone(&backend))),
            ModuleSettings::read(&mut Section::root(&empty, &report)),
            fpush_driver::Senders::new(TokenHasher::new().unwrap()),
            drain.clone(),
        );
        drain.spawn(Arc::clone(&module).run(Liveness::new().probe("app")));
        let modules = Arc::new(Modules::new(vec![Arc::clone(&module)], None));
        let told = Arc::new(Told(module));
        let (registry, background) = Registry::open(settings, told, None).await.unwrap();
        tokio::spawn(background);
        let listener = Listener::bind(http.listen, http.security.clone(), limits, &[])
            .await
            .unwrap();
        let address = listener.address();
        let router = api(&http, limits, Arc::clone(&registry), modules, drain.clone());
        Self {
            address,
            registry,
            server: tokio::spawn(listener.serve(router, drain.clone())),
            drain,
            backend,
            _dir: dir,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.raw(&format!(
            "GET /push_appserver{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    pub(crate) async fn post(&self, endpoint: &str, form: &str) -> Reply {
        self.post_with(endpoint, form, "").await
    }

    pub(crate) async fn post_with(&self, endpoint: &str, form: &str, headers: &str) -> Reply {
        self.raw(&post(endpoint, form, &format!("Connection: close\r\n{headers}")))
            .await
    }

    /// Registers a device and returns its secret.
    pub(crate) async fn register(&self, node: &str, token: &str) -> String {
        let reply = self
            .post("register", &format!("type=fcm&node={node}&token={token}"))
            .await;
        let lines: Vec<_> = reply.body.split('\n').collect();
        assert_eq!(lines[..2], ["OK", node], "{reply:?}");
        assert_eq!(lines.len(), 3, "{reply:?}");
        lines[2].to_owned()
    }

    pub(crate) async fn push(&self, node: &str, secret: &str) -> String {
        let reply = self.post("push", &format!("node={node}&secret={secret}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    pub(crate) async fn raw(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_reply(stream).await
    }
}

pub(crate) fn post(endpoint: &str, form: &str, headers: &str) -> String {
    format!(
        "POST /push_appserver/v1/{endpoint} HTTP/1.1\r\nHost: push.example\r\n{headers}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
}

/// Reads what comes until the other side ends the connection.
pub(crate) async fn read_reply(mut stream: impl tokio::io::AsyncRead + Unpin) -> Reply {
    let mut bytes = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .expect("the server ends the connection")
        .unwrap();
    Reply::parse(&String::from_utf8(bytes).unwrap())
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a reply");
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
