//! The entry points, each a function of any bytes.

pub mod files;
pub mod http;
pub mod ltx;
pub mod merge;
pub mod rows;
pub mod words;
