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
        test(
            "highwater",
            "merging",
            "once::a_refusal_says_nothing_of_an_attempt_before_it_whose_answer_was_lost",
        ),
    ),
    bug(
        "lost-answer-makes-another-device",
        "after a lost answer a change is sent as another device's",
        test("highwater", "merging", "once::what_is_committed_after_a_lost_answer_is_all_that_is_added"),
    ),
    bug(
        "sums-not-taken-back",
        "page sums of a commit that did not come stay",
        test(
            "highwater",
            "merging",
            "once::pages_that_came_and_were_not_committed_prove_nothing_when_the_log_is_gone",
        ),
    ),
    bug(
        "received-not-verified",
        "pages are applied that do not lead to the state of the head",
        simulation("--count 100 --only answer-forged"),
    ),
    bug(
        "damaged-request-forgets-the-base",
        "two damaged requests make the client find its base by content, which can go wrong",
        test(
            "highwater",
            "merging",
            "once::requests_that_arrive_damaged_make_no_client_forget_what_it_is_based_on",
        ),
    ),
    bug(
        "damaged-answer-forgets-the-base",
        "one damaged answer makes the client find its base by content, which can go wrong",
        simulation("--count 100 --only answer-forged"),
    ),
    bug(
        "answer-head-not-compared",
        "the checksum of an answer's head is not compared",
        test(
            "highwater",
            "flipped",
            "a_pull_with_a_flipped_bit_anywhere_in_the_head_of_its_answer_ends_well",
        ),
    ),
    bug(
        "rebase-notes-only-the-head",
        "of a rebase only the head's page sums are written ahead of the commit",
        test("highwater", "merging", "rebase::a_rebase_that_was_cut_short_is_taken_for_what_it_was"),
    ),
    bug(
        "rebased-ids-not-told",
        "the server is not told which rows got other ids in a rebase",
        test(
            "highwater",
            "merging",
            "rebase::an_id_that_was_given_twice_while_the_answer_was_under_way_is_told",
        ),
    ),
    bug(
        "rebase-decides-alone",
        "a rebase decides between two devices itself, and nobody records it",
        test(
            "highwater",
            "merging",
            "rebase::what_has_to_be_decided_between_two_devices_is_decided_and_recorded_by_the_server",
        ),
    ),
    bug(
        "rebase-loses-what-was-committed",
        "a rebase leaves out what the application committed meanwhile",
        histories("--count 60"),
    ),
    // Pages.
    bug("first-page-as-it-is", "SQLite's own counters on page 1 count as changes", simulation("--count 60")),
    bug(
        "mark-behind-what-nobody-saw",
        "a capture goes on behind a commit that the one before did not see",
        test("highwater-pages", "wal", ""),
    ),
    bug(
        "last-frame-is-proof",
        "a commit frame that nothing follows counts as a commit",
        test("highwater-pages", "passed", ""),
    ),
    bug(
        "body-checksum-ignored",
        "the checksum of an LTX file is not compared",
        test("highwater-ltx", "damage", ""),
    ),
    // The server.
    bug(
        "request-head-not-compared",
        "the checksum of a request's head is not compared",
        test(
            "highwater",
            "flipped",
            "a_push_with_a_flipped_bit_anywhere_in_its_head_is_stored_once_and_as_it_was_sent",
        ),
    ),
    bug("acknowledged-before-stored", "a push is acknowledged before it is stored", simulation("--count 60")),
    bug(
        "exists-means-ours",
        "an object that exists counts as one's own",
        test("highwater-server", "concurrency", "of_fifty_pushes_at_once_exactly_one_wins_each_round"),
    ),
    bug(
        "push-not-verified",
        "whether the head and the pages lead to the state is not checked",
        test("highwater-server", "bad_input", "a_delta_that_does_not_make_what_it_claims_is_corrupt"),
    ),
    bug(
        "merged-push-not-verified",
        "whether base and pages lead to the state is not checked before a merge",
        test("highwater-server", "merge", "a_lie_about_the_state_is_refused"),
    ),
    bug(
        "frame-off-by-one",
        "a push ends one frame further than it has frames",
        test("highwater-server", "merge", "a_merge_made_by_one_server_is_known_to_the_other"),
    ),
    bug(
        "late-push-not-recognised",
        "a request that a later one overtook is merged",
        test(
            "highwater",
            "merging",
            "once::a_push_that_arrives_when_its_client_has_long_gone_on_changes_nothing",
        ),
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
    bug(
        "schema-version-stays",
        "the version of the schema is not raised",
        test("highwater-merge", "schema", "the_same_column_added_on_both_sides_is_there_once"),
    ),
    bug(
        "sequence-stays",
        "the last id of AUTOINCREMENT stays behind",
        test(
            "highwater",
            "merging",
            "rules::an_id_of_autoincrement_that_either_side_gave_and_deleted_is_not_given_again",
        ),
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

/// One test of a file; all of them, if none is named.
const fn test(package: &'static str, file: &'static str, name: &'static str) -> Check {
    Check { layer: Layer::Test { package, file }, arguments: name }
}
