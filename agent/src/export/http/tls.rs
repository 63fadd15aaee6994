//! The server's certificate: read from files, and again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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
    known: Mutex<Known>,
}

struct Known {
    looked: Instant,
    changed: Option<SystemTime>,
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// Reads the files.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, HttpError> {
        let known = Known { looked: Instant::now(), changed: changed(cert, key), acceptor: read(cert, key)? };
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), known: Mutex::new(known) })
    }

    /// What accepts a connection now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            let changed = changed(&self.cert, &self.key);
            if changed != known.changed {
                match read(&self.cert, &self.key) {
                    Ok(acceptor) => (known.acceptor, known.changed) = (acceptor, changed),
                    // One of the two may not be replaced yet.
                    Err(error) => log::warn!("the certificate stays as it was: {}", crate::exit::chain(&error)),
                }
            }
        }
        known.acceptor.clone()
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
