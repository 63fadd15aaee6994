//! The agent's HTTP server: metrics and health for everybody, processes, reports and profiles for those with the token.
//!
//! Everything a client decides is limited: connections, in all and of one address, the size of a request, the time it may
//! take. Deliberately absent: anything that changes something; only GET and HEAD are answered.

mod auth;
mod events;
mod limit;
mod listing;
mod looks;
mod numbers;
mod page;
mod routes;
#[cfg(test)]
mod tests;
mod tls;

pub use listing::{History, Listing};

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use crate::config::settings::Switch;
use crate::export::metrics::Format;
use crate::node::Node;

pub use numbers::HttpNumbers;

/// Connections at once, in all and of one address: a few pods that take all of theirs leave room for the others.
const MAX_CONNECTIONS: usize = 256;
const MAX_PER_ADDRESS: usize = 16;

/// How long a client may take to say what it wants, TLS included.
const SAY_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may take nothing of an answer.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may last, a slow reader of a large profile included.
const LAST_AT_MOST: Duration = Duration::from_secs(120);

/// Bytes of the head of a request.
const MAX_HEAD: usize = 16 << 10;

/// Header fields of a request.
const MAX_HEADERS: usize = 64;

/// How the server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Certificate chain and private key, in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether there is more than metrics and health.
    pub api: Switch,
    /// The file that what is seen is recorded in.
    pub recording: Option<PathBuf>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error("cannot serve on {address}: choose another with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("{setting}: {} cannot be read", path.display())]
    Read {
        /// Setting that names it.
        setting: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no token in the file.
    #[error("http.token_file: {} holds no token of at least {} visible characters", path.display(), auth::MIN_TOKEN)]
    Token {
        /// Which.
        path: PathBuf,
    },
    /// The certificate or key is no such thing, or they do not belong together.
    #[error("http.tls_cert, http.tls_key: {} with {} cannot be used: {why}", cert.display(), key.display())]
    Tls {
        /// Certificate.
        cert: PathBuf,
        /// Key.
        key: PathBuf,
        /// Why.
        why: String,
    },
}

/// What `/metrics` answers.
pub type Metrics = dyn Fn(&HttpNumbers, Format) -> Vec<u8> + Send + Sync;

/// A running server. It ends with the runtime it was started on, or when it is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    tls: bool,
    _stop: watch::Sender<()>,
}

impl Running {
    /// Where it serves.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// Begins to serve on `listen`.
pub async fn serve(
    listen: SocketAddr,
    config: &HttpConfig,
    node: Arc<Node>,
    metrics: Arc<Metrics>,
) -> Result<Running, HttpError> {
    let token = config.token_file.as_deref().map(auth::Token::open).transpose()?;
    let tls = config.tls.as_ref().map(|(cert, key)| tls::Certificate::open(cert, key)).transpose()?;
    let listener = TcpListener::bind(listen).await.map_err(|source| HttpError::Listen { address: listen, source })?;
    let address = listener.local_addr().map_err(|source| HttpError::Listen { address: listen, source })?;
    let api = match config.api {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => token.is_some() || address.ip().is_loopback(),
    };
    let numbers = Arc::new(HttpNumbers::default());
    let (stop, stopped) = watch::channel(());
    let running = Running { address, tls: tls.is_some(), _stop: stop };
    let router =
        Arc::new(routes::Router::new(api, token, node, metrics, Arc::clone(&numbers), config.recording.clone()));
    tokio::spawn(accept(listener, tls.map(Arc::new), router, numbers, stopped));
    Ok(running)
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<tls::Certificate>>,
    router: Arc<routes::Router>,
    numbers: Arc<HttpNumbers>,
    mut stopped: watch::Receiver<()>,
) {
    let places = limit::Permits::new(MAX_CONNECTIONS, MAX_PER_ADDRESS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The sender sends nothing: it goes.
            _ = stopped.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("no connection could be accepted: {error}");
                // Out of descriptors, for one: trying again at once would only burn time.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = places.take(peer.ip()) else {
            numbers.refused();
            continue;
        };
        numbers.accepted();
        let (tls, router, numbers) = (tls.clone(), Arc::clone(&router), Arc::clone(&numbers));
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            tokio::select! {
                done = timeout(LAST_AT_MOST, converse(stream, tls, router)) => match done {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        log::debug!("{peer}: {error}");
                        numbers.broken();
                    }
                    Err(_) => numbers.broken(),
                },
                _ = stopped.changed() => {}
            }
            drop(place);
        });
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<Arc<tls::Certificate>>,
    router: Arc<routes::Router>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match tls {
        None => speak(stream, router).await,
        Some(certificate) => {
            let accepted = timeout(SAY_WITHIN, certificate.acceptor().accept(stream)).await??;
            speak(accepted, router).await
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    router: Arc<routes::Router>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = service_fn(move |request| {
        let router = Arc::clone(&router);
        async move { Ok::<_, std::convert::Infallible>(router.answer(&request).await) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(TAKE_WITHIN));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SAY_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await?;
    Ok(())
}
