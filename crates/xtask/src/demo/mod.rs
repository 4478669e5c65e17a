//! `cargo xtask demo`: one message, from a real client through a real Prosody and fpush to stand-ins for Apple and
//! Google, with everything shown that went over the wires.

mod cluster;
mod instance;
mod outage;
mod pretty;
pub(crate) mod web;

pub(crate) use self::cluster::run as run_cluster;
pub(crate) use self::outage::run as run_outage;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use fpush_testkit::servers::{Guarded, Prosody, Running, Seen, Server as _, Tap};
use fpush_testkit::{FakeApns, FakeFcm, TempDir, TestCa, certs};
use serde_json::{Value, json};

use crate::install::{self, Package};
use crate::interrupt;
use crate::process;

/// Runs the demo. Whatever it started ends when this returns.
pub(crate) fn run() -> Result<()> {
    println!("{INTRODUCTION}");

    heading("1. Packages");
    install::ensure(&[Package::Prosody])?;

    heading("2. Build fpush");
    let program = build()?;

    heading("3. Start everything");
    let stage = Stage::start(&program)?;

    heading("4. A phone turns push on, then goes offline");
    let devices = Device::all();
    stage.play(&devices).map_err(|error| stage.explain(error))?;

    heading("5. Somebody writes to it");
    println!("bob sends alice a message. She is offline, so Prosody keeps it and publishes once per module.");
    let pushes = stage.pushes(&devices).map_err(|error| stage.explain(error))?;
    for (device, push) in devices.iter().zip(&pushes) {
        show(device, push);
    }

    drop(stage);
    println!("\nEverything is stopped, and nothing is left behind but the build.\n");
    next_steps();
    Ok(())
}

/// A device of alice: the push module that it belongs to and its token.
struct Device {
    module: &'static str,
    node: &'static str,
    provider: Provider,
}

#[derive(Clone, Copy)]
enum Provider {
    None,
    Apple,
    Google,
}

impl Device {
    fn all() -> [Self; 3] {
        [
            Self {
                module: "demo",
                node: "made-up-demo-token",
                provider: Provider::None,
            },
            Self {
                module: "iphone",
                node: APPLE_TOKEN,
                provider: Provider::Apple,
            },
            Self {
                module: "android",
                node: GOOGLE_TOKEN,
                provider: Provider::Google,
            },
        ]
    }
}

/// What went over the wires for one device.
struct Push {
    publish: Seen,
    request: Option<Request>,
    reply: Seen,
}

/// What a provider received.
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Value,
}

/// Everything that runs. The fields end in this order.
struct Stage {
    fpush: Option<Running>,
    tap: Tap,
    prosody: Prosody,
    apns: FakeApns,
    fcm: FakeFcm,
    folder: TempDir,
}

impl Stage {
    fn start(program: &Path) -> Result<Self> {
        let folder = TempDir::new();
        let prosody = Prosody::start(&[(COMPONENT, SECRET)], "").context("cannot start a private Prosody")?;
        println!(
            "Prosody           127.0.0.1:{} for clients, :{} for components",
            prosody.c2s_port(),
            prosody.component_port()
        );
        let ca = TestCa::new();
        let (apns, fcm) = (FakeApns::start(&ca), FakeFcm::start(&ca));
        println!("stand-in for APNs {}", apns.url());
        println!("stand-in for FCM  {}", fcm.url());
        let tap = Tap::start(prosody.component_port()).context("cannot start the relay")?;
        println!(
            "relay             127.0.0.1:{}, between Prosody and fpush, to see the stanzas",
            tap.port()
        );
        interrupt::check()?;

        let settings = settings(&folder, &ca, tap.port(), &apns, &fcm)?;
        let mut stage = Self {
            fpush: None,
            tap,
            prosody,
            apns,
            fcm,
            folder,
        };
        stage
            .start_fpush(program, &settings)
            .map_err(|error| stage.explain(error))?;
        println!("fpush             logged in as {COMPONENT}, with these settings:\n");
        print!("{}", pretty::indent(&fs::read_to_string(&settings)?));
        Ok(stage)
    }

