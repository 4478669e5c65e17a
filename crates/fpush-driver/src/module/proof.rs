//! Whether the provider accepts a module's credentials: asked once after the start and after a change of the settings,
//! and again until something has shown it. No answer to that enters rate limit, block list or doubt.

use std::{
    borrow::Cow,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use fpush_push::{Backoff, Failure, PushError, PushTrait, jitter};

use super::Module;
use crate::lane::Life;

impl Module {
    /// Proves to the provider who we are, without a push to anybody. Returns what it said, for a person.
    ///
    /// # Errors
    ///
    /// The provider refuses, or does not answer before the deadline. What that says of the module is logged, too: an operator who looks
    /// there finds why the module is red.
    pub async fn verify(&self, deadline: Instant) -> Result<Cow<'static, str>, Failure> {
        let verified = self.ask_for_proof(deadline).await;
        if let Err(failure) = &verified {
            self.complain_of_verification(failure, "");
        }
        verified
    }

    async fn ask_for_proof(&self, deadline: Instant) -> Result<Cow<'static, str>, Failure> {
        let (backend, generation) = {
            let state = self.lock();
            (Arc::clone(&state.backend), state.policy.generation())
        };
        let verified = backend.verify(deadline.into_std()).await;
        if backend.can_verify() {
            let answer = verified.as_ref().map(|_| ());
            let now = Instant::now().into_std();
            self.lock().policy.verified(answer, generation, now);
        }
        // What is held may find out at once.
        self.lane.wake.notify_one();
        // It may have ended a pause.
        self.lane.wake.notify_one();
        verified
    }

    /// Verifies the backend of now within `spread`, and again, ever more slowly, until it has answered well or a push has
    /// shown that it does. Ends without that when the backend or the module is not in use any more.
    pub fn prove(self: &Arc<Self>, spread: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (module, backend) = (Arc::downgrade(self), Arc::downgrade(&self.backend()));
        async move {
            let (mut pause, mut failed) = (spread.mul_f64(jitter()), 0);
            loop {
                sleep(pause).await;
                let Some(module) = module.upgrade().filter(|module| module.wants_proof(&backend)) else {
                    return;
                };
                match module.ask_for_proof(Instant::now() + PATIENCE).await {
                    Ok(said) if failed > 0 => info!(module = %module.name, "{said}"),
                    Ok(said) => debug!(module = %module.name, "{said}"),
                    // It was replaced or removed meanwhile.
                    Err(_) if !module.wants_proof(&backend) => {}
                    Err(failure) => module.complain_of_verification(&failure, "; trying again later"),
                }
                pause = BACKOFF.pause(failed, jitter());
                failed += 1;
            }
        }
    }

    /// Whether this backend is in use, and its provider is to be asked: nothing has shown yet that it accepts the credentials,
    /// or it refused the settings when it was asked.
    fn wants_proof(&self, backend: &Weak<dyn PushTrait>) -> bool {
        let state = self.lock();
        let wanted = state.life == Life::Wanted && !self.drain.has_begun();
        wanted
            && state.backend.can_verify()
            && state.policy.needs_proof()
            && backend
                .upgrade()
                .is_some_and(|backend| Arc::ptr_eq(&state.backend, &backend))
    }

    fn complain_of_verification(&self, failure: &Failure, next: &str) {
        let (answer, meaning) = (&failure.answer, failure.meaning);
        match failure.error {
            PushError::Pause { alarm: true, .. } | PushError::Misconfigured | PushError::TooLarge => {
                error!(module = %self.name, %answer, meaning, "the provider refuses this module's credentials or settings");
            }
            PushError::TokenGone { .. }
            | PushError::TokenDoubted
            | PushError::TokenOfAnotherApp
            | PushError::TokenBusy
            | PushError::Crowded
            | PushError::TooMany { .. }
            | PushError::TokenUnserved
            | PushError::Reconnected
            | PushError::Renewed
            | PushError::Later { .. }
            | PushError::HostAway { .. }
            | PushError::Pause { alarm: false, .. }
            | PushError::Unexplained => {
                warn!(module = %self.name, %answer, meaning, "the provider cannot be asked whether it accepts this \
                    module's credentials{next}");
            }
        }
    }
}

