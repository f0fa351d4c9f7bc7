//! What the members' manifests must say: the arrows between crates, and the shared tables.

use anyhow::{Context as _, Result};

use super::{Findings, text_of};
use crate::workspace;

/// Which members each member may depend on.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("lb-common", &[]),
    ("lb-ebpf", &["lb-common"]),
    ("lb-userspace", &["lb-common"]),
    ("lb-tests", &["lb-common", "lb-userspace"]),
    ("xtask", &[]),
];

pub(super) fn check() -> Result<Findings> {
    let mut findings = Findings::new();
    for (name, folder) in workspace::MEMBERS {
        let path = workspace::root().join(folder).join("Cargo.toml");
        let manifest = text_of(&path)?.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        findings
            .extend(broken(name, &manifest).into_iter().map(|what| format!("{folder}/Cargo.toml: {what}")));
    }
    Ok(findings)
}

fn broken(name: &str, manifest: &toml::Table) -> Findings {
    let allowed =
        MAY_IMPORT.iter().find(|(member, _)| *member == name).map_or(&[][..], |(_, allowed)| allowed);
    let mut findings = Findings::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        for (dependency, value) in table {
            let member = MAY_IMPORT.iter().any(|(member, _)| member == dependency);
            if member && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{name} must not depend on {dependency}"));
            }
            if !from_workspace(value) {
                findings.push(format!(
                    "{dependency}: its version belongs into the root's [workspace.dependencies]"
                ));
            }
        }
    }
    let package = manifest.get("package");
    for key in ["edition", "rust-version"] {
        if !package.and_then(|package| package.get(key)).is_some_and(from_workspace) {
            findings.push(format!("[package] lacks `{key}.workspace = true`"));
        }
    }
    // A lint table that nobody opts into is decoration.
    if !manifest.get("lints").is_some_and(from_workspace) {
        findings.push("lacks [lints] `workspace = true`".to_owned());
    }
    findings
}

fn from_workspace(value: &toml::Value) -> bool {
    value.get("workspace").and_then(toml::Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, dependencies: &str) -> Findings {
        let text = format!(
            "[package]\nedition.workspace = true\nrust-version.workspace = true\n\
             [lints]\nworkspace = true\n{dependencies}\n"
        );
        broken(name, &text.parse().unwrap())
    }

    #[test]
    fn arrows_that_are_allowed_are_clean() {
        assert_eq!(of("lb-userspace", "[dependencies]\nlb-common.workspace = true"), Findings::new());
        assert_eq!(of("lb-common", "[dev-dependencies]\nproptest.workspace = true"), Findings::new());
    }

    #[test]
    fn an_arrow_against_the_direction_is_named_in_every_section() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let findings = of("lb-common", &format!("[{section}]\nlb-userspace = {{ workspace = true }}"));
            assert_eq!(findings, ["lb-common must not depend on lb-userspace"], "{section}");
        }
        assert_eq!(of("xtask", "[dependencies]\nlb-common.workspace = true").len(), 1);
    }

    #[test]
    fn versions_outside_the_table_and_missing_lints_are_named() {
        assert_eq!(of("lb-common", "[dependencies]\nserde = \"1\"").len(), 1);
        assert_eq!(broken("xtask", &toml::Table::new()).len(), 3);
    }

    #[test]
    fn the_members_are_those_of_the_workspace() {
        let names: Vec<_> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, workspace::MEMBERS.map(|(name, _)| name));
    }
}
