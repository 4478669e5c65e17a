//! A way through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6). The tunnel of hyper-util forgets with which status a
//! proxy refuses, which is all that its operator needs to know.

use http::{HeaderValue, Uri, uri::Scheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::obstacle::Obstacle;

/// Has a proxy connect to this destination.
pub(crate) async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    destination: &Uri,
    credentials: Option<&HeaderValue>,
) -> Result<S, Obstacle> {
    let broken = |_| Obstacle::ProxyTalksOtherwise;
    let host = destination.host().unwrap_or_default();
    let plain = destination.scheme() == Some(&Scheme::HTTP);
    let port = destination.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(credentials) = credentials {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(broken)?;

    let (mut head, mut length) = ([0; LONGEST_HEAD], 0);
    loop {
        let room = head.get_mut(length..).unwrap_or_default();
        let read = stream.read(room).await.map_err(broken)?;
        length += read;
        let head = head.get(..length).unwrap_or_default();
        match status(head) {
            // The body that explains a refusal is for persons with a browser.
            Some(status @ (100..200 | 300..)) => return Err(Obstacle::ProxyRefuses(status)),
            // In a tunnel the client speaks first: nothing comes behind the head.
            Some(_) if head.ends_with(b"\r\n\r\n") => return Ok(stream),
            Some(_) | None if read == 0 => return Err(Obstacle::ProxyTalksOtherwise),
            Some(_) | None => {}
        }
    }
}

/// The status of an answer, as soon as its first line is there.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let [_, b' ', digits @ ..] = line.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    if line.len() == head.len() {
        return None;
    }
    let digits = str::from_utf8(digits.get(..3)?).ok()?;
    digits.parse().ok().filter(|status| *status >= 100)
}

const LONGEST_HEAD: usize = 8 * 1_024;

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What becomes of a proxy's answer, and what it was asked.
    async fn answered(answer: &[u8]) -> (Result<(), Obstacle>, String) {
        let (ours, mut theirs) = duplex(64 * 1_024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let auth = HeaderValue::from_static("Basic dTpw");
        let uri = Uri::from_static("https://api.push.apple.com");
        let result = tunnel(ours, &uri, Some(&auth)).await.map(drop);
        let mut request = String::new();
        theirs.read_to_string(&mut request).await.unwrap();
        (result, request)
    }

    #[tokio::test]
    async fn a_proxy_that_lets_us_through() {
        let (result, request) = answered(b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n").await;
        assert_eq!(result, Ok(()));
        assert_eq!(
            request,
            "CONNECT api.push.apple.com:443 HTTP/1.1\r\nHost: api.push.apple.com:443\r\n\
             Proxy-Authorization: Basic dTpw\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn the_port_of_the_scheme_is_meant_where_none_is_named() {
        for (uri, host) in [
            ("https://a.example/x", "a.example:443"),
            ("http://a.example/x", "a.example:80"),
        ] {
            let (ours, mut theirs) = duplex(1_024);
            theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            drop(tunnel(ours, &uri.parse().unwrap(), None).await.unwrap());
            let mut request = String::new();
            theirs.read_to_string(&mut request).await.unwrap();
            assert!(
                request.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_status() {
        for (answer, status) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n<html>", 403),
            ("HTTP/1.1 503 ü\r\n", 503),
            ("HTTP/1.1 407\nProxy-Authenticate: Basic\r\n\r\n", 407),
            ("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", 302),
        ] {
            assert_eq!(
                answered(answer.as_bytes()).await.0,
                Err(Obstacle::ProxyRefuses(status))
            );
        }
    }

    #[tokio::test]
    async fn what_is_not_an_answer_of_http_is_called_so() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x".repeat(2 * LONGEST_HEAD));
        for answer in [
            "",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r\n\r\nmore",
            "HTTP/1.1 +99 OK\r\n\r\n",
            "HTTP/1.1 9\r\n\r\n",
            &endless,
        ] {
            assert_eq!(
                answered(answer.as_bytes()).await.0,
                Err(Obstacle::ProxyTalksOtherwise),
                "{answer:.40}"
            );
        }
    }
}
