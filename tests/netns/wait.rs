//! Waiting for something to become so, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until it is so; an error, and not a hang, if it is not within `patience`.
pub(crate) fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("not so within {patience:?}: {what}");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
