//! What the server counts and measures, for Prometheus: the one place of names, labels and their
//! values.
//!
//! The registry belongs to one server, not to the process: several servers in one program do not
//! mix. Every label has a small, fixed set of values; names of databases, devices, tokens and
//! addresses never become one. `docs/OPERATIONS.md` lists everything, and a test compares.

mod labels;
mod process;

use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

pub(crate) use labels::{Did, Protocol, Route, StoreOp};

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label and its value.
type One = [(&'static str, &'static str); 1];
/// Counters by one label.
type Counters = Family<One, Counter>;

/// Upper bounds of latencies, in seconds: from a page in memory to a first copy over a slow line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies;

const LATENCIES: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

impl MetricConstructor<Histogram> for Latencies {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCIES)
    }
}

type Histograms = Family<One, Histogram, Latencies>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    protocol: &'static str,
    status: u16,
}

/// Everything that one server counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// When the server was started.
    pub(crate) began: Instant,
    #[cfg(test)]
    names: Vec<&'static str>,
    requests: Family<Answered, Counter>,
    latencies: Histograms,
    /// Requests that are being worked on or answered.
    pub(crate) in_flight: Gauge,
    received: Counters,
    sent: Counters,
    pushes: Counters,
    pulls: Counters,
    conflicts: Counters,
    merges: Counter,
    merge_conflicts: Counter,
    frames_received: Counters,
    frames_sent: Counters,
    refusals: Counters,
    auth_failures: Counters,
    rate_limited: Counters,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Connections that were accepted.
    pub(crate) accepted: Counter,
    /// Databases in memory.
    pub(crate) open: Gauge,
    /// Databases that were read into memory.
    pub(crate) opened: Counter,
    /// Deleted databases whose files were removed.
    pub(crate) collected: Counter,
    snapshots: Counters,
    /// Generations that began after the first one of a database.
    pub(crate) generations: Counter,
    /// Frames of libSQL clients that were stored without the end of their transaction.
    pub(crate) staged: Counter,
}

/// Takes metrics into a registry and notes their names.
struct Registering {
    registry: Registry,
    names: Vec<&'static str>,
}

impl Registering {
    fn add<M: Metric + Clone>(&mut self, name: &'static str, help: &str, metric: &M) -> M {
        self.names.push(name);
        self.registry.register(name, help, metric.clone());
        metric.clone()
    }

    fn make<M: Metric + Clone + Default>(&mut self, name: &'static str, help: &str) -> M {
        self.add(name, help, &M::default())
    }
}

impl Metrics {
    /// The metrics of a server on a store that measures itself.
    pub(crate) fn new(store: &StoreMetrics) -> Self {
        let mut r = Registering { registry: Registry::default(), names: Vec::new() };
        r.add("highwater_store_seconds", "Operations of the store, until they ended", &store.latencies);
        r.add("highwater_store_errors", "Operations of the store that failed", &store.errors);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.registry.register("highwater_build", "The version that runs", version);
        r.names.push("highwater_build");
        r.names.extend(process::NAMES);
        let began = Instant::now();
        r.registry.register_collector(Box::new(process::Process { began }));
        let histograms = Histograms::new_with_constructor(Latencies);
        Self {
            requests: r.make("highwater_requests", "Requests that were answered"),
            latencies: r.add(
                "highwater_request_seconds",
                "Requests, from their head until the last byte of the answer was handed on",
                &histograms,
            ),
            in_flight: r.make("highwater_requests_in_flight", "Requests that are being answered"),
            received: r.make("highwater_received_bytes", "Bytes of request bodies"),
            sent: r.make("highwater_sent_bytes", "Bytes of answers' bodies"),
            pushes: r.make("highwater_pushes", "Pushes that were accepted"),
            pulls: r.make("highwater_pulls", "Answers that brought a client pages"),
            conflicts: r
                .make("highwater_conflicts", "Pushes that were refused because they met another device's"),
            merges: r.make("highwater_merges", "Pushes that were merged with others"),
            merge_conflicts: r.make(
                "highwater_merge_conflicts",
                "Changes that a merge could not keep as they were, and recorded",
            ),
            frames_received: r.make("highwater_frames_received", "Frames in pushes"),
            frames_sent: r.make("highwater_frames_sent", "Frames in answers to pulls"),
            refusals: r.make("highwater_refusals", "Requests that were refused, by error code"),
            auth_failures: r.make("highwater_auth_failures", "Requests without the right token"),
            rate_limited: r.make("highwater_rate_limited", "Requests that exceeded a limit"),
            connections: r.make("highwater_connections_open", "Connections that are open"),
            accepted: r.make("highwater_connections", "Connections that were accepted"),
            open: r.make("highwater_databases_open", "Databases in memory"),
            opened: r.make("highwater_databases_opened", "Databases that were read into memory"),
            collected: r.make("highwater_databases_removed", "Deleted databases whose files were removed"),
            snapshots: r.make("highwater_snapshots", "Snapshots, by how they ended"),
            generations: r.make("highwater_generations_begun", "Generations that began"),
            staged: r.make("highwater_libsql_staged_frames", "Frames that were staged within a transaction"),
            registry: r.registry,
            began,
            #[cfg(test)]
            names: r.names,
        }
    }

