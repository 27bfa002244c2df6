//! `/init` of a microVM, under two names.
//!
//! * `sbx-init …` inside a container: the reaper of `--init`, or the keeper of one whose program does not run.
//! * everything else: the agent, which is PID 1.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| name.as_bytes() == sbx_container::init::NAME.to_bytes()) {
        sbx_container::init::main(arguments);
    }
    sbx_guest_agent::main()
}
