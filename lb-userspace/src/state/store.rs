//! The overlay's file: `changes.json` in the state directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;

use super::Overlay;
use crate::model::Change;

/// Version of the file's form.
const VERSION: u32 = 1;
const FILE_NAME: &str = "changes.json";

/// Where the overlay lives.
#[derive(Debug, Clone)]
pub struct OverlayFile {
    path: PathBuf,
}

#[derive(Debug, Error)]
pub enum OverlayError {
    #[error("cannot create the state directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot read the stored changes {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the stored changes {} are damaged; repair the file, or move it away to start from the configuration alone",
        path.display()
    )]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(
        "the stored changes {} have version {found}, this bowline reads version {VERSION}; use the bowline that \
         wrote them, or move the file away to start from the configuration alone",
        path.display()
    )]
    Version { path: PathBuf, found: u32 },
    #[error("cannot write the stored changes {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    changes: Vec<Change>,
}

/// Read first, so that a file of another version is not called damaged.
#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

impl OverlayFile {
    pub fn in_directory(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored overlay; an empty one where there is no file.
    pub fn load(&self) -> Result<Overlay, OverlayError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overlay::default()),
            Err(source) => return Err(OverlayError::Read { path: path(), source }),
        };
        let damaged = |source| OverlayError::Damaged { path: path(), source };
        let StoredVersion { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version != VERSION {
            return Err(OverlayError::Version { path: path(), found: version });
        }
        let stored: Stored = serde_json::from_slice(&text).map_err(damaged)?;
        Ok(Overlay::new(stored.changes))
    }

    /// Replaces the file. When this returns `Ok`, the overlay survives a power cut; on error the old file stands.
    pub fn save(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)
            .map_err(|source| OverlayError::Directory { path: directory.to_owned(), source })?;
        let stored = Stored { version: VERSION, changes: overlay.changes().to_vec() };
        self.replace(directory, &stored)
            .map_err(|source| OverlayError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, directory: &Path, stored: &Stored) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut file, stored)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // The rename itself is durable only when the directory is.
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::{AdminState, Change};

    fn overlay() -> Overlay {
        let address = "10.8.11.2".parse().expect("an address");
        Overlay::new(vec![
            Change::SetWeight { pool: "web".to_owned(), address, weight: 7 },
            Change::SetAdmin { pool: "web".to_owned(), address, state: AdminState::Drain },
        ])
    }

    #[test]
    fn a_saved_overlay_loads_as_itself_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("deep/state");
        let file = OverlayFile::in_directory(&state);
        file.save(&overlay()).expect("saves");
        assert_eq!(file.load().expect("loads"), overlay());
        assert_eq!(fs::read_dir(&state).expect("lists").count(), 1);
    }

    #[test]
    fn no_file_is_an_empty_overlay() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(OverlayFile::in_directory(directory.path()).load().expect("loads"), Overlay::default());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_it_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = OverlayFile::in_directory(directory.path());
        file.save(&overlay()).expect("saves");
        let whole = fs::read(file.path()).expect("reads");
        for length in 0..whole.len() - 2 {
            fs::write(file.path(), &whole[..length]).expect("writes");
            let error = file.load().expect_err("a cut file");
            assert!(error.to_string().contains("changes.json"), "{error}");
            assert!(error.to_string().contains("move it away"), "{error}");
        }
        assert!(file.path().exists());
    }

    #[test]
    fn a_file_of_another_version_is_refused_by_its_version() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = OverlayFile::in_directory(directory.path());
        fs::write(file.path(), r#"{"version": 2, "changes": [], "more": 1}"#).expect("writes");
        let error = file.load().expect_err("a later version");
        assert!(matches!(error, OverlayError::Version { found: 2, .. }), "{error}");
    }

    #[test]
    fn the_old_file_stands_when_the_new_one_cannot_be_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = OverlayFile::in_directory(directory.path());
        file.save(&overlay()).expect("saves");
        // A directory in the file's place makes the rename fail for root too.
        let blocked = OverlayFile { path: directory.path().join("blocked") };
        fs::create_dir_all(blocked.path().join("full")).expect("creates");
        assert!(matches!(blocked.save(&overlay()), Err(OverlayError::Write { .. })));
        assert_eq!(file.load().expect("loads"), overlay());
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 2, "no temporary file is left");
        let mode = fs::metadata(file.path()).expect("stat").permissions().mode();
        assert_eq!(mode & 0o077, 0, "only the daemon reads it");
    }
}
