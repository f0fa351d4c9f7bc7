//! No file holds more than 400 lines that are not tests (comments count: they are read as well).

use super::Findings;
use super::sources::Source;

const LIMIT: usize = 400;

/// Folders and files that hold nothing but tests.
const TESTS: [&str; 3] = ["tests/kernel/", "tests/netns/", "/tests.rs"];

pub(super) fn check(sources: &[Source]) -> Findings {
    sources
        .iter()
        .filter(|source| !TESTS.iter().any(|part| source.path.contains(part)))
        .map(|source| (&source.path, lines_without_tests(&source.text)))
        .filter(|&(_, lines)| lines > LIMIT)
        .map(|(path, lines)| {
            format!("{path}: {lines} lines without tests, the limit is {LIMIT}: split it by subject")
        })
        .collect()
}

/// Counts the lines outside items marked `#[cfg(test)]`. Relies on rustfmt: an item of several lines
/// ends with a closing brace in the column of its attribute.
fn lines_without_tests(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indent}}}");
            // Attributes and comments stand between the mark and the item.
            let item = lines.find(|line| !line.trim_start().starts_with(['#', '/']));
            if item.is_some_and(|item| !item.ends_with([';', '}'])) {
                lines.find(|line| line.trim_end() == end);
            }
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_test_modules_and_test_functions_do_not_count() {
        let text = "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {\n    }\n}\n";
        assert_eq!(lines_without_tests(text), 3);
        let method = "impl A {\n    #[cfg(test)]\n    #[must_use]\n    fn t() {\n        x();\n    }\n    fn u() {}\n}\n";
        assert_eq!(lines_without_tests(method), 3);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_hides_nothing_after_it() {
        assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\nfn a() {}\nfn b() {}\n"), 2);
    }

    #[test]
    fn comments_count() {
        assert_eq!(lines_without_tests("//! doc\n\n// why\nfn a() {}\n"), 4);
    }

    #[test]
    fn only_too_long_files_that_are_not_tests_are_named() {
        let file = |path: &str, lines| Source { path: path.to_owned(), text: "x();\n".repeat(lines) };
        let sources = [
            file("lb-common/src/a.rs", LIMIT),
            file("lb-common/src/b.rs", LIMIT + 1),
            file("lb-common/src/b/tests.rs", LIMIT + 1),
            file("tests/netns/main.rs", LIMIT + 1),
        ];
        let findings = check(&sources);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("lb-common/src/b.rs"));
    }
}
