//! The configuration file: TOML, read into pairs of a key and a value with the line they stand in.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Raw;
use crate::failure::Failure;

/// One setting of a file.
#[derive(Debug)]
pub(super) struct Line {
    /// `section.key`.
    pub(super) key: String,
    pub(super) raw: Raw,
    pub(super) line: usize,
}

/// Everything that a file sets, in its order.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("the configuration file {} cannot be read: {error}", path.display()))
    })?;
    parse(&text).map_err(|(line, what)| {
        Failure::usage(format!("the configuration file {}, line {line}: {what}", path.display()))
    })
}

fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let document = DeTable::parse(text).map_err(|error| {
        (line_of(text, error.span().map_or(0, |span| span.start)), error.message().to_owned())
    })?;
    let mut lines = Vec::new();
    gather(text, "", document.get_ref(), &mut lines)?;
    lines.sort_by_key(|line| line.line);
    Ok(lines)
}

fn gather(
    text: &str,
    section: &str,
    table: &DeTable<'_>,
    lines: &mut Vec<Line>,
) -> Result<(), (usize, String)> {
    for (name, value) in table {
        let key = if section.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{section}.{}", name.get_ref())
        };
        let line = line_of(text, name.span().start);
        if let DeValue::Table(table) = value.get_ref() {
            gather(text, &key, table, lines)?;
        } else {
            let raw = raw(value).map_err(|what| (line, format!("{key}: {what}")))?;
            lines.push(Line { key, raw, line });
        }
    }
    Ok(())
}

fn raw(value: &Spanned<DeValue<'_>>) -> Result<Raw, String> {
    if let DeValue::Array(items) = value.get_ref() {
        return items.iter().map(scalar).collect::<Result<_, _>>().map(Raw::List);
    }
    scalar(value).map(Raw::Text)
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("{} is too large", number.as_str())),
        DeValue::Float(number) => Err(format!("{} is not a whole number", number.as_str())),
        DeValue::Datetime(date) => Err(format!("{date} is a date; none is expected here")),
        DeValue::Array(_) | DeValue::Table(_) => Err("a list of plain values is expected here".to_owned()),
    }
}

/// The number of the line, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_knows_its_line() {
        let lines =
            parse("listen = \"[::1]:0\"\n\n[limits]\nrequests = 0x10\n[auth]\nkeys = [\"a\", \"b\"]\n")
                .unwrap();
        let found: Vec<_> = lines.iter().map(|line| (line.key.as_str(), line.line)).collect();
        assert_eq!(found, [("listen", 1), ("limits.requests", 4), ("auth.keys", 6)]);
        assert_eq!(lines[1].raw, Raw::Text("16".to_owned()));
        assert_eq!(lines[2].raw, Raw::List(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn mistakes_name_their_line() {
        assert_eq!(parse("listen = \"a\"\nstore = \n").unwrap_err().0, 2);
        assert_eq!(parse("\n[limits]\nrequests = 1.5\n").unwrap_err().0, 3);
        assert_eq!(parse("a = 1\na = 2\n").unwrap_err().0, 2);
    }
}
