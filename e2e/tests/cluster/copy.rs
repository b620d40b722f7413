//! A copy of the tree that is the next release: of another version, which speaks the next version of the
//! control stream.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use node_api::Protocol;

/// What the programs are built from, and the chart.
const PARTS: [&str; 5] = ["charts", "controller", "crds", "dataplane", "e2e"];
/// The files of theirs that differ.
const CHART: &str = "charts/wsha/Chart.yaml";
const PROTOCOL: &str = "dataplane/node-api/src/protocol.rs";

/// Brings the copy in `into` up to date. Files that are right already are not touched: cargo goes by their
/// times.
pub(crate) fn of_next_release(tree: &Path, into: &Path, version: &str, next: &str) -> Result<()> {
    for part in PARTS {
        same(&tree.join(part), &into.join(part))?;
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        let text = fs::read_to_string(tree.join(file))?;
        write(
            &into.join(file),
            renumbered(&text, version, next).as_bytes(),
        )?;
    }
    let number = Protocol::NEWEST.number();
    let newest = |number: u32| format!("const NEWEST: u32 = {number};");
    for (file, old, new) in [
        (CHART, version.to_owned(), next.to_owned()),
        (PROTOCOL, newest(number), newest(number + 1)),
    ] {
        let text = fs::read_to_string(tree.join(file))?;
        ensure!(text.contains(&old), "{file} does not say {old}");
        write(&into.join(file), text.replace(&old, &new).as_bytes())?;
    }
    Ok(())
}

/// The version of all that is ours: in the lock file, of all without a source.
fn renumbered(text: &str, version: &str, other: &str) -> String {
    let number = format!("version = \"{version}\"");
    let lines: Vec<&str> = text.lines().collect();
    let mut all = String::new();
    for (index, line) in lines.iter().enumerate() {
        let foreign = lines
            .get(index + 1)
            .is_some_and(|next| next.starts_with("source"));
        if *line == number && !foreign {
            all.push_str(&number.replace(version, other));
        } else {
            all.push_str(line);
        }
        all.push('\n');
    }
    all
}

fn same(from: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(into)?.flatten() {
        let path = entry.path();
        match (from.join(entry.file_name()).exists(), path.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(path)?,
            (false, false) => fs::remove_file(path)?,
        }
    }
    for entry in fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        let (path, copy) = (entry.path(), into.join(&name));
        if name == "target"
            || [CHART, PROTOCOL]
                .iter()
                .any(|differs| path.ends_with(differs))
        {
            continue;
        }
        if path.is_dir() {
            same(&path, &copy)?;
        } else {
            write(&copy, &fs::read(&path)?)?;
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
