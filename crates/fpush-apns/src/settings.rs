//! The settings of an `apple` module.

mod proof;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fpush_client::{ClientSettings, Endpoint, ProviderClient, Trust};
use fpush_push::{
    Agreement, BackendType, Background, Built, Class, ParsedBackend, PushTrait,
    settings::{self, Section},
    sync,
};
use http::{Uri, uri::Authority};

use self::proof::{Credentials, TokenKey};
use crate::{
    backend::{Apns, Authentication, Mode},
    both::Both,
    content::Contents,
    credentials::{Chosen, Validity},
    payload::{PayloadSettings, Ready},
    provider_token::{Agreements, ProviderToken},
    purpose::{Environment, Wanted},
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

impl fmt::Debug for Apple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apple")
    }
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
        let credentials = proof::read(&mut apns, &self.agreements);
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
                proof::choose(&apns, material, wanted, SystemTime::now())
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

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";
const DAY: u64 = 86_400;
/// Apple stores a push for 30 days at most.
const LONGEST_TTL: Duration = Duration::from_secs(30 * DAY);
