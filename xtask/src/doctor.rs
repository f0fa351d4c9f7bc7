//! `cargo xtask doctor`

use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::machine::{self, Found, Machine, Need, Piece};
use crate::output;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the machine has to be ready for; pieces for other uses are shown, but may be missing
    #[arg(long = "for", value_enum, default_value = "test")]
    need: Need,
    /// A table for people or JSON for programs
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let pieces = machine::all(&Machine::read()?);
    let lacking = machine::missing(&pieces, arguments.need).len();
    output::data(&match arguments.output {
        Format::Table => table(&pieces),
        Format::Json => json(&pieces, arguments.need, lacking == 0),
    })?;
    if lacking > 0 {
        let need = arguments.need.name();
        bail!("{lacking} missing for `{need}`; `cargo xtask setup --for {need}` installs what it can");
    }
    Ok(())
}

fn table(pieces: &[Piece]) -> String {
    let header = ["PIECE", "FOR", "FOUND", "WANTED", "FIX"].map(str::to_owned);
    let rows = pieces.iter().map(|piece| {
        let found = version(&piece.found);
        let fix = if found.is_some() { String::new() } else { piece.fix.clone() };
        let found = found.unwrap_or_else(|| "missing".to_owned());
        [piece.name.clone(), piece.need.name().to_owned(), found, piece.wanted.clone(), fix]
    });
    aligned(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn json(pieces: &[Piece], need: Need, ready: bool) -> String {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| {
            json!({
                "name": piece.name,
                "for": piece.need.name(),
                "found": version(&piece.found),
                "wanted": piece.wanted,
                "fix": piece.fix,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "for": need.name(), "ready": ready, "pieces": pieces }))
}

/// The version of a piece that is there; "there" when its program does not tell.
fn version(found: &Found) -> Option<String> {
    let words = match found {
        Found::No => return None,
        Found::Version(version) => return Some(version.clone()),
        Found::Ask(words) => words,
    };
    let (program, arguments) = words.split_first()?;
    let output = Command::new(program).args(arguments).output().ok();
    // nginx and dig answer on standard error.
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    Some(version_in(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "there".to_owned()))
}

/// The first dotted number with what hangs on it: `1.97.0-nightly`.
fn version_in(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| {
        word.match_indices('.').find_map(|(dot, _)| {
            let digits = word[..dot].bytes().rev().take_while(u8::is_ascii_digit).count();
            let dotted = digits > 0 && word[dot + 1..].starts_with(|c: char| c.is_ascii_digit());
            dotted.then(|| word[dot - digits..].trim_end_matches([',', ')', ';']).to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", "1.97.0-nightly"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.2", "6.1.0"),
            ("nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("iperf 3.12 (cJSON 1.7.15)", "3.12"),
            ("sysctl from procps-ng 4.0.2", "4.0.2"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(version_in("no number. here 5"), None);
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let rows =
            [["A", "B", ""], ["long name", "x", "fix"], ["s", "ü", ""]].map(|row| row.map(str::to_owned));
        let text = aligned(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].find('B'), lines[1].find('x'));
        assert!(lines.iter().all(|line| *line == line.trim_end()));
    }

    #[test]
    fn a_missing_piece_is_null_in_json_and_keeps_its_fix() {
        let piece = Piece {
            name: "nft".to_owned(),
            need: Need::Demo,
            wanted: "any".to_owned(),
            found: Found::No,
            remedy: machine::Remedy::Package("nftables"),
            fix: "apt-get install nftables".to_owned(),
        };
        let value: serde_json::Value = serde_json::from_str(&json(&[piece], Need::Test, false)).unwrap();
        assert_eq!(value["ready"], false);
        assert!(value["pieces"][0]["found"].is_null());
        assert_eq!(value["pieces"][0]["fix"], "apt-get install nftables");
    }
}
