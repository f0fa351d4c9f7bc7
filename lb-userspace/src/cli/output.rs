//! The only door to standard output and standard error.
//!
//! Data goes to standard output, talk to standard error. A reader that went away (`bowline stats | head`) is no
//! error: the write reports it, and `cli::main` ends quietly with status 0.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::args::Format;

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
    color: ColorChoice,
    quiet: bool,
}

/// How the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Output {
    pub(super) fn new(format: Format, color: ColorChoice, quiet: bool) -> Self {
        Self { format, color, quiet }
    }

    pub(super) fn wide(self) -> bool {
        self.format == Format::Wide
    }

    pub(super) fn is_json(self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Prints `value` as JSON, or what `text` makes of it for people.
    pub(super) fn show<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.print(&text(value)),
            Format::Json => self.print(&format!("{}\n", serde_json::to_string_pretty(value)?)),
            Format::Jsonl => match serde_json::to_value(value)? {
                Value::Array(list) => {
                    let lines: Vec<String> = list.iter().map(|one| format!("{one}\n")).collect();
                    self.print(&lines.concat())
                }
                one => self.print(&format!("{one}\n")),
            },
        }
    }

    /// Prints the confirmation of a change, which `--quiet` leaves out.
    pub(super) fn confirm<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        if self.quiet && !self.is_json() {
            return Ok(());
        }
        self.show(value, text)
    }

    /// Writes text to standard output as it is.
    pub(super) fn print(self, text: &str) -> io::Result<()> {
        let mut stdout = AutoStream::new(io::stdout().lock(), self.color);
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Tells of a failure on standard error.
    pub(super) fn complain(self, error: &str, hint: Option<&str>) -> io::Result<()> {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color);
        writeln!(stderr, "{RED}error:{PLAIN} {error}")?;
        match hint {
            Some(hint) => writeln!(stderr, "  {CYAN}hint:{PLAIN} {hint}"),
            None => Ok(()),
        }
    }

    /// Writes text to standard error as it is.
    pub(super) fn talk(self, text: &str) -> io::Result<()> {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color);
        writeln!(stderr, "{text}")
    }
}

/// Text in the colour of good news.
pub(super) fn good(text: &str) -> String {
    format!("{GREEN}{text}{PLAIN}")
}

/// Text in the colour of bad news.
pub(super) fn bad(text: &str) -> String {
    format!("{RED}{text}{PLAIN}")
}

/// Aligned columns without borders, one line per row, and a line end after the last.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    table.add_rows(rows);
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if matches!(kind, Column::Number(_)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `name  value` lines with the values aligned.
pub(super) fn fields(list: &[(&str, String)]) -> String {
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    list.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Bytes for people: `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
