//! What the tests of several files need.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_push::{Choice, Class, Fingerprint, Form, Push, Token, TokenHasher};
use uuid::Uuid;

use crate::{
    blocklist::{BlockRule, BlocklistSettings},
    job::{PushJob, SenderDomain},
    limiter::RatelimitSettings,
    records::Clocks,
    settings::ModuleSettings,
};

pub(crate) fn hasher() -> TokenHasher {
    TokenHasher::with_key([7; 16])
}

pub(crate) fn fingerprint(text: &str) -> Fingerprint {
    hasher().fingerprint(text)
}

pub(crate) fn clocks() -> Clocks {
    Clocks {
        now: Instant::now(),
        wall: SystemTime::now(),
    }
}

pub(crate) fn settings() -> ModuleSettings {
    ModuleSettings {
        max_in_flight: 10,
        ratelimit: RatelimitSettings {
            enabled: true,
            spacing: Duration::from_secs(20),
            hard_spacing: Duration::from_secs(600),
            cleanup: Duration::from_secs(300),
            acknowledge_refused: false,
        },
        blocklist: BlocklistSettings {
            dead: BlockRule {
                initial: Duration::from_secs(86_400),
                extended: Duration::from_secs(5 * 86_400),
            },
            unexplained: BlockRule {
                initial: Duration::from_secs(600),
                extended: Duration::from_secs(1_200),
            },
            extension: Duration::from_secs(600),
        },
    }
}

pub(crate) fn job(token: &str) -> Box<PushJob> {
    job_of("example.org", token)
}

pub(crate) fn job_of(domain: &str, token: &str) -> Box<PushJob> {
    let fingerprint = fingerprint(&format!("{token} {domain}"));
    Box::new(PushJob {
        push: Push {
            token: Token::new(token),
            class: Class::High,
            form: Form::Full,
            extra: None,
            id: Uuid::nil(),
            deadline: Instant::now(),
        },
        token: fingerprint,
        key: fingerprint,
        node: None,
        choice: Choice::Named,
        sender: Arc::new(SenderDomain::new(domain, &hasher())),
        spacing: Duration::from_secs(20),
        record: None,
    })
}
