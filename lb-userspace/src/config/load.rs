//! Reads the configuration file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::check::{Config, check};
use super::problem::Problems;

#[derive(Debug, Error)]
pub enum LoadError {
    #[error("there is no configuration file {}", file.display())]
    Missing { file: PathBuf },
    #[error("no permission to read the configuration file {}; run as root or as its owner", file.display())]
    Permission { file: PathBuf },
    #[error("{} is a directory; name the configuration file in it", file.display())]
    Directory { file: PathBuf },
    #[error("the configuration file {} is not UTF-8 text (byte {at})", file.display())]
    NotText { file: PathBuf, at: usize },
    #[error("cannot read the configuration file {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error(transparent)]
    Wrong(#[from] Problems),
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Result<Config, LoadError> {
    let owned = || file.to_owned();
    let bytes = fs::read(file).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LoadError::Missing { file: owned() },
        io::ErrorKind::PermissionDenied => LoadError::Permission { file: owned() },
        io::ErrorKind::IsADirectory => LoadError::Directory { file: owned() },
        _ => LoadError::Read { file: owned(), source },
    })?;
    let text = str::from_utf8(&bytes)
        .map_err(|error| LoadError::NotText { file: owned(), at: error.valid_up_to() })?;
    Ok(check(text, file)?)
}
