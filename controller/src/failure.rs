//! Why the process cannot go on.

use std::{error::Error, fmt};

/// Why the process cannot go on: what it was doing, and the cause.
#[derive(Debug)]
pub struct Failure {
    action: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// What was done when `source` happened.
    pub fn new(action: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            action: action.into(),
            source: Some(source.into()),
        }
    }

    /// A failure without another one behind it.
    pub fn plain(what: impl Into<String>) -> Self {
        Self {
            action: what.into(),
            source: None,
        }
    }
}

impl Failure {
    /// What was done, and all causes.
    pub fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Says it in the log, with all its causes, as something that passes.
    pub fn warn(&self, what: &str) {
        tracing::warn!("{what}: {}", self.whole());
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
