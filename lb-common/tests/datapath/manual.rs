//! The manual's table of reasons and the code's are the same.

use lb_common::reason::{AgentReason, Reason};

const MANUAL: &str = include_str!("../../../ARCHITECTURE.md");

#[test]
fn every_reason_has_its_row_in_the_manual_and_the_manual_has_no_others() {
    let of_lb = Reason::ALL.iter().map(|reason| (reason.name(), reason.fate().name(), reason.help()));
    let of_agent = AgentReason::ALL.iter().map(|reason| (reason.name(), reason.fate().name(), reason.help()));
    let wanted: Vec<String> =
        of_lb.chain(of_agent).map(|(name, fate, help)| format!("| `{name}` | {fate} | {help} |")).collect();
    let (_, section) = MANUAL.split_once("## Ways out").expect("the section exists");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let written: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(written, wanted);
}
