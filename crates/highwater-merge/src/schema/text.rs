//! The text of schema objects: tokens, comparison, and the parts of a CREATE TABLE.
//!
//! A definition is never understood here further than to its top-level commas, and everything else is asked of
//! SQLite itself, so a tokenizer of a hundred lines does, with SQLite's own rules for names, strings and
//! comments. A full SQL parser would bring seven crates, a C compiler step and a grammar that has to keep up
//! with SQLite's.

use std::collections::BTreeMap;
use std::ops::Range;

/// Names that changed, in lower case: old to new.
pub(super) type Names = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A name or keyword without quotes.
    Word,
    /// A name in quotes.
    Quoted,
    /// A string, a blob or a number.
    Literal,
    /// One character of anything else.
    Sign,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    at: Range<usize>,
}

/// Tokens without spaces and comments.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        let kind = match byte(at) {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                at += 1;
                continue;
            }
            b'-' if byte(at + 1) == b'-' => {
                at = bytes.iter().skip(at).position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n);
                continue;
            }
            b'/' if byte(at + 1) == b'*' => {
                let body = sql.get(at + 2..).unwrap_or_default();
                at = body.find("*/").map_or(bytes.len(), |n| at + 2 + n + 2);
                continue;
            }
            quote @ (b'"' | b'`') => {
                at = end_of_quotes(bytes, at, quote);
                Kind::Quoted
            }
            b'[' => {
                at = bytes.iter().skip(at).position(|byte| *byte == b']').map_or(bytes.len(), |n| at + n + 1);
                Kind::Quoted
            }
            b'\'' => {
                at = end_of_quotes(bytes, at, b'\'');
                Kind::Literal
            }
            b'x' | b'X' if byte(at + 1) == b'\'' => {
                at = end_of_quotes(bytes, at + 1, b'\'');
                Kind::Literal
            }
            first if first.is_ascii_digit() || (first == b'.' && byte(at + 1).is_ascii_digit()) => {
                at = end_of_number(bytes, at);
                Kind::Literal
            }
            first if in_word(first) => {
                while in_word(byte(at)) {
                    at += 1;
                }
                Kind::Word
            }
            _ => {
                at += 1;
                Kind::Sign
            }
        };
        found.push(Token { kind, at: start..at });
    }
    found
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Past the closing quote; a doubled quote is one inside.
fn end_of_quotes(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte == quote {
            if bytes.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    bytes.len()
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        let exponent = at > start
            && matches!(byte, b'+' | b'-')
            && matches!(bytes.get(at - 1), Some(b'e' | b'E'))
            && !matches!(bytes.get(start + 1), Some(b'x' | b'X'));
        if !(in_word(*byte) || *byte == b'.' || exponent) {
            break;
        }
        at += 1;
    }
    at
}

/// The name that a token stands for.
fn name_of(text: &str) -> String {
    let inner = || text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'"') => inner().replace("\"\"", "\""),
        Some(b'`') => inner().replace("``", "`"),
        Some(b'[') => inner().to_owned(),
        Some(b'\'') => inner().replace("''", "'"),
        _ => text.to_owned(),
    }
}

/// Words that mean something else when they stand in quotes.
const NOT_NAMES: [&str; 6] = ["null", "true", "false", "current_date", "current_time", "current_timestamp"];

/// The text in a form in which equal definitions are equal: no comments, spaces between tokens, words in lower
/// case.
pub(super) fn normal(sql: &str) -> String {
    let form = |token: &Token| {
        let text = sql.get(token.at.clone()).unwrap_or_default();
        match token.kind {
            Kind::Word => text.to_ascii_lowercase(),
            Kind::Quoted => {
                let name = name_of(text);
                let plain = !name.is_empty()
                    && !name.starts_with(|first: char| first.is_ascii_digit())
                    && name.bytes().all(|byte| in_word(byte) && !byte.is_ascii_uppercase())
                    && !NOT_NAMES.contains(&name.as_str());
                if plain { name } else { format!("\"{name}\"") }
            }
            Kind::Literal | Kind::Sign => text.to_owned(),
        }
    };
    tokens(sql).iter().map(form).collect::<Vec<_>>().join(" ")
}

/// The tokens in a form in which names are compared as SQLite does.
fn folded(sql: &str) -> Vec<String> {
    let form = |token: &Token| {
        let text = sql.get(token.at.clone()).unwrap_or_default();
        match token.kind {
            Kind::Word | Kind::Quoted => name_of(text).to_ascii_lowercase(),
            Kind::Literal | Kind::Sign => text.to_owned(),
        }
    };
    tokens(sql).iter().map(form).collect()
}

/// Whether `after` says the same as `before`, when `names` were changed in between (SQLite then changes the
/// text of whatever mentions them, and a word that is a name here may be a type there).
pub(super) fn same(before: &str, after: &str, names: &Names) -> bool {
    if normal(before) == normal(after) {
        return true;
    }
    let (before, after) = (folded(before), folded(after));
    let equal = |(before, after): (&String, &String)| before == after || names.get(before) == Some(after);
    !names.is_empty() && before.len() == after.len() && before.iter().zip(&after).all(equal)
}

