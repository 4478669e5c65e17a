//! What tests of fpush run against: a fake XMPP server, a fake APNs, a fake FCM, keys and certificates, and a harness
//! around the real program.
//!
//! Every fake runs on threads of its own and has a plain blocking interface, so a test may be synchronous or use any
//! runtime. A call that waits blocks its thread: on a `current_thread` runtime wait for the code under test first, or
//! use [`tokio::task::spawn_blocking`]. A wait that ends in vain panics and says what did arrive.
//!
//! * [`certs`]: a certificate authority per test, provider keys, and the files in `fixtures/`
//! * [`fake_apns`], [`fake_fcm`], [`fake_push`]: HTTP/2 servers whose every [`Answer`] a test can script
//! * [`fake_proxy`], `tls_server`: what may stand between the program and them, or in their place
//! * [`fake_xmpp`]: the server's side of XEP-0114, byte by byte; [`publish`] and [`push2`]: what real servers send
//! * [`subscriber`]: what apps subscribe with, and read; [`ntfy`]: a real push service of `UnifiedPush`
//! * [`command`]: what clients send to register, and the forms that come back
//! * [`daemon`]: the program itself, its log, its signals and its use of memory and time
//! * [`scrape`]: what its operator sees: metrics, readiness, the status page
//! * [`http_client`]: an app that registers over HTTP
//! * [`browser`]: what a person sees in Chromium; [`firefox`]: one with a push service of ours; [`site`]: a web app for them
//! * [`helpers`]: what many tests need and no fake is
//! * [`senders`]: which server forgets a device at which reply
//! * [`outage`]: a provider that is away for a while, as a whole story
//! * [`clock`]: time that a test moves, for the real program
//! * [`mariadb`], [`postgres`] and [`redis`]: servers that only the test knows; [`relay`]: a way to it on which things are delayed and held

#![expect(clippy::unwrap_used, reason = "in a test kit a panic is the report")]

pub mod answer;
pub mod browser;
pub mod certs;
pub mod clock;
pub mod command;
pub mod daemon;
pub mod dice;
pub mod fake_apns;
pub mod fake_fcm;
pub mod fake_proxy;
pub mod fake_push;
pub mod fake_xmpp;
pub mod firefox;
pub mod helpers;
pub mod http_client;
pub mod jwt;
pub mod mariadb;
pub mod ntfy;
pub mod outage;
pub mod own_port;
pub mod postgres;
pub mod publish;
pub mod push2;
pub mod redis;
pub mod relay;
pub mod scrape;
pub mod senders;
pub mod servers;
pub mod site;
pub mod subscriber;
pub mod temp_dir;
pub mod tls_front;
mod tls_server;

mod cutter;
mod http_server;
mod journal;
mod serving;

pub use answer::{Answer, BodyEnd, Gate, Reason};
pub use browser::Browser;
pub use certs::{ApnsKey, ClientAuth, Identity, TestCa, fixture};
pub use clock::{Clock, Moves};
pub use command::{Command, Form};
pub use daemon::{Daemon, run_to_end};
pub use dice::Dice;
pub use fake_apns::{ApnsRequest, FakeApns};
pub use fake_fcm::{FakeFcm, FcmSend, TokenRequest, fcm_error};
pub use fake_proxy::{FakeProxy, ProxyAnswer};
pub use fake_push::{FakePush, Pushed};
pub use fake_xmpp::{FakeXmpp, Link, Refusal, Reply};
pub use firefox::Firefox;
pub use helpers::{LONG, Written, is_root, merged, until, without_holding};
pub use http_client::{Http, http, http_address, try_http};
pub use http_server::NewConnections;
pub use mariadb::MariaDb;
pub use ntfy::Ntfy;
pub use own_port::free_port;
pub use postgres::Postgres;
pub use push2::{Notification, Push2Server};
pub use redis::Redis;
pub use relay::{Flow, Relay};
pub use scrape::{Monitoring, Scrape};
pub use senders::Registration;
pub use site::Site;
pub use subscriber::{Subscriber, Subscription};
pub use temp_dir::TempDir;
pub use tls_front::TlsFront;
pub use tls_server::TlsServer;
