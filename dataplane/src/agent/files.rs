//! The files given as `--manifests`: reading them, and what they mean for this node.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

use node_api::NodeConfig;

use crate::sys::regular;

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
    /// A named pipe or device.
    #[error("{path} is not a regular file; put a file there, or a symbolic link to one")]
    NoFile {
        /// What is there instead.
        path: PathBuf,
    },
    /// Not a manifest.
    #[error("{path} is not a text in UTF-8; save it as one")]
    NoText {
        /// The file.
        path: PathBuf,
        /// Where it is not.
        #[source]
        source: FromUtf8Error,
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
        if is_manifest(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file of that name is one in a directory of manifests.
pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|text| text.to_str());
    let name = path.file_name();
    let is_hidden = name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    matches!(extension, Some("yaml" | "yml")) && !is_hidden
}

fn read_file(path: &Path) -> Result<(String, String), ReadError> {
    let Some(file) = regular::open(path).map_err(failed(path))? else {
        return Err(ReadError::NoFile {
            path: path.to_owned(),
        });
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = String::from_utf8(bytes).map_err(|source| ReadError::NoText {
        path: path.to_owned(),
        source,
    })?;
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
    /// What may be meant so and may not, each a sentence.
    pub(super) remarks: Vec<String>,
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
    let plan::manifests::Accepted { plan, .. } = plan::manifests::accept(files)
        .map_err(|refusals| Refused::Content(refusals.iter().map(ToString::to_string).collect()))?;
    let config = plan::node_config(&plan, node_name).map_err(|unknown| {
        Refused::Node(format!(
            "--node-name: {unknown}; add a Node or correct the name, or stop the agent of a host \
             that is to take no part"
        ))
    })?;
    let remarks = plan.unresolved.iter().flat_map(|(pool, problems)| {
        let problems = problems.iter();
        problems.map(move |problem| format!("WebSocketHAPool {pool}: {problem}"))
    });
    Ok(Accepted {
        config,
        remarks: remarks.collect(),
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
    fn what_is_no_text_file_is_named() {
        let directory = Directory::new();
        let path = directory.path().join("a.yaml");
        let error = read(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, ReadError::NoFile { .. }), "{error}");
        fs::write(&path, [b'a', 0xff]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("UTF-8; save it"), "{error}");
        let file = fs::File::create(&path).unwrap();
        file.set_len(LARGEST_FILE).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(LARGEST_FILE + 1).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, ReadError::TooLarge { .. }), "{error}");
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
