//! The readers of what clients send and of a listener's files, for the fuzz targets, and for nobody else: nothing here is part of
//! the interface.

use std::{net::IpAddr, path::PathBuf, time::SystemTime};

use axum::http::{HeaderMap, Uri};
use fpush_push::Network;

use crate::{
    hosts::HostNames,
    origin::Client,
    tls::{PemFile, ServerCertificate, TlsError},
};

/// Reads a form; each field with its name. `None` if it is none.
#[cfg(feature = "registration")]
#[must_use]
pub fn form(text: &[u8]) -> Option<Vec<(String, String)>> {
    crate::form::Fields::parse(text).map(crate::form::Fields::into_inner)
}

/// Reads what removes an account's registration.
#[cfg(feature = "registration")]
pub fn unregistering(body: &[u8]) {
    drop(serde_json::from_slice::<crate::api::Unregistering>(body));
}

/// Whose request with these headers is, where `proxies` are trusted, and whether it comes from a page of somebody else.
#[must_use]
pub fn client(peer: IpAddr, uri: &Uri, headers: &HeaderMap, proxies: &[Network]) -> (IpAddr, bool) {
    let client = Client::of(peer, headers, proxies);
    (client.address, client.is_cross_site(uri, headers))
}

/// Whether a page is given to who asks so.
#[must_use]
pub fn is_known_host(names: &HostNames, uri: &Uri, headers: &HeaderMap) -> bool {
    names.admit(uri, headers)
}

/// Reads a certificate and its key. Returns what is wrong with them, in words.
#[must_use]
pub fn certificate(certificate: &[u8], key: &[u8]) -> Option<String> {
    let file = |name: &str, content: &[u8]| PemFile {
        path: PathBuf::from(name),
        content: content.to_vec(),
    };
    let (certificate, key) = (file("cert.pem", certificate), file("key.pem", key));
    let read = || {
        let (chain, private_key) = (certificate.chain()?, key.private_key()?);
        let read = ServerCertificate::new([&certificate, &key], chain, private_key)?;
        Ok::<_, TlsError>(read.trouble(SystemTime::UNIX_EPOCH))
    };
    match read() {
        Ok(trouble) => trouble,
        Err(error) => Some(error.to_string()),
    }
}
