//! What was measured, as a table or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// What a number should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The value itself is at most this.
    AtMost(f64),
    /// Its ratio to the baseline is at most this.
    RatioAtMost(f64),
    /// Its ratio to the baseline is at least this.
    RatioAtLeast(f64),
}

/// When a target is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Due {
    /// A miss is a defect.
    Now,
    /// What the project aims at.
    Later,
}

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "requests")]
    Requests,
    #[serde(rename = "reads")]
    Reads,
    #[serde(rename = "commits/s")]
    CommitsPerSecond,
}

/// One number.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) workload: &'static str,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// The smallest and the largest of the repetitions, when there were several.
    pub(crate) range: Option<(f64, f64)>,
    /// What it is compared with, in the same unit.
    pub(crate) baseline: Option<(String, f64)>,
    pub(crate) target: Option<(Target, Due)>,
}

impl Line {
    pub(crate) fn new(workload: &'static str, what: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { workload, what: what.into(), value, unit, range: None, baseline: None, target: None }
    }

    /// The median of repetitions.
    pub(crate) fn of(workload: &'static str, what: impl Into<String>, unit: Unit, values: &[f64]) -> Self {
        let line = Self::new(workload, what, unit, crate::measure::median(values));
        Self { range: (values.len() > 1).then(|| crate::measure::range(values)), ..line }
    }

    pub(crate) fn against(mut self, what: &str, baseline: f64) -> Self {
        self.baseline = Some((what.to_owned(), baseline));
        self
    }

    /// What it has to be now.
    pub(crate) fn must(mut self, target: Target) -> Self {
        self.target = Some((target, Due::Now));
        self
    }

    /// What it is to be in the end.
    pub(crate) fn aim(mut self, target: Target) -> Self {
        self.target = Some((target, Due::Later));
        self
    }

    pub(crate) fn ratio(&self) -> Option<f64> {
        self.baseline
            .as_ref()
            .filter(|(_, baseline)| *baseline > 0.0)
            .map(|(_, baseline)| self.value / baseline)
    }

    /// Whether the target is met.
    pub(crate) fn met(&self) -> Option<bool> {
        let (target, _) = self.target?;
        Some(match target {
            Target::AtMost(limit) => self.value <= limit,
            Target::RatioAtMost(limit) => self.ratio()? <= limit,
            Target::RatioAtLeast(limit) => self.ratio()? >= limit,
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.met(), self.target) {
            (Some(true), _) => "pass",
            (Some(false), Some((_, Due::Now))) => "MISS",
            (Some(false), _) => "not yet",
            (None, _) => "",
        }
    }

    fn target_text(&self) -> String {
        let Some((target, due)) = self.target else { return String::new() };
        let text = match target {
            Target::AtMost(limit) => format!("<= {}", self.unit.show(limit)),
            Target::RatioAtMost(limit) => format!("<= {limit:.2}x"),
            Target::RatioAtLeast(limit) => format!(">= {limit:.2}x"),
        };
        if due == Due::Later { format!("aim {text}") } else { text }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            Self::Milliseconds if value >= 100.0 => format!("{value:.0} ms"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Bytes if value >= 1e9 => format!("{:.3} GB", value / 1e9),
            Self::Bytes if value >= 1e6 => format!("{:.2} MB", value / 1e6),
            Self::Bytes if value >= 1e4 => format!("{:.1} kB", value / 1e3),
            Self::Bytes => format!("{value:.0} B"),
            Self::Requests => format!("{value:.0}"),
            Self::Reads => format!("{value:.0} reads"),
            Self::CommitsPerSecond => format!("{value:.0}/s"),
        }
    }
}

/// All numbers as a table in Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut rows =
        vec![["", "what", "measured", "from .. to", "baseline", "ratio", "target", ""].map(str::to_owned)];
    for line in lines {
        let baseline = line.baseline.as_ref();
        rows.push([
            line.workload.to_owned(),
            line.what.clone(),
            line.unit.show(line.value),
            line.range.map_or_else(String::new, |(low, high)| {
                format!("{} .. {}", line.unit.show(low), line.unit.show(high))
            }),
            baseline.map_or_else(String::new, |(what, value)| format!("{what}: {}", line.unit.show(*value))),
            line.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}x")),
            line.target_text(),
            line.verdict().to_owned(),
        ]);
    }
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            widths.iter().for_each(|width| text.push_str(&format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}

/// All numbers as one object of JSON.
pub(crate) fn json(machine: &str, lines: &[Line]) -> serde_json::Result<String> {
    let lines: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| {
            let mut value = serde_json::to_value(line)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("ratio".to_owned(), line.ratio().into());
                object.insert("met".to_owned(), line.met().into());
            }
            Ok(value)
        })
        .collect::<serde_json::Result<_>>()?;
    serde_json::to_string_pretty(&serde_json::json!({ "machine": machine, "measurements": lines }))
}
