//! What the tests that kill processes share: the real command as client and as server, an application
//! with a model of its rows, and the proof that file, server and model are the same in the end.

pub mod app;
pub mod process;
pub mod proof;
pub mod random;
