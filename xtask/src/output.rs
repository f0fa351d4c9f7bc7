//! The one door to the terminal: data to standard output, talk to standard error.

use std::io::{self, Write as _};

use anyhow::{Error, Result};

/// Writes what a verb was asked for.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Tells the person at the terminal something, on a line of its own.
pub(crate) fn note(line: &str) {
    progress(&format!("{line}\n"));
}

/// Writes a piece of a progress line as it is.
pub(crate) fn progress(text: &str) {
    let mut err = anstream::stderr().lock();
    // When standard error is closed nobody is left to be told.
    if err.write_all(text.as_bytes()).is_ok() && err.flush().is_err() {}
}

/// The reader of our output has left, as in `| head`: an end, not an error.
pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
