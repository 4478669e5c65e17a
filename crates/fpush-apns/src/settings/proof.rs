//! How the settings say that we prove who we are.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fpush_push::{
    files,
    settings::{self, Section},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    credentials::{Chosen, CredentialError, Material, Validity},
    provider_token::{Agreements, Clocks, ProviderToken},
    purpose::{Environment, Objection, Wanted},
    topic,
};

/// What makes two provider tokens the same. It holds a private key and is never shown.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pkcs8: Vec<u8>,
    pub(super) key_id: String,
    pub(super) team_id: String,
}

/// What they name.
pub(super) enum Credentials {
    /// All that the files hold; which certificate of it is used is decided when topic and environment are known.
    Certificate(Material),
    Token {
        /// A new one, which is not needed if the same one is in use.
        token: Box<ProviderToken>,
        key: TokenKey,
    },
}

impl TokenKey {
    pub(super) fn digest(&self) -> u128 {
        let ids = format!("{} {}", self.key_id, self.team_id);
        settings::digest(&self.pkcs8) ^ settings::digest(ids.as_bytes())
    }
}

/// Reads them. What is wrong is reported.
pub(super) fn read(apns: &mut Section<'_>, agreements: &Agreements) -> Option<Credentials> {
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
pub(super) fn choose(
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
        .is_ok_and(|left| left < SOON)
    {
        let until = &validity.until;
        apns.warning(
            "certFilePath",
            format_args!("the certificate expires on {until}; get a new one soon"),
        );
    }
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
/// A certificate that expires within this time should be renewed.
const SOON: Duration = Duration::from_secs(30 * 86_400);
