//! The settings of a `google` module.

use std::{cell::RefCell, num::NonZeroUsize, time::Duration};

use fpush_client::{ClientSettings, Dialer, Endpoint, PoolSettings, PooledClient, ProviderClient, Trust};
use fpush_push::{
    BackendType, Built, Class, ParsedBackend, files,
    settings::{self, Section},
};
use http::Uri;

use crate::{
    access_token::AccessToken,
    backend::{Fcm, Mode},
    content::Contents,
    credentials::ServiceAccount,
    message::{Message, Target},
    token_endpoint::TokenEndpoint,
};

/// The type of all `google` modules.
#[derive(Debug, Default)]
pub struct Google;

/// `fcm.priority`.
#[derive(Clone, Copy)]
enum Priority {
    /// All messages alike.
    Fixed(Class),
    /// By the urgency of the publish.
    Auto,
}

impl BackendType for Google {
    fn read(&self, module: &mut Section<'_>) -> Option<ParsedBackend> {
        let mut fcm = module.section("fcm")?;
        let account = service_account(&mut fcm);
        let endpoint = Endpoint::read(&mut fcm, "https://fcm.googleapis.com");
        let trust = Trust::read(&mut fcm);
        let request_timeout = fcm.duration_or_seconds("requestTimeout", Duration::from_secs(10));
        let (target, mode) = mode(&mut fcm);
        let dialer = dialer(&fcm, account.as_ref());
        let report = fcm.report();
        let path = fcm.path_of("");
        let secret_path = fcm.path_of("fcmSecretPath");
        fcm.finish();

        let account = account.and_then(|account| {
            let credential = account.digest();
            let (project, token_uri) = (account.project.clone(), account.token_uri.clone());
            let signer = account.signer().inspect_err(|e| report.error(&secret_path, e));
            Some((credential, project, token_uri, signer.ok()?))
        });
        // Every mistake has been reported by now.
        let (credential, project, token_uri, signer) = account?;
        let (endpoint, trust, dialer) = (endpoint?, trust?, dialer?);
        let mode = mode?;
        let mut facts = endpoint.facts();
        facts.push(("project", project.clone()));
        facts.extend(token_uri.host().map(|host| ("token endpoint", host.to_owned())));

        let uri = format!(
            "{}://{}/v1/projects/{}/messages:send",
            endpoint.uri.scheme_str()?,
            endpoint.uri.authority()?,
            project
        );
        let uri: Uri = uri
            .parse()
            .inspect_err(|_| report.error(&secret_path, "the project_id cannot be part of a URL"))
            .ok()?;
        // What Google's words about tokens depend on.
        let digest = settings::digest(format!("{uri} {:?}", target).as_bytes()) ^ credential;
        let build = move || {
            let token_endpoint = TokenEndpoint {
                client: PooledClient::new(token_client(trust.clone(), dialer.clone())),
                uri: token_uri,
                signer,
                request_timeout,
            };
            let client = ClientSettings {
                trust,
                identity: None,
                dialer,
                request_timeout,
                idle_timeout: IDLE_TIMEOUT,
            };
            let (access_token, renewal) = AccessToken::new(&path);
            let backend = Box::new(Fcm {
                client: ProviderClient::new(client, endpoint.uri),
                digest,
                uri,
                access_token,
                mode,
                request_timeout,
            });
            Built {
                backend,
                background: vec![Box::pin(renewal.run(token_endpoint))],
            }
        };
        Some(ParsedBackend {
            facts,
            build: Box::new(build),
        })
    }
}

fn service_account(fcm: &mut Section<'_>) -> Option<ServiceAccount> {
    let file = fcm.secret_file("fcmSecretPath")?;
    let text = files::text(&file)
        .inspect_err(|e| fcm.error("fcmSecretPath", e))
        .ok()?;
    match ServiceAccount::read(text.as_bytes()) {
        Ok(account) => Some(account),
        Err(errors) => {
            for error in errors {
                fcm.error("fcmSecretPath", error);
            }
            None
        }
    }
}

