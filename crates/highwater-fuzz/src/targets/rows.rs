//! The readers of b-trees, on databases that are damaged.

use std::collections::BTreeSet;
use std::io;

use highwater_ltx::{PageCount, PageNo, PageSize};
use highwater_pages::owners::{PageSource, owners};
use highwater_rows::{Collation, KeyColumn, Tree, TreeKind, changed_rows, schema};

use crate::sample::{self, SIZE};
use crate::{both, seen};

struct Image<'a>(&'a [u8]);

impl PageSource for Image<'_> {
    fn page_size(&self) -> PageSize {
        PageSize::new(SIZE as u32).unwrap()
    }

    fn page_count(&self) -> PageCount {
        PageCount((self.0.len() / SIZE) as u32)
    }

    fn read(&self, page: PageNo, into: &mut Vec<u8>) -> io::Result<()> {
        let from = page.0.checked_sub(1).map(|n| n as usize * SIZE);
        let found = from.and_then(|from| self.0.get(from..from + SIZE));
        into.clear();
        into.extend_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Which rows differ between the base and this image, and whose its pages are.
#[must_use]
pub fn damaged(data: &[u8]) -> u64 {
    let (before, after) = (Image(sample::base()), Image(data));
    let old: Vec<&[u8]> = before.0.chunks_exact(SIZE).collect();
    let changed: Vec<PageNo> = sample::pages(data)
        .filter(|(number, page)| old.get(number.0 as usize - 1) != Some(page))
        .map(|(number, _)| number)
        .collect();
    let (had, has) = (schema(&before).unwrap(), schema(&after));
    let mut all = seen(has.as_ref().map(Vec::len).map_err(ToString::to_string));
    let root = |rows: &[highwater_rows::SchemaRow], name: &str| {
        rows.iter().find(|row| row.name == name).and_then(|row| row.root)
    };
    let has = has.unwrap_or_default();
    let names: BTreeSet<&str> = had.iter().chain(&has).map(|row| row.name.as_str()).collect();
    let key = |descending| KeyColumn { collation: Collation::default(), descending };
    let trees: Vec<Tree> = names
        .into_iter()
        .filter(|name| root(&had, name).is_some() || root(&has, name).is_some())
        .map(|name| Tree {
            before: root(&had, name),
            after: root(&has, name),
            kind: match name {
                "w" => TreeKind::WithoutRowid { key: vec![key(true), key(false)] },
                _ => TreeKind::Rowid,
            },
        })
        .collect();
    let found = changed_rows(&before, &after, &trees, &changed).map(|found| found.rows.len());
    all = both(all, seen(found.map_err(|error| error.to_string())));
    let asked: BTreeSet<PageNo> = changed.into_iter().collect();
    let owned =
        owners(&after, &asked).map(|owned| (owned.tables.len() > 2, owned.other.is_empty(), owned.schema));
    both(all, seen(owned))
}
