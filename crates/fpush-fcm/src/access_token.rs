//! Access tokens: what Google wants to see with each push, and takes for about an hour.
//!
//! One task gets the first one when the daemon starts and renews it ahead of its end, so that no push waits for
//! it. Pushes that find it refused all the same ask the task for another: however many they are, that is one
//! request.

use std::{
    fmt,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use fpush_push::{Backoff, Credential, CredentialKind, jitter};
use http::HeaderValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, error, info, warn};

use crate::token_endpoint::{Granted, TokenEndpoint, TokenError};

/// The pushes' side: where they find the token.
pub(crate) struct AccessToken {
    state: watch::Receiver<State>,
    demand: watch::Sender<Option<Demand>>,
    /// The generation of the last token with which Google took a push.
    taken: AtomicU64,
    path: String,
}

/// The task's side; see [`run`](Self::run).
pub(crate) struct Renewal {
    state: watch::Sender<State>,
    demand: watch::Receiver<Option<Demand>>,
    path: String,
}

/// A token, and which one of many it is.
#[derive(Clone)]
pub(crate) struct Issued {
    /// The value of the `authorization` header.
    pub(crate) authorization: HeaderValue,
    pub(crate) generation: u64,
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// Why no new token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRenewed {
    /// The last one that was asked for is quite new.
    TooSoon {
        /// When another one can be asked for.
        wait: Duration,
    },
    /// The token endpoint gave none, or not in time.
    Failed,
}

#[derive(Default)]
struct State {
    issued: Option<Issued>,
    /// How often no token came.
    failures: u64,
    /// Why none came, if that is what happened last.
    trouble: Option<TokenError>,
}

/// The wish for a token to be replaced.
#[derive(Clone, Copy)]
struct Demand {
    generation: u64,
    at: Instant,
}

impl AccessToken {
    /// Both sides of the access token of the module whose settings are at `path`.
    pub(crate) fn new(path: &str) -> (Self, Renewal) {
        let (state_sender, state) = watch::channel(State::default());
        let (demand, demand_receiver) = watch::channel(None);
        let token = Self {
            state,
            demand,
            taken: AtomicU64::new(0),
            path: path.to_owned(),
        };
        let renewal = Renewal {
            state: state_sender,
            demand: demand_receiver,
            path: path.to_owned(),
        };
        (token, renewal)
    }

    /// The token; if there is none now, the next one that comes before the deadline. If Google refuses to give one, nobody
    /// waits for it: the error.
    pub(crate) async fn current(&self, deadline: Instant) -> Result<Issued, Option<TokenError>> {
        self.current_unless(TokenError::is_refusal, deadline).await
    }

    /// The same for somebody who wants to know why there is none: as soon as one attempt to get one has failed, the
    /// error, or nothing if the deadline comes first.
    pub(crate) async fn current_or_why(&self, deadline: Instant) -> Result<Issued, Option<TokenError>> {
        self.current_unless(|_| true, deadline).await
    }

    /// The token, the next one that comes, or the last error: at the deadline, or as soon as it is one that is final.
    async fn current_unless(
        &self,
        is_final: impl Fn(&TokenError) -> bool,
        deadline: Instant,
    ) -> Result<Issued, Option<TokenError>> {
        if let Some(issued) = self.living() {
            return Ok(issued);
        }
        let news = |state: &State| state.living().is_some() || state.trouble.as_ref().is_some_and(&is_final);
        let mut state = self.state.clone();
        match timeout_at(deadline, state.wait_for(news)).await {
            Ok(Ok(state)) => state.living().ok_or_else(|| state.trouble.clone()),
            Ok(Err(_)) | Err(_) => Err(self.state.borrow().trouble.clone()),
        }
    }

    /// The token if there is one now. One that has run out is asked for again.
    fn living(&self) -> Option<Issued> {
        let generation = {
            let state = self.state.borrow();
            if let Some(issued) = state.living() {
                return Some(issued);
            }
            state.generation()
        };
        if generation > 0 {
            // It has run out although the task renews it ahead of time: the task could not, or its life is very
            // short. Whether it may be asked for now does not matter to a push that has to wait anyway.
            let _ = self.ask_for_another(generation, Instant::now());
        }
        None
    }

