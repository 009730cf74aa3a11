//! Random histories: several devices that write, sync, lose answers and are restored, and what must hold when all is
//! quiet. Everything is real: SQLite files, the client, the server, sockets between them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | a history from a seed, and parts of it |
//! | [`schema`], `writer`, `definitions` | every kind of table, and random statements on them |
//! | `device`, [`relay`], [`lab`] | the application and client, the network, the server |
//! | [`contents`], [`oracle`] | the rows, and whether a merge of them followed the rules |
//! | [`history`], `rest` | the steps, and the end |
//! | [`shrink`] | what of a history makes it fail |
//!
//! What it does not do: processes that are killed (the tests of `highwater-cli` do), and clients of libSQL
//! (`interop`).

pub mod contents;
mod definitions;
mod device;
mod dice;
pub mod history;
pub mod lab;
pub mod oracle;
pub mod plan;
pub mod relay;
mod rest;
pub mod schema;
pub mod shrink;
mod writer;

pub use dice::Dice;