/// For one answer of a provider.
const PATIENCE: Duration = Duration::from_secs(15);
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(3_600));

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;

    use fpush_policy::ModuleSettings;
    use fpush_push::{
        BackendStatus, Choice, Class, LaneId, Outcome, Proof, Push, Request, Sending, TokenHasher,
        TroubleKind, Urgency, Verifying,
        settings::{Report, Section},
    };

    use crate::{Admission, Drain, Senders};

    /// A provider that answers these verifications one after the other, and the last one again and again.
    #[derive(Clone, Default)]
    struct Provider {
        answers: Arc<Mutex<Vec<Option<PushError>>>>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    const AWAY: Option<PushError> = Some(PushError::Later { after: None });
    const REFUSED: Option<PushError> = Some(PushError::Pause {
        length: Duration::from_secs(60),
        alarm: true,
    });

    impl PushTrait for Provider {
        fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
            Some(token.into())
        }

        fn class(&self, _urgency: Urgency) -> Class {
            Class::High
        }

        fn send<'a>(&'a self, _push: &'a Push) -> Sending<'a> {
            Box::pin(async { Ok(()) })
        }

        fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
            self.asked.lock().unwrap().push(Instant::now());
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 {
                answers.remove(0)
            } else {
                answers[0]
            };
            Box::pin(async move {
                match answer {
                    None => Ok("it accepts them".into()),
                    Some(error) => Err(Failure::new(error, "reason", "an answer", "do something")),
                }
            })
        }

        fn status(&self) -> BackendStatus {
            BackendStatus::default()
        }
    }

    fn settings() -> ModuleSettings {
        let (report, empty) = (Report::default(), serde_json::Map::new());
        ModuleSettings::read(&mut Section::root(&empty, &report))
    }

    fn module(answers: &[Option<PushError>]) -> (Arc<Module>, Provider) {
        let provider = Provider::default();
        provider.answers.lock().unwrap().extend(answers);
        let (hasher, drain) = (TokenHasher::new().unwrap(), Drain::default());
        let module = Module::new(
            "m",
            Box::new(provider.clone()),
            settings(),
            Senders::new(hasher),
            drain,
        );
        (module, provider)
    }

    fn seen(module: &Module) -> (Proof, Option<TroubleKind>) {
        let status = module.status(Instant::now(), std::time::SystemTime::now());
        (status.proof, status.trouble.map(|trouble| trouble.kind))
    }

    const SPREAD: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_the_end_of_it() {
        let (module, provider) = module(&[None]);
        let start = Instant::now();
        assert_eq!(seen(&module), (Proof::NotTried, None));
        module.prove(SPREAD).await;
        assert_eq!(seen(&module), (Proof::Proven, None));
        assert_eq!(provider.asked.lock().unwrap().len(), 1);
        assert!(provider.asked.lock().unwrap()[0] - start <= SPREAD);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_asked_again_and_says_nothing_about_the_credentials() {
        let (module, provider) = module(&[AWAY, AWAY, AWAY, AWAY, None]);
        tokio::spawn(module.prove(Duration::ZERO));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(seen(&module), (Proof::NotTried, Some(TroubleKind::Unproven)));
        sleep(Duration::from_secs(150)).await;
        assert_eq!(
            seen(&module),
            (Proof::NotTried, Some(TroubleKind::Provider)),
            "three in a row"
        );
        sleep(Duration::from_secs(600)).await;
        assert_eq!(seen(&module), (Proof::Proven, None));
        assert_eq!(provider.asked.lock().unwrap().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_asked_again_too_because_it_may_be_put_right_at_the_provider() {
        let (module, provider) = module(&[REFUSED, None]);
        tokio::spawn(module.prove(Duration::ZERO));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen(&module), (Proof::Refused, Some(TroubleKind::Authentication)));
        let now = Instant::now().into_std();
        let tries = fpush_policy::Tries::new(now, 0);
        assert!(
            module
                .lock()
                .policy
                .may_attempt(LaneId::Main, &tries, now + SPREAD, now)
                .is_ok(),
            "a push finds out for itself"
        );
        sleep(Duration::from_secs(60)).await;
        assert_eq!(seen(&module), (Proof::Proven, None));
        assert_eq!(provider.asked.lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_is_proof_as_well_and_other_settings_are_asked_for_themselves() {
        let (module, provider) = module(&[AWAY]);
        let proving = tokio::spawn(module.prove(Duration::ZERO));
        sleep(Duration::from_secs(1)).await;
        let request = Request {
            token: "t",
            choice: Choice::Named,
            urgency: Urgency::High,
            count: None,
            domain: "a.example",
            registered: None,
        };
        let Admission::Admitted(admitted) = module.admit(request, Instant::now()) else {
            panic!("it goes out");
        };
        assert_eq!(admitted.deliver().await, Outcome::Accepted);
        assert_eq!(seen(&module), (Proof::Proven, None));
        proving.await.unwrap();
        assert_eq!(provider.asked.lock().unwrap().len(), 1);

        let proving = tokio::spawn(module.prove(SPREAD));
        let other = Provider::default();
        other.answers.lock().unwrap().push(None);
        module.replace(Box::new(other.clone()), settings());
        assert_eq!(seen(&module), (Proof::NotTried, None));
        proving.await.unwrap();
        assert!(other.asked.lock().unwrap().is_empty(), "that was the old one's");
        module.prove(SPREAD).await;
        assert_eq!(seen(&module), (Proof::Proven, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_modules_ask_over_a_minute() {
        let start = Instant::now();
        let mut times = Vec::new();
        let modules: Vec<_> = (0..1_000).map(|_| module(&[None])).collect();
        let proving: Vec<_> = modules
            .iter()
            .map(|(module, _)| tokio::spawn(module.prove(SPREAD)))
            .collect();
        for proving in proving {
            proving.await.unwrap();
        }
        for (_, provider) in &modules {
            times.extend(
                provider
                    .asked
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|at| (*at - start).as_secs()),
            );
        }
        assert_eq!(times.len(), 1_000);
        let most = (0..60)
            .map(|second| times.iter().filter(|at| **at == second).count())
            .max();
        assert!(most < Some(60), "{most:?} in one second");
    }

    #[test]
    fn attempts_become_rare() {
        let pauses: Vec<_> = (0..9)
            .map(|failed| BACKOFF.pause(failed, 0.0).as_secs())
            .collect();
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    }
}
