//! The part of a URL behind the question mark: known names only, each at most once.

use super::Failure;

/// The parameters of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) at: Option<String>,
    pub(super) time: Option<String>,
    pub(super) after: Option<String>,
    pub(super) limit: Option<String>,
    pub(super) all: Option<String>,
}

impl Query {
    /// How many entries the request wants.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, Failure> {
        let Some(limit) = &self.limit else { return Ok(default) };
        limit
            .parse()
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| Failure::bad_request(format!("limit must be a number from 1 to {most}")))
    }

    pub(super) fn parse(query: Option<&str>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "at" => &mut parsed.at,
                "time" => &mut parsed.time,
                "after" => &mut parsed.after,
                "limit" => &mut parsed.limit,
                "all" => &mut parsed.all,
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(Failure::bad_request(format!(
                        "unknown parameter {name:?}; there are at, time, after, limit and all"
                    )));
                }
            };
            let value = decoded(value)
                .ok_or_else(|| Failure::bad_request(format!("the value of {name} is not well-formed")))?;
            if place.replace(value).is_some() {
                return Err(Failure::bad_request(format!("{name} is given twice")));
            }
        }
        Ok(parsed)
    }
}

/// Decodes percent escapes.
fn decoded(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_others_refused() {
        let query = Query::parse(Some("at=1/9&limit=3")).unwrap();
        assert_eq!((query.at.as_deref(), query.limit.as_deref()), (Some("1/9"), Some("3")));
        assert_eq!(
            Query::parse(Some("time=2026-01-01T00%3A00%3A00Z")).unwrap().time.unwrap(),
            "2026-01-01T00:00:00Z"
        );
        for query in ["x=1", "at=1&at=2", "at=%zz", "at=%ff"] {
            assert!(Query::parse(Some(query)).is_err(), "{query}");
        }
    }
}
