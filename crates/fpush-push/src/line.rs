//! The bound on pushes at the provider, and the short line in front of it.
//!
//! Each sender domain has a line of its own and the lines are served in turn. When all places are taken, a
//! newcomer takes the last place of the longest line, so that a domain that floods us delays only itself.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

#[derive(Debug)]
pub(crate) struct Line {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many permits there are. More may be out for a while after they became fewer.
    permits: usize,
    out: usize,
    waiting: usize,
    lines: HashMap<Box<str>, VecDeque<oneshot::Sender<Permit>>>,
    /// The domains with a line, in the order in which they are served.
    turns: VecDeque<Box<str>>,
}

/// The right to have one push at the provider; given to the next in line when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` if it was refused and counts no more.
    line: Option<Arc<Line>>,
}

/// What somebody finds who arrives.
#[derive(Debug)]
pub(crate) enum Place {
    Now(Permit),
    Waiting(Waiting),
    Full,
}

/// A place in a line. Whoever drops it leaves the line.
#[derive(Debug)]
pub(crate) struct Waiting {
    line: Arc<Line>,
    receiver: oneshot::Receiver<Permit>,
    /// Whether the line still counts this place.
    counted: bool,
}

impl Line {
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        let state = State {
            permits,
            out: 0,
            waiting: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// How many permits are out, and how many wait for one.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let state = self.lock();
        (state.out, state.waiting)
    }

    /// Changes how many permits there are. Those that are out stay out; those who wait get the new ones.
    pub(crate) fn resize(self: &Arc<Self>, permits: usize) {
        let mut state = self.lock();
        state.permits = permits;
        while state.out < state.permits && self.offer(&mut state) {
            state.out += 1;
        }
    }

    pub(crate) fn enter(self: &Arc<Self>, domain: &str) -> Place {
        let mut state = self.lock();
        if state.out < state.permits {
            state.out += 1;
            return Place::Now(Permit {
                line: Some(Arc::clone(self)),
            });
        }
        if state.waiting >= state.permits.saturating_mul(PLACES_PER_PERMIT) && !state.displace(domain) {
            return Place::Full;
        }
        let (sender, receiver) = oneshot::channel();
        state.join(domain, sender);
        Place::Waiting(Waiting {
            line: Arc::clone(self),
            receiver,
            counted: true,
        })
    }

    /// Gives a permit to the next in line, or keeps it for the next who comes.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.out > state.permits || !self.offer(&mut state) {
            state.out -= 1;
        }
    }

    /// Gives a permit to the first in line who is still there. Returns whether there was one.
    fn offer(self: &Arc<Self>, state: &mut State) -> bool {
        while let Some(sender) = state.next() {
            let permit = Permit {
                line: Some(Arc::clone(self)),
            };
            match sender.send(permit) {
                Ok(()) => return true,
                // Dropped, it would come back here.
                Err(mut refused) => drop(refused.line.take()),
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with this lock")
    }
}

impl State {
    fn join(&mut self, domain: &str, sender: oneshot::Sender<Permit>) {
        self.waiting += 1;
        if let Some(line) = self.lines.get_mut(domain) {
            // Who gave up stands in front, because all wait equally long.
            while line.front().is_some_and(oneshot::Sender::is_closed) {
                line.pop_front();
            }
            line.push_back(sender);
            return;
        }
        self.lines.insert(domain.into(), VecDeque::from([sender]));
        self.turns.push_back(domain.into());
    }

    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        loop {
            let domain = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&domain) else {
                continue;
            };
            let next = line.pop_front();
            if line.is_empty() {
                self.lines.remove(&domain);
            } else {
                self.turns.push_back(domain);
            }
            if next.is_some() {
                return next;
            }
        }
    }

    /// Makes room for a newcomer at the cost of the last in the longest line, unless the newcomer's own line
    /// is as long as any.
    fn displace(&mut self, newcomer: &str) -> bool {
        for line in self.lines.values_mut() {
            while line.front().is_some_and(oneshot::Sender::is_closed) {
                line.pop_front();
            }
        }
        let own = self.lines.get(newcomer).map_or(0, VecDeque::len);
        match self.lines.values_mut().max_by_key(|line| line.len()) {
            Some(longest) if longest.len() > own + 1 => longest.pop_back().is_some(),
            Some(_) | None => false,
        }
    }
}