    fn start_fpush(&mut self, program: &Path, settings: &Path) -> Result<()> {
        let output = File::create(self.log_file()).context("cannot write the log of fpush")?;
        let mut command = Guarded::new(program);
        // The way out of a company's network is not the way to stand-ins on this machine.
        let no_proxy = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, ""));
        command.arg(settings).envs(no_proxy).envs([("RUST_LOG", "info")]);
        let fpush = self
            .fpush
            .insert(command.spawn(output).context("cannot start fpush")?);
        wait_for("the login of fpush at Prosody", || {
            if let Some(status) = fpush.try_wait()? {
                bail!("fpush ended at once ({status})");
            }
            Ok((self.prosody.component_logins() > 0).then_some(()))
        })
    }

    /// Turns push on for each device; then alice is offline.
    fn play(&self, devices: &[Device]) -> Result<()> {
        for user in ["alice", "bob"] {
            self.prosody
                .register(user, PASSWORD)
                .with_context(|| format!("cannot register {user}"))?;
        }
        let mut alice = self
            .prosody
            .login("alice", PASSWORD)
            .context("alice cannot log in")?;
        println!("alice is online as {}.", alice.jid());
        for Device { module, node, .. } in devices {
            alice
                .enable_push(COMPONENT, node, Some(module))
                .with_context(|| format!("Prosody does not enable push for {module}"))?;
            println!("push enabled: jid {COMPONENT}, pushModule {module}, node {node}");
        }
        alice.logout().context("alice cannot log out")?;
        println!("alice is offline.");
        interrupt::check()
    }

    /// Lets bob write, and waits for what comes of it.
    fn pushes(&self, devices: &[Device]) -> Result<Vec<Push>> {
        let mut bob = self.prosody.login("bob", PASSWORD).context("bob cannot log in")?;
        bob.send_message("alice@localhost", "Are you there?")
            .context("bob cannot write")?;
        let pushes = devices
            .iter()
            .map(|device| self.push(device))
            .collect::<Result<_>>()?;
        bob.logout().context("bob cannot log out")?;
        Ok(pushes)
    }

    fn push(&self, device: &Device) -> Result<Push> {
        wait_for(&format!("the push of module {}", device.module), || {
            let (Some(publish), Some(reply)) = self.tap.exchange(device.node) else {
                return Ok(None);
            };
            if reply.attribute("type") != Some("result") {
                bail!(
                    "fpush refused the publish of module {}:\n{}",
                    device.module,
                    pretty::xml(&reply.xml)
                );
            }
            let request = match device.provider {
                Provider::None => None,
                Provider::Apple => Some(self.apple_request(device.node).context("APNs was not asked")?),
                Provider::Google => Some(self.google_request(device.node).context("FCM was not asked")?),
            };
            Ok(Some(Push {
                publish,
                request,
                reply,
            }))
        })
    }

    fn apple_request(&self, token: &str) -> Option<Request> {
        let request = self
            .apns
            .requests()
            .into_iter()
            .find(|request| request.token == token)?;
        let headers = request
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("apns-"))
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .chain(
                request
                    .client_cert
                    .then(|| ("(TLS)".to_owned(), "with the client certificate".to_owned())),
            )
            .collect();
        Some(Request {
            line: format!("{} {}", request.method, request.path),
            headers,
            body: request.body,
        })
    }

    fn google_request(&self, token: &str) -> Option<Request> {
        let send = self.fcm.sends().into_iter().find(|send| send.token() == token)?;
        let bearer = send
            .bearer
            .map(|bearer| ("authorization".to_owned(), format!("Bearer {bearer}")));
        let kind = send.headers.get("content-type").map(|kind| {
            (
                "content-type".to_owned(),
                String::from_utf8_lossy(kind.as_bytes()).into_owned(),
            )
        });
        Some(Request {
            line: format!("POST /v1/projects/{}/messages:send", send.project),
            headers: bearer.into_iter().chain(kind).collect(),
            body: send.body,
        })
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("fpush.log")
    }

    /// Adds what the programs said to an error, as their logs are about to go.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if interrupt::happened() {
            return error;
        }
        let tail = |log: &str| {
            let lines = log.lines().collect::<Vec<_>>();
            pretty::indent(&lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        let fpush = String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned();
        anyhow!(
            "{error:#}\n\nThe log of fpush ends with:\n{}\nThe log of Prosody ends with:\n{}\nRun `cargo xtask demo` again; \
             if it fails at the same place, these lines say why.",
            tail(&fpush),
            tail(&self.prosody.log())
        )
    }
}

/// Writes the settings and the files that they name.
fn settings(folder: &TempDir, ca: &TestCa, port: u16, apns: &FakeApns, fcm: &FakeFcm) -> Result<PathBuf> {
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    let identity = ca.client_cert(TOPIC, tomorrow);
    let private = |name: &str, content: &str| -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    };
    let ca_file = folder.write("ca.pem", ca.pem());
    let cert = folder.write("apns.crt.pem", &identity.cert_pem);
    let key = private("apns.key.pem", &identity.key_pem)?;
    let secret = private(
        "fcm.json",
        &certs::service_account_json("example-app", &fcm.token_uri()),
    )?;
    let settings = json!({
        "component": {
            "componentHostname": COMPONENT,
            "componentKey": SECRET,
            "serverHostname": "127.0.0.1",
            "serverPort": port,
        },
        "pushModules": {
            "demo": { "type": "demo", "is_default_module": true },
            "iphone": {
                "type": "apple",
                "apns": {
                    "certFilePath": cert,
                    "certKeyFilePath": key,
                    "topic": TOPIC,
                    "endpoint": apns.url(),
                    "caFilePath": ca_file,
                },
            },
            "android": {
                "type": "google",
                "fcm": { "fcmSecretPath": secret, "endpoint": fcm.url(), "caFilePath": ca_file },
            },
        },
    });
    private("settings.json", &pretty::json(&settings))
}

