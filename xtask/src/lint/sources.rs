//! The Rust files of the members, as the rules see them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::text_of;
use crate::workspace;

pub(super) struct Source {
    /// Path below the workspace root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// Every `.rs` file of every member.
pub(super) fn read() -> Result<Vec<Source>> {
    let root = workspace::root();
    let mut sources = Vec::new();
    for (_, folder) in workspace::MEMBERS {
        collect(&root, &root.join(folder), &mut sources)?;
    }
    Ok(sources)
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            sources.push(Source { path: below, text: text_of(&path)? });
        }
    }
    Ok(())
}
