//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    match vestibule::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}
