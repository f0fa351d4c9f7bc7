//! Inside the `bowline` crate nothing imports the command line but the command line and the binary.

use super::Findings;
use super::sources::Source;

/// A module that only the named files may import.
struct Rule {
    crate_folder: &'static str,
    module: &'static str,
    allowed: &'static [&'static str],
}

const RULES: [Rule; 1] = [Rule {
    crate_folder: "lb-userspace/src/",
    module: "cli",
    allowed: &["lb-userspace/src/cli/", "lb-userspace/src/cli.rs", "lb-userspace/src/bin/"],
}];

pub(super) fn check(sources: &[Source]) -> Findings {
    let mut findings = Findings::new();
    for rule in &RULES {
        let bound = |source: &&Source| {
            source.path.starts_with(rule.crate_folder)
                && !rule.allowed.iter().any(|allowed| source.path.starts_with(allowed))
        };
        for source in sources.iter().filter(bound) {
            let imports = imports(&source.text);
            findings.extend(imports.iter().filter(|(module, _)| module == rule.module).map(
                |(module, line)| {
                    format!("{}:{line}: imports `{module}`; arrows point away from it", source.path)
                },
            ));
        }
    }
    findings
}

/// The first name after each `crate::` or `super::`, each name of a group, with its line.
fn imports(text: &str) -> Vec<(String, usize)> {
    let code = without_comments(text);
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let line = code[..at].matches('\n').count() + 1;
            let names = names_after(&code[at + start.len()..]);
            found.extend(names.into_iter().map(|name| (name, line)));
        }
    }
    found
}

/// `a::b` gives a; `{a::{x, y}, b as c}` gives a and b.
fn names_after(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut begin = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[begin..at]));
                begin = at + 1;
            }
            '}' => {
                names.push(name(&group[begin..at]));
                break;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The text with line comments cut, its lines kept. (A `//` in a string cuts too much, never an import.)
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn an_import_of_the_command_line_is_found_however_it_is_written() {
        for text in [
            "use crate::cli::Args;",
            "use crate::{api, cli::Args};",
            "use crate::{\n    api::{a, b},\n    cli,\n};",
            "fn f() { crate::cli::run() }",
            "use super::cli;",
            "pub use crate::cli as c;",
        ] {
            let findings = check(&[source("lb-userspace/src/api/mod.rs", text)]);
            assert_eq!(findings.len(), 1, "{text}");
        }
    }

    #[test]
    fn the_finding_names_file_and_line() {
        let findings = check(&[source("lb-userspace/src/api.rs", "// crate::cli\n\nuse crate::cli;\n")]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("lb-userspace/src/api.rs:3:"), "{findings:?}");
    }

    #[test]
    fn other_imports_and_other_files_are_free() {
        for (path, text) in [
            ("lb-userspace/src/api.rs", "use crate::client; use crate::{api::cli_words, climate};"),
            ("lb-userspace/src/cli/vip.rs", "use crate::cli::output;"),
            ("lb-userspace/src/bin/bowline.rs", "use crate::cli;"),
            ("tests/src/lib.rs", "use crate::cli;"),
        ] {
            assert_eq!(check(&[source(path, text)]), Findings::new(), "{path}: {text}");
        }
    }
}
