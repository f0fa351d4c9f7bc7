//! Reads typed values out of a parsed TOML table and goes on after a mistake.
//!
//! serde stops at the first unknown key or wrong type; an operator wants all of them. So the table is walked
//! by hand: each key that is read counts as known, and the rest is reported.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Found, Wrong};
use crate::model::edits;

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// As written in the file: `[lb]`, `[[pool.backend]]`.
    name: &'static str,
    /// Where the table's header stands.
    span: Range<usize>,
    table: &'a DeTable<'a>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(name: &'static str, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { name, span, table, known: Vec::new() }
    }

    pub(super) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The value of a key; `None` where it is absent or wrong, and a wrong one is reported.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        found: &mut Found,
        read: impl FnOnce(&str, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        let value = self.get(key)?;
        match read(key, value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(wrong) => {
                found.add(&value.span(), wrong);
                None
            }
        }
    }

    /// Like [`Self::optional`], and absence is reported too.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        found: &mut Found,
        read: impl FnOnce(&str, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Spanned<T>> {
        if !self.table.contains_key(key) {
            found.add(&self.span, Wrong::new(format!("{} lacks `{key}`", self.name)));
        }
        self.optional(key, found, read)
    }

    /// A list of values: those that read. `None` where the key is absent or not a list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        found: &mut Found,
        mut read: impl FnMut(&str, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Spanned<Vec<Spanned<T>>>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            found.add(&value.span(), wrong_type(key, "a list", value.get_ref()));
            return None;
        };
        let mut list = Vec::new();
        for element in array {
            match read(key, element.get_ref()) {
                Ok(read) => list.push(Spanned::new(element.span(), read)),
                Err(wrong) => found.add(&element.span(), wrong),
            }
        }
        Some(Spanned::new(value.span(), list))
    }

    /// Like [`Self::list`], and an absent or empty list is reported.
    pub(super) fn filled_list<T>(
        &mut self,
        key: &'static str,
        found: &mut Found,
        read: impl FnMut(&str, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Vec<Spanned<T>>> {
        let value = self.table.get(key);
        if let Some((value, DeValue::Array(array))) = value.map(|value| (value, value.get_ref()))
            && array.is_empty()
        {
            found.add(&value.span(), Wrong::new(format!("`{key}` is empty")));
        }
        if value.is_none() {
            found.add(&self.span, Wrong::new(format!("{} lacks `{key}`", self.name)));
        }
        self.list(key, found, read).map(Spanned::into_inner)
    }

    /// The single table `[key]`, if there is one.
    pub(super) fn table(&mut self, key: &'static str, name: &'static str, found: &mut Found) -> Option<Self> {
        let value = self.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Section::new(name, value.span(), table));
        }
        found.add(&value.span(), Wrong::new(format!("`{key}` must be a section, written {name}")));
        None
    }

    /// All tables `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str, name: &'static str, found: &mut Found) -> Vec<Self> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let wrong = || Wrong::new(format!("`{key}` must be sections, each written {name}"));
        let DeValue::Array(array) = value.get_ref() else {
            found.add(&value.span(), wrong());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in array {
            match element.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(name, element.span(), table)),
                _ => found.add(&element.span(), wrong()),
            }
        }
        sections
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, found: &mut Found) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let close = self.known.iter().copied().min_by_key(|known| edits(name, known));
            let hint = match close {
                Some(close) if edits(name, close) <= 2.max(close.len() / 3) => {
                    format!("did you mean `{close}`?")
                }
                _ => format!("known here: {}", self.known.join(", ")),
            };
            found.add(&key.span(), Wrong::new(format!("unknown key `{name}` in {}", self.name)).hint(hint));
        }
    }
}

/// Text.
pub(super) fn string(key: &str, value: &DeValue<'_>) -> Result<String, Wrong> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(key, "a string", value))
}

pub(super) fn boolean(key: &str, value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| wrong_type(key, "true or false", value))
}

/// A whole number of a range.
pub(super) fn integer<T: TryFrom<i64> + Display + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(&str, &DeValue<'_>) -> Result<T, Wrong> {
    move |key, value| {
        let number = value.as_integer().ok_or_else(|| wrong_type(key, "a number", value))?;
        i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                Wrong::new(format!("{key} must be {} to {}, found {number}", range.start(), range.end()))
            })
    }
}

/// A number with or without a decimal point.
pub(super) fn float(key: &str, value: &DeValue<'_>) -> Result<f64, Wrong> {
    let text = match value {
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        _ => return Err(wrong_type(key, "a number", value)),
    };
    text.parse().map_err(|error| Wrong::new(format!("{key} is not a number: {error}")))
}

/// Text with a meaning; `what` names it ("an IP address, such as 10.8.11.2").
pub(super) fn parsed<T: FromStr>(what: &'static str) -> impl Fn(&str, &DeValue<'_>) -> Result<T, Wrong> {
    move |key, value| {
        let text = string(key, value)?;
        text.parse().ok().ok_or_else(|| Wrong::new(format!("{key} must be {what}, found \"{text}\"")))
    }
}

fn wrong_type(key: &str, wanted: &str, value: &DeValue<'_>) -> Wrong {
    let article = if value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
    Wrong::new(format!("{key} must be {wanted}, found {article} {}", value.type_str()))
}
