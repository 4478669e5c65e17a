//! The settings of an `apple` module.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fpush_client::{ClientSettings, Endpoint, ProviderClient, Trust};
use fpush_push::{
    Agreement, BackendType, Background, Built, Class, ParsedBackend, PushTrait, files,
    settings::{self, Section},
    sync,
};
use http::{Uri, uri::Authority};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    backend::{Apns, Authentication, Mode},
    both::Both,
    content::Contents,
    credentials::{Chosen, CredentialError, Material, Validity},
    payload::{PayloadSettings, Ready},
    provider_token::{Agreements, Clocks, ProviderToken},
    purpose::{Environment, Objection, Wanted},
    push2::App,
    topic,
};

/// The type of all `apple` modules; those with the same key and team share one provider token, also with those of settings
/// that were read before. So one value must serve as long as the process lives.
#[derive(Default)]
pub struct Apple {
    provider_tokens: ProviderTokens,
    agreements: Agreements,
}

type ProviderTokens = Arc<Mutex<HashMap<TokenKey, Arc<ProviderToken>>>>;

/// What makes two provider tokens the same. It holds a private key and is never shown.
#[derive(PartialEq, Eq, Hash)]
struct TokenKey {
    pkcs8: Vec<u8>,
    key_id: String,
    team_id: String,
}

impl fmt::Debug for Apple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apple")
    }
}

/// How the settings say that we prove who we are.
enum Credentials {
    /// All that the files hold; which certificate of it is used is decided when topic and environment are known.
    Certificate(Material),
    Token {
        /// A new one, which is not needed if the same one is in use.
        token: Box<ProviderToken>,
        key: TokenKey,
    },
}

/// `apns.pushPriority`.
#[derive(Clone, Copy)]
enum PushPriority {
    High,
    Silent,
    Voip,
    Auto,
}

impl BackendType for Apple {
    fn takes_notifications(&self) -> bool {
        true
    }

    fn agree_by(&self, agreement: Option<Arc<dyn Agreement>>) {
        *sync::lock(&self.agreements) = agreement;
        for token in sync::lock(&self.provider_tokens).values() {
            token.ask_again();
        }
    }

    fn read(&self, module: &mut Section<'_>) -> Option<ParsedBackend> {
        let mut apns = module.section("apns")?;
        let credentials = credentials(&mut apns, &self.agreements);
        let Endpoints {
            first,
            second,
            environment,
        } = Endpoints::read(&mut apns);
        let trust = Trust::read(&mut apns);
        let request_timeout = apns.duration_or_seconds("requestTimeout", Duration::from_secs(5));
        let idle_timeout = apns.duration_or_seconds("poolIdleTimeout", Duration::from_secs(600));
        let payload = payload_settings(&mut apns);
        let ttl = apns.duration("pushTtl", Duration::from_secs(28 * DAY));
        if ttl > LONGEST_TTL {
            apns.error(
                "pushTtl",
                "expected at most 30 days, which is as long as Apple keeps a push",
            );
        }
        let mode = mode(&mut apns, payload.as_ref());
        let calls = mode
            .as_ref()
            .is_some_and(|(mode, _)| matches!(mode, Mode::One(Class::Voip, _)));
        let certificate = match &credentials {
            Some(Credentials::Certificate(material)) => {
                let wanted = payload.as_ref().map(|payload| Wanted {
                    topic: &payload.topic,
                    calls,
                    environment,
                });
                choose(&apns, material, wanted, SystemTime::now())
            }
            Some(Credentials::Token { key, .. }) => {
                if let Some(payload) = &payload {
                    topic::check(&apns, &payload.topic, &key.team_id, calls);
                }
                None
            }
            None => None,
        };
        apns.finish();

        let (credentials, endpoint, (mode, call)) = (credentials?, first?, mode?);
        let topic = payload?.topic;
        // What Apple's words about tokens depend on. The environment is part of the endpoint.
        let mut digest = settings::digest(format!("{} {topic} {calls}", endpoint.uri).as_bytes());
        let mut facts = endpoint.facts();
        if let Second::At(sandbox) = &second {
            facts.push(("sandbox", sandbox.uri.to_string()));
        }
        facts.push(("topic", topic.clone()));
        let app = App { topic, environment };
        let (identity, proof) = match credentials {
            Credentials::Certificate(_) => {
                let Chosen {
                    identity, validity, ..
                } = certificate?;
                digest ^= settings::digest(identity.certificate());
                facts.push(("certificate", validity.subject.clone()));
                facts.push(("valid until", validity.until.clone()));
                (Some(identity), Proof::Certificate(Box::new(validity)))
            }
            Credentials::Token { token, key } => {
                digest ^= key.digest();
                facts.push(("provider token", format!("key {}", key.key_id)));
                (None, Proof::Token(token, key))
            }
        };
        let trust = trust?;
        let client = |endpoint: Endpoint| {
            let Endpoint { uri, dialer } = endpoint;
            let settings = ClientSettings {
                trust: trust.clone(),
                identity: identity.clone(),
                dialer,
                request_timeout,
                idle_timeout,
            };
            Some((uri.authority()?.clone(), uri, settings))
        };
        let first = client(endpoint)?;
        let second = match second {
            Second::None => None,
            Second::At(endpoint) => Some(client(*endpoint)?),
            Second::Wrong => return None,
        };
        let provider_tokens = Arc::clone(&self.provider_tokens);
        let build = move || {
            let mut background: Vec<Background> = Vec::new();
            let authentication = match proof {
                Proof::Certificate(validity) => Authentication::Certificate(validity),
                Proof::Token(token, key) => {
                    let mut tokens = sync::lock(&provider_tokens);
                    let token = tokens.entry(key).or_insert_with(|| Arc::new(*token));
                    background.push(Box::pin(token.tend()));
                    Authentication::Token(Arc::clone(token))
                }
            };
            let apns = |(authority, uri, client): (Authority, Uri, ClientSettings), digest| Apns {
                digest,
                client: ProviderClient::new(client, uri),
                authority,
                authentication: authentication.clone(),
                mode: mode.clone(),
                call: call.clone(),
                app: app.clone(),
                ttl,
            };
            let production = apns(first, digest);
            let backend: Box<dyn PushTrait> = match second {
                Some(second) => {
                    let digest = settings::digest(second.0.as_str().as_bytes());
                    let sandbox = apns(second, digest);
                    Box::new(Both { production, sandbox })
                }
                None => Box::new(production),
            };
            Built { backend, background }
        };
        Some(ParsedBackend {
            facts,
            build: Box::new(build),
        })
    }
}

