//! What the demo says: headings, aligned tables, promises kept or not.

use std::io::{self, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anstream::{AutoStream, stdout};
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Writes to standard output, coloured only where that is a terminal, and remembers the promises.
#[derive(Debug)]
pub struct Report {
    out: AutoStream<io::Stdout>,
    broken: usize,
    made: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self { out: stdout(), broken: 0, made: 0 }
    }
}

impl Report {
    pub fn heading(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.out, "\n{BOLD}{text}{PLAIN}\n")?)
    }

    pub fn line(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Something of less weight: packets, output of other commands. Indented.
    pub fn quote(&mut self, text: &str) -> Result<()> {
        text.lines().try_for_each(|line| Ok(writeln!(self.out, "  {DIM}{line}{PLAIN}")?))
    }

    /// A table: the first column is text, the others are figures, aligned to the right.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head);
        table.add_rows(rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.line(&table.trim_fmt())
    }

    /// States a promise and whether it holds.
    pub fn promise(&mut self, holds: bool, text: &str) -> Result<()> {
        self.made += 1;
        let (colour, word) = if holds { (GREEN, "ok    ") } else { (RED, "BROKEN") };
        self.broken += usize::from(!holds);
        Ok(writeln!(self.out, "  {colour}{word}{PLAIN} {text}")?)
    }

    /// Promises made, and those broken.
    pub fn promises(&self) -> (usize, usize) {
        (self.made, self.broken)
    }

    /// Does some work; what takes longer than a second shows dots on standard error.
    pub fn during<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.out.flush()?;
        let (done, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || dots(what, &wait));
            let result = work();
            drop(done);
            result
        })
    }
}

/// The reader of our output has left, as in `| head`: an end, not an error.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dots(what: &str, wait: &mpsc::Receiver<()>) {
    let mut err = anstream::stderr();
    let mut shown = false;
    let mut delay = Duration::from_secs(1);
    while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(delay) {
        let text = if shown { "." } else { what };
        // When standard error is closed nobody is left to be told.
        drop(write!(err, "{text}").and_then(|()| err.flush()));
        (shown, delay) = (true, Duration::from_millis(500));
    }
    if shown {
        drop(writeln!(err));
    }
}
