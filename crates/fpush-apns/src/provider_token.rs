//! Provider tokens: the signed statement that we may push for a team's apps.
//!
//! Apple wants a token that is between 20 and 60 minutes old, and refuses us when tokens change more often
//! than every 20 minutes. So all modules with the same key and team share one, which one task renews. It outlives the
//! modules: settings that are read again find the token that is in use.

mod agreed;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fpush_push::{settings::digest, sync::lock};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

pub(crate) use self::agreed::Agreements;

pub(crate) struct ProviderToken {
    key: EncodingKey,
    header: Header,
    team_id: String,
    state: Mutex<Signed>,
    /// The number behind the last generation that Apple has looked past, to what was sent with it; 0 before the first.
    taken: AtomicU64,
    /// Whether the task runs that keeps it fresh.
    tended: AtomicBool,
    /// By what instances know it.
    name: String,
    agreements: Agreements,
    /// Whether the other instances were asked, if there are any.
    asked: AtomicBool,
    asking: tokio::sync::Mutex<()>,
    /// The number behind the generation of which the others know that Apple has taken it.
    confirmed: AtomicU64,
}

/// The time by the clock that only goes forward, but stops while the machine sleeps, and by the one on the wall, which may
/// jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) steady: Instant,
    pub(crate) wall: SystemTime,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// A signed token, and which one of many it is.
#[derive(Clone)]
pub(crate) struct Signed {
    /// The value of the `authorization` header.
    pub(crate) authorization: HeaderValue,
    pub(crate) generation: u64,
    issued: Clocks,
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
    #[error("the clock of this machine has not jumped since the provider token was signed")]
    NoJump,
}

impl ProviderToken {
    /// Reads the key and signs the first token.
    pub(crate) fn new(
        p8: &[u8],
        key_id: &str,
        team_id: &str,
        agreements: Agreements,
        now: Clocks,
    ) -> Result<Self, ProviderTokenError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(p8).map_err(|_| ProviderTokenError::NotPem)?;
        let key = EncodingKey::from_ec_der(der.secret_pkcs8_der());
        let header = Header {
            kid: Some(key_id.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let authorization = sign(&key, &header, team_id, now.wall)?;
        Ok(Self {
            key,
            header,
            team_id: team_id.to_owned(),
            state: Mutex::new(Signed {
                authorization,
                generation: 0,
                issued: now,
            }),
            taken: AtomicU64::new(0),
            tended: AtomicBool::new(false),
            name: format!(
                "apns:{:032x}",
                digest(der.secret_pkcs8_der()) ^ digest(format!("{key_id} {team_id}").as_bytes())
            ),
            agreements,
            asked: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            confirmed: AtomicU64::new(0),
        })
    }

    /// The token. One that nobody tends, because it was made for settings that were then refused, is renewed first if
    /// it is as old as the task lets none become.
    pub(crate) fn current(&self, now: Clocks) -> Signed {
        let signed = self.last();
        let neglected = !self.tended.load(Ordering::Relaxed)
            && now.steady.duration_since(signed.issued.steady) >= RENEW_FROM;
        if neglected && self.renew(signed.generation, now).is_ok() {
            return self.last();
        }
        signed
    }

    /// How old the token is.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.last().issued.steady)
    }

    fn last(&self) -> Signed {
        lock(&self.state).clone()
    }

    /// Apple has looked past the token of this generation, to what was sent with it.
    pub(crate) fn note_taken(&self, generation: u64) {
        self.taken.fetch_max(generation + 1, Ordering::Relaxed);
    }

    /// Signs a new token, unless somebody has done so since the token of this generation, or the last one is
    /// less than 20 minutes old by both clocks.
    pub(crate) fn renew(&self, seen: u64, now: Clocks) -> Result<(), ProviderTokenError> {
        self.renew_if(seen, now, |_| false)
    }

