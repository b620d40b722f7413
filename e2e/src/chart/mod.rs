//! The chart: where it lies, what Helm makes of it, and the table of values in its README, which is written
//! from `values.yaml`.

mod render;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use self::render::{Objects, Right, helm, render, rights};
pub use self::values::{Entry, entries};

const BEGIN: &str = "<!-- values: from values.yaml, by `make chart` -->\n";
const END: &str = "<!-- end of values -->";

/// The chart's folder.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/wsha")
}

/// A file of the chart.
pub fn read(file: &str) -> Result<String> {
    let path = folder().join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The README as it should be.
pub fn readme() -> Result<String> {
    let text = read("README.md")?;
    let (head, rest) = text
        .split_once(BEGIN)
        .context("README.md of the chart has no mark where the values begin")?;
    let (_, tail) = rest
        .split_once(END)
        .context("README.md of the chart has no mark where the values end")?;
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    for entry in entries(&read("values.yaml")?)? {
        let meaning = entry.meaning.replace('|', "\\|");
        let row = format!("| `{}` | `{}` | {meaning} |\n", entry.path, entry.default);
        table += &row;
    }
    Ok(format!("{head}{BEGIN}{table}{END}{tail}"))
}
