//! Values of settings: one notation for the file, the environment and the command line.
//!
//! | kind | written as |
//! |---|---|
//! | number | `1000` |
//! | bytes | `67108864`, `64 MiB`, `1 GB` (1024 and 1000 as the units say) |
//! | time | `90` (seconds), `90s`, `1m 30s`, `500ms` |
//! | switch | `true`, `false` |
//! | text | as it is |
//! | list | `["a", "b"]` in the file, `a,b` elsewhere |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use highwater_server::StoreUrl;
use highwater_wire::{DbName, MergePolicy};

use crate::logging::LogFormat;

/// What a number means, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Bytes,
}

/// A value as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    Text(String),
    List(Vec<String>),
}

impl Raw {
    fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) => Err("one value is expected here, not a list".to_owned()),
        }
    }
}

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// Reads it; the error is a clause that says what is expected.
    fn read(raw: &Raw, kind: Kind) -> Result<Self, String>;
    /// Writes it as the file would have it; `None` when it is not set.
    fn write(&self, kind: Kind) -> Option<String>;
}

impl Setting for String {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        match raw.text()? {
            "" => Err("it is empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    fn write(&self, _: Kind) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for Option<String> {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, String> {
        String::read(raw, kind).map(Some)
    }

    fn write(&self, _: Kind) -> Option<String> {
        self.as_deref().map(quoted)
    }
}

impl Setting for Option<PathBuf> {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, String> {
        String::read(raw, kind).map(|path| Some(path.into()))
    }

    fn write(&self, _: Kind) -> Option<String> {
        self.as_ref().map(|path| quoted(&path.display().to_string()))
    }
}

impl Setting for Option<LogFormat> {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        match raw.text()? {
            "text" => Ok(Some(LogFormat::Text)),
            "json" => Ok(Some(LogFormat::Json)),
            other => Err(format!("{other:?} is neither text nor json")),
        }
    }

    fn write(&self, _: Kind) -> Option<String> {
        self.map(|format| quoted(format.as_str()))
    }
}

impl Setting for StoreUrl {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        raw.text()?.parse().map_err(|error: highwater_server::InvalidStoreUrl| error.to_string())
    }

    fn write(&self, _: Kind) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for MergePolicy {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        raw.text()?.parse().map_err(|_| "it is none of last-push-wins, first-push-wins and fail".to_owned())
    }

    fn write(&self, _: Kind) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

/// Policies of single databases: a list of `NAME=POLICY`, on the command line separated by commas.
impl Setting for BTreeMap<String, MergePolicy> {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, String> {
        let items: Vec<&str> = match raw {
            Raw::List(items) => items.iter().map(String::as_str).collect(),
            Raw::Text(text) => text.split(',').filter(|item| !item.trim().is_empty()).collect(),
        };
        let mut policies = Self::new();
        for item in items {
            let (name, policy) = item.split_once('=').ok_or_else(|| {
                format!("{item:?} is not NAME=POLICY, such as \"team/app=first-push-wins\"")
            })?;
            let name: DbName =
                name.trim().parse().map_err(|error: highwater_wire::InvalidName| error.to_string())?;
            let policy = MergePolicy::read(&Raw::Text(policy.to_owned()), kind)?;
            if policies.insert(name.to_string(), policy).is_some() {
                return Err(format!("{name} is named twice"));
            }
        }
        Ok(policies)
    }

    fn write(&self, _: Kind) -> Option<String> {
        let items = self.iter().map(|(name, policy)| toml::Value::String(format!("{name}={policy}")));
        Some(toml::Value::Array(items.collect()).to_string())
    }
}

impl Setting for bool {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        match raw.text()? {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }

    fn write(&self, _: Kind) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u64 {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, String> {
        let text = raw.text()?;
        match kind {
            Kind::Plain => text
                .replace('_', "")
                .parse()
                .map_err(|_| format!("{text:?} is not a whole number of at least 0, such as 1000")),
            Kind::Bytes => bytes(text)
                .ok_or_else(|| format!("{text:?} is not a number of bytes, such as 65536 or \"64 MiB\"")),
        }
    }

    fn write(&self, kind: Kind) -> Option<String> {
        Some(match kind {
            Kind::Plain => self.to_string(),
            Kind::Bytes => {
                let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
                let unit = unit.iter().find(|(shift, _)| *self > 0 && self.is_multiple_of(1 << shift));
                unit.map_or(self.to_string(), |(shift, unit)| format!("\"{} {unit}\"", self >> shift))
            }
        })
    }
}

macro_rules! smaller_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(raw: &Raw, kind: Kind) -> Result<Self, String> {
                u64::read(raw, kind)?
                    .try_into()
                    .map_err(|_| format!("it is larger than the largest possible ({})", Self::MAX))
            }

            fn write(&self, kind: Kind) -> Option<String> {
                u64::try_from(*self).ok()?.write(kind)
            }
        }
    )*};
}

smaller_number!(u32, usize);

impl Setting for Duration {
    fn read(raw: &Raw, _: Kind) -> Result<Self, String> {
        let text = raw.text()?;
        if let Ok(seconds) = text.parse() {
            return Ok(Self::from_secs(seconds));
        }
        humantime::parse_duration(text)
            .map_err(|_| format!("{text:?} is not a time, such as 90 (seconds), \"1m 30s\" or \"500ms\""))
    }

    fn write(&self, _: Kind) -> Option<String> {
        Some(quoted(&humantime::format_duration(*self).to_string()))
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_have_units() {
        let read = |raw: &str| u64::read(&text(raw), Kind::Bytes);
        for (raw, bytes) in [("65536", 65536), ("64 MiB", 64 << 20), ("1GB", 1_000_000_000), ("0", 0)] {
            assert_eq!(read(raw), Ok(bytes), "{raw}");
        }
        for raw in ["", "MiB", "-1", "1.5 GiB", "64 MIB", "99999999999 TiB"] {
            assert!(read(raw).is_err(), "{raw}");
        }
        assert_eq!((64_u64 << 20).write(Kind::Bytes).unwrap(), "\"64 MiB\"");
        assert_eq!(1000_u64.write(Kind::Bytes).unwrap(), "1000");
    }

    #[test]
    fn times_are_seconds_unless_they_say_otherwise() {
        let read = |raw: &str| Duration::read(&text(raw), Kind::Plain);
        assert_eq!(read("90"), Ok(Duration::from_secs(90)));
        assert_eq!(read("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert!(read("soon").is_err());
        assert_eq!(Duration::from_secs(90).write(Kind::Plain).unwrap(), "\"1m 30s\"");
    }

    #[test]
    fn policies_of_databases_are_a_list() {
        let read = |raw| BTreeMap::<String, MergePolicy>::read(&raw, Kind::Plain);
        let both =
            read(Raw::List(vec!["team/app=fail".to_owned(), "b = first-push-wins".replace(" = ", "=")]));
        assert_eq!(read(text("team/app=fail,b=first-push-wins")), both);
        let both = both.unwrap();
        assert_eq!(both["team/app"], MergePolicy::Fail);
        assert_eq!(both.write(Kind::Plain).unwrap(), r#"["b=first-push-wins", "team/app=fail"]"#);
        for wrong in ["app", "app=win", "../x=fail", "a=fail,a=fail"] {
            assert!(read(text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert!(u32::read(&text("4294967296"), Kind::Plain).is_err());
        assert_eq!(u32::read(&text("1_000"), Kind::Plain), Ok(1000));
    }
}
