//! The server's certificate: read from files, and again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::HttpError;

/// How old what is known of the files may be.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    known: Mutex<Loaded>,
}

struct Loaded {
    looked: Instant,
    looking: bool,
    changed: Option<SystemTime>,
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// Reads the files.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, HttpError> {
        let known =
            Loaded { looked: Instant::now(), looking: false, changed: changed(cert, key), acceptor: read(cert, key)? };
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), known: Mutex::new(known) })
    }

    /// What accepts a connection now. Whether the files have changed is looked at behind its back: a disk that does not answer
    /// must not hold up connections.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut known = self.known();
        if known.looked.elapsed() >= LOOK_EVERY && !known.looking {
            known.looking = true;
            let own = Arc::clone(self);
            tokio::task::spawn_blocking(move || own.look());
        }
        known.acceptor.clone()
    }

    fn look(&self) {
        let before = self.known().changed;
        let now = changed(&self.cert, &self.key);
        let read = (now != before).then(|| read(&self.cert, &self.key));
        let mut known = self.known();
        (known.looked, known.looking) = (Instant::now(), false);
        match read {
            None => {}
            Some(Ok(acceptor)) => (known.acceptor, known.changed) = (acceptor, now),
            // One of the two may not be replaced yet.
            Some(Err(error)) => log::warn!("the certificate stays as it was: {}", crate::exit::chain(&error)),
        }
    }

    fn known(&self) -> MutexGuard<'_, Loaded> {
        // Each assignment leaves it whole.
        self.known.lock()
    }
}

fn changed(cert: &Path, key: &Path) -> Option<SystemTime> {
    let of = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    of(cert).max(of(key))
}

fn read(cert: &Path, key: &Path) -> Result<TlsAcceptor, HttpError> {
    let wrong = |why: &dyn std::fmt::Display| HttpError::Tls {
        cert: cert.to_owned(),
        key: key.to_owned(),
        why: why.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&format!("{}: {error}", cert.display())))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&format!("{}: {error}", key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
