//! Whether those who do the work still do it.

use std::{
    future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

/// Asks all participants whether they are alive. Each has a [`Heart`] and answers in its own loop, between two
/// turns of its work: a timer would also answer for a loop that has stopped.
#[derive(Debug)]
pub struct Pulse {
    round: watch::Sender<u64>,
    hearts: Mutex<Vec<Listed>>,
}

#[derive(Debug)]
struct Listed {
    name: String,
    answered: Weak<AtomicU64>,
}

/// A participant's part of a [`Pulse`]. Once it is dropped, nobody waits for it any more.
#[derive(Debug)]
pub struct Heart {
    round: watch::Receiver<u64>,
    answered: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse without participants, which has asked nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            round: watch::Sender::new(0),
            hearts: Mutex::default(),
        }
    }

    /// Adds a participant. What was asked before does not concern it.
    #[must_use]
    pub fn heart(&self, name: impl Into<String>) -> Heart {
        let round = self.round.subscribe();
        let answered = Arc::new(AtomicU64::new(*round.borrow()));
        let mut hearts = self.lock();
        hearts.retain(Listed::is_there);
        hearts.push(Listed {
            name: name.into(),
            answered: Arc::downgrade(&answered),
        });
        drop(hearts);
        Heart { round, answered }
    }

    /// Asks everybody.
    pub fn ask(&self) {
        // Not `send`, which does nothing while there are no participants.
        self.round.send_modify(|round| *round += 1);
    }

    /// Whether everybody who is still there has answered the last question.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        let round = *self.round.borrow();
        self.lock().iter().all(|heart| heart.has_answered(round))
    }

    /// Who has not answered the last question.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        let round = *self.round.borrow();
        let hearts = self.lock();
        let silent = hearts.iter().filter(|heart| !heart.has_answered(round));
        silent.map(|heart| heart.name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.hearts.lock().expect("nobody panics with this lock")
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Listed {
    fn is_there(&self) -> bool {
        self.answered.strong_count() > 0
    }

    /// Whether there is nothing to wait for.
    fn has_answered(&self, round: u64) -> bool {
        self.answered
            .upgrade()
            .is_none_or(|answered| answered.load(Ordering::Relaxed) >= round)
    }
}

impl Heart {
    /// Resolves while a question is not answered. It may be dropped at any time, so it suits a `select!`, and there
    /// [`Heart::beat`] has to follow: until then it resolves again at once.
    pub async fn asked(&mut self) {
        let answered = self.answered.load(Ordering::Relaxed);
        if self.round.wait_for(|round| *round > answered).await.is_err() {
            // Nobody is left who could ask.
            future::pending::<()>().await;
        }
    }

    /// Answers while something is waited for.
    pub async fn beating<F: Future>(&mut self, waiting: F) -> F::Output {
        let mut waiting = pin!(waiting);
        loop {
            tokio::select! {
                biased;
                () = self.asked() => self.beat(),
                done = &mut waiting => return done,
            }
        }
    }

    /// Answers everything that was asked so far.
    pub fn beat(&self) {
        self.answered.store(*self.round.borrow(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_have_answered_when_everybody_has() {
        let pulse = Pulse::new();
        pulse.ask();
        assert!(pulse.all_answered(), "nobody is there");
        let mut reader = pulse.heart("reader");
        let module = pulse.heart("module");
        assert!(pulse.all_answered(), "they came after the question");

        pulse.ask();
        assert_eq!(pulse.silent(), ["reader", "module"]);
        reader.asked().await;
        reader.beat();
        assert!(!pulse.all_answered());
        assert_eq!(pulse.silent(), ["module"]);
        module.beat();
        assert!(pulse.all_answered());
        assert!(pulse.silent().is_empty());

        pulse.ask();
        assert_eq!(pulse.silent(), ["reader", "module"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_not_waited_for() {
        let pulse = Pulse::new();
        let module = pulse.heart("module");
        pulse.ask();
        assert!(!pulse.all_answered());
        drop(module);
        assert!(pulse.all_answered());
        let _other = pulse.heart("other");
        assert_eq!(pulse.lock().len(), 1, "who is gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_beat_answers_all_questions() {
        let pulse = Pulse::new();
        let mut heart = pulse.heart("slow");
        pulse.ask();
        pulse.ask();
        heart.asked().await;
        heart.asked().await;
        heart.beat();
        assert!(pulse.all_answered());
        assert!(timeout(Duration::from_secs(60), heart.asked()).await.is_err());
        drop(pulse);
        assert!(timeout(Duration::from_secs(60), heart.asked()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_does_not_answer() {
        let pulse = Pulse::new();
        let mut heart = pulse.heart("loop");
        tokio::spawn(async move {
            for turn in 0_u32.. {
                tokio::select! {
                    () = heart.asked() => heart.beat(),
                    () = sleep(Duration::from_secs(1)) => {}
                }
                if turn == 5 {
                    future::pending::<()>().await;
                }
            }
        });
        pulse.ask();
        sleep(Duration::from_millis(1)).await;
        assert!(pulse.all_answered());
        sleep(Duration::from_secs(60)).await;
        pulse.ask();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(pulse.silent(), ["loop"]);
    }
}
