//! Who sends: the signed claims of RFC 8292, one for each origin, used again for hours. Apple wants no more than one an hour.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use aws_lc_rs::error::Unspecified;
use fpush_push::sync::lock;
use http::HeaderValue;
use serde_json::json;

use crate::{encoding::encode, endpoint::Endpoint, key::VapidKey, service::Standing};

/// Signs for one module.
#[derive(Debug)]
pub(crate) struct Vapid {
    key: VapidKey,
    /// Whom a push service may ask: a `mailto:` or `https:` URL.
    subject: String,
    signed: Mutex<Signed>,
}

#[derive(Debug, Default)]
struct Signed {
    origins: HashMap<Box<str>, Kept>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    claims: Claims,
    last_use: u64,
    /// A vendor's, which nobody displaces.
    is_vendors: bool,
}

/// The claims for one origin.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    /// `vapid t=…, k=…`
    pub(crate) authorization: HeaderValue,
    /// Their end, in seconds since 1970.
    expire: u64,
}

impl Vapid {
    pub(crate) fn new(key: VapidKey, subject: String) -> Self {
        Self {
            key,
            subject,
            signed: Mutex::default(),
        }
    }

    /// The public key, as apps subscribe with it.
    pub(crate) fn public_key(&self) -> &str {
        self.key.public()
    }

    /// The claims for an endpoint's origin.
    ///
    /// # Errors
    ///
    /// The system has no randomness to give.
    pub(crate) fn claims(&self, endpoint: &Endpoint, now: SystemTime) -> Result<Claims, Unspecified> {
        let now = seconds(now);
        let mut signed = lock(&self.signed);
        signed.uses += 1;
        let uses = signed.uses;
        if let Some(kept) = signed.origins.get_mut(&endpoint.origin)
            && kept.claims.is_good(now)
        {
            kept.last_use = uses;
            return Ok(kept.claims.clone());
        }
        let claims = self.sign(&endpoint.origin, now)?;
        signed.keep(endpoint, claims.clone());
        Ok(claims)
    }

    /// A push service does not take these claims: whether others may help, because there are others already, or because these
    /// are an hour old. Then they are not used again.
    pub(crate) fn replace(&self, endpoint: &Endpoint, refused: &Claims, now: SystemTime) -> bool {
        let mut signed = lock(&self.signed);
        let current = signed.origins.get(&endpoint.origin);
        if current.is_some_and(|kept| kept.claims.expire != refused.expire) {
            return true;
        }
        let is_old = refused.expire.saturating_sub(seconds(now)) + SHORTEST_USE <= LIFE;
        if is_old {
            signed.origins.remove(&endpoint.origin);
        }
        is_old
    }

    fn sign(&self, origin: &str, now: u64) -> Result<Claims, Unspecified> {
        let expire = now + LIFE;
        let header = encode(r#"{"typ":"JWT","alg":"ES256"}"#);
        let claims = json!({ "aud": origin, "exp": expire, "sub": self.subject });
        let signed = format!("{header}.{}", encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes())?;
        let text = format!("vapid t={signed}.{signature}, k={}", self.key.public());
        let mut authorization = HeaderValue::try_from(text).map_err(|_| Unspecified)?;
        authorization.set_sensitive(true);
        Ok(Claims {
            authorization,
            expire,
        })
    }
}

impl Signed {
    fn keep(&mut self, endpoint: &Endpoint, claims: Claims) {
        let is_new = !self.origins.contains_key(&endpoint.origin);
        if is_new && self.origins.len() >= MOST_ORIGINS {
            let others = self.origins.iter().filter(|(_, kept)| !kept.is_vendors);
            let oldest = others.min_by_key(|(_, kept)| kept.last_use);
            if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
                self.origins.remove(&oldest);
            }
        }
        let kept = Kept {
            claims,
            last_use: self.uses,
            is_vendors: match endpoint.standing {
                Standing::Vendors(_) => true,
                // Anybody may invent names below a domain.
                Standing::Below(_) | Standing::Strangers => false,
            },
        };
        self.origins.insert(endpoint.origin.clone(), kept);
    }
}

impl Claims {
    /// Whether they go on being used: for half of their life, by the wall clock, which may have jumped either way.
    fn is_good(&self, now: u64) -> bool {
        let left = self.expire.saturating_sub(now);
        (LIFE / 2..=LIFE).contains(&left)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .as_ref()
        .map_or(0, Duration::as_secs)
}

/// Seconds. Push services take 24 hours at most, by their own clocks.
const LIFE: u64 = 12 * 3_600;
/// Seconds for which claims are used before others are tried.
const SHORTEST_USE: u64 = 3_600;
/// Origins whose claims are kept.
const MOST_ORIGINS: usize = 1_000;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::Value;

