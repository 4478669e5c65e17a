//! The whole crate, as Prometheus, systemd and a person see it.

#![expect(
    clippy::disallowed_macros,
    reason = "the harness of the tests catches what they print"
)]

mod contrib;
mod health;
pub(crate) mod made_up;
mod page;
mod scrape;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use tokio::{net::TcpListener, task};

use crate::Monitor;

/// Serves the router on a port of its own.
async fn serve(monitor: &Arc<Monitor>) -> (SocketAddr, task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = monitor.router();
    let serving = task::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

/// The whole answer to a request, head and body.
async fn request(address: SocketAddr, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}
