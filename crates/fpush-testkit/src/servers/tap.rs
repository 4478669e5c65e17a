//! A relay between fpush and the server's component port that notes every stanza on its way, byte for byte.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::client::attribute;
use crate::cutter::{Cutter, Piece};

/// The relay. Its threads end with the connections, or with the program.
pub struct Tap {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A stanza that went by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether the server sent it; otherwise fpush did.
    pub from_server: bool,
    /// Over which connection, in the order in which they came.
    pub connection: usize,
    /// The stanza as it was sent.
    pub xml: String,
    /// When its last byte went by.
    pub at: Instant,
}

impl Seen {
    /// An attribute of the stanza.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attribute(&self.xml, name)
    }
}

impl Tap {
    /// Relays to this port from a port of its own.
    pub fn start(server_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tap = Self {
            port,
            seen: Arc::clone(&seen),
        };
        thread::spawn(move || {
            for (connection, client) in listener.incoming().flatten().enumerate() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)) else {
                    continue;
                };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                let (up, down) = (Arc::clone(&seen), Arc::clone(&seen));
                thread::spawn(move || relay(client, server_too, (connection, false), &up));
                thread::spawn(move || relay(server, client_too, (connection, true), &down));
            }
        });
        Ok(tap)
    }

    /// Where fpush connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything until now, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen_after(0)
    }

    /// What went by after so many stanzas, in order.
    pub fn seen_after(&self, count: usize) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(count..).unwrap_or_default().to_vec()
    }

    /// The first publish for this node and the reply to it, as far as they went by already.
    pub fn exchange(&self, node: &str) -> (Option<Seen>, Option<Seen>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let publish = seen
            .iter()
            .find(|stanza| stanza.from_server && stanza.xml.contains(node));
        let id = publish.and_then(|publish| publish.attribute("id"));
        let reply = seen
            .iter()
            .find(|stanza| !stanza.from_server && id.is_some() && stanza.attribute("id") == id);
        (publish.cloned(), reply.cloned())
    }
}

fn relay(
    mut from: TcpStream,
    mut to: TcpStream,
    (connection, from_server): (usize, bool),
    seen: &Mutex<Vec<Seen>>,
) {
    let mut cutter = Cutter::default();
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        for piece in cutter.push(&bytes[..count]) {
            if let Piece::Stanza(xml) = piece {
                let stanza = Seen {
                    from_server,
                    connection,
                    xml,
                    at: Instant::now(),
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(stanza);
            }
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
