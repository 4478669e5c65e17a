//! A receiver whose every byte a test decides: HTTP/1.1 or HTTP/2 over TLS, or plain HTTP/1.1.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fpush_testkit::{ClientAuth, TestCa};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// A request as it came. Connections are numbered from 1, and so are the requests of each.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) request: usize,
    /// The request line, as HTTP/1.1 has it.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is done next with a request.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Writes bytes: of HTTP/1.1, or of an HTTP/2 body.
    Say(Vec<u8>),
    /// Writes them for ever.
    SayForEver(Vec<u8>),
    Wait(Duration),
    /// Says and reads nothing any more.
    Hang,
    Close,
    /// HTTP/2: the head of an answer with this status and these headers.
    Head(u16, Vec<(&'static str, String)>),
    /// HTTP/2: the end of the body.
    End,
    /// HTTP/2: `RST_STREAM`.
    Reset(Reason),
    /// HTTP/2: takes no further requests.
    GoAway,
}

type Script = Arc<dyn Fn(&Seen) -> Vec<Do> + Send + Sync>;

pub(crate) struct Receiver {
    scheme: &'static str,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// A receiver with TLS that offers these protocols.
    pub(crate) async fn tls(
        ca: &TestCa,
        alpn: &[&str],
        script: impl Fn(&Seen) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(ca.server_config(alpn, ClientAuth::Off));
        Self::start(Some(acceptor), Speaks::AsAgreed, Arc::new(script)).await
    }

    /// A receiver that speaks HTTP/1.1, whatever it has agreed on.
    pub(crate) async fn tls_of_http1(
        ca: &TestCa,
        alpn: &[&str],
        script: impl Fn(&Seen) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(ca.server_config(alpn, ClientAuth::Off));
        Self::start(Some(acceptor), Speaks::Http1, Arc::new(script)).await
    }

    pub(crate) async fn plain(script: impl Fn(&Seen) -> Vec<Do> + Send + Sync + 'static) -> Self {
        Self::start(None, Speaks::Http1, Arc::new(script)).await
    }

    async fn start(acceptor: Option<TlsAcceptor>, speaks: Speaks, script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let receiver = Self {
            scheme: if acceptor.is_some() { "https" } else { "http" },
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (Arc::clone(&receiver.seen), Arc::clone(&receiver.connections));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let connection = connections.fetch_add(1, Ordering::Relaxed) + 1;
                let serving = Serving {
                    connection,
                    speaks,
                    script: Arc::clone(&script),
                    seen: Arc::clone(&seen),
                };
                tokio::spawn(serving.serve(tcp, acceptor.clone()));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}/hook?x=%2b", self.scheme, self.address)
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    AsAgreed,
    Http1,
}

struct Serving {
    connection: usize,
    speaks: Speaks,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Serving {
    async fn serve(self, tcp: TcpStream, acceptor: Option<TlsAcceptor>) {
        tcp.set_nodelay(true).unwrap();
        let Some(acceptor) = acceptor else {
            return self.http1(tcp).await;
        };
        let Ok(tls) = acceptor.accept(tcp).await else {
            return;
        };
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") && self.speaks == Speaks::AsAgreed {
            self.http2(tls).await;
        } else {
            self.http1(tls).await;
        }
    }

    fn decide(&self, seen: Seen) -> Vec<Do> {
        let todo = (self.script)(&seen);
        self.seen.lock().unwrap().push(seen);
        todo
    }

    async fn http1(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        for request in 1.. {
            let Some((line, headers, body)) = read_request(&mut stream).await else {
                return;
            };
            let todo = self.decide(Seen {
                connection: self.connection,
                request,
                line,
                headers,
                body,
            });
            for act in todo {
                match act {
                    Do::Say(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Do::SayForEver(bytes) => while stream.write_all(&bytes).await.is_ok() {},
                    Do::Wait(time) => sleep(time).await,
                    Do::Hang => std::future::pending().await,
                    Do::Close => {
                        let _ = stream.shutdown().await;
                        return;
                    }
                    Do::Head(..) | Do::End | Do::Reset(_) | Do::GoAway => panic!("{act:?} is of HTTP/2"),
                }
            }
        }
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut http2 = h2::server::handshake(stream).await.unwrap();
        let this = Arc::new(self);
        let (leave, mut leaving) = mpsc::unbounded_channel();
        for request in 1.. {
            let accepted = loop {
                tokio::select! {
                    accepted = http2.accept() => break accepted,
                    Some(act) = leaving.recv() => match act {
                        Do::GoAway => http2.graceful_shutdown(),
                        Do::Hang => std::future::pending().await,
                        _ => {
                            // Lets it write what it has to write.
                            let _ = timeout(Duration::from_millis(20), http2.accept()).await;
                            return;
                        }
                    },
                }
            };
            let Some(Ok((head, respond))) = accepted else {
                return;
            };
            tokio::spawn(Arc::clone(&this).exchange(request, head, respond, leave.clone()));
        }
    }

    async fn exchange(
        self: Arc<Self>,
        request: usize,
        head: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        leave: mpsc::UnboundedSender<Do>,
    ) {
        let (head, mut body) = head.into_parts();
        let mut whole = Vec::new();
        while let Some(Ok(chunk)) = body.data().await {
            whole.extend_from_slice(&chunk);
        }
        let todo = self.decide(Seen {
            connection: self.connection,
            request,
            line: format!("{} {} HTTP/2", head.method, head.uri),
            headers: head.headers,
            body: whole.into(),
        });
        let mut body = None;
        for act in todo {
            match act {
                Do::Head(status, headers) => {
                    let mut response = Response::builder().status(status).body(()).unwrap();
                    for (name, value) in headers {
                        let value = HeaderValue::try_from(value).unwrap();
                        response.headers_mut().append(name, value);
                    }
                    body = Some(respond.send_response(response, false).unwrap());
                }
                Do::Say(bytes) => body.as_mut().unwrap().send_data(bytes.into(), false).unwrap(),
                Do::SayForEver(bytes) => {
                    let body = body.as_mut().unwrap();
                    while body.send_data(bytes.clone().into(), false).is_ok() {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                Do::End => body.as_mut().unwrap().send_data(Bytes::new(), true).unwrap(),
                Do::Wait(time) => sleep(time).await,
                Do::Reset(reason) => respond.send_reset(reason),
                Do::GoAway | Do::Close => leave.send(act).unwrap(),
                Do::Hang => {
                    leave.send(act).unwrap();
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// The line, the headers and the body of the next request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, HeaderMap, Bytes)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: HeaderMap = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse().unwrap(), value.parse().unwrap())
        })
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((line, headers, body.into()))
}
