//! The layers of tests that may find a bug, as commands.

use std::fmt;

/// A layer of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Whole runs of devices and servers with faults, from seeds.
    Simulation,
    /// Every disk that a power cut can leave.
    Crash,
    /// Random histories with merges, judged by a second opinion.
    Histories,
    /// A test of a crate: its file in `tests`, built with the feature.
    Test {
        /// The crate.
        package: &'static str,
        /// The name of the file.
        file: &'static str,
    },
}

/// A command of a layer that must fail when there is a certain bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// Whose command.
    pub layer: Layer,
    /// What follows the layer's own arguments, separated by spaces.
    pub arguments: &'static str,
}

impl Layer {
    /// The three that are programs, with what each of them is asked when every layer is tried on every bug.
    pub const PROGRAMS: [Check; 3] = [
        Check { layer: Self::Simulation, arguments: "--count 150" },
        Check { layer: Self::Histories, arguments: "--count 200" },
        Check { layer: Self::Crash, arguments: "" },
    ];

    /// The package that it is in.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Simulation => "highwater-sim",
            Self::Crash => "highwater-crash",
            Self::Histories => "highwater-histories",
            Self::Test { package, .. } => package,
        }
    }

    /// The name of its program.
    pub(crate) fn program(self) -> &'static str {
        if let Self::Test { file, .. } = self { file } else { self.package() }
    }

    /// What comes before a check's own arguments.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Simulation => &["run", "--jobs", "1"],
            Self::Crash => &["run", "--jobs", "1", "--first"],
            Self::Histories => &["run", "--jobs", "1", "--no-shrink"],
            Self::Test { .. } => &["--exact"],
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulation => f.write_str("simulation"),
            Self::Crash => f.write_str("crash matrix"),
            Self::Histories => f.write_str("histories"),
            Self::Test { package, file } => write!(f, "{package}/tests/{file}.rs"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layer)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, " {}", self.arguments) }
    }
}
