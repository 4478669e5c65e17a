//! The program `fpush`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fpush::main()
}
