//! A device pushes pages of garbage that meet another device's change: the server has to merge them,
//! or to say why not.

use axum::body::Body;
use axum::http::Request;
use highwater_ltx::PageEncoding;
use highwater_pages::canonicalise_first_page;

use super::http::{Lab, word};
use crate::sample::{self, SIZE};
use crate::{both, seen};

/// Pushes this image, made from the base, to a server that is ahead.
#[must_use]
pub fn garbage(data: &[u8]) -> u64 {
    let count = (data.len() / SIZE).min(96);
    if count == 0 {
        return 0;
    }
    let mut image = data[..count * SIZE].to_vec();
    // Whatever else it says, it says that it is a database of this page size: the rest is checked before.
    image[..18].copy_from_slice(&sample::base()[..18]);
    canonicalise_first_page(&mut image[..SIZE]);
    let lab = Lab::new();
    let base = lab.send(Request::get("/app/v1/sums").body(Body::empty()).unwrap()).head;
    let ahead = lab.sync(1, base, sample::push(sample::base(), sample::head(), PageEncoding::Lz4));
    assert_eq!(ahead.status, 200, "{}", String::from_utf8_lossy(&ahead.body));
    let merged = lab.sync(2, base, sample::push(sample::base(), &image, PageEncoding::Lz4));
    // What came of it can be looked at, and queried.
    let log = lab.send(Request::get("/app/v1/log").body(Body::empty()).unwrap());
    let sql = r#"{"sql":"SELECT (SELECT count(*) FROM t), (SELECT group_concat(a) FROM w), (SELECT max(x) FROM k)"}"#;
    let query = Request::post("/app/v1/query").header("content-type", "application/json");
    let queried = lab.send(query.body(Body::from(sql)).unwrap());
    both(
        seen(format!("{} {}", word(merged.status), merged.message())),
        seen(format!("{} {} {}", word(log.status), word(queried.status), queried.code())),
    )
}
