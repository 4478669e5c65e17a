//! Reading what the operator got from Google: the file with a service account's key.

use std::fmt;

use fpush_push::settings;
use http::Uri;
use serde_json::{Map, Value};

use crate::assertion::Signer;

/// What is wrong with the file. Nothing of its content is shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("expected the JSON file of a service account, {WHERE_FROM}")]
    NotJson,
    #[error(
        "this is not a service account's file (its type is not \"service_account\"); expected one, {WHERE_FROM}"
    )]
    NotServiceAccount,
    #[error("the file of the service account has no {0}; get a new one, {WHERE_FROM}")]
    Missing(&'static str),
    #[error(
        "the project_id in the file of the service account is none: it holds characters that no project has"
    )]
    Project,
    #[error("the token_uri in the file of the service account must be an https URL")]
    TokenUri,
    #[error(
        "the private_key in the file of the service account cannot be used: it must be an RSA key in PEM form with \
         its line breaks; get a new file, {WHERE_FROM}"
    )]
    PrivateKey,
}

/// A service account whose file has all that is needed.
pub(crate) struct ServiceAccount {
    pub(crate) project: String,
    pub(crate) token_uri: Uri,
    /// The text of `token_uri`, which is also whom assertions are for.
    audience: String,
    email: String,
    private_key: String,
}

impl ServiceAccount {
    /// Reads the file, and finds everything that is wrong with it.
    pub(crate) fn read(file: &[u8]) -> Result<Self, Vec<CredentialError>> {
        let Ok(Value::Object(file)) = serde_json::from_slice(file) else {
            return Err(vec![CredentialError::NotJson]);
        };
        // The original did not ask for a type; a file without one may have all the rest.
        let other_type = file.get("type").is_some_and(|kind| kind != "service_account");
        if other_type || !FIELDS.iter().any(|field| file.contains_key(*field)) {
            return Err(vec![CredentialError::NotServiceAccount]);
        }
        let mut errors: Vec<_> = FIELDS
            .into_iter()
            .filter(|field| text(&file, field).is_none())
            .map(CredentialError::Missing)
            .collect();
        let [project, email, private_key, token] =
            FIELDS.map(|field| text(&file, field).unwrap_or_default().to_owned());
        if !project.bytes().all(is_of_project) {
            errors.push(CredentialError::Project);
        }
        let token_uri = token_uri(&token);
        if token_uri.is_none() && !token.is_empty() {
            errors.push(CredentialError::TokenUri);
        }
        match token_uri {
            Some(token_uri) if errors.is_empty() => Ok(Self {
                project,
                token_uri,
                audience: token,
                email,
                private_key,
            }),
            _ => Err(errors),
        }
    }

    /// A digest of the account and its key.
    pub(crate) fn digest(&self) -> u128 {
        settings::digest(format!("{} {}", self.email, self.private_key).as_bytes())
    }

    /// What signs with the account's key.
    pub(crate) fn signer(self) -> Result<Signer, CredentialError> {
        Signer::new(&self.private_key, self.email, self.audience).map_err(|_| CredentialError::PrivateKey)
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

fn text<'a>(file: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    file.get(field)?.as_str().filter(|text| !text.is_empty())
}

/// The project goes into the URL of every push. Old ones begin with a domain and a colon.
fn is_of_project(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_')
}

fn token_uri(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    (uri.scheme_str() == Some("https") && !authority.as_str().contains('@')).then_some(uri)
}

const FIELDS: [&str; 4] = ["project_id", "client_email", "private_key", "token_uri"];
const WHERE_FROM: &str =
    "as the Firebase console hands it out (Project settings, Service accounts, Generate new private key)";

#[cfg(test)]
mod tests {
    use fpush_testkit::certs::service_account_json;
    use serde_json::json;

    use super::*;

    fn errors(change: impl FnOnce(&mut Map<String, Value>)) -> Vec<CredentialError> {
        let file = service_account_json("project-1", "https://127.0.0.1/token");
        let mut file: Map<_, _> = serde_json::from_str(&file).unwrap();
        change(&mut file);
        ServiceAccount::read(&serde_json::to_vec(&file).unwrap())
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn a_good_file_is_read_also_without_a_type() {
        let file = service_account_json("project-1", "https://127.0.0.1/token");
        let account = ServiceAccount::read(file.as_bytes()).unwrap();
        assert_eq!(account.project, "project-1");
        assert_eq!(account.token_uri, "https://127.0.0.1/token");
        assert_eq!(errors(|file| drop(file.remove("type"))), []);
        assert!(!format!("{account:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_not_a_json_object_is_reported() {
        for file in ["", "-----BEGIN PRIVATE KEY-----", "[]", "\"s3cret\""] {
            assert_eq!(
                ServiceAccount::read(file.as_bytes()).unwrap_err(),
                [CredentialError::NotJson]
            );
        }
    }

    #[test]
    fn what_is_not_a_service_account_is_reported() {
        assert_eq!(
            errors(|file| drop(file.insert("type".into(), json!("authorized_user")))),
            [CredentialError::NotServiceAccount]
        );
        assert_eq!(
            ServiceAccount::read(br#"{"project_info":{},"client":[]}"#).unwrap_err(),
            [CredentialError::NotServiceAccount],
            "the app's google-services.json"
        );
    }

    #[test]
    fn every_missing_field_is_reported() {
        for field in FIELDS {
            assert_eq!(
                errors(|file| drop(file.remove(field))),
                [CredentialError::Missing(field)]
            );
        }
        let several = errors(|file| {
            file.remove("project_id");
            file.insert("private_key".into(), json!(7));
        });
        assert_eq!(
            several,
            [
                CredentialError::Missing("project_id"),
                CredentialError::Missing("private_key")
            ]
        );
    }

    #[test]
    fn a_project_that_would_change_the_url_is_reported() {
        for project in ["a/b", "a?b", "a b", "ä"] {
            let errors = errors(|file| drop(file.insert("project_id".into(), json!(project))));
            assert_eq!(errors, [CredentialError::Project]);
        }
        assert_eq!(
            errors(|file| drop(file.insert("project_id".into(), json!("example.com:app")))),
            []
        );
    }

    #[test]
    fn a_token_endpoint_without_tls_is_reported() {
        for uri in [
            "http://127.0.0.1/token",
            "token",
            "https://",
            "https://me:pw@host/",
            "::",
        ] {
            let errors = errors(|file| drop(file.insert("token_uri".into(), json!(uri))));
            assert_eq!(errors, [CredentialError::TokenUri], "{uri}");
        }
    }
}
