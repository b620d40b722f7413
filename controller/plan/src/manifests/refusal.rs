//! Why files were refused.

use std::fmt;

/// One thing to be corrected in the files. Displays as one sentence that names file, object, field
/// and remedy.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Refusal {
    /// The file, as it was named by the caller.
    pub file: String,
    /// Kind, namespace and name of the object, where one could be made out.
    pub object: Option<String>,
    /// The field, from the root of the object.
    pub path: Option<String>,
    /// What is wrong and what to do about it, without a full stop.
    pub message: String,
}

impl Refusal {
    /// A refusal of a whole file.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            object: None,
            path: None,
            message: message.into(),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)
    }
}
