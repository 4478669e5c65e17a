//! A web site of a few files, as a browser on this machine sees it.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Serves files at `http://127.0.0.1:PORT/`, one request after the other, and answers forms as it is told. It stops on drop.
pub struct Site {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What answers a form that is sent to a path.
pub type OnForm = Box<dyn FnMut(&str, &str) -> String + Send>;

impl Site {
    /// Binds a port for a site, so that its files may say it.
    pub fn bind() -> TcpListener {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    /// Serves these files, by their names, and answers each form by path and body.
    pub fn serve(listener: TcpListener, files: HashMap<String, Vec<u8>>, mut on_form: OnForm) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A browser that has gone needs no answer.
                if let Ok(connection) = connection {
                    let _ = answer(connection, &files, &mut on_form);
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Its address, with a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for the next one.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(
    connection: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    on_form: &mut OnForm,
) -> std::io::Result<()> {
    // Browsers connect ahead of their requests.
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default().trim_start_matches('/'),
    );
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let (status, kind, body) = if method == "POST" {
        let mut form = vec![0; length];
        reader.read_exact(&mut form)?;
        let said = on_form(path, &String::from_utf8_lossy(&form));
        ("200 OK", "text/plain", said.into_bytes())
    } else {
        let name = if path.is_empty() { "index.html" } else { path };
        match files.get(name) {
            Some(content) => ("200 OK", kind_of(name), content.clone()),
            None => ("404 Not Found", "text/plain", Vec::new()),
        }
    };
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    connection.write_all(&body)
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        _ => "text/plain",
    }
}

/// A connection over which nothing is asked for so long is closed.
const PATIENCE: Duration = Duration::from_millis(300);
