//! Entries of R-Tree nodes.
//!
//! A node is 2 bytes of depth (of the root), a big-endian `u16` count, and cells of an 8-byte big-endian id and a
//! coordinate of 4 bytes each (`ext/rtree/rtree.c`). The cells of inner nodes carry numbers of nodes where
//! leaves carry ids: those are looked up like ids, in vain or without a difference.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};

use crate::error::Result;
use crate::sql::{failed, quoted};
use crate::table::{Context, Step};

/// Ids whose cells differ in these nodes.
pub(super) fn changed(
    cx: &Context<'_>,
    [base, local]: [&str; 2],
    nodes: impl Iterator<Item = i64>,
    coordinates: usize,
) -> Step<Vec<i64>> {
    let mut ids = Vec::new();
    for node in nodes {
        let before = if base.is_empty() { Vec::new() } else { read(cx.base, base, node)? };
        let after = read(cx.local, local, node)?;
        let size = 8 + 4 * coordinates;
        let (before, after) = (cells(&before, size), cells(&after, size));
        for cell in before.symmetric_difference(&after) {
            if let Some(id) = cell.first_chunk::<8>() {
                ids.push(i64::from_be_bytes(*id));
            }
        }
    }
    Ok(ids)
}

fn read(side: &Connection, table: &str, node: i64) -> Result<Vec<u8>> {
    let sql = format!("SELECT data FROM {} WHERE nodeno = ?1", quoted(&format!("{table}_node")));
    let mut statement = side.prepare_cached(&sql).map_err(failed("read a node of an R-Tree"))?;
    let data = statement.query_row([node], |row| row.get(0)).optional();
    Ok(data.map_err(failed("read a node of an R-Tree"))?.unwrap_or_default())
}

fn cells(node: &[u8], size: usize) -> BTreeSet<&[u8]> {
    let count = node.get(2..4).and_then(|count| count.try_into().ok()).map_or(0, u16::from_be_bytes);
    node.get(4..).unwrap_or_default().chunks_exact(size).take(usize::from(count)).collect()
}
