//! The SQL that puts back what a merge did not keep.

use std::fmt::Write as _;

use crate::{Conflict, ConflictKind, Kept, RowJson, SqlValue};

/// Words that have to be quoted when they are names are quoted whether or not they have to.
const KEYWORDS: [&str; 24] = [
    "all", "and", "as", "by", "case", "check", "default", "delete", "from", "group", "in", "index", "insert",
    "into", "key", "like", "not", "null", "order", "select", "set", "table", "unique", "where",
];

impl Conflict {
    /// A statement that makes the other version the one in the database: to be run by a person or a program that
    /// wants it so, on any copy that is synced afterwards. A row that was refused will be
    /// refused again as long as what stands in its way is there. None: nothing was lost, or the conflict does not say enough.
    #[must_use]
    pub fn put_back(&self) -> Option<String> {
        let other = if self.kept == Kept::Local { self.head.as_ref() } else { self.local.as_ref() };
        match self.kind {
            ConflictKind::Renumbered | ConflictKind::Other => None,
            ConflictKind::Schema => {
                self.sql.as_ref().map(|sql| format!("{};", sql.trim_end().trim_end_matches(';')))
            }
            ConflictKind::UpdateDelete => self.delete(),
            ConflictKind::Update => self.update(other?),
            _ => match (&self.base, &self.local) {
                (Some(_), None) => self.delete(),
                (Some(_), Some(row)) if self.head.is_some() => self.update(row),
                (_, Some(row)) => Some(self.insert(row)),
                (None, None) => None,
            },
        }
    }

    fn delete(&self) -> Option<String> {
        Some(format!("DELETE FROM {} WHERE {};", name(&self.table), self.condition()?))
    }

    fn insert(&self, row: &RowJson) -> String {
        let names: Vec<_> = row.iter().map(|(column, _)| name(column)).collect();
        let values: Vec<_> = row.iter().map(|(_, value)| literal(value)).collect();
        format!("INSERT INTO {} ({}) VALUES ({});", name(&self.table), names.join(", "), values.join(", "))
    }

    /// Sets the columns that the conflict names, or else those in which `row` differs from its base.
    fn update(&self, row: &RowJson) -> Option<String> {
        let base = |column: &str| self.base.iter().flatten().find(|(name, _)| name == column).map(|(_, v)| v);
        let is_key = |column: &str| self.key.iter().any(|(name, _)| name == column);
        let wanted = |column: &String, value: &SqlValue| match self.columns.is_empty() {
            true => !is_key(column) && base(column) != Some(value),
            false => self.columns.contains(column),
        };
        let set: Vec<_> = row
            .iter()
            .filter(|(column, value)| wanted(column, value))
            .map(|(column, value)| format!("{} = {}", name(column), literal(value)))
            .collect();
        let condition = self.condition()?;
        (!set.is_empty())
            .then(|| format!("UPDATE {} SET {} WHERE {condition};", name(&self.table), set.join(", ")))
    }

    fn condition(&self) -> Option<String> {
        let terms: Vec<_> = self
            .key
            .iter()
            .map(|(column, value)| match value {
                SqlValue::Null => format!("{} IS NULL", name(column)),
                value => format!("{} = {}", name(column), literal(value)),
            })
            .collect();
        (!terms.is_empty()).then(|| terms.join(" AND "))
    }
}

/// A name as it stands in SQL, quoted where it has to be.
fn name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name.to_ascii_lowercase().as_str());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A value as SQLite reads it back, whatever it is.
fn literal(value: &SqlValue) -> String {
    match value {
        SqlValue::Real(number) if number.is_nan() => "NULL".to_owned(),
        SqlValue::Real(number) if number.is_infinite() => {
            if *number > 0.0 {
                "9e999".to_owned()
            } else {
                "-9e999".to_owned()
            }
        }
        SqlValue::Text(bytes) if std::str::from_utf8(bytes).is_err() || bytes.contains(&0) => {
            let mut text = "CAST(x'".to_owned();
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            text + "' AS TEXT)"
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(&str, SqlValue)]) -> RowJson {
        values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn conflict(kind: ConflictKind, kept: Kept) -> Conflict {
        Conflict {
            kind,
            table: "notes".to_owned(),
            key: row(&[("id", SqlValue::Integer(7))]),
            other_key: Vec::new(),
            columns: vec!["title".to_owned()],
            base: Some(row(&[("id", SqlValue::Integer(7)), ("title", SqlValue::text("old"))])),
            local: Some(row(&[("id", SqlValue::Integer(7)), ("title", SqlValue::text("it's mine"))])),
            head: Some(row(&[("id", SqlValue::Integer(7)), ("title", SqlValue::text("theirs"))])),
            kept,
            sql: None,
            message: String::new(),
        }
    }

    #[test]
    fn the_value_that_lost_is_the_one_that_is_put_back() {
        let sql = |kept| conflict(ConflictKind::Update, kept).put_back().unwrap();
        assert_eq!(sql(Kept::Head), "UPDATE notes SET title = 'it''s mine' WHERE id = 7;");
        assert_eq!(sql(Kept::Local), "UPDATE notes SET title = 'theirs' WHERE id = 7;");
    }

    #[test]
    fn a_deletion_that_lost_is_a_deletion() {
        let mut deleted = conflict(ConflictKind::UpdateDelete, Kept::Local);
        deleted.head = None;
        assert_eq!(deleted.put_back().unwrap(), "DELETE FROM notes WHERE id = 7;");
    }

    #[test]
    fn a_row_that_was_refused_is_inserted_or_updated_whole() {
        let mut refused = conflict(ConflictKind::Unique, Kept::Head);
        refused.columns.clear();
        assert_eq!(
            refused.put_back().unwrap(),
            "UPDATE notes SET title = 'it''s mine' WHERE id = 7;",
            "it existed"
        );
        (refused.base, refused.head) = (None, None);
        assert_eq!(
            refused.put_back().unwrap(),
            "INSERT INTO notes (id, title) VALUES (7, 'it''s mine');",
            "it is new"
        );
    }

    #[test]
    fn two_rows_that_both_live_need_nothing() {
        assert_eq!(conflict(ConflictKind::Renumbered, Kept::Both).put_back(), None);
    }

    #[test]
    fn names_and_values_are_quoted_where_they_have_to_be() {
        assert_eq!(name("notes"), "notes");
        assert_eq!(name("order"), "\"order\"");
        assert_eq!(name("a \"b\""), "\"a \"\"b\"\"\"");
        assert_eq!(literal(&SqlValue::Real(f64::INFINITY)), "9e999");
        assert_eq!(literal(&SqlValue::Text(vec![0xff])), "CAST(x'ff' AS TEXT)");
    }
}
