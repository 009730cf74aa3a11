//! SQL on a database at any position of its history.

use serde::{Deserialize, Serialize};

use crate::{HeadJson, SqlValue};

/// The body of `POST /DB/v1/query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One statement that only reads.
    pub sql: String,
    /// A position (`GENERATION/FRAME`) or a time (RFC 3339, UTC); the head without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// The answer to `POST /DB/v1/query`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// The position that was asked.
    pub position: HeadJson,
    /// Its number in the log.
    pub txid: u64,
    /// When that push was accepted, milliseconds since 1970 (UTC), by the server's clock.
    pub time_ms: i64,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with a value for every column.
    pub rows: Vec<Vec<SqlValue>>,
    /// Why rows are missing, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<QueryCut>,
    /// How many pages of the database were read for it.
    pub pages_read: u64,
}

/// Why an answer does not have all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QueryCut {
    /// There are more rows than the server sends.
    Rows,
    /// There are more bytes than the server sends.
    Bytes,
    /// A reason of a newer server.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_and_its_answer_read_as_documented() {
        let request: QueryRequest = serde_json::from_str(r#"{"sql":"SELECT 1","at":"1/9"}"#).unwrap();
        assert_eq!((request.sql.as_str(), request.at.as_deref()), ("SELECT 1", Some("1/9")));
        assert!(serde_json::from_str::<QueryRequest>(r#"{"sql":"SELECT 1","params":[]}"#).is_err());
        let answer = QueryAnswer {
            position: HeadJson { generation: 1, frame: 9, state: "00".to_owned() },
            txid: 3,
            time_ms: 5,
            columns: vec!["a".to_owned()],
            rows: vec![vec![SqlValue::Integer(1)]],
            cut: Some(QueryCut::Rows),
            pages_read: 2,
        };
        let json = serde_json::to_string(&answer).unwrap();
        assert!(json.contains(r#""columns":["a"],"rows":[[1]],"cut":"rows","pages_read":2"#), "{json}");
        assert_eq!(serde_json::from_str::<QueryAnswer>(&json).unwrap(), answer);
    }
}
