//! Provider tokens: the signed statement that we may push for a team's apps.
//!
//! Apple wants a token that is between 20 and 60 minutes old, and refuses us when tokens change more often
//! than every 20 minutes. So all modules with the same key and team share one, which one task renews. It outlives the
//! modules: settings that are read again find the token that is in use.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

pub(crate) struct ProviderToken {
    key: EncodingKey,
    header: Header,
    team_id: String,
    state: Mutex<Signed>,
    /// Whether the task runs that keeps it fresh.
    tended: AtomicBool,
}

/// A signed token, and which one of many it is.
#[derive(Clone)]
pub(crate) struct Signed {
    /// The value of the `authorization` header.
    pub(crate) authorization: HeaderValue,
    pub(crate) generation: u64,
    issued: Instant,
    /// The same by the clock on the wall, which may jump: after a machine has slept, or got the right time.
    issued_at: SystemTime,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderTokenError {
    #[error("expected a .p8 file from Apple, which holds one private key in PEM form (BEGIN PRIVATE KEY)")]
    NotPem,
    #[error("the key cannot sign with ES256; expected the .p8 file of an APNs key")]
    CannotSign,
    #[error("the clock of this machine is before 1970")]
    Clock,
    #[error("the provider token was renewed less than 20 minutes ago; check the clock of this machine")]
    TooSoon,
}

impl ProviderToken {
    /// Reads the key and signs the first token.
    pub(crate) fn new(
        p8: &[u8],
        key_id: &str,
        team_id: &str,
        now: Instant,
    ) -> Result<Self, ProviderTokenError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(p8).map_err(|_| ProviderTokenError::NotPem)?;
        let key = EncodingKey::from_ec_der(der.secret_pkcs8_der());
        let header = Header {
            kid: Some(key_id.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let authorization = sign(&key, &header, team_id)?;
        Ok(Self {
            key,
            header,
            team_id: team_id.to_owned(),
            state: Mutex::new(Signed {
                authorization,
                generation: 0,
                issued: now,
                issued_at: SystemTime::now(),
            }),
            tended: AtomicBool::new(false),
        })
    }

    /// The token. One that nobody tends, because it was made for settings that were then refused, is renewed first if
    /// it is as old as the task lets none become.
    pub(crate) fn current(&self, now: Instant) -> Signed {
        let signed = self.last();
        let neglected =
            !self.tended.load(Ordering::Relaxed) && now.duration_since(signed.issued) >= RENEW_FROM;
        if neglected && self.renew(signed.generation, now).is_ok() {
            return self.last();
        }
        signed
    }

    /// How old the token is.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.last().issued)
    }

    fn last(&self) -> Signed {
        self.state.lock().expect("nobody panics with this lock").clone()
    }

    /// Signs a new token, unless somebody has done so since the token of this generation, or the last one is
    /// less than 20 minutes old.
    pub(crate) fn renew(&self, seen: u64, now: Instant) -> Result<(), ProviderTokenError> {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if state.generation != seen {
            return Ok(());
        }
        if now.duration_since(state.issued) < LEAST_AGE && !jumped(state.issued_at) {
            return Err(ProviderTokenError::TooSoon);
        }
        let authorization = sign(&self.key, &self.header, &self.team_id)?;
        *state = Signed {
            authorization,
            generation: seen + 1,
            issued: now,
            issued_at: SystemTime::now(),
        };
        Ok(())
    }

    /// The task that keeps the token fresh, as long as it is let live. All modules with this token bring one, also
    /// those of settings that are read again: the first that runs stays, the others end at once.
    pub(crate) fn tend(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let token = Arc::clone(self);
        async move {
            if token.tended.swap(true, Ordering::Relaxed) {
                return;
            }
            let _tending = Tending(&token.tended);
            loop {
                let Signed {
                    generation, issued, ..
                } = token.last();
                let age = RENEW_FROM + RENEW_SPREAD.mul_f64(fpush_push::jitter());
                sleep((issued + age).saturating_duration_since(Instant::now())).await;
                match token.renew(generation, Instant::now()) {
                    Ok(()) => debug!("provider token renewed"),
                    Err(e) => {
                        error!("cannot renew the provider token: {e}");
                        sleep(LEAST_AGE).await;
                    }
                }
            }
        }
    }
}

/// Notes the end of the task.
struct Tending<'a>(&'a AtomicBool);

impl Drop for Tending<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for ProviderToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderToken")
    }
}