impl Waiting {
    /// Waits for the permit; `None` if a newcomer from a shorter line took the place.
    pub(crate) async fn permit(mut self) -> Option<Permit> {
        let permit = (&mut self.receiver).await.ok();
        self.leave();
        permit
    }

    fn leave(&mut self) {
        if mem::take(&mut self.counted) {
            self.line.lock().waiting -= 1;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.pass_on();
        }
    }
}

const PLACES_PER_PERMIT: usize = 10;

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, timeout};

    use super::*;

    fn waiting(line: &Arc<Line>, domain: &str) -> Waiting {
        match line.enter(domain) {
            Place::Waiting(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn now(line: &Arc<Line>) -> Permit {
        match line.enter("a") {
            Place::Now(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_permit_passes_to_the_next_in_line() {
        let line = Line::new(1);
        let first = now(&line);
        let second = waiting(&line, "a");
        drop(first);
        let second = second.permit().await.unwrap();
        drop(second);
        drop(now(&line));
        drop(now(&line));
    }

    #[tokio::test]
    async fn domains_are_served_in_turn() {
        let line = Line::new(1);
        let permit = now(&line);
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for domain in ["flood", "flood", "flood", "small", "flood"] {
            let (place, done) = (waiting(&line, domain), done.clone());
            tokio::spawn(async move {
                let _permit = place.permit().await;
                done.send(domain).unwrap();
            });
        }
        drop((permit, done));
        let mut served = Vec::new();
        while let Some(domain) = order.recv().await {
            served.push(domain);
        }
        assert_eq!(served, ["flood", "small", "flood", "flood", "flood"]);
    }

    #[tokio::test]
    async fn a_flood_displaces_only_itself() {
        let line = Line::new(1);
        let _permit = now(&line);
        let mut flood: Vec<_> = (0..10).map(|_| waiting(&line, "flood")).collect();
        assert!(matches!(line.enter("flood"), Place::Full));
        let newcomer = waiting(&line, "small");
        let last = flood.pop().unwrap();
        assert!(
            last.permit().await.is_none(),
            "the last of the longest line had to go"
        );
        drop(newcomer);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_trace() {
        let line = Line::new(1);
        let permit = now(&line);
        for _ in 0..100 {
            let place = waiting(&line, "a");
            assert!(timeout(Duration::ZERO, place.permit()).await.is_err());
        }
        assert_eq!(line.lock().waiting, 0);
        assert!(
            line.lock().lines.values().all(|line| line.len() <= 1),
            "those who left are swept away"
        );
        drop(permit);
        drop(now(&line));
        assert_eq!(line.lengths(), (0, 0));
    }

    #[tokio::test]
    async fn more_permits_go_to_those_who_wait_and_fewer_are_taken_back_with_time() {
        let line = Line::new(1);
        let first = now(&line);
        let (second, third) = (waiting(&line, "a"), waiting(&line, "b"));
        line.resize(3);
        let (second, third) = (second.permit().await.unwrap(), third.permit().await.unwrap());
        assert_eq!(line.lengths(), (3, 0));
        line.resize(1);
        let fourth = waiting(&line, "a");
        drop((first, second));
        assert_eq!(line.lengths(), (1, 1));
        drop(third);
        drop(fourth.permit().await.unwrap());
        assert_eq!(line.lengths(), (0, 0));
    }

    /// A permit that arrives at the very moment when its receiver gives up must not vanish.
    #[tokio::test]
    async fn no_permit_is_lost_to_somebody_who_left() {
        let line = Line::new(1);
        let permit = now(&line);
        let place = waiting(&line, "a");
        drop(permit);
        drop(place);
        drop(now(&line));
    }
}
