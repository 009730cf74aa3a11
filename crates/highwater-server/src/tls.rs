//! TLS: the certificate, and taking up a new one while the server runs.
//!
//! The files are read again every few seconds and compared; what is served changes only when both
//! files together make a usable pair. So a renewal may write them one after the other, and a
//! broken one is logged and changes nothing. Connections keep the certificate that they began with.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result, TlsFiles};

/// The contents of both files.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What connections are accepted with.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// What was read last, whether it could be used or not.
    seen: Mutex<Pair>,
}

impl Tls {
    /// Reads both files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self> {
        let pair = Pair { cert: read(&files.cert)?, key: read(&files.key)? };
        let config = config(files, &pair)?;
        Ok(Self { files: files.clone(), current: RwLock::new(config), seen: Mutex::new(pair) })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Looks for changes, for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.files.check_every).await;
            let tls = Arc::clone(&self);
            // Its failures are logged; a panic in there must not end the following.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    fn look(&self) {
        let (Ok(cert), Ok(key)) = (read(&self.files.cert), read(&self.files.key)) else {
            // Being replaced, most likely: the next look sees the new ones.
            return;
        };
        let pair = Pair { cert, key };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == pair {
            return;
        }
        match config(&self.files, &pair) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(cert = %self.files.cert.display(), "new connections get the new certificate");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate is not used; the one before stays in use");
            }
        }
        *seen = pair;
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::Tls { path: path.display().to_string(), what: error.to_string() })
}

fn config(files: &TlsFiles, pair: &Pair) -> Result<Arc<ServerConfig>> {
    let fault = |path: &Path, what: &dyn std::fmt::Display| Error::Tls {
        path: path.display().to_string(),
        what: what.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.cert)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| fault(&files.cert, &error))?;
    if chain.is_empty() {
        return Err(fault(&files.cert, &"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|_| fault(&files.key, &"there is no private key in it that can be read"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&files.cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| fault(&files.key, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl std::fmt::Debug for Tls {
    /// Without anything of the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}
