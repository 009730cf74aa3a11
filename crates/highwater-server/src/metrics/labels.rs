//! The values that labels have.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Ready,
    Version,
    Metrics,
    AdminRead,
    AdminWrite,
    Info,
    Log,
    Snapshot,
    Sums,
    Sync,
    Locate,
    Query,
    LibsqlInfo,
    LibsqlExport,
    LibsqlPull,
    LibsqlPush,
    /// Nothing that there is.
    Other,
}

impl Route {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Ready => "readyz",
            Self::Version => "version",
            Self::Metrics => "metrics",
            Self::AdminRead => "admin_read",
            Self::AdminWrite => "admin_write",
            Self::Info => "info",
            Self::Log => "log",
            Self::Snapshot => "snapshot",
            Self::Sums => "sums",
            Self::Sync => "sync",
            Self::Locate => "locate",
            Self::Query => "query",
            Self::LibsqlInfo => "libsql_info",
            Self::LibsqlExport => "libsql_export",
            Self::LibsqlPull => "libsql_pull",
            Self::LibsqlPush => "libsql_push",
            Self::Other => "other",
        }
    }

    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::LibsqlInfo | Self::LibsqlExport | Self::LibsqlPull | Self::LibsqlPush => Protocol::Libsql,
            Self::Info
            | Self::Log
            | Self::Snapshot
            | Self::Sums
            | Self::Sync
            | Self::Locate
            | Self::Query => Protocol::Native,
            _ => Protocol::None,
        }
    }

    /// Whether such a request can change something: then the log tells about it without being asked.
    pub(crate) const fn changes(self) -> bool {
        matches!(self, Self::Sync | Self::LibsqlPush | Self::AdminWrite)
    }
}

/// The language of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Native,
    Libsql,
    /// Neither: operation and administration.
    None,
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Libsql => "libsql",
            Self::None => "none",
        }
    }
}

/// What a request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    UpToDate,
    Pushed,
    Pulled,
    Merged,
    /// Refused, in either protocol's way, because another device changed the database too.
    Conflict,
    /// Stored frames of a transaction whose end has not come.
    Staged,
    Created,
    Deleted,
    Undeleted,
}

impl Did {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Pushed => "pushed",
            Self::Pulled => "pulled",
            Self::Merged => "merged",
            Self::Conflict => "conflict",
            Self::Staged => "staged",
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Undeleted => "undeleted",
        }
    }
}

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOp {
    List,
    Head,
    Read,
    Create,
    Publish,
    Upload,
    Remove,
    Settle,
}

impl StoreOp {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Head => "head",
            Self::Read => "read",
            Self::Create => "create",
            Self::Publish => "publish",
            Self::Upload => "upload",
            Self::Remove => "remove",
            Self::Settle => "settle",
        }
    }
}
