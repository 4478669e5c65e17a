//! One provider token for all instances: one of them renews it, and Apple's 20 minutes hold over all.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use fpush_push::{Agreed, Agreement, Offer, sync::lock};
use http::HeaderValue;
use tokio::time::timeout;

use super::{Clocks, LEAST_AGE, ProviderToken, ProviderTokenError, RENEW_FROM, Signed, sign};

/// Where instances agree; the same for all tokens, however often it becomes another one.
pub(crate) type Agreements = Arc<Mutex<Option<Arc<dyn Agreement>>>>;

impl ProviderToken {
    /// Waits until it is known which token the other instances use, at most for a moment, and only before the first push.
    pub(crate) async fn ready(&self) {
        if self.asked.load(Ordering::Acquire) {
            return;
        }
        let _one_asks = self.asking.lock().await;
        if !self.asked.load(Ordering::Acquire) {
            let following = self.follow(Clocks::now(), RENEW_FROM, false);
            // The others may have to wait longer than this push can.
            let _in_time = timeout(FIRST, following).await;
            self.asked.store(true, Ordering::Release);
        }
    }

    /// The other instances are other ones now.
    pub(crate) fn ask_again(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Uses what the others use, and renews that for all if it is as old as `renews`; with `early` also if it is younger and
    /// Apple has never taken it. Returns whether there are others that could be asked.
    pub(crate) async fn follow(&self, now: Clocks, renews: Duration, early: bool) -> bool {
        let Some(agreement) = self.agreement() else {
            return false;
        };
        let Some(found) = agreement.agree(&self.name, None).await else {
            return false;
        };
        let is_old = found.as_ref().is_none_or(|agreed| agreed.age >= renews) || early;
        if !is_old {
            self.adopt(found, now);
            return true;
        }
        // The one in use is as good as another one, and Apple may have seen it.
        let last = self.last();
        let own = Some(&last).filter(|last| now.age_of(last) < renews && !early);
        let authorization = match own {
            Some(last) => last.authorization.clone(),
            None => match sign(&self.key, &self.header, &self.team_id, now.wall) {
                Ok(authorization) => authorization,
                Err(_) => return true,
            },
        };
        let offer = Offer {
            text: authorization.to_str().unwrap_or_default(),
            age: own.map_or(Duration::ZERO, |last| now.age_of(last)),
            replaces: renews.max(LEAST_AGE),
            early,
        };
        match agreement.agree(&self.name, Some(offer)).await {
            Some(agreed) => {
                self.adopt(agreed, now);
                true
            }
            None => false,
        }
    }

    /// Renews the token of this generation for all instances, if they can be asked; [`renew`](Self::renew) does so alone.
    pub(crate) async fn renew_for_all(&self, seen: u64, now: Clocks, after_jump: bool) {
        let last = self.last();
        if last.generation != seen || self.agreement().is_none() {
            return;
        }
        if after_jump && !now.is_jump_since(last.issued) {
            return;
        }
        self.follow(now, LEAST_AGE, after_jump).await;
    }

    /// Tells the others that Apple has taken the token, so that nobody replaces it early.
    pub(super) async fn confirm(&self) {
        let signed = self.last();
        let taken = self.taken.load(Ordering::Relaxed) > signed.generation;
        if taken
            && self.confirmed.swap(signed.generation + 1, Ordering::Relaxed) != signed.generation + 1
            && let Some(agreement) = self.agreement()
        {
            let text = signed.authorization.to_str().unwrap_or_default();
            agreement.confirm(&self.name, text).await;
        }
    }

    /// What the others cannot be asked about for too long is signed alone.
    pub(super) fn renew_alone(&self, now: Clocks) -> Result<(), ProviderTokenError> {
        let signed = self.last();
        if now.age_of(&signed) >= LATEST {
            self.renew(signed.generation, now)
        } else {
            Ok(())
        }
    }

    pub(super) fn agreement(&self) -> Option<Arc<dyn Agreement>> {
        lock(&self.agreements).clone()
    }

    fn adopt(&self, agreed: Option<Agreed>, now: Clocks) {
        let Some(Agreed { text, age }) = agreed else {
            return;
        };
        let Ok(mut authorization) = HeaderValue::try_from(text) else {
            return;
        };
        authorization.set_sensitive(true);
        let mut state = lock(&self.state);
        if state.authorization != authorization {
            *state = Signed {
                authorization,
                generation: state.generation + 1,
                issued: now.before(age),
            };
        }
    }
}

/// A push waits for so long for the first answer.
const FIRST: Duration = Duration::from_secs(1);
/// A token that is so old is renewed although the other instances cannot be asked: Apple refuses it after an hour.
const LATEST: Duration = Duration::from_secs(55 * 60);

#[cfg(test)]
mod tests {
    use fpush_push::{Agreeing, Confirming};
    use fpush_testkit::certs::ApnsKey;

    use super::*;

    /// What others agree on, and who offers what.
    #[derive(Default)]
    struct Others {
        agreed: Mutex<Option<Agreed>>,
        offers: Mutex<Vec<(String, Duration)>>,
    }

    impl Agreement for Others {
        fn agree<'a>(&'a self, _name: &'a str, offer: Option<Offer<'a>>) -> Agreeing<'a> {
            let mut agreed = lock(&self.agreed);
            if let Some(offer) = offer {
                lock(&self.offers).push((offer.text.to_owned(), offer.age));
                if agreed.as_ref().is_none_or(|agreed| agreed.age >= offer.replaces) {
                    *agreed = Some(Agreed {
                        text: offer.text.to_owned(),
                        age: offer.age,
                    });
                }
            }
            let agreed = agreed.clone();
            Box::pin(async move { Some(agreed) })
        }

        fn confirm<'a>(&'a self, _name: &'a str, _text: &'a str) -> Confirming<'a> {
            Box::pin(async {})
        }
    }

    /// It was signed while the others could not be asked, and Apple may have seen it.
    #[tokio::test]
    async fn an_old_one_of_all_is_replaced_by_the_young_one_in_use_here() {
        let now = Clocks::now();
        let p8 = ApnsKey::generate().p8();
        let agreements = Agreements::default();
        let token = ProviderToken::new(p8.as_bytes(), "k", "t", Arc::clone(&agreements), now).unwrap();
        let own = token.last().authorization.to_str().unwrap().to_owned();
        let others = Arc::new(Others::default());
        *lock(&others.agreed) = Some(Agreed {
            text: "bearer old".to_owned(),
            age: Duration::from_secs(56 * 60),
        });
        *lock(&agreements) = Some(Arc::clone(&others) as _);
        let later = Duration::from_secs(5 * 60);
        let now = Clocks {
            steady: now.steady + later,
            wall: now.wall + later + Duration::from_secs(1),
        };
        assert!(token.follow(now, RENEW_FROM, false).await);
        let offers = lock(&others.offers).clone();
        assert_eq!(offers.len(), 1);
        assert_eq!(offers[0].0, own, "no third one");
        assert!(offers[0].1 >= later, "{:?}", offers[0].1);
        assert_eq!(token.last().generation, 0);
        // One that is as old as the others' is replaced by a new one.
        let late = Clocks {
            steady: now.steady + RENEW_FROM,
            wall: now.wall + RENEW_FROM,
        };
        if let Some(agreed) = &mut *lock(&others.agreed) {
            agreed.age = RENEW_FROM + later;
        }
        assert!(token.follow(late, RENEW_FROM, false).await);
        assert_ne!(lock(&others.offers)[1].0, own);
        assert_eq!(token.last().generation, 1);
    }
}
