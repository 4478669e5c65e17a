//! What a fake provider keeps about the requests, and what a test told it to answer.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::answer::Answer;

/// The requests that arrived, in order, or only their number.
pub(crate) struct Journal<T> {
    recording: bool,
    count: AtomicUsize,
    entries: Mutex<Vec<T>>,
    arrived: Condvar,
}

impl<T: Clone + Debug> Journal<T> {
    pub(crate) fn new(recording: bool) -> Self {
        Self {
            recording,
            count: AtomicUsize::new(0),
            entries: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
        }
    }

    pub(crate) fn recording(&self) -> bool {
        self.recording
    }

    /// Counts a request that is not kept.
    pub(crate) fn count_one(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn push(&self, entry: T) {
        let mut entries = self.entries.lock().unwrap();
        entries.push(entry);
        self.count.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> Vec<T> {
        self.entries.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, n: usize, timeout: Duration, what: &str) -> Vec<T> {
        let deadline = Instant::now() + timeout;
        let mut entries = self.entries.lock().unwrap();
        while self.len() < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let snapshot = entries.clone();
                // Not poisoned by the panic, so that the fake can still be looked at.
                drop(entries);
                let len = self.len();
                panic!("wanted {n} {what} within {timeout:?}, but {len} arrived: {snapshot:#?}");
            }
            // Requests that are only counted notify nobody.
            entries = self
                .arrived
                .wait_timeout(entries, left.min(Duration::from_millis(5)))
                .unwrap()
                .0;
        }
        entries.clone()
    }
}

type Closure<R> = Arc<dyn Fn(&R) -> Answer + Send + Sync>;

/// What a test scripted: first the queue, then the closure, else [`Answer::Normal`].
pub(crate) struct Script<R> {
    /// Whether there is anything, to spare an unscripted fake the lock.
    any: AtomicBool,
    plan: Mutex<(VecDeque<Answer>, Option<Closure<R>>)>,
}

impl<R> Script<R> {
    pub(crate) fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            plan: Mutex::new((VecDeque::new(), None)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, closure: impl Fn(&R) -> Answer + Send + Sync + 'static) {
        self.plan.lock().unwrap().1 = Some(Arc::new(closure));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn queue(&self, answers: impl IntoIterator<Item = Answer>) {
        self.plan.lock().unwrap().0.extend(answers);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        let mut plan = self.plan.lock().unwrap();
        *plan = (VecDeque::new(), None);
        self.any.store(false, Ordering::Release);
    }

    pub(crate) fn next(&self, request: &R) -> Answer {
        if self.is_empty() {
            return Answer::Normal;
        }
        let closure = {
            let mut plan = self.plan.lock().unwrap();
            if let Some(answer) = plan.0.pop_front() {
                return answer;
            }
            plan.1.clone()
        };
        // Outside the lock: the closure may ask the fake something.
        closure.map_or(Answer::Normal, |closure| closure(request))
    }
}