/// With what we will prove who we are.
enum Proof {
    Certificate(Box<Validity>),
    Token(Box<ProviderToken>, TokenKey),
}

impl TokenKey {
    fn digest(&self) -> u128 {
        let ids = format!("{} {}", self.key_id, self.team_id);
        settings::digest(&self.pkcs8) ^ settings::digest(ids.as_bytes())
    }
}

fn credentials(apns: &mut Section<'_>, agreements: &Agreements) -> Option<Credentials> {
    let by_token = ["tokenKeyFilePath", "keyId", "teamId"]
        .iter()
        .any(|key| apns.has(key));
    let by_certificate = apns.has("certFilePath");
    match (by_certificate, by_token) {
        (true, true) => {
            apns.error(
                "",
                "expected either certFilePath or tokenKeyFilePath with keyId and teamId, found both",
            );
            read_certificate_keys(apns);
            read_token_keys(apns);
            None
        }
        (false, true) => provider_token(apns, agreements),
        (true, false) => certificate(apns),
        (false, false) => {
            apns.error(
                "",
                "expected either certFilePath or tokenKeyFilePath with keyId and teamId, found neither",
            );
            // Known all the same.
            for key in CREDENTIAL_KEYS {
                apns.value(key);
            }
            None
        }
    }
}

fn provider_token(apns: &mut Section<'_>, agreements: &Agreements) -> Option<Credentials> {
    let (p8, key_id, team_id) = read_token_keys(apns);
    let (p8, key_id, team_id) = (p8?, key_id?, team_id?);
    let p8 = files::pem(&p8)
        .inspect_err(|e| apns.error("tokenKeyFilePath", e))
        .ok()?
        .into_bytes();
    let token = ProviderToken::new(&p8, &key_id, &team_id, Arc::clone(agreements), Clocks::now())
        .inspect_err(|e| apns.error("tokenKeyFilePath", e))
        .ok()?;
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&p8).ok()?;
    let key = TokenKey {
        pkcs8: pkcs8.secret_pkcs8_der().to_vec(),
        key_id,
        team_id,
    };
    Some(Credentials::Token {
        token: Box::new(token),
        key,
    })
}

