//! A client of the HTTP API for devices, as apps that register without XMPP have one.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Daemon, LONG};

/// What the HTTP API answers.
#[derive(Debug)]
pub struct Http {
    /// The status code.
    pub status: u16,
    /// Everything before the body, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Where the HTTP API of a daemon is, which says so in its log; the last such line counts. Panics when `timeout` is over.
#[track_caller]
pub fn http_address(daemon: &Daemon, timeout: Duration) -> SocketAddr {
    const OPEN: &str = "the HTTP API is open";
    daemon.wait_for_log(OPEN, timeout);
    let log = daemon.log();
    let line = log.lines().rfind(|line| line.contains(OPEN)).unwrap();
    let (_, address) = line.split_once("listen=").unwrap();
    address.split(' ').next().unwrap().parse().unwrap()
}

/// Sends `METHOD PATH` and a form, or JSON if it begins as that does, and reads the answer to its end.
#[track_caller]
pub fn http(address: SocketAddr, request: &str, body: &str) -> Http {
    try_http(address, request, body).unwrap()
}

/// The same with a server that may end meanwhile.
pub fn try_http(address: SocketAddr, request: &str, body: &str) -> io::Result<Http> {
    let kind = if body.starts_with('{') {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: {kind}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Http {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}
