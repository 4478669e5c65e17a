//! A stand-in for an HTTP proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

use crate::serving::Serving;

/// What a proxy does with CONNECT.
#[derive(Debug, Clone)]
pub enum ProxyAnswer {
    /// Connects.
    Tunnel,
    /// Connects to this address, whatever it is asked for.
    TunnelTo(SocketAddr),
    /// Says this, and closes.
    Say(String),
    /// Says nothing.
    Silence,
}

/// A proxy on `127.0.0.1` that connects to wherever it is asked to, unless told otherwise. It stops on drop.
pub struct FakeProxy {
    shared: Arc<Shared>,
    serving: Serving,
}

struct Shared {
    answer: Mutex<ProxyAnswer>,
    asked: Mutex<Vec<String>>,
}

impl FakeProxy {
    /// Starts one.
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(ProxyAnswer::Tunnel),
            asked: Mutex::new(Vec::new()),
        });
        let for_all = Arc::clone(&shared);
        let serving = Serving::start("proxy", async move |listener| {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, Arc::clone(&for_all)));
            }
        });
        Self { shared, serving }
    }

    /// What `HTTPS_PROXY` has to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.serving.address())
    }

    /// The same with a user and a password.
    pub fn url_with(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.serving.address())
    }

    /// What is done with requests from now on.
    pub fn answer_with(&self, answer: ProxyAnswer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// The heads of all requests until now.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    shared.asked.lock().unwrap().push(head);
    let answer = shared.answer.lock().unwrap().clone();
    // Errors mean that one of both is gone.
    match answer {
        ProxyAnswer::Tunnel | ProxyAnswer::TunnelTo(_) => {
            let connecting = match answer {
                ProxyAnswer::TunnelTo(address) => TcpStream::connect(address).await,
                _ => TcpStream::connect(&target).await,
            };
            let Ok(mut server) = connecting else {
                let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
                return;
            };
            let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
            // As every proxy does it: what comes in small pieces does not wait for the answer to the last one.
            let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
            if client.write_all(established).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        ProxyAnswer::Say(text) => {
            let _ = client.write_all(text.as_bytes()).await;
            let _ = client.shutdown().await;
        }
        ProxyAnswer::Silence => {
            let _ = client.read_u8().await;
        }
    }
}