/// A dialer that reaches the token endpoint, whose proxy may be another than the endpoint's: `NO_PROXY` may
/// name one of them.
fn dialer(fcm: &Section<'_>, account: Option<&ServiceAccount>) -> Option<Dialer> {
    Dialer::new(&account?.token_uri)
        .inspect_err(|e| fcm.error("fcmSecretPath", e))
        .ok()
}

/// How the token endpoint is reached, which need not speak HTTP/2: once an hour, so no connection is kept.
fn token_client(trust: Trust, dialer: Dialer) -> PoolSettings {
    PoolSettings {
        trust,
        dialer,
        plain_http: false,
        idle_timeout: Duration::ZERO,
        max_connections: NonZeroUsize::MIN,
        max_idle: NonZeroUsize::MIN,
        max_origins: NonZeroUsize::MIN,
    }
}

/// What messages look like, and which field of them names the device.
fn mode(fcm: &mut Section<'_>) -> (Target, Option<Mode>) {
    let priorities = [
        ("high", Priority::Fixed(Class::High)),
        ("normal", Priority::Fixed(Class::Low)),
        ("auto", Priority::Auto),
    ];
    let priority = fcm.choice("priority", &priorities, priorities[0].1);
    let targets = [
        ("auto", Target::Auto),
        ("token", Target::Token),
        ("fid", Target::Fid),
    ];
    let target = fcm.choice("target", &targets, Target::Auto);
    let sends: &[Class] = match priority {
        Priority::Fixed(Class::Low) => &[Class::Low],
        Priority::Fixed(Class::High | Class::Voip) => &[Class::High],
        Priority::Auto => &[Class::High, Class::Low, Class::Voip],
    };
    let contents = Contents::read(fcm, sends);
    let said = RefCell::new(Vec::new());
    let message = |class| {
        let message = Message::new(class, target, contents.of(class));
        let message = message.inspect_err(|e| {
            // What is said for all classes is wrong once.
            if !said.borrow().contains(e) {
                fcm.error(e.key(), e);
                said.borrow_mut().push(*e);
            }
        });
        message.map(Box::new).ok()
    };
    let mode = match priority {
        Priority::Fixed(class) => message(class).map(|message| Mode::One(class, message)),
        Priority::Auto => {
            let [high, low, voip] = [Class::High, Class::Low, Class::Voip].map(message);
            let all = high.zip(low).zip(voip);
            all.map(|((high, low), voip)| Mode::Auto { high, low, voip })
        }
    };
    (target, mode)
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use fpush_push::{
        Urgency,
        settings::{Report, Severity},
    };
    use fpush_testkit::{TempDir, certs::service_account_json, fixture};
    use serde_json::{Value, json};

    use super::*;

    struct Folder {
        folder: TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let folder = TempDir::new();
            let file = folder.write(
                "fcm.json",
                service_account_json("project-1", "https://127.0.0.1:1/token"),
            );
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
            Self { folder }
        }

        /// What reading says of `fcm` with these keys in addition to `fcmSecretPath`, and the facts.
        fn read(&self, keys: Value) -> (Option<ParsedBackend>, Vec<String>) {
            let mut fcm = json!({ "fcmSecretPath": self.folder.path().join("fcm.json") });
            for (key, value) in keys.as_object().unwrap() {
                fcm[key] = value.clone();
            }
            let module = json!({ "fcm": fcm });
            let report = Report::default();
            let mut section = Section::root(module.as_object().unwrap(), &report);
            let parsed = Google.read(&mut section);
            section.finish();
            let problems = report.into_problems();
            assert!(problems.iter().all(|problem| problem.severity == Severity::Error));
            (parsed, problems.iter().map(ToString::to_string).collect())
        }

        fn problems(&self, keys: Value) -> Vec<String> {
            self.read(keys).1
        }

        fn secret(&self, content: &str) -> Vec<String> {
            self.folder.write("fcm.json", content);
            self.problems(json!({}))
        }
    }

    #[test]
    fn a_secret_is_enough() {
        let (parsed, problems) = Folder::new().read(json!({}));
        let parsed = parsed.unwrap();
        assert_eq!(problems, [""; 0]);
        let facts: Vec<_> = parsed
            .facts
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            facts,
            [
                ("endpoint", "https://fcm.googleapis.com/"),
                ("project", "project-1"),
                ("token endpoint", "127.0.0.1")
            ]
        );
        let built = (parsed.build)();
        assert_eq!(built.background.len(), 1);
        assert_eq!(built.backend.class(Urgency::Low), Class::High);
    }

    #[test]
    fn everything_can_be_set() {
        let keys = json!({ "endpoint": "https://127.0.0.1:8443", "priority": "normal", "ttl": "1h 30min",
            "collapseKey": "wake", "target": "fid", "additionalData": { "a": "b" }, "requestTimeout": 3 });
        let (parsed, problems) = Folder::new().read(keys);
        assert_eq!(problems, [""; 0]);
        assert_eq!((parsed.unwrap().build)().backend.class(Urgency::High), Class::Low);
    }

    #[test]
    fn each_class_carries_its_own() {
        let keys = json!({ "priority": "auto", "ttl": "1h", "notification": { "title": "x" },
            "silent": { "notification": {} }, "voip": { "ttl": "30s" } });
        let (parsed, problems) = Folder::new().read(keys);
        assert_eq!(problems, [""; 0]);
        let backend = (parsed.unwrap().build)().backend;
        let classes = [Urgency::High, Urgency::Low, Urgency::Voip].map(|urgency| backend.class(urgency));
        assert_eq!(classes, [Class::High, Class::Low, Class::Voip]);
    }

    #[test]
    fn what_is_wrong_for_all_classes_is_said_once() {
        let keys = json!({ "priority": "auto", "notification": { "title": "x".repeat(4_200) } });
        assert_eq!(Folder::new().problems(keys).len(), 1);
    }

    #[test]
    fn a_missing_section_or_secret_is_reported() {
        let report = Report::default();
        let module = json!({});
        let mut section = Section::root(module.as_object().unwrap(), &report);
        assert!(Google.read(&mut section).is_none());
        assert_eq!(
            report.into_problems()[0].to_string(),
            "fcm: this key is missing; expected an object"
        );
        let problems = Folder::new().problems(json!({ "fcmSecretPath": "" }));
        assert_eq!(
            problems,
            ["fcm.fcmSecretPath: expected a string that is not empty"]
        );
        let problems = Folder::new().problems(json!({ "fcmSecretPath": "/nonexistent" }));
        assert!(
            problems[0].starts_with("fcm.fcmSecretPath: cannot read the file /nonexistent"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_a_warning() {
        let folder = Folder::new();
        let file = folder.folder.path().join("fcm.json");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let module = json!({ "fcm": { "fcmSecretPath": file } });
        let report = Report::default();
        assert!(
            Google
                .read(&mut Section::root(module.as_object().unwrap(), &report))
                .is_some()
        );
        assert_eq!(report.into_problems()[0].severity, Severity::Warning);
    }

    #[test]
    fn what_is_wrong_with_the_secret_is_said_without_its_content() {
        let folder = Folder::new();
        let good = service_account_json("project-1", "https://127.0.0.1:1/token");
        for (content, expected) in [
            ("s3cret".to_owned(), "expected the JSON file of a service account"),
            (
                good.replace("service_account", "s3cret"),
                "this is not a service account's file",
            ),
            (good.replace("project_id", "s3cret"), "has no project_id"),
            (good.replace("project-1\",\n", "s3cret/1\",\n"), "the project_id"),
            (good.replace("client_email", "s3cret"), "has no client_email"),
            (
                good.replace("\"private_key\"", "\"s3cret\""),
                "has no private_key",
            ),
            (good.replace("token_uri", "s3cret"), "has no token_uri"),
            (
                good.replace("https://127.0.0.1:1", "http://s3cret"),
                "the token_uri",
            ),
            (good.replace("BEGIN", "s3cret"), "the private_key"),
            (good.replace("\\n", "s3cret"), "the private_key"),
        ] {
            let problems = folder.secret(&content);
            assert_eq!(problems.len(), 1, "{expected}: {problems:?}");
            assert!(problems[0].starts_with("fcm.fcmSecretPath: "), "{problems:?}");
            assert!(problems[0].contains(expected), "{expected}: {problems:?}");
            assert!(!problems[0].contains("s3cret"), "{problems:?}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_reported() {
        let folder = Folder::new();
        let rsa = fs::read_to_string(fixture("service-account.key.pem")).unwrap();
        let elliptic = fpush_testkit::ApnsKey::generate().p8();
        let good = service_account_json("project-1", "https://127.0.0.1:1/token");
        let mut file: Value = serde_json::from_str(&good).unwrap();
        assert_eq!(file["private_key"], *rsa);
        file["private_key"] = elliptic.into();
        let problems = folder.secret(&file.to_string());
        assert!(problems[0].contains("must be an RSA key"), "{problems:?}");
    }

    #[test]
    fn each_key_with_a_wrong_value_is_reported() {
        let large = json!({ "a": "x".repeat(4_096) });
        for (keys, expected) in [
            (
                json!({ "endpoint": "http://127.0.0.1" }),
                "fcm.endpoint: expected an https URL",
            ),
            (
                json!({ "endpoint": "https://127.0.0.1/v1" }),
                "fcm.endpoint: expected an https URL",
            ),
            (
                json!({ "caFilePath": "/nonexistent" }),
                "fcm.caFilePath: cannot read the file",
            ),
            (
                json!({ "caFilePath": fixture("aps.key.pem") }),
                "fcm.caFilePath: expected trusted certificates",
            ),
            (
                json!({ "priority": "hgih" }),
                "fcm.priority: expected \"high\" or \"normal\" or \"auto\"",
            ),
            (
                json!({ "target": "topic" }),
                "fcm.target: expected \"auto\" or \"token\" or \"fid\"",
            ),
            (json!({ "ttl": "29days" }), "fcm.ttl: expected at most 28 days"),
            (json!({ "ttl": 60 }), "fcm.ttl: expected a time span"),
            (
                json!({ "collapseKey": "" }),
                "fcm.collapseKey: expected a string that is not empty",
            ),
            (json!({ "collapseKey": 1 }), "fcm.collapseKey: expected a string"),
            (
                json!({ "requestTimeout": 0 }),
                "fcm.requestTimeout: expected a number of seconds",
            ),
            (
                json!({ "additionalData": [] }),
                "fcm.additionalData: expected an object with strings",
            ),
            (
                json!({ "additionalData": { "a": 1 } }),
                "fcm.additionalData.a: expected a string",
            ),
            (
                json!({ "additionalData": { "from": "x" } }),
                "fcm.additionalData.from: Google keeps this key",
            ),
            (
                json!({ "additionalData": { "message_type": "x" } }),
                "fcm.additionalData.message_type: Google keeps",
            ),
            (
                json!({ "additionalData": { "google.x": "x" } }),
                "fcm.additionalData.google.x: Google keeps",
            ),
            (
                json!({ "additionalData": { "gcmx": "x" } }),
                "fcm.additionalData.gcmx: Google keeps",
            ),
            (
                json!({ "additionalData": large }),
                "fcm.additionalData: the keys and values have 4097 bytes",
            ),
        ] {
            let problems = Folder::new().problems(keys);
            assert_eq!(problems.len(), 1, "{expected}: {problems:?}");
            assert!(problems[0].starts_with(expected), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_in_one_run() {
        let folder = Folder::new();
        let secret = service_account_json("project-1", "https://127.0.0.1:1/token").replace("BEGIN", "x");
        folder.folder.write("fcm.json", secret);
        let problems =
            folder.problems(json!({ "endpoint": "x", "priority": 1, "additionalData": { "gcm": 1 } }));
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
