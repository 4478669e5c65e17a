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

use fpush_push::sync::lock;

/// Asks all participants whether they are alive. Each has a [`Probe`] and answers in its own loop, between two
/// turns of its work: a timer would also answer for a loop that has stopped.
#[derive(Debug)]
pub struct Liveness {
    round: watch::Sender<u64>,
    probes: Mutex<Vec<Listed>>,
}

#[derive(Debug)]
struct Listed {
    name: String,
    answered: Weak<AtomicU64>,
}

/// A participant's part of a [`Liveness`]. Once it is dropped, nobody waits for it any more.
#[derive(Debug)]
pub struct Probe {
    round: watch::Receiver<u64>,
    answered: Arc<AtomicU64>,
}

impl Liveness {
    /// Without participants; nothing has been asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            round: watch::Sender::new(0),
            probes: Mutex::default(),
        }
    }

    /// Adds a participant. What was asked before does not concern it.
    #[must_use]
    pub fn probe(&self, name: impl Into<String>) -> Probe {
        let round = self.round.subscribe();
        let answered = Arc::new(AtomicU64::new(*round.borrow()));
        let mut probes = self.lock();
        probes.retain(Listed::is_there);
        probes.push(Listed {
            name: name.into(),
            answered: Arc::downgrade(&answered),
        });
        drop(probes);
        Probe { round, answered }
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
        self.lock().iter().all(|probe| probe.has_answered(round))
    }

    /// Who has not answered the last question.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        let round = *self.round.borrow();
        let probes = self.lock();
        let silent = probes.iter().filter(|probe| !probe.has_answered(round));
        silent.map(|probe| probe.name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listed>> {
        lock(&self.probes)
    }
}

impl Default for Liveness {
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

impl Probe {
    /// Resolves while a question is not answered. It may be dropped at any time, so it suits a `select!`, and there
    /// [`Probe::answer`] has to follow: until then it resolves again at once.
    pub async fn asked(&mut self) {
        let answered = self.answered.load(Ordering::Relaxed);
        if self.round.wait_for(|round| *round > answered).await.is_err() {
            // Nobody is left who could ask.
            future::pending::<()>().await;
        }
    }

    /// Answers while something is waited for.
    pub async fn while_waiting<F: Future>(&mut self, waiting: F) -> F::Output {
        let mut waiting = pin!(waiting);
        loop {
            tokio::select! {
                biased;
                () = self.asked() => self.answer(),
                done = &mut waiting => return done,
            }
        }
    }

    /// Answers everything that was asked so far.
    pub fn answer(&self) {
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
        let liveness = Liveness::new();
        liveness.ask();
        assert!(liveness.all_answered(), "nobody is there");
        let mut reader = liveness.probe("reader");
        let module = liveness.probe("module");
        assert!(liveness.all_answered(), "they came after the question");

        liveness.ask();
        assert_eq!(liveness.silent(), ["reader", "module"]);
        reader.asked().await;
        reader.answer();
        assert!(!liveness.all_answered());
        assert_eq!(liveness.silent(), ["module"]);
        module.answer();
        assert!(liveness.all_answered());
        assert!(liveness.silent().is_empty());

        liveness.ask();
        assert_eq!(liveness.silent(), ["reader", "module"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_not_waited_for() {
        let liveness = Liveness::new();
        let module = liveness.probe("module");
        liveness.ask();
        assert!(!liveness.all_answered());
        drop(module);
        assert!(liveness.all_answered());
        let _other = liveness.probe("other");
        assert_eq!(liveness.lock().len(), 1, "who is gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_serves_all_questions() {
        let liveness = Liveness::new();
        let mut probe = liveness.probe("slow");
        liveness.ask();
        liveness.ask();
        probe.asked().await;
        probe.asked().await;
        probe.answer();
        assert!(liveness.all_answered());
        assert!(timeout(Duration::from_secs(60), probe.asked()).await.is_err());
        drop(liveness);
        assert!(timeout(Duration::from_secs(60), probe.asked()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_does_not_answer() {
        let liveness = Liveness::new();
        let mut probe = liveness.probe("loop");
        tokio::spawn(async move {
            for turn in 0_u32.. {
                tokio::select! {
                    () = probe.asked() => probe.answer(),
                    () = sleep(Duration::from_secs(1)) => {}
                }
                if turn == 5 {
                    future::pending::<()>().await;
                }
            }
        });
        liveness.ask();
        sleep(Duration::from_millis(1)).await;
        assert!(liveness.all_answered());
        sleep(Duration::from_secs(60)).await;
        liveness.ask();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(liveness.silent(), ["loop"]);
    }
}