    /// Google took a push with the token of this generation.
    pub(crate) fn note_taken(&self, generation: u64) {
        if self.taken.load(Ordering::Relaxed) != generation {
            self.taken.store(generation, Ordering::Relaxed);
        }
    }

    /// Whether a token that Google refuses is good all the same: it is new, because the one before it was refused, and
    /// Google takes it for other devices.
    pub(crate) fn is_good(&self, issued: &Issued, now: Instant) -> bool {
        let because_refused = self
            .demand
            .borrow()
            .is_some_and(|demand| demand.generation + 1 == issued.generation);
        because_refused
            && now.duration_since(issued.since) < NEW
            && self.taken.load(Ordering::Relaxed) == issued.generation
    }

    /// For those who watch the module.
    pub(crate) fn credential(&self) -> Credential {
        let state = self.state.borrow();
        let issued = state.issued.as_ref();
        let now = Instant::now();
        Credential {
            kind: CredentialKind::AccessToken,
            age: issued.map(|issued| now.duration_since(issued.since)),
            expires: issued.map(|issued| {
                let (left, over) = (
                    issued.until.saturating_duration_since(now),
                    now.saturating_duration_since(issued.until),
                );
                SystemTime::now() + left - over
            }),
            trouble: state
                .trouble
                .as_ref()
                .filter(|trouble| trouble.is_refusal())
                .map(|trouble| trouble.in_words().into()),
        }
    }

    /// Waits for another token than the one of this generation, which Google refused.
    pub(crate) async fn renew(&self, seen: u64, deadline: Instant) -> Result<(), NotRenewed> {
        let mut state = self.state.clone();
        let failures = {
            let state = state.borrow_and_update();
            if state.generation() != seen {
                return Ok(());
            }
            state.failures
        };
        let now = Instant::now();
        if let Err(wait) = self.ask_for_another(seen, now) {
            error!(settings = %self.path, "Google refuses an access token that it has just given: check that the file \
                in fcmSecretPath is of this project, and the clock of this machine");
            return Err(NotRenewed::TooSoon { wait });
        }
        let news = state.wait_for(|state| state.generation() != seen || state.failures != failures);
        match timeout_at(deadline, news).await {
            Ok(Ok(state)) if state.generation() != seen => Ok(()),
            Ok(_) | Err(_) => Err(NotRenewed::Failed),
        }
    }

    /// Tells the task to replace the token of a generation, unless it has been told so before. If the last
    /// such wish was not long ago, it returns how long to wait instead.
    fn ask_for_another(&self, generation: u64, now: Instant) -> Result<(), Duration> {
        let mut answer = Ok(());
        self.demand.send_if_modified(|demand| {
            if let Some(last) = demand {
                let wait = DEMAND_INTERVAL.saturating_sub(now.saturating_duration_since(last.at));
                if last.generation == generation {
                    return false;
                }
                if !wait.is_zero() {
                    answer = Err(wait);
                    return false;
                }
            }
            *demand = Some(Demand { generation, at: now });
            true
        });
        answer
    }
}

impl Renewal {
    /// Gets tokens until the backend is gone.
    pub(crate) async fn run(self, endpoint: TokenEndpoint) {
        self.keep_fresh(|| endpoint.ask()).await;
    }

    async fn keep_fresh<F>(self, fetch: impl FnMut() -> F)
    where
        F: Future<Output = Result<Granted, TokenError>>,
    {
        let Self { state, demand, path } = self;
        tokio::select! {
            // First, so that for a backend that is gone already nobody is asked.
            biased;
            () = state.closed() => debug!(settings = %path, "nobody needs access tokens any more"),
            () = renew_forever(&state, demand, &path, fetch) => {}
        }
    }
}

async fn renew_forever<F>(
    state: &watch::Sender<State>,
    mut demand: watch::Receiver<Option<Demand>>,
    settings: &str,
    mut fetch: impl FnMut() -> F,
) where
    F: Future<Output = Result<Granted, TokenError>>,
{
    let (mut generation, mut failed) = (0, 0);
    loop {
        match fetch().await {
            Ok(granted) => {
                generation += 1;
                let life = granted.life;
                publish(state, granted, generation);
                if failed > 0 {
                    info!(%settings, "there is an access token again");
                } else {
                    debug!(%settings, seconds = life.as_secs(), "access token renewed");
                }
                failed = 0;
                let wanted = |demand: &Option<Demand>| demand.is_some_and(|d| d.generation == generation);
                tokio::select! {
                    () = sleep(renew_after(life)) => {}
                    _ = demand.wait_for(wanted) => {}
                }
            }
            Err(error) => {
                complain(settings, &error);
                state.send_modify(|state| {
                    state.failures += 1;
                    state.trouble = Some(error);
                });
                sleep(BACKOFF.pause(failed, jitter())).await;
                failed += 1;
            }
        }
    }
}

