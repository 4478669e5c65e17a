//! The readers of Apple's answers and of the operator's credentials, for the fuzz targets, and for nobody else: nothing here is
//! part of the interface.

use std::time::{Duration, SystemTime};

use fpush_push::{PushError, Receiver};
use http::StatusCode;

use crate::{
    credentials::{CredentialError, Material},
    provider_token::{Agreements, Clocks, ProviderToken},
    purpose::Wanted,
    push2::App,
    response::{Refusal, Remedy},
};

/// Whom the `<client>` of a notification means, to a module of the app `org.example.app`.
#[must_use]
pub fn receiver(client: &str, call: bool) -> Option<Receiver> {
    let app = App {
        topic: "org.example.app".to_owned(),
        environment: None,
    };
    app.receiver(client, call)
}

/// What an answer says.
pub struct Answer {
    /// The reason as metrics name it.
    pub name: &'static str,
    /// The reason as the log describes it.
    pub described: String,
    /// What the module is to do, if the backend does not do it.
    pub error: Option<PushError>,
}

/// Reads an answer that is not a success.
#[must_use]
pub fn answer(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Answer {
    let refusal = Refusal::read(status, body, retry_after);
    let entry = refusal.entry();
    Answer {
        name: entry.name,
        described: refusal.describe(),
        error: match entry.remedy {
            Remedy::Module(error) => Some(error),
            Remedy::Reconnect
            | Remedy::ReconnectLater
            | Remedy::RenewToken
            | Remedy::RenewTokenIfClockJumped => None,
        },
    }
}

/// Reads a PKCS#12 file. Returns what is wrong with it, in words.
#[must_use]
pub fn pkcs12(file: &[u8], password: &str) -> Option<String> {
    choose(Material::from_pkcs12(file, password))
}

/// Reads a certificate and its key from files in PEM form or in DER. Returns what is wrong with them, in words.
#[must_use]
pub fn pem(certificate: &[u8], key: &[u8]) -> Option<String> {
    choose(Material::from_pem(certificate, key))
}

fn choose(material: Result<Material, CredentialError>) -> Option<String> {
    let wanted = Wanted {
        topic: "org.example.app",
        calls: false,
        environment: Some(crate::purpose::Environment::Production),
    };
    let chosen = material.and_then(|material| material.choose(Some(wanted), SystemTime::UNIX_EPOCH));
    chosen.err().map(|error| error.to_string())
}

/// Reads a `.p8` file. Returns what is wrong with it, in words.
#[must_use]
pub fn p8(file: &[u8]) -> Option<String> {
    let token = ProviderToken::new(
        file,
        "KEY1234567",
        "TEAM123456",
        Agreements::default(),
        Clocks::now(),
    );
    token.err().map(|error| error.to_string())
}