    /// Everything as text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        // Writing into a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// The names of all metrics, without the endings that the text adds (`_total`, `_bucket` …).
    #[cfg(test)]
    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// A request ended.
    pub(crate) fn answered(&self, route: Route, status: u16, took: Duration, (received, sent): (u64, u64)) {
        let (route, protocol) = (route.as_str(), route.protocol().as_str());
        self.requests.get_or_create(&Answered { route, protocol, status }).inc();
        self.latencies.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
        let protocol = [("protocol", protocol)];
        if received > 0 {
            self.received.get_or_create(&protocol).inc_by(received);
        }
        if sent > 0 {
            self.sent.get_or_create(&protocol).inc_by(sent);
        }
    }

    /// What a request did to a database, and with how many frames of the client's and of ours.
    pub(crate) fn did(&self, protocol: Protocol, did: Did, (received, sent): (u64, u64)) {
        let protocol = [("protocol", protocol.as_str())];
        match did {
            Did::Pushed => drop(self.pushes.get_or_create(&protocol).inc()),
            Did::Pulled => drop(self.pulls.get_or_create(&protocol).inc()),
            Did::Merged => {
                self.pushes.get_or_create(&protocol).inc();
                self.pulls.get_or_create(&protocol).inc();
            }
            Did::Conflict => drop(self.conflicts.get_or_create(&protocol).inc()),
            Did::Staged | Did::UpToDate | Did::Created | Did::Deleted | Did::Undeleted => {}
        }
        if matches!(did, Did::Pushed | Did::Merged | Did::Staged) {
            self.frames_received.get_or_create(&protocol).inc_by(received);
        }
        if matches!(did, Did::Pulled | Did::Merged) {
            self.frames_sent.get_or_create(&protocol).inc_by(sent);
        }
        if did == Did::Staged {
            self.staged.inc_by(received);
        }
    }

    /// A push was merged, and so much of both sides could not be kept as it was.
    pub(crate) fn merged(&self, conflicts: u32) {
        self.merges.inc();
        self.merge_conflicts.inc_by(conflicts.into());
    }

    /// A request was refused with this code, as it stands on the wire.
    pub(crate) fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&[("code", code)]).inc();
    }

    /// A request came without the right token. `reason` is one of a fixed set of words.
    pub(crate) fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A request exceeded a limit. `limit` is one of a fixed set of words.
    pub(crate) fn limited(&self, limit: &'static str) {
        self.rate_limited.get_or_create(&[("limit", limit)]).inc();
    }

    /// A snapshot was written, or failed.
    pub(crate) fn snapshot(&self, written: bool) {
        let result = if written { "written" } else { "failed" };
        self.snapshots.get_or_create(&[("result", result)]).inc();
    }
}

/// What a store measures of itself, whoever reads it.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    latencies: Histograms,
    errors: Counters,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self { latencies: Histograms::new_with_constructor(Latencies), errors: Counters::default() }
    }
}

impl StoreMetrics {
    /// Measures an operation. What counts as an error of the store is up to `failed`: an object that
    /// does not exist is an answer.
    pub(crate) async fn measure<T, E>(
        &self,
        operation: StoreOp,
        work: impl Future<Output = std::result::Result<T, E>>,
        failed: impl FnOnce(&E) -> bool,
    ) -> std::result::Result<T, E> {
        let began = Instant::now();
        let result = work.await;
        let label = [("operation", operation.as_str())];
        self.latencies.get_or_create(&label).observe(began.elapsed().as_secs_f64());
        if result.as_ref().is_err_and(failed) {
            self.errors.get_or_create(&label).inc();
        }
        result
    }
}

/// Counts up while it lives.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Held {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
