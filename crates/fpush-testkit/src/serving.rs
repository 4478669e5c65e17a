//! What serves the connections of a stand-in.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;

/// A listener on `127.0.0.1`, and a thread with a runtime of its own that serves its connections. On drop the thread ends, and all
/// connections with it.
pub(crate) struct Serving {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// `name` is that of the thread.
    pub(crate) fn start<S: Future<Output = ()>>(
        name: &str,
        serve: impl FnOnce(TcpListener) -> S + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let serving = move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(serving)
            .unwrap();
        let address = address.recv().expect("the server thread binds its port");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and returns when it has ended.
    ///
    /// # Panics
    ///
    /// The thread has panicked: what a test asserts there counts.
    pub(crate) fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() && !thread::panicking() {
                panic!("the thread of the {name} panicked");
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}
