//! Noticing whether anything happens on a connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts what happens on one connection. No reading since a request began means that the connection brought not
/// even a PING.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    requests: AtomicU64,
    /// Whether more was sent than is read.
    overdrawn: AtomicBool,
}

impl Activity {
    pub(crate) fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn is_overdrawn(&self) -> bool {
        self.0.overdrawn.load(Ordering::Relaxed)
    }
}

/// A stream whose reads are counted, and may be limited.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    activity: Activity,
    allowance: Option<Allowance>,
}

/// How much may be read before the next request begins, so that nobody can keep us busy with what nobody asked for.
#[derive(Debug)]
struct Allowance {
    per_request: usize,
    left: usize,
    /// How many requests had begun when it was last full.
    requests: u64,
}

impl Allowance {
    /// Takes what was read off it; whether there was enough.
    fn spend(&mut self, read: usize, requests: u64) -> bool {
        if self.requests != requests {
            (self.left, self.requests) = (self.per_request, requests);
        }
        let left = self.left.checked_sub(read);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl<T> Watched<T> {
    /// Lets this many bytes be read for each request, or any number.
    pub(crate) fn new(inner: T, activity: Activity, per_request: Option<usize>) -> Self {
        let allowance = per_request.map(|per_request| Allowance {
            per_request,
            left: per_request,
            requests: activity.requests(),
        });
        Self {
            inner,
            activity,
            allowance,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) {
            this.activity.0.reads.fetch_add(1, Ordering::Relaxed);
            if let Some(allowance) = &mut this.allowance
                && !allowance.spend(buf.filled().len() - before, this.activity.requests())
            {
                this.activity.0.overdrawn.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::Error::other("it sends too much")));
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
