//! The seed's failure, its cure, and a change of backends while flows run. Called by `cargo xtask demo`.

use std::io::Write as _;
use std::process::ExitCode;

use lb_tests::demo;
use lb_tests::report::is_closed_pipe;

fn main() -> ExitCode {
    match demo::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is closed nobody is left to be told.
            drop(writeln!(anstream::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
