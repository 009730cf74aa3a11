//! A store that takes no more: the server says so, acknowledges nothing, and goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]
#[path = "common/child.rs"]
mod child;
mod common;

use child::ChildServer;
use common::{DEVICE_A, Image, sync};
use highwater_wire::ErrorCode;
use reqwest::Client;

#[test]
fn serve_for_a_test() {
    child::serve_if_child();
}

/// No file may grow past 200 kB: writing then fails as on a full disk.
const LIMITED: &[&str] = &["sh", "-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_nothing_is_acknowledged_and_the_server_goes_on() {
    for small_body in ["8388608", "9000"] {
        let folder = tempfile::tempdir().unwrap();
        let env = [("HIGHWATER_TEST_SMALL_BODY", small_body)];
        let server = ChildServer::start_through(LIMITED, "serve_for_a_test", folder.path(), &env).unwrap();
        let (client, url) = (Client::new(), format!("{}/db/v1/sync", server.url));
        let first = Image::new(512, 40, 1);
        let base = sync(&client, &url, DEVICE_A, None, first.body(None)).await.position();
        let mut big = first.clone();
        let mut random = common::Random(1);
        for page in 41..2000 {
            big.set(page, 3);
            random.fill(&mut big.pages[page as usize - 1]);
        }
        for _ in 0..2 {
            let full = sync(&client, &url, DEVICE_A, Some(base), big.body(Some(&first))).await;
            assert_eq!(full.status.as_u16(), 507, "{full:?}");
            assert_eq!(full.error().code, ErrorCode::StorageFull);
        }
        let small = first.with(&[(2, 9)]);
        let pushed = sync(&client, &url, DEVICE_A, Some(base), small.body(Some(&first))).await;
        assert_eq!((pushed.outcome.as_str(), pushed.txid), ("pushed", 2));
        let left =
            std::process::Command::new("find").arg(folder.path()).args(["-type", "f"]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&left.stdout).lines().count(),
            2,
            "only the two pushes are stored"
        );
    }
}
