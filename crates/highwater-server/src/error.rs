//! What can go wrong with a server and its store, one variant for each thing to act on.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;

use highwater_ltx::TxId;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not start, or a store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store's folder cannot be used.
    #[error("the store {store} cannot be opened; check that the folder can be made and written to")]
    OpenStore {
        /// The store.
        store: String,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The store failed to do something. What was asked for may or may not have happened.
    #[error("{doing} {object} failed; see the cause, then try again")]
    Store {
        /// What was being done, as the beginning of a sentence.
        doing: &'static str,
        /// The object in the store.
        object: String,
        /// The cause.
        source: object_store::Error,
    },

    /// The store has no room left. Nothing was acknowledged.
    #[error("the store is full: writing {object} failed; make room, then try again")]
    Full {
        /// The object in the store.
        object: String,
        /// The cause.
        source: object_store::Error,
    },

    /// An object of the store is not what it should be. The database is not served until it is
    /// repaired.
    #[error("the object {object} of the store is damaged ({what}); restore it from a backup of the store")]
    Damaged {
        /// The object in the store.
        object: String,
        /// What is wrong with it, as a clause.
        what: String,
        /// The cause, if the object cannot be decoded at all.
        source: Option<highwater_ltx::Error>,
    },

    /// The log lacks a file in the middle.
    #[error(
        "the log of database {database} lacks transaction {missing}, and no snapshot covers it; restore the file from a backup of the store"
    )]
    Gap {
        /// The database's name.
        database: String,
        /// The transaction whose file is missing.
        missing: TxId,
    },

    /// The database was deleted.
    #[error(
        "the database {database} was deleted; an administrator can bring it back with `highwater admin undelete`"
    )]
    Deleted {
        /// The database's name.
        database: String,
    },

    /// The database was administered while a request used it.
    #[error("the database {database} was administered at this moment; try again")]
    Administered {
        /// The database's name.
        database: String,
    },

    /// The address cannot be listened on.
    #[error("cannot listen on {addr}; choose another address, or stop what uses it")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },

    /// The file of keys, or of revoked tokens, cannot be used.
    #[error(transparent)]
    Auth(#[from] highwater_auth::WatchedError),

    /// Other machines could reach the server, and it asks for no token.
    #[error(
        "refusing to listen on {addr}: other machines could reach it, and without keys anyone who can may read and write every database; give it a file of keys (`highwater keygen`), or listen on 127.0.0.1"
    )]
    Unprotected {
        /// The address.
        addr: SocketAddr,
    },

    /// The certificate or its key cannot be used.
    #[error(
        "{path} cannot be used for TLS: {what}; it must be PEM, and key and certificate must belong together"
    )]
    Tls {
        /// The file.
        path: String,
        /// What is wrong with it, as a clause.
        what: String,
    },

    /// All memory that is meant for bodies is in use.
    #[error("the server has no memory left for more bodies at the moment; try again in a second")]
    Overloaded,

    /// The operating system refused something that a server needs (a thread, a socket).
    #[error("the server cannot run; see the cause")]
    Run(#[source] io::Error),
}

impl Error {
    /// An error of the store while `doing` something to `object`.
    pub(crate) fn store(
        doing: &'static str,
        object: &object_store::path::Path,
        source: object_store::Error,
    ) -> Self {
        let object = object.to_string();
        if is_full(&source) { Self::Full { object, source } } else { Self::Store { doing, object, source } }
    }

    /// An object that contradicts itself or the log.
    pub(crate) fn damaged(object: &object_store::path::Path, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.to_string(), what: what.into(), source: None }
    }

    /// An object that is not a whole LTX file.
    pub(crate) fn undecodable(object: &object_store::path::Path, source: highwater_ltx::Error) -> Self {
        Self::Damaged {
            object: object.to_string(),
            what: "it is not a whole LTX file".to_owned(),
            source: Some(source),
        }
    }
}

/// The error and all its causes, as one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
