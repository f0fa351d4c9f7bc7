//! One daemon per state directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

const FILE_NAME: &str = "lock";

/// Holds the state directory for one process; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error("another bowline uses the state directory {}; give this one a `state_dir` of its own", path.display())]
    Held { path: PathBuf },
    #[error("cannot lock the state directory {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl DirectoryLock {
    /// Takes the lock, or says that another process has it.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: state_dir.to_owned(), source };
        fs::create_dir_all(state_dir).map_err(failed)?;
        let file = File::create(state_dir.join(FILE_NAME)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { path: state_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_holder_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = DirectoryLock::take(directory.path()).expect("free");
        let refused = DirectoryLock::take(directory.path()).expect_err("taken");
        assert!(matches!(refused, LockError::Held { .. }), "{refused}");
        drop(held);
        DirectoryLock::take(directory.path()).expect("free again");
    }
}
