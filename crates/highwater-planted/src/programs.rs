//! Building the layers with the feature that makes bugs possible, once for all of them.
//!
//! They are built where everything else is, so that only this workspace's crates are compiled anew; what was built is then
//! copied away, and the next ordinary build puts its own programs there again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::layer::Layer;

/// The feature; its crate is at the bottom of all others. With the whole workspace selected, other people's crates are
/// built with the very features that an ordinary build gives them, and need not be built again.
const FEATURE: [&str; 3] = ["--workspace", "--features", "highwater-ltx/planted-bugs"];

/// Where the programs of the layers are.
#[derive(Debug)]
pub struct Programs(BTreeMap<Layer, PathBuf>);

impl Programs {
    /// Builds those of these layers, and puts them into a folder.
    ///
    /// # Errors
    /// When something does not build.
    pub fn build(layers: &BTreeSet<Layer>, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let names = layers.iter().flat_map(|layer| {
            [if matches!(layer, Layer::Test { .. }) { "--test" } else { "--bin" }, layer.program()]
        });
        let built = cargo(names)?;
        let mut programs = BTreeMap::new();
        for layer in layers {
            let (package, name) = (layer.package(), layer.program());
            let found = built.iter().find(|program| program.package == package && program.name == name);
            let found = found.with_context(|| format!("{package} has no program {name}"))?;
            let copy = folder.join(format!("{package}-{name}"));
            // The copy of an earlier build may be a program that still runs.
            let _ = std::fs::remove_file(&copy);
            std::fs::copy(&found.path, &copy).with_context(|| format!("copying {}", found.path.display()))?;
            programs.insert(*layer, copy);
        }
        Ok(Self(programs))
    }

    /// The program of a layer.
    ///
    /// # Errors
    /// When it was not built.
    pub fn of(&self, layer: Layer) -> Result<&Path> {
        self.0.get(&layer).map(PathBuf::as_path).with_context(|| format!("{layer} was not built"))
    }
}

/// A program that cargo has built.
struct Built {
    package: String,
    name: String,
    path: PathBuf,
}

/// Builds with the feature, as tests are built, and returns the programs that came of it.
fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Vec<Built>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--locked", "--message-format", "json-render-diagnostics"])
        .args(FEATURE)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "the layers do not build with planted bugs");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(messages.lines().filter_map(|line| built(&serde_json::from_str(line).ok()?)).collect())
}

fn built(message: &Value) -> Option<Built> {
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    // `path+file:///…/highwater-sim#0.1.0`
    let (folder, _) = message.get("package_id")?.as_str()?.rsplit_once('#')?;
    let (_, package) = folder.rsplit_once('/')?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some(Built { package: package.to_owned(), name: name.to_owned(), path })
}
