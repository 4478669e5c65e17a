//! The floor: nothing but hyper's HTTP/2 connection over TLS, with the requests that fpush sends.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::paced::Pace;
use super::sample::{self, Sample};
use super::template::write_number;

/// What the client has to be told, as a file.
pub(super) fn config(url: &str, ca: &Path, sample: &Sample) -> Value {
    json!({ "url": url, "ca": ca, "sample": sample.json() })
}

/// Connects and says so; then runs for every line `IN_FLIGHT MILLISECONDS` on standard input, and answers each with
/// `REQUESTS MICROSECONDS`; or for a line `paced PER_SECOND MILLISECONDS`, and answers with the nanoseconds of each request's way.
pub(crate) fn floor(file: &Path) -> Result<()> {
    let config = serde_json::from_slice::<Value>(&fs::read(file)?)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let plan = Rc::new(Plan::read(&config)?);
    let sender = local.block_on(&runtime, plan.connect(&config))?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(line) = line.strip_prefix(PACED) {
            let (per_second, millis) = line.split_once(' ').context("expected two numbers")?;
            let time = Duration::from_millis(millis.parse()?);
            let pace = Pace::poisson(per_second.parse()?);
            let times = local.block_on(&runtime, paced(&plan, &sender, pace, time))?;
            let times: Vec<_> = times.iter().map(|time| time.as_nanos().to_string()).collect();
            println!("{}", times.join(" "));
            io::stdout().flush()?;
            continue;
        }
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [in_flight, millis] = numbers[..] else {
            anyhow::bail!("expected two numbers, not {line:?}");
        };
        let time = Duration::from_millis(millis);
        let start = Instant::now();
        let requests = local.block_on(&runtime, run(&plan, &sender, in_flight, time))?;
        println!("{requests} {}", start.elapsed().as_micros());
        io::stdout().flush()?;
    }
    Ok(())
}

async fn run(
    plan: &Rc<Plan>,
    sender: &SendRequest<Full<Bytes>>,
    in_flight: u64,
    time: Duration,
) -> Result<u64> {
    let end = Instant::now() + time;
    let workers = (0..in_flight).map(|worker| {
        let (plan, mut sender) = (Rc::clone(plan), sender.clone());
        tokio::task::spawn_local(async move {
            let mut requests = 0;
            while Instant::now() < end {
                sender.ready().await?;
                let response = sender
                    .send_request(plan.request(worker << 32 | requests)?)
                    .await?;
                ensure!(
                    response.status() == 200,
                    "the stand-in answers {}",
                    response.status()
                );
                response.into_body().collect().await?;
                requests += 1;
            }
            Ok(requests)
        })
    });
    let mut requests = 0;
    for worker in workers.collect::<Vec<_>>() {
        requests += worker.await??;
    }
    Ok(requests)
}

/// Sends requests when they are due. As in fpush, what is to be sent comes from outside; the time begins there.
async fn paced(
    plan: &Rc<Plan>,
    sender: &SendRequest<Full<Bytes>>,
    pace: Pace,
    time: Duration,
) -> Result<Vec<Duration>> {
    let (due, mut wanted) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let start = Instant::now();
        for (number, at) in (0_u64..).zip(pace.departures(time)) {
            thread::sleep(at.saturating_sub(start.elapsed()));
            if due.send((number, Instant::now())).is_err() {
                break;
            }
        }
    });
    let mut requests = Vec::new();
    while let Some((number, start)) = wanted.recv().await {
        let (plan, mut sender) = (Rc::clone(plan), sender.clone());
        requests.push(tokio::task::spawn_local(async move {
            sender.ready().await?;
            let response = sender.send_request(plan.request(1 << 63 | number)?).await?;
            response.into_body().collect().await?;
            anyhow::Ok(start.elapsed())
        }));
    }
    let mut times = Vec::with_capacity(requests.len());
    for request in requests {
        times.push(request.await??);
    }
    Ok(times)
}

/// The requests.
struct Plan {
    authority: String,
    uri: Numbered,
    headers: HeaderMap,
    body: Numbered,
}

/// Bytes that hold the number of a request, or none.
struct Numbered {
    bytes: Bytes,
    number: Option<usize>,
}

impl Numbered {
    fn new(text: String) -> Self {
        let mut digits = [0; 16];
        write_number(sample::NUMBER, &mut digits);
        Self {
            number: memchr::memmem::find(text.as_bytes(), &digits),
            bytes: text.into(),
        }
    }

    fn with(&self, number: u64) -> Bytes {
        let Some(position) = self.number else {
            return self.bytes.clone();
        };
        let mut bytes = self.bytes.to_vec();
        write_number(number, &mut bytes[position..]);
        bytes.into()
    }
}

impl Plan {
    fn read(config: &Value) -> Result<Self> {
        let (url, sample) = (text(&config["url"])?, &config["sample"]);
        let mut headers = HeaderMap::new();
        for header in sample["headers"].as_array().context("there are no headers")? {
            let mut value = HeaderValue::from_str(text(&header[1])?)?;
            value.set_sensitive(header[2] == true);
            headers.insert(HeaderName::from_bytes(text(&header[0])?.as_bytes())?, value);
        }
        let plan = Self {
            authority: url.strip_prefix("https://").context("no URL")?.to_owned(),
            uri: Numbered::new(format!("{url}{}", text(&sample["path"])?)),
            headers,
            body: Numbered::new(text(&sample["body"])?.to_owned()),
        };
        ensure!(
            plan.uri.number.is_some() || plan.body.number.is_some(),
            "the token is nowhere in the sample"
        );
        Ok(plan)
    }

    /// The request with this number: with a token and an id of its own, as every push has.
    fn request(&self, number: u64) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(self.body.with(number)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_maybe_shared(self.uri.with(number))?;
        let mut headers = self.headers.clone();
        if let Some(id) = headers.get_mut("apns-id") {
            let text = format!(
                "{:08x}-0000-4000-8000-{:012x}",
                number >> 32,
                number & 0xffff_ffff
            );
            let sensitive = id.is_sensitive();
            *id = HeaderValue::from_maybe_shared(Bytes::from(text))?;
            id.set_sensitive(sensitive);
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn connect(&self, config: &Value) -> Result<SendRequest<Full<Bytes>>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(text(&config["ca"])?)?)?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(&self.authority).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// The first word of a line that wants requests at a pace.
pub(super) const PACED: &str = "paced ";

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("a text is missing in the file")
}