    /// The same for a token that Apple calls invalid: only if the wall clock has jumped since it was signed, and
    /// then also within the 20 minutes if Apple has never taken it. Its tokens do not change for Apple by that.
    pub(crate) fn renew_after_jump(&self, seen: u64, now: Clocks) -> Result<(), ProviderTokenError> {
        let has_jumped = |signed: &Signed| now.is_jump_since(signed.issued);
        if self.last().generation == seen && !has_jumped(&self.last()) {
            return Err(ProviderTokenError::NoJump);
        }
        let taken = self.taken.load(Ordering::Relaxed) > seen;
        self.renew_if(seen, now, |signed| !taken && has_jumped(signed))
    }

    fn renew_if(
        &self,
        seen: u64,
        now: Clocks,
        early: impl FnOnce(&Signed) -> bool,
    ) -> Result<(), ProviderTokenError> {
        let mut state = lock(&self.state);
        if state.generation != seen {
            return Ok(());
        }
        if !now.is_past(LEAST_AGE, state.issued) && !early(&state) {
            return Err(ProviderTokenError::TooSoon);
        }
        let authorization = sign(&self.key, &self.header, &self.team_id, now.wall)?;
        *state = Signed {
            authorization,
            generation: seen + 1,
            issued: now,
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
                while token.agreement().is_some() {
                    token.tend_for_all().await;
                }
                let Signed {
                    generation, issued, ..
                } = token.last();
                let age = RENEW_FROM + RENEW_SPREAD.mul_f64(fpush_push::jitter());
                let due = issued.steady + age;
                while Instant::now() < due && token.agreement().is_none() {
                    sleep(LOOK.min(due.duration_since(Instant::now()))).await;
                }
                if token.agreement().is_some() {
                    continue;
                }
                match token.renew(generation, Clocks::now()) {
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

impl ProviderToken {
    /// Looks what the others use, and renews it for all when its time has come.
    async fn tend_for_all(&self) {
        self.confirm().await;
        // The first one does it for all.
        let renews = RENEW_FROM + RENEW_SPREAD.mul_f64(fpush_push::jitter());
        if !self.follow(Clocks::now(), renews, false).await
            && let Err(e) = self.renew_alone(Clocks::now())
        {
            error!("cannot renew the provider token: {e}");
        }
        sleep(LOOK).await;
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

impl Clocks {
    /// So long ago, or as long ago as this machine can say.
    fn before(self, time: Duration) -> Self {
        Self {
            steady: self.steady.checked_sub(time).unwrap_or(self.steady),
            wall: self.wall.checked_sub(time).unwrap_or(self.wall),
        }
    }

    /// How old a token is, by the clock that says more.
    fn age_of(self, signed: &Signed) -> Duration {
        let by_wall = self.wall.duration_since(signed.issued.wall).unwrap_or_default();
        self.steady.duration_since(signed.issued.steady).max(by_wall)
    }

    /// Whether this time has passed since then by one of the clocks: the steady one stops while the machine sleeps.
    fn is_past(self, time: Duration, then: Self) -> bool {
        self.steady.duration_since(then.steady) >= time
            || self.wall.duration_since(then.wall).is_ok_and(|age| age >= time)
    }

    /// Whether the wall clock has gone on otherwise than the steady one.
    fn is_jump_since(self, then: Self) -> bool {
        let steady = self.steady.duration_since(then.steady);
        let off = match self.wall.duration_since(then.wall) {
            Ok(on_the_wall) => on_the_wall.abs_diff(steady),
            Err(back) => back.duration().saturating_add(steady),
        };
        off >= LEAST_JUMP
    }
}

fn sign(
    key: &EncodingKey,
    header: &Header,
    team_id: &str,
    now: SystemTime,
) -> Result<HeaderValue, ProviderTokenError> {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
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
/// What a clock that NTP keeps right never goes off by at once.
const LEAST_JUMP: Duration = Duration::from_secs(30);
/// A token is renewed at an age of 40 to 50 minutes.
const RENEW_FROM: Duration = Duration::from_secs(40 * 60);
const RENEW_SPREAD: Duration = Duration::from_secs(10 * 60);
/// Between two looks at what other instances use, and whether there are any.
const LOOK: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use fpush_testkit::certs::{ApnsKey, fixture};

    use super::*;

    /// Both clocks go on.
    fn after(then: Clocks, time: Duration) -> Clocks {
        Clocks {
            steady: then.steady + time,
            wall: then.wall + time,
        }
    }

    fn token(now: Clocks) -> ProviderToken {
        ProviderToken::new(
            ApnsKey::generate().p8().as_bytes(),
            "ABC123DEFG",
            "DEF123GHIJ",
            Agreements::default(),
            now,
        )
        .unwrap()
    }

    #[test]
    fn a_token_is_a_jwt_with_key_team_and_time_in_base64url_without_padding() {
        let now = Clocks::now();
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
        let start = Clocks::now();
        let token = token(start);
        assert!(matches!(
            token.renew(0, after(start, LEAST_AGE / 2)),
            Err(ProviderTokenError::TooSoon)
        ));
        assert_eq!(token.last().generation, 0);
        for _ in 0..3 {
            token.renew(0, after(start, LEAST_AGE)).unwrap();
        }
        assert_eq!(token.last().generation, 1);
    }

    #[test]
    fn one_that_apple_never_took_is_renewed_as_soon_as_the_clock_was_set() {
        let hours = Duration::from_secs(2 * 3_600);
        let start = Clocks::now();
        let minute = after(start, Duration::from_secs(60));
        for set in [minute.wall - hours, minute.wall + hours] {
            let token = token(start);
            assert!(matches!(
                token.renew_after_jump(0, minute),
                Err(ProviderTokenError::NoJump)
            ));
            let right = Clocks { wall: set, ..minute };
            for _ in 0..3 {
                token.renew_after_jump(0, right).unwrap();
            }
            assert_eq!(token.last().generation, 1);
            // Signed at the right time: Apple's reason is another one.
            assert!(matches!(
                token.renew_after_jump(1, after(right, LEAST_AGE)),
                Err(ProviderTokenError::NoJump)
            ));
        }
    }

    #[test]
    fn tokens_that_apple_takes_change_every_twenty_minutes_at_most_however_the_clock_jumps() {
        let start = Clocks::now();
        let token = token(start);
        token.note_taken(0);
        let minute = after(start, Duration::from_secs(60));
        let back = |now: Clocks| Clocks {
            wall: now.wall - Duration::from_secs(3_600),
            ..now
        };
        assert!(matches!(
            token.renew_after_jump(0, back(minute)),
            Err(ProviderTokenError::TooSoon)
        ));
        assert!(matches!(
            token.renew(0, back(minute)),
            Err(ProviderTokenError::TooSoon)
        ));
        token.renew_after_jump(0, back(after(start, LEAST_AGE))).unwrap();
        assert_eq!(token.last().generation, 1);
        // After a night's sleep the steady clock knows of a minute.
        token.note_taken(1);
        let morning = Clocks {
            wall: minute.wall + Duration::from_secs(8 * 3_600),
            steady: minute.steady + LEAST_AGE,
        };
        token.renew(1, morning).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_renews_it_after_40_to_50_minutes() {
        let token = Arc::new(token(Clocks::now()));
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
        let start = Clocks::now();
        let token = Arc::new(token(start));
        // Settings that were refused: their task never ran.
        drop(token.tend());
        let old = after(start, RENEW_FROM);
        let young = after(start, RENEW_FROM - Duration::from_secs(1));
        assert_eq!(token.current(young).generation, 0);
        assert_eq!(token.current(old).generation, 1);
        assert_eq!(token.current(old).generation, 1);
        assert_eq!(token.age(old.steady + LEAST_AGE), LEAST_AGE);
        let task = tokio::spawn(token.tend());
        sleep(Duration::from_millis(1)).await;
        assert_eq!(
            token.current(after(old, RENEW_FROM)).generation,
            1,
            "the task does that"
        );
        task.abort();
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let now = Clocks::now();
        assert!(matches!(
            ProviderToken::new(b"x", "k", "t", Agreements::default(), now),
            Err(ProviderTokenError::NotPem)
        ));
        let rsa = std::fs::read(fixture("service-account.key.pem")).unwrap();
        assert!(matches!(
            ProviderToken::new(&rsa, "k", "t", Agreements::default(), now),
            Err(ProviderTokenError::CannotSign)
        ));
    }
}
