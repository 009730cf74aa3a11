//! Connections: accepting them, TLS, HTTP/1.1 and HTTP/2, and when they end.
//!
//! | what | for how long | then |
//! |---|---|---|
//! | TLS handshake | [`Limits::handshake_timeout`](crate::Limits) | closed |
//! | no request, or a head that does not end | `header_timeout` | closed |
//! | an answer of which nothing is taken | `write_timeout` | closed |
//! | a body or answer that crawls | below `slowest` bytes a second, after `idle_timeout` | closed |
//!
//! When there are too many connections, the ones that have been idle the longest make room. So a
//! client that opens thousands and says nothing does not keep others out.
//!
//! A connection that is closed loses nothing: what was accepted goes on, and the client finds out
//! with its next sync.

mod guests;
mod paced;
mod patient;
mod serve;
mod watch;

pub(crate) use serve::Host;
