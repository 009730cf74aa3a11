//! Progress bars for transfers that take long enough for a person to wonder.
//!
//! A bar appears on standard error only when that is a terminal and the work has gone on for half a
//! second, and it is gone when the work ends: what remains on the screen is the result.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long the work may take without a bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Turns progress reports into a bar. It may be called from any thread.
#[derive(Debug)]
pub(crate) struct Bar {
    started: Instant,
    enabled: bool,
    current: Mutex<Option<Current>>,
}

/// The stage that is under way. Its bar counts from the start, so that it knows the speed, and becomes
/// visible later.
#[derive(Debug)]
struct Current {
    stage: Stage,
    bar: ProgressBar,
    visible: bool,
}

impl Bar {
    /// A bar that shows nothing yet. With JSON output it never shows anything.
    pub(crate) fn new(json: bool) -> Self {
        let enabled = !json && io::stderr().is_terminal();
        Self { started: Instant::now(), enabled, current: Mutex::new(None) }
    }

    /// Takes a report.
    pub(crate) fn report(&self, progress: Progress) {
        if !self.enabled {
            return;
        }
        // A poisoned lock only means that another report panicked: the bar is still usable.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.stage != progress.stage) {
            if let Some(last) = current.take() {
                last.bar.finish_and_clear();
            }
            *current = Some(Current { stage: progress.stage, bar: hidden_bar(progress), visible: false });
        }
        let Some(current) = current.as_mut() else { return };
        if !current.visible && self.started.elapsed() >= PATIENCE {
            current.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            current.visible = true;
        }
        if let Some(total) = progress.total {
            current.bar.set_length(total);
        }
        current.bar.set_position(progress.done);
    }

    /// Removes the bar from the screen.
    pub(crate) fn clear(&self) {
        if let Some(last) = self.current.lock().unwrap_or_else(PoisonError::into_inner).take() {
            last.bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

fn hidden_bar(progress: Progress) -> ProgressBar {
    let (verb, bytes) = match progress.stage {
        Stage::Waiting => ("waiting for another sync of this file", false),
        Stage::Scanning => ("reading the local database", false),
        Stage::Sending => ("sending", true),
        Stage::Receiving => ("receiving", true),
        Stage::Applying => ("writing the local database", false),
        _ => ("working", false),
    };
    let template = match (bytes, progress.total) {
        (true, Some(_)) => {
            "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
        }
        (true, None) => "{spinner} {msg} {decimal_bytes} {decimal_bytes_per_sec}",
        (false, Some(_)) => "{msg} {wide_bar} {human_pos}/{human_len} pages {eta}",
        (false, None) => "{spinner} {msg}",
    };
    // The templates are constants; a mistake in one shows the default style, no more.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(progress.total, ProgressDrawTarget::hidden());
    bar.set_style(style);
    bar.set_message(verb);
    bar
}

/// A line that says how far a check has come, when nobody knows how much there is.
#[derive(Debug)]
pub(crate) struct Spinner {
    started: Instant,
    enabled: bool,
    shown: Mutex<Option<ProgressBar>>,
}

impl Spinner {
    /// A line that shows nothing yet. With JSON output it never shows anything.
    pub(crate) fn new(json: bool) -> Self {
        let enabled = !json && io::stderr().is_terminal();
        Self { started: Instant::now(), enabled, shown: Mutex::new(None) }
    }

    /// Shows a text, if it is time to show anything.
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if !self.enabled || self.started.elapsed() < PATIENCE {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(ProgressStyle::default_spinner());
            bar
        });
        bar.set_message(text());
        bar.tick();
    }

    /// Removes the line from the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
