//! What the settings say of a listener.

use std::{net::SocketAddr, path::PathBuf, time::SystemTime};

use fpush_push::{Network, settings::Section};
use serde_json::Value;

#[cfg(feature = "registration")]
use crate::cors::AllowedOrigins;
use crate::{
    hosts::HostNames,
    tls::{PemFile, ServerCertificate},
};

/// Who is believed, and with what we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS, if the listener speaks it.
    pub tls: Option<ServerCertificate>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// By which names browsers may ask for pages.
    pub host_names: HostNames,
}

impl Security {
    /// Reads `trustedProxies`, `hostNames`, `certFilePath` and `keyFilePath`. Every mistake goes into the settings' report.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            trusted_proxies: read_proxies(section),
            host_names: HostNames::read(section),
            tls: read_certificate(section),
        }
    }
}

/// Reads `listen`, an address and a port. Every mistake goes into the settings' report.
pub fn read_listen(section: &mut Section<'_>) -> Option<SocketAddr> {
    let listen = section.string("listen")?;
    let parsed = listen.parse().ok();
    if parsed.is_none() {
        section.error(
            "listen",
            "expected an address and a port, such as \"127.0.0.1:8280\" or \"[::1]:8280\"",
        );
    }
    parsed
}

/// Reads `certFilePath` and `keyFilePath`.
fn read_certificate(section: &mut Section<'_>) -> Option<ServerCertificate> {
    let given = (section.has("certFilePath"), section.has("keyFilePath"));
    if given == (true, true) {
        return read_both(section);
    }
    section.optional_file("certFilePath");
    section.optional_file("keyFilePath");
    let (found, missing) = match given {
        (false, false) => return None,
        (true, _) => ("certFilePath", "keyFilePath"),
        (false, _) => ("keyFilePath", "certFilePath"),
    };
    section.error(missing, format_args!("this key is missing; {found} needs it"));
    None
}

fn read_both(section: &mut Section<'_>) -> Option<ServerCertificate> {
    let path = section.string("certFilePath").map(PathBuf::from);
    let certificate = path.and_then(|path| {
        let content = section
            .report()
            .read_file(&section.path_of("certFilePath"), &path)?;
        Some(PemFile { path, content })
    });
    let content = section.secret_file("keyFilePath");
    let path = section.optional_file("keyFilePath");
    let key = path.zip(content).map(|(path, content)| PemFile { path, content });
    let chain = certificate.as_ref().map(PemFile::chain);
    let private_key = key.as_ref().map(PemFile::private_key);
    if let Some(Err(e)) = &chain {
        section.error("certFilePath", e);
    }
    if let Some(Err(e)) = &private_key {
        section.error("keyFilePath", e);
    }
    let files = [certificate.as_ref()?, key.as_ref()?];
    let certificate = ServerCertificate::new(files, chain?.ok()?, private_key?.ok()?)
        .inspect_err(|e| section.error("certFilePath", e))
        .ok()?;
    let now = SystemTime::now();
    match certificate.trouble(now) {
        Some(trouble) if certificate.has_expired(now) => section.unusable("certFilePath", trouble),
        Some(trouble) => section.warning("certFilePath", trouble),
        None => {}
    }
    Some(certificate)
}

fn read_proxies(section: &mut Section<'_>) -> Vec<Network> {
    let list = match section.value("trustedProxies") {
        None => return Vec::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| entry.as_str().and_then(Network::parse))
            .collect(),
        Some(_) => None,
    };
    list.unwrap_or_else(|| {
        section.error(
            "trustedProxies",
            "expected a list of addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\"]",
        );
        Vec::new()
    })
}

/// What `registration.http` says.
#[cfg(feature = "registration")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether the HTML forms and the settings pages are open.
    pub debugging: bool,
    /// Whether there is a public page that explains how to test.
    pub selftest: bool,
    /// Whether a known node can be registered again or removed only with its secret. The registry has to know it, too.
    pub require_secret: bool,
    /// `newPerAddress`: new devices of one address in a day.
    pub new_per_address: u32,
    /// `requestsPerAddress`: registrations, renewals and removals of one address in a minute.
    pub requests_per_address: u32,
    /// `allowedOrigins`: whose pages may register devices.
    pub allowed_origins: AllowedOrigins,
    /// TLS and proxies.
    pub security: Security,
}

