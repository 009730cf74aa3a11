//! Random histories: several devices that write, sync, lose answers and are restored, and what must hold when all is
//! quiet. Everything is real: SQLite files, the client, the server, sockets between them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | a history from a seed, and parts of it |
//! | [`schema`], `writer`, `definitions` | every kind of table, and random statements on them |
//! | `device`, `sdk`, [`relay`], [`lab`] | the application with its client or libSQL's, the network, the server |
//! | [`child`] | processes that are killed: a client's sync, a server |
//! | [`contents`], [`oracle`] | the rows, and whether a merge of them followed the rules |
//! | [`history`], `judge`, `rest` | the steps, what a sync came to, and the end |
//! | [`shrink`] | what of a history makes it fail |

pub mod child;
pub mod contents;
mod definitions;
mod device;
mod dice;
mod doubt;
pub mod history;
mod judge;
pub mod lab;
pub mod oracle;
pub mod plan;
pub mod relay;
mod rest;
pub mod schema;
mod sdk;
pub mod shrink;
mod writer;

pub use dice::Dice;