fn show(device: &Device, push: &Push) {
    let Push {
        publish,
        request,
        reply,
    } = push;
    heading(&format!("Module {}", device.module));
    println!(
        "Prosody publishes:\n\n{}",
        pretty::indent(&pretty::xml(&publish.xml))
    );
    let provider = match device.provider {
        Provider::None => "No provider: the demo module answers by the token alone and accepts this one.\n",
        Provider::Apple => "The stand-in for APNs receives, and accepts with status 200:\n",
        Provider::Google => "The stand-in for FCM receives, and accepts with status 200:\n",
    };
    println!("{provider}");
    if let Some(Request { line, headers, body }) = request {
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect::<String>();
        println!(
            "{}",
            pretty::indent(&format!("{line}\n{headers}\n{}", pretty::json(body)))
        );
    }
    let milliseconds = reply.at.duration_since(publish.at).as_secs_f64() * 1000.0;
    println!(
        "fpush replies to Prosody after {milliseconds:.1} ms:\n\n{}",
        pretty::indent(&pretty::xml(&reply.xml))
    );
}

/// Asks again and again until there is an answer.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut said = false;
    loop {
        interrupt::check()?;
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > TIMEOUT {
            bail!("waited {TIMEOUT:?} for {what}, in vain");
        }
        if !said && start.elapsed() > Duration::from_secs(1) {
            println!("(waiting for {what})");
            said = true;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The title of a step.
fn heading(title: &str) {
    println!("\n=== {title}\n");
}

/// Builds the daemon and returns where cargo put it.
fn build() -> Result<PathBuf> {
    println!("The first build takes a few minutes.");
    let program = process::build("fpush", &[])
        .context("the build fails: if it asks for a C compiler, run `apt-get install build-essential`")?;
    println!("Built: {}", program.display());
    Ok(program)
}

/// Says what of the example is to be changed, with the line numbers that it has now.
fn next_steps() {
    println!("Next: copy {EXAMPLE} to settings.json and change");
    let example = fs::read_to_string(EXAMPLE).unwrap_or_default();
    for (key, meaning) in CHANGES {
        let lines = example
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.trim_start().starts_with(&format!("\"{key}\"")))
            .map(|(_, number)| format!("line {number}"))
            .collect::<Vec<_>>();
        if !lines.is_empty() || example.is_empty() {
            println!("  {:<20} {:<18} {meaning}", key, lines.join(", "));
        }
    }
    println!(
        "\nand remove the modules that you have no app for. Then `cargo run -p fpush -- check settings.json` says what \
         is still wrong, and docs/install how to go on: keys, package, XMPP server."
    );
}

const INTRODUCTION: &str = "\
fpush demo: a message to an offline user becomes a push, three times: through the demo module, to Apple, to Google.

It installs Prosody if it is missing (apt-get, with sudo unless you are root), builds fpush, and starts on 127.0.0.1
a private Prosody with mod_cloud_notify, stand-ins for the push services of Apple and Google, and fpush. Nothing
leaves this machine; tokens, keys and passwords are made up. It takes a few seconds once fpush is built.";

const COMPONENT: &str = "push.localhost";

const SECRET: &str = "made-up-component-secret";

const PASSWORD: &str = "made-up-password";

const TOPIC: &str = "org.example.app";

const APPLE_TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const GOOGLE_TOKEN: &str = "madeUpInstance0000000a:APA91bMadeUpToken0000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000";

const TIMEOUT: Duration = Duration::from_secs(20);

const EXAMPLE: &str = "settings.example.json";

const CHANGES: [(&str, &str); 16] = [
    (
        "componentHostname",
        "the component's JID, as the XMPP server knows it",
    ),
    ("componentKey", "the secret that the XMPP server has for it"),
    ("componentKeyFile", "or a file that holds the secret"),
    ("serverHostname", "where the XMPP server runs"),
    ("serverPort", "its component port"),
    ("certFilePath", "your certificate from Apple"),
    ("certPassword", "its password"),
    ("certPasswordFile", "or a file that holds the password"),
    ("certKeyFilePath", "or the key, if the certificate is PEM"),
    ("tokenKeyFilePath", "or your .p8 key from Apple"),
    ("keyId", "its id"),
    ("teamId", "your team's id"),
    ("topic", "the bundle id of your app"),
    ("fcmSecretPath", "the service account file from Google"),
    (
        "vapidKeyFilePath",
        "a key that `fpush vapid new` makes, for web apps",
    ),
    ("subject", "where push services reach you: mailto: or https:"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_that_the_example_marks() {
        let example = include_str!("../../../../settings.example.json");
        let mut marked = false;
        for line in example.lines().map(str::trim_start) {
            if line.starts_with("//") {
                marked |= line.starts_with("// CHANGE");
            } else if marked {
                let key = line.split('"').nth(1).unwrap_or_default();
                assert!(CHANGES.iter().any(|(named, _)| *named == key), "{key}");
                marked = false;
            }
        }
        for (key, _) in CHANGES {
            assert!(example.contains(&format!("\"{key}\": ")), "{key}");
        }
    }
}
