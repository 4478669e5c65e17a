//! A subscription whose endpoint is allowed and whose keys can be used.

use fpush_push::{Subscription as Texts, TokenFlaw};

use crate::{
    encoding::{decode, encode},
    encryption::ReceiverKeys,
    endpoint::{Allowed, Endpoint},
};

/// A receiver, and where it is reached. There is no `Debug`: all of it is secret.
#[derive(Clone)]
pub(crate) struct Subscription {
    pub(crate) endpoint: Endpoint,
    pub(crate) keys: ReceiverKeys,
}

impl Subscription {
    /// Reads a token whose endpoint is allowed and whose keys can be used.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn read(token: &str, allowed: &Allowed) -> Result<Self, TokenFlaw> {
        let Texts {
            endpoint,
            p256dh,
            auth,
        } = Texts::of_token(token).ok_or(TokenFlaw::Form)?;
        let p256dh: [u8; 65] = decode(p256dh).ok_or(TokenFlaw::PublicKey)?;
        let auth = decode(auth).ok_or(TokenFlaw::AuthSecret)?;
        let endpoint = allowed.endpoint(endpoint).ok_or(TokenFlaw::Endpoint)?;
        let keys = ReceiverKeys::new(p256dh, auth).ok_or(TokenFlaw::PublicKey)?;
        Ok(Self { endpoint, keys })
    }

    /// Its one spelling as a token.
    pub(crate) fn token(&self) -> String {
        let Self { endpoint, keys } = self;
        let (endpoint, p256dh, auth) = (endpoint.text(), encode(keys.p256dh()), encode(keys.auth));
        let texts = Texts {
            endpoint: &endpoint,
            p256dh: &p256dh,
            auth: &auth,
        };
        texts.to_token()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::tests::{AUTH, P256DH};

    fn allowed() -> Allowed {
        Allowed {
            hosts: vec!["*.example.org".to_owned()],
            ports: vec![443],
        }
    }

    fn canonical(token: &str) -> Result<String, TokenFlaw> {
        Subscription::read(token, &allowed()).map(|subscription| subscription.token())
    }

    #[test]
    fn a_token_has_one_spelling() {
        let one = format!("webpush:https://up.example.org/a|b?c=%2b|{P256DH}|{AUTH}");
        assert_eq!(canonical(&one).as_ref(), Ok(&one));
        let standard = |text: &str| text.replace('-', "+").replace('_', "/");
        let other = format!(
            "webpush:HTTPS://UP.example.org:443/a|b?c=%2b|{}=|{}==",
            standard(P256DH),
            standard(AUTH)
        );
        assert_eq!(canonical(&other), Ok(one));
    }

    #[test]
    fn what_cannot_be_sent_to_is_not_a_token() {
        let endpoint = "https://up.example.org/a";
        let off_curve = P256DH.replacen('C', "D", 1);
        let compressed = format!("A{}", &P256DH[1..]);
        use TokenFlaw::{AuthSecret, Endpoint, Form, PublicKey};
        for (flaw, token) in [
            (Form, String::new()),
            (Form, format!("{endpoint}|{P256DH}|{AUTH}")),
            (Form, format!("webpush:{endpoint}")),
            (Form, format!("webpush:{endpoint}|{P256DH}")),
            (PublicKey, format!("webpush:{endpoint}|{AUTH}|{P256DH}")),
            (PublicKey, format!("webpush:{endpoint}|{P256DH}|{AUTH}|")),
            (PublicKey, format!("webpush:{endpoint}|{off_curve}|{AUTH}")),
            (PublicKey, format!("webpush:{endpoint}|{compressed}|{AUTH}")),
            (PublicKey, format!("webpush:{endpoint}|{}|{AUTH}", &P256DH[..40])),
            (AuthSecret, format!("webpush:{endpoint}|{P256DH}|{}", &AUTH[..10])),
            (
                Endpoint,
                format!("webpush:https://evil.example/a|{P256DH}|{AUTH}"),
            ),
            (Form, format!("WEBPUSH:{endpoint}|{P256DH}|{AUTH}")),
        ] {
            assert_eq!(canonical(&token), Err(flaw), "{token}");
        }
    }
}
