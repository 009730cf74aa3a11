//! The bugs, and who has to catch each. The line that makes a bug stands where the real code is: look for its name.

use crate::layer::{Check, Layer};

/// A bug that can be planted.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Its name: the words of the mistake.
    pub name: &'static str,
    /// What is done wrong.
    pub breaks: &'static str,
    /// The command that must fail because of it.
    pub caught_by: Check,
}

/// Those that the few seeds of their commands do not find any more since the heads of messages are damaged, too, which makes other runs of the same
/// seeds; two that may have become harmless, for a base that is found by content is looked at more closely; and one that hangs on a single seed. They run when
/// they are named.
pub const ESCAPED: &[&str] = &[
    "a-no-is-for-every-attempt",
    "lost-answer-makes-another-device",
    "sums-not-taken-back",
    "damaged-request-forgets-the-base",
    "damaged-answer-forgets-the-base",
    "late-push-not-recognised",
    "exists-means-ours",
    "push-not-verified",
];

/// Every bug.
pub const BUGS: &[Bug] = &[
    // What must be on disk before something else happens.
    bug("store-not-flushed", "the server's files and folders are not flushed", crash("server-appends")),
    bug(
        "folder-not-flushed",
        "no folder is flushed after a file got its name there",
        crash("server-appends"),
    ),
    bug("copy-not-flushed", "a new copy gets its name before its content is on disk", crash("first-copy")),
    bug("metadata-not-flushed", "the metadata gets its name before its content is on disk", crash("merge")),
    bug("log-not-flushed", "a push does not wait for the flush of the log", crash("relaxed-push")),
    bug("commit-not-flushed", "a pull's commit is not flushed, and noted as done", crash("pull")),
    bug("sums-not-flushed", "page sums are written ahead of a commit, not flushed", crash("pull")),
    bug("sums-not-ahead", "page sums are not written ahead of a commit", crash("merge-then-write")),
    bug("metadata-before-commit", "the metadata says that a pull is there before it is", crash("pull")),
    bug(
        "found-not-settled",
        "a file that a killed server left is relied on unflushed",
        crash("server-appends"),
    ),
    bug(
        "folders-not-settled",
        "a folder that a killed server left is relied on unflushed",
        crash("server-appends"),
    ),
    // The client and what it knows.
    bug(
        "no-check-under-the-lock",
        "pages are written over what was committed meanwhile",
        simulation("--count 60"),
    ),
    bug("pending-not-noted", "a state that is sent is not noted", simulation("--count 60")),
    bug(
        "a-no-is-for-every-attempt",
        "a refusal makes it forget an attempt whose answer was lost",
        simulation("--count 30 --only answer-lost --only request-flipped"),
    ),
    bug(
        "lost-answer-makes-another-device",
        "after a lost answer a change is sent as another device's",
        simulation("--count 60"),
    ),
    bug("sums-not-taken-back", "page sums of a commit that did not come stay", simulation("--count 60")),
    bug(
        "received-not-verified",
        "pages are applied that do not lead to the state of the head",
        simulation("--count 60 --only answer-forged"),
    ),
    bug(
        "damaged-request-forgets-the-base",
        "two damaged requests make the client find its base by content, which can go wrong",
        simulation("--count 60 --only request-forged"),
    ),
    bug(
        "damaged-answer-forgets-the-base",
        "one damaged answer makes the client find its base by content, which can go wrong",
        simulation("--count 60 --only answer-forged"),
    ),
    // Pages.
    bug("first-page-as-it-is", "SQLite's own counters on page 1 count as changes", simulation("--count 60")),
    bug(
        "mark-behind-what-nobody-saw",
        "a capture goes on behind a commit that the one before did not see",
        test("highwater-pages", "wal"),
    ),
    bug(
        "last-frame-is-proof",
        "a commit frame that nothing follows counts as a commit",
        test("highwater-pages", "passed"),
    ),
    bug(
        "body-checksum-ignored",
        "the checksum of an LTX file is not compared",
        test("highwater-ltx", "damage"),
    ),
    // The server.
    bug("acknowledged-before-stored", "a push is acknowledged before it is stored", simulation("--count 60")),
    bug(
        "exists-means-ours",
        "an object that exists counts as one's own",
        simulation("--count 60 --only store-slow"),
    ),
    bug(
        "push-not-verified",
        "whether base and pages lead to the state is not checked",
        simulation("--count 60 --only request-forged"),
    ),
    bug(
        "frame-off-by-one",
        "a push ends one frame further than it has frames",
        simulation("--count 60 --only restart"),
    ),
    bug(
        "late-push-not-recognised",
        "a request that a later one overtook is merged",
        histories("--seed 1080 --count 20"),
    ),
    bug("merged-state-forgotten", "a state that was merged is not known again", simulation("--count 60")),
    bug(
        "equal-change-taken-for-own",
        "what another device pushed counts as the client's own",
        crash("equal-writes"),
    ),
    bug(
        "older-copy-not-recognised",
        "whether a copy is an older one is not compared with the history",
        crash("backup-written-over"),
    ),
    bug("snapshot-of-the-push-before", "a snapshot lacks the newest push", simulation("--count 60")),
    bug("ended-token-accepted", "a token that has ended is accepted", simulation("--count 60")),
    // Merging.
    bug("deletion-wins", "a row that the other side changed is deleted silently", histories("--count 40")),
    bug("conflict-not-recorded", "a value that is not kept is in no record", histories("--count 40")),
    bug("taken-id-overwritten", "a row whose id is taken overwrites the other", histories("--count 40")),
    bug("references-stay", "references do not follow rows that got new ids", histories("--count 40")),
    bug("schema-version-stays", "the version of the schema is not raised", histories("--count 40")),
    bug(
        "sequence-stays",
        "the last id of AUTOINCREMENT stays behind",
        simulation("--count 40 --workload numbers"),
    ),
    bug("user-version-stays", "user_version is not merged", simulation("--count 40 --workload numbers")),
];

const fn bug(name: &'static str, breaks: &'static str, caught_by: Check) -> Bug {
    Bug { name, breaks, caught_by }
}

const fn simulation(arguments: &'static str) -> Check {
    Check { layer: Layer::Simulation, arguments }
}

const fn crash(scenario: &'static str) -> Check {
    Check { layer: Layer::Crash, arguments: scenario }
}

const fn histories(arguments: &'static str) -> Check {
    Check { layer: Layer::Histories, arguments }
}

const fn test(package: &'static str, file: &'static str) -> Check {
    Check { layer: Layer::Test { package, file }, arguments: "" }
}
