//! Ports on loopback that no other test has.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::net::{Shutdown, shutdown};

/// A port on 127.0.0.1 for TCP. While this lives no other test gets it, whether somebody listens there or not: a daemon whose
/// server is away for a moment finds nobody there, and not the server of another test.
pub struct OwnPort {
    number: u16,
    // The port of the same number for UDP, by which all test programs on the machine know that it is taken.
    _mark: UdpSocket,
}

impl OwnPort {
    /// Takes one where nobody listens, below the range that the kernel takes ports for clients from. It is not one that this
    /// process had lately.
    pub fn take() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let first = std::process::id().wrapping_mul(97);
        (0..PORTS)
            .find_map(|_| Self::mark(first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))))
            .ok_or_else(|| io::Error::other("no free port on 127.0.0.1"))
    }

    fn mark(n: u32) -> Option<Self> {
        let number = u16::try_from(FIRST + n % PORTS).ok()?;
        let mark = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        // Asked by a connection: a listener would be there for longer, as `stop_listening` says.
        (!is_open(number)).then_some(Self { number, _mark: mark })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Listens there.
    pub fn listen(&self) -> io::Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Whether somebody listens at a port on 127.0.0.1.
pub(crate) fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Ends the listening at once. To drop the listener does not, if another thread is starting a program: that has a copy of it
/// for a moment, so that clients are still connected and the port is still in use.
pub fn stop_listening(listener: &TcpListener) -> io::Result<()> {
    Ok(shutdown(listener, Shutdown::Read)?)
}

/// The number of an [`OwnPort`] that stays this process's.
pub fn free_port() -> io::Result<u16> {
    static KEPT: Mutex<Vec<OwnPort>> = Mutex::new(Vec::new());
    let port = OwnPort::take()?;
    let number = port.number();
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    Ok(number)
}

const FIRST: u32 = 15_000;

const PORTS: u32 = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let mut ports = (0..50).map(|_| free_port().unwrap()).collect::<Vec<_>>();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }

    /// Two calls of `mark` share only the kernel, as two processes do.
    #[test]
    fn a_port_without_a_listener_is_still_its_owners() {
        let own = OwnPort::take().unwrap();
        let n = u32::from(own.number()) - FIRST;
        assert!(OwnPort::mark(n).is_none());
        drop(own.listen().unwrap());
        assert!(OwnPort::mark(n).is_none());
    }

    /// As one that a starting program has.
    #[test]
    fn a_copy_of_a_listener_keeps_nothing_open() {
        let own = OwnPort::take().unwrap();
        let listener = own.listen().unwrap();
        let _copy = listener.try_clone().unwrap();
        stop_listening(&listener).unwrap();
        drop(listener);
        assert!(!is_open(own.number()));
        own.listen().unwrap();
    }
}