/// The text with names replaced.
pub(super) fn renamed(sql: &str, names: &Names) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut from = 0;
    for token in tokens(sql) {
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            continue;
        }
        let name = name_of(sql.get(token.at.clone()).unwrap_or_default()).to_ascii_lowercase();
        if let Some(new) = names.get(&name) {
            text.push_str(sql.get(from..token.at.start).unwrap_or_default());
            text.push_str(&crate::sql::quoted(new));
            from = token.at.end;
        }
    }
    text.push_str(sql.get(from..).unwrap_or_default());
    text
}

/// Whether a name stands in the text.
pub(super) fn mentions(sql: &str, name: &str) -> bool {
    folded(sql).contains(&name.to_ascii_lowercase())
}

/// A column of a CREATE TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnText {
    /// Its name, without quotes.
    pub(super) name: String,
    /// What stands behind the name: type and constraints.
    pub(super) rest: String,
}

impl ColumnText {
    /// As it stands in a definition.
    pub(super) fn sql(&self) -> String {
        format!("{} {}", crate::sql::quoted(&self.name), self.rest)
    }
}

/// The parts of a CREATE TABLE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Definition {
    pub(super) columns: Vec<ColumnText>,
    /// Constraints of the table, as they stand between commas.
    pub(super) constraints: Vec<String>,
    /// STRICT, WITHOUT ROWID.
    pub(super) options: String,
}

impl Definition {
    /// Splits a CREATE TABLE; none if it does not look like one.
    pub(super) fn parse(sql: &str) -> Option<Self> {
        let tokens = tokens(sql);
        let text = |token: &Token| sql.get(token.at.clone()).unwrap_or_default();
        let open = tokens.iter().position(|token| text(token) == "(")?;
        let mut parts = Vec::new();
        let (mut depth, mut from, mut close) = (0_u32, open + 1, None);
        for (index, token) in tokens.iter().enumerate().skip(open) {
            match text(token) {
                "(" if token.kind == Kind::Sign => depth += 1,
                ")" if token.kind == Kind::Sign => depth = depth.checked_sub(1)?,
                "," if token.kind == Kind::Sign && depth == 1 => {
                    parts.push(tokens.get(from..index)?);
                    from = index + 1;
                }
                _ => {}
            }
            if depth == 0 {
                parts.push(tokens.get(from..index)?);
                close = Some(index);
                break;
            }
        }
        let whole = |tokens: &[Token]| match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) => sql.get(first.at.start..last.at.end).unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let mut definition = Self { options: whole(tokens.get(close? + 1..)?), ..Self::default() };
        for part in parts {
            let first = part.first()?;
            let constraint = first.kind == Kind::Word
                && ["constraint", "primary", "unique", "check", "foreign"]
                    .contains(&text(first).to_ascii_lowercase().as_str());
            if constraint || !definition.constraints.is_empty() {
                definition.constraints.push(whole(part));
            } else {
                let (name, rest) = (name_of(text(first)), whole(part.get(1..)?));
                definition.columns.push(ColumnText { name, rest });
            }
        }
        Some(definition)
    }

    /// A CREATE TABLE of that name. Lines are broken before commas.
    pub(super) fn sql(&self, table: &str) -> String {
        let columns = self.columns.iter().map(ColumnText::sql);
        let parts = columns.chain(self.constraints.iter().cloned()).collect::<Vec<_>>().join(",\n  ");
        format!("CREATE TABLE {} (\n  {parts}\n) {}", crate::sql::quoted(table), self.options)
            .trim_end()
            .to_owned()
    }

    /// Whether both say the same.
    pub(super) fn same(&self, after: &Self, names: &Names) -> bool {
        self.columns.len() == after.columns.len()
            && self.columns.iter().zip(&after.columns).all(|(before, after)| {
                let name = before.name.to_ascii_lowercase();
                names.get(&name).unwrap_or(&name) == &after.name.to_ascii_lowercase()
                    && same(&before.rest, &after.rest, names)
            })
            && self.same_constraints(after, names)
            && normal(&self.options) == normal(&after.options)
    }

    /// Whether both have the same constraints of the table.
    pub(super) fn same_constraints(&self, after: &Self, names: &Names) -> bool {
        self.constraints.len() == after.constraints.len()
            && self
                .constraints
                .iter()
                .zip(&after.constraints)
                .all(|(before, after)| same(before, after, names))
    }
}

/// Whether it is a CREATE VIRTUAL TABLE.
pub(super) fn is_virtual(sql: &str) -> bool {
    let second = tokens(sql).into_iter().nth(1).and_then(|token| sql.get(token.at));
    second.is_some_and(|word| word.eq_ignore_ascii_case("virtual"))
}

