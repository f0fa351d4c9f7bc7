//! The bowline command.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
