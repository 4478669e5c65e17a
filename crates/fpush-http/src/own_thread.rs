//! A thread for what strangers ask of a listener: any number of them may ask, and the thread that pushes has no time for
//! their handshakes, requests and pages.

use std::{future::Future, io, thread};

use tokio::{
    runtime::{Builder, EnterGuard, Handle},
    sync::oneshot,
    task::JoinSet,
};

/// The thread. It ends when this is dropped.
pub(crate) struct OwnThread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl OwnThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system has no thread or no file descriptor left.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || drop(runtime.block_on(ended)))?;
        Ok(Self {
            runtime: handle,
            _end: end,
        })
    }

    /// Makes what needs a runtime belong to this thread, as long as the guard lives.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Has work done on the thread, and waits for it. Dropped, it ends the work.
    pub(crate) async fn run(self, work: impl Future<Output = ()> + Send + 'static) {
        let mut task = JoinSet::new();
        task.spawn_on(work, &self.runtime);
        task.join_next().await;
    }
}
