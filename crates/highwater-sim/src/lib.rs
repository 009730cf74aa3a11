//! Several devices, servers and a store with faults in one process, under one seed.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | a run, from its seed |
//! | [`faults`] | everything that can go wrong: **a new fault is a line there** |
//! | [`workloads`] | what devices write and what must hold of it: **a new workload is a file there** |
//! | [`history`] | what must hold of any workload: **a new promise is a rule there**, or in [`run`] if it is about the end |
//! | [`world`] | time, the trace, the dice |
//! | [`bridge`], [`device`] | the real client on a real SQLite file, in lock-step with the world |
//! | [`network`], [`servers`], [`store`], [`nemesis`] | where faults take effect |
//! | [`run`], [`report`] | one run, and what many came to |
//!
//! # What is real
//! SQLite and its files (in memory where the system has such a folder), the whole client above its transport, the whole server
//! below its router: HTTP bodies as streams, tokens, merging, snapshots, the log. What stands in is the network, the store's
//! disk, and the clocks.
//!
//! # Why a seed is enough
//! Tasks run on one thread, in tokio's time, which moves only when everybody waits; nobody wakes up in the same millisecond
//! as another; clients block threads of their own, but compute only while the world waits for them; and dice
//! are thrown for a purpose, so that it does not matter who throws first. What is left of real time cannot be seen
//! in the trace, whose hash two runs of a seed share: a test says so.
//!
//! # Why not turmoil
//! It simulates TCP for programs that are asynchronous down to their sockets. The client is not: SQLite blocks, so a sync is a
//! thread that waits for bodies. Its way into such a world is the transport, above TCP, and there a request is one thing that
//! arrives or does not. What happens to bytes on real sockets is for other tests: a proxy that
//! breaks them, before real processes.
//!
//! # What it does not do
//! Lose what a client's or a server's disk was not asked to sync, kill clients, run libSQL's clients, or delete databases.

pub mod bridge;
pub mod device;
mod dice;
pub mod faults;
mod forge;
mod head;
pub mod history;
pub mod nemesis;
pub mod network;
pub mod plan;
pub mod report;
pub mod run;
pub mod servers;
pub mod store;
pub mod workloads;
pub mod world;

pub use dice::Dice;