fn publish(state: &watch::Sender<State>, granted: Granted, generation: u64) {
    let Granted { authorization, life } = granted;
    let since = Instant::now();
    state.send_modify(|state| {
        state.trouble = None;
        state.issued = Some(Issued {
            authorization,
            generation,
            since,
            until: since + life,
        });
    });
}

fn complain(settings: &str, error: &TokenError) {
    let words = error.in_words();
    if error.is_refusal() {
        error!(%settings, "no access token: {words} No device is unregistered meanwhile");
    } else {
        warn!(%settings, "no access token: {words} Trying again");
    }
}

impl State {
    /// The token, if it has not run out.
    fn living(&self) -> Option<Issued> {
        let issued = self.issued.as_ref();
        issued.filter(|issued| Instant::now() < issued.until).cloned()
    }

    /// The generation of the last token; 0 before the first.
    fn generation(&self) -> u64 {
        self.issued.as_ref().map_or(0, |issued| issued.generation)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

/// When to renew a token of this life: five minutes before its end, or when four fifths of a short life are over.
fn renew_after(life: Duration) -> Duration {
    (life - MARGIN.min(life / 5)).max(LEAST_INTERVAL)
}

const MARGIN: Duration = Duration::from_secs(300);
/// However short tokens live, the task does not ask more often than this by itself.
const LEAST_INTERVAL: Duration = Duration::from_secs(5);
/// A token that is older may have been revoked meanwhile.
const NEW: Duration = Duration::from_secs(60);
/// Refused tokens are replaced ahead of time at most this often.
const DEMAND_INTERVAL: Duration = Duration::from_secs(10);
/// Between requests that got no token.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use fpush_client::Obstacle;
    use tokio::task::JoinHandle;

    use super::*;

    /// A token endpoint: what it answers next (then tokens that live an hour), and when it was asked.
    #[derive(Clone, Default)]
    struct Endpoint {
        answers: Arc<Mutex<VecDeque<Result<u64, TokenError>>>>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Endpoint {
        fn answering(answers: impl IntoIterator<Item = Result<u64, TokenError>>) -> Self {
            let endpoint = Self::default();
            endpoint.answers.lock().unwrap().extend(answers);
            endpoint
        }

        /// Starts the task, whose requests take a tenth of a second.
        fn serve(&self) -> (Arc<AccessToken>, JoinHandle<()>) {
            let (token, renewal) = AccessToken::new("pushModules.x.fcm");
            let endpoint = self.clone();
            let task = tokio::spawn(async move {
                renewal
                    .keep_fresh(|| {
                        endpoint.asked.lock().unwrap().push(Instant::now());
                        let number = endpoint.count();
                        let answer = endpoint.answers.lock().unwrap().pop_front().unwrap_or(Ok(3_600));
                        async move {
                            sleep(Duration::from_millis(100)).await;
                            let life = Duration::from_secs(answer?);
                            Granted::new(&format!("t{number}"), life).ok_or(TokenError::Unreadable(200))
                        }
                    })
                    .await;
            });
            (Arc::new(token), task)
        }

        fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }

        fn seconds_between(&self) -> Vec<u64> {
            let asked = self.asked.lock().unwrap();
            asked
                .windows(2)
                .map(|pair| (pair[1] - pair[0]).as_secs())
                .collect()
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn text(token: &AccessToken) -> String {
        let issued = token.current(soon()).await.unwrap();
        issued.authorization.to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_five_minutes_before_its_end() {
        let endpoint = Endpoint::default();
        let (token, _task) = endpoint.serve();
        assert_eq!(text(&token).await, "Bearer t1");
        sleep(Duration::from_secs(3_290)).await;
        assert_eq!(endpoint.count(), 1);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(text(&token).await, "Bearer t2");
        sleep(Duration::from_secs(86_400)).await;
        assert_eq!(endpoint.count(), 2 + 86_400 / 3_300);
    }

    #[test]
    fn short_lives_are_used_to_four_fifths_but_never_cause_a_storm() {
        let after = |seconds| renew_after(Duration::from_secs(seconds)).as_secs();
        assert_eq!(
            [after(3_600), after(600), after(60), after(5), after(0)],
            [3_300, 480, 48, 5, 5]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_pushes_wait_for_it_until_their_deadline() {
        let endpoint = Endpoint::answering((0..3).map(|_| Err(TokenError::TimedOut)));
        let (token, _task) = endpoint.serve();
        assert!(
            token
                .current(Instant::now() + Duration::from_millis(500))
                .await
                .is_err()
        );
        let issued = token
            .current(Instant::now() + Duration::from_secs(25))
            .await
            .unwrap();
        assert_eq!(issued.authorization, "Bearer t4");
        assert!(issued.authorization.is_sensitive());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_one_that_google_refuses_to_give() {
        let refused = || TokenError::Refused("access_denied".into());
        let endpoint =
            Endpoint::answering([Err(TokenError::TimedOut), Err(TokenError::Grant), Err(refused())]);
        let (token, _task) = endpoint.serve();
        // The first waits until it is known, and the next one hears it at once.
        assert_eq!(token.current(soon()).await.err(), Some(Some(TokenError::Grant)));
        let start = Instant::now();
        assert_eq!(token.current(soon()).await.err(), Some(Some(TokenError::Grant)));
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(token.current(soon()).await.err(), Some(Some(refused())));
        sleep(Duration::from_secs(6)).await;
        assert_eq!(text(&token).await, "Bearer t4");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_wrong_with_the_credential_is_said_of_it() {
        let name = || "x".to_owned();
        for (error, said) in [
            (TokenError::Grant, true),
            (TokenError::Refused(name()), true),
            (TokenError::Unsigned, true),
            // A proxy's page, as likely as not: nobody has looked at the credential.
            (TokenError::Unreadable(200), false),
            (TokenError::Unwell(name()), false),
            (TokenError::Unreachable(Obstacle::TimedOut), false),
            (TokenError::Broken(name()), false),
            (TokenError::TimedOut, false),
        ] {
            let (token, _task) = Endpoint::answering([Err(error.clone())]).serve();
            sleep(Duration::from_millis(200)).await;
            let trouble = token.credential().trouble;
            assert_eq!(trouble, said.then(|| error.in_words().into()), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_ever_more_slowly() {
        let endpoint = Endpoint::answering((0..12).map(|_| Err(TokenError::TimedOut)));
        let (token, _task) = endpoint.serve();
        assert!(
            token
                .current(Instant::now() + Duration::from_secs(600))
                .await
                .is_ok()
        );
        let between = endpoint.seconds_between();
        for (after, least) in [
            (0, 1),
            (1, 2),
            (2, 4),
            (3, 8),
            (4, 16),
            (5, 32),
            (6, 60),
            (11, 60),
        ] {
            assert!(
                (least..=least + least / 2 + 1).contains(&between[after]),
                "{between:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_find_it_refused_get_one_new_one() {
        let endpoint = Endpoint::default();
        let (token, _task) = endpoint.serve();
        let seen = token.current(soon()).await.unwrap().generation;
        let asking: Vec<_> = (0..500)
            .map(|_| {
                let token = Arc::clone(&token);
                tokio::spawn(async move { token.renew(seen, soon()).await })
            })
            .collect();
        for asking in asking {
            assert_eq!(asking.await.unwrap(), Ok(()));
        }
        assert_eq!(token.renew(seen, soon()).await, Ok(()), "a late one");
        assert_eq!(endpoint.count(), 2);
        assert_eq!(text(&token).await, "Bearer t2");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_refused_right_away_is_not_replaced_at_once() {
        let endpoint = Endpoint::default();
        let (token, _task) = endpoint.serve();
        let first = token.current(soon()).await.unwrap();
        token.renew(first.generation, soon()).await.unwrap();
        let second = token.current(soon()).await.unwrap();
        let Err(NotRenewed::TooSoon { wait }) = token.renew(second.generation, soon()).await else {
            panic!("too soon");
        };
        assert_eq!(endpoint.count(), 2);
        sleep(wait).await;
        assert_eq!(token.renew(second.generation, soon()).await, Ok(()));
        assert_eq!(endpoint.count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_hears_that_it_failed() {
        let endpoint = Endpoint::answering([Ok(3_600), Err(TokenError::Grant), Err(TokenError::Grant)]);
        let (token, _task) = endpoint.serve();
        let seen = token.current(soon()).await.unwrap().generation;
        let start = Instant::now();
        assert_eq!(token.renew(seen, soon()).await, Err(NotRenewed::Failed));
        assert!(start.elapsed() < Duration::from_secs(1), "at once");
        assert_eq!(text(&token).await, "Bearer t1", "perhaps it is good after all");
        assert_eq!(token.renew(seen, soon()).await, Err(NotRenewed::Failed));
        assert_eq!(token.renew(seen, soon()).await, Ok(()));
        assert_eq!(endpoint.count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_run_out_is_not_used() {
        let endpoint = Endpoint::answering([Ok(2), Ok(2)]);
        let (token, _task) = endpoint.serve();
        assert_eq!(text(&token).await, "Bearer t1");
        sleep(Duration::from_secs(3)).await;
        assert_eq!(endpoint.count(), 1);
        let pushes: Vec<_> = (0..500)
            .map(|_| {
                let token = Arc::clone(&token);
                tokio::spawn(async move { text(&token).await })
            })
            .collect();
        for push in pushes {
            assert_eq!(push.await.unwrap(), "Bearer t2");
        }
        assert_eq!(endpoint.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_backend_at_once() {
        let (endpoint, failing) = (
            Endpoint::default(),
            Endpoint::answering([Err(TokenError::TimedOut)]),
        );
        // While it sleeps until the next renewal, or until the next attempt; and while it asks.
        for (endpoint, wait) in [(&endpoint, 200), (&failing, 200), (&endpoint, 50)] {
            let (token, task) = endpoint.serve();
            sleep(Duration::from_millis(wait)).await;
            let start = Instant::now();
            drop(token);
            task.await.unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
        assert_eq!(endpoint.count(), 2);
        let (token, task) = endpoint.serve();
        drop(token);
        task.await.unwrap();
        assert_eq!(endpoint.count(), 2, "nobody is asked for a backend that is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_watches_sees_age_and_end_and_what_went_wrong() {
        let endpoint = Endpoint::answering([Ok(600), Err(TokenError::Grant), Err(TokenError::TimedOut)]);
        let (token, _task) = endpoint.serve();
        let nothing = token.credential();
        assert_eq!(
            (nothing.age, nothing.expires, nothing.trouble),
            (None, None, None)
        );
        text(&token).await;
        sleep(Duration::from_secs(100)).await;
        let young = token.credential();
        assert_eq!((young.age.unwrap().as_secs(), young.trouble), (100, None));
        let left = young.expires.unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((490..=500).contains(&left.as_secs()), "{left:?}");
        sleep(Duration::from_millis(380_250)).await;
        let trouble = token.credential().trouble.unwrap();
        assert!(
            trouble.contains("invalid_grant") && trouble.contains("fcmSecretPath"),
            "{trouble}"
        );
        assert_eq!(token.current(soon()).await.unwrap().generation, 1, "still good");
        sleep(Duration::from_secs(30)).await;
        assert_eq!(token.credential().trouble, None);
        assert_eq!(token.current(soon()).await.unwrap().generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_know_hears_at_once_why_there_is_none() {
        let endpoint = Endpoint::answering((0..9).map(|_| Err(TokenError::Grant)));
        let (token, _task) = endpoint.serve();
        for _ in 0..2 {
            let start = Instant::now();
            let why = token.current_or_why(soon()).await.err();
            assert_eq!(why, Some(Some(TokenError::Grant)));
            assert!(start.elapsed() < Duration::from_secs(1));
        }
        let (waiting, renewal) = AccessToken::new("x");
        assert_eq!(waiting.current_or_why(soon()).await.err(), Some(None));
        drop(renewal);
        let start = Instant::now();
        assert_eq!(waiting.current_or_why(soon()).await.err(), Some(None));
        assert_eq!(start.elapsed(), Duration::ZERO, "there is nobody who gets one");
    }
}