#[cfg(feature = "registration")]
impl HttpSettings {
    /// Reads the whole block. Every mistake goes into the settings' report; `None` if nothing can be made of the block.
    pub fn read(mut section: Section<'_>) -> Option<Self> {
        let listen = read_listen(&mut section);
        let debugging = section.boolean("debugging", false);
        let selftest = section.boolean("selftest", false);
        let require_secret = section.boolean("requireSecret", false);
        let new_per_address = section.integer("newPerAddress", 1..=1_000_000, 5_000) as u32;
        let requests_per_address = section.integer("requestsPerAddress", 1..=1_000_000, 600) as u32;
        let allowed_origins = AllowedOrigins::read(&mut section);
        let security = Security::read(&mut section);
        section.finish();
        Some(Self {
            listen: listen?,
            debugging,
            selftest,
            require_secret,
            new_per_address,
            requests_per_address,
            allowed_origins,
            security,
        })
    }
}

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use fpush_testkit::TempDir;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    use super::*;

    /// A certificate that ends in this year, and its key.
    fn pair(folder: &TempDir, end: i32) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        (
            folder.write("cert.pem", certificate.pem()),
            folder.write("key.pem", key.serialize_pem()),
        )
    }

    fn read(block: &Value) -> (Option<SocketAddr>, Security, Vec<String>) {
        let report = Report::default();
        let all = json!({ "http": block });
        let mut root = Section::root(all.as_object().unwrap(), &report);
        let mut section = root.section("http").unwrap();
        let (listen, security) = (read_listen(&mut section), Security::read(&mut section));
        section.finish();
        let problems = report.into_problems().iter().map(ToString::to_string).collect();
        (listen, security, problems)
    }

    #[test]
    fn a_listener_can_have_all_keys_or_its_address_only() {
        let (listen, security, problems) = read(&json!({ "listen": "[::1]:8280" }));
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            (listen, security),
            ("[::1]:8280".parse().ok(), Security::default())
        );

        let folder = TempDir::new();
        let (certificate, key) = pair(&folder, 2_100);
        let (_, security, problems) = read(&json!({
            "listen": "127.0.0.1:8280", "trustedProxies": ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"],
            "certFilePath": certificate, "keyFilePath": key,
        }));
        assert!(
            problems.iter().all(|problem| problem.contains("chmod")),
            "{problems:?}"
        );
        assert!(security.tls.is_some());
        assert_eq!(security.trusted_proxies.len(), 3);
    }

    #[test]
    fn every_mistake_is_named() {
        let (listen, security, problems) = read(&json!({
            "listen": "localhost", "trustedProxies": ["10.0.0.0/33"], "certFilePath": "c.pem", "tls": true,
        }));
        assert_eq!((listen, security), (None, Security::default()));
        assert_eq!(
            problems,
            [
                "http.listen: expected an address and a port, such as \"127.0.0.1:8280\" or \"[::1]:8280\"",
                "http.trustedProxies: expected a list of addresses and networks, such as [\"127.0.0.1\", \
                 \"10.0.0.0/8\"]",
                "http.keyFilePath: this key is missing; certFilePath needs it",
                "http.tls: this key is not known",
            ]
        );
    }

    #[test]
    fn files_that_no_listener_could_use_are_named() {
        let (folder, other) = (TempDir::new(), TempDir::new());
        let (certificate, key) = pair(&folder, 2_100);
        let (_, foreign) = pair(&other, 2_100);
        let empty = folder.write("empty", "");
        let problems = |certificate: &PathBuf, key: &PathBuf| {
            let block = json!({ "listen": "[::1]:80", "certFilePath": certificate, "keyFilePath": key });
            let (_, security, mut problems) = read(&block);
            assert_eq!(security.tls, None);
            problems.retain(|problem| !problem.contains("chmod"));
            problems
                .iter()
                .map(|problem| problem.replace(&format!("{}/", folder.path().display()), ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            problems(&empty, &empty),
            [
                "http.certFilePath: empty holds no certificate in PEM (BEGIN CERTIFICATE): no items found",
                "http.keyFilePath: empty holds no private key in PEM without a password (BEGIN PRIVATE KEY): no items \
                 found",
            ]
        );
        assert_eq!(
            problems(&key, &certificate),
            [
                "http.certFilePath: key.pem holds no certificate in PEM (BEGIN CERTIFICATE), but a private key: are \
                 certFilePath and keyFilePath exchanged?",
                "http.keyFilePath: cert.pem holds no private key in PEM without a password (BEGIN PRIVATE KEY), but a \
                 certificate: are certFilePath and keyFilePath exchanged?",
            ]
        );
        let mismatch = problems(&certificate, &foreign);
        assert_eq!(mismatch.len(), 1, "{mismatch:?}");
        assert!(
            mismatch[0].starts_with("http.certFilePath: cert.pem and "),
            "{mismatch:?}"
        );
        assert!(mismatch[0].contains("issued for another key"), "{mismatch:?}");
    }

    #[test]
    fn a_certificate_that_has_expired_is_a_warning() {
        let folder = TempDir::new();
        let (certificate, key) = pair(&folder, 2_021);
        let (_, security, problems) = read(&json!({
            "listen": "[::1]:80", "certFilePath": certificate, "keyFilePath": key,
        }));
        assert!(security.tls.is_some());
        let says = |words| problems.iter().any(|problem| problem.contains(words));
        assert!(
            says("http.certFilePath: the certificate expired on 2021-01-01"),
            "{problems:?}"
        );
    }
}