fn read_token_keys(apns: &mut Section<'_>) -> (Option<Vec<u8>>, Option<String>, Option<String>) {
    let p8 = apns.secret_file("tokenKeyFilePath");
    let key_id = topic::read_id(apns, "keyId");
    if let Some(key_id) = &key_id {
        warn_of_another_key(apns, key_id);
    }
    let team_id = topic::read_id(apns, "teamId");
    (p8, key_id, team_id)
}

/// Apple names the file of a key after its ID: `AuthKey_ABC123DEFG.p8`.
fn warn_of_another_key(apns: &mut Section<'_>, key_id: &str) {
    let file = apns.value("tokenKeyFilePath").and_then(|file| file.as_str());
    let name = file.and_then(|file| Path::new(file).file_stem()?.to_str());
    let named = name.and_then(|name| name.strip_prefix("AuthKey_"));
    if let Some(named) = named.filter(|named| topic::is_id(named) && *named != key_id) {
        apns.warning(
            "keyId",
            format_args!("the name of the file in tokenKeyFilePath is that of the key {named}; see that both are of one key"),
        );
    }
}

/// The keys beside `certFilePath`, which say what kind of file it is.
struct CertificateKeys<'a> {
    password: Option<&'a str>,
    password_file: Option<&'a str>,
    key_file: Option<&'a str>,
}

fn read_certificate_keys<'a>(apns: &mut Section<'a>) -> (Option<&'a str>, CertificateKeys<'a>) {
    let file = apns.string("certFilePath");
    let keys = CertificateKeys {
        password: apns.optional_string("certPassword"),
        password_file: apns.optional_string("certPasswordFile"),
        key_file: apns.optional_string("certKeyFilePath"),
    };
    (file, keys)
}

fn certificate(apns: &mut Section<'_>) -> Option<Credentials> {
    let given = ["certPassword", "certPasswordFile", "certKeyFilePath"].map(|key| apns.has(key));
    let (file, keys) = read_certificate_keys(apns);
    let report = apns.report();
    if given.iter().filter(|given| **given).count() != 1 {
        apns.error(
            "certFilePath",
            "expected exactly one of certPassword or certPasswordFile (for a PKCS#12 file) and certKeyFilePath \
             (for a PEM file) beside it",
        );
        return None;
    }
    let read_secret = |key: &str, file: &str| report.read_secret_file(&apns.path_of(key), file.as_ref());
    let material = if let Some(key_file) = keys.key_file {
        let key = read_secret("certKeyFilePath", key_file);
        let certificate = report.read_file(&apns.path_of("certFilePath"), file?.as_ref());
        Material::from_pem(&certificate?, &key?)
    } else {
        let password = match (keys.password, keys.password_file) {
            (Some(password), _) => Some(password.to_owned()),
            (None, Some(file)) => report.read_secret_line(&apns.path_of("certPasswordFile"), file.as_ref()),
            (None, None) => None,
        };
        let pkcs12 = read_secret("certFilePath", file?);
        Material::from_pkcs12(&pkcs12?, &password?)
    };
    let material = material.inspect_err(|e| apns.error(e.key(), e)).ok()?;
    Some(Credentials::Certificate(material))
}

/// Decides which certificate is used, and says what is wrong with it.
fn choose(
    apns: &Section<'_>,
    material: &Material,
    wanted: Option<Wanted<'_>>,
    now: SystemTime,
) -> Option<Chosen> {
    let report_error = |e: &CredentialError| apns.error("certFilePath", e);
    let chosen = material.choose(wanted, now).inspect_err(report_error).ok()?;
    if let Some(objection) = &chosen.objection {
        let Objection {
            is_certain,
            key,
            what,
        } = objection;
        // The devices of the other environment would wait for pushes that never come.
        if *is_certain && wanted.is_some_and(|wanted| wanted.environment == Some(Environment::Both)) {
            apns.error(key, what);
        } else if *is_certain {
            apns.unusable(key, what);
        } else {
            apns.warning(key, what);
        }
    }
    warn_of_expiry(apns, &chosen.validity, now);
    Some(chosen)
}

fn warn_of_expiry(apns: &Section<'_>, validity: &Validity, now: SystemTime) {
    if let Some(trouble) = validity.trouble(now) {
        if validity.has_expired(now) {
            apns.unusable("certFilePath", trouble);
        } else {
            apns.warning("certFilePath", trouble);
        }
    } else if validity
        .not_after
        .duration_since(now)
        .is_ok_and(|left| left < Duration::from_secs(30 * DAY))
    {
        let until = &validity.until;
        apns.warning(
            "certFilePath",
            format_args!("the certificate expires on {until}; get a new one soon"),
        );
    }
}