/// Whether the clock on the wall says that 20 minutes and more are over, or stands before the token's time.
fn jumped(issued_at: SystemTime) -> bool {
    SystemTime::now()
        .duration_since(issued_at)
        .map_or(true, |age| age >= LEAST_AGE)
}

fn sign(key: &EncodingKey, header: &Header, team_id: &str) -> Result<HeaderValue, ProviderTokenError> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let iat = since_1970.map_err(|_| ProviderTokenError::Clock)?.as_secs();
    let jwt = jsonwebtoken::encode(header, &Claims { iss: team_id, iat }, key);
    let jwt = jwt.map_err(|_| ProviderTokenError::CannotSign)?;
    let mut value =
        HeaderValue::try_from(format!("bearer {jwt}")).map_err(|_| ProviderTokenError::CannotSign)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Apple refuses tokens that change more often.
const LEAST_AGE: Duration = Duration::from_secs(20 * 60);
/// A token is renewed at an age of 40 to 50 minutes.
const RENEW_FROM: Duration = Duration::from_secs(40 * 60);
const RENEW_SPREAD: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use fpush_testkit::certs::{ApnsKey, fixture};

    use super::*;

    fn token(now: Instant) -> ProviderToken {
        ProviderToken::new(
            ApnsKey::generate().p8().as_bytes(),
            "ABC123DEFG",
            "DEF123GHIJ",
            now,
        )
        .unwrap()
    }

    #[test]
    fn a_token_is_a_jwt_with_key_team_and_time_in_base64url_without_padding() {
        let now = Instant::now();
        let token = token(now).current(now);
        let value = token.authorization.to_str().unwrap();
        let jwt = value.strip_prefix("bearer ").unwrap();
        assert!(!jwt.contains(['=', '+', '/']));
        let header = jsonwebtoken::decode_header(jwt).unwrap();
        assert_eq!(header.kid.as_deref(), Some("ABC123DEFG"));
        assert_eq!(header.alg, Algorithm::ES256);
        let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode(jwt).unwrap().claims;
        assert_eq!(claims["iss"], "DEF123GHIJ");
        assert!(claims["iat"].is_u64());
        assert!(!format!("{:?}", token.authorization).contains(jwt), "never shown");
    }

    #[test]
    fn it_is_renewed_once_for_all_who_ask_and_not_within_twenty_minutes() {
        let start = Instant::now();
        let token = token(start);
        assert!(matches!(
            token.renew(0, start + LEAST_AGE / 2),
            Err(ProviderTokenError::TooSoon)
        ));
        assert_eq!(token.last().generation, 0);
        for _ in 0..3 {
            token.renew(0, start + LEAST_AGE).unwrap();
        }
        assert_eq!(token.last().generation, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_renews_it_after_40_to_50_minutes() {
        let start = Instant::now();
        let token = Arc::new(token(start));
        drop(token.tend());
        let task = tokio::spawn(token.tend());
        sleep(Duration::from_millis(1)).await;
        tokio::spawn(token.tend())
            .await
            .expect("one task for all modules, the others end");
        sleep(RENEW_FROM - Duration::from_secs(1)).await;
        assert_eq!(token.last().generation, 0);
        sleep(RENEW_SPREAD + Duration::from_secs(2)).await;
        assert_eq!(token.last().generation, 1);
        sleep(Duration::from_secs(24 * 3_600)).await;
        let a_day = token.last().generation;
        assert!((28..=37).contains(&a_day), "{a_day}");
        task.abort();
        assert!(task.await.is_err());
        assert!(!token.tended.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_tends_is_renewed_before_it_is_used() {
        let start = Instant::now();
        let token = Arc::new(token(start));
        // Settings that were refused: their task never ran.
        drop(token.tend());
        let old = start + RENEW_FROM;
        assert_eq!(token.current(old - Duration::from_secs(1)).generation, 0);
        assert_eq!(token.current(old).generation, 1);
        assert_eq!(token.current(old).generation, 1);
        assert_eq!(token.age(old + LEAST_AGE), LEAST_AGE);
        let task = tokio::spawn(token.tend());
        sleep(Duration::from_millis(1)).await;
        assert_eq!(
            token.current(old + RENEW_FROM).generation,
            1,
            "the task does that"
        );
        task.abort();
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let now = Instant::now();
        assert!(matches!(
            ProviderToken::new(b"x", "k", "t", now),
            Err(ProviderTokenError::NotPem)
        ));
        let rsa = std::fs::read(fixture("service-account.key.pem")).unwrap();
        assert!(matches!(
            ProviderToken::new(&rsa, "k", "t", now),
            Err(ProviderTokenError::CannotSign)
        ));
    }
}
