//! What stands between a program and a server behind a Unix socket, and hands on late, or not at all.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use crate::temp_dir::TempDir;

/// A socket in a folder of its own that leads to another one. What passes can be delayed and held, in each direction. It
/// stops on drop.
pub struct Relay {
    folder: TempDir,
    socket: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// What the program says.
    Questions,
    /// What the server says.
    Answers,
}

struct Shared {
    server: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    questions: Valve,
    answers: Valve,
    /// The ends of all connections that are open.
    open: Vec<UnixStream>,
    is_over: bool,
}

#[derive(Default)]
struct Valve {
    is_closed: bool,
    delay: Duration,
    /// Pieces that wait for their passage.
    held: usize,
    /// What happens once so many more pieces have passed.
    then: Option<(usize, Then)>,
}

#[derive(Clone, Copy)]
enum Then {
    Hold,
    Cut,
}

impl Relay {
    /// A relay to this socket, whose own one has the same name.
    pub fn to(server: &Path) -> Self {
        let folder = TempDir::new();
        let socket = folder.path().join(server.file_name().unwrap());
        let listener = UnixListener::bind(&socket).unwrap();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_all = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for program in listener.incoming() {
                if for_all.lock().is_over {
                    return;
                }
                for_all.connect(program.unwrap());
            }
        });
        Self {
            folder,
            socket,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on everything takes so much longer in each direction.
    pub fn delay(&self, delay: Duration) {
        let mut state = self.shared.lock();
        state.questions.delay = delay;
        state.answers.delay = delay;
    }

    /// Nothing passes in this direction any more.
    pub fn hold(&self, flow: Flow) {
        self.shared.lock().valve(flow).is_closed = true;
    }

    /// So many more pieces pass in this direction, and nothing after them. A piece is what comes at once.
    pub fn hold_after(&self, flow: Flow, pieces: usize) {
        self.shared.lock().valve(flow).then = Some((pieces, Then::Hold));
    }

    /// So many more pieces pass in this direction. Then all connections end, and what would have been the next piece is
    /// lost. New connections pass.
    pub fn cut_after(&self, flow: Flow, pieces: usize) {
        self.shared.lock().valve(flow).then = Some((pieces, Then::Cut));
    }

    /// Everything passes again, also what was held.
    pub fn release(&self) {
        self.shared.lock().open_valves();
        self.shared.changed.notify_all();
    }

    /// Blocks until something is held in this direction.
    #[track_caller]
    pub fn wait_for_held(&self, flow: Flow, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.valve(flow).held == 0 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing is held within {timeout:?}");
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Ends all connections. What is held is lost; new connections pass.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Self>, program: UnixStream) {
        // A server that is away is away for the program, too: its connection ends.
        let Ok(server) = UnixStream::connect(&self.server) else {
            return;
        };
        let copy = |stream: &UnixStream| stream.try_clone().unwrap();
        self.lock().open.extend([copy(&program), copy(&server)]);
        for (flow, from, to) in [
            (Flow::Questions, copy(&program), copy(&server)),
            (Flow::Answers, server, program),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pass(flow, from, to));
        }
    }

    /// Hands on until one of both ends. Errors mean that.
    fn pass(&self, flow: Flow, mut from: UnixStream, mut to: UnixStream) {
        let mut piece = vec![0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let delay = self.wait_for_passage(flow);
            sleep(delay);
            if to.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        for end in [from, to] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn wait_for_passage(&self, flow: Flow) -> Duration {
        let mut state = self.lock();
        match &mut state.valve(flow).then {
            Some((0, Then::Hold)) => {
                state.valve(flow).then = None;
                state.valve(flow).is_closed = true;
            }
            Some((0, Then::Cut)) => state.cut(),
            Some((pieces, _)) => *pieces -= 1,
            None => {}
        }
        state.valve(flow).held += 1;
        self.changed.notify_all();
        while state.valve(flow).is_closed {
            state = self.changed.wait(state).unwrap();
        }
        let valve = state.valve(flow);
        valve.held -= 1;
        valve.delay
    }
}

impl State {
    fn valve(&mut self, flow: Flow) -> &mut Valve {
        match flow {
            Flow::Questions => &mut self.questions,
            Flow::Answers => &mut self.answers,
        }
    }

    fn open_valves(&mut self) {
        for valve in [&mut self.questions, &mut self.answers] {
            valve.is_closed = false;
            valve.then = None;
        }
    }

    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.open_valves();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.cut();
        // It waits for a program.
        let _ = UnixStream::connect(&self.socket);
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !thread::panicking()
        {
            panic!("the thread of the relay panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LONG;

    /// A server that says back what it hears.
    fn echo(folder: &TempDir) -> PathBuf {
        let socket = folder.path().join("echo");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        socket
    }

    fn ask(stream: &mut UnixStream, word: &[u8; 3]) {
        stream.write_all(word).unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, word);
    }

    #[test]
    fn what_is_held_passes_later_or_never() {
        let folder = TempDir::new();
        let relay = Relay::to(&echo(&folder));
        let mut stream = UnixStream::connect(relay.folder().join("echo")).unwrap();
        ask(&mut stream, b"one");
        relay.hold(Flow::Answers);
        stream.write_all(b"two").unwrap();
        relay.wait_for_held(Flow::Answers, LONG);
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(stream.read(&mut [0; 3]).is_err());
        stream.set_read_timeout(None).unwrap();
        relay.release();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"two");

        relay.hold(Flow::Questions);
        stream.write_all(b"bad").unwrap();
        relay.wait_for_held(Flow::Questions, LONG);
        relay.cut();
        assert_eq!(stream.read(&mut answer).unwrap_or(0), 0);
        let mut stream = UnixStream::connect(relay.folder().join("echo")).unwrap();
        ask(&mut stream, b"new");
        let start = Instant::now();
        relay.delay(Duration::from_millis(20));
        ask(&mut stream, b"old");
        assert!(start.elapsed() >= Duration::from_millis(40));
        relay.delay(Duration::ZERO);

        relay.hold_after(Flow::Answers, 1);
        ask(&mut stream, b"let");
        stream.write_all(b"say").unwrap();
        relay.wait_for_held(Flow::Answers, LONG);
        relay.release();
        stream.read_exact(&mut answer).unwrap();
        relay.cut_after(Flow::Questions, 1);
        ask(&mut stream, b"yes");
        stream.write_all(b"no!").unwrap();
        assert_eq!(stream.read(&mut answer).unwrap_or(0), 0);
    }
}