/// Where pushes go.
struct Endpoints {
    first: Option<Endpoint>,
    second: Second,
    /// `None` if that is not Apple at all.
    environment: Option<Environment>,
}

/// The sandbox beside production.
enum Second {
    /// One environment is enough.
    None,
    At(Box<Endpoint>),
    /// What the settings say of it cannot be used.
    Wrong,
}

impl Endpoints {
    fn read(apns: &mut Section<'_>) -> Self {
        const CHOICES: [(&str, Environment); 3] = [
            ("production", Environment::Production),
            ("sandbox", Environment::Sandbox),
            ("both", Environment::Both),
        ];
        let environment = apns.choice("environment", &CHOICES, Environment::Production);
        let (has_relay, has_second) = (apns.has("endpoint"), apns.has("sandboxEndpoint"));
        let own = match environment {
            Environment::Production | Environment::Both => PRODUCTION,
            Environment::Sandbox => SANDBOX,
        };
        let first = Endpoint::read(apns, own);
        let sandbox = Endpoint::read_key(apns, "sandboxEndpoint", SANDBOX);
        let second = match environment {
            Environment::Both => sandbox.map_or(Second::Wrong, |sandbox| Second::At(Box::new(sandbox))),
            Environment::Production | Environment::Sandbox => Second::None,
        };
        match environment {
            Environment::Both if has_relay != has_second => apns.error(
                "sandboxEndpoint",
                "with environment \"both\" endpoint and sandboxEndpoint replace Apple's servers together: set both, or none",
            ),
            Environment::Production | Environment::Sandbox if has_second => apns.error(
                "sandboxEndpoint",
                "this is for environment \"both\" alone; for one environment there is endpoint",
            ),
            Environment::Production | Environment::Sandbox | Environment::Both => {}
        }
        Self {
            first,
            second,
            environment: (!has_relay).then_some(environment),
        }
    }
}

fn payload_settings(apns: &mut Section<'_>) -> Option<PayloadSettings> {
    let topic = topic::read(apns);
    let collapse = apns.boolean("collapsePushes", false);
    Some(PayloadSettings {
        topic: topic?,
        collapse,
    })
}

/// What pushes look like, and those to the second token of a device.
fn mode(apns: &mut Section<'_>, payload: Option<&PayloadSettings>) -> Option<(Mode, Box<Ready>)> {
    let priorities = [
        ("high", PushPriority::High),
        ("silent", PushPriority::Silent),
        ("voip", PushPriority::Voip),
        ("auto", PushPriority::Auto),
    ];
    let priority = apns.choice("pushPriority", &priorities, PushPriority::High);
    let sends: &[Class] = match priority {
        PushPriority::High => &[Class::High],
        PushPriority::Silent => &[Class::Low],
        PushPriority::Voip => &[],
        PushPriority::Auto => &[Class::High, Class::Low],
    };
    // Any device may have a second token, for calls.
    let contents = Contents::read(apns, &[sends, &[Class::Voip]].concat());
    let payload = payload?;
    let ready = |class| {
        Ready::new(class, payload, contents.of(class))
            .map(Box::new)
            .inspect_err(|e| apns.error("", e))
            .ok()
    };
    // All that is wrong is said in one run.
    let call = ready(Class::Voip);
    let one = |class| Some(Mode::One(class, ready(class)?));
    let mode = match priority {
        PushPriority::High => one(Class::High),
        PushPriority::Silent => one(Class::Low),
        PushPriority::Voip => Some(Mode::One(Class::Voip, call.clone()?)),
        PushPriority::Auto => {
            let both = ready(Class::High).zip(ready(Class::Low));
            both.map(|(high, low)| Mode::Auto { high, low })
        }
    };
    mode.zip(call)
}

const CREDENTIAL_KEYS: [&str; 7] = [
    "certFilePath",
    "certPassword",
    "certPasswordFile",
    "certKeyFilePath",
    "tokenKeyFilePath",
    "keyId",
    "teamId",
];
const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";
const DAY: u64 = 86_400;
/// Apple stores a push for 30 days at most.
const LONGEST_TTL: Duration = Duration::from_secs(30 * DAY);
