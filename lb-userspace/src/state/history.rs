//! The histories' files: `history/<pool>` in the state directory, each with its previous copy beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lb_common::rows::{Checkpoint, CheckpointError};
use tempfile::NamedTempFile;
use thiserror::Error;

const DIRECTORY: &str = "history";
const PREVIOUS: &str = ".previous";

/// Where the histories live.
#[derive(Debug, Clone)]
pub struct HistoryFiles {
    directory: PathBuf,
}

#[derive(Debug, Error)]
pub enum HistoryError {
    #[error("cannot read the history {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the history {} is damaged; put the previous copy {} in its place, or move it away to start without \
         history: flows on rows that changed their backend break",
        path.display(),
        previous.display()
    )]
    Damaged { path: PathBuf, previous: PathBuf, source: CheckpointError },
    #[error(
        "the history {} is of another bowline; use the bowline that wrote it, or move it away to start without \
         history: flows on rows that changed their backend break",
        path.display()
    )]
    Version { path: PathBuf, source: CheckpointError },
    #[error("cannot write the history {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl HistoryFiles {
    pub fn in_directory(state_dir: &Path) -> Self {
        Self { directory: state_dir.join(DIRECTORY) }
    }

    /// The file of a pool. The name of a pool has no slash and does not begin with a dot.
    pub fn path(&self, pool: &str) -> PathBuf {
        self.directory.join(format!("{pool}.rows"))
    }

    fn previous(&self, pool: &str) -> PathBuf {
        self.directory.join(format!("{pool}.rows{PREVIOUS}"))
    }

    /// The stored histories of `pools`; those without a file are missing. Files of other pools stay.
    pub fn load<'a>(
        &self,
        pools: impl IntoIterator<Item = &'a String>,
    ) -> Result<BTreeMap<String, Checkpoint>, HistoryError> {
        let mut histories = BTreeMap::new();
        for pool in pools {
            if let Some(checkpoint) = self.load_one(pool)? {
                histories.insert(pool.clone(), checkpoint);
            }
        }
        Ok(histories)
    }

    fn load_one(&self, pool: &str) -> Result<Option<Checkpoint>, HistoryError> {
        let path = self.path(pool);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HistoryError::Read { path, source }),
        };
        Checkpoint::from_bytes(&bytes).map(Some).map_err(|source| match source {
            CheckpointError::NewerFormat { .. } | CheckpointError::OtherContract { .. } => {
                HistoryError::Version { path, source }
            }
            CheckpointError::Foreign | CheckpointError::Damaged => {
                HistoryError::Damaged { path, previous: self.previous(pool), source }
            }
        })
    }

    /// Replaces the file of a pool and keeps the one before. When this returns `Ok`, the history survives a power
    /// cut; on error the old file stands.
    pub fn save(&self, pool: &str, checkpoint: &Checkpoint) -> Result<(), HistoryError> {
        let failure = |source| HistoryError::Write { path: self.path(pool), source };
        fs::create_dir_all(&self.directory).map_err(failure)?;
        self.replace(pool, &checkpoint.to_bytes()).map_err(failure)
    }

    fn replace(&self, pool: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, previous) = (self.path(pool), self.previous(pool));
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        // A second name for the old file, so that there is no moment without a file of the first name.
        match fs::remove_file(&previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::hard_link(&path, &previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        file.persist(&path)?;
        // The renames themselves are durable only when the directory is.
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use lb_common::address::Address;
    use lb_common::rows::{History, Member, PoolSpec};

    use super::*;

    fn members(count: u8) -> Vec<Member> {
        (0..count)
            .map(|last| Member { address: Address::from_v4_bytes([10, 8, 11, last]), weight: 1 })
            .collect()
    }

    fn checkpoint(count: u8) -> Checkpoint {
        let history = History::begin(PoolSpec::new(1, 12, 20, members(count))).expect("a valid pool");
        Checkpoint { history, prepared: Some(members(count + 1)) }
    }

    fn load(files: &HistoryFiles) -> Result<BTreeMap<String, Checkpoint>, HistoryError> {
        files.load([&"web".to_owned(), &"other".to_owned()])
    }

    #[test]
    fn a_saved_history_loads_as_itself_and_the_one_before_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = HistoryFiles::in_directory(directory.path());
        assert!(load(&files).expect("loads").is_empty());
        for count in [2, 3, 4] {
            files.save("web", &checkpoint(count)).expect("saves");
            let loaded = load(&files).expect("loads");
            assert_eq!(loaded.keys().collect::<Vec<_>>(), ["web"]);
            assert_eq!(loaded["web"], checkpoint(count));
        }
        let previous = fs::read(files.previous("web")).expect("reads");
        assert_eq!(Checkpoint::from_bytes(&previous), Ok(checkpoint(3)));
        let names = fs::read_dir(&files.directory).expect("lists").count();
        assert_eq!(names, 2, "no temporary file is left");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_both_copies_and_nothing_is_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = HistoryFiles::in_directory(directory.path());
        files.save("web", &checkpoint(2)).expect("saves");
        files.save("web", &checkpoint(3)).expect("saves");
        let mut bytes = fs::read(files.path("web")).expect("reads");
        bytes[1000] ^= 1;
        fs::write(files.path("web"), &bytes).expect("writes");
        let error = load(&files).expect_err("a damaged file");
        assert!(matches!(error, HistoryError::Damaged { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("history/web.rows is damaged"), "{said}");
        assert!(said.contains("put the previous copy") && said.contains("web.rows.previous"), "{said}");
        assert_eq!(fs::read(files.path("web")).expect("reads"), bytes);
        // The fix that the message names works.
        fs::rename(files.previous("web"), files.path("web")).expect("renames");
        assert_eq!(load(&files).expect("loads")["web"], checkpoint(2));
    }

    #[test]
    fn a_newer_file_is_refused_by_its_format_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = HistoryFiles::in_directory(directory.path());
        let mut bytes = checkpoint(2).to_bytes();
        bytes[8..12].copy_from_slice(&9_u32.to_be_bytes());
        let content = bytes.len() - 8;
        let checksum = xxhash(&bytes[..content]);
        bytes[content..].copy_from_slice(&checksum.to_be_bytes());
        fs::create_dir_all(&files.directory).expect("creates");
        fs::write(files.path("web"), &bytes).expect("writes");
        let error = load(&files).expect_err("a later format");
        assert!(matches!(error, HistoryError::Version { .. }), "{error}");
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(cause.contains("format 9"), "{cause}");
        assert_eq!(fs::read(files.path("web")).expect("reads"), bytes);
    }

    #[test]
    fn the_old_file_stands_when_the_new_one_cannot_be_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = HistoryFiles::in_directory(directory.path());
        // A full directory in the file's place: neither link nor rename works, for root too.
        fs::create_dir_all(files.path("web").join("full")).expect("creates");
        let error = files.save("web", &checkpoint(2)).expect_err("cannot be written");
        assert!(error.to_string().contains("web.rows"), "{error}");
        assert!(files.path("web").join("full").exists());
        assert_eq!(fs::read_dir(&files.directory).expect("lists").count(), 1, "no temporary file is left");
    }

    fn xxhash(bytes: &[u8]) -> u64 {
        xxhash_rust::xxh64::xxh64(bytes, 0)
    }
}
