//! What is wrong with a configuration file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::model::Refusal;

/// Everything that is wrong with one file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub file: PathBuf,
    /// Not empty.
    pub list: Vec<Problem>,
}

/// One mistake. Line and column begin at 1; the column counts characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// Problems while they are found, by byte offset.
#[derive(Debug, Default)]
pub(super) struct Found {
    list: Vec<(usize, Wrong)>,
}

/// What is wrong with a value, without its place.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self { message: refusal.to_string(), hint: refusal.hint() }
    }
}

impl Found {
    pub(super) fn add(&mut self, at: &Range<usize>, wrong: impl Into<Wrong>) {
        self.list.push((at.start, wrong.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems with their lines and columns in `text`.
    pub(super) fn into_problems(mut self, file: &Path, text: &str) -> Problems {
        // The sort is stable: problems of one place stay in the order they were found.
        self.list.sort_by_key(|(at, _)| *at);
        let list = self.list.into_iter().map(|(at, wrong)| {
            let before = text.get(..at).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            Problem {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message: wrong.message,
                hint: wrong.hint,
            }
        });
        Problems { file: file.to_owned(), list: list.collect() }
    }
}

impl std::error::Error for Problems {}

/// `bowline.toml:14:10: message`, hints indented below, and the count as the last line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            let Problem { line, column, message, .. } = problem;
            writeln!(f, "{}:{line}:{column}: {message}", self.file.display())?;
            if let Some(hint) = &problem.hint {
                writeln!(f, "  hint: {hint}")?;
            }
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{} error{plural} in {}", self.list.len(), self.file.display())
    }
}