/// What a trigger waits for: `insert`, `update` or `delete`.
pub(super) fn event_of(trigger: &str) -> String {
    let words = tokens(trigger).into_iter().filter(|token| token.kind == Kind::Word);
    let words = words.map(|token| trigger.get(token.at).unwrap_or_default().to_ascii_lowercase());
    words.into_iter().find(|word| ["insert", "update", "delete"].contains(&word.as_str())).unwrap_or_default()
}

/// Module and arguments of a CREATE VIRTUAL TABLE.
pub(crate) fn module_of(sql: &str) -> Option<(String, Vec<String>)> {
    let tokens = tokens(sql);
    let text = |token: &Token| sql.get(token.at.clone()).unwrap_or_default();
    let using = tokens
        .iter()
        .position(|token| token.kind == Kind::Word && text(token).eq_ignore_ascii_case("using"))?;
    let module = tokens.get(using + 1)?;
    let Some(open) = tokens.get(using + 2).filter(|token| text(token) == "(") else {
        return Some((name_of(text(module)), Vec::new()));
    };
    let (mut arguments, mut depth, mut from) = (Vec::new(), 0_u32, open.at.end);
    for token in tokens.iter().skip(using + 2).filter(|token| token.kind == Kind::Sign) {
        let last = match text(token) {
            "(" => {
                depth += 1;
                continue;
            }
            ")" => {
                depth = depth.checked_sub(1)?;
                depth == 0
            }
            "," if depth == 1 => false,
            _ => continue,
        };
        if last || text(token) == "," {
            arguments.push(sql.get(from..token.at.start)?.trim().to_owned());
            from = token.at.end;
        }
        if last {
            break;
        }
    }
    Some((name_of(text(module)), arguments))
}

/// An argument of a virtual table that sets an option, as `content = 'notes'`: its name in lower case, and the
/// value without quotes.
pub(crate) fn option_of(argument: &str) -> Option<(String, String)> {
    let (name, value) = argument.split_once('=')?;
    Some((name.trim().to_ascii_lowercase(), name_of(value.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_a_table_is_split_at_its_columns() {
        let sql = "CREATE TABLE \"a b\" ( -- the (first, comment\n  id INTEGER PRIMARY KEY, /* , */\n [x y] DECIMAL(10, 2) \
                   DEFAULT (1 + (2)), `check` TEXT CHECK(`check` IN ('a,b', 'c)''')), \"g\" INT AS (id * 2) STORED -- last\n, \
                   CONSTRAINT u UNIQUE (id, \"g\"), FOREIGN KEY (id) REFERENCES o(i)) STRICT, WITHOUT ROWID";
        let definition = Definition::parse(sql).unwrap();
        let names: Vec<_> = definition.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "x y", "check", "g"]);
        assert_eq!(definition.columns[1].rest, "DECIMAL(10, 2) DEFAULT (1 + (2))");
        assert_eq!(definition.columns[3].rest, "INT AS (id * 2) STORED");
        assert_eq!(definition.constraints.len(), 2);
        assert_eq!(definition.options, "STRICT, WITHOUT ROWID");
        let again = Definition::parse(&definition.sql("t")).unwrap();
        assert!(definition.same(&again, &Names::new()));
    }

    #[test]
    fn spaces_comments_and_case_do_not_make_a_change() {
        assert_eq!(normal("CREATE  INDEX \"i\" ON T(a) -- x"), normal("create index i on t ( a )"));
        assert_ne!(normal("SELECT 'A'"), normal("SELECT 'a'"));
        assert_ne!(normal("DEFAULT \"null\""), normal("DEFAULT null"));
        assert_ne!(normal("x 1e-5 - 3"), normal("x 1e-53"));
    }

    #[test]
    fn a_changed_name_alone_is_no_change() {
        let names = Names::from([("t".to_owned(), "u".to_owned())]);
        assert!(same("CREATE INDEX i ON t(a)", "CREATE INDEX i ON \"U\"(a)", &names));
        assert!(!same("CREATE INDEX i ON t(a)", "CREATE INDEX i ON \"u\"(b)", &names));
        assert_eq!(renamed("CREATE INDEX i ON T('t')", &names), "CREATE INDEX i ON \"u\"('t')");
    }

    #[test]
    fn arguments_of_a_virtual_table_are_found() {
        let sql =
            "CREATE VIRTUAL TABLE f USING fts5(a, b UNINDEXED, tokenize = 'x (y), z', content=\"the notes\")";
        let (module, arguments) = module_of(sql).unwrap();
        assert_eq!((module.as_str(), arguments.len()), ("fts5", 4));
        assert_eq!(option_of(&arguments[3]), Some(("content".to_owned(), "the notes".to_owned())));
        assert_eq!(module_of("CREATE VIRTUAL TABLE f USING fts5").unwrap().1.len(), 0);
    }
}
