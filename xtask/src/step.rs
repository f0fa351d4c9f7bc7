//! One step of the set-up: a child process whose progress is shown in one line.
//!
//! On a terminal the line is rewritten in place with the seconds and the child's last output.
//! Elsewhere (CI, a file) a line is added now and then. What the child said appears when it fails.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::output;

const REDRAW: Duration = Duration::from_millis(250);
const PLAIN_INTERVAL: Duration = Duration::from_secs(20);
/// Columns for the child's line, so that label, seconds and it stay on one line of a usual terminal.
const DETAIL_COLUMNS: usize = 40;
const LINES_ON_FAILURE: usize = 12;

/// Runs `command` to its end under the name `label`.
///
/// # Errors
/// The command cannot be started or fails; its last lines are then shown and `by_hand` is named.
pub(crate) fn run(label: &str, command: &mut Command, by_hand: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{label}: cannot run `{program}`; by hand: {by_hand}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender);
    }
    let mut view = View::new(label);
    let last = follow(&lines, &mut view);
    let status = child.wait().with_context(|| format!("{label}: lost sight of `{program}`"))?;
    if status.success() {
        view.end("done");
        return Ok(());
    }
    view.end("failed");
    for text in &last {
        output::note(&format!("    {text}"));
    }
    bail!("{label}: {program} failed ({status}); by hand: {by_hand}")
}

/// Sends each line of a pipe; ends with the pipe.
fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            // A receiver that left is not possible before both pipes are closed, but would be an end.
            if lines.send(printable(&line)).is_err() {
                return;
            }
        }
    });
}

/// Shows the lines until both pipes are closed and returns the last of them.
fn follow(lines: &Receiver<String>, view: &mut View<'_>) -> Vec<String> {
    let mut last: Vec<String> = Vec::new();
    loop {
        match lines.recv_timeout(REDRAW) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                if last.len() == LINES_ON_FAILURE {
                    last.remove(0);
                }
                last.push(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return last,
        }
        view.redraw(last.last().map_or("", String::as_str));
    }
}

struct View<'a> {
    label: &'a str,
    terminal: bool,
    started: Instant,
    drawn: Instant,
}

impl<'a> View<'a> {
    fn new(label: &'a str) -> Self {
        let now = Instant::now();
        let view = View { label, terminal: io::stderr().is_terminal(), started: now, drawn: now };
        if !view.terminal {
            output::note(&format!("  {label} ..."));
        }
        view
    }

    fn redraw(&mut self, detail: &str) {
        let pause = if self.terminal { REDRAW } else { PLAIN_INTERVAL };
        if self.drawn.elapsed() < pause {
            return;
        }
        self.drawn = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let detail: String = detail.chars().take(DETAIL_COLUMNS).collect();
        if self.terminal {
            output::progress(&format!("\r\x1b[2K  {} {seconds} s  {detail}", self.label));
        } else {
            output::note(&format!("  {} {seconds} s  {detail}", self.label));
        }
    }

    fn end(&self, outcome: &str) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let seconds = self.started.elapsed().as_secs_f32();
        output::note(&format!("{clear}  {} {outcome} ({seconds:.1} s)", self.label));
    }
}

/// The last state of a line that may have rewritten itself, without control characters.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_step_that_works_says_nothing_more() {
        run("true", &mut shell("echo a; echo b >&2"), "nothing").unwrap();
    }

    #[test]
    fn a_step_that_fails_names_the_command_its_status_and_the_way_out() {
        let error = run("thing", &mut shell("exit 7"), "install it yourself").unwrap_err().to_string();
        for part in ["thing", "sh failed", "exit status: 7", "install it yourself"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn a_step_whose_program_is_absent_names_the_way_out() {
        let mut command = Command::new("/no/such/program");
        let error = run("thing", &mut command, "get it").unwrap_err().to_string();
        assert!(error.contains("/no/such/program") && error.contains("get it"), "{error}");
    }

    #[test]
    fn of_a_line_that_rewrites_itself_the_last_state_is_shown() {
        assert_eq!(printable(b"10%\r55%\r 100%\r"), "100%");
        assert_eq!(printable(b"\x1b[1mbold\x07 "), "[1mbold");
        assert_eq!(printable(b""), "");
    }

    #[test]
    fn only_the_last_lines_are_kept_in_their_order() {
        let (sender, lines) = mpsc::channel();
        for n in 0..50 {
            sender.send(format!("line {n}")).unwrap();
        }
        drop(sender);
        let last = follow(&lines, &mut View::new("x"));
        assert_eq!(last.len(), LINES_ON_FAILURE);
        assert_eq!(last.last().unwrap(), "line 49");
        assert_eq!(last.first().unwrap(), "line 38");
    }
}
