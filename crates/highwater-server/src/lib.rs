//! Highwater's sync server: an append-only log of every database over object storage, and HTTP.
//!
//! | task | use |
//! |---|---|
//! | run a server | [`Server::open`], then [`Server::serve`] |
//! | put the server into another axum program | [`Server::router`] |
//! | a server within a test, an example or a demonstration | [`Embedded`] |
//! | check a store, file by file | [`verify_store`] |
//!
//! The protocol stands in `docs/PROTOCOL.md`, the layout of the store in `docs/FORMATS.md`. Not here:
//! anything about SQLite beyond pages, and anything about clients.
//!
//! ```
//! use highwater_server::{Config, Embedded, StoreUrl};
//!
//! # fn main() -> Result<(), highwater_server::Error> {
//! let config = Config { store: StoreUrl::Memory, ..Config::default() };
//! let server = Embedded::start(config, ([127, 0, 0, 1], 0).into())?;
//! println!("databases stand below {}", server.url());
//! server.stop()?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod buffers;
mod clock;
mod collect;
mod config;
mod embedded;
mod error;
mod gate;
mod http_api;
mod inventory;
mod libsql;
mod lifecycle;
mod log;
mod metrics;
mod net;
mod paths;
mod push;
mod ready;
mod registry;
mod server;
mod settle;
mod share;
mod staging;
mod store;
mod tls;
mod verify;

pub use clock::Clock;
pub use config::{
    Config, DeletionPolicy, InvalidStoreUrl, LibsqlConfig, Limits, MergeConfig, SnapshotPolicy, StoreUrl,
    TlsFiles,
};
pub use embedded::Embedded;
pub use error::{Error, Result};
pub use gate::AuthConfig;
pub use server::Server;
pub use store::Store;
pub use verify::{DatabaseReport, Fault, Progress, StoreReport, list_databases, verify_store};