    use super::*;
    use crate::{encoding::decode, endpoint::Allowed, key::tests::key};

    fn vapid() -> Vapid {
        Vapid::new(key(), "mailto:ops@example.org".to_owned())
    }

    fn endpoint(host: &str) -> Endpoint {
        let allowed = Allowed {
            hosts: ["*.example.org", "fcm.googleapis.com", "*.notify.windows.com"]
                .map(str::to_owned)
                .to_vec(),
            ports: vec![443, 8443],
        };
        allowed.endpoint(&format!("https://{host}/x")).unwrap()
    }

    fn at(hours: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_800_000_000.0 + hours * 3_600.0)
    }

    /// Header and claims, if the signature is good.
    fn read(claims: &Claims) -> [Value; 2] {
        let text = claims.authorization.to_str().unwrap();
        let (token, key) = text.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key: [u8; 65] = decode(key).unwrap();
        let signature: [u8; 64] = decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        [header, claims]
            .map(|part| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
    }

    #[test]
    fn the_claims_are_those_of_rfc_8292() {
        let claims = vapid().claims(&endpoint("up.example.org:8443"), at(0.0)).unwrap();
        let [header, claims] = read(&claims);
        assert_eq!(header, json!({ "typ": "JWT", "alg": "ES256" }));
        assert_eq!(
            claims,
            json!({
                "aud": "https://up.example.org:8443", "exp": 1_800_000_000 + 12 * 3_600,
                "sub": "mailto:ops@example.org",
            })
        );
    }

    #[test]
    fn one_signature_for_a_thousand_pushes_and_one_for_each_origin() {
        let (vapid, a, b) = (vapid(), endpoint("a.example.org"), endpoint("b.example.org"));
        let first = vapid.claims(&a, at(0.0)).unwrap();
        for push in 0..1_000 {
            let claims = vapid.claims(&a, at(f64::from(push) / 200.0)).unwrap();
            assert_eq!(claims.authorization, first.authorization);
        }
        assert_ne!(
            vapid.claims(&b, at(0.0)).unwrap().authorization,
            first.authorization
        );
        let later = vapid.claims(&a, at(6.1)).unwrap();
        assert_ne!(
            later.authorization, first.authorization,
            "half of its life is over"
        );
    }

    #[test]
    fn a_clock_that_jumps_makes_new_claims() {
        let (vapid, a) = (vapid(), endpoint("a.example.org"));
        let first = vapid.claims(&a, at(0.0)).unwrap();
        let before = vapid.claims(&a, at(-30.0)).unwrap();
        assert_ne!(first.authorization, before.authorization);
        let [_, claims] = read(&before);
        assert_eq!(claims["exp"], 1_800_000_000 - 18 * 3_600);
    }

    #[test]
    fn refused_claims_are_replaced_once_they_are_an_hour_old() {
        let (vapid, a) = (vapid(), endpoint("a.example.org"));
        let first = vapid.claims(&a, at(0.0)).unwrap();
        assert!(!vapid.replace(&a, &first, at(0.9)));
        assert_eq!(
            vapid.claims(&a, at(0.9)).unwrap().authorization,
            first.authorization
        );
        assert!(vapid.replace(&a, &first, at(1.0)));
        let second = vapid.claims(&a, at(1.0)).unwrap();
        assert_ne!(second.authorization, first.authorization);
        assert!(
            vapid.replace(&a, &first, at(1.0)),
            "who was under way with the first tries the second"
        );
        assert!(!vapid.replace(&a, &second, at(1.0)));
    }

    #[test]
    fn strangers_origins_displace_each_other_and_no_vendor() {
        let (vapid, google) = (vapid(), endpoint("fcm.googleapis.com"));
        let first = vapid.claims(&google, at(0.0)).unwrap();
        let stranger = |number: usize| endpoint(&format!("up{number}.example.org"));
        let of_stranger = vapid.claims(&stranger(0), at(0.0)).unwrap();
        // Names below a vendor's domain can be invented as well.
        let below = |number: usize| endpoint(&format!("x{number}.notify.windows.com"));
        for number in 1..1_500 {
            vapid.claims(&stranger(number), at(0.0)).unwrap();
            vapid.claims(&below(number), at(0.0)).unwrap();
        }
        assert_eq!(lock(&vapid.signed).origins.len(), 1_000);
        assert_eq!(
            vapid.claims(&google, at(0.1)).unwrap().authorization,
            first.authorization
        );
        let again = vapid.claims(&stranger(0), at(0.0)).unwrap();
        assert_ne!(again.authorization, of_stranger.authorization, "it was displaced");
    }
}
