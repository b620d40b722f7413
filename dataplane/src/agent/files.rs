//! The files given as `--manifests`: reading them, and what they mean for this node.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use node_api::NodeConfig;

/// Names, for messages, and texts; in the order of names.
pub(super) type FileSet = Vec<(String, String)>;

/// Larger files are refused: they hold something else.
const LARGEST_FILE: u64 = 16 << 20;

/// Why files could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The kernel refused.
    #[error("cannot read {path}")]
    Read {
        /// File or directory.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A directory without a manifest.
    #[error("{path} holds no *.yaml or *.yml file; put the manifests there")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Not a manifest.
    #[error("{path} is larger than 16 MiB; a manifest is never that large")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the file, or all `*.yaml` and `*.yml` of the directory, in the order of names.
pub(super) fn read(source: &Path) -> Result<FileSet, ReadError> {
    let metadata = fs::metadata(source).map_err(failed(source))?;
    if !metadata.is_dir() {
        return Ok(vec![read_file(source)?]);
    }
    let paths = manifests_in(source).map_err(failed(source))?;
    if paths.is_empty() {
        return Err(ReadError::Empty {
            path: source.to_owned(),
        });
    }
    paths.iter().map(|path| read_file(path)).collect()
}

/// Manifests of a directory, sorted; hidden files, which editors leave behind, are none.
pub(super) fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|text| text.to_str());
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if matches!(extension, Some("yaml" | "yml")) && !hidden && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<(String, String), ReadError> {
    if fs::metadata(path).map_err(failed(path))?.len() > LARGEST_FILE {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = fs::read_to_string(path).map_err(failed(path))?;
    Ok((path.display().to_string(), text))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |source| ReadError::Read { path, source }
}

/// What accepted files mean for this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Accepted {
    /// What the node is to do.
    pub(super) config: NodeConfig,
    /// References that lead nowhere yet, each a sentence.
    pub(super) unresolved: Vec<String>,
}

/// Why files were not accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// What must be corrected, each a sentence with file, object, field and remedy.
    Content(Vec<String>),
    /// They are in order and do not know this node.
    Node(String),
}

impl Refused {
    /// The sentences.
    pub(super) fn sentences(&self) -> &[String] {
        match self {
            Self::Content(sentences) => sentences,
            Self::Node(sentence) => std::slice::from_ref(sentence),
        }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("; "))
    }
}

/// Accepts or refuses a set of files as a whole.
pub(super) fn evaluate(files: &FileSet, node_name: &str) -> Result<Accepted, Refused> {
    let objects = plan::manifests::parse(files)
        .map_err(|refusals| Refused::Content(refusals.iter().map(ToString::to_string).collect()))?;
    let plan = plan::plan(&plan::Inputs::plain_hosts(objects));
    let sentences = |problems: &std::collections::BTreeMap<_, Vec<plan::Problem>>| {
        let of_pool = |(pool, problems): (&node_api::PoolRef, &Vec<plan::Problem>)| {
            let name = format!("WebSocketHAPool {pool}");
            let sentences = problems
                .iter()
                .map(move |problem| format!("{name}: {problem}"));
            sentences.collect::<Vec<_>>()
        };
        problems.iter().flat_map(of_pool).collect::<Vec<_>>()
    };
    if !plan.rejected.is_empty() {
        return Err(Refused::Content(sentences(&plan.rejected)));
    }
    let config = plan::node_config(&plan, node_name).map_err(|unknown| {
        Refused::Node(format!(
            "--node-name: {unknown}; add a Node or correct the name"
        ))
    })?;
    Ok(Accepted {
        config,
        unresolved: sentences(&plan.unresolved),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    #[test]
    fn a_directory_gives_its_manifests_in_order() {
        let directory = Directory::new();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "c.yaml~"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        fs::create_dir(directory.path().join("d.yaml")).unwrap();
        let texts: Vec<_> = read(directory.path())
            .unwrap()
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(texts, ["a.yml", "b.yaml"]);
    }

    #[test]
    fn an_empty_directory_and_a_missing_file_are_errors() {
        let directory = Directory::new();
        let error = read(directory.path()).unwrap_err();
        assert!(matches!(error, ReadError::Empty { .. }));
        let error = read(&directory.path().join("none.yaml")).unwrap_err();
        assert!(matches!(error, ReadError::Read { .. }));
    }
}
