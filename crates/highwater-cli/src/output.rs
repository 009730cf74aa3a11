//! What goes to standard output, and how numbers read.
//!
//! A reader that closes the pipe (`highwater log … | head`) ends the program quietly: the write comes
//! back as a [`Failure`] that reports nothing.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::failure::Failure;

/// Where results go, as text or as JSON.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line, or several, for a person.
    pub(crate) fn line(&self, text: impl fmt::Display) -> Result<(), Failure> {
        Self::write(format_args!("{text}\n"))
    }

    /// Prints one value as one line of JSON.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::failed("internal", format!("the answer cannot be written as JSON: {error}"))
        })?;
        self.line(text)
    }

    fn write(text: fmt::Arguments<'_>) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
            _ => Failure::failed("output", format!("writing to standard output failed: {error}")),
        })
    }
}

/// Prints a remark to standard error; what cannot be printed there is lost on purpose.
pub(crate) fn remark(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A number of bytes in decimal units, three digits: `980 B`, `12.3 kB`, `1.07 GB`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        // Precision beyond three digits is not shown.
        #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
        let mut size = self.0 as f64 / 1000.0;
        let mut unit = "kB";
        for larger in ["MB", "GB", "TB"] {
            if size < 999.5 {
                break;
            }
            size /= 1000.0;
            unit = larger;
        }
        let digits = if size < 9.995 { 2 } else { usize::from(size < 99.95) };
        f.pad(&format!("{size:.digits$} {unit}"))
    }
}

/// A number with its noun: `1 frame`, `2 frames`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped(number)) }
}

/// Digits in groups of three: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in the unit that suits it: `3 ms`, `1.25 s`.
pub(crate) fn took(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) {
        format!("{} ms", elapsed.as_millis().max(1))
    } else {
        format!("{:.2} s", elapsed.as_secs_f64())
    }
}

/// Milliseconds since 1970 as `2026-01-31T12:00:00Z`.
pub(crate) fn time(milliseconds: i64) -> String {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let shown = [0, 999, 1000, 9_994, 12_345, 999_499, 999_500, 1_073_741_824, 5_000_000_000_000]
            .map(|bytes| Bytes(bytes).to_string());
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "12.3 kB", "999 kB", "1.00 MB", "1.07 GB", "5.00 TB"]
        );
    }

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        assert_eq!(count(1, "page"), "1 page");
        assert_eq!(count(0, "page"), "0 pages");
        assert_eq!(count(1_234_567, "page"), "1,234,567 pages");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1000), "1,000");
    }
}
