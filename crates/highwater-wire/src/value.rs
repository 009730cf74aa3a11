//! SQLite's values in JSON, without loss.
//!
//! | value | JSON |
//! |---|---|
//! | NULL | `null` |
//! | integer | a number without a fraction |
//! | real | a number with a fraction or an exponent; `{"real":"inf"}` and `{"real":"-inf"}` for what JSON has no number for |
//! | text | a string; `{"text":"BASE64"}` when it is not UTF-8 |
//! | blob | `{"blob":"BASE64"}` |

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, as bytes of UTF-8; SQLite does not make sure that it is.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// Text that is known to be UTF-8.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

/// As it stands in SQL.
impl fmt::Display for SqlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(number) => number.fmt(f),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "'{}'", String::from_utf8_lossy(text).replace('\'', "''")),
            Self::Blob(bytes) => {
                f.write_str("x'")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("'")
            }
        }
    }
}

impl Serialize for SqlValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |tag: &str, text: String| Map::from_iter([(tag.to_owned(), Json::String(text))]);
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            Self::Real(number) => tagged("real", number.to_string()).serialize(serializer),
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => tagged("text", BASE64.encode(bytes)).serialize(serializer),
            },
            Self::Blob(bytes) => tagged("blob", BASE64.encode(bytes)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SqlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = |text: &str| BASE64.decode(text).map_err(D::Error::custom);
        match Json::deserialize(deserializer)? {
            Json::Null => Ok(Self::Null),
            Json::String(text) => Ok(Self::Text(text.into_bytes())),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Ok(Self::Integer(integer)),
                (None, Some(real)) => Ok(Self::Real(real)),
                _ => Err(D::Error::custom("a number that SQLite does not have")),
            },
            Json::Object(map) => match map.iter().next() {
                Some((tag, Json::String(text))) => match tag.as_str() {
                    "real" => text.parse().map(Self::Real).map_err(D::Error::custom),
                    "text" => bytes(text).map(Self::Text),
                    "blob" => bytes(text).map(Self::Blob),
                    _ => Err(D::Error::custom("a value of an unknown kind")),
                },
                _ => Err(D::Error::custom("a value of an unknown kind")),
            },
            _ => Err(D::Error::custom("neither null, a number, a text nor an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_was() {
        let values = [
            SqlValue::Null,
            SqlValue::Integer(i64::MIN),
            SqlValue::Real(1.0),
            SqlValue::Real(-0.1),
            SqlValue::Real(1e300),
            SqlValue::Real(f64::NEG_INFINITY),
            SqlValue::text("it's"),
            SqlValue::Text(vec![0xff, 0xfe]),
            SqlValue::Blob(vec![0, 1, 255]),
        ];
        for value in values {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<SqlValue>(&json).unwrap(), value, "{json}");
        }
    }

    #[test]
    fn values_read_as_sql() {
        assert_eq!(SqlValue::text("it's").to_string(), "'it''s'");
        assert_eq!(SqlValue::Real(2.0).to_string(), "2.0");
        assert_eq!(SqlValue::Blob(vec![10, 255]).to_string(), "x'0aff'");
    }
}
