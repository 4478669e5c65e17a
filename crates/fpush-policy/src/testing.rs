//! What the tests of several files need.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_push::{
    Choice, Class, Fingerprint, Form, LaneId, Push, Token, TokenHasher,
    settings::{Report, Section},
};
use uuid::Uuid;

use crate::{
    job::{Elsewhere, PushJob, SenderDomain},
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

/// As they are where the file says nothing, with ten permits.
pub(crate) fn settings() -> ModuleSettings {
    let (report, empty) = (Report::default(), serde_json::Map::new());
    ModuleSettings {
        max_in_flight: 10,
        ..ModuleSettings::read(&mut Section::root(&empty, &report))
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
            notification: None,
            count: None,
            id: Uuid::nil(),
            deadline: Instant::now(),
        },
        token: fingerprint,
        lane: LaneId::Main,
        elsewhere: Elsewhere::Nowhere,
        vendor: None,
        key: fingerprint,
        node: None,
        choice: Choice::Named,
        sender: Arc::new(SenderDomain::new(domain, &hasher())),
        spacing: Duration::from_secs(20),
        arrived: Instant::now(),
        worth_until: Some(Instant::now() + Duration::from_secs(4 * 3_600)),
        record: None,
    })
}
