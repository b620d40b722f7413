//! What `values.yaml` says: a comment above a key is its meaning.

use anyhow::{Result, ensure};

/// A value that users may set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its keys, joined by dots.
    pub path: String,
    /// What it is unless it is set.
    pub default: String,
    /// What it does.
    pub meaning: String,
}

/// The values in `text`, in their order. A key with a comment is one value, whatever lies below it.
pub fn entries(text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut keys: Vec<(usize, &str)> = Vec::new();
    // How far the last value with a comment is indented, while its lines go on.
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() {
            comment.clear();
            continue;
        }
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        if open.is_some_and(|at| indent > at) {
            if let Some(entry) = entries.last_mut() {
                if !entry.default.is_empty() {
                    entry.default += ", ";
                }
                entry.default += content;
            }
            continue;
        }
        open = None;
        while keys.last().is_some_and(|(at, _)| *at >= indent) {
            keys.pop();
        }
        let (key, default) = content.split_once(':').unwrap_or((content, ""));
        keys.push((indent, key));
        let names: Vec<_> = keys.iter().map(|(_, key)| *key).collect();
        let path = names.join(".");
        if comment.is_empty() {
            ensure!(
                default.is_empty(),
                "{path} has no comment that says what it does"
            );
            continue;
        }
        entries.push(Entry {
            path,
            default: default.trim().to_owned(),
            meaning: comment.join(" "),
        });
        comment.clear();
        open = Some(indent);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_meanings() {
        let text = "\
# About the file.

a:
  # The first,
  # in two lines.
  b: 1
  c:
    # Deeper.
    d: []
# A block.
e:
  f: {g: 1}
  h: 2
";
        let found = entries(text).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|it| (&*it.path, &*it.default, &*it.meaning))
            .collect();
        assert_eq!(
            found,
            [
                ("a.b", "1", "The first, in two lines."),
                ("a.c.d", "[]", "Deeper."),
                ("e", "f: {g: 1}, h: 2", "A block."),
            ]
        );
        let error = entries("a:\n  b: 1\n").unwrap_err();
        assert!(
            error.to_string().starts_with("a.b has no comment"),
            "{error}"
        );
    }
}
